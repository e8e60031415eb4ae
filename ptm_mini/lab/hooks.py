"""Named intermediates of a forward pass, by hooks: the model's code does not know of them.

    with record(backbone) as found:
        backbone(audio, image)
    found["fusion.0.update_audio.attention.probabilities"]          # [B, heads, N_a, P + N_v]
"""
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ptm_mini.method.backbone import Attention, Backbone, Block, CrossUpdate, Encoder


@contextmanager
def record(backbone: Backbone) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that receives {module and name: tensor} of every pass until the block ends."""
    found: dict[str, Tensor] = {}
    hooks = []

    def keep_output(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_hook(
            lambda module, inputs, output: found.__setitem__(name, output)))

    def keep_input(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_pre_hook(
            lambda module, inputs: found.__setitem__(name, inputs[0])))

    def keep_probabilities(module: nn.Module, name: str) -> None:
        def hook(module: Attention, inputs: tuple, keywords: dict, output: Tensor) -> None:
            query, key, _ = module.project(*inputs, **keywords)
            found[name] = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
        hooks.append(module.register_forward_hook(hook, with_kwargs=True))

    for path, module in backbone.named_modules():
        if isinstance(module, Encoder):
            hooks.append(module.patches.register_forward_hook(
                lambda module, inputs, output, name=f"{path}.patches":
                found.__setitem__(name, output.flatten(2).transpose(1, 2))))
            keep_input(module.blocks[0], f"{path}.tokens")
            keep_output(module, f"{path}.out")
        if isinstance(module, (Block, CrossUpdate)):
            keep_input(module.norm2 if isinstance(module, Block) else module.norm_mlp,
                       f"{path}.attended")
            keep_output(module, f"{path}.out")
        if isinstance(module, Attention):
            keep_probabilities(module, f"{path}.probabilities")
    keep_input(backbone.head, "features")
    keep_output(backbone.head, "logits")
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
