"""The golden arrays, and the port in NumPy against them by the table of docs/porting.md."""
import fnmatch
import io
import re
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import port_numpy
import pytest
from helpers import refusal
from PIL import Image

from ptm_mini.lab import golden as command
from ptm_mini.lab.golden import named

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "porting.md").read_text()
SOURCE = (ROOT / "tests" / "port_numpy.py").read_text()
Arrays = dict[str, np.ndarray]
# Gradients are compared along directions; those of later steps are fed to AdamW.
FED = re.compile(r"labels|normalisation|(weights|sets|router\.fit)\..*|router\.(audio|image)|"
                 r"(clip|picture)\..*\.(stored|rate|palette|orientation|bytes|decoded)|"
                 r"damage\..*\.drawn|draws\.(seed|epoch|id)|lowest_entropy\.logits|"
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
    (audio, image, weights), sets, made = batch(golden), sets_of(golden), {}
    for depth in range(3):
        fewer = [{name: value[:depth] if name.endswith("_input") else value
                  for name, value in one.items()} for one in sets]
        made |= named(f"depth.{depth}.", **port.oracle(audio, image, weights, fewer, range(4)))
    each = [port.Model(weights, one).forward(audio, image)["logits"] for one in sets]
    return {**made, **named("situation.", **port.oracle(audio, image, weights, sets, range(4))),
            **named("concat.", **port.concat(audio, image, weights, sets)),
            "lowest_entropy.scores": port.surest(np.stack(each)),
            "lowest_entropy.selected": port.surest(golden["lowest_entropy.logits"])}


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
    """8. own: a prompt set or a baseline, {name: array}"""
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
    made, audio = {}, []
    for name in ("down", "up", "odd", "short"):
        clip = part(golden, f"clip.{name}.")
        audio.append(port.inputs(clip["log_mel"], None, golden["normalisation"])[0])
        made |= named(f"clip.{name}.", **port.sound(clip["stored"], int(clip["rate"])),
                      **port.filterbank(clip["waveform"]), audio=audio[-1])
    made |= {f"filterbank.{name}": made[f"clip.down.{name}"] for name in ("window", "filters")}
    missing = port.inputs(None, None, golden["normalisation"])
    return {**made, "input.audio": np.stack(audio), "missing.audio": missing[0],
            "missing.image": missing[1]}


def make_pictures(port: types.ModuleType, golden: Arrays) -> Arrays:
    made = {"picture.wide.weights": port.resize_weights(len(golden["picture.wide.rgb"]))}
    for name, (mode, *_) in {**command.PICTURES, "jpeg": ("RGB",)}.items():
        found = part(golden, f"picture.{name}.")
        stored = found.get("decoded", found.get("stored"))
        if mode == "P":
            mode, stored = "RGB", found["palette"][stored]
        made |= named(f"picture.{name}.", **port.picture(stored, mode, found.get("orientation", 1)))
        made[f"picture.{name}.image"] = port.inputs(
            None, made[f"picture.{name}.pixels"], golden["normalisation"])[1]
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
        both, damaged_audio, damaged_image = port.damage(random, audio, image, 3)
        alone, *_ = port.damage(port.generator(*key), audio, image, 1)
        moved = port.augment(port.generator(*shift), audio, image)
        made |= named(f"draws.{i}.", audio=damaged_audio, image=damaged_image,
                      moved_audio=moved[0], moved_image=moved[1])
        rows.append({"integers": port.generator(*key).integers(0, 1000, 8),
                     "normal": port.generator(*key).standard_normal(8, np.float32),
                     "kinds": [kinds.index(kind) for kind in both],
                     "kind_alone": kinds.index(alone[0]),
                     "situation": port.generator(*key[:2], "situation " + key[2]).integers(4),
                     "shift": port.generator(*shift).integers(-5, 6, 3)})
    return made | named("draws.", **{name: [row[name] for row in rows] for name in rows[0]})


def row_of(name: str) -> tuple[str, str, float] | None:
    """The row of TOLERANCES of an array; None where it is fed"""
    rows = [row for row in command.TOLERANCES
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in row[1].split())]
    assert len(rows) <= 1, name
    return rows[0] if rows else None


def find_wrong(made: Arrays, golden: Arrays) -> list[str]:
    """The golden arrays that a port has made and that are out of their tolerances"""
    return [name for name in sorted(made.keys() & golden.keys())
            if command.compute_error(np.asarray(made[name]), golden[name]) > row_of(name)[2]]


MAKES = (make_logits, make_answers, make_router, make_training, make_clips, make_pictures,
         make_damage)


@pytest.fixture(scope="module")
def made(golden: Arrays) -> Arrays:
    """The port's arrays."""
    return {name: array for make in MAKES for name, array in make(port_numpy, golden).items()
            if name in golden}


def test_every_array_is_fed_or_within_its_tolerance(golden: Arrays, made: Arrays) -> None:
    assert find_wrong(made, golden) == []
    assert made.keys() == {name for name in golden if not FED.fullmatch(name)}


def test_a_port_in_single_precision_is_within_the_tolerances_too(golden: Arrays) -> None:
    single = {name: array.astype(np.float32) if array.dtype == float else array
              for name, array in golden.items()}
    port = types.ModuleType("single")
    exec(SOURCE.replace("otypes=[float]", "otypes=[np.float32]"), vars(port))
    wrong = [name for make in (make_logits, make_answers, make_training)
             for name in find_wrong(make(port, single), golden)]
    assert port.Model(part(single, "weights.")).forward(
        single["input.audio"], single["input.image"])["logits"].dtype == np.float32
    assert wrong == []


def test_every_array_has_one_tolerance_or_is_fed(golden: Arrays) -> None:
    either = re.compile(r".*\.gradient\..*|picture\.jpeg\.decoded")     # fed, or compared if made
    for name in golden:
        assert (row_of(name) is None) == bool(FED.fullmatch(name) and not either.fullmatch(name))


def test_the_table_of_the_document_has_the_tolerances() -> None:
    usual, step_of_other, other = re.search(
        r"tolerance is\s(\S+), of `(.+?)` (\S+), in", DOCUMENT).groups()
    rows = []
    for line in DOCUMENT.split("| compare |\n")[1].split("\n\n")[0].splitlines()[1:]:
        step, _, arrays = (cell.strip() for cell in line.strip("|").split("|"))
        tolerance = float(other if step == step_of_other else usual)
        rows.append((step, " ".join(re.findall(r"`(.+?)`", arrays)), tolerance))
    assert rows == command.TOLERANCES


def test_comparison_by_command(golden: Arrays, made: Arrays, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(command, "make_arrays", lambda: golden)
    file, features = tmp_path / "mine.npz", made["plain.features"]

    def run(arrays: Arrays) -> tuple[int, str]:
        np.savez(file, **arrays)
        with pytest.raises(SystemExit) as caught:
            command.main(["--compare", str(file)])
        return caught.value.code, capsys.readouterr().out

    status, printed = run(made)
    assert status == 0 and printed.count(": right, at worst") == len(command.TOLERANCES)
    assert "13 images: 1 of 63 missing: picture.jpeg.decoded\n" in printed
    assert printed.endswith("compared 279 of 351 arrays\n")
    for wrong in (features + 1e-5, features[None], np.nan * features):
        status, printed = run({"plain.features": wrong, "plain.logits": made["plain.logits"]})
        assert status == 1 and ": WRONG, at worst plain.features: error " in printed
        assert "1 tokens: 4 of 4 missing: plain.audio_encoder.patches plain." in printed
    np.savez(file, x=0, labels=golden["labels"])            # of these none is to be compared
    assert "mine.npz: has no array to compare" in refusal(command.main, ["--compare", str(file)])
    file.write_text("no arrays")
    assert "mine.npz: NumPy can't read it" in refusal(command.main, ["--compare", str(file)])


def test_every_array_is_documented_and_every_documented_name_exists(golden: Arrays) -> None:
    names = re.findall(r"`([a-z_]+\.[\w.{}]+)`", DOCUMENT.split("## Names")[1].split("Interm")[0])
    patterns = [re.sub(r"\\{\w+\\}", ".+", re.escape(name)) for name in [*names, "labels",
                                                                         "normalisation"]]
    assert [name for name in golden if not any(re.fullmatch(p, name) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, name) for name in golden)] == []
    compared = sum(row_of(name) is not None for name in golden)
    assert (f"writes {len(golden)} arrays of a small model, {len(golden) - compared} to feed and "
            f"{compared} to compare" in " ".join(DOCUMENT.split()))


def test_the_arrays_are_the_same_each_time(golden: Arrays, tmp_path: Path) -> None:
    again = write_golden(tmp_path)
    assert all(np.array_equal(again[name], array) for name, array in golden.items())


@pytest.mark.parametrize("loss, start, gradient, name", [
    *((step_loss, "step.start.", "step.gradient.0.", name) for name in TRAINED),
    *((together_loss, "sets.", "together.gradient.", name) for name in TRAINED),
    *((step_loss, "lora.", "lora.gradient.", name) for name in ("down", "up")),
    *((step_loss, "adapter.", "adapter.gradient.", name)
      for name in ("down", "down_bias", "up", "up_bias"))])
def test_gradients_are_slopes(golden: Arrays, loss: Callable, start: str, gradient: str,
                              name: str) -> None:
    """Along a random direction of length 1."""
    parameters, random = part(golden, start), np.random.default_rng(0)
    gradients = {path: g for path, g in part(golden, gradient).items() if path.endswith(name)}
    assert gradients
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
    "LayerNorm's eps 1e-6": (make_logits, "+ 1e-5)", "+ 1e-6)"),
    "GELU by tanh": (make_logits, "np.vectorize(math.erf, otypes=[float])(u / math.sqrt(2))",
                     "np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3))"),
    "the last norm after the mean": (make_logits, 'self.layer_norm(tokens, "norm").mean(axis=1)',
                                     'self.layer_norm(tokens.mean(axis=1), "norm")'),
    "prompts normed in the fusion": (
        make_answers,
        'np.concatenate([prompts, self.layer_norm(other, path + ".norm_context")], axis=1)',
        'self.layer_norm(np.concatenate([prompts, other], axis=1), path + ".norm_context")'),
    "shallow prompts dropped after their block": (
        make_answers, "i + 1 < len(prompts) and", "False and"),
    "concat's heads averaged as logits": (
        make_answers,
        "np.mean([softmax(Model(weights, one).head(features)) for one in sets], axis=0)",
        "softmax(np.mean([Model(weights, one).head(features) for one in sets], axis=0))"),
    "the deviation by N - 1": (make_router, "x.std(axis=1)", "x.std(axis=1, ddof=1)"),
    "the router always 0": (make_router, "logits.argmax(axis=1)", "0"),
    "a constant b1": (make_training, "b1 * state[1] + (1 - b1) * g", "0.9 * state[1] + 0.1 * g"),
    "a periodic Hann window": (make_clips, "np.arange(w) / (w - 1)", "np.arange(w) / w"),
    "the greatest probability for the lowest entropy": (
        make_answers, "entropy = -(softmax(scores) * np.log(softmax(scores))).sum(axis=2) ",
        "entropy = -softmax(scores).max(axis=2) "),
    "a missing modality 0 before normalising": (
        make_clips, "if log_mel is not None:",
        "log_mel = np.zeros(shapes[0]) if log_mel is None else log_mel\n    if True:"),
    "late prompts normed as they enter": (
        make_answers, "np.concatenate([prompts[i], x], axis=1), prompts[i + 1]",
        """np.concatenate([self.layer_norm(prompts[i], f"{path}.blocks.{i}.norm1"), x],
                axis=1), prompts[i + 1]"""),
    "late prompts after the tokens": (
        make_answers, "np.concatenate([prompts[i], x], axis=1), prompts[i + 1]",
        "np.concatenate([x, prompts[i]], axis=1), prompts[i + 1]"),
    "halves rounded to the even number": (make_pictures, "np.floor(resized + 0.501)",
                                          "np.round(resized)"),
    "halves left to the sums": (make_pictures, "np.floor(resized + 0.501)",
                                "np.floor(resized + 0.5)"),
    "EXIF ignored": (make_pictures, "if orientation > 4 else stored", "if False else stored"),
    "EXIF turned the other way": (make_pictures, "in (2, 3, 6, 7)", "in (2, 3, 5, 8)"),
    "CMYK as differences": (make_pictures, "(255 - x[..., :3]) * (255 - x[..., 3:]) / 255",
                            "np.maximum(0, 255 - x[..., :3] - x[..., 3:])"),
    "grey's alpha dropped": (make_pictures, 'in ("LA", "RGBA") else (x, 255)',
                             'in ("RGBA",) else (x[..., :1] if mode == "LA" else x, 255)'),
    "LoRA without alpha / rank": (make_logits, "self.alpha / len(down) * ", "")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_port_with_a_usual_mistake_fails(golden: Arrays, mistake: str) -> None:
    make, right, wrong = MISTAKES[mistake]
    assert SOURCE.count(right) == 1
    port = types.ModuleType(mistake)
    exec(SOURCE.replace(right, wrong), vars(port))
    assert find_wrong(make(port, golden), golden)


def test_a_jpeg_decoded_whole_or_a_palette_taken_for_grey_fails(golden: Arrays) -> None:
    with Image.open(io.BytesIO(golden["picture.jpeg.bytes"].tobytes())) as image:
        whole = port_numpy.picture(np.asarray(image))
    grey = port_numpy.picture(golden["picture.palette.stored"], "L")
    assert "picture.jpeg.rgb" in find_wrong(named("picture.jpeg.", **whole), golden)
    assert "picture.palette.rgb" in find_wrong(named("picture.palette.", **grey), golden)


def test_the_port_is_numpy_alone() -> None:
    assert re.findall(r"^ *(?:import|from) (\w+)", SOURCE, re.M) == ["hashlib", "math", "numpy"]
