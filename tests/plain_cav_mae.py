"""CAV-MAE's forward passes as plain formulas over its own state dict, to test our reading against.

Written from the paper (Gong et al., ICLR 2023, section 2) and the names in its checkpoints, without
`module.`; a and v are CAV-MAE's letters for audio and image, u for the blocks on both.

python tests/plain_cav_mae.py model.pth io.npz --heads 4       this reading against official outputs
"""
import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

OUTPUTS = ("multimodal", "feat_audio", "feat_image", "audioonly", "videoonly", "missingaudioonly",
           "missingvideoonly")
Weights = dict[str, Tensor]       # {official name: tensor}


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-5) * weight + bias, over the width"""
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5)


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attention(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for each head, d = D / heads; then a projection of all heads"""
    B, N, D = x.shape
    qkv = linear(x, w, f"{name}.qkv").reshape(B, N, 3, heads, D // heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)                         # [B, heads, N, d]
    weights = (query @ key.transpose(-2, -1) / (D // heads) ** 0.5).softmax(dim=-1)
    return linear((weights @ value).transpose(1, 2).reshape(B, N, D), w, f"{name}.proj")


def blocks(x: Tensor, w: Weights, stack: str, heads: int, norms: str = "") -> Tensor:
    """x + attention(LN x), then x + MLP(LN x). norms: "", or "_a" or "_v", one modality's own"""
    i = 0
    while f"{stack}.{i}.norm1.weight" in w:
        name = f"{stack}.{i}"
        x = x + attention(norm(x, w, f"{name}.norm1{norms}"), w, f"{name}.attn", heads)
        hidden = F.gelu(linear(norm(x, w, f"{name}.norm2{norms}"), w, f"{name}.mlp.fc1"))
        x, i = x + linear(hidden, w, f"{name}.mlp.fc2"), i + 1
    return x


def encode(pixels: Tensor, w: Weights, letter: str, heads: int) -> Tensor:
    """[B, channels, height, width]: patches, positions, the modality's token and blocks"""
    kernel, bias = (w[f"patch_embed_{letter}.proj.{part}"] for part in ("weight", "bias"))
    x = F.conv2d(pixels, kernel, bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    x = x + w[f"pos_embed_{letter}"] + w[f"modality_{letter}"]
    return blocks(x, w, f"blocks_{letter}", heads)


def head(x: Tensor, w: Weights) -> Tensor:
    return linear(norm(x, w, "mlp_head.0"), w, "mlp_head.1")


def outputs(w: Weights, audio: Tensor, image: Tensor, heads: int) -> dict[str, Tensor]:
    """audio [B, T, M], image [B, 3, H, W]; returns {name in OUTPUTS: tensor}"""
    tokens = encode(audio.transpose(1, 2)[:, None], w, "a", heads), encode(image, w, "v", heads)
    joint = norm(blocks(torch.cat(tokens, dim=1), w, "blocks_u", heads), w, "norm")
    found = {"multimodal": head(joint.mean(dim=1), w)}
    for x, letter, ours, theirs in zip(tokens, "av", ("audio", "image"), ("audio", "video")):
        alone = norm(blocks(x, w, "blocks_u", heads, f"_{letter}"), w, f"norm_{letter}")
        shared = norm(blocks(x, w, "blocks_u", heads), w, "norm")
        means = alone.mean(dim=1), (alone.mean(dim=1) + shared.mean(dim=1)) / 2
        found |= {f"feat_{ours}": alone, f"{theirs}only": head(means[0], w),
                  f"missing{theirs}only": head(means[1], w)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="CAV-MAE checkpoint, fine-tuned")
    parser.add_argument("io", type=Path, help=f"audio, image and official {', '.join(OUTPUTS)}")
    parser.add_argument("--heads", type=int, default=12)
    args = parser.parse_args()
    official = {name: torch.from_numpy(array) for name, array in np.load(args.io).items()}
    saved = torch.load(args.model, weights_only=True)
    weights = {name.removeprefix("module."): tensor for name, tensor in saved.items()}
    found = outputs(weights, official["audio"], official["image"], args.heads)
    for name in OUTPUTS:
        print(f"{name:<20} {(found[name] - official[name]).abs().max():.1e}")


if __name__ == "__main__":
    main()
