"""Manifests: whatever is wrong is named with its line."""
import pytest
from conftest import edit, refusal

from ptm_mini.data.manifest import read_set, write_set


@pytest.mark.parametrize("cells, says", [
    ({"id": "s1"}, "manifest.csv:3: id 's1' stands in line 2 too"), ({"id": ""}, "the id is empty"),
    ({"label": "A"}, "label 'A' is not in classes.json; "), ({"split": "testing"}, "split 'testing'; expected one of train"),
    ({"audio": "../0.wav"}, "leads outside the set"), ({"image": "/etc/passwd"}, "leads outside the set"),
    ({"audio": "9.wav"}, "9.wav: no such file"), ({"audio": "", "image": ""}, "neither audio nor image")])
def test_bad_cells_are_named_with_their_line(tiny_set, cells, says):
    line = 3 if cells.get("id") == "s1" else 2                                    # the second of two with one id
    edit(tiny_set, 2, **cells)
    assert f"manifest.csv:{line}" in refusal(read_set, tiny_set) and says in refusal(read_set, tiny_set)


@pytest.mark.parametrize("change, says", [
    (lambda text: text.replace("label", "lable"), "column 'lable': no such column; did you mean label?"),
    (lambda text: text.replace(",group", "").replace("train,\n", "train\n"), "column 'group' stands 0 times"),
    (lambda text: text.replace("label", "image"), "column 'image' stands 2 times"),
    (lambda text: text.replace(",val,", ",train,"), "no row of split 'val'"),
    (lambda text: text.replace("s2,", "s2,,,,,,"), "manifest.csv:4: expected 6 cells"), (lambda text: "", "stands 0 times"),
    (lambda text: text.replace("s2", "s" * 200_000), ": field larger than field limit")])
def test_bad_manifests(tiny_set, change, says):
    path = tiny_set / "manifest.csv"
    path.write_text(change(path.read_text()))
    assert says in refusal(read_set, tiny_set)


@pytest.mark.parametrize("name", ["manifest.csv", "classes.json"])
def test_missing_and_undecodable_files(tiny_set, name):
    (tiny_set / name).write_bytes(b"\xff\xfe")
    assert name in refusal(read_set, tiny_set) and "UTF-8" in refusal(read_set, tiny_set)
    (tiny_set / name).unlink()
    assert f"{name}: no such file" in refusal(read_set, tiny_set)


@pytest.mark.parametrize("classes", ["{", "{}", '["a"]', '["a", "a"]', '["a", 1]'])
def test_bad_classes(tiny_set, classes):
    (tiny_set / "classes.json").write_text(classes)
    assert "classes.json" in refusal(read_set, tiny_set)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tiny_set):
    path = tiny_set / "manifest.csv"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(read_set(tiny_set)[0]) == 6


def test_a_written_set_reads_back(tiny_set):
    rows, classes = read_set(tiny_set)
    write_set(tiny_set, rows, classes)
    assert read_set(tiny_set) == (rows, classes) and classes == ["a", "b"]
