"""Export: a run's answer without a known situation as one file, a torch.export program.

python -m ptm_mini.lab.export runs/toy-1 toy.pt2        toy.json gets what config.json says

    program = torch.export.load("toy.pt2").module()     # in any process that has torch
    probabilities = program(audio, image)               # [B, K], any B, on the CPU

audio [B, T, M] and image [B, 3, H, W] are normalised, as Predictor.prepare gives them; a missing
modality is all 0. Class names and the audio's normalisation are in toy.json, the rest in
docs/porting.md.
"""
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ptm_mini.checkpoint import Run, read_run
from ptm_mini.errors import new_parser, run as run_command
from ptm_mini.files import whole_file, write_file
from ptm_mini.lab.weights import require_new
from ptm_mini.method.prompts import PromptedBackbone
from ptm_mini.method.router import Router, pick_situations
from ptm_mini.training import load_models

EXAMPLES = 2                 # samples that are traced; with 1 the batch size would be fixed


class Exported(nn.Module):
    """The prompts of the situations that the router picks; without one all sets side by side."""

    def __init__(self, model: PromptedBackbone, router: Router | None):
        super().__init__()
        self.model, self.router = model, router

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """audio [B, T, M], image [B, 3, H, W], normalised; returns probabilities [B, K]"""
        if self.router is None:
            return self.model(audio, image).softmax(dim=1)
        logits = self.router(*self.model.backbone.encode(audio, image))
        situations = pick_situations(logits, audio, image)
        return self.model.answer_each(audio, image, situations).softmax(dim=1)


@torch.no_grad()
def export(run: Run, strategy: str) -> ExportedProgram:
    """Trace a run's answer. Raises InputError where the run has no prompts."""
    models = load_models(run, torch.device("cpu"), ["prompt"])
    backbone, batch = models.backbone, {0: Dim("B", min=1)}
    inputs = (torch.randn(EXAMPLES, *backbone.audio_shape),
              torch.randn(EXAMPLES, *backbone.image_shape))
    model = Exported(models.methods["prompt"], models.router if strategy == "routed" else None)
    return torch.export.export(model, inputs,
                               dynamic_shapes={"audio": batch, "image": batch})


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, help="run folder that train.py made, with prompts")
    add("out", type=Path, help="the new .pt2 file; a .json file is made beside it")
    add("--strategy", choices=["routed", "concat"], default="routed",
        help="prompts of the situation that the router picks, or all side by side; "
             "default: routed")
    args = parser.parse_args(argv)
    require_new(args.out, ".pt2")
    run = read_run(args.run)
    program = export(run, args.strategy)
    with whole_file(args.out) as file:
        torch.export.save(program, file)
    write_file(args.out.with_suffix(".json"), (run.folder / "config.json").read_bytes())


if __name__ == "__main__":
    run_command(main)
