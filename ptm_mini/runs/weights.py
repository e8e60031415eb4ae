"""What is in a run's weight files: what a model learned, and on which backbone."""
import hashlib
import io
import logging
import os
import re

import torch

from ptm_mini.config import Config
from ptm_mini.errors import InputError, nearest
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.router import Router
from ptm_mini.runs.checkpoint import plain_tensors, saved_in
from ptm_mini.settings import from_dict
from ptm_mini.training.methods import METHODS

ROUTER_FILE = "router.pt"
EXPECTED = "expected a file that train.py saved: restore it or train it again"
logger = logging.getLogger(__name__)


def fingerprint(backbone):
    """SHA-256 over every weight of a backbone: name, shape, type and bytes, in the order of its state dict."""
    digest = hashlib.sha256()
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def as_bytes(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def learned(model):
    """What a model learns, {name: tensor on the CPU}: the parameters that have gradients."""
    return {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}


def read_tensors(path):
    """{name: finite float32 tensor} of a run's file that holds nothing else. Raises InputError where it is missing or does."""
    saved, _ = saved_in(path, EXPECTED)
    return plain_tensors(path, saved, EXPECTED, (torch.float32,))


def load_learned(path, backbone, trained_on):
    """Read one file of a method for a backbone.

    trained_on  the backbone's fingerprint
    returns     the model, frozen
    raises      InputError where the file is missing, is of another kind or name, was trained on another backbone, or holds
                anything but what such a file does
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; {EXPECTED}")
    content, _ = saved_in(path, EXPECTED)
    texts = [content.get(name) for name in ("method", "backbone", "file")] if isinstance(content, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: holds no prompts or other method; {EXPECTED}")
    method, saved_on, name = texts
    if saved_on != trained_on:
        raise InputError(f"{path}: trained on backbone {saved_on[:12]!r}, this one is {trained_on[:12]!r}; expected the same: "
                         f"train it again on this backbone")
    if name != path.name:
        raise InputError(f"{path}: was saved as {name[:60]!r}; give it back its name")
    is_router = path.name == ROUTER_FILE
    model = Router(backbone) if is_router else built(path, method, content.get("config"), backbone)
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = plain_tensors(path, content.get("weights"), EXPECTED, (torch.float32,), ("bias",) if is_router else ())
    weights = {re.sub(r"^set\.", "sets.0.", name): tensor for name, tensor in weights.items()}              # version 0.1
    if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in weights.items()}:
        raise InputError(f"{path}: its weights do not fit its settings; restore it or train it again")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(weights[name])
    return model.requires_grad_(False)


def built(path, method, settings, backbone):
    """The model that a method's file is for, as it began. Raises InputError where the file says nothing that can be built.

    settings  dict as asdict(Config) gives it
    """
    if method not in METHODS:
        raise InputError(f"{path}: is of method {method[:60]!r}; {nearest(method, METHODS)}")
    try:
        config = from_dict(Config, settings, say=logger.debug)           # of settings that came later the run has spoken
    except InputError as error:
        raise InputError(f"{path}: {error}; restore it or train it again") from error
    with torch.device("meta"):
        expected = Backbone(config, backbone.head[1].out_features).state_dict()
    if {name: p.shape for name, p in expected.items()} != {name: p.shape for name, p in backbone.state_dict().items()}:
        raise InputError(f"{path}: its settings are for another backbone's sizes; restore it or train it again")
    return METHODS[method].build(backbone, config, torch.Generator())
