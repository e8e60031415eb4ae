"""Named intermediates: record what a model computes on its way to the logits, by forward hooks.

    with record(backbone) as recorded:
        backbone(audio, image)
    recorded["fusion.0.update_audio.attention.probabilities"]          # [B, heads, N_a, P+N_v]
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ptm_mini.method.backbone import Attention, Backbone, Block, CrossUpdate, Encoder


@contextmanager
def record(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that gets {path of a module in `model` and name: tensor} of every forward pass.

    .patches, .tokens              [B, N, D]  of an encoder: without and with positions and modality
    .attended, .out                [B, N, D]  of a block: after its attention, after its MLP
    .attention.probabilities       [B, heads, N, P+N_c]
    features, logits               [B, D], [B, K]  of the backbone
    """
    recorded: dict[str, Tensor] = {}
    handles = []

    def keep(name: str, module: nn.Module,
             compute: Callable[..., Tensor] = lambda output, *_, **__: output) -> None:
        """Record compute(output, *inputs) whenever the module has run."""
        def hook(_: nn.Module, inputs: tuple, keywords: dict[str, Any], output: Tensor) -> None:
            recorded[name.lstrip(".")] = compute(output, *inputs, **keywords)
        handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def watch(path: str, module: nn.Module) -> None:
        """Keep what is to be recorded of a module."""
        if isinstance(module, Encoder):
            keep(f"{path}.patches", module.patches, lambda output, _: output.flatten(2).mT)
            keep(f"{path}.tokens", module.patches,
                 lambda output, _: output.flatten(2).mT + module.positions + module.modality)
        if isinstance(module, (Block, CrossUpdate)):
            norm = module.norm2 if isinstance(module, Block) else module.norm_mlp
            keep(f"{path}.attended", norm, lambda _, tokens: tokens)
        if isinstance(module, (Encoder, Block, CrossUpdate)):
            keep(f"{path}.out", module)
        if isinstance(module, Attention):    # its forward's fused kernel returns no probabilities
            def attend(_: Tensor, *inputs: Tensor, **keywords: Tensor) -> Tensor:
                query, key, _ = module.project(*inputs, **keywords)
                return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
            keep(f"{path}.probabilities", module, attend)
        if isinstance(module, Backbone):      # tuned heads are others than its own
            keep(f"{path}.features", module.norm, lambda tokens, _: tokens.mean(dim=1))
            keep(f"{path}.logits", module)

    for path, module in model.named_modules():
        watch(path, module)
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
