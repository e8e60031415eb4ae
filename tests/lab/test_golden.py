"""The golden arrays, and the port in NumPy against them by the table of docs/porting.md."""
import ast
import fnmatch
import functools
import re
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import port_numpy
import pytest

from ptm_mini.lab import golden as command
from ptm_mini.lab.golden import named

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "porting.md").read_text()
SOURCE = (ROOT / "tests" / "port_numpy.py").read_text()
Arrays = dict[str, np.ndarray]
# Fed and not made. Gradients are compared along directions; those of later steps are fed to AdamW.
FED = ("clip.*.stored", "clip.*.rate", "normalisation", "picture.*.stored", "labels", "weights.*",
       "sets.*", "router.audio", "router.image", "router.fit.*", "lora.*.up", "lora.*.down",
       "lora.head.*", "adapter.*.up", "adapter.*.down", "adapter.*_bias", "adapter.head.*",
       "scale_shift.*.scale", "scale_shift.*.shift", "scale_shift.head.*", "damage.*.drawn",
       "draws.seed", "draws.epoch", "draws.id", "step.start.*", "step.gradient.*",
       "together.gradient.*")
TRAINED = (*port_numpy.PLACES, "head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden.npz, made by the command."""
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    command.main([str(path)])
    return path


@pytest.fixture(scope="module")
def golden(kit: Path) -> Arrays:
    """{name: array}, floating-point ones in double precision"""
    return {name: value.astype(float) if value.dtype.kind == "f" else value
            for name, value in np.load(kit).items()}


def part(golden: Arrays, prefix: str) -> Arrays:
    """{name without the prefix: array}"""
    return {name.removeprefix(prefix): value for name, value in golden.items()
            if name.startswith(prefix)}


def batch(golden: Arrays) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """audio, image, weights"""
    return golden["input.audio"], golden["input.image"], part(golden, "weights.")


def sets_of(golden: Arrays) -> list[Arrays]:
    return [part(golden, f"sets.{s}.") for s in range(4)]


def make_plain(port: types.ModuleType, golden: Arrays) -> Arrays:
    """Steps 1 to 3; port: port_numpy, or one with a mistake"""
    audio, image, weights = batch(golden)
    return named("plain.", **port.Model(weights).forward(audio, image))


def make_prompts(port: types.ModuleType, golden: Arrays) -> Arrays:
    sets, made = sets_of(golden), {}
    for depth in range(3):
        fewer = [{name: value[:depth] if name.endswith("_input") else value
                  for name, value in one.items()} for one in sets]
        made |= named(f"depth.{depth}.", **port.oracle(*batch(golden), fewer, range(4)))
    return made | named("situation.", **port.oracle(*batch(golden), sets, range(4)))


def make_answers(port: types.ModuleType, golden: Arrays) -> Arrays:
    sets = sets_of(golden)
    return {**named("concat.", **port.concat(*batch(golden), sets)),
            "lowest_entropy.scores": port.lowest_entropy(*batch(golden), sets)}


def make_router(port: types.ModuleType, golden: Arrays) -> Arrays:
    audio, image, logits = (golden[f"router.{name}"] for name in ("audio", "image", "logits"))
    weights, picks = part(golden, "weights."), golden["router.picks"]
    trace = port.Model(weights).forward(audio, image)
    blank = [(audio, 0 * image), (0 * audio, image), (0 * audio, 0 * image)]
    weight, bias = port.fit_router(golden["router.fit.features"], golden["router.fit.situations"])
    routed = port.oracle(audio, image, weights, sets_of(golden), picks)
    return {"router.pooled": port.pool(trace["audio_encoder.out"], trace["image_encoder.out"]),
            "router.logits": port.Model(golden).linear(golden["router.pooled"], "router"),
            "router.picks": port.pick(audio, image, logits), "routed.scores": routed["scores"],
            "router.blank_picks": [port.pick(*pair, logits) for pair in blank],
            "router.weight": weight, "router.bias": bias}


def make_baselines(port: types.ModuleType, golden: Arrays) -> Arrays:
    audio, image, weights = batch(golden)
    return {f"{name}.logits": port.Model(weights, part(golden, f"{name}.")).forward(
        audio, image)["logits"] for name in ("lora", "adapter", "scale_shift")}


def together(port: types.ModuleType, golden: Arrays, sets: list[Arrays]) -> float:
    found = port.oracle(*batch(golden), sets, range(4)), port.concat(*batch(golden), sets)
    return sum(port.cross_entropy(one["scores"], golden["labels"]) for one in found) / 2


def make_training(port: types.ModuleType, golden: Arrays) -> Arrays:
    (audio, image, weights), made, losses = batch(golden), {}, []
    rates, b1 = port.one_cycle(10, peak=1e-3)
    state = {name: (value, 0, 0) for name, value in part(golden, "step.start.").items()}
    for step in range(4):                   # losses 0 to 3 follow from the gradients of three steps
        own = {name: p for name, (p, _, _) in state.items()}
        made |= named(f"step.after.{step - 1}.", **own)
        logits = port.Model(weights, own).forward(audio, image)["logits"]
        losses.append(port.cross_entropy(logits, golden["labels"]))
        schedule = {"t": step + 1, "rate": rates[step], "b1": b1[step], "decay": 0.05}
        state = {name: port.adamw(state[name], gradient, **schedule)
                 for name, gradient in part(golden, f"step.gradient.{step}.").items()}
    return {**made, "step.losses": [*losses, *golden["step.losses"][4:]], "step.beta1": b1,
            "step.learning_rates": rates, "together.loss": together(port, golden, sets_of(golden))}


def make_damage(port: types.ModuleType, golden: Arrays) -> Arrays:
    made = {}
    for kind, (_, apply) in port.DAMAGE.items():
        if kind != "missing":
            x, drawn = golden[f"input.{kind.split('_')[0]}"][0], golden[f"damage.{kind}.drawn"]
            made[f"damage.{kind}.out"] = apply(x, drawn)
    return made


def make_clips(port: types.ModuleType, golden: Arrays) -> Arrays:
    """Steps 10 to 12"""
    made, (mean, std) = {}, golden["normalisation"]
    for name in ("down", "up", "odd", "short"):
        clip = part(golden, f"clip.{name}.")
        made |= named(f"clip.{name}.", **port.sound(clip["stored"], int(clip["rate"])),
                      **port.filterbank(clip["waveform"]), audio=(clip["log_mel"] - mean) / std)
    made |= {f"filterbank.{name}": made[f"clip.down.{name}"] for name in ("window", "filters")}
    audio = [made[f"clip.{name}.audio"] for name in ("down", "up", "odd", "short")]
    return {**made, "input.audio": np.stack(audio)}


def make_pictures(port: types.ModuleType, golden: Arrays) -> Arrays:
    made = {"picture.wide.weights": port.resize_weights(len(golden["picture.wide.rgb"]))}
    for name in fnmatch.filter(golden, "picture.*.stored"):
        made |= named(name.removesuffix("stored"), **port.picture(golden[name]))
    image = [made[f"picture.{name}.image"] for name in ("wide", "tall", "small", "square")]
    return {**made, "input.image": np.stack(image)}


def make_draws(port: types.ModuleType, golden: Arrays) -> Arrays:
    audio, image, kinds = golden["input.audio"][0], golden["input.image"][0], list(port.DAMAGE)
    rows, made = [], {"draws.order": port.generator(0, 1, "prompt noisy_audio").permutation(12)}
    for i, key in enumerate(zip(*(golden[f"draws.{name}"].tolist()
                                  for name in ("seed", "epoch", "id")))):
        random, shift = port.generator(*key), (*key[:2], "shift " + key[2])
        drawn = port.damage(random, audio, kinds[:3]), port.damage(random, image, kinds[3:6])
        alone = port.damage(port.generator(*key), audio, [*kinds[:3], "missing"])
        moved = port.augment(port.generator(*shift), audio, image)
        made |= named(f"draws.{i}.", audio=drawn[0][1], image=drawn[1][1],
                      moved_audio=moved[0], moved_image=moved[1])
        rows.append({"integers": port.generator(*key).integers(0, 1000, 8),
                     "normal": port.generator(*key).standard_normal(8, np.float32),
                     "kinds": [kinds.index(kind) for kind, _ in drawn],
                     "kind_alone": kinds.index(alone[0]),
                     "situation": port.generator(*key[:2], "situation " + key[2]).integers(4),
                     "shift": port.generator(*shift).integers(-5, 6, 3)})
    return made | named("draws.", **{name: [row[name] for row in rows] for name in rows[0]})


STEPS = {1: make_plain, 2: make_plain, 3: make_plain, 4: make_prompts, 5: make_answers,
         6: make_router, 7: make_baselines, 8: make_training, 9: make_damage, 10: make_clips,
         11: make_clips, 12: make_clips, 13: make_pictures, 14: make_draws}


@functools.cache
def tolerances() -> dict[int, list[tuple[str, float, bool]]]:
    """{step: [(pattern of names, tolerance, whether relative)]} of the document's table."""
    found, step = {}, 0
    table = DOCUMENT.split("| tolerance |\n")[1].split("\n\n")[0]
    for line in table.splitlines()[1:]:
        name, _, arrays, tolerance = (cell.strip() for cell in line.strip("|").split("|"))
        step = int(name.split()[0]) if name else step       # a row without one belongs to the last
        value, *relative = tolerance.split()
        found.setdefault(step, []).extend(
            (re.sub(r"^\.", "*.", pattern), float(value), bool(relative))
            for pattern in re.findall(r"`(.+?)`", arrays))
    return found


def compare(step: int, port: types.ModuleType, golden: Arrays) -> dict[str, tuple[float, float]]:
    """{name: (largest difference, tolerance)} of what a step of the build order compares"""
    found = {}
    for name, value in STEPS[step](port, golden).items():
        limits = [limit * (abs(golden[name]).max() if relative else 1)
                  for pattern, limit, relative in tolerances()[step]
                  if name in golden and fnmatch.fnmatchcase(name, pattern)]
        if limits:
            assert np.shape(value) == golden[name].shape, name
            limit = 0.0 if golden[name].dtype.kind in "iu" else min(limits)
            found[name] = float(abs(value - golden[name]).max()), limit
    return found


def beyond(found: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Select what is too large or not a number."""
    return {name: pair for name, pair in found.items() if not pair[0] <= pair[1]}


@pytest.fixture(scope="module")
def compared(golden: Arrays) -> Callable[[int], dict[str, tuple[float, float]]]:
    """`compare` of the port, by step"""
    return functools.cache(lambda step: compare(step, port_numpy, golden))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_build_order_is_within_its_tolerance(compared: Callable, step: int) -> None:
    assert len(compared(step)) > 0
    assert beyond(compared(step)) == {}


def test_every_array_is_either_fed_or_compared(compared: Callable, golden: Arrays) -> None:
    made = {name for step in STEPS for name in compared(step)}
    fed = {name for name in golden if any(fnmatch.fnmatchcase(name, pattern) for pattern in FED)}
    assert list(STEPS) == list(tolerances())
    assert made & fed == set() and made | fed == set(golden)


def test_every_array_is_documented_and_every_documented_name_exists(golden: Arrays) -> None:
    names = re.findall(r"`([a-z_]+\.[\w.{}]+)`", DOCUMENT.split("## Names")[1].split("Interm")[0])
    patterns = [re.sub(r"\\{\w+\\}", ".+", re.escape(name)) for name in [*names, "labels",
                                                                         "normalisation"]]
    assert len(patterns) > 30
    assert [name for name in golden if not any(re.fullmatch(p, name) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, name) for name in golden)] == []
    assert f"writes {len(golden)} arrays" in DOCUMENT


def test_the_arrays_are_the_same_each_time_and_finite(kit: Path, tmp_path: Path) -> None:
    command.main([str(tmp_path / "again.npz")])
    assert kit.read_bytes() == (tmp_path / "again.npz").read_bytes()
    for name, array in np.load(kit).items():
        assert array.dtype.kind == "U" or np.isfinite(array).all(), name


def check_slope(loss: Callable[[Arrays], float], parameters: Arrays, gradients: Arrays) -> None:
    """Compare the slope of a loss along random directions of length 1 with gradients."""
    random = np.random.default_rng(0)
    norm = np.sqrt(sum((gradient ** 2).sum() for gradient in gradients.values()))
    for _ in range(2):
        direction = {name: random.standard_normal(g.shape) for name, g in gradients.items()}
        length = np.sqrt(sum((values ** 2).sum() for values in direction.values()))
        ahead, back = (loss(parameters | {name: parameters[name] + step / length * values
                                          for name, values in direction.items()})
                       for step in (1e-4, -1e-4))
        slope = sum((gradients[name] * direction[name]).sum() for name in gradients) / length
        assert abs((ahead - back) / 2e-4 - slope) <= 2e-6 * norm


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_slopes(golden: Arrays, name: str) -> None:
    """Of the first step's loss, and of the loss of training together in all four sets"""
    audio, image, weights = batch(golden)

    def step_loss(own: Arrays) -> float:
        logits = port_numpy.Model(weights, own).forward(audio, image)["logits"]
        return port_numpy.cross_entropy(logits, golden["labels"])

    def together_loss(own: Arrays) -> float:
        return together(port_numpy, golden, [part(own, f"{s}.") for s in range(4)])

    check_slope(step_loss, part(golden, "step.start."), {name: golden[f"step.gradient.0.{name}"]})
    check_slope(together_loss, part(golden, "sets."),
                {f"{s}.{name}": golden[f"together.gradient.{s}.{name}"] for s in range(4)})


MISTAKES = {              # the step that has to notice, what the port says, and what would be wrong
    "audio tokens time-major": (1, "->bijd", "->bjid"),
    "LayerNorm's eps 1e-6": (3, "24, 1e-5, 8", "24, 1e-6, 8"),
    "GELU by tanh": (3, "np.vectorize(math.erf, otypes=[float])(u / math.sqrt(2))",
                     "np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3))"),
    "the mean before the last norm": (3, 'self.layer_norm(tokens, "norm").mean(axis=1)',
                                      'self.layer_norm(tokens.mean(axis=1), "norm")'),
    "prompts normed in the fusion": (
        4, 'np.concatenate([prompts, self.layer_norm(other, path + ".norm_context")], axis=1)',
        'self.layer_norm(np.concatenate([prompts, other], axis=1), path + ".norm_context")'),
    "shallow prompts dropped after their block": (4, "i + 1 < BLOCKS and", "False and"),
    "concat's heads averaged as logits": (
        5, "np.mean([softmax(Model(one).head(features)) for one in sets], axis=0)",
        "softmax(np.mean([Model(one).head(features) for one in sets], axis=0))"),
    "the deviation by N - 1": (6, "x.std(axis=1)", "x.std(axis=1, ddof=1)"),
    "a constant b1": (8, "b1 * state[1] + (1 - b1) * g", "0.9 * state[1] + 0.1 * g"),
    "a periodic Hann window": (11, "np.arange(w) / (w - 1)", "np.arange(w) / w")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_port_with_a_usual_mistake_fails(golden: Arrays, mistake: str) -> None:
    step, right, wrong = MISTAKES[mistake]
    assert SOURCE.count(right) == 1
    port = types.ModuleType(mistake)
    exec(SOURCE.replace(right, wrong), vars(port))
    assert beyond(compare(step, port, golden)) != {}


def test_the_port_is_numpy_alone_and_short() -> None:
    nodes = list(ast.walk(ast.parse(SOURCE)))
    imports = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    assert imports == ["hashlib", "math", "numpy"]
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
    assert len(SOURCE.splitlines()) <= 300
