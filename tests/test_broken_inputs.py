"""Broken inputs through the commands themselves: each is one line that names it, exit status 2, and leaves nothing behind."""
import importlib
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
import soundfile
import torch
from conftest import edit, save_random_run, write_tiny_set

from ptm_mini.errors import run as run_command
from ptm_mini.runs.sealed import read_json, sealed, sha256_of
from ptm_mini.runs.weights import as_bytes

NESTED, LONG = "[" * 100000, "n" * 300


def rewrite(path, change):
    """Change what a config.json says, and sign it as whoever means harm would."""
    facts = read_json(path)
    del facts["sha256"]
    change(facts)
    path.write_bytes(sealed(facts))


def signed(run, name, content):
    """Replace a file of a run, whose config.json agrees."""
    (run / name).write_bytes(content)
    rewrite(run / "config.json", lambda facts: facts["files"].update({name: sha256_of(run / name)}))


def huge_png(path):
    """A picture of 60000 x 60000 pixels in some bytes"""
    header = b"IHDR" + struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))


def write_wave(path, samples, **keywords):
    soundfile.write(path, samples, 16000, format="WAV", **keywords)


def cut(path, share=2):
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // share])


def replaced(path, what):
    """Put a folder in place of a file."""
    path.unlink()
    path.mkdir()
    (path / what).write_text("")


# Sets, made from a whole one by what is done to their folder.
SETS = {
    "classes-gone": lambda s: (s / "classes.json").unlink(),
    "classes-text": lambda s: (s / "classes.json").write_text("a, b"),
    "classes-nested": lambda s: (s / "classes.json").write_text(NESTED),
    "classes-object": lambda s: (s / "classes.json").write_text('{"a": 1}'),
    "classes-one": lambda s: (s / "classes.json").write_text('["a"]'),
    "classes-twice": lambda s: (s / "classes.json").write_text('["a", "b", "a"]'),
    "classes-latin": lambda s: (s / "classes.json").write_bytes(b'["a", "\xe4"]'),
    "classes-folder": lambda s: replaced(s / "classes.json", "file"),
    "manifest-gone": lambda s: (s / "manifest.csv").unlink(),
    "manifest-empty": lambda s: (s / "manifest.csv").write_text(""),
    "manifest-columns": lambda s: (s / "manifest.csv").write_text("id,sound,image,label,split,group\n"),
    "manifest-short": lambda s: (s / "manifest.csv").write_text("id,audio,image,label,split,group\na,0.wav\n"),
    "manifest-cell": lambda s: (s / "manifest.csv").write_text("id,audio,image,label,split,group\n" + "a" * 200000),
    "manifest-binary": lambda s: (s / "manifest.csv").write_bytes(bytes(range(256))),
    "manifest-id": lambda s: edit(s, 3, id="s0"),
    "manifest-label": lambda s: edit(s, 3, label="aa"),
    "manifest-split": lambda s: edit(s, 3, split="training"),
    "manifest-no-test": lambda s: [edit(s, line, split="train") for line in (5, 7)],
    "manifest-out": lambda s: edit(s, 3, audio="../../file"),
    "manifest-absolute": lambda s: edit(s, 3, audio="/etc/passwd"),
    "manifest-no-file": lambda s: edit(s, 3, audio="10.wav"),
    "manifest-long": lambda s: edit(s, 3, audio=f"{LONG}.wav"),
    "manifest-nothing": lambda s: edit(s, 3, audio="", image=""),
    "root-nowhere": lambda s: (s / "root.txt").write_text("/nowhere/at/all\n"),
    "root-long": lambda s: (s / "root.txt").write_text(LONG),
    "audio-empty": lambda s: (s / "1.wav").write_bytes(b""),
    "audio-text": lambda s: (s / "1.wav").write_text("no sound"),
    "audio-cut": lambda s: (s / "1.wav").write_bytes((s / "1.wav").read_bytes()[:30]),
    "audio-nan": lambda s: write_wave(s / "1.wav", np.full(4000, np.nan), subtype="FLOAT"),
    "audio-no-samples": lambda s: write_wave(s / "1.wav", np.zeros(0)),
    "audio-folder": lambda s: replaced(s / "1.wav", "file"),
    "audio-silent": lambda s: [write_wave(s / f"{i}.wav", np.zeros(6000)) for i in (0, 1, 2, 3, 5)],
    "image-text": lambda s: (s / "1.png").write_text("no picture"),
    "image-cut": lambda s: cut(s / "1.png"),
    "image-huge": lambda s: huge_png(s / "1.png")}

# Runs, made from a whole one likewise.
RUNS = {
    "config-folder": lambda r: replaced(r / "config.json", "file"),
    "config-empty": lambda r: (r / "config.json").write_text(""),
    "config-nested": lambda r: (r / "config.json").write_text(NESTED),
    "config-list": lambda r: (r / "config.json").write_text("[1]"),
    "config-altered": lambda r: (r / "config.json").write_text((r / "config.json").read_text().replace("16", "32")),
    "config-setting": lambda r: rewrite(r / "config.json", lambda facts: facts["config"]["model"].update(widht=3)),
    "config-classes": lambda r: rewrite(r / "config.json", lambda facts: facts.update(classes=7)),
    "config-files": lambda r: rewrite(r / "config.json", lambda facts: facts.update(files={"../file": "0"})),
    "config-data": lambda r: rewrite(r / "config.json", lambda facts: facts.update(data=str(r / "nowhere"))),
    "config-data-long": lambda r: rewrite(r / "config.json", lambda facts: facts.update(data=LONG)),
    "config-costs": lambda r: rewrite(r / "config.json", lambda facts: facts.update(costs={"backbone": 3})),
    "config-gone": lambda r: (r / "config.json").unlink(),
    "config-files-list": lambda r: rewrite(r / "config.json", lambda facts: facts.update(files=["backbone.pt"])),
    "config-no-costs": lambda r: rewrite(r / "config.json", lambda facts: facts.update(costs={})),
    "config-costs-text": lambda r: rewrite(r / "config.json", lambda facts: facts["costs"]["backbone"][0].update(seconds="long")),
    "config-costs-empty": lambda r: rewrite(r / "config.json", lambda facts: facts["costs"].update(backbone=[])),
    "weights-text": lambda r: signed(r, "backbone.pt", b"no weights"),
    "weights-code": lambda r: signed(r, "backbone.pt", pickle.dumps(print)),
    "weights-list": lambda r: signed(r, "backbone.pt", as_bytes([1, 2])),
    "config-normalisation": lambda r: rewrite(r / "config.json", lambda facts: facts["normalisation"].update(mean="0")),
    "config-backbone": lambda r: rewrite(r / "config.json", lambda facts: facts.update(backbone=7)),
    "config-method": lambda r: rewrite(r / "config.json", lambda facts: facts["costs"].update(promt=facts["costs"]["prompt"])),
    "config-width": lambda r: rewrite(r / "config.json", lambda facts: facts["config"]["model"].update(width=10 ** 12)),
    "config-class-list": lambda r: rewrite(r / "config.json", lambda facts: facts.update(classes=[["a"]] * 10)),
    "config-few-classes": lambda r: rewrite(r / "config.json", lambda facts: facts.update(classes=["a", "b"])),
    "config-format": lambda r: rewrite(r / "config.json", lambda facts: facts.update(format="new")),
    "weights-other": lambda r: signed(r, "backbone.pt", as_bytes({"a": torch.zeros(1)})),
    "weights-numbers": lambda r: signed(r, "backbone.pt", as_bytes({name: 1 for name in torch.load(r / "backbone.pt")})),
    "prompts-text": lambda r: signed(r, "prompt-complete.pt", b"no weights"),
    "prompts-list": lambda r: signed(r, "prompt-complete.pt", as_bytes([1, 2])),
    "prompts-other": lambda r: signed(r, "prompt-complete.pt", (r / "router.pt").read_bytes()),
    "weights-gone": lambda r: (r / "router.pt").unlink(),
    "weights-altered": lambda r: (r / "backbone.pt").write_bytes(b"x"),
    "log-text": lambda r: (r / "log.jsonl").write_text("epoch 1"),
    "log-nested": lambda r: (r / "log.jsonl").write_text(NESTED)}

CASES = [
    # flags
    ("train", "--method promt", "--method promt: no such choice; did you mean prompt?"),
    ("train", "--epohcs 3", "--epohcs: no such flag; did you mean --epochs?"),
    ("train", "--epochs", "--epochs: expected one argument"),
    ("train", "--epochs x", "--epochs: expected a whole number, 0 or more, not 'x'"),
    ("train", "--epochs -1", "--epochs: expected a whole number, 0 or more, not '-1'"),
    ("train", "--seed -1", "--seed: expected a whole number, 0 or more"),
    ("train", "--seeds 0", "--seeds: expected a whole number, 1 or more"),
    ("train", "--fraction x", "--fraction: expected a number, not 'x'"),
    ("train", "--workers 0", "--workers: expected a whole number, 1 or more"),
    ("train", "--device tpu", "--device tpu: no such choice"),
    ("train", "--preset large", "--preset large: no such choice; expected one of tiny, base"),
    ("train", "--damage weak", "--damage weak: no such choice"),
    ("train", "extra", "extra: one word too many"),
    ("train", "--bf16 --device cpu", "--bf16: needs a CUDA device"),
    # settings
    ("train", "--data set --out new --fraction 2", "train.fraction=2.0: expected more than 0, at most 1"),
    ("train", "--data set --out new --fraction nan", "train.fraction=nan: expected"),
    ("train", "--data set --out new --set model.widht=3", "model.widht: no such setting; did you mean model.width?"),
    ("train", "--data set --out new --set prompts.length", "--set prompts.length: expected KEY=VALUE"),
    ("train", "--data set --out new --set prompts.length=many", "prompts.length='many': expected int"),
    ("train", "--data set --out new --set model.width=0", "model.width=0: expected"),
    ("train", "--data set --out new --set model.heads=3", "expected a multiple of model.heads=3"),
    ("train", "--data set --out new --set model.fusion=crosss", "model.fusion=crosss: expected one of"),
    ("train", "--data set --out new --set train.backbone.batch_size=0", "train.backbone.batch_size=0: expected"),
    ("train", "--data set --out new --set train.backbone.learning_rate=nan", "train.backbone.learning_rate=nan: expected"),
    ("train", "--data set --out new --set audio.seconds=-1", "audio.seconds=-1.0: expected"),
    ("train", "--data set --out new --set image.size=33", "image.size=33: expected"),
    ("train", "--data set --out new --seed 99999999999999999999999", "train.seed"),
    # places
    ("train", "--data set --out file", "--out file: can't be written"),
    ("train", "--data set --out file/below", "--out file/below: can't be written"),
    ("train", f"--data set --out {LONG}", "can't be written (File name too long)"),
    ("train", "--data set --out set", "--out set: is there already and holds no run"),
    ("train", "--data set --out new --features file/below", "--features"),
    ("train", f"--data set --out new --features {LONG}", "File name too long"),
    ("train", "--data nowhere --out new", "nowhere/classes.json: no such file"),
    ("train", "--data file --out new", "file/classes.json: can't be read (Not a directory)"),
    ("train", f"--data {LONG} --out new", "File name too long"),
    ("train", "--data set --out loop", "--out loop: can't be written"),
    ("train", "--out new --resume run", "--out: does not go with --resume"),
    ("train", "--resume nowhere", "--resume nowhere: no command was broken off there"),
    ("train", "--data set --out new --init nowhere", "nowhere: can't be read"),
    ("train", "--data set --out new --init file", "file: "),
    ("train", "--data set --out new --init set", "set: "),
    ("train", "--data set --out new --freeze-backbone", "--freeze-backbone: there is nothing to freeze yet"),
    ("train", "--out run --preset base", "--preset: belongs to the backbone"),
    ("train", "--out run --method lora --set model.width=32", "model.width=32: run was trained with 16"),
    # sets
    *(("train", f"--data sets/{name} --out new", said) for name, said in {
        "classes-gone": "classes.json: no such file", "classes-text": "classes.json:1: not JSON",
        "classes-nested": "classes.json", "classes-object": "classes.json: expected a list",
        "classes-one": "expected a list of two or more", "classes-twice": "two or more different names",
        "classes-latin": "classes.json: byte 7 is not UTF-8", "classes-folder": "classes.json: can't be read (Is a directory)",
        "manifest-gone": "manifest.csv: no such file", "manifest-empty": "manifest.csv: column 'id' stands 0 times",
        "manifest-columns": "column 'sound': no such column", "manifest-short": "manifest.csv:2: expected 6 cells",
        "manifest-cell": "manifest.csv:1: field larger than", "manifest-binary": "manifest.csv: byte 128 is not UTF-8",
        "manifest-id": "manifest.csv:3: id 's0' stands in line 2 too", "manifest-label": "label 'aa' is not in classes.json",
        "manifest-split": "split 'training'", "manifest-no-test": "no row of split 'test'",
        "manifest-out": "path '../../file' leads out of", "manifest-absolute": "path '/etc/passwd' leads out of",
        "manifest-no-file": "10.wav: no such file", "manifest-long": "no such file",
        "manifest-nothing": "has neither audio nor image", "root-nowhere": "root.txt: /nowhere/at/all: no such folder",
        "root-long": LONG, "audio-empty": "1.wav", "audio-text": "1.wav", "audio-cut": "1.wav", "audio-nan": "1.wav: holds NaN",
        "audio-no-samples": "1.wav", "audio-folder": "1.wav", "audio-silent": "all its audio is silent", "image-text": "1.png",
        "image-cut": "1.png", "image-huge": "1.png"}.items()),
    # runs
    ("eval", "", "run: not given"),
    ("eval", "nowhere", "nowhere/config.json: no such file"),
    ("eval", "file", "file/config.json: can't be read (Not a directory)"),
    ("eval", LONG, "File name too long"),
    ("eval", "loop", "loop/config.json: can't be read (Too many levels of symbolic links)"),
    ("eval", "run --pairs quote.csv --out a.csv", "quote.csv:1: "),
    ("eval", "run --pairs twice.csv --out a.csv", "twice.csv: "),
    ("eval", "run --pairs empty.csv --out a.csv", "empty.csv: no rows"),
    ("eval", "run --json", "--json: goes with --audio or --image alone"),
    ("eval", "runs", "runs: is no run, but holds runs/config-altered"),
    *(("eval", f"runs/{name}", said) for name, said in {
        "config-folder": "config.json: can't be read (Is a directory)", "config-empty": "config.json: was altered",
        "config-nested": "config.json: was altered", "config-list": "config.json: was altered",
        "config-altered": "config.json: was altered", "config-setting": "widht: no such setting",
        "config-classes": "config.json: is not",
        "config-files": "../file: no such file", "config-data": "nowhere: no such folder; expected the run's set",
        "config-no-costs": "config.json: is not", "config-costs-text": "config.json: is not",
        "config-costs-empty": "config.json: is not", "weights-text": "backbone.pt", "weights-code": "backbone.pt",
        "weights-list": "backbone.pt", "config-files-list": "config.json: is not", "config-normalisation": "config.json: is not",
        "config-backbone": "config.json: is not", "config-method": "config.json: has the method 'promt'",
        "config-class-list": "config.json: is not",
        "config-few-classes": "its classes differ from the run's", "config-width": "model.width=1000000000000: expected",
        "config-format": "config.json: has format 'new'", "weights-other": "backbone.pt: its weights do not fit",
        "weights-numbers": "backbone.pt", "prompts-text": "prompt-complete.pt",
        "prompts-list": "prompt-complete.pt: holds no prompts",
        "prompts-other": "prompt-complete.pt: was saved as",
        "config-data-long": "nnn", "config-costs": "config.json: is not what train.py saves",
        "config-gone": "config.json: no such file",
        "weights-gone": "router.pt: no such file", "weights-altered": "backbone.pt: was altered"}.items()),
    ("eval", "run --method lora", "--method lora: run has not trained it"),
    ("eval", "run --data sets/classes-other", "its classes differ from the run's"),
    ("eval", "run --stress --attention", "--attention: not allowed with"),
    ("eval", "run --windows 0", "--windows: expected a whole number, 1 to 1000"),
    ("eval", "run --draws 1001", "--draws: expected a whole number, 1 to 1000"),
    ("eval", "run --stress --draws 2", "--draws: does not go with --stress; leave it out"),
    ("eval", "run --ablate lenght", "--ablate lenght: no such choice; did you mean length?"),
    ("eval", "run --export-cav-mae file", "file: is there already"),
    ("eval", "runs/log-text --curves", "log.jsonl: is not the log"),
    ("eval", "runs/log-nested --curves", "log.jsonl: is not the log"),
    ("eval", "run --curves", "log.jsonl: no such file"),
    # files that are asked about
    ("eval", "run --audio nowhere.wav", "nowhere.wav"),
    ("eval", "run --audio file", "file"),
    ("eval", f"run --image {LONG}", "nnn"),
    ("eval", "run --image set", "set"),
    ("eval", "run --audio set/1.wav --picture a.jpg", "--picture a.jpg: expected a name that ends in .png"),
    ("eval", "run --audio set/1.wav --picture there.png", "there.png: is there already"),
    ("eval", "run --audio set/1.wav --picture nowhere/a.png", "nowhere/a.png: can't be written"),
    ("eval", "run --pairs list.csv", "--pairs list.csv: expected --out with it"),
    ("eval", "run --pairs list.csv --out a.csv", "list.csv: no column 'image'"),
    ("eval", "run --pairs latin.csv --out a.csv", "latin.csv: is not UTF-8"),
    ("eval", "run --pairs nowhere --out a.csv", "nowhere: can't be read"),
    ("eval", "run --pairs set/manifest.csv --out file", "file: is there already"),
    ("eval", "run --pairs set/manifest.csv --out file/below", "file/below: can't be written"),
    ("eval", f"run --pairs set/manifest.csv --out {LONG}", "can't be written (File name too long)"),
    # preparing
    ("data_prep.toy", "--recordings 5 --out new", "--recordings: expected a whole number, 6 or more"),
    ("data_prep.toy", "--seed -1 --out new", "--seed: expected a whole number, 0 or more"),
    ("data_prep.toy", "--out file", "file: is there already"),
    ("data_prep.toy", "--out file/below/it", "file/below/it: can't be written (Not a directory)"),
    ("data_prep.toy", f"--out {LONG}", "can't be written (File name too long)"),
    ("data_prep.folder", "--out new", "no folder is named"),
    ("data_prep.folder", "nowhere --out new", "nowhere: can't be read"),
    ("data_prep.folder", "file --out new", "file: can't be read"),
    ("data_prep.folder", f"{LONG} --out new", "File name too long"),
    ("data_prep.folder", "set --out new", "no folder of sounds beside one of pictures"),
    ("data_prep.folder", "loop --out new", "loop: can't be read (Too many levels of symbolic links)"),
    ("data_prep.folder", "two --out new", "two: holds several sets, one, other"),
    ("data_prep.folder", "--csv quote.csv --out new", "quote.csv"),
    ("data_prep.folder", "--csv twice.csv --out new", "twice.csv"),
    ("data_prep.folder", "--csv nowhere --out new", "nowhere: no such file"),
    ("data_prep.folder", "--csv list.csv --out new", "list.csv: column 'picture'; expected one of"),
    ("data_prep.folder", "--csv latin.csv --out new", "latin.csv: byte"),
    ("data_prep.folder", "--csv out.csv --out new", "leads out of"),
    ("data_prep.cifar10_av", "file --out new", "file: can't be read"),
    ("data_prep.urbansound8k_av", "set --fold 3 --out new", "expected --split folds with --fold N"),
    ("data_prep.urbansound8k_av", "set --fold x --out new", "--fold: expected a whole number"),
    ("data_prep.av_mnist", "--fsdd set --out new", "--mnist: not given"),
    ("data_prep.av_mnist", "--fsdd nowhere --mnist set --out new", "--fsdd nowhere: no .wav there"),
    ("data_prep.av_mnist", "--fsdd set --mnist set --out new", "expected a name such as 7_jackson_32.wav"),
    ("data_prep.av_mnist", "--fsdd digits --mnist digits --out new", "t10k-images-idx3-ubyte: starts with"),
    # arrays and pictures
    ("ptm_mini.golden.__main__", "file", "file: is there already"),
    ("ptm_mini.golden.__main__", "file/below.npz", "file/below.npz: can't be written"),
    ("ptm_mini.report.tour", "run new", "--sample: not given"),
    ("ptm_mini.report.tour", "run new --sample nobody", "--sample nobody: no sample of that id"),
    ("ptm_mini.report.tour", "run file --sample siren-000-0", "file"),
    ("ptm_mini.report.tour", f"run {LONG} --sample siren-000-0", "File name too long")]


@pytest.fixture(scope="module")
def place(small, toy_set, tmp_path_factory):
    """A folder of broken things, and of whole ones"""
    place = tmp_path_factory.mktemp("broken")
    write_tiny_set(place / "set")
    for name, breaks in {**SETS, "classes-other": lambda s: (s / "classes.json").write_text('["a", "b", "c"]')}.items():
        shutil.copytree(place / "set", place / "sets" / name)
        breaks(place / "sets" / name)
    save_random_run(place / "run", toy_set, small)
    for name, breaks in RUNS.items():
        shutil.copytree(place / "run", place / "runs" / name)
        breaks(place / "runs" / name)
    (place / "file").write_text("neither sound nor picture")
    (place / "there.png").write_text("older")
    (place / "list.csv").write_text("audio,picture,label\nset/0.wav,set/0.png,a\n")
    (place / "out.csv").write_text("audio,image,label\n../0.wav,,a\n")
    (place / "quote.csv").write_text('audio,image,label\n"0.wav,,a\n')
    (place / "twice.csv").write_text("audio,audio,image,label\n0.wav,,,a\n")
    (place / "empty.csv").write_text("audio,image\n")
    (place / "loop").symlink_to("loop")
    for name in ("one", "other"):
        for side in ("audio", "image"):
            (place / "two" / name / side).mkdir(parents=True)
    (place / "latin.csv").write_bytes(b"audio,image,label\n\xe4.wav,,a\n")
    (place / "digits").mkdir()
    shutil.copy(place / "set" / "0.wav", place / "digits" / "7_anna_1.wav")
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (place / "digits" / name).write_text("no digits")
    return place


def everything(place):
    """What stands there, and when it was written; without features, which are made of what is whole and kept"""
    paths = [path for path in place.rglob("*") if "features-" not in str(path)]
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in paths}


@pytest.mark.parametrize("command, arguments, says", CASES, ids=[f"{c.split('.')[-1]} {a[:60]}" for c, a, _ in CASES])
def test_one_line_that_names_it_and_nothing_left_behind(place, monkeypatch, capsys, command, arguments, says):
    monkeypatch.chdir(place)
    before = everything(place)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: importlib.import_module(command).main(arguments.split()))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error and caught.value.code == 2
    assert everything(place) == before


def test_there_are_enough():
    assert len(CASES) >= 60 and len(set(CASES)) == len(CASES)
