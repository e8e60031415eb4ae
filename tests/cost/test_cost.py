"""The cost command: operations by hand, epochs by hand, memory that is there, answers that agree, and its files."""
import json
import math

import pytest
import torch
from conftest import CLASSES, SMALL, make_backbone, refusal
from PIL import Image

from ptm_mini.config import Situation
from ptm_mini.cost import __main__ as command
from ptm_mini.cost import clock, serving, shares, steps
from ptm_mini.settings import with_settings
from ptm_mini.training.methods import METHODS

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1, 2, 3, 1])
# Multiplications and additions for a sample at `small`: N = 4 tokens a stream, width 16, 2 blocks an encoder, 10 classes.
D, N = 16, 4


def block(tokens, keys):
    """Projections and MLP, 12 D^2 a token; scores and what is mixed by them"""
    return 2 * (12 * D * D * tokens + 2 * D * tokens * keys)


EARLY = 2 * (N * D * 256 + N * D * 192)                                 # patches of 16 x 16 x 1 and 8 x 8 x 3
ENCODERS = 2 * 2 * block(N, N)
FORWARD = EARLY + ENCODERS + 2 * block(N, N) + block(2 * N, 2 * N) + 2 * D * CLASSES


@pytest.fixture
def all_steps(small, inputs):
    audio, image, _ = inputs
    config = with_settings(small, {"prompts.tune_head": True})
    return steps.all_steps(config, make_backbone(config, torch.Generator().manual_seed(0)), audio, image)


def counted(step, part=steps.backward):
    return steps.operations(step, LABELS, part)


def test_operations_by_hand(all_steps):
    B = len(LABELS)
    full = all_steps[steps.FULL]
    assert counted(full, lambda model, inputs, labels: model(*inputs)) == B * FORWARD
    assert counted(full) == B * (3 * FORWARD - EARLY)                   # forward; weights; inputs, but for the pixels
    assert counted(all_steps["head"]) == B * (FORWARD + 4 * D * CLASSES)
    assert counted(all_steps["head, kept"]) == counted(all_steps["head"]) - B * (EARLY + ENCODERS)


def test_frozen_weights_get_no_gradient_and_kept_tokens_spare_what_made_them(all_steps):
    """A frozen part costs its forward pass and, behind what learns first, as much again for its inputs; attention, of which
    both factors are inputs, twice as much. A head's weights learn."""
    def before(row):
        return counted(all_steps[row], all_steps[row].before)

    attention = 2 * 2 * D * (6 * N * N + (2 * N) ** 2)
    assert counted(all_steps["scale_shift"]) == len(LABELS) * (2 * FORWARD - EARLY + attention + 2 * D * CLASSES)
    for row in ("prompts both", "prompts input", "prompts attention", "prompts late"):
        forward = counted(all_steps[row], lambda model, inputs, labels: model(*inputs))
        assert counted(all_steps[row]) < 2.03 * forward - before(row), row
        if row + steps.KEPT in all_steps:
            assert counted(all_steps[row + steps.KEPT]) == counted(all_steps[row]) - before(row) > 0
    assert before("prompts both") == before("scale_shift") == len(LABELS) * EARLY
    assert counted(all_steps["prompts both"]) < counted(all_steps[steps.FULL])
    assert before("prompts attention") == len(LABELS) * (EARLY + ENCODERS) == before("prompts late") + len(LABELS) * ENCODERS / 2
    assert [row for row in all_steps if row.endswith(steps.KEPT)] == ["head, kept", "prompts attention, kept", "prompts late, kept"]


def test_kept_tokens_are_what_the_whole_step_computes(all_steps):
    for row in ("head", "prompts attention", "prompts late"):
        whole, kept = all_steps[row], all_steps[row + steps.KEPT]
        assert all(torch.equal(made, tokens) for made, tokens in zip(steps.make(whole, kept), kept.inputs, strict=True))
        assert torch.equal(whole.model(*whole.inputs), kept.model(*kept.inputs))


def test_shares_are_of_full_fine_tuning_and_limits_below(all_steps):
    found, times = steps.measure(all_steps, LABELS, 100, 2, CPU)
    training, of_full = found["training"], found["shares"]
    assert set(of_full[steps.FULL].values()) == {1.0} and training.keys() == of_full.keys() == all_steps.keys()
    for row, own in of_full.items():
        assert own["limit"] <= own["operations"] + 1e-9 and own["operations"] == pytest.approx(
            training[row]["Gop"] / training[steps.FULL]["Gop"])
        assert own["time/operations"] == pytest.approx(own["time"] / own["operations"]) and len(times[row]) == 3
    assert of_full["prompts late, kept"]["operations"] == pytest.approx(of_full["prompts late"]["limit"])
    assert of_full["head"]["limit"] == pytest.approx(4 * D * CLASSES * len(LABELS) / 1e9 / training[steps.FULL]["Gop"], rel=0.51)
    assert found["keeping"]["head, kept"]["kB/sample"] == 2 * N * D * 2 / 1000
    assert training["head"]["stored kB"] == 4 * (2 * D + D * CLASSES + CLASSES) / 1000
    assert found["protocols"]["head"]["equal s"] == pytest.approx(100 / len(LABELS) * training["head"]["ms"] / 1000)


def test_an_epoch_in_two_protocols_by_hand():
    """100 samples in batches of 40, a step of 2 s, or of 0.5 and 0.1: the paper's share of the data is 30."""
    training = {steps.FULL: {"ms": 2000.0, "step MB": 800.0}, "lora": {"ms": 500.0, "step MB": 200.0},
                "head, kept": {"ms": 100.0, "step MB": 8.0}}
    columns = ("equal s", "equal share", "paper s", "paper share", "memory share")
    expected = {steps.FULL: (5, 1, 5, 1, 1), "lora": (1.25, 0.25, 0.375, 0.075, 0.25),
                "head, kept": (0.25, 0.05, 0.075, 0.015, 0.01)}
    found = shares.protocols(training, 100 / 40)
    assert list(found) == list(expected)
    assert all(found[row] == pytest.approx(dict(zip(columns, numbers))) for row, numbers in expected.items())


def test_kept_tokens_pay_by_what_a_step_is_spared_or_never():
    tokens = torch.zeros(40, 3, 16), torch.zeros(40, 4, 16)
    expected = {"kB/sample": 2 * 7 * 16 / 1000, "ms to make": 60, "ms saved": 20, "s/view": 2.5 * 0.06, "epochs to pay": 3}
    assert shares.keeping_of(tokens, 60, 20, 2.5) == pytest.approx(expected)
    assert {shares.keeping_of(tokens, 60, saved, 2.5)["epochs to pay"] for saved in (0, -1)} == {math.inf}


@pytest.mark.skipif(not clock.system_tells(CPU), reason="the system does not tell")
def test_memory_that_a_call_takes_is_seen_by_the_system():
    assert clock.growth(lambda: torch.ones(20_000_000).sum()) == pytest.approx(80e6, rel=0.1)


def test_on_cuda_a_step_is_not_charged_with_what_others_hold(all_steps, monkeypatch):
    """Without such a device: 10,000 bytes are allocated before the step, 17,000 at its peak."""
    run, told = steps.Run(all_steps["head"], LABELS), {"memory_allocated": 10_000, "max_memory_allocated": 17_000}
    for name in (*told, "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: told.get(name))
    run()
    heads = 2 * D + D * CLASSES + CLASSES
    weights = sum(p.nbytes for p in run.step.model.parameters())
    assert run.memory(torch.device("cuda")) == 7_000 + weights + 2 * 4 * heads + 4 * 4         # moments, and four counts of steps


def test_each_way_to_answer_gives_the_answers_of_the_situations_told(small, inputs):
    audio, image, _ = inputs
    backbone = make_backbone(small, torch.Generator().manual_seed(0))
    ways, told = serving.ways(small, backbone), torch.arange(5) % len(Situation)
    scores = {row: answer(audio, image, told) for row, (answer, _) in ways.items()}
    for name in steps.levels(small):
        own = {row: found for row, found in scores.items() if row.startswith(f"prompts {name}") and "concat" not in row}
        assert len(own) == 2
        assert all(torch.allclose(found, own[f"prompts {name}, told"], atol=1e-6) for found in own.values())
    assert torch.allclose(scores["lora merged, routed"], scores["lora, routed"], atol=1e-5)


def test_weights_in_memory_are_counted_once(small):
    backbone = make_backbone(small, torch.Generator().manual_seed(0))
    ways = serving.ways(small, backbone)
    memory = {row: serving.in_memory(modules) for row, (_, modules) in ways.items()}
    own = serving.in_memory([backbone])
    assert memory["full_mixed"] == own and memory["prompts input, told"] == own + 4 * 4 * 2 * 2 * 2 * D
    assert memory["prompts input, routed"] - memory["prompts input, told"] == 4 * (4 * 4 * D + 4)       # the router's
    projections = 4 * 7 * (4 * D * D + 4 * D)                           # merged: four copies of every attention's, and heads
    heads = 4 * 4 * (2 * D + D * CLASSES + CLASSES)
    assert memory["lora merged, routed"] == own + 4 * projections + heads + 4 * (4 * 4 * D + 4)


def test_the_command_prints_tables_and_writes_figures_and_a_picture(small, tmp_path, capsys):
    settings = [part for assignment in SMALL for part in ("--set", assignment)]
    command.main([*settings, "--batch", "2", "--samples", "5", "--repeats", "1", "--serving", "1", "3",
                  "--device", "cpu", "--out", str(tmp_path / "cost")])
    printed, found = capsys.readouterr().out, json.loads((tmp_path / "cost" / "cost.json").read_text())
    for name, title in command.TITLES.items():
        table = printed[printed.index(title):].split("\n\n")[1].splitlines()
        assert [line.split("|")[1].strip() for line in table[2:]] == list(found[name])
        assert [cell.strip() for cell in table[0].split("|")[2:-1]] == list(next(iter(found[name].values())))
    assert list(found["seconds"]["serving"]["full_mixed"]) == ["1", "3"] and found["batch"] == 2
    own = found["protocols"]["head, kept"]
    assert own["equal s"] == pytest.approx(2.5 * found["training"]["head, kept"]["ms"] / 1000)
    assert own["paper share"] == pytest.approx(0.3 * found["shares"]["head, kept"]["time"]) and found["samples"] == 5
    full = METHODS["full_mixed"].build(make_backbone(small, torch.Generator().manual_seed(0)), small, None)
    batch = torch.zeros(2, *full.audio_shape), torch.zeros(2, *full.image_shape)         # whatever else is answered, in 3
    memory = steps.Run(steps.Step(full, batch, None), LABELS[:2].clone()).memory(CPU)
    assert found["training"][steps.FULL]["step MB"] == memory / 1e6
    with Image.open(tmp_path / "cost" / "cost.png") as drawn:
        assert drawn.width > 400
    assert "is there already" in refusal(command.main, ["--out", str(tmp_path / "cost")])


@pytest.mark.parametrize("arguments, says", [
    (["--batch", "0"], "--batch: expected a whole number, 1 to 16384, not '0'"),
    (["--samples", "half"], "--samples: expected a whole number, 1 to 1000000000, not 'half'"),
    (["--serving", "1", "-2"], "--serving: expected a whole number, 1 to 16384, not '-2'"),
    (["--set", "image.size=1024", "--serving", "1", "8000"], "--serving 8000: expected at most 317:"),
    (["--set", "image.size=1024", "--batch", "8000", "--serving"], "--batch 8000: expected at most 317:"),
    (["--set", "model.widht=1"], "did you mean model.width?"),
    (["--set", "prompts.tune_head=false", "--set", "model.fusion=none"], "nothing can learn; expected prompts.tune_head=true")])
def test_what_can_not_be_measured_is_named(tmp_path, arguments, says):
    assert says in refusal(command.main, [*arguments, "--device", "cpu", "--out", str(tmp_path / "cost")])
    assert list(tmp_path.iterdir()) == []
