"""Manifests: the first error is named with its line, and names that work anywhere work here."""
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import CONFIG, edit, refusal

from ptm_mini.data.dataset import PreparedSet
from ptm_mini.data.manifest import Row, read_csv, read_set


@pytest.mark.parametrize("cells, message", [
    ({"id": "s4"}, "id 's4'; expected a different one for each sample"),
    ({"label": "A"}, "label 'A' is not in classes.json; expected one of a, b"),
    ({"split": "testing"}, "split 'testing'; expected one of train, val, test"),
    ({"audio": "", "image": ""}, "neither audio nor image; expected at least one"),
    ({"audio": "9.wav"}, "9.wav: no such file; expected one or an empty cell"),
    ({"audio": "../0.wav"}, "path '../0.wav' leads out of"),
    ({"image": "/etc/passwd"}, "path '/etc/passwd' leads out of")])
def test_a_wrong_cell_is_named(six: Path, cells: dict[str, str], message: str) -> None:
    edit(six, 7, **cells)
    refused = refusal(read_set, six)
    assert refused.startswith(f"{six / 'manifest.csv'}:7: ") and message in refused


@pytest.mark.parametrize("change, message", [
    (lambda text: "", "manifest.csv: no column 'id'; expected id,audio,image,label,split,group"),
    (lambda text: text.replace("group", "group,grup", 1),
     "manifest.csv: no such column as 'grup'; did you mean group?"),
    (lambda text: text.replace("group", "group,image", 1), "two columns of one name; expected"),
    (lambda text: text.replace("s2,", "s2,,"), "manifest.csv:4: expected 6 cells, as in line 1"),
    (lambda text: text.replace(",val,", ",train,"), "manifest.csv: no row of split 'val'"),
    (lambda text: text + 's9,0.wav,,a,train,"g', "expected comma-separated UTF-8 text")])
def test_a_wrong_table_is_named(six: Path, change: Callable[[str], str], message: str) -> None:
    path = six / "manifest.csv"
    path.write_text(change(path.read_text()))
    assert message in refusal(read_set, six)


@pytest.mark.parametrize("name", ["manifest.csv", "classes.json"])
def test_files_that_are_missing_or_no_text_are_named(six: Path, name: str) -> None:
    (six / name).write_bytes(b"\xff\xfe")
    assert refusal(read_set, six).startswith(f"{six / name}: 'utf-8' codec can't decode")
    (six / name).unlink()
    assert "No such file" in refusal(read_set, six)
    message = refusal(read_set, six / "elsewhere")
    assert "elsewhere: no such folder; expected a prepared set" in message and "--data" in message


@pytest.mark.parametrize("classes", ["{", "{}", '["a"]', '["a", "a"]'])
def test_wrong_classes_are_named(six: Path, classes: str) -> None:
    (six / "classes.json").write_text(classes)
    assert refusal(read_set, six).startswith(f"{six / 'classes.json'}: ")


def test_a_set_is_read_as_it_is_written(six: Path) -> None:
    root, rows, classes = read_set(six)
    assert root == six.resolve() and classes == ["a", "b"]
    assert rows[0] == Row("s0", "0.wav", "0.png", "a", "train")
    path = six / "manifest.csv"                            # as spreadsheets write it
    path.write_text(path.read_text().replace("\n", "\r\n") + "\r\n", encoding="utf-8-sig")
    assert read_set(six)[1] == rows


@pytest.mark.parametrize("name", ["a, b.wav", 'say "so".wav', " blank .wav", "wüste 砂漠.wav",
                                  "'.wav"])
def test_any_name_works(six: Path, name: str) -> None:
    (six / "0.wav").rename(six / name)
    edit(six, 2, audio=name, id=name, group=name)
    assert read_set(six)[1][0] == Row(name, name, "0.png", "a", "train", name)
    assert len(PreparedSet(six, CONFIG).rows) == 6


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_blank_lines_and_further_columns_are_read(six: Path, separator: str) -> None:
    path, columns = six / "manifest.csv", ["audio", "image", "label", "split", "group"]
    path.write_text(path.read_text().replace(",", separator).replace("s5", "\ns5"), "utf-8-sig")
    rows = read_csv(path, ["id"], optional=None)
    assert rows[5][0] == f"{path}:8" and rows[5][1]["audio"] == "5.wav"
    assert read_csv(path, ["id"], optional=columns) == rows
    assert "no such column as 'audio'" in refusal(read_csv, path, ["id"], optional=columns[1:])


def test_root_txt_names_the_folder_of_the_files(six: Path, tmp_path: Path) -> None:
    folder = tmp_path / "below" / "elsewhere"
    folder.mkdir(parents=True)
    for name in ("manifest.csv", "classes.json"):
        shutil.copy(six / name, folder)
    for root in (six, "../../six"):
        (folder / "root.txt").write_text(f"{root}\n")
        assert read_set(folder) == read_set(six)
    (folder / "root.txt").write_text("nowhere\n")
    message = refusal(read_set, folder)
    assert message.startswith(f"{folder / 'root.txt'}: ") and "nowhere: no such folder" in message


def test_only_links_that_lead_out_of_the_root_are_refused(six: Path, tmp_path: Path) -> None:
    shutil.move(six / "0.wav", tmp_path / "0.wav")
    (six / "0.wav").symlink_to(tmp_path / "0.wav")
    (six / "folder").symlink_to(tmp_path)
    (six / "inside.wav").symlink_to("1.wav")
    for name in ("0.wav", "folder/0.wav"):
        edit(six, 2, audio=name)
        assert f"manifest.csv:2: path '{name}' leads out of" in refusal(read_set, six)
    edit(six, 2, audio="inside.wav")
    assert read_set(six)[1][0].audio == "inside.wav"
