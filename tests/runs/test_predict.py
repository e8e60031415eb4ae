"""Asking a run about files gives what its evaluation gives, bit for bit."""
import numpy as np
import pytest
import soundfile
import torch
from conftest import COSTS, make_backbone, refusal
from PIL import Image

import ptm_mini
from ptm_mini.config import Situation
from ptm_mini.data.audio import fbank, frames_used, read_waveform
from ptm_mini.data.image import read_image
from ptm_mini.data.prepared import PreparedSet, normalised
from ptm_mini.method.router import routed
from ptm_mini.runs import predict
from ptm_mini.runs.folder import Run, save_backbone
from ptm_mini.runs.models import load_models
from ptm_mini.training import measure
from ptm_mini.training.measure import View

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(asked):
    return ptm_mini.load(asked[0])


def files(data, index):
    row = data.rows[index]
    return data.folder / row.audio, str(data.folder / row.image)


def in_class_order(answer, run):
    return [answer.probabilities[name] for name in run.classes]


def test_a_split_gives_the_evaluations_own_scores(asked, model, monkeypatch):
    """In batches like the evaluation's, to the last bit; situations too."""
    folder, data, run = asked
    for module in (predict, measure):
        monkeypatch.setattr(module, "BATCH_SIZE", 16)
    _, models, router = load_models(folder, run, CPU)
    scores, picked = [], []

    def watched(audio, image, situations):
        scores.append(routed(models["prompt"], router)(audio, image, situations))
        picked.extend(router.pick(audio, image).tolist())
        return scores[-1]

    measure.measure({"routed": watched}, View(data, "test", run.config, run.normalisation, CPU), Situation.COMPLETE)
    answers = model.predict(*map(list, zip(*(files(data, index) for index in data.indices("test").tolist()))))
    assert [len(part) for part in scores] == [16, 16, 8] and len(set(picked)) > 1
    assert [in_class_order(answer, run) for answer in answers] == torch.cat(scores).softmax(dim=1).tolist()
    assert [answer.situation for answer in answers] == picked


def test_a_pair_alone_gives_what_it_gives_in_any_batch(asked, model):
    _, data, run = asked
    pairs = [files(data, index) for index in (0, 57, 133)]
    together = model.predict(*map(list, zip(*pairs)))
    for (audio, image), among in zip(pairs, together):
        alone = model.predict(audio, image)
        assert alone == model.predict([audio] * 2, [image] * 2)[1]                 # a batch of one is not one to the CPU
        assert in_class_order(alone, run) == pytest.approx(in_class_order(among, run), abs=1e-6)
        assert alone.situation == among.situation == max(alone.router, key=alone.router.get)
        assert sum(alone.router.values()) == pytest.approx(1)
        assert alone.label == max(alone.probabilities, key=alone.probabilities.get)
        assert list(alone.probabilities.values()) == sorted(alone.probabilities.values(), reverse=True)


def test_the_steps_from_a_file_to_the_answer_have_names(asked, model):
    _, data, run = asked
    audio, image = files(data, 57)
    settings = run.config
    wave = read_waveform(audio, settings.audio.sample_rate, settings.audio.samples)
    log_mel, pixels = fbank(wave, settings.audio.sample_rate, settings.audio.mels), read_image(image, settings.image.size)
    x = [part[None].repeat_interleave(2, 0) for part in normalised(log_mel, pixels, Situation.COMPLETE, run.normalisation)]
    situation = model.router.pick(*x)
    probabilities = model.model.by_situation(*x, situation).softmax(dim=1)
    assert in_class_order(model.predict(audio, image), run) == probabilities[0].tolist()


def test_arrays_give_what_their_files_give(asked, model, tmp_path):
    _, data, _ = asked
    audio, image = files(data, 20)
    wave, rate = soundfile.read(audio)
    pixels = np.asarray(Image.open(image).convert("RGB"))
    expected = model.predict(audio, image)
    for sound in ((wave, rate), (wave.astype("float32")[:, None], np.int64(rate)), (torch.tensor(wave), float(rate)), (wave.astype(np.longdouble), rate)):
        for picture in (Image.open(image), pixels, torch.tensor(pixels)):
            assert model.predict(audio=sound, image=picture) == expected
    stereo = 0.1 * np.random.default_rng(0).standard_normal((3000, 2))
    soundfile.write(tmp_path / "stereo.wav", stereo, 8000, subtype="DOUBLE")
    assert model.predict(audio=(stereo[::-1][::-1], 8000)) == model.predict(audio=tmp_path / "stereo.wav")


def test_a_file_left_out_is_missing_and_its_prompts_answer(asked, model):
    _, data, _ = asked
    audio, image = files(data, 3)
    lists = model.predict([audio, None, audio], [None, image, image])
    assert [answer.situation for answer in lists[:2]] == [Situation.NOISY_IMAGE, Situation.NOISY_AUDIO]
    assert [answer.router is None for answer in lists] == [True, True, False]
    assert model.predict(audio).probabilities == pytest.approx(lists[0].probabilities, abs=1e-6)
    assert model.predict(image=[image])[0] == model.predict(image=image)
    assert model.predict([], []) == []


@pytest.mark.parametrize("given, says", [
    (dict(), "expected at least one"), (dict(audio="gone.wav"), "gone.wav: no such file; expected a sound"),
    (dict(image="x" * 300), "no such file; expected a picture"), (dict(image="a\0b"), "no such file"),
    (dict(audio=["a.wav"], image="b.png"), "expected a list of each"), (dict(audio=["a"], image=["b", "c"]), "list of each"),
    (dict(audio=np.zeros(9)), "audio: float64 [9]; expected a path, or (wave, rate)"),
    (dict(audio=(16000, np.zeros(9000))), "audio: int64 []; expected floats"),
    (dict(audio=(np.zeros(9000, "int16"), 16000)), "audio: int16 [9000]; expected floats"),
    (dict(audio=(np.zeros((2, 9000)), 16000)), "audio: float64 [2, 9000]; expected floats between -1 and 1, [n] or"),
    (dict(audio=(np.zeros(9000), "16k")), "rate '16k'"), (dict(audio=(np.zeros(9000), 0)), "rate 0; expected"),
    (dict(audio=(np.zeros(9000), float("nan"))), "rate nan"), (dict(audio=(np.zeros(0), 16000)), "audio: 0 samples"),
    (dict(audio=(np.full(9000, np.nan), 16000)), "audio: holds NaN"), (dict(audio=(np.full(9000, 1e300), 16000)), "holds NaN"),
    (dict(audio=(np.zeros(9000), 10**5000)), "rate (int); expected"), (dict(audio=(np.zeros(9000), 1e300)), "expected 1000 to"),
    (dict(audio=([[0.1], [0.2, 0.3]], 16000)), "audio: list can't be made an array"),
    (dict(audio=(np.broadcast_to(np.float64(0), 2**45), 16000)), "audio: float64 [35184372088832] is more than the memory holds"),
    (dict(image=np.broadcast_to(np.uint8(0), (2**22, 2**22, 3))), "is more than the memory holds"),
    (dict(image=np.zeros((0, 9, 3), "uint8")), "expected at least 2x2"), (dict(image=((1,), (2, 3))), "image: tuple can't be made"),
    (dict(audio=5), "audio: int; expected a path"),
    (dict(image=np.zeros((9, 9, 3))), "image: float64 [9, 9, 3]; expected a path, a Pillow Image or uint8 [H, W, 3]"),
    (dict(image=np.zeros((9, 9), "uint8")), "image: uint8 [9, 9]"), (dict(image=object()), "image: object []")])
def test_what_can_not_be_read_is_refused_in_one_line(model, given, says):
    assert says in refusal(model.predict, **given)


def test_a_run_without_prompts_says_how_to_train_them(tmp_path, toy_set, small):
    backbone, data = make_backbone(small, torch.Generator().manual_seed(0)), PreparedSet(toy_set, small)
    run = tmp_path / "seed-0"
    save_backbone(run, Run(small, data.classes, data.normalisation(), str(toy_set)), backbone, COSTS)
    assert f"train.py --out {run} --method prompt" in refusal(ptm_mini.load, run)
    assert f"holds the runs of several seeds; name one of them, such as {run}" in refusal(ptm_mini.load, tmp_path)


def test_several_windows_answer_by_their_mean(asked):
    folder, data, run = asked
    rate, length = run.config.audio.sample_rate, run.config.audio.samples
    wave = 0.1 * np.random.default_rng(0).standard_normal(3 * length)
    image = files(data, 57)[1]
    last = len(wave) - frames_used("", rate, rate, length)
    alone = [ptm_mini.load(folder).predict((wave[start:start + length], rate), image) for start in (0, round(last / 2), last)]
    mean = np.mean([in_class_order(answer, run) for answer in alone], axis=0)
    answer = ptm_mini.load(folder, windows=3).predict((wave, rate), image)
    assert in_class_order(answer, run) == pytest.approx(mean, abs=1e-5) and answer.situation == alone[0].situation
    short = (wave[:length], rate)                                                 # every window of it is the same
    assert ptm_mini.load(folder, windows=3).predict(short, image).label == ptm_mini.load(folder).predict(short, image).label
