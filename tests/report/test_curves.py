"""Training curves, over epochs and over seconds, from a run's log."""
import io
import json

import pytest
from conftest import refusal
from PIL import Image

import eval as eval_script
from ptm_mini.report import charts, curves
from ptm_mini.report.curves import course_of, courses_of, figures_of, rows_of
from ptm_mini.training.methods import BACKBONE, METHODS


def line(stage, epoch, loss=2.0, accuracy=0.5, seconds=1.0):
    return {"stage": stage, "epoch": epoch, "epochs": 8, "loss": loss, "accuracy": accuracy, "validation_loss": loss + 0.1,
            "macro_f1": 0.5, "gradient_norm": 1.0, "learning_rate": 0.01, "samples_per_second": 100.0, "seconds": seconds}


def write_log(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def stages():
    return [BACKBONE, *(stage for name, method in METHODS.items() for stage in method.model_names(name)), "prompt together"]


def test_every_stage_has_its_line_in_its_methods_row(tmp_path):
    write_log(tmp_path, [line(stage, epoch, loss=3 - 0.1 * epoch) for stage in stages() for epoch in (1, 2, 3)])
    rows = rows_of([figures_of(tmp_path / "log.jsonl")])
    assert [list(row)[0] for row in rows] == [f"{method}: training loss" for method in (BACKBONE, *METHODS)]
    prompt = rows[1]
    assert list(prompt) == ["prompt: training loss", "prompt: validation loss", "prompt: validation accuracy"]
    assert list(prompt["prompt: training loss"]) == ["complete", "noisy_audio", "noisy_image", "noisy_both", "together"]
    assert prompt["prompt: training loss"]["noisy_both"] == [(1, [2.9]), (2, [2.8]), (3, [pytest.approx(2.7)])]
    assert rows[-1]["full_mixed: validation accuracy"] == {"full_mixed": [(1, [0.5]), (2, [0.5]), (3, [0.5])]}


def test_several_seeds_are_one_line_and_one_may_be_behind(tmp_path, caplog):
    for seed, epochs in ((0, 3), (1, 2)):
        write_log(tmp_path / f"seed-{seed}", [line(BACKBONE, n, accuracy=0.2 * n + 0.1 * seed) for n in range(1, epochs + 1)])
        (tmp_path / f"seed-{seed}" / "config.json").write_text("")                  # whatever stands in it
    caplog.set_level("INFO")
    eval_script.main([str(tmp_path), "--curves"])
    rows = rows_of([figures_of(tmp_path / f"seed-{seed}" / "log.jsonl") for seed in (0, 1)])
    assert rows[0]["backbone: validation accuracy"] == {
        "backbone": [(1, [0.2, pytest.approx(0.3)]), (2, [0.4, 0.5]), (3, [pytest.approx(0.6)])]}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert caplog.messages == [f"{tmp_path}: no method but the backbone has trained an epoch in each situation; no seconds.png",
                               f"wrote {tmp_path / 'curves.png'}"]
    assert not (tmp_path / "seconds.png").exists()


# Of each situation, what its epochs said: (seconds, accuracy). The last one is behind.
LORA = {"complete": [(1, 0.9), (2, 0.95), (1, 0.95)], "noisy_audio": [(1, 0.5), (1, 0.69), (3, 0.7)],
        "noisy_image": [(2, 0.4), (1, 0.56), (1, 0.55)], "noisy_both": [(4, 0.2), (2, 0.396)]}


def lora_log(slower=1, better=0.0):
    return [line(f"lora {case}", n, accuracy=accuracy + better, seconds=slower * seconds)
            for case, epochs in LORA.items() for n, (seconds, accuracy) in enumerate(epochs, start=1)]


def test_a_methods_course_takes_epoch_k_of_all_its_cases_together(tmp_path):
    write_log(tmp_path, [*lora_log(), *(line("full_mixed", n, accuracy=0.3 * n, seconds=5.0) for n in (1, 2, 3)),
                         *(line(f"prompt {case}", 1, seconds=0.5) for case in LORA), line("prompt together", 1, seconds=100.0),
                         *(line(f"head {case}", 1) for case in list(LORA)[:3]), line(BACKBONE, 1)])
    log = figures_of(tmp_path / "log.jsonl")
    assert course_of(log, "lora") == [(8.0, pytest.approx(0.5)), (14.0, pytest.approx(0.649))]
    assert course_of(log, "full_mixed") == [(5.0, pytest.approx(0.3)), (10.0, pytest.approx(0.6)), (15.0, pytest.approx(0.9))]
    assert course_of(log, "prompt") == [(2.0, 0.5)]
    assert list(courses_of([log])) == ["full_mixed", "prompt", "lora"]                  # as in the ablations


def test_the_table_tells_when_a_method_is_as_good_as_it_gets():
    course = [(3.0, 0.5), (6.0, 0.796), (9.0, 0.8), (12.0, 0.7)]
    assert curves.columns_of(course) == {"s/epoch, all situations": 3.0, "s to best": 6.0, "best": 0.8}


def test_seconds_are_printed_drawn_and_written_for_several_seeds(tmp_path, capsys):
    write_log(tmp_path / "seed-0", lora_log())
    write_log(tmp_path / "seed-1", lora_log(slower=3, better=0.04) + [line("full_mixed", 1)])     # seed 0 has not got so far
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}" / "config.json").write_text("")
    eval_script.main([str(tmp_path), "--curves"])
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("| lora"))
    assert row.split() == ["|", "lora", "|", "14.000±9.899", "|", "28.000±19.799", "|", "0.669±0.028", "|"]
    found = json.loads((tmp_path / "seconds.json").read_text())
    assert [own["lora"]["s to best"] for own in found["table"]] == [14.0, 42.0] and list(found["courses"]) == ["lora"]
    assert found["courses"]["lora"][1] == [[24.0, pytest.approx(0.54)], [42.0, pytest.approx(0.689)]]
    with Image.open(tmp_path / "seconds.png") as drawn:
        assert drawn.width > charts.PANEL


def test_points_lie_at_their_seconds_by_a_logarithmic_axis_where_it_is_wide():
    """From 1 s to 100 s, 10 s lies in the middle; from 1 s to 9 s, 5 s does."""
    for last, middle in ((100, 10), (9, 5)):
        courses = {"lora": [[(1.0, 0.5), (middle, 0.5), (last, 0.5)]]}
        picture = Image.open(io.BytesIO(curves.against_seconds(courses, "title"))).convert("RGB")
        colour = tuple(bytes.fromhex(charts.COLOURS[0][1:]))
        below = charts.TOP + 16 + charts.HEIGHT + 4             # the points are higher than the line is wide, which is the lowest
        xs = [x for x in range(charts.LEFT, charts.LEFT + charts.PANEL) if picture.getpixel((x, below)) == colour]
        assert any(abs(x - charts.LEFT - charts.PANEL / 2) <= 2 for x in xs), (last, xs)
        assert not any(20 < abs(x - charts.LEFT - charts.PANEL / 2) < charts.PANEL / 2 - 20 for x in xs)


def test_ticks_are_round_numbers():
    assert charts.round_numbers(3, 60, logarithmic=True) == [5, 10, 20, 50]
    assert charts.round_numbers(0.5, 2, logarithmic=True) == pytest.approx([0.5, 1, 2])
    assert charts.round_numbers(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert charts.round_numbers(11, 42) == [20, 30, 40]


def test_lines_lie_where_their_numbers_say():
    """A loss that falls from 4 to 2: the axis goes by halves from 2 to 4.5, whose middle is 3.25."""
    drawn = charts.lines([{"own: loss": {"a": [(1, [4.0]), (9, [2.0])]}}], "title", "epoch", fitted=["own: loss"])
    picture, top = Image.open(io.BytesIO(drawn)).convert("RGB"), charts.TOP + 16
    colour = tuple(bytes.fromhex(charts.COLOURS[0][1:]))
    for x, loss in ((charts.LEFT + 14, 4.0), (charts.LEFT + charts.PANEL // 2, 3.0), (charts.LEFT + charts.PANEL - 14, 2.0)):
        ys = [y for y in range(top, top + charts.HEIGHT + 5) if picture.getpixel((x, y)) == colour]
        assert sum(ys) / len(ys) == pytest.approx(top + charts.HEIGHT * (4.5 - loss) / 2.5, abs=2)


def test_numbers_that_are_none_are_left_out_of_the_picture(tmp_path):
    write_log(tmp_path, [line(BACKBONE, 1, loss=float("inf")), line(BACKBONE, 2)])
    assert rows_of([figures_of(tmp_path / "log.jsonl")])[0]["backbone: training loss"] == {"backbone": [(2, [2.0])]}
    write_log(tmp_path, [{**line("full_mixed", 1), "loss": 10**400}, line("full_mixed", 2), line("full_mixed", 3, accuracy=1e40)])
    curves.curves(tmp_path, [tmp_path])
    assert json.loads((tmp_path / "seconds.json").read_text())["courses"] == {"full_mixed": [[[1.0, 0.5], [2.0, 0.5]]]}
    write_log(tmp_path, [line(BACKBONE, 1, float("nan"), float("nan"))])
    assert "its log has no finite number" in refusal(curves.curves, tmp_path, [tmp_path])


@pytest.mark.parametrize("content, says", [
    (None, "no such file; expected the log"), ("", "is empty"), ("{", "not the log"), ("[" * 100000, "not the log"),
    ("[1]\n", "not the log"), ('{"stage": 1, "epoch": 1}\n', "not the log"), ("\xff", "not the log"),
    (json.dumps({**line(BACKBONE, 1), "accuracy": "high"}), "log.jsonl:1: accuracy is 'high'"),
    (json.dumps({**line(BACKBONE, 1), "loss": True}), "loss is True"),
    (json.dumps(line(BACKBONE, 1, seconds=0)), "log.jsonl:1: seconds is 0; expected a number above 0"),
    (json.dumps(line(BACKBONE, 1, seconds=float("nan"))), "seconds is nan; expected a number above 0"),
    (json.dumps({**line(BACKBONE, 1), "epoch": -1}), "epoch is -1; expected a number above 0"),
    ('{"stage": "backbone", "epoch": 1}\n', "loss is None; expected a number")])
def test_a_log_that_is_none_is_one_line_and_draws_nothing(tmp_path, content, says):
    if content is not None:
        (tmp_path / "log.jsonl").write_bytes(content.encode("latin-1"))
    before = sorted(tmp_path.iterdir())
    assert says in refusal(eval_script.main, [str(tmp_path), "--curves"])
    assert sorted(tmp_path.iterdir()) == before


def test_curves_go_with_nothing_else(tmp_path):
    assert "--method: does not go with --curves" in refusal(eval_script.main, [str(tmp_path), "--curves", "--method", "lora"])
