"""CAV-MAE's forward passes as plain formulas over its own state dict: an oracle for the loader, a yardstick for speed.

Written from the paper (Gong et al., ICLR 2023, section 2) and from the names and shapes in its checkpoints; softmax attention
is written out. Weights are looked up by the official names, without `module.`; a and v are CAV-MAE's letters for audio and
image, u for the blocks on both.

python tests/plain_cav_mae.py model.pth io.npz --heads 4       this reading and our backbone against official outputs
"""
import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ptm_mini.config import PRESETS
from ptm_mini.method.backbone import Backbone
from ptm_mini.runs import cav_mae, checkpoint
from ptm_mini.settings import with_settings

OUTPUTS = ("multimodal", "feat_audio", "feat_image", "audioonly", "videoonly", "missingaudioonly", "missingvideoonly")


def norm(x, w, name):
    """LN(x) = (x - mean) / sqrt(variance + 1e-5) * weight + bias, over the width"""
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5)


def linear(x, w, name):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attention(x, w, name, heads):
    """softmax(q k^T / sqrt(d)) v for each head, d = D / heads, then a projection of all heads' outputs side by side"""
    B, N, D = x.shape
    query, key, value = linear(x, w, f"{name}.qkv").reshape(B, N, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) / (D // heads) ** 0.5).softmax(dim=-1)          # [B, heads, N, N]
    return linear((weights @ value).transpose(1, 2).reshape(B, N, D), w, f"{name}.proj")


def block(x, w, name, heads, norms=""):
    """x + attention(LN x), then x + MLP(LN x). norms: "", or "_a" or "_v", the modality's own"""
    x = x + attention(norm(x, w, f"{name}.norm1{norms}"), w, f"{name}.attn", heads)
    return x + linear(F.gelu(linear(norm(x, w, f"{name}.norm2{norms}"), w, f"{name}.mlp.fc1")), w, f"{name}.mlp.fc2")


def blocks(x, w, stack, heads, norms=""):
    i = 0
    while f"{stack}.{i}.norm1.weight" in w:
        x, i = block(x, w, f"{stack}.{i}", heads, norms), i + 1
    return x


def encoder(pixels, w, letter, heads):
    """pixels [B, channels, height, width]: 16 x 16 patches, positions, the modality's token, the modality's blocks"""
    embedding = f"patch_embed_{letter}.proj"
    x = F.conv2d(pixels, w[f"{embedding}.weight"], w[f"{embedding}.bias"], stride=w[f"{embedding}.weight"].shape[-1])
    x = x.flatten(2).transpose(1, 2) + w[f"pos_embed_{letter}"] + w[f"modality_{letter}"]
    return blocks(x, w, f"blocks_{letter}", heads)


def encoders(w, audio, image, heads):
    """audio [B, T, M], image [B, 3, H, W]; returns [B, N_a, D], [B, N_v, D]"""
    return encoder(audio.transpose(1, 2)[:, None], w, "a", heads), encoder(image, w, "v", heads)


def head(x, w):
    return linear(norm(x, w, "mlp_head.0"), w, "mlp_head.1")


def multimodal(w, audio, image, heads):
    """Logits [B, K] of the ordinary forward pass, which is what our Backbone computes."""
    x = torch.cat(encoders(w, audio, image, heads), dim=1)
    return head(norm(blocks(x, w, "blocks_u", heads), w, "norm").mean(dim=1), w)


def outputs(w, audio, image, heads):
    """{name in OUTPUTS: array}"""
    found = {"multimodal": multimodal(w, audio, image, heads)}
    for x, letter, ours, theirs in zip(encoders(w, audio, image, heads), "av", ("audio", "image"), ("audio", "video")):
        own = norm(blocks(x, w, "blocks_u", heads, f"_{letter}"), w, f"norm_{letter}")
        shared = norm(blocks(x, w, "blocks_u", heads), w, "norm")
        found |= {f"feat_{ours}": own, f"{theirs}only": head(own.mean(dim=1), w),
                  f"missing{theirs}only": head((own.mean(dim=1) + shared.mean(dim=1)) / 2, w)}
    return found


def config_for(checkpoint, heads, audio, image):
    """The Config, without fusion, that a Checkpoint with these inputs needs."""
    tensors, (_, T, M) = checkpoint.tensors, audio.shape
    width, _, _, patch = tensors["patch_embed_a.proj.weight"].shape
    depths = {key: 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{stack}."))
              for key, stack in (("model.depth", "blocks_a"), ("model.joint_depth", "blocks_u"))}
    return with_settings(PRESETS["tiny"], {
        **depths, "model.width": width, "model.heads": heads, "model.fusion": "none", "model.audio_patch": patch,
        "model.image_patch": patch, "audio.mels": M, "audio.seconds": (10 * T + 15) / 1000, "image.size": image.shape[-1],
        "prompts.input_depth": 0})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="CAV-MAE checkpoint, fine-tuned")
    parser.add_argument("io", type=Path, help=f"audio [B, T, M], image [B, 3, H, W] and the official {', '.join(OUTPUTS)}")
    parser.add_argument("--heads", type=int, default=12)
    options = parser.parse_args()
    official, found = np.load(options.io), checkpoint.read(options.model)
    audio, image = torch.from_numpy(official["audio"]), torch.from_numpy(official["image"])
    classes = len(found.tensors["mlp_head.1.bias"])
    config = config_for(found, options.heads, audio, image)
    start = cav_mae.as_ours(found, config, classes)
    backbone = Backbone(config, classes)
    backbone.load_state_dict(start.weights)
    with torch.no_grad():
        plain = outputs(found.tensors, audio, image, options.heads)
        ours = {"multimodal": backbone(audio, image), **cav_mae.single_modality(backbone, start.norms, audio, image)}
    print(f"largest difference from the official outputs    {'plain':>10} {'ours':>10}")
    for name in OUTPUTS:
        print(f"{name:<47}", *(f"{np.abs(one[name].numpy() - official[name]).max():10.1e}" for one in (plain, ours)))


if __name__ == "__main__":
    main()
