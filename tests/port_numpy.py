"""The method in NumPy and float64, beside docs/porting.md: each docstring begins with the section that it follows.

B batch, T frames, M mel bins, H = W picture, N tokens of a stream, P prompt length, L prompt depth, D width, K classes.
"""
import hashlib
import math

import numpy as np

RATE, SAMPLES, M, H = 8000, 3960, 32, 24
D, HEADS, BLOCKS, FUSION_BLOCKS, JOINT_BLOCKS = 16, 2, 3, 2, 1
EPS, ALPHA = 1e-5, 8
PLACES = ("audio_input", "image_input", "audio_attention", "image_attention", "joint")


def resample(x, source, target):
    """1. [samples] -> [ceil(samples target / source)]; not for equal rates"""
    c = 0.99 * min(1, target / source)
    at = np.arange(math.ceil(len(x) * target / source))[:, None] * source / target
    reach = math.ceil(6 / c)
    k = np.floor(at).astype(int) + np.arange(-reach, reach + 2)         # all that |c u| < 6 can reach
    u = c * (k - at)
    h = np.where(abs(u) < 6, c * np.sinc(u) * np.cos(np.pi * u / 12) ** 2, 0)
    return (h * np.pad(x, reach + 1)[k + reach + 1]).sum(axis=1)


def sound(stored, rate):
    """1. [samples, channels] int16 -> {mono, resampled, waveform [SAMPLES]}"""
    mono = (stored / 32768).mean(axis=1)
    resampled = mono if rate == RATE else resample(mono, rate, RATE)
    x = resampled[:SAMPLES]
    return {"mono": mono, "resampled": resampled, "waveform": np.pad(x - x.mean(), (0, SAMPLES - len(x)))}


def filterbank(waveform):
    """2. [samples] -> {window [w], filters [F / 2 + 1, M], frames, windowed [T, w], power [T, F / 2 + 1], energy, log_mel}"""
    w, hop = int(0.025 * RATE), int(0.010 * RATE)
    F = 1 << (w - 1).bit_length()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(w) / (w - 1))
    x = 1127 * np.log(1 + np.arange(F // 2 + 1) * RATE / F / 700)[:, None]              # mel of each bin
    edges = np.linspace(1127 * math.log(1 + 20 / 700), x[-1, 0], M + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((x - left) / (centre - left), (right - x) / (right - centre)))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, w)[::hop]
    y = frames - frames.mean(axis=1, keepdims=True)
    windowed = (y - 0.97 * np.roll(y, 1, axis=1)) * window                              # whatever is before the first sample
    power = abs(np.fft.rfft(windowed, F)) ** 2
    energy = power @ filters
    return {"window": window, "filters": filters, "frames": frames, "windowed": windowed, "power": power, "energy": energy,
            "log_mel": np.log(np.maximum(energy, 2 ** -23))}


def normalise(log_mel, mean, std):
    """3. [T, M] -> audio [T, M]; only then is a modality that is missing set to 0"""
    return (log_mel - mean) / std


def resize_weights(length, other):
    """4. Both sides of a picture -> [H, length], how much each pixel along the first counts in each new one"""
    side = min(length, other)
    q = side / H
    t = abs(np.arange(length) + 0.5 - (length - side) / 2 - q * (np.arange(H)[:, None] + 0.5)) / max(q, 1)
    near, far = 1.5 * t ** 3 - 2.5 * t ** 2 + 1, -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def picture(stored):
    """4. [h, w] of 8 or 16 bits, [h, w, 3] or [h, w, 4] -> {rgb [h, w, 3], resized, pixels, image [3, H, W]}"""
    x = np.round(stored / 257) if stored.dtype == np.uint16 else stored.astype(float)
    x = np.stack([x, x, x], axis=2) if x.ndim == 2 else x
    rgb = np.floor(255 + (x[..., :3] - 255) * x[..., 3:] / 255 + 0.5) if x.shape[2] == 4 else x
    (h, w, _), channels = rgb.shape, rgb.transpose(2, 0, 1)
    resized = resize_weights(h, w) @ channels @ resize_weights(w, h).T
    pixels = np.clip(np.floor(resized + 0.5), 0, 255)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return {"rgb": rgb, "resized": resized, "pixels": pixels, "image": (pixels / 255 - mean) / std}


def gelu(u):
    """6. Each element by itself"""
    return u * (1 + np.vectorize(math.erf, otypes=[float])(u / math.sqrt(2))) / 2


def softmax(x):
    """6. Over the last axis"""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Model:
    """5 to 8 and 11. Weights by name: the backbone's and, over or beside them, those of a prompt set or of a baseline"""

    def __init__(self, *weights):
        self.weights = {name: value for part in weights for name, value in part.items()}
        self.trace = {}                                                 # what is computed on the way, by name

    def linear(self, x, path):
        """6 and 11. [..., fan in] -> [..., fan out], with LoRA where there is one"""
        weight, bias, down, up = (self.weights.get(path + part) for part in (".weight", ".bias", ".down", ".up"))
        y = x @ weight.T + bias
        return y if down is None else y + ALPHA / len(down) * (x @ down.T) @ up.T

    def adapt(self, y, path):
        """11. [B, N, D] -> [B, N, D]: an Adapter where there is one"""
        down, down_bias, up, up_bias = (self.weights.get(path + part) for part in (".down", ".down_bias", ".up", ".up_bias"))
        return y if down is None else y + gelu(y @ down.T + down_bias) @ up.T + up_bias

    def layer_norm(self, x, path):
        """6 and 11. [..., D] -> [..., D], with a scale and a shift where there are any"""
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + EPS)
        x = x * self.weights[path + ".weight"] + self.weights[path + ".bias"]
        return x * self.weights.get(path + ".scale", 1) + self.weights.get(path + ".shift", 0)

    def attention(self, queries, context, path):
        """6. [B, N, D] reads [B, N', D], both normed -> [B, N, D]"""
        q, (k, v) = self.linear(queries, path + ".qkv")[..., :D], np.split(self.linear(context, path + ".qkv")[..., D:], 2, 2)
        q, k, v = (x.reshape(*x.shape[:2], HEADS, D // HEADS).swapaxes(1, 2) for x in (q, k, v))    # [B, heads, N, D / heads]
        p = self.trace[path + ".probabilities"] = softmax(q @ k.swapaxes(2, 3) / math.sqrt(D // HEADS))
        return self.adapt(self.linear((p @ v).swapaxes(1, 2).reshape(queries.shape), path + ".proj"), path)

    def residuals(self, x, context, norm, norm_mlp, path):
        """6. Tokens [B, N, D], what they read [B, N', D], already normed -> [B, N, D]"""
        queries = self.layer_norm(x, path + norm)
        x = self.trace[path + ".attended"] = x + self.attention(queries, context, path + ".attention")
        hidden = gelu(self.linear(self.layer_norm(x, path + norm_mlp), path + ".mlp.fc1"))              # [B, N, 4 D]
        x = self.trace[path + ".out"] = x + self.adapt(self.linear(hidden, path + ".mlp.fc2"), path + ".mlp")
        return x

    def block(self, x, prompts, path):
        """6 and 8. Tokens [B, N, D], prompts [B, P, D] that are only read -> [B, N, D]"""
        context = self.layer_norm(np.concatenate([prompts, x], axis=1), path + ".norm1")
        return self.residuals(x, context, ".norm1", ".norm2", path)

    def update(self, x, other, prompts, path):
        """7 and 8. Tokens [B, N, D], the other stream [B, N', D], its prompts [B, P, D], not normed -> [B, N, D]"""
        context = np.concatenate([prompts, self.layer_norm(other, path + ".norm_context")], axis=1)
        return self.residuals(x, context, ".norm_tokens", ".norm_mlp", path)

    def prompts(self, place, B, blocks):
        """8. For each block [B, P, D]; behind the first L of them P = 0"""
        groups = self.weights.get(place, np.zeros((0, 0, D)))           # [L, P, D] or, each sample its own, [B, L, P, D]
        groups = np.broadcast_to(groups, (B, *groups.shape[-3:])).swapaxes(0, 1)
        return [*groups, *[np.zeros((B, 0, D))] * (blocks - len(groups))]

    def encode(self, x, name):
        """5 and 8. [B, channels, height, width] of "audio" or "image" -> tokens [B, N, D], row-major"""
        path = name + "_encoder"
        kernel, bias, positions, modality = (self.weights[f"{path}.{part}"] for part in (
            "patches.weight", "patches.bias", "positions", "modality"))
        (B, channels, height, width), side, N = x.shape, kernel.shape[-1], positions.shape[1]
        x = x.reshape(B, channels, height // side, side, width // side, side)
        x = self.trace[path + ".patches"] = np.einsum("bciujv,dcuv->bijd", x, kernel).reshape(B, N, D) + bias
        x = self.trace[path + ".tokens"] = x + positions + modality
        prompts = self.prompts(name + "_input", B, BLOCKS)
        for i in range(BLOCKS):
            if i + 1 < BLOCKS and prompts[i + 1].shape[1] == 0:         # the last ones become tokens
                x, prompts[i] = np.concatenate([prompts[i], x], axis=1), prompts[i + 1]
            x = self.block(x, prompts[i], f"{path}.blocks.{i}")
        x = self.trace[path + ".out"] = x[:, -N:]
        return x

    def head(self, features):
        """7. [B, D] -> [B, K]"""
        return self.linear(self.layer_norm(features, "head.0"), "head.1")

    def forward(self, audio, image):
        """7. [B, T, M], [B, 3, H, W] -> trace, with features [B, D] and logits [B, K]"""
        x = self.encode(audio.swapaxes(1, 2)[:, None], "audio")
        y = self.encode(image, "image")
        of_audio, of_image = (self.prompts(f"{name}_attention", len(x), FUSION_BLOCKS) for name in ("audio", "image"))
        for i in range(FUSION_BLOCKS):
            x, y = (self.update(x, y, of_image[i], f"fusion.{i}.update_audio"),
                    self.update(y, x, of_audio[i], f"fusion.{i}.update_image"))
        tokens = np.concatenate([x, y], axis=1)
        for i, prompts in enumerate(self.prompts("joint", len(x), JOINT_BLOCKS)):
            tokens = self.block(tokens, prompts, f"joint.{i}")
        features = self.layer_norm(tokens, "norm").mean(axis=1)
        return {**self.trace, "features": features, "logits": self.head(features)}


def by_situation(audio, image, weights, sets, which):
    """9. which [B]: the situations or, to be `routed`, the picks -> as Model.forward, and scores [B, K]"""
    own = {place: np.stack([sets[s][place] for s in which]) for place in PLACES}
    found = Model(weights, own).forward(audio, image)
    scores = np.stack([Model(one).head(found["features"]) for one in sets])                             # [4, B, K]
    return {**found, "scores": scores[which, np.arange(len(which))]}


def concat(audio, image, weights, sets):
    """9. -> features [B, D], scores [B, K]"""
    prompts = {place: np.concatenate([one[place] for one in sets], axis=1) for place in PLACES}
    features = Model(weights, prompts).forward(audio, image)["features"]
    mean = np.mean([softmax(Model(one).head(features)) for one in sets], axis=0)
    return {"features": features, "scores": np.log(np.maximum(mean, 1.2e-38))}


def lowest_entropy(audio, image, weights, sets):
    """9. -> scores [B, K]"""
    scores = np.stack([Model(weights, one).forward(audio, image)["logits"] for one in sets])            # [4, B, K]
    entropy = -(softmax(scores) * np.log(softmax(scores))).sum(axis=2)
    return scores[entropy.argmin(axis=0), np.arange(len(audio))]


def pooled(x, y):
    """10. What the encoders make of audio and image without prompts, [B, N, D] each -> [B, 4 D]"""
    return np.concatenate([x.mean(axis=1), x.std(axis=1), y.mean(axis=1), y.std(axis=1)], axis=1)


def pick(audio, image, logits):
    """10. logits [B, 4] -> situations [B]"""
    missing = 1 * (audio == 0).all(axis=(1, 2)) + 2 * (image == 0).all(axis=(1, 2, 3))
    return np.where(missing > 0, missing, logits.argmax(axis=1))


def fit_router(x, situations, shrinkage=0.1):
    """10. [n, 4 D], [n] -> weight [4, 4 D], bias [4]"""
    n = np.bincount(situations, minlength=4)
    means = np.stack([x[situations == s].sum(axis=0) / max(n[s], 1) for s in range(4)])
    C = (x.T @ x - (n[:, None] * means).T @ means) / len(x)
    weight = np.linalg.solve(C + np.diag(np.maximum(shrinkage * np.diag(C), 1e-6)), means.T).T
    return weight, np.where(n > 0, -(means * weight).sum(axis=1) / 2, -np.inf)


def averaged(x, first, stop):
    """12. Image [3, H, W] -> the same: along both sides pixel i becomes the mean over first[i] .. stop[i] - 1"""
    inside = (first[:, None] <= np.arange(H)) & (np.arange(H) < stop[:, None])
    mean = inside / inside.sum(axis=1, keepdims=True)
    return mean @ x @ mean.T


def pixelate(x, cells):
    """12. Image [3, H, W] -> the same"""
    cell = np.arange(H) * cells // H                                    # that each pixel shows
    return averaged(x, cell * H // cells, -(-(cell + 1) * H // cells))


def draw_stretch(random, x):
    """12. Audio [T, M] -> start, frames of what is masked"""
    frames = random.integers(0, round(0.25 * len(x)), endpoint=True)
    return random.integers(0, len(x) - frames, endpoint=True), frames


DAMAGE = {                                                              # what is drawn for a sample; what is done with it
    "audio_gaussian": (lambda random, x: 2.2 * random.standard_normal(x.shape, np.float32), lambda x, noise: x + noise),
    "audio_shift": (lambda random, x: random.integers(-round(0.5 * len(x)), round(0.5 * len(x)), endpoint=True),
                    lambda x, frames: np.roll(x, frames, axis=0)),
    "audio_mask": (draw_stretch, lambda x, drawn: np.r_[x[:drawn[0]], 0 * x[drawn[0]:sum(drawn)], x[sum(drawn):]]),
    "image_gaussian": (lambda random, x: 5 * random.standard_normal(x.shape, np.float32),
                       lambda x, noise: np.clip(x + noise, -3, 3)),
    "image_blur": (lambda random, x: round((0.23 * H - 1) / 2),
                   lambda x, reach: averaged(x, np.arange(H) - reach, np.arange(H) + reach + 1)),
    "image_pixelate": (lambda random, x: max(1, round(0.3 * H)), pixelate),
    "missing": (lambda random, x: None, lambda x, nothing: 0 * x)}


def generator(seed, epoch, name):
    """13. For what is drawn under a name"""
    return np.random.default_rng([seed, epoch, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])


def damage(random, x, kinds):
    """13. Audio [T, M] or image [3, H, W] -> the kind, the same shape"""
    kind = kinds[random.integers(len(kinds))]
    draw, apply = DAMAGE[kind]
    return kind, apply(x, draw(random, x))


def augment(random, audio, image):
    """13. Audio [T, M] and image [3, H, W] -> the same, rolled"""
    most = round(0.25 * len(audio)), round(0.04 * H), round(0.04 * H)
    later, down, right = (random.integers(-n, n, endpoint=True) for n in most)
    return np.roll(audio, later, axis=0), np.roll(image, (down, right), axis=(1, 2))


def cross_entropy(scores, labels):
    """14. [B, K], [B] -> loss"""
    log = np.log(softmax(scores))
    return -(0.9 * log[np.arange(len(labels)), labels] + 0.1 * log.mean(axis=1)).mean()


def together(audio, image, weights, sets, situations, labels):
    """14. -> loss of the stage of that name"""
    both = by_situation(audio, image, weights, sets, situations), concat(audio, image, weights, sets)
    return sum(cross_entropy(found["scores"], labels) for found in both) / 2


def one_cycle(n, peak):
    """14. -> learning rates [n], b1 [n]"""
    k, e = np.arange(n), 0.3 * n - 1
    start = (1 + np.cos(np.pi * np.where(k <= e, k / e, (k - e) / (n - 1 - e)))) / 2      # the share of where it starts
    lr = np.where(k <= e, peak / 25 * start + peak * (1 - start), peak * start + peak / 250000 * (1 - start))
    return lr, np.where(k <= e, 0.95 * start + 0.85 * (1 - start), 0.85 * start + 0.95 * (1 - start))


def adamw(p, m, v, g, t, lr, b1, decay):
    """14. Weights, both moments, gradient, step t = 1, 2, .. -> weights, both moments"""
    p, m, v = p - lr * decay * p, b1 * m + (1 - b1) * g, 0.999 * v + 0.001 * g ** 2
    return p - lr * (m / (1 - b1 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8), m, v
