"""The method in NumPy and float64, by the sections of docs/porting.md; config is a run's.

B batch, T frames, M mel bins, H = W, N tokens, P prompt length, L its depth, D width, K classes"""
import hashlib
import math

import numpy as np

Array, Arrays, Config = np.ndarray, dict[str, np.ndarray], dict[str, int | float | str]
SMALL: Config = {
    "audio.sample_rate": 8000, "audio.seconds": 0.495, "audio.mels": 32, "image.size": 24,
    "model.heads": 2, "model.depth": 3, "model.fusion_depth": 2, "model.joint_depth": 1,
    "lora.alpha": 8}
SMALL |= {f"damage.{which}.{kind}": strength for which in ("alone", "both") for kind, strength in {
    "audio_gaussian": 2.2, "audio_shift": 0.5, "audio_mask": 0.25, "image_gaussian": 5,
    "image_blur": 0.23, "image_pixelate": 0.3}.items()}
PLACES = ("audio_input", "image_input", "audio_attention", "image_attention", "joint")


def gelu(u: Array) -> Array:
    """2. Each element by itself"""
    return u * (1 + np.vectorize(math.erf, otypes=[float])(u / math.sqrt(2))) / 2


def softmax(x: Array) -> Array:
    """2. Over the last axis"""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Model:
    """1 to 4, 7. Weights by name: the backbone's, then a prompt set's or a baseline's"""
    def __init__(self, *weights: Arrays, config: Config = SMALL):
        self.config, self.alpha = config, config["lora.alpha"]
        self.weights = {name: value for part in weights for name, value in part.items()}
        self.trace: Arrays = {}                                 # intermediates by name

    def linear(self, x: Array, path: str) -> Array:
        """2, 7. [..., fan in] -> [..., fan out], with LoRA where there is one"""
        y = x @ self.weights[path + ".weight"].T + self.weights[path + ".bias"]
        down, up = self.weights.get(path + ".down"), self.weights.get(path + ".up")
        return y if down is None else y + self.alpha / len(down) * (x @ down.T) @ up.T

    def adapt(self, y: Array, path: str) -> Array:
        """7. [B, N, D] -> [B, N, D]: an Adapter where there is one"""
        down, down_bias, up, up_bias = (self.weights.get(f"{path}.{part}") for part in (
            "down", "down_bias", "up", "up_bias"))
        return y if down is None else y + gelu(y @ down.T + down_bias) @ up.T + up_bias

    def layer_norm(self, x: Array, path: str) -> Array:
        """2, 7. [..., D] -> [..., D], with a scale and a shift where there are any"""
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        x = x * self.weights[path + ".weight"] + self.weights[path + ".bias"]
        return x * self.weights.get(path + ".scale", 1) + self.weights.get(path + ".shift", 0)

    def attention(self, queries: Array, context: Array, path: str) -> Array:
        """2. [B, N, D] reads [B, N', D], both normed -> [B, N, D]"""
        D, heads = queries.shape[2], self.config["model.heads"]
        q = self.linear(queries, path + ".qkv")[..., :D]
        k, v = np.split(self.linear(context, path + ".qkv")[..., D:], 2, axis=2)
        q, k, v = (x.reshape(*x.shape[:2], heads, D // heads).swapaxes(1, 2) for x in (q, k, v))
        p = softmax(q @ k.swapaxes(2, 3) / math.sqrt(D // heads))          # [B, heads, N, N']
        self.trace[path + ".probabilities"] = p
        mixed = (p @ v).swapaxes(1, 2).reshape(queries.shape)
        return self.adapt(self.linear(mixed, path + ".proj"), path)

    def residuals(self, x: Array, context: Array, norm: str, norm_mlp: str, path: str) -> Array:
        """2. Tokens [B, N, D] and what they read [B, N', D], already normed -> [B, N, D]"""
        x = x + self.attention(self.layer_norm(x, path + norm), context, path + ".attention")
        self.trace[path + ".attended"] = x
        hidden = gelu(self.linear(self.layer_norm(x, path + norm_mlp), path + ".mlp.fc1"))
        x = x + self.adapt(self.linear(hidden, path + ".mlp.fc2"), path + ".mlp")
        self.trace[path + ".out"] = x
        return x

    def block(self, x: Array, prompts: Array, path: str) -> Array:
        """2, 4. Tokens [B, N, D], prompts [B, P, D] that are only read -> [B, N, D]"""
        context = self.layer_norm(np.concatenate([prompts, x], axis=1), path + ".norm1")
        return self.residuals(x, context, ".norm1", ".norm2", path)

    def update(self, x: Array, other: Array, prompts: Array, path: str) -> Array:
        """3, 4. Tokens [B, N, D], the other stream [B, N', D] and its prompts -> [B, N, D]"""
        context = np.concatenate([prompts, self.layer_norm(other, path + ".norm_context")], axis=1)
        return self.residuals(x, context, ".norm_tokens", ".norm_mlp", path)

    def prompts(self, place: str, x: Array, blocks: int) -> list[Array]:
        """4. For tokens x [B, N, D] -> for each block [B, P, D]; after the first L of them P = 0"""
        groups = self.weights.get(place, np.zeros((0, 0, x.shape[2])))  # [L, P, D] or [B, L, P, D]
        groups = np.broadcast_to(groups, (len(x), *groups.shape[-3:])).swapaxes(0, 1)
        return [*groups, *[x[:, :0]] * (blocks - len(groups))]

    def encode(self, x: Array, name: str) -> Array:
        """1, 4. [B, channels, height, width] of "audio" or "image" -> tokens [B, N, D]"""
        weights, path = self.weights, name + "_encoder"
        kernel, positions = weights[path + ".patches.weight"], weights[path + ".positions"]
        (B, channels, height, width), side, (_, N, D) = x.shape, kernel.shape[-1], positions.shape
        x = x.reshape(B, channels, height // side, side, width // side, side)
        x = np.einsum("bciujv,dcuv->bijd", x, kernel).reshape(B, N, D)
        x = self.trace[path + ".patches"] = x + weights[path + ".patches.bias"]
        x = self.trace[path + ".tokens"] = x + positions + weights[path + ".modality"]
        prompts = self.prompts(name + "_input", x, self.config["model.depth"])
        for i in range(len(prompts)):
            if i + 1 < len(prompts) and prompts[i + 1].shape[1] == 0:     # these become tokens
                x, prompts[i] = np.concatenate([prompts[i], x], axis=1), prompts[i + 1]
            x = self.block(x, prompts[i], f"{path}.blocks.{i}")
        self.trace[path + ".out"] = x[:, -N:]
        return x[:, -N:]

    def head(self, features: Array) -> Array:
        """3. [B, D] -> [B, K]"""
        return self.linear(self.layer_norm(features, "head.0"), "head.1")

    def forward(self, audio: Array, image: Array) -> Arrays:
        """3. [B, T, M], [B, 3, H, W] -> trace, with features [B, D] and logits [B, K]"""
        x = self.encode(audio.swapaxes(1, 2)[:, None], "audio")
        y = self.encode(image, "image")
        blocks = range(self.config["model.fusion_depth"])
        of_audio, of_image = (self.prompts(f"{name}_attention", x, len(blocks))
                              for name in ("audio", "image"))
        for i in blocks:
            x, y = (self.update(x, y, of_image[i], f"fusion.{i}.update_audio"),
                    self.update(y, x, of_audio[i], f"fusion.{i}.update_image"))
        tokens = np.concatenate([x, y], axis=1)
        for i, prompts in enumerate(self.prompts("joint", x, self.config["model.joint_depth"])):
            tokens = self.block(tokens, prompts, f"joint.{i}")
        features = self.layer_norm(tokens, "norm").mean(axis=1)
        return {**self.trace, "features": features, "logits": self.head(features)}


def oracle(audio: Array, image: Array, weights: Arrays, sets: list[Arrays], which: Array,
           config: Config = SMALL) -> Arrays:
    """5. which [B]: situations or the router's picks -> as Model.forward, and scores [B, K]"""
    own = {place: np.stack([sets[s][place] for s in which]) for place in PLACES}
    found = Model(weights, own, config=config).forward(audio, image)
    scores = np.stack([Model(weights, one).head(found["features"]) for one in sets])  # [4, B, K]
    return {**found, "scores": scores[which, np.arange(len(which))]}


def concat(audio: Array, image: Array, weights: Arrays, sets: list[Arrays],
           config: Config = SMALL) -> Arrays:
    """5. -> features [B, D], scores [B, K]"""
    prompts = {place: np.concatenate([one[place] for one in sets], axis=1) for place in PLACES}
    features = Model(weights, prompts, config=config).forward(audio, image)["features"]
    mean = np.mean([softmax(Model(weights, one).head(features)) for one in sets], axis=0)
    return {"features": features, "scores": np.log(np.maximum(mean, 1.2e-38))}


def surest(scores: Array) -> Array:
    """5. The four sets' [4, B, K] -> of each sample the one of least entropy, [B, K]"""
    entropy = -(softmax(scores) * np.log(softmax(scores))).sum(axis=2)                # [4, B]
    return scores[entropy.argmin(axis=0), np.arange(scores.shape[1])]


def pool(x: Array, y: Array) -> Array:
    """6. Encoder outputs of audio and image without prompts, [B, N, D] each -> [B, 4 D]"""
    return np.concatenate([x.mean(axis=1), x.std(axis=1), y.mean(axis=1), y.std(axis=1)], axis=1)


def pick(audio: Array, image: Array, logits: Array) -> Array:
    """6. logits [B, 4] -> situations [B]"""
    missing = 1 * (audio == 0).all(axis=(1, 2)) + 2 * (image == 0).all(axis=(1, 2, 3))
    return np.where(missing > 0, missing, logits.argmax(axis=1))


def fit_router(x: Array, situations: Array, shrinkage: float = 0.1) -> tuple[Array, Array]:
    """6. [n, 4 D], [n] -> weight [4, 4 D], bias [4]"""
    n = np.bincount(situations, minlength=4)
    means = np.stack([x[situations == s].sum(axis=0) / max(n[s], 1) for s in range(4)])
    C = (x.T @ x - (n[:, None] * means).T @ means) / len(x)
    weight = np.linalg.solve(C + np.diag(np.maximum(shrinkage * np.diag(C), 1e-6)), means.T).T
    return weight, np.where(n > 0, -(means * weight).sum(axis=1) / 2, -np.inf)


def cross_entropy(scores: Array, labels: Array, smoothing: float = 0.1) -> float:
    """8. [B, K], [B] -> loss"""
    log = np.log(softmax(scores))
    right = log[np.arange(len(labels)), labels]
    return -((1 - smoothing) * right + smoothing * log.mean(axis=1)).mean()


def one_cycle(n: int, peak: float) -> tuple[Array, Array]:
    """8. -> learning rates [n], b1 [n]"""
    k, e = np.arange(n), 0.3 * n - 1
    up = (1 - np.cos(np.pi * np.where(k <= e, k / e, (n - 1 - k) / (n - 1 - e)))) / 2    # 0, 1, 0
    return up * peak + (1 - up) * np.where(k <= e, peak / 25, peak / 250000), 0.95 - 0.1 * up


def adamw(state: tuple, g: Array, t: int, rate: float, b1: float, decay: float) -> tuple:
    """8. Parameters and both moments, gradient, step t = 1, 2, .. -> parameters, both moments"""
    p, m, v = state[0], b1 * state[1] + (1 - b1) * g, 0.999 * state[2] + 0.001 * g ** 2
    step = m / (1 - b1 ** t) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8) + decay * p
    return p - rate * step, m, v


def average(x: Array, first: Array, stop: Array) -> Array:
    """9. [3, H, W] -> the same: on both sides pixel i is the mean of first[i] .. stop[i] - 1"""
    pixels = np.arange(x.shape[2])
    inside = (first[:, None] <= pixels) & (pixels < stop[:, None])
    mean = inside / inside.sum(axis=1, keepdims=True)
    return mean @ x @ mean.T


def pixelate(x: Array, cells: int) -> Array:
    """9. [3, H, W] -> the same"""
    H = x.shape[2]
    cell = np.arange(H) * cells // H                            # that each pixel shows
    return average(x, cell * H // cells, -(-(cell + 1) * H // cells))


def draw_stretch(random: np.random.Generator, x: Array, share: float) -> tuple[int, int]:
    """9. Audio [T, M] -> start, frames of what is masked"""
    frames = random.integers(0, round(share * len(x)), endpoint=True)
    return random.integers(0, len(x) - frames, endpoint=True), frames


DAMAGE = {                                                      # kind: its draws, its effect
    "audio_gaussian": (lambda random, x, std: std * random.standard_normal(x.shape, np.float32),
                       lambda x, noise: x + noise),
    "audio_shift": (lambda random, x, share: random.integers(
        -round(share * len(x)), round(share * len(x)), endpoint=True),
                    lambda x, frames: np.roll(x, frames, axis=0)),
    "audio_mask": (draw_stretch, lambda x, drawn: np.r_[
        x[:drawn[0]], 0 * x[drawn[0]:sum(drawn)], x[sum(drawn):]]),
    "image_gaussian": (lambda random, x, std: std * random.standard_normal(x.shape, np.float32),
                       lambda x, noise: np.clip(x + noise, -3, 3)),
    "image_blur": (lambda random, x, share: round((share * x.shape[2] - 1) / 2),
                   lambda x, reach: average(x, np.arange(x.shape[2]) - reach,
                                            np.arange(x.shape[2]) + reach + 1)),
    "image_pixelate": (lambda random, x, share: max(1, round(share * x.shape[2])), pixelate),
    "missing": (lambda random, x, nothing: None, lambda x, nothing: 0 * x)}


def resample(x: Array, source: int, target: int) -> Array:
    """10. [samples] -> [ceil(samples target / source)]; not for equal rates"""
    c = 0.99 * min(1, target / source)
    at = np.arange(math.ceil(len(x) * target / source))[:, None] * source / target
    reach = math.ceil(6 / c)
    k = np.floor(at).astype(int) + np.arange(-reach, reach + 2)    # all that |c u| < 6 can reach
    u = c * (k - at)
    h = np.where(abs(u) < 6, c * np.sinc(u) * np.cos(np.pi * u / 12) ** 2, 0)
    return (h * np.pad(x, reach + 1)[k + reach + 1]).sum(axis=1)


def sound(stored: Array, rate: int, config: Config = SMALL) -> Arrays:
    """10. [samples, channels] int16 -> mono, resampled, waveform [seconds * rate]"""
    target = config["audio.sample_rate"]
    length = round(config["audio.seconds"] * target)
    mono = (stored / 32768).mean(axis=1)
    resampled = mono if rate == target else resample(mono, rate, target)
    x = resampled[:length] - resampled[:length].mean()
    return {"mono": mono, "resampled": resampled, "waveform": np.pad(x, (0, length - len(x)))}


def filterbank(waveform: Array, config: Config = SMALL) -> Arrays:
    """11. [samples] -> the steps, last log_mel [T, M]"""
    rate, M = config["audio.sample_rate"], config["audio.mels"]
    w, hop = rate * 25 // 1000, rate * 10 // 1000
    F = 2 ** math.ceil(math.log2(w))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(w) / (w - 1))
    x = 1127 * np.log(1 + np.arange(F // 2 + 1) * rate / F / 700)[:, None]       # mel of each bin
    edges = np.linspace(1127 * math.log(1 + 20 / 700), x[-1, 0], M + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (x - left) / (centre - left), (right - x) / (right - centre)
    filters = np.maximum(0, np.minimum(rising, falling))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, w)[::hop]
    y = frames - frames.mean(axis=1, keepdims=True)
    windowed = (y - 0.97 * np.roll(y, 1, axis=1)) * window      # y[0] is of no consequence
    power = abs(np.fft.rfft(windowed, F)) ** 2
    energy = power @ filters
    return {"window": window, "filters": filters, "frames": frames, "windowed": windowed,
            "power": power, "energy": energy, "log_mel": np.log(np.maximum(energy, 2 ** -23))}


def inputs(log_mel: Array | None, pixels: Array | None, normalisation: Array,
           shapes: tuple[tuple, tuple] = ((48, 32), (3, 24, 24))) -> tuple[Array, Array]:
    """12, 13. [T, M] and [3, H, W], or None where missing -> audio, image of these shapes"""
    audio, image = map(np.zeros, shapes)
    if log_mel is not None:
        audio = (log_mel - normalisation[0]) / normalisation[1]
    if pixels is not None:
        mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        image = (pixels / 255 - mean) / std
    return audio, image


def to_rgb(x: Array, mode: str) -> Array:
    """13. [h, w] or [h, w, channels] in one of Pillow's modes -> [h, w, 3]"""
    x = np.round(x / 257) if mode == "I;16" else x.astype(float)
    if mode == "CMYK":
        return np.floor((255 - x[..., :3]) * (255 - x[..., 3:]) / 255 + 0.5)
    x = np.atleast_3d(x)
    colour, alpha = np.split(x, [-1], axis=2) if mode in ("LA", "RGBA") else (x, 255)
    colour = np.floor(255 + (colour - 255) * alpha / 255 + 0.5)
    return np.broadcast_to(colour, (*x.shape[:2], 3))


def resize_weights(side: int, size: int = SMALL["image.size"]) -> Array:
    """13. -> [H, side]: how much each pixel of a line counts in each new one"""
    q = side / size
    t = abs(np.arange(side) + 0.5 - q * (np.arange(size)[:, None] + 0.5)) / max(q, 1)
    near, far = 1.5 * t ** 3 - 2.5 * t ** 2 + 1, -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def picture(stored: Array, mode: str = "RGB", orientation: int = 1,
            size: int = SMALL["image.size"]) -> Arrays:
    """13. As stored, [h, w] or [h, w, channels] -> the steps, last pixels [3, H, W]"""
    x = stored.swapaxes(0, 1) if orientation > 4 else stored
    x = x[:, ::-1] if orientation in (2, 3, 6, 7) else x
    x = x[::-1] if orientation in (3, 4, 7, 8) else x
    h, w = x.shape[:2]
    side, top, left = min(h, w), (h - min(h, w)) // 2, (w - min(h, w)) // 2
    x = to_rgb(x[top:top + side, left:left + side], mode)
    k = max(1, side // (4 * size))
    n, more = -(-side // k), (0, -side % k)
    x = np.pad(x, (more, more, (0, 0)), constant_values=np.nan).reshape(n, k, n, k, 3)
    rgb = np.floor(np.nanmean(x, axis=(1, 3)) + 0.5)
    weights = resize_weights(len(rgb), size)
    resized = weights @ rgb.transpose(2, 0, 1) @ weights.T
    return {"rgb": rgb, "resized": resized, "pixels": np.clip(np.floor(resized + 0.501), 0, 255)}


def generator(seed: int, epoch: int, name: str) -> np.random.Generator:
    """14. For what is drawn under a name"""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])


def damage(random: np.random.Generator, audio: Array, image: Array, situation: int,
           missing: int = 0, config: Config = SMALL) -> tuple[list[str], Array, Array]:
    """14. A sample, in a situation; missing: what it lacks, as bits -> kinds, audio, image"""
    kinds, sample, strengths = [], [audio, image], "both" if situation == 3 else "alone"
    for i, name in enumerate(("audio", "image")):
        if situation & ~missing & 1 << i:
            possible = [kind for kind in DAMAGE if kind.startswith(name)]
            possible += ["missing"] if situation != 3 else []
            kinds.append(possible[random.integers(len(possible))])
            draw, apply = DAMAGE[kinds[-1]]
            strength = config.get(f"damage.{strengths}.{kinds[-1]}")
            sample[i] = apply(sample[i], draw(random, sample[i], strength))
    return kinds, *sample


def augment(random: np.random.Generator, audio: Array, image: Array) -> tuple[Array, Array]:
    """14. Audio [T, M] and image [3, H, W] -> the same, rolled"""
    limits = round(0.25 * len(audio)), *(round(0.04 * side) for side in image.shape[1:])
    later, down, right = (random.integers(-n, n, endpoint=True) for n in limits)
    return np.roll(audio, later, axis=0), np.roll(image, (down, right), axis=(1, 2))
