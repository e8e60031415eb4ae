"""What is in a run's weight files: what a model learned, and on which backbone."""
import hashlib
import io
import logging
import re
import zipfile

import torch

from ptm_mini.config import Config
from ptm_mini.errors import InputError
from ptm_mini.method.router import Router
from ptm_mini.settings import from_dict
from ptm_mini.training.methods import METHODS

ROUTER_FILE = "router.pt"
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


def load_learned(path, backbone, trained_on):
    """Read one file of a method for a backbone.

    trained_on  the backbone's fingerprint
    returns     the model, frozen
    raises      InputError where the file is missing, is of another kind or name, or was trained on another backbone
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one that train.py saved")
    content = torch.load(path, weights_only=True) if zipfile.is_zipfile(path) else {}
    if "method" not in content:
        raise InputError(f"{path}: holds no prompts or other method; expected a file that train.py saved")
    if content["backbone"] != trained_on:
        raise InputError(f"{path}: trained on backbone {content['backbone'][:12]}, this one is {trained_on[:12]}; "
                         f"expected the same: train it again on this backbone")
    if content["file"] != path.name:
        raise InputError(f"{path}: was saved as {content['file']}; give it back its name")
    if path.name == ROUTER_FILE:
        model = Router(backbone)
    else:                                              # of settings that came later the run's config.json has spoken
        config = from_dict(Config, content["config"], say=logger.debug)
        model = METHODS[content["method"]].build(backbone, config, torch.Generator())
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = {re.sub(r"^set\.", "sets.0.", name): tensor for name, tensor in content["weights"].items()}      # version 0.1
    if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in weights.items()}:
        raise InputError(f"{path}: its weights do not fit its settings; restore it or train it again")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(weights[name])
    return model.requires_grad_(False)
