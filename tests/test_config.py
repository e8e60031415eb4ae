"""Settings: strict by name, type and value, and every one of them is read somewhere."""
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import refusal

from ptm_mini.config import DAMAGES, PRESETS, Config, flatten, leaves, override, unflatten

CONFIG = PRESETS["tiny"]
PACKAGE = Path(__file__).parent.parent / "ptm_mini"


@pytest.mark.parametrize("assignment, message", [
    ("model.widht=64", "setting model.widht: no such setting; did you mean model.width?"),
    ("model.width", "--set model.width: expected KEY=VALUE, such as prompts.length=4"),
    ("prompts.length=four", "setting prompts.length=four: expected int"),
    ("prompts.attention=1", "setting prompts.attention=1: expected"),
    ("model.width=30", "setting model.width=30: expected a multiple of 4"),
    ("model.heads=3", "setting model.width=128: expected a multiple of model.heads=3"),
    ("model.fusion=crosss", "setting model.fusion=crosss: expected one of cross, audio_to_image"),
    ("audio.seconds=1.0", "audio_patch=16 divides; this gives 98, and 0.975 gives 96"),
    ("audio.seconds=0.01", "this gives -1, and 0.175 gives 16"),
    ("train.seed=10000000000000000000", "expected 0 to 1.15292e+18"),
    ("image.size=30", "setting image.size=30: expected a multiple of model.image_patch=8"),
    ("prompts.input_depth=5", "setting prompts.input_depth=5: expected 0 to model.depth=4"),
    ("damage.both.image_blur=-1", "setting damage.both.image_blur=-1.0: expected 0 or more"),
    ("damage.alone.audio_mask=1.5", "setting damage.alone.audio_mask=1.5: expected 0 to 1"),
    ("audio.seconds=inf", "setting audio.seconds=inf: expected 0 or more, and finite")])
def test_wrong_setting_is_named_with_what_is_expected(assignment: str, message: str) -> None:
    assert message in refusal(override, CONFIG, assignment)


def test_overrides_reach_every_level() -> None:
    config = override(CONFIG, "train.prompt.learning_rate=1e-3", "prompts.attention=false",
                      "damage.both.audio_gaussian=1", "model.fusion=none")
    assert config.train.prompt.learning_rate == 1e-3 and config.model.fusion == "none"
    assert config.prompts.attention is False and config.damage.both.audio_gaussian == 1.0
    assert config.damage.alone == CONFIG.damage.alone and config.train.head == CONFIG.train.head


@pytest.mark.parametrize("config", [*PRESETS.values(), replace(CONFIG, damage=DAMAGES["paper"])])
def test_a_config_file_is_read_strictly(config: Config) -> None:
    values = flatten(config)
    assert unflatten(values) == config
    assert "model.width=None: expected int" in refusal(unflatten, values | {"model.width": None})
    del values["lora.rank"]
    assert "setting lora.rank is missing" in refusal(unflatten, values)


def test_every_setting_has_a_meaning_and_is_read() -> None:
    """A setting that nothing reads is an option that lies.

    config.py counts only by its properties, since checking a value is not using it.
    """
    config_code = (PACKAGE / "config.py").read_text()
    code = "".join(re.findall(r"@property\n(?:.+\n)+", config_code))
    for path in PACKAGE.glob("**/*.py"):
        if path.name != "config.py" and "lab" not in path.parts:
            code += path.read_text()
    for key, _, item in leaves(CONFIG):
        assert len(item.metadata["help"]) > 3, key
        for name in key.split("."):
            assert re.search(rf"\.{name}\b|\"{name}\"", code), key
