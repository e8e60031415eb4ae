"""How good models are in each situation: answers by strategy, scores, and paired differences."""
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptm_mini.config import Situation
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.errors import InputError
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.damage import EVALUATION_EPOCH, FURTHER_DRAWS, Sample
from ptm_mini.method.prompts import PromptedBackbone, mean_probabilities, select_answers
from ptm_mini.method.router import Router, pick_situations

BATCH_SIZE = 128                  # fixed, so that figures do not depend on how a run was trained
STRATEGIES = {"oracle": "each sample's set by its true situation, which a user would have to know",
              "concat": "all prompt sets side by side",
              "routed": "the set of the situation that the router picks",
              "lowest_entropy": "of all sets' answers the surest: a reference without a router"}
Table = dict[str, dict[str, float]]          # {row: {column: number}}
AVAILABLE = {"both": Situation.COMPLETE, "audio only": Situation.NOISY_IMAGE,
             "image only": Situation.NOISY_AUDIO}     # group of samples: their situation


class CaseModels(nn.Module):
    """A baseline's models, one for each situation in the order of Situation."""

    def __init__(self, models: list[nn.Module]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def answer(self, audio: Tensor, image: Tensor, case: Situation) -> Tensor:
        """As PromptedBackbone.answer."""
        return self.models[case](audio, image)


class Answers(NamedTuple):
    rows: dict[str, Tensor]           # {row of the tables: logits [B, K]}
    sets: Tensor | None               # [S, B, K] of each prompt set for all samples
    picks: Tensor | None              # [B] the situations that the router picks


class Models(NamedTuple):
    """All models of a run."""
    backbone: Backbone
    methods: dict[str, nn.Module]     # PromptedBackbone, CaseModels, or one model for all samples
    router: Router | None = None

    def answer(self, batch: Sample) -> Answers:
        """Answer a batch by every method. Strategies but concat select from the sets' answers."""
        audio, image = batch.audio, batch.image
        tokens, sets, picks = self.backbone.encode(audio, image), None, None
        rows = {"backbone": self.backbone.head(self.backbone.join(*tokens))}
        if self.router is not None:
            picks = pick_situations(self.router(*tokens), audio, image)
        for method, model in self.methods.items():
            if isinstance(model, Backbone):                    # one model for all situations
                rows[method] = model(audio, image)
                continue
            logits = torch.stack([model.answer(audio, image, case) for case in Situation])
            rows[f"{method} oracle"] = select_answers(logits, batch.situation)
            if isinstance(model, PromptedBackbone):
                sets = logits
                rows[f"{method} concat"] = model(audio, image)
            if picks is not None:
                rows[f"{method} routed"] = select_answers(logits, picks)
            if isinstance(model, PromptedBackbone):
                rows[f"{method} lowest_entropy"] = select_surest(logits)
        return Answers(rows, sets, picks)


def select_surest(logits: Tensor) -> Tensor:
    """Take each sample's answer of lowest entropy: [S, B, K] -> [B, K]."""
    log_p = logits.log_softmax(dim=-1)
    return select_answers(logits, (log_p.exp() * log_p).sum(dim=-1).argmax(dim=0))


class EvalSplit(NamedTuple):
    """The samples of a split as evaluation damages them, the same way for every model."""
    windows: tuple[PreparedSet, ...]          # of long sounds, whose answers are averaged
    split: str
    draws: int = 1                            # of each sample's damage

    @property
    def data(self) -> PreparedSet:
        return self.windows[0]

    def situations(self) -> list[Situation]:
        """List those that some sample can be in: nothing else is missing."""
        missing = self.data.missing[self.data.indices(self.split)]
        return [s for s in Situation if (missing & ~int(s) == 0).any()]

    def item(self, row: int, situation: Situation, draw: int = 0) -> tuple[int, int, Situation]:
        """Name a damaged sample as PreparedSet.loader takes it."""
        return row, FURTHER_DRAWS + draw if draw else EVALUATION_EPOCH, situation


def window_places(windows: int) -> list[float]:
    """Spread windows evenly over a long sound, from its beginning (0) to its end (1)."""
    if windows < 1:
        raise InputError(f"windows={windows}: expected 1 or more")
    return [k / max(1, windows - 1) for k in range(windows)]


class Score(NamedTuple):
    """Figures over samples; several draws of a sample's damage count alike."""
    accuracy: float
    macro_f1: float               # mean of the classes' 2 precision recall / (precision + recall)
    loss: float                   # mean cross-entropy, in nats
    samples: int                  # not counted again for each draw
    correct: Tensor | None        # [rows of the set]: a sample's share of correct answers, or NaN


def score_logits(logits: Tensor, labels: Tensor, rows: Tensor, count: int) -> Score:
    """Score answers [draws * n, K] to the samples `rows` [n], draw after draw.

    labels [draws * n]; count: rows of the set
    """
    K, answers = logits.shape[1], logits.argmax(dim=1)
    confusion = torch.bincount(labels * K + answers, minlength=K * K).view(K, K).double()
    true, answered = confusion.sum(dim=1), confusion.sum(dim=0)
    f1 = 2 * confusion.diag() / (true + answered).clamp(min=1)
    correct = torch.full((count,), torch.nan, dtype=torch.double)
    correct[rows] = (answers == labels).double().view(-1, len(rows)).mean(dim=0)
    return Score(float(confusion.trace() / len(labels)), float(f1[true > 0].mean()),
                 float(F.cross_entropy(logits, labels)), len(rows), correct)


@torch.no_grad()
def answer_split(answer: Callable[[Sample], dict[str, Tensor]], split: EvalSplit,
                 situation: Situation, rows: Tensor | None = None,
                 ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Answer the samples of a split in one situation; windows are averaged as probabilities.

    rows     [n] long; None: all samples that can be in the situation
    returns  {row of the tables: logits [draws * n, K]}, labels [draws * n], rows [n]
    """
    rows = split.data.indices(split.split, situation) if rows is None else rows
    draws = 1 if situation == Situation.COMPLETE else split.draws        # COMPLETE draws nothing
    items = [split.item(row, situation, draw) for draw in range(draws) for row in rows.tolist()]
    loaders = [data.loader(items, BATCH_SIZE) for data in split.windows]
    found: dict[str, list[Tensor]] = {}
    labels = []
    for batches in zip(*loaders):
        windows = [answer(batch.to(split.data.device)) for batch in batches]
        for name in windows[0]:
            logits = mean_probabilities([window[name].float() for window in windows])
            found.setdefault(name, []).append(logits.cpu())
        labels.append(batches[0].label)              # still on the CPU
    return {name: torch.cat(parts) for name, parts in found.items()}, torch.cat(labels), rows


def score_split(answer: Callable[[Sample], dict[str, Tensor]], split: EvalSplit,
                situation: Situation, rows: Tensor | None = None) -> dict[str, Score]:
    """Arguments as of answer_split; returns {row of the tables: Score}"""
    answers, labels, rows = answer_split(answer, split, situation, rows)
    return {name: score_logits(logits, labels, rows, len(split.data.rows))
            for name, logits in answers.items()}


class Results(NamedTuple):
    """The evaluation of a run: a Score for each situation and row of the tables."""
    scores: dict[Situation, dict[str, Score]]
    sets: Table                               # accuracy of each prompt set in each situation
    router: Table                             # share of a situation that is taken for another
    available: Table                          # accuracy by available modalities, undamaged


def evaluate(models: Models, split: EvalSplit) -> Results:
    """Score every method and strategy in every situation of a split."""
    def answer_all(batch: Sample) -> dict[str | Situation, Tensor]:
        rows, sets, picks = models.answer(batch)
        if sets is not None:
            rows |= dict(zip(Situation, sets))
        if picks is not None:                        # one-hot: over windows the most frequent
            rows["router"] = F.one_hot(picks, len(Situation)).float()
        return rows

    results = Results({}, {}, {}, {})
    for situation in split.situations():
        answers, labels, rows = answer_split(answer_all, split, situation)
        if "router" in answers:
            counts = answers.pop("router").argmax(dim=1).bincount(minlength=len(Situation))
            results.router[situation.label] = {
                picked.label: float(counts[picked] / len(labels)) for picked in Situation}
        scores = {name: score_logits(logits, labels, rows, len(split.data.rows))
                  for name, logits in answers.items()}
        for case in Situation:
            if case in scores:
                accuracy = scores.pop(case).accuracy
                results.sets.setdefault(case.label, {})[situation.label] = accuracy
        results.scores[situation] = scores
    rows = split.data.indices(split.split)
    missing = split.data.missing[rows]
    if not missing.any():
        return results
    for name, situation in AVAILABLE.items():
        if len(alike := rows[missing == situation]):
            scores = score_split(lambda batch: models.answer(batch).rows, split,
                                 Situation.COMPLETE, alike)
            for row, score in scores.items():
                results.available.setdefault(row, {})[name] = score.accuracy
    return results


def average(scores: dict[Situation, dict[str, Score]], row: str) -> float:
    """Average a row's accuracies over situations."""
    return statistics.fmean(rows[row].accuracy for rows in scores.values())


def paired_differences(runs: Sequence[dict[Situation, dict[str, Score]]], reference: str,
                       groups: Tensor) -> Table:
    """Compare every row with the reference row, each test sample with itself.

    runs     Results.scores, one a seed, with the same samples, situations and rows
    groups   [rows of the set] number of each sample's group, as PreparedSet.groups
    returns  {row: its difference D and what is known of D's error}

    With d[s, i] the share of sample i's answers in situation s that are correct, minus the same of
    the reference, and d[s] its mean over the n[s] samples that can be in s, D is the mean of d[s]
    over the S situations, and sample i moves it by

        c[i] = 1 / S * sum over the s that i can be in of (d[s, i] - d[s]) / n[s]

    Samples of one group (pairs with the same sound) are drawn together, n groups at random. So the
    standard error is that of a sum, sqrt(n / (n - 1) * sum of c[g]^2), with c[g] the sum of c[i]
    over the samples of group g; of several seeds c is the mean.
    """
    table: Table = {}
    for row in next(iter(runs[0].values())):
        if row == reference:
            continue
        by_seed, moved = [], []
        for scores in runs:
            by_seed.append(average(scores, row) - average(scores, reference))
            d = torch.stack([rows[row].correct - rows[reference].correct
                             for rows in scores.values()])
            evaluated = ~d.isnan()                                          # [S, rows of the set]
            moves = (d - d.nanmean(dim=1, keepdim=True)).nan_to_num(0.0)
            c = (moves / evaluated.sum(dim=1, keepdim=True)).mean(dim=0)
            moved.append(c[evaluated.any(dim=0)])
        table[row] = {"difference": statistics.fmean(by_seed)}
        if len(runs) > 1:
            table[row]["spread over seeds"] = statistics.stdev(by_seed)
        number = groups[evaluated.any(dim=0)].unique(return_inverse=True)[1]     # of c's groups
        n = int(number.max()) + 1
        c = torch.zeros(n, dtype=torch.double).index_add(0, number, torch.stack(moved).mean(dim=0))
        if n > 1:
            table[row]["standard error"] = float((n / (n - 1) * c.square().sum()).sqrt())
    return table
