"""The samples that a stage trains on, the table of methods, and what they read."""
import torch
from conftest import edit, refusal
from torch import nn

from ptm_mini.config import PRESETS, Situation, TrainConfig
from ptm_mini.data.prepared import PreparedSet, worked_ahead
from ptm_mini.settings import keys, with_settings
from ptm_mini.training.methods import BACKBONE, METHODS, CaseModels, reads, refuse_nothing_to_learn
from ptm_mini.training.samples import Samples, Task, fraction_of, moved
from ptm_mini.training.stages import EVERY


def make_task(folder, config):
    data = PreparedSet(folder, config)
    return Task(config, data, data.normalisation(), torch.device("cpu"), bf16=False)


def test_prompts_of_no_length_and_no_head_are_refused(small):
    for change in ({"prompts.length": 0}, {"prompts.input_depth": 0, "prompts.attention": False}):
        config = with_settings(small, {**change, "prompts.tune_head": False})
        assert "prompt: nothing can learn; expected prompts.length above 0" in refusal(refuse_nothing_to_learn, config)
        refuse_nothing_to_learn(with_settings(config, {"prompts.tune_head": True}))
    refuse_nothing_to_learn(small)


def test_a_fraction_is_taken_of_each_class():
    labels = torch.tensor([0] * 20 + [1] * 10 + [2])
    kept = fraction_of(torch.arange(31), labels, 0.3, seed=0)
    assert torch.bincount(labels[kept]).tolist() == [6, 3, 1]
    assert torch.equal(fraction_of(torch.arange(31), labels, 1.0, seed=0), torch.arange(31))


def test_augmentation_moves_but_loses_nothing(tiny_set, small):
    data = PreparedSet(tiny_set, small)
    for index in range(4):
        sample = data.sample(index, data.normalisation())
        after = moved(sample, TrainConfig(image_shift=0.25), epoch=1)
        assert not torch.equal(after.audio, sample.audio)
        assert torch.equal(after.audio.sort(dim=0).values, sample.audio.sort(dim=0).values)      # no bin left its row
        assert torch.equal(after.image.flatten(1).sort(dim=1).values, sample.image.flatten(1).sort(dim=1).values)
        assert torch.equal(moved(sample, TrainConfig(image_shift=0.0), epoch=1).image, sample.image)


def test_batches_are_the_same_however_far_ahead_they_are_made(toy_set, small):
    """Each is what its samples give one by one: neither threads nor neighbours matter."""
    samples = Samples(make_task(toy_set, small), EVERY, 0.3)
    def batch(some):
        return samples.batch(some, torch.full_like(some, 2))

    ahead = worked_ahead(batch, samples.indices.split(16), threads=3)
    for mine, theirs in zip(ahead, map(batch, samples.indices.split(16)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine[:4], theirs[:4])) and mine.id == theirs.id
    seen = []
    for batch in samples.batches(16, 2, "name"):
        for i, name in enumerate(batch.id):
            row = next(r for r, own in enumerate(samples.task.data.rows) if own.id == name)
            alone = samples.sample(row, 2)
            assert all(torch.equal(part[i], one) for part, one in zip(batch[:4], alone[:4]))
        seen += batch.id
    assert len(seen) == len(set(seen)) == len(samples) == 40
    assert seen != [name for batch in samples.batches(16, 3, "name") for name in batch.id]
    assert sorted(seen) == sorted(name for batch in samples.batches(16, 3) for name in batch.id)


def test_a_fraction_comes_round_until_an_epoch_is_as_long_as_without(toy_set, small):
    """Epochs of full length, laid end to end, are the passes of short ones laid end to end."""
    task = make_task(toy_set, small)
    whole, short = Samples(task, EVERY, 1.0), Samples(task, EVERY, 0.3)
    long = Samples(task._replace(config=with_settings(small, {"train.full_length": True})), EVERY, 0.3)
    assert len(long) == len(whole) > 3 * len(short) and len(whole) % len(short)
    for name in ("name", None):
        expected = [batch for number in range(1, 8) for batch in short.batches(1, number, name)]
        found = [batch for epoch in (1, 2) for batch in long.batches(7, epoch, name)]
        assert [name for batch in found for name in batch.id] == [batch.id[0] for batch in expected][:2 * len(whole)]
        assert torch.equal(torch.cat([batch.audio for batch in found]),
                           torch.cat([batch.audio for batch in expected])[:2 * len(whole)])
        skipped = list(long.batches(7, 2, name, skip=3))
        assert torch.equal(skipped[0].image, list(long.batches(7, 2, name))[3].image)
    same = Samples(task._replace(config=with_settings(small, {"train.full_length": True})), EVERY, 1.0)
    for mine, theirs in zip(same.batches(16, 2, "name"), whole.batches(16, 2, "name"), strict=True):
        assert mine.id == theirs.id and torch.equal(mine.audio, theirs.audio)


def test_samples_that_lack_something_train_where_they_can(tiny_set, small):
    """Sample 4 lacks its audio. Of two situations the samples must bear both: a mix of noisy audio and noisy image can meet
    whoever lacks either."""
    edit(tiny_set, 3, image="")
    task = make_task(tiny_set, small)
    wanted = {(Situation.COMPLETE,): [0], (Situation.NOISY_AUDIO,): [0, 4], (Situation.NOISY_IMAGE,): [0, 1],
              (Situation.NOISY_AUDIO, Situation.NOISY_IMAGE): [0, 1, 4], EVERY: [0, 1, 4]}
    for situations, rows in wanted.items():
        samples = Samples(task, situations, 1.0)
        assert samples.indices.tolist() == rows
        for batch in samples.batches(8, 1):
            lacking = task.data.missing[samples.indices]
            assert all(s in [own | int(lack) for own in situations] for s, lack in zip(batch.situation.tolist(), lacking))


def test_case_models_keep_the_order_of_samples(inputs):
    audio, image, situations = inputs

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, audio, image):
            return audio[:, :1, 0] + self.value

    expected = audio[:, :1, 0] + 10 * situations[:, None]
    assert torch.equal(CaseModels([Constant(10 * s) for s in range(4)]).by_situation(audio, image, situations), expected)


def test_what_a_method_reads():
    assert reads("lora", "lora.rank") and reads("lora", "train.lora.epochs") and reads("lora", "damage.both.audio_mask")
    assert not reads("lora", "prompts.length") and not reads("lora", "train.together.epochs")
    assert reads("prompt", "prompts.length") and reads("prompt", "router.passes")
    assert reads("backbone", "train.loaded_rate") and not reads("lora", "train.loaded_rate")
    assert not reads("backbone", "damage.alone.audio_mask") and not reads("backbone", "train.fraction")
    assert all(reads(method, key) for method in (BACKBONE, *METHODS) for key in ("model.width", "train.seed", "audio.mels"))
    assert not any(reads("head", key) for key in keys(PRESETS["tiny"]) if key.startswith(("lora.", "adapter.", "prompts.")))
