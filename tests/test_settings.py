"""Settings: strict by name and type, and every one of them is read somewhere."""
import dataclasses
import re
from pathlib import Path

import pytest
import torch

from ptm_mini import limits
from ptm_mini.config import PRESETS, Config, Situation
from ptm_mini.errors import InputError
from ptm_mini.method.backbone import Backbone
from ptm_mini.settings import from_dict, keys, leaves, setting, with_assignments, with_settings

CONFIG = PRESETS["tiny"]
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("assignment, says", [
    ("model.widht=64", "setting model.widht: no such setting; did you mean model.width?"),
    ("prompts.length=four", "setting prompts.length='four': expected int, not str"),
    ("prompts.attention=1", "expected bool"), ("train.prompts.epochs=1.5", "expected int"),
    ("model.width", "expected KEY=VALUE"), ("model.width=30", "setting model.width=30: expected a multiple of 4"),
    ("model.heads=0", "setting model.heads=0: expected 1 to 256"), ("model.audio_patch=0", "expected 1 to 1024"),
    ("audio.seconds=1.0", "98"), ("audio.seconds=-1", "audio.seconds"), ("image.size=30", "image.size=30"),
    ("model.fusion=crosss", "one of cross, audio_to_image"), ("prompts.input_depth=5", "0 to model.depth=4"),
    ("prompts.first_block=1", "setting prompts.input_depth=4: expected 0 to model.depth=4 less prompts.first_block=1"),
    ("train.fraction=0", "more than 0"), ("train.fraction=nan", "train.fraction=nan"), ("train.seed=-1", "train.seed"),
    ("train.prompts.learning_rate=inf", "learning_rate=inf"), ("train.backbone.epochs=-1", "train.backbone.epochs=-1"),
    ("damage.both.image_blur=2", "damage.both.image_blur=2.0: expected 0 to 1")])
def test_bad_settings_are_named_with_a_mend(assignment, says):
    with pytest.raises(InputError) as caught:
        with_assignments(CONFIG, [assignment])
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("assignment, says", [
    ("model.width=1000000", "expected 4 to 16384"), ("audio.mels=4000000", "expected 1 to 2048"),
    ("image.size=800000", "expected 1 to 4096"), ("prompts.length=1000000000", "expected 0 to 1024"),
    ("lora.rank=1000000000", "expected 1 to 1024"), ("adapter.bottleneck=1000000000", "expected 1 to 1024"),
    ("train.prompts.batch_size=1000000000", "expected 1 to 16384"), ("train.backbone.epochs=1000000000", "expected 0 to 10000"),
    ("router.passes=1000000000", "expected 1 to 1000"), ("train.lora.learning_rate=1e300", "more than 0, at most 10"),
    ("train.seed=9223372036854775807", "expected 0 to 9007199254740992"), (f"train.seed={2**64}", "a number below 2^63"),
    (f"model.width={'9' * 5000}", "expected int, not str"), (f"model.{'x' * 9999}=1", "no such setting"),
    ("train.audio_std=1e-40", "0, or 0.001 to 1000"), ("audio.sample_rate=2000000000", "expected 1000 to 500000"),
    ("audio.seconds=3599.855", "at most 16777216 samples at audio.sample_rate=16000"),
    ("audio.seconds=1000.015", "at most 16384 tokens, this gives 25000"), ("image.size=2048", "at most 16384 tokens"),
    ("model.width=16384", "setting model.width=16384: expected a model of at most 1e+09 numbers, 4 GB, this has 3.5e+10"),
    ("model.depth=256 model.width=512", "setting model.width=512: expected a model of at most 1e+09 numbers"),
    ("model.image_patch=1024 image.size=4096 model.width=1024 audio.mels=2048", "setting model.image_patch=1024: expected a mo"),
    ("image.size=1024 model.image_patch=16 train.head.batch_size=1000",
     "train.head.batch_size=1000: expected at most 317: of these audio.seconds, audio.mels and image.size a sample has 12.6 MB")])
def test_what_no_machine_could_hold_is_refused_before_it_is_made(assignment, says):
    with pytest.raises(InputError) as caught:
        with_assignments(CONFIG, assignment.split())
    assert says in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 350


@pytest.mark.parametrize("preset", PRESETS)
def test_the_numbers_of_a_model_are_counted_as_they_are(preset):
    for changes in ({}, {"model.fusion": "none"}, {"model.fusion": "image_to_audio", "model.fusion_depth": 2}):
        config = with_settings(PRESETS[preset], changes)
        with torch.device("meta"):
            backbone = Backbone(config, 10)
        count = sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith("head."))
        assert sum(limits.numbers(config).values()) == count


def test_ten_times_of_what_base_has_is_room_enough():
    shares = ("fraction", "loaded_rate", "label_smoothing", "_shift", "_mask", "_blur", "_pixelate")       # at most 1
    for key, value, item in leaves(PRESETS["base"]):
        if type(value) in (int, float) and not key.endswith(shares):
            assert item.metadata["rule"].holds(10 * value), key


def test_overrides_reach_every_level():
    config = with_assignments(CONFIG, ["model.width=64", "train.prompts.learning_rate=1e-3", "prompts.attention=false",
                               "damage.both.audio_gaussian=1", "model.fusion=none"])
    assert (config.model.width, config.train.prompts.learning_rate, config.prompts.attention, config.model.fusion) == (
        64, 1e-3, False, "none")
    assert config.damage.both.audio_gaussian == 1.0 and config.damage.alone == CONFIG.damage.alone


@pytest.mark.parametrize("change, says", [
    (lambda tree: tree["model"].pop("width"), "setting model.width is missing"),
    (lambda tree: tree["model"].update(widht=3), "did you mean width?"),
    (lambda tree: tree.update(model=3), "setting model=3: expected a group"),
    (lambda tree: tree["audio"].update(mels="64"), "audio.mels='64': expected int"),
    (lambda tree: tree["audio"].update(mels=10**5000), "audio.mels: expected a number below 2^63"),
    (lambda tree: tree["audio"].update(seconds=10**5000), "audio.seconds: expected a number below 2^63"),
    (lambda tree: tree["audio"].update(mels=[[]]), "audio.mels=(list): expected int, not list"),
    (lambda tree: tree.update(model=10**5000), "setting model=(int): expected a group"),
    (lambda tree: tree.update({5: 3}), "setting 5: no such setting")])
def test_a_config_file_is_read_strictly(change, says):
    tree = dataclasses.asdict(CONFIG)
    assert from_dict(Config, tree) == CONFIG
    change(tree)
    with pytest.raises(InputError) as caught:
        from_dict(Config, tree)
    assert says in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Older:
    length: int = setting(8, "was there from the start")


@dataclasses.dataclass(frozen=True)
class Newer(Older):
    views: int = setting(4, "came later; one view was what there was before", before=1)


def test_a_file_without_a_later_setting_gets_what_was_before_it(caplog):
    with caplog.at_level("INFO"):
        assert from_dict(Newer, {"length": 3}) == Newer(length=3, views=1)
    assert "setting views came later: taken as 1, as it was before" in caplog.text
    assert from_dict(Newer, {"length": 3, "views": 2}) == Newer(length=3, views=2)
    with pytest.raises(InputError, match="setting length is missing"):
        from_dict(Newer, {"views": 2})
    with pytest.raises(InputError, match="setting views: no such setting; "):           # a file of a newer version
        from_dict(Older, {"length": 3, "views": 2})


def test_a_file_without_the_stage_of_a_later_method_gets_its_default(caplog):
    tree = dataclasses.asdict(CONFIG)
    del tree["train"]["scale_shift"], tree["prompts"]["first_block"]
    with caplog.at_level("INFO"):
        assert from_dict(Config, tree) == CONFIG
    assert caplog.messages == ["setting prompts.first_block came later: taken as 0, as it was before",
                               "setting train.scale_shift came later: taken as it is by default"]
    tree["train"]["scale_shift"] = {"epochs": 8}
    with pytest.raises(InputError, match="setting train.scale_shift.learning_rate is missing"):
        from_dict(Config, tree)


def test_every_setting_says_what_it_means():
    assert all(len(item.metadata["remark"]) > 3 for _, _, item in leaves(CONFIG))


def test_every_setting_is_read():
    """A field that nothing reads is an option that lies. Strengths are read by the names of the kinds of damage; a field
    that only config.py reads must be in one of its properties, since checking a value is not using it."""
    config_code = (ROOT / "ptm_mini" / "config.py").read_text()
    properties = "".join(re.findall(r"@(?:cached_)?property\n(?:.+\n)+", config_code))
    code = properties + "".join(path.read_text() for path in (ROOT / "ptm_mini").glob("*/*.py"))
    for key in keys(CONFIG):
        name = key.split(".")[-1]
        assert re.search(rf"\.{name}\b|\"{name}\"", code), key


def test_no_setting_lets_training_depend_on_the_test_split():
    """The word "test" stands where figures are reported and nowhere in the training code."""
    code = "".join(path.read_text() for path in (ROOT / "ptm_mini" / "training").glob("*.py"))
    assert '"test"' not in code and '"val"' in code


def test_situations_combine_as_bits():
    assert Situation(Situation.NOISY_AUDIO | Situation.NOISY_IMAGE) is Situation.NOISY_BOTH
    assert [int(situation) for situation in Situation] == [0, 1, 2, 3]
