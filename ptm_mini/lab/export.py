"""Export: a run's answer without a known situation as one file, a torch.export program.

python -m ptm_mini.lab.export runs/toy-1 toy.pt2        toy.json gets what config.json says

    program = torch.export.load("toy.pt2").module()     # in any process that has torch
    probabilities = program(audio, image)               # [B, K], any B, on the CPU

audio [B, T, M] and image [B, 3, H, W] are normalised, as Predictor.prepare gives them; a missing
modality is all 0. Class names and the audio's normalisation are in toy.json, the rest in
docs/porting.md.
"""
import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ptm_mini.checkpoint import Run, read_run
from ptm_mini.errors import run as run_command
from ptm_mini.evaluation import Models
from ptm_mini.files import whole_file
from ptm_mini.lab.weights import require_new, write_settings
from ptm_mini.method.router import pick_situations
from ptm_mini.training import load_models

EXAMPLES = 2                 # samples that are traced; with 1 the batch size would be fixed


class Concat(nn.Module):
    """All prompt sets side by side."""

    def __init__(self, models: Models):
        super().__init__()
        self.model = models.methods["prompt"]

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """audio [B, T, M], image [B, 3, H, W], normalised; returns probabilities [B, K]"""
        return self.model(audio, image).softmax(dim=1)


class Routed(nn.Module):
    """The prompts of the situations that the router picks."""

    def __init__(self, models: Models):
        super().__init__()
        self.model, self.router = models.methods["prompt"], models.router

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """As of Concat."""
        logits = self.router(*self.model.backbone.encode(audio, image))
        situations = pick_situations(logits, audio, image)
        return self.model.answer_each(audio, image, situations).softmax(dim=1)


STRATEGIES = {"routed": Routed, "concat": Concat}


@torch.no_grad()
def export(run: Run, strategy: str) -> ExportedProgram:
    """Trace a run's answer. Raises InputError where the run has no prompts."""
    models = load_models(run, torch.device("cpu"), ["prompt"])
    backbone, batch = models.backbone, {0: Dim("B", min=1)}
    inputs = (torch.randn(EXAMPLES, *backbone.audio_shape),
              torch.randn(EXAMPLES, *backbone.image_shape))
    return torch.export.export(STRATEGIES[strategy](models), inputs,
                               dynamic_shapes={"audio": batch, "image": batch})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, help="run folder that train.py made, with prompts")
    add("out", type=Path, help="the new .pt2 file; a .json file is made beside it")
    add("--strategy", choices=STRATEGIES, default="routed",
        help="prompts of the situation that the router picks, or all side by side; "
             "default: routed")
    args = parser.parse_args(argv)
    require_new(args.out, ".pt2")
    run = read_run(args.run)
    program = export(run, args.strategy)
    with whole_file(args.out) as file:
        torch.export.save(program, file)
    write_settings(run, args.out)


if __name__ == "__main__":
    run_command(main)
