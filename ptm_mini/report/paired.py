"""Paired differences: how far a row's average accuracy lies from another row's, each test sample compared with itself."""
import statistics
from typing import NamedTuple

import torch

from ptm_mini.report import tables


class Difference(NamedTuple):
    """Of a row's average from that of the row which it is compared with."""
    by_seed: list                 # one a seed
    standard_error: float | None  # of their mean, over test samples; None: the seeds' samples differ, or there is only one


def contributions(scores, row, reference):
    """How far each sample moves a row's difference D from the row `reference`.

    With d[s, i] the share of sample i's answers in situation s that are right, minus the same of the reference, and d[s] its
    mean over the n[s] samples that can be in s: D is the mean of d[s] over the S situations, and sample i moves it by

        c[i] = 1 / S * sum over the situations s that i can be in of (d[s, i] - d[s]) / n[s]

    scores   {Situation: {row: Score}}
    returns  [samples looked at] double
    """
    d = torch.stack([own[row].right - own[reference].right for own in scores.values()])              # [S, rows of the set]
    looked_at = ~d.isnan()
    moves = (d - d.nanmean(dim=1, keepdim=True)).nan_to_num(0.0) / looked_at.sum(dim=1, keepdim=True)
    return moves.mean(dim=0)[looked_at.any(dim=0)]


def standard_error(moved):
    """The square root of n / (n - 1) * sum of c[i]^2, the test samples being what is drawn at random; of several seeds on the
    same samples c is the mean over them. Where all samples can be in every situation it is std(d) / sqrt(n), d being a sample's
    difference averaged over the situations.

    moved    list of `contributions`, one a seed
    returns  float, or None of a single sample
    """
    c = torch.stack(moved).mean(dim=0)
    return float((len(c) / (len(c) - 1) * c.square().sum()).sqrt()) if len(c) > 1 else None


def differences(scores, reference, same_samples=True):
    """
    scores        list of {Situation: {row: Score}}, one a seed, with the same situations and rows
    reference     the row that the others are compared with
    same_samples  whether all seeds were evaluated on the same samples; no standard error is known where they were not
    returns       {row: Difference}, of all rows but the reference
    """
    found = {}
    for row in next(iter(scores[0].values())):
        if row != reference:
            by_seed = [average(one, row) - average(one, reference) for one in scores]
            error = standard_error([contributions(one, row, reference) for one in scores]) if same_samples else None
            found[row] = Difference(by_seed, error)
    return found


def average(scores, row):
    """The mean over situations of a row's accuracies"""
    return statistics.fmean(own[row].accuracy for own in scores.values())


def same_samples(views):
    """Whether several Views, one a seed, are of the same set"""
    return len(views) == 1 or len({view.data.fingerprint() for view in views}) == 1


def figures(compared):
    """What `differences` found as results.json has it: {row: {"difference": a number, of several seeds a list of them,
    "standard_error": where it is known}}"""
    return {row: {"difference": by_seed if len(by_seed) > 1 else by_seed[0],
                  **({} if error is None else {"standard_error": error})} for row, (by_seed, error) in compared.items()}


def comparison(compared, reference):
    """What `differences` found as a table, with its title. reference: what the rows are compared with, in words"""
    lines = {row: cells(difference) for row, difference in compared.items()}
    columns = next(iter(lines.values()))
    title = f"Average minus that of {reference}"
    if "larger than the spread" in columns:
        title += ", seed by seed, with the standard deviation over the seeds, its spread"
    if "standard error" in columns:
        title += "; its standard error is over the test samples, each compared with itself"
    return f"{title}:\n\n" + tables.aligned([["", *columns], *([row, *line.values()] for row, line in lines.items())])


def cells(difference):
    """A line of the table, {column: text}, with the columns that there is something for."""
    mean = statistics.fmean(difference.by_seed)
    line = {"difference": f"{mean:+.3f}"}
    if len(difference.by_seed) > 1:
        spread = statistics.stdev(difference.by_seed)
        line = {"difference": f"{mean:+.3f}±{spread:.3f}", "larger than the spread": "yes" if abs(mean) > spread else "no"}
    if difference.standard_error is not None:
        line |= {"standard error": f"{difference.standard_error:.3f}",
                 "larger than two of them": "yes" if abs(mean) > 2 * difference.standard_error else "no"}
    return line
