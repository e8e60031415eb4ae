"""Named intermediates: what a model computes on its way, on request.

    with traced(model) as trace:
        model(audio, image)
    trace["fusion.0.update_audio.attention.probabilities"]          # [B, heads, N_a, P + N_v]
"""
from contextlib import contextmanager

from torch import nn


class Module(nn.Module):
    """A module whose forward names what it computes on its way, for whoever looks with `traced`."""
    trace, path = None, ""

    def note(self, name, value):
        """Keep a tensor as `path.name` where someone looks. returns it"""
        if self.trace is not None:
            self.trace[f"{self.path}.{name}".lstrip(".")] = value
        return value


@contextmanager
def traced(model):
    """Yield a dict that gets {path of the module and name: tensor} of every forward pass until the block ends."""
    trace = {}
    modules = [(path, module) for path, module in model.named_modules() if isinstance(module, Module)]
    for path, module in modules:
        module.trace, module.path = trace, path
    try:
        yield trace
    finally:
        for _, module in modules:
            module.trace = None
