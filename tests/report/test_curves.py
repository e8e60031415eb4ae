"""Training curves from a run's log."""
import io
import json

import pytest
from conftest import refusal
from PIL import Image

import eval as eval_script
from ptm_mini.report import charts, curves
from ptm_mini.report.curves import figures_of, rows_of
from ptm_mini.training.methods import BACKBONE, METHODS


def line(stage, epoch, loss=2.0, accuracy=0.5):
    return {"stage": stage, "epoch": epoch, "epochs": 8, "loss": loss, "accuracy": accuracy, "validation_loss": loss + 0.1,
            "macro_f1": 0.5, "gradient_norm": 1.0, "learning_rate": 0.01, "samples_per_second": 100.0, "seconds": 1.0}


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
    assert caplog.messages == [f"wrote {tmp_path / 'curves.png'}"]


def test_lines_lie_where_their_numbers_say():
    """A loss that falls from 4 to 2: the axis goes by halves from 2 to 4.5, whose middle is 3.25."""
    drawn = charts.lines([{"own: loss": {"a": [(1, [4.0]), (9, [2.0])]}}], "title", "epoch", losses=["own: loss"])
    picture, top = Image.open(io.BytesIO(drawn)).convert("RGB"), charts.TOP + 16
    colour = tuple(bytes.fromhex(charts.COLOURS[0][1:]))
    for x, loss in ((charts.LEFT + 14, 4.0), (charts.LEFT + charts.PANEL // 2, 3.0), (charts.LEFT + charts.PANEL - 14, 2.0)):
        ys = [y for y in range(top, top + charts.HEIGHT + 5) if picture.getpixel((x, y)) == colour]
        assert sum(ys) / len(ys) == pytest.approx(top + charts.HEIGHT * (4.5 - loss) / 2.5, abs=2)


def test_numbers_that_are_none_are_left_out_of_the_picture(tmp_path):
    write_log(tmp_path, [line(BACKBONE, 1, loss=float("inf")), line(BACKBONE, 2)])
    assert rows_of([figures_of(tmp_path / "log.jsonl")])[0]["backbone: training loss"] == {"backbone": [(2, [2.0])]}
    write_log(tmp_path, [line(BACKBONE, 1, float("nan"), float("nan"))])
    assert "its log has no finite number" in refusal(curves.curves, tmp_path, [tmp_path])


@pytest.mark.parametrize("content, says", [
    (None, "no such file; expected the log"), ("", "is empty"), ("{", "not the log"), ("[" * 100000, "not the log"),
    ("[1]\n", "not the log"), ('{"stage": 1, "epoch": 1}\n', "not the log"), ("\xff", "not the log"),
    (json.dumps({**line(BACKBONE, 1), "accuracy": "high"}), "log.jsonl:1: accuracy is 'high'"),
    (json.dumps({**line(BACKBONE, 1), "loss": True}), "loss is True"),
    ('{"stage": "backbone", "epoch": 1}\n', "loss is None; expected a number")])
def test_a_log_that_is_none_is_one_line_and_draws_nothing(tmp_path, content, says):
    if content is not None:
        (tmp_path / "log.jsonl").write_bytes(content.encode("latin-1"))
    before = sorted(tmp_path.iterdir())
    assert says in refusal(eval_script.main, [str(tmp_path), "--curves"])
    assert sorted(tmp_path.iterdir()) == before


def test_curves_go_with_nothing_else(tmp_path):
    assert "--method: does not go with --curves" in refusal(eval_script.main, [str(tmp_path), "--curves", "--method", "lora"])
