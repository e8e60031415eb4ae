"""The way of one sample from its files to its logits in training: few functions, in few files, listed in docs/code.md."""
import re
import sys
import threading
from pathlib import Path

import pytest
import torch

from ptm_mini.config import PRESETS, Situation
from ptm_mini.data.manifest import read_set
from ptm_mini.data.cache import fill
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.damage import AUDIO_KINDS, IMAGE_KINDS
from ptm_mini.method.prompts import prompted
from ptm_mini.settings import with_settings
from ptm_mini.training.samples import Task
from ptm_mini.training.stages import fit_one

ROOT = Path(__file__).parent.parent


class Arrived(Exception):
    """The sample has reached its logits."""


def functions_called(call, seen, first, last, skip=0):
    """Add what of ours runs in `call` from a call of the function `first`, those that asked for it included, to the next
    return of `last`: (file, name) in order. Comprehensions are part of the function that they stand in.

    skip  how many calls of `first` to let pass
    """
    def name_of(frame):
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_qualname.replace(".<locals>", "")
        ours = path.is_relative_to(ROOT / "ptm_mini") and "<" not in name
        return (str(path.relative_to(ROOT / "ptm_mini")), name) if ours else None

    def watch(frame, event, argument):
        nonlocal on, skip
        name = name_of(frame)
        if event == "call" and name and name[1] == first and not on:
            on, skip = skip == 0, skip - 1
            above = frame.f_back
            while on and above:                                   # the loop that asks for the sample is on its way too
                if name_of(above) and name_of(above)[1] in ("fit", "Samples.batches", "worked_ahead", "fill"):
                    seen.setdefault(name_of(above))
                above = above.f_back
        if event == "call" and on and name:
            seen.setdefault(name)
        if event == "return" and on and name and name[1] == last:
            raise Arrived

    on = False
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        call()
    except Arrived:
        pass
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="frames do not tell the qualified names of functions")
def test_the_way_of_a_sample_is_short_and_stands_in_the_docs(toy_set):
    config = with_settings(PRESETS["tiny"], {"train.prompts.batch_size": 1})
    rows, _ = read_set(toy_set)
    data = PreparedSet(toy_set, config)                           # what is made once, for all clips, is there from now on
    task = Task(config, data, data.normalisation(), torch.device("cpu"), bf16=False)
    model = prompted(Backbone(config, 10), config, torch.Generator())
    seen = {}
    resampled = next(i for i, row in enumerate(rows) if row.id == "siren-000-0")
    functions_called(lambda: fill(*data.cache.job(data.cache.folder, resampled, 1)), seen, "features_of", "")
    functions_called(lambda: fit_one(task, task, "x", model, config.train.prompts, (Situation.NOISY_BOTH,), 1.0), seen,
                     "Samples.batch", "Prompted.forward", skip=1)                # the first step is measured besides
    kinds = [f.__name__ for kind in {**AUDIO_KINDS, **IMAGE_KINDS}.values() for f in kind]
    found = [f"{file}: {name}" for file, name in seen if name not in kinds]
    print("\n".join(found))
    assert len(found) + 4 <= 50                                   # and what one kind of damage draws and does, for each modality
    assert len({line.split(":")[0] for line in found}) <= 13
    listed = re.findall(r"^\d+\. `(.+?)`", (ROOT / "docs" / "code.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(found + [f"method/damage.py: what the {modality}'s kind {does}" for modality in ("audio", "image")
                                             for does in ("draws", "does")])
