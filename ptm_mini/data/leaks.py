"""What in a manifest lets figures flatter: one recording or file on two sides of a split, a gap that betrays the class."""
import logging
from collections import Counter, defaultdict

logger = logging.getLogger(__name__)
TELLING = 0.2             # how much oftener than in another class a cell is missing where that is said


def warn_of_leaks(rows):
    """Log a warning for each way in which a set's Rows tell a model what it should find out."""
    warn_of_shared_groups(rows)
    warn_of_shared_files(rows)
    warn_of_telling_gaps(rows)


def warn_of_shared_groups(rows):
    """A group on both sides of a split flatters every number; say so."""
    splits = defaultdict(set)
    for row in rows:
        if row.group:
            splits[row.group].add(row.split)
    shared = sum(len(sides) > 1 for sides in splits.values())
    if shared:
        logger.warning("%d of %d groups stand in more than one split: the figures will flatter", shared, len(splits))


def warn_of_shared_files(rows):
    """A file that stands in more than one split is known to the model before the test; say so."""
    splits = defaultdict(set)
    for row in rows:
        for name in filter(None, (row.audio, row.image)):
            splits[name].add(row.split)
    shared = sum(len(sides) > 1 for sides in splits.values())
    if shared:
        logger.warning("%d of %d files stand in more than one split: the figures will flatter", shared, len(splits))


def warn_of_telling_gaps(rows):
    """Where training samples of some classes lack a modality and others don't, the gap alone tells the class; say so."""
    rows = [row for row in rows if row.split == "train"]
    found = []
    for column in ("audio", "image"):
        lacking = Counter(row.label for row in rows if not getattr(row, column))
        shares = {label: lacking[label] / count for label, count in Counter(row.label for row in rows).items()}
        telling = {label: share for label, share in sorted(shares.items()) if share - min(shares.values()) >= TELLING}
        if telling:
            named = ", ".join(f"{100 * share:.0f}% of {label}" for label, share in telling.items())
            found.append(f"no {column} in {named}, against {100 * min(shares.values()):.0f}%")
    if found:
        logger.warning("the missing cell betrays the class: of the training samples there is %s: the figures will flatter",
                       " and ".join(found))
