"""The whole method in NumPy and float64, written from docs/porting.md alone, and compared with its golden arrays:
    python -m ptm_mini.golden golden.npz && python tests/port_numpy.py golden.npz
B batch, T frames, M mel bins, H = W picture, N tokens of a stream, P prompt length, L prompt depth, D width, K classes.
Shapes name the last axes; axes in front broadcast: prompts [L, P, D] serve all samples, [B, L, P, D] each sample its own."""
import hashlib, math, re, sys
import numpy as np

RATE, SAMPLES, BINS, SIDE, HEADS, BLOCKS, FUSION_BLOCKS, JOINT_BLOCKS = 8000, 3960, 32, 24, 2, 3, 1, 1
# ======== 1. Sound ===========================================================================================================
def mono(stored): return (stored / 32768).mean(1)           # [samples, channels] int16 -> [samples] in -1 to 1
def resample(x, source, target):                            # [samples] -> [ceil(samples target / source)]
    c, at = 0.99 * min(1, target / source), np.arange(-(-len(x) * target // source))[:, None] * source / target
    reach = math.ceil(6 / c)
    k = np.floor(at).astype(int) + np.arange(-reach, reach + 2)                         # all that |c u| < 6 can reach
    u = c * (k - at)
    weights = np.where(abs(u) < 6, c * np.sinc(u) * np.cos(np.pi * u / 12) ** 2, 0)
    return x if source == target else (weights * np.pad(x, reach + 1)[k + reach + 1]).sum(1)
def cut(x):                                                 # [samples] -> [SAMPLES], the mean of what is there 0
    return np.pad(x[:SAMPLES] - x[:SAMPLES].mean(), (0, max(0, SAMPLES - len(x))))
# ======== 2. Filterbank, 3. Normalise ========================================================================================
def hann(w): return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(w) / (w - 1))      # [w], symmetric
def mel(hertz): return 1127 * np.log(1 + hertz / 700)
def mel_filters(bins):                                      # [bins, M], bins = F / 2 + 1
    edges, x = np.linspace(mel(20), mel(RATE / 2), BINS + 2), mel(np.linspace(0, RATE / 2, bins))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((x - left) / (centre - left), (right - x) / (right - centre)))
    return filters * (np.arange(bins) < bins - 1)[:, None]
def filterbank(waveform):                                   # [samples] -> [T, w], [T, w], [T, F / 2 + 1], [T, M], [T, M]
    w, hop = int(0.025 * RATE), int(0.010 * RATE)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, w)[::hop]
    x = frames - frames.mean(1, keepdims=True)
    windowed = (x - 0.97 * np.concatenate([x[:, :1], x[:, :-1]], 1)) * hann(w)
    power = abs(np.fft.rfft(windowed, 1 << (w - 1).bit_length())) ** 2
    energy = power @ mel_filters(power.shape[1])
    return {"frames": frames, "windowed": windowed, "power": power, "energy": energy, "log_mel": np.log(energy.clip(2 ** -23))}
def normalise(log_mel, mean, std): return (log_mel - mean) / std                # [T, M] -> audio [T, M]
# ======== 4. Pictures ========================================================================================================
def to_rgb(stored):                                         # [h, w] of 8 or 16 bits, [h, w, 3], [h, w, 4] -> [h, w, 3]
    x = np.round(stored / 257) if stored.dtype == np.uint16 else stored.astype(float)
    x = np.stack([x] * 3, -1) if x.ndim == 2 else x
    return x if x.shape[2] == 3 else np.floor(255 + (x[..., :3] - 255) * x[..., 3:] / 255 + 0.5)
def resize_weights(length, other):                          # for a line of a picture of length x other: [H, length]
    side, outputs = min(length, other), np.arange(SIDE)[:, None]
    scale = side / SIDE
    t = abs(np.arange(length) + 0.5 - (length - side) / 2 - scale * (outputs + 0.5)) / max(scale, 1)
    near, far = 1.5 * t ** 3 - 2.5 * t ** 2 + 1, -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)
def resize(rgb):                                            # [h, w, 3] -> [3, H, W], not rounded
    height, width, _ = rgb.shape
    return resize_weights(height, width) @ rgb.transpose(2, 0, 1) @ resize_weights(width, height).T
def to_pixels(resized): return np.clip(np.floor(resized + 0.5), 0, 255)         # [3, H, W] -> [3, H, W]
def to_image(pixels):                                       # [3, H, W] -> image [3, H, W]
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return (pixels / 255 - mean) / std
# ======== 5. Tokens, and what everything behind them is made of ==============================================================
def linear(x, weights, path): return x @ weights[path + ".weight"].T + weights[path + ".bias"]      # [fan in] -> [fan out]
def layer_norm(x, weights, path):                           # [D] -> [D]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * weights[path + ".weight"] + weights[path + ".bias"]
def gelu(u):
    return u * (1 + np.fromiter(map(math.erf, (u / math.sqrt(2)).ravel().tolist()), float).reshape(u.shape)) / 2
def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
def beside(*parts):                                         # [P, D], [N, D], ... -> [P + N + ..., D]
    front = np.broadcast_shapes(*(x.shape[:-2] for x in parts))
    return np.concatenate([np.broadcast_to(x, front + x.shape[-2:]) for x in parts], -2)
def tokens_of(x, weights, path, trace):                     # [B, channels, height, width] -> [B, N, D]
    kernel = weights[path + ".patches.weight"]              # [D, channels, side, side]
    (batch, channels, height, width), side = x.shape, kernel.shape[-1]
    x = x.reshape(batch, channels, height // side, side, width // side, side).transpose(0, 2, 4, 1, 3, 5)
    x = x.reshape(batch, -1, channels * side * side) @ kernel.reshape(len(kernel), -1).T + weights[path + ".patches.bias"]
    trace[path + ".patches"] = x
    return trace.setdefault(path + ".tokens", x + weights[path + ".positions"] + weights[path + ".modality"])
# ======== 6. Blocks. Behind each attention and MLP an Adapter (11), where the weights hold one ===============================
def adapt(y, weights, path):                                # [D] -> [D], by way of the Adapter's width
    if path + ".down" not in weights:
        return y
    hidden = gelu(y @ weights[path + ".down"].T + weights[path + ".down_bias"])
    return y + hidden @ weights[path + ".up"].T + weights[path + ".up_bias"]
def mlp(x, weights, path):                                  # [D] -> [D], by way of 4 D
    return adapt(linear(gelu(linear(x, weights, path + ".fc1")), weights, path + ".fc2"), weights, path)
def attention(queries, context, weights, path, trace):      # [N, D]; keys and values [N', D]; both normed -> [N, D]
    def heads(x, part):                                     # [n, D] -> [heads, n, D / heads]; 0 queries, 1 keys, 2 values
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        y = x @ weights[path + ".qkv.weight"][rows].T + weights[path + ".qkv.bias"][rows]
        return y.reshape(*x.shape[:-1], HEADS, -1).swapaxes(-2, -3)
    q, k, v = heads(queries, 0), heads(context, 1), heads(context, 2)
    trace[path + ".probabilities"] = softmax(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
    y = (trace[path + ".probabilities"] @ v).swapaxes(-2, -3)
    return adapt(linear(y.reshape(*y.shape[:-2], -1), weights, path + ".proj"), weights, path)
def residuals(x, queries, context, norm, weights, path, trace):     # the two steps of every block, [N, D] -> [N, D]
    x = trace[path + ".attended"] = x + attention(queries, context, weights, path + ".attention", trace)
    return trace.setdefault(path + ".out", x + mlp(layer_norm(x, weights, path + norm), weights, path + ".mlp"))
def block(x, prompts, weights, path, trace):                # tokens [N, D], prompts that are only read [P, D] -> [N, D]
    queries, context = (layer_norm(tokens, weights, path + ".norm1") for tokens in (x, beside(prompts, x)))
    return residuals(x, queries, context, ".norm2", weights, path, trace)
# ======== 7. Fusion, joint, head, and 8. Prompts. `learned` holds head.* and maybe {place: [L or blocks, P, D]} ==============
def prompts_of(learned, place, i, like):                    # [P, D], P = 0 where there are none
    there = place in learned and i < learned[place].shape[-3]
    return learned[place][..., i, :, :] if there else like[..., :0, :]
def encode(x, learned, weights, name, trace):               # tokens [N, D] -> [N, D]
    count, place, path = x.shape[-2], name + "_input", name + "_encoder"
    depth = learned[place].shape[-3] if place in learned else 0
    for b in range(BLOCKS):
        prompts = prompts_of(learned, place, b, x)
        if b == depth - 1 and depth < BLOCKS:               # the last prompts become tokens
            x, prompts = beside(prompts, x), prompts[..., :0, :]
        x = block(x, prompts, weights, f"{path}.blocks.{b}", trace)
    return trace.setdefault(path + ".out", x[..., -count:, :])
def update(x, other, prompts, weights, path, trace):        # tokens [N, D], other [N', D], prompts [P, D] -> [N, D]
    context = beside(prompts, layer_norm(other, weights, path + ".norm_context"))       # these prompts are not normed
    return residuals(x, layer_norm(x, weights, path + ".norm_tokens"), context, ".norm_mlp", weights, path, trace)
def classify(features, learned):                            # [D] -> [K]
    x = layer_norm(features, learned, "head.0")
    return (learned["head.1.weight"] @ x[..., None])[..., 0] + learned["head.1.bias"]
def forward(audio, image, learned, weights):                # [B, T, M], [B, 3, H, W] -> every intermediate by its name
    trace = {}
    x = encode(tokens_of(audio.swapaxes(1, 2)[:, None], weights, "audio_encoder", trace), learned, weights, "audio", trace)
    y = encode(tokens_of(image, weights, "image_encoder", trace), learned, weights, "image", trace)
    for f in range(FUSION_BLOCKS):
        x, y = (update(x, y, prompts_of(learned, "image_attention", f, y), weights, f"fusion.{f}.update_audio", trace),
                update(y, x, prompts_of(learned, "audio_attention", f, x), weights, f"fusion.{f}.update_image", trace))
    tokens = beside(x, y)
    for j in range(JOINT_BLOCKS):
        tokens = block(tokens, prompts_of(learned, "joint", j, tokens), weights, f"joint.{j}", trace)
    features = layer_norm(tokens, weights, "norm").mean(-2)                             # [B, D]
    return {**trace, "features": features, "logits": classify(features, learned)}
# ======== 9. Answers. sets: four `learned`; scores [B, K] ====================================================================
def answer_situation(audio, image, sets, which, weights):   # which [B]: the situations; or, to be `routed`, the picks
    return forward(audio, image, {name: np.stack([sets[s][name] for s in which]) for name in sets[0]}, weights)
def answer_concat(audio, image, sets, weights):
    prompts = {place: beside(*(one[place] for one in sets)) for place in sets[0] if "head" not in place}
    features = forward(audio, image, {**sets[0], **prompts}, weights)["features"]
    mean = sum(softmax(classify(features, one)) for one in sets) / len(sets)
    return {"features": features, "scores": np.log(np.maximum(mean, 1.2e-38))}
def answer_lowest_entropy(audio, image, sets, weights):
    scores = np.stack([forward(audio, image, one, weights)["logits"] for one in sets])  # [4, B, K]
    entropies = -(softmax(scores) * np.log(softmax(scores))).sum(-1)
    return scores[entropies.argmin(0), np.arange(len(audio))]
# ======== 10. Router =========================================================================================================
def pool(trace):                                            # of a pass without prompts -> [B, 4 D]
    x, y = trace["audio_encoder.out"], trace["image_encoder.out"]
    return np.concatenate([x.mean(1), x.std(1), y.mean(1), y.std(1)], 1)
def pick(audio, image, logits):                             # logits [B, 4] -> situations [B]
    missing = 1 * (audio == 0).all((1, 2)) + 2 * (image == 0).all((1, 2, 3))
    return np.where(missing > 0, missing, logits.argmax(1))
def fit_router(x, situations, shrinkage=0.1):               # [n, 4 D], [n] -> weight [4, 4 D], bias [4]
    n = np.bincount(situations, minlength=4)
    means = np.stack([x[situations == s].sum(0) / max(n[s], 1) for s in range(4)])
    c = (x.T @ x - (n[:, None] * means).T @ means) / len(x)
    weight = np.linalg.solve(c + np.diag(np.maximum(shrinkage * np.diag(c), 1e-6)), means.T).T
    return {"weight": weight, "bias": np.where(n > 0, -(means * weight).sum(1) / 2, -np.inf)}
# ======== 11. LoRA, merged into the weights. An Adapter joins them under its own names: {**weights, **adapter} ===============
def with_lora(weights, lora, alpha=8):
    merged = {**weights, **lora}
    for path in (name.removesuffix(".down") for name in lora if name.endswith(".down")):
        down, up = merged.pop(path + ".down"), merged.pop(path + ".up")                 # [rank, fan in], [fan out, rank]
        merged[path + ".weight"] = weights[path + ".weight"] + alpha / len(down) * up @ down
    return merged
# ======== 12. Damage of audio [T, M] or image [3, H, W], and how it is drawn =================================================
def averages(x, start, stop):                               # [H] each: means over the pixels start .. stop - 1
    inside = (start[:, None] <= np.arange(SIDE)) & (np.arange(SIDE) < stop[:, None])
    mean = inside / inside.sum(1, keepdims=True)
    return mean @ x @ mean.T
def blur(x, reach):
    return averages(x, np.maximum(np.arange(SIDE) - reach, 0), np.minimum(np.arange(SIDE) + reach + 1, SIDE))
def pixelate(x, cells):
    cell = np.arange(SIDE) * cells // SIDE
    return averages(x, cell * SIDE // cells, -(-(cell + 1) * SIDE // cells))
def mask(x, drawn): return np.concatenate([x[:drawn[0]], 0 * x[drawn[0]:sum(drawn)], x[sum(drawn):]])
def between(random, low, high): return random.integers(low, high, endpoint=True)
def draw_noise(random, std, shape): return np.float32(std) * random.standard_normal(shape, np.float32)
def draw_shift(random, share, shape): return between(random, -round(share * shape[0]), round(share * shape[0]))
def draw_mask(random, share, shape):                        # start, frames
    frames = between(random, 0, round(share * shape[0]))
    return between(random, 0, shape[0] - frames), frames
DAMAGE = {                                                  # kind: strength alone, what is drawn, what is done with that
    "audio_gaussian": (2.2, draw_noise, lambda x, noise: x + noise),
    "audio_shift": (0.5, draw_shift, lambda x, frames: np.roll(x, frames, 0)),
    "audio_mask": (0.25, draw_mask, mask),
    "image_gaussian": (5.0, draw_noise, lambda x, noise: np.clip(x + noise, -3, 3)),
    "image_blur": (0.23, lambda random, share, shape: round((share * SIDE - 1) / 2), blur),
    "image_pixelate": (0.05, lambda random, share, shape: max(1, round(share * SIDE)), pixelate),
    "missing": (None, lambda *nothing: None, lambda x, nothing: 0 * x)}
KINDS = list(DAMAGE)
# ======== 13. Draws ==========================================================================================================
def generator(seed, epoch, name):
    return np.random.default_rng([seed, epoch, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
def damage_at_random(random, x, kinds):                     # -> the kind's number in KINDS, damaged x
    kind = kinds[random.integers(len(kinds))]
    strength, draw, apply = DAMAGE[kind]
    return KINDS.index(kind), apply(x, draw(random, strength, x.shape))
def shifts(random, reaches): return [between(random, -n, n) for n in reaches]           # frames later, pixels down, right
# ======== 14. Training =======================================================================================================
def cross_entropy(scores, labels):                          # [B, K], [B] -> []
    log = np.log(softmax(scores))
    return (-0.9 * log[..., np.arange(len(labels)), labels] - 0.1 * log.mean(-1)).mean(-1)
def together(audio, image, labels, sets, weights):          # the loss where sample s is in situation s
    own = sum(cross_entropy(forward(audio[[s]], image[[s]], sets[s], weights)["logits"], labels[[s]]) for s in range(4)) / 4
    return (own + cross_entropy(answer_concat(audio, image, sets, weights)["scores"], labels)) / 2
def gradient(loss, learned, name):                          # by central differences, all entries at once in axes in front
    value = learned[name]
    steps = 1e-5 * np.eye(value.size).reshape(-1, 1, *value.shape)                      # [entries, 1 for B, ...]
    return ((loss({**learned, name: value + steps}) - loss({**learned, name: value - steps})) / 2e-5).reshape(value.shape)
def one_cycle(n, peak):                                     # learning rates [n], b1 [n]
    def ease(start, stop, x): return stop + (start - stop) * (1 + np.cos(np.pi * x)) / 2
    k, e = np.arange(n), 0.3 * n - 1
    up, down = k / e, (k - e) / (n - 1 - e)
    return (np.where(k <= e, ease(peak / 25, peak, up), ease(peak, peak / 250000, down)),
            np.where(k <= e, ease(0.95, 0.85, up), ease(0.85, 0.95, down)))
def adamw(p, m, v, g, t, rate, b1, decay):                  # step t = 1, 2, ... -> p, m, v
    p, m, v = p - rate * decay * p, b1 * m + (1 - b1) * g, 0.999 * v + 0.001 * g * g
    return p - rate * (m / (1 - b1 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8), m, v
# ======== Comparison. Each step is fed golden arrays, so that errors do not add up ===========================================
INPUTS = (r"(weights|sets|step\.start|router\.fit)\..*|(lora|adapter)\..*(head.*|up|down|_bias)|labels|normalisation|"
          r"(clip|picture)\.\w+\.(stored|rate)|damage\.\w+\.drawn|draws\.(seed|epoch|id)")
TOLERANCES = {r"picture.*(rgb|pixels)|.*picks|draws\.(integers|situation|shift|kind.*|order)": (0, 0), r"draws.*": (1e-6, 0),
              r".*log_mel": (1e-3, 0), r"clip.*(frames|windowed|power|energy)|filterbank.*": (0, 1e-4),     # of the largest
              r"router\.(weight|bias)": (0, 1e-3), r"clip.*|picture.*image|input.*|damage.*": (1e-5, 0), r".*": (1e-4, 0)}
def outputs(a):                                             # golden arrays -> what the port makes of them, by the same names
    made = {}
    def put(prefix, values): made.update({prefix + name: value for name, value in values.items()})
    def part(prefix): return {name.removeprefix(prefix): value for name, value in a.items() if name.startswith(prefix)}
    for path in ("clip.down.", "clip.up.", "clip.odd.", "clip.short."):
        x = mono(a[path + "stored"])
        put(path, {"mono": x, "resampled": resample(x, int(a[path + "rate"]), RATE), "waveform": cut(a[path + "resampled"]),
                   **filterbank(a[path + "waveform"]), "audio": normalise(a[path + "log_mel"], *a["normalisation"])})
    put("filterbank.", {"window": hann(200), "filters": mel_filters(129)})
    for path in (name.removesuffix("rgb") for name in a if name.endswith(".rgb")):
        put(path, {"rgb": to_rgb(a[path + "stored"]), "resized": resize(a[path + "rgb"]),
                   "pixels": to_pixels(a[path + "resized"]), "image": to_image(a[path + "pixels"])})
    put("picture.wide.", {"across": resize_weights(41, 30), "down": resize_weights(30, 41)})
    put("input.", {"audio": np.stack([a[f"clip.{name}.audio"] for name in ("down", "up", "odd", "short")]),
                   "image": np.stack([a[f"picture.{name}.image"] for name in ("wide", "tall", "small", "square")])})
    audio, image, labels, weights = a["input.audio"], a["input.image"], a["labels"], part("weights.")
    sets, four = [part(f"sets.{s}.") for s in range(4)], np.arange(4)
    plain, own = forward(audio, image, weights, weights), answer_situation(audio, image, sets, four, weights)
    put("plain.", plain)
    put("situation.", {**own, "scores": own["logits"]})
    for depth in range(3):
        fewer = [{name: x[:depth] if "input" in name else x for name, x in one.items()} for one in sets]
        put(f"depth.{depth}.", answer_situation(audio, image, fewer, four, weights))
    put("concat.", answer_concat(audio, image, sets, weights))
    put("lowest_entropy.", {"scores": answer_lowest_entropy(audio, image, sets, weights)})
    put("router.", {**fit_router(a["router.fit.features"], a["router.fit.situations"]), "pooled": pool(plain),
                    "logits": linear(a["router.pooled"], a, "router"), "picks": pick(audio, image, a["router.logits"]),
                    "blank_picks": pick(audio, 0 * image, a["router.logits"])})
    for name, tuned in (("lora.", with_lora(weights, part("lora."))), ("adapter.", {**weights, **part("adapter.")})):
        put(name, forward(audio, image, tuned, tuned))
    put("damage.", {kind + ".out": DAMAGE[kind][2]((audio if "audio" in kind else image)[0], a[f"damage.{kind}.drawn"])
                    for kind in KINDS[:6]})
    keys, kinds = list(zip(*(a["draws." + key].tolist() for key in ("seed", "epoch", "id")))), []
    for i, (seed, epoch, name) in enumerate(keys):
        random, move = (generator(seed, epoch, word + name) for word in ("", "shift "))
        (first, x), (second, y) = damage_at_random(random, audio[0], KINDS[:3]), damage_at_random(random, image[0], KINDS[3:6])
        later, down, right = shifts(move, [round(0.25 * audio.shape[1]), round(0.04 * SIDE), round(0.04 * SIDE)])
        put(f"draws.{i}.", {"audio": x, "image": y, "moved_audio": np.roll(audio[0], later, 0),
                            "moved_image": np.roll(image[0], (down, right), (1, 2))})
        kinds.append((first, second))
    put("draws.", {"integers": [generator(*key).integers(1000, size=8) for key in keys], "kinds": kinds,
                   "normal": [draw_noise(generator(*key), 1, 8) for key in keys],
                   "situation": [generator(seed, epoch, "situation " + name).integers(4) for seed, epoch, name in keys],
                   "shift": [shifts(generator(seed, epoch, "shift " + name), [5, 5, 5]) for seed, epoch, name in keys],
                   "kind_alone": [damage_at_random(generator(*key), audio[0], KINDS[:3] + KINDS[6:])[0] for key in keys],
                   "order": generator(0, 1, "prompt noisy_audio").permutation(12)})
    p, losses, (rates, b1) = part("step.start."), [], one_cycle(10, 1e-3)
    state = {name: (x, 0, 0) for name, x in p.items()}
    def loss(learned): return cross_entropy(forward(audio, image, learned, weights)["logits"], labels)
    for t in range(10):
        own, fed = {name: gradient(loss, p, name) for name in p}, part(f"step.gradient.{t}.")       # fed: of the first three
        state = {name: adamw(*state[name], (fed or own)[name], t + 1, rates[t], b1[t], 0.05) for name in p}
        losses.append(loss(p))
        p = {name: x for name, (x, _, _) in state.items()}
        put("step.", {f"gradient.{t}.{name}": own[name] for name in p} | {f"after.{t}.{name}": p[name] for name in p})
    put("step.", {"losses": losses, "learning_rates": rates, "beta1": b1})
    made["together.loss"] = together(audio, image, labels, sets, weights)
    for s in range(4):
        def loss(one): return together(audio, image, labels, sets[:s] + [one] + sets[s + 1:], weights)
        put(f"together.gradient.{s}.", {name: gradient(loss, sets[s], name) for name in p})
    return made
def compare(arrays):                                        # -> (name, largest absolute difference, tolerance) of each output
    golden = {name: x.astype(float) if x.dtype == np.float32 else x for name, x in arrays.items()}
    made = outputs(golden)
    for name, theirs in golden.items():
        if name in made and np.shape(made[name]) == theirs.shape:
            absolute, relative = next(pair for pattern, pair in TOLERANCES.items() if re.fullmatch(pattern, name))
            yield name, float(abs(made[name] - theirs).max()), absolute or relative * float(abs(theirs).max())
        elif not re.fullmatch(INPUTS, name):
            raise ValueError(f"{name} {theirs.shape} is neither fed nor compared: {np.shape(made.get(name))}")
def main():
    results = sorted(compare(dict(np.load(sys.argv[1]))), key=lambda result: -result[1] / max(result[2], 1e-9))
    print(*(f"{name:60} {difference:8.1e} of {tolerance:7.1e}" for name, difference, tolerance in results[:12]), sep="\n")
    beyond = sum(not difference <= tolerance for _, difference, tolerance in results)
    print(f"{len(results)} arrays compared, {beyond} beyond their tolerance")
    sys.exit(beyond > 0)
if __name__ == "__main__":
    main()
