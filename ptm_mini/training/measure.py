"""How good models are in each situation. What damage is drawn is shown to every model alike."""
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ptm_mini.config import Config, Situation
from ptm_mini.data.prepared import Normalisation, PreparedSet, stack, threads_beside, worked_ahead
from ptm_mini.errors import InputError
from ptm_mini.method.damage import ALL_KINDS, EVALUATION_EPOCH, FURTHER_DRAWS, damage_sample

BATCH_SIZE = 128                  # fixed, so that a run's figures do not depend on how it was trained
PRESENT = {"both": Situation.COMPLETE, "audio only": Situation.NOISY_IMAGE, "image only": Situation.NOISY_AUDIO}


class Score(NamedTuple):
    """Figures over samples, each looked at under a View's draws of its damage, which all count alike.

    right  [rows of the set] double: the share of a sample's answers that are right, NaN where it was not looked at; None: of a
           mean of Scores
    """
    accuracy: float               # share of answers that are right: whose highest score is the right class's
    macro_f1: float               # mean over the classes of 2 precision recall / (precision + recall)
    loss: float                   # mean cross-entropy, in nats
    samples: int                  # not counted again for each draw
    right: torch.Tensor | None = None

    def figures(self):
        """{name: number}, without `right`"""
        return {name: value for name, value in self._asdict().items() if name != "right"}


class View(NamedTuple):
    """What is looked at: the samples of a split, as evaluation damages them, on the device."""
    data: PreparedSet
    split: str
    config: Config                # of which damage and seed count
    normalisation: Normalisation
    device: torch.device
    kinds: tuple = ALL_KINDS      # of damage, that can be drawn
    later: tuple = ()             # PreparedSets like `data`, of later windows of long clips
    draws: int = 1                # of each sample's damage

    def sample(self, index, situation, draw=0):
        """Sample of the row `index`, put into a situation by this draw of its damage"""
        sample = self.data.sample(index, self.normalisation)
        epoch = FURTHER_DRAWS + draw if draw else EVALUATION_EPOCH
        return damage_sample(sample, situation, self.config.damage, self.config.train.seed, epoch, self.kinds)

    def situations(self):
        """Those that some sample can be in: where every one lacks a modality, no other can be the one that suffers."""
        missing = self.data.missing[self.data.indices(self.split)]
        return [situation for situation in Situation if (missing & ~int(situation) == 0).any()]

    def by_what_is_there(self):
        """{name in PRESENT: row numbers [n] long}, without those that no sample is of"""
        rows = self.data.indices(self.split)
        groups = {name: rows[self.data.missing[rows] == lacking] for name, lacking in PRESENT.items()}
        return {name: group for name, group in groups.items() if len(group)}

    def batches(self, situation, rows=None):
        """Yield audio, image, situations and labels of these rows, [n] long; None: of all that can be in the situation.

        All rows come once for each draw. COMPLETE draws nothing: there they come once.
        """
        def prepare(part):
            draw, indices = part
            batch = stack((self.sample(index, situation, draw) for index in indices.tolist()), len(indices))
            return [x.to(self.device) for x in batch[:4]]

        rows = self.data.indices(self.split, situation) if rows is None else rows
        draws = 1 if situation == Situation.COMPLETE else self.draws
        parts = [(draw, indices) for draw in range(draws) for indices in rows.split(BATCH_SIZE)]
        yield from worked_ahead(prepare, parts, threads_beside(self.device))

    def windows(self, situation, rows=None):
        """As `batches`, of each window of long clips: list of generators, in step draw by draw"""
        return [self._replace(data=data).batches(situation, rows) for data in (self.data, *self.later)]


def score_of(confusion, loss, right):
    """confusion [K, K] counts of answers, true class by answered one; loss: summed over them; right: as Score has it"""
    hits, n = confusion.diag(), confusion.sum()
    f1 = 2 * hits / (confusion.sum(dim=0) + confusion.sum(dim=1)).clamp(min=1)
    present = confusion.sum(dim=1) > 0                                     # a class without samples has no F1
    samples = len(right) - int(right.isnan().sum())
    return Score(float(hits.sum() / n), float(f1[present].mean()), loss / int(n), samples, right)


def shares_right(hits, rows, count):
    """Score.right of the answers to these rows, [n] long, draw after draw: hits [draws * n] bool; count: rows of the set"""
    right = torch.full((count,), torch.nan, dtype=torch.double)
    right[rows] = hits.double().view(-1, len(rows)).mean(dim=0)
    return right


def places(windows):
    """Where in a clip each of several windows lies, evenly spread from its beginning (0) to its end (1)."""
    if windows < 1:
        raise InputError(f"windows={windows}: expected 1 or more")
    return [k / max(1, windows - 1) for k in range(windows)]


def mean_answer(scores):
    """Of the windows of a long clip: list of scores [B, K] -> scores of their mean probabilities; of one as they are"""
    if len(scores) == 1:
        return scores[0]
    return torch.stack(scores).softmax(dim=-1).mean(dim=0).clamp(min=torch.finfo(torch.float32).tiny).log()


@torch.no_grad()
def measure(strategies, view, situation, rows=None):
    """Score each strategy on a View's samples, damaged by one situation.

    strategies  {name: function(audio [B, T, M], image [B, 3, H, W], situations [B]) -> scores [B, K]}
    rows        as View.batches takes them
    returns     {name: Score}
    """
    K = len(view.data.classes)
    confusion = {name: torch.zeros(K * K, dtype=torch.double) for name in strategies}
    loss, hits = dict.fromkeys(strategies, 0.0), {name: [] for name in strategies}
    rows = view.data.indices(view.split, situation) if rows is None else rows
    for batches in zip(*view.windows(situation, rows)):
        labels = batches[0][-1]
        for name, scores_of in strategies.items():
            scores = mean_answer([scores_of(*inputs).float() for *inputs, _ in batches])
            answers = scores.argmax(dim=1)
            confusion[name] += torch.bincount((labels * K + answers).cpu(), minlength=K * K)
            loss[name] += float(F.cross_entropy(scores, labels, reduction="sum"))
            hits[name].append((answers == labels).cpu())
    return {name: score_of(confusion[name].view(K, K), loss[name],
                           shares_right(torch.cat(hits[name]), rows, len(view.data.labels))) for name in strategies}


def measure_all(strategies, view):
    """returns {Situation: {strategy: Score}}, without situations that no sample can be in"""
    return {situation: measure(strategies, view, situation) for situation in view.situations()}


def measure_present(strategies, view):
    """On samples as they are, undamaged, by what there is of them. returns {name in PRESENT: {strategy: Score}}"""
    return {name: measure(strategies, view, Situation.COMPLETE, rows) for name, rows in view.by_what_is_there().items()}


@torch.no_grad()
def routes(router, view):
    """How often the router picks what, [S, S] counts: true situation by picked one."""
    S = len(Situation)
    counts = torch.zeros(S * S, dtype=torch.double)
    for situation in view.situations():
        for audio, image, situations, _ in view.batches(situation):
            counts += torch.bincount((situations * S + router.pick(audio, image)).cpu(), minlength=S * S)
    return counts.view(S, S)


def mean_score(scores):
    """Every figure averaged, each score counting the same; `samples` summed."""
    accuracy, macro_f1, loss, samples, _ = zip(*scores)
    return Score(*(sum(figure) / len(figure) for figure in (accuracy, macro_f1, loss)), sum(samples))
