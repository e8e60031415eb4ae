"""The golden arrays, and the port in NumPy against them by the table of docs/porting.md."""
import fnmatch
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
# Gradients are compared along directions; those of later steps are fed to AdamW.
FED = re.compile(r"labels|normalisation|(weights|sets|router\.fit)\..*|router\.(audio|image)|"
                 r"(clip|picture)\..*\.(stored|rate)|damage\..*\.drawn|draws\.(seed|epoch|id)|"
                 r"(lora|adapter|scale_shift)\..*\..*|(step|together)\.(start|gradient)\..*")
TRAINED = (*port_numpy.PLACES, "head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias")


def write_golden(folder: Path) -> Arrays:
    """{name: array} of the command's file, floating-point ones in double precision"""
    command.main([str(folder / "golden.npz")])
    return {name: value.astype(float) if value.dtype.kind == "f" else value
            for name, value in np.load(folder / "golden.npz").items()}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return write_golden(tmp_path_factory.mktemp("golden"))


def part(golden: Arrays, prefix: str) -> Arrays:
    """{name without the prefix: array}"""
    return {name.removeprefix(prefix): value for name, value in golden.items()
            if name.startswith(prefix)}


def batch(golden: Arrays) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """audio, image, weights"""
    return golden["input.audio"], golden["input.image"], part(golden, "weights.")


def sets_of(golden: Arrays) -> list[Arrays]:
    return [part(golden, f"sets.{s}.") for s in range(4)]


def make_logits(port: types.ModuleType, golden: Arrays) -> Arrays:
    """Make a port's arrays of steps 1 to 3 and 7; port: port_numpy, or one with a mistake."""
    audio, image, weights = batch(golden)
    made = named("plain.", **port.Model(weights).forward(audio, image))
    for name in ("lora", "adapter", "scale_shift"):
        model = port.Model(weights, part(golden, f"{name}."))
        made[f"{name}.logits"] = model.forward(audio, image)["logits"]
    return made


def make_answers(port: types.ModuleType, golden: Arrays) -> Arrays:
    sets, made = sets_of(golden), {}
    for depth in range(3):
        fewer = [{name: value[:depth] if name.endswith("_input") else value
                  for name, value in one.items()} for one in sets]
        made |= named(f"depth.{depth}.", **port.oracle(*batch(golden), fewer, range(4)))
    return {**made, **named("situation.", **port.oracle(*batch(golden), sets, range(4))),
            **named("concat.", **port.concat(*batch(golden), sets)),
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


def step_loss(port: types.ModuleType, golden: Arrays, own: Arrays) -> float:
    """8. own: a prompt set, {name: array}"""
    audio, image, weights = batch(golden)
    logits = port.Model(weights, own).forward(audio, image)["logits"]
    return port.cross_entropy(logits, golden["labels"])


def together_loss(port: types.ModuleType, golden: Arrays, own: Arrays) -> float:
    """8. own: the four prompt sets, {s.name: array}"""
    sets = [part(own, f"{s}.") for s in range(4)]
    answers = port.oracle(*batch(golden), sets, range(4)), port.concat(*batch(golden), sets)
    return sum(port.cross_entropy(one["scores"], golden["labels"]) for one in answers) / 2


def make_training(port: types.ModuleType, golden: Arrays) -> Arrays:
    made, losses, (rates, b1) = {}, [], port.one_cycle(10, peak=1e-3)
    state = {name: (value, 0, 0) for name, value in part(golden, "step.start.").items()}
    for step in range(4):                   # losses 0 to 3 follow from the gradients of three steps
        own = {name: p for name, (p, _, _) in state.items()}
        made |= named(f"step.after.{step - 1}.", **own)
        losses.append(step_loss(port, golden, own))
        schedule = {"t": step + 1, "rate": rates[step], "b1": b1[step], "decay": 0.05}
        state = {name: port.adamw(state[name], gradient, **schedule)
                 for name, gradient in part(golden, f"step.gradient.{step}.").items()}
    return {**made, "step.losses": [*losses, *golden["step.losses"][4:]], "step.beta1": b1,
            "step.learning_rates": rates,
            "together.loss": together_loss(port, golden, part(golden, "sets."))}


def make_clips(port: types.ModuleType, golden: Arrays) -> Arrays:
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


def make_damage(port: types.ModuleType, golden: Arrays) -> Arrays:
    audio, image, kinds = golden["input.audio"][0], golden["input.image"][0], list(port.DAMAGE)
    rows, made = [], {"draws.order": port.generator(0, 1, "prompt noisy_audio").permutation(12)}
    for kind in kinds[:-1]:                             # all but "missing"
        x = audio if kind.startswith("audio") else image
        made[f"damage.{kind}.out"] = port.DAMAGE[kind][1](x, golden[f"damage.{kind}.drawn"])
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


def read_tolerances() -> list[tuple[str, float, bool]]:
    """(pattern of names, tolerance, whether it is relative), from the document's table"""
    tolerances = []
    table = DOCUMENT.split("| tolerance |\n")[1].split("\n\n")[0]
    for line in table.splitlines()[1:]:
        arrays, tolerance = line.strip("|").split("|")[2:]
        limit, *relative = tolerance.split()
        for pattern in re.findall(r"`(.+?)`", arrays):
            tolerances.append((re.sub(r"^\.", "*.", pattern), float(limit), bool(relative)))
    return tolerances


def compare(made: Arrays, golden: Arrays) -> dict[str, bool]:
    """{name: whether it is within its tolerance} of golden arrays that a port has made"""
    found = {}
    for name in made.keys() & golden.keys():
        limit = min(limit * (abs(golden[name]).max() if relative else 1)
                    for pattern, limit, relative in read_tolerances()
                    if fnmatch.fnmatchcase(name, pattern))
        if golden[name].dtype.kind in "iu":
            limit = 0
        assert np.shape(made[name]) == golden[name].shape, name
        found[name] = abs(made[name] - golden[name]).max() <= limit
    return found


def test_every_array_is_fed_or_within_its_tolerance(golden: Arrays) -> None:
    found = {}
    for make in (make_logits, make_answers, make_router, make_training, make_clips, make_pictures,
                 make_damage):
        found |= compare(make(port_numpy, golden), golden)
    assert [name for name, within in found.items() if not within] == []
    assert found.keys() == {name for name in golden if not FED.fullmatch(name)}


def test_every_array_is_documented_and_every_documented_name_exists(golden: Arrays) -> None:
    names = re.findall(r"`([a-z_]+\.[\w.{}]+)`", DOCUMENT.split("## Names")[1].split("Interm")[0])
    patterns = [re.sub(r"\\{\w+\\}", ".+", re.escape(name)) for name in [*names, "labels",
                                                                         "normalisation"]]
    assert [name for name in golden if not any(re.fullmatch(p, name) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, name) for name in golden)] == []
    assert f"writes {len(golden)} arrays" in DOCUMENT


def test_the_arrays_are_the_same_each_time(golden: Arrays, tmp_path: Path) -> None:
    again = write_golden(tmp_path)
    assert all(np.array_equal(again[name], array) for name, array in golden.items())


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("loss, start, gradient", [
    (step_loss, "step.start.", "step.gradient.0."), (together_loss, "sets.", "together.gradient.")])
def test_gradients_are_slopes(golden: Arrays, loss: Callable, start: str, gradient: str,
                              name: str) -> None:
    """Along a random direction of length 1, as docs/porting.md says"""
    parameters, random = part(golden, start), np.random.default_rng(0)
    gradients = {path: g for path, g in part(golden, gradient).items() if path.endswith(name)}
    direction = {path: random.standard_normal(g.shape) for path, g in gradients.items()}
    length, norm = (np.sqrt(sum((array ** 2).sum() for array in arrays.values()))
                    for arrays in (direction, gradients))
    ahead, back = (loss(port_numpy, golden, parameters | {
        path: parameters[path] + step / length * direction[path] for path in direction})
        for step in (1e-4, -1e-4))
    slope = sum((gradients[path] * direction[path]).sum() for path in direction) / length
    assert abs((ahead - back) / 2e-4 - slope) <= 2e-6 * norm


MISTAKES = {              # what would notice, what the port says, and what would be wrong
    "audio tokens time-major": (make_logits, "->bijd", "->bjid"),
    "LayerNorm's eps 1e-6": (make_logits, "24, 1e-5, 8", "24, 1e-6, 8"),
    "GELU by tanh": (make_logits, "np.vectorize(math.erf, otypes=[float])(u / math.sqrt(2))",
                     "np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3))"),
    "the last norm after the mean": (make_logits, 'self.layer_norm(tokens, "norm").mean(axis=1)',
                                     'self.layer_norm(tokens.mean(axis=1), "norm")'),
    "prompts normed in the fusion": (
        make_answers,
        'np.concatenate([prompts, self.layer_norm(other, path + ".norm_context")], axis=1)',
        'self.layer_norm(np.concatenate([prompts, other], axis=1), path + ".norm_context")'),
    "shallow prompts dropped after their block": (make_answers, "i + 1 < BLOCKS and", "False and"),
    "concat's heads averaged as logits": (
        make_answers, "np.mean([softmax(Model(one).head(features)) for one in sets], axis=0)",
        "softmax(np.mean([Model(one).head(features) for one in sets], axis=0))"),
    "the deviation by N - 1": (make_router, "x.std(axis=1)", "x.std(axis=1, ddof=1)"),
    "a constant b1": (make_training, "b1 * state[1] + (1 - b1) * g", "0.9 * state[1] + 0.1 * g"),
    "a periodic Hann window": (make_clips, "np.arange(w) / (w - 1)", "np.arange(w) / w")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_port_with_a_usual_mistake_fails(golden: Arrays, mistake: str) -> None:
    make, right, wrong = MISTAKES[mistake]
    assert SOURCE.count(right) == 1
    port = types.ModuleType(mistake)
    exec(SOURCE.replace(right, wrong), vars(port))
    assert not all(compare(make(port, golden), golden).values())


def test_the_port_is_numpy_alone_and_short() -> None:
    assert re.findall(r"^ *(?:import|from) (\w+)", SOURCE, re.M) == ["hashlib", "math", "numpy"]
    assert len(SOURCE.splitlines()) <= 300
