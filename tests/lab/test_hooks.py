"""Recording leaves nothing behind; what is recorded stands in test_golden.py, against NumPy."""
import pytest
from helpers import CONFIG, random_batch, random_models

from ptm_mini.config import override
from ptm_mini.lab.hooks import record


def test_tokens_are_without_the_prompts_that_flow_on() -> None:
    """With one block of prompts these enter the first block as tokens; no hook stays."""
    config = override(CONFIG, "prompts.input_depth=1")
    model, batch = random_models(config, ["prompt"]).methods["prompt"], random_batch(config)
    with record(model.backbone.audio_encoder) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    N, P = model.backbone.audio_encoder.positions.shape[1], config.prompts.length
    lengths = [recorded[name].shape[1] for name in ("tokens", "blocks.0.out", "out")]
    assert lengths == [N, P + N, N]
    with pytest.raises(ValueError), record(model.backbone):
        model.backbone(batch.audio[:, 1:], batch.image)
    assert not any(module._forward_hooks for module in model.backbone.modules())
