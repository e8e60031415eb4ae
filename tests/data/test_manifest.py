"""Manifests: whatever is wrong is named with its line, and what flatters is said."""
import os
import shutil
from dataclasses import replace

import pytest
from conftest import edit, refusal

from ptm_mini.data.leaks import warn_of_shared_files, warn_of_telling_gaps
from ptm_mini.data.manifest import Row, read_set, root_of, write_set
from ptm_mini.data.prepared import Normalisation, PreparedSet
from ptm_mini.data.storage import Storage


@pytest.mark.parametrize("cells, says", [
    ({"id": "s1"}, "manifest.csv:3: id 's1' stands in line 2 too"), ({"id": ""}, "the id is empty"),
    ({"label": "A"}, "label 'A' is not in classes.json; "), ({"split": "testing"}, "split 'testing'; expected one of train"),
    ({"audio": "../0.wav"}, "leads out of"), ({"image": "/etc/passwd"}, "leads out of"),
    ({"audio": "9.wav"}, "9.wav: no such file"), ({"audio": "", "image": ""}, "neither audio nor image"),
    ({"audio": "x" * 300}, "x: no such file"), ({"audio": "."}, "leads out of"),
    ({"audio": "y/" * 2040}, "y: no such file"), ({"image": "z" * 5000}, "zzz'... has 5000 characters; expected at most 4096"),
    ({"id": "  "}, "id '  ' starts or ends with white space"), ({"group": "yard "}, "group 'yard ' starts or ends with"),
    ({"id": "a\x1bb"}, r"id 'a\x1bb' holds a control character"), ({"audio": "0\0.wav"}, r"audio '0\x00.wav' holds a control"),
    ({"group": "\x85"}, r"group '\x85' holds a control character"), ({"split": "test\t"}, r"split 'test\t' holds a control")])
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
    (lambda text: text.replace("s2", "s" * 200_000), ": field larger than field limit"),
    (lambda text: text.replace("s2", '"s\n2"'), r"id 's\n2' holds a control character"),
    (lambda text: text.replace("s2", '"s2'), "manifest.csv:"), (lambda text: text + 's9,0.wav,,a,train,"g', "unexpected end")])
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


@pytest.mark.parametrize("classes", ["{", "{}", '["a"]', '["a", "a"]', '["a", 1]', '["a", "b\\n"]', '["a", "b "]', "[" * 100_000,
                                     '["a", ' + "9" * 5000 + "]", '["a", "' + "b" * 5000 + '"]', "null", "NaN", '"ab"',
                                     str([str(i) for i in range(100_001)]).replace("'", '"')], ids=range(14))
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


@pytest.mark.parametrize("name", ["a, b.wav", 'say "so".wav', " blank .wav", "wüste 砂漠.wav", "'.wav", "a\u2028b.wav"])
def test_any_name_that_a_cell_can_hold_simply_works(tiny_set, name):
    (tiny_set / "0.wav").rename(tiny_set / name)
    edit(tiny_set, 2, audio=name, id=name.strip(), group=name.strip())
    rows, classes = read_set(tiny_set)
    assert rows[0].audio == name
    write_set(tiny_set, rows, classes)
    assert read_set(tiny_set)[0] == rows


@pytest.mark.parametrize("relative", [True, False])
def test_root_txt_names_the_folder_of_the_files(tiny_set, tmp_path_factory, small, relative):
    folder = tmp_path_factory.mktemp("elsewhere")
    rows, classes = read_set(tiny_set)
    write_set(folder, rows, classes, root=os.path.relpath(tiny_set, folder) if relative else tiny_set)
    assert read_set(folder) == (rows, classes)
    assert root_of(folder) == tiny_set.resolve() and root_of(tiny_set) == tiny_set.resolve()
    here, there = PreparedSet(tiny_set, small), PreparedSet(folder, small)
    for i in range(6):
        one, other = here.sample(i, Normalisation(0, 1)), there.sample(i, Normalisation(0, 1))
        assert (one.audio == other.audio).all() and (one.image == other.image).all()
    assert list(folder.glob("features-*")) and there.folder == folder


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["y" * 200] * 30)])
def test_names_longer_than_the_file_system_takes_are_said_in_one_line(tiny_set, small, name):
    assert "classes.json: can't be read (File name too long)" in refusal(PreparedSet, tiny_set / name, small)
    assert "can't be made (File name too long)" in refusal(PreparedSet, tiny_set, small, Storage(tiny_set / name))
    (tiny_set / "root.txt").write_text(name)
    assert "root.txt: " in refusal(PreparedSet, tiny_set, small)


@pytest.mark.parametrize("text, says", [
    ("", "''; expected one line"), ("a\nb\n", r"'a\nb'; expected one line"), ("nowhere\n", "nowhere: no such folder"),
    ("0.wav", "0.wav: no such folder"), ("a\0b", r"'a\x00b'; expected one line")])
def test_a_bad_root_is_named(tiny_set, text, says):
    (tiny_set / "root.txt").write_text(text)
    assert "root.txt: " in refusal(read_set, tiny_set) and says in refusal(read_set, tiny_set)


def test_links_that_lead_out_of_the_root_are_refused_and_others_not(tiny_set, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    shutil.move(tiny_set / "0.wav", outside / "0.wav")
    (tiny_set / "0.wav").symlink_to(outside / "0.wav")
    assert "manifest.csv:2: path '0.wav' leads out of" in refusal(read_set, tiny_set)
    (tiny_set / "sub").symlink_to(outside)
    edit(tiny_set, 2, audio="sub/0.wav")
    assert "copy the file in, or let root.txt" in refusal(read_set, tiny_set)
    (tiny_set / "loop.wav").symlink_to("loop.wav")
    edit(tiny_set, 2, audio="loop.wav")
    assert "loop.wav: no such file" in refusal(read_set, tiny_set)
    (tiny_set / "inside.wav").symlink_to("1.wav")
    edit(tiny_set, 2, audio="inside.wav")
    assert read_set(tiny_set)[0][0].audio == "inside.wav"


def samples(label, lacking_image, count=10, split="train"):
    return [Row(f"{label}{i}", "x", "" if i < lacking_image else "y", label, split) for i in range(count)]


def test_a_missing_cell_that_betrays_the_class_is_said_in_one_warning(caplog):
    rows = samples("dog", 10) + samples("rain", 5) + samples("wind", 0) + samples("sea", 1)
    warn_of_telling_gaps(rows)
    assert len(caplog.records) == 1 and "no image in 100% of dog, 50% of rain, against 0%" in caplog.text
    caplog.clear()
    warn_of_telling_gaps([replace(row, split="test") for row in rows] + samples("dog", 3) + samples("rain", 2))
    warn_of_telling_gaps(samples("dog", 10) + samples("rain", 10))                        # alike in all classes
    assert caplog.text == ""


def test_a_set_says_what_flatters_when_it_is_opened(tiny_set, small, caplog):
    PreparedSet(tiny_set, small)
    assert "no audio in 50% of a, against 0%" in caplog.text and "files" not in caplog.text
    edit(tiny_set, 5, image="0.png")
    PreparedSet(tiny_set, small)
    assert "1 of 9 files stand in more than one split" in caplog.text


def test_one_file_in_one_split_may_serve_many(caplog):
    warn_of_shared_files(samples("dog", 3) + samples("rain", 1))
    assert caplog.text == ""
