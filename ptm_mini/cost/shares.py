"""What follows from the measured steps: shares of full fine-tuning's, an epoch in two protocols, when kept tokens have paid."""
import math

FULL = "full fine-tuning"                          # the row that others are held against, on all the data in each protocol
PROTOCOLS = {"equal": 1.0, "paper": 0.3}           # share of them that all other rows train on
HALF = 2                                           # bytes of a number in half precision, in which tokens can be kept


def shares_of(own, full, needed):
    """A row's costs as shares of full fine-tuning's. needed: Gop left of it when what comes before all that learns is kept"""
    share = {column: own[column] / full[column] for column in own}
    return {"operations": share["Gop"], "limit": needed / full["Gop"], "time": share["ms"],
            "time/operations": share["ms"] / share["Gop"],
            **{column: share[column] for column in ("step MB", "process MB") if column in share}}


def protocols(training, steps):
    """Seconds of an epoch's steps, and their share of full fine-tuning's on all the data.

    training  {row: {"ms": of a step, "step MB"}}
    steps     that all the data make, the last one counted as what it is: samples / batch, a whole number or not
    returns   {row: {column: number}}
    """
    full, rows = training[FULL], {}
    for row, own in training.items():
        rows[row] = {}
        for name, fraction in PROTOCOLS.items():
            seconds = steps * own["ms"] / 1000 * (1.0 if row == FULL else fraction)
            rows[row] |= {f"{name} s": seconds, f"{name} share": seconds / (steps * full["ms"] / 1000)}
        rows[row]["memory share"] = own["step MB"] / full["step MB"]
    return rows


def keeping_of(tokens, made, saved, steps):
    """What it takes to keep tokens.

    tokens       of a batch: audio and image [B, N, D]
    made, saved  ms that a batch takes once, and that each of its steps is then spared
    steps        as in `protocols`
    """
    return {"kB/sample": sum(x[0].numel() for x in tokens) * HALF / 1e3, "ms to make": made, "ms saved": saved,
            "s/view": steps * made / 1000, "epochs to pay": made / saved if saved > 0 else math.inf}
