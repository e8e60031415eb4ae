"""The port in NumPy against the golden arrays, by rows of docs/porting.md's build order, within the tolerances it states."""
import ast
import fnmatch
import functools
import re
import types
from pathlib import Path

import numpy as np
import port_numpy
import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = (ROOT / "tests" / "port_numpy.py").read_text()
# Arrays that are fed and not made. Gradients are compared along directions; those of later steps are fed to AdamW.
FED = ("clip.*.stored", "clip.*.rate", "normalisation", "picture.*.stored", "labels", "weights.*", "sets.*", "router.audio",
       "router.image", "router.fit.*", "lora.*.up", "lora.*.down", "lora.head.*", "adapter.*.up", "adapter.*.down",
       "adapter.*_bias", "adapter.head.*", "scale_shift.*.scale", "scale_shift.*.shift", "scale_shift.head.*",
       "damage.*.drawn", "draws.seed", "draws.epoch", "draws.id", "step.start.*", "step.gradient.*", "together.gradient.*")
LEARNED = (*port_numpy.PLACES, "head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias")


def part(golden, prefix):
    """{name without the prefix: array}"""
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def under(prefix, values):
    """{prefix + name: array}"""
    return {prefix + name: value for name, value in values.items()}


def sets_of(golden):
    return [part(golden, f"sets.{s}.") for s in range(4)]


def inputs(golden):
    """audio, image, weights"""
    return golden["input.audio"], golden["input.image"], part(golden, "weights.")


def clips(port, golden):
    """Rows 1 to 3"""
    made = {}
    for clip in ("clip.down.", "clip.up.", "clip.odd.", "clip.short."):
        made |= under(clip, port.sound(golden[clip + "stored"], int(golden[clip + "rate"])))
        made |= under(clip, port.filterbank(golden[clip + "waveform"]))
        made[clip + "audio"] = port.normalise(golden[clip + "log_mel"], *golden["normalisation"])
    made |= {f"filterbank.{name}": made[f"clip.down.{name}"] for name in ("window", "filters")}
    return {**made, "input.audio": np.stack([made[f"clip.{name}.audio"] for name in ("down", "up", "odd", "short")])}


def pictures(port, golden):
    made = {}
    for name in golden:
        if name.startswith("picture.") and name.endswith(".stored"):
            made |= under(name.removesuffix("stored"), port.picture(golden[name]))
    h, w, _ = golden["picture.wide.stored"].shape
    return {**made, "picture.wide.across": port.resize_weights(w, h), "picture.wide.down": port.resize_weights(h, w),
            "input.image": np.stack([made[f"picture.{name}.image"] for name in ("wide", "tall", "small", "square")])}


def plain(port, golden):
    """Rows 5 to 7"""
    audio, image, weights = inputs(golden)
    return under("plain.", port.Model(weights).forward(audio, image))


def prompts(port, golden):
    audio, image, weights = inputs(golden)
    sets, made = sets_of(golden), {}
    for depth in range(3):
        fewer = [{name: value[:depth] if name.endswith("_input") else value for name, value in one.items()} for one in sets]
        made |= under(f"depth.{depth}.", port.by_situation(audio, image, weights, fewer, range(4)))
    return {**made, **under("situation.", port.by_situation(audio, image, weights, sets, range(4)))}


def answers(port, golden):
    made = under("concat.", port.concat(*inputs(golden), sets_of(golden)))
    return {**made, "lowest_entropy.scores": port.lowest_entropy(*inputs(golden), sets_of(golden))}


def router(port, golden):
    audio, image, logits = golden["router.audio"], golden["router.image"], golden["router.logits"]
    weights = part(golden, "weights.")
    trace = port.Model(weights).forward(audio, image)
    blank = [(audio, 0 * image), (0 * audio, image), (0 * audio, 0 * image)]
    weight, bias = port.fit_router(golden["router.fit.features"], golden["router.fit.situations"])
    routed = port.by_situation(audio, image, weights, sets_of(golden), golden["router.picks"])
    return {"router.pooled": port.pooled(trace["audio_encoder.out"], trace["image_encoder.out"]),
            "router.logits": port.Model(golden).linear(golden["router.pooled"], "router"),
            "router.picks": port.pick(audio, image, logits), "routed.scores": routed["scores"],
            "router.blank_picks": [port.pick(*pair, logits) for pair in blank], "router.weight": weight, "router.bias": bias}


def baselines(port, golden):
    audio, image, weights = inputs(golden)
    return {f"{name}.logits": port.Model(weights, part(golden, f"{name}.")).forward(audio, image)["logits"]
            for name in ("lora", "adapter", "scale_shift")}


def damage(port, golden):
    made = {}
    for name in golden:
        if name.startswith("damage.") and name.endswith(".drawn"):
            kind = name.split(".")[1]
            made[f"damage.{kind}.out"] = port.DAMAGE[kind][1](golden["input." + kind.split("_")[0]][0], golden[name])
    return made


def draws(port, golden):
    audio, image, kinds, rows, made = golden["input.audio"][0], golden["input.image"][0], list(port.DAMAGE), [], {}
    for i, key in enumerate(zip(*(golden[f"draws.{name}"].tolist() for name in ("seed", "epoch", "id")))):
        seed, epoch, name = key
        random = port.generator(*key)
        audio_kind, damaged_audio = port.damage(random, audio, kinds[:3])
        image_kind, damaged_image = port.damage(random, image, kinds[3:6])
        moved_audio, moved_image = port.augment(port.generator(seed, epoch, "shift " + name), audio, image)
        made |= under(f"draws.{i}.", {"audio": damaged_audio, "image": damaged_image, "moved_audio": moved_audio,
                                      "moved_image": moved_image})
        rows.append({"integers": port.generator(*key).integers(0, 1000, 8),
                     "normal": port.generator(*key).standard_normal(8, np.float32),
                     "kinds": [kinds.index(audio_kind), kinds.index(image_kind)],
                     "kind_alone": kinds.index(port.damage(port.generator(*key), audio, [*kinds[:3], "missing"])[0]),
                     "situation": port.generator(seed, epoch, "situation " + name).integers(4),
                     "shift": port.generator(seed, epoch, "shift " + name).integers(-5, 5, 3, endpoint=True)})
    made |= {f"draws.{name}": [row[name] for row in rows] for name in rows[0]}
    return {**made, "draws.order": port.generator(0, 1, "prompt noisy_audio").permutation(12)}


def training(port, golden):
    audio, image, weights = inputs(golden)
    labels, own = golden["labels"], part(golden, "step.start.")
    rates, b1 = port.one_cycle(10, peak=1e-3)
    made, losses, state = {}, [], {name: (value, 0, 0) for name, value in own.items()}
    for step in range(4):                                              # losses 0 to 3 follow from the gradients of three steps
        own = {name: p for name, (p, _, _) in state.items()}
        made |= under(f"step.after.{step - 1}.", own)
        losses.append(port.cross_entropy(port.Model(weights, own).forward(audio, image)["logits"], labels))
        state = {name: port.adamw(*state[name], gradient, step + 1, rates[step], b1[step], decay=0.05)
                 for name, gradient in part(golden, f"step.gradient.{step}.").items()}
    loss = port.together(audio, image, weights, sets_of(golden), range(4), labels)
    losses = np.concatenate([losses, golden["step.losses"][4:]])       # of the others there are no gradients to start from
    return {**made, "step.losses": losses, "step.learning_rates": rates, "step.beta1": b1, "together.loss": loss}


ROWS = {"1": clips, "2": clips, "3": clips, "4": pictures, "5": plain, "6": plain, "7": plain, "8": prompts, "9": answers,
        "10": router, "11": baselines, "12": damage, "13": draws, "14": training}


@functools.cache
def stated():
    """{row: [(patterns of names, tolerance, whether relative)]}, from the document's table. There a name that begins
    with a point stands for all that end so, and a row without a number belongs to the one above."""
    found, number = {}, ""
    table = (ROOT / "docs" / "porting.md").read_text().split("| tolerance |\n")[1].split("\n\n")[0]
    for line in table.splitlines()[1:]:
        own, _, _, groups, tolerances = (cell.strip() for cell in line.strip("|").split("|"))
        number = own or number
        for group, tolerance in zip(groups.split(";"), tolerances.split(";"), strict=True):
            names = [re.sub(r"^\.", "*.", name) for name in re.findall(r"`(.+?)`", group)]
            value, *relative = tolerance.split()
            found.setdefault(number, []).append((names, float(value), relative == ["relative"]))
    return found


def tolerance_of(row, name, array):
    """The largest difference that the row's narrowest rule for a name allows; None where it has no such name"""
    limits = [value * (abs(array).max() if relative else 1) for names, value, relative in stated()[row]
              if any(fnmatch.fnmatchcase(name, pattern) for pattern in names)]
    return None if not limits else 0.0 if array.dtype.kind in "iu" else float(min(limits))


def differences(row, port, golden):
    """{name: (largest difference, tolerance)} of what the row compares"""
    found = {}
    for name, value in ROWS[row](port, golden).items():
        if name in golden and (tolerance := tolerance_of(row, name, golden[name])) is not None:
            assert np.shape(value) == golden[name].shape, f"{name}: {np.shape(value)}, expected {golden[name].shape}"
            found[name] = float(abs(value - golden[name]).max()), tolerance
    return found


def beyond(found):
    """Of `differences`, those that are too large or not numbers"""
    return {name: pair for name, pair in found.items() if not pair[0] <= pair[1]}


@pytest.fixture(scope="module")
def golden(kit):
    """{name: array}, floating-point ones in double precision"""
    return {name: value.astype(float) if value.dtype.kind == "f" else value for name, value in np.load(kit).items()}


@pytest.fixture(scope="module")
def found(golden):
    """`differences` of the port as a function of the row"""
    return functools.cache(lambda row: differences(row, port_numpy, golden))


@pytest.mark.parametrize("row", ROWS)
def test_what_a_row_of_the_build_order_makes_is_within_its_tolerance(found, row):
    assert len(found(row)) > 0
    assert beyond(found(row)) == {}


def test_every_array_is_either_fed_or_compared(found, golden):
    compared = {name for row in ROWS for name in found(row)}
    fed = {name for name in golden if any(fnmatch.fnmatchcase(name, pattern) for pattern in FED)}
    assert list(ROWS) == list(stated())
    assert compared & fed == set() and compared | fed == set(golden)


def check_slope(loss, learned, gradients):
    """Along two random directions of length 1 the loss of {name: array} rises as gradients of some of these say, to 2e-6 of
    the gradients' length; seen by central differences."""
    random = np.random.default_rng(0)
    norm = np.sqrt(sum((gradient ** 2).sum() for gradient in gradients.values()))
    for _ in range(2):
        direction = {name: random.standard_normal(gradient.shape) for name, gradient in gradients.items()}
        length = np.sqrt(sum((values ** 2).sum() for values in direction.values()))
        ahead, behind = (loss(learned | {name: learned[name] + step / length * direction[name] for name in direction})
                         for step in (1e-4, -1e-4))
        projection = sum((gradients[name] * direction[name]).sum() for name in gradients) / length
        assert abs((ahead - behind) / 2e-4 - projection) <= 2e-6 * norm


@pytest.mark.parametrize("name", LEARNED)
def test_the_gradient_of_the_first_step_is_the_slope_of_its_loss(golden, name):
    audio, image, weights = inputs(golden)

    def loss(own):
        return port_numpy.cross_entropy(port_numpy.Model(weights, own).forward(audio, image)["logits"], golden["labels"])

    check_slope(loss, part(golden, "step.start."), {name: golden[f"step.gradient.0.{name}"]})


@pytest.mark.parametrize("name", LEARNED)
def test_the_gradient_of_together_is_the_slope_of_its_loss_in_all_four_sets(golden, name):
    def loss(learned):
        sets = [part(learned, f"{s}.") for s in range(4)]
        return port_numpy.together(*inputs(golden), sets, range(4), golden["labels"])

    check_slope(loss, part(golden, "sets."), {f"{s}.{name}": golden[f"together.gradient.{s}.{name}"] for s in range(4)})


MISTAKES = {                                              # the row that is to see it, what the port says, what is wrong
    "a periodic Hann window": ("2", "np.arange(w) / (w - 1)", "np.arange(w) / w"),
    "audio tokens time-major": ("5", "->bijd", "->bjid"),
    "LayerNorm's eps 1e-6": ("7", "EPS, ALPHA = 1e-5", "EPS, ALPHA = 1e-6"),
    "GELU by tanh": ("7", "np.vectorize(math.erf, otypes=[float])(u / math.sqrt(2))",
                     "np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3))"),
    "the mean before the last norm": ("7", 'self.layer_norm(tokens, "norm").mean(axis=1)',
                                      'self.layer_norm(tokens.mean(axis=1), "norm")'),
    "prompts normed in the fusion": ("8", 'np.concatenate([prompts, self.layer_norm(other, path + ".norm_context")], axis=1)',
                                     'self.layer_norm(np.concatenate([prompts, other], axis=1), path + ".norm_context")'),
    "shallow prompts dropped after their block": ("8", "i + 1 < BLOCKS and", "False and"),
    "concat's heads averaged as logits": ("9", "np.mean([softmax(Model(one).head(features)) for one in sets], axis=0)",
                                          "softmax(np.mean([Model(one).head(features) for one in sets], axis=0))"),
    "the spread by N - 1": ("10", "x.std(axis=1)", "x.std(axis=1, ddof=1)"),
    "a constant b1": ("14", "b1 * m + (1 - b1) * g", "0.9 * m + 0.1 * g")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_port_with_a_usual_mistake_fails(golden, mistake):
    row, right, wrong = MISTAKES[mistake]
    assert SOURCE.count(right) == 1
    port = types.ModuleType(mistake)
    exec(SOURCE.replace(right, wrong), vars(port))
    assert beyond(differences(row, port, golden)) != {}


def test_the_port_is_numpy_alone_and_short():
    nodes = list(ast.walk(ast.parse(SOURCE)))
    imports = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    assert imports == ["hashlib", "math", "numpy"] and not any(isinstance(node, ast.ImportFrom) for node in nodes)
    assert len(SOURCE.splitlines()) <= 300
