"""Answers about a user's own files: one pair as text, JSON and a picture, many from a CSV file to a CSV file."""
import csv
import itertools
import json
import logging
import time

from PIL import Image, ImageDraw

from ptm_mini.config import Situation
from ptm_mini.errors import InputError
from ptm_mini.files import new_file, refuse_existing, write_file
from ptm_mini.report.charts import COLOURS, FAINT, INK, as_png, font
from ptm_mini.report.gallery import show
from ptm_mini.runs.predict import Answer, Predictor
from ptm_mini.training.fit import minutes

logger = logging.getLogger(__name__)
EVERY = 5                         # seconds between two lines of progress
DRAWN = 10                        # classes, the likeliest ones, in a picture


def ask(folder, device, audio, image, as_json, picture, windows):
    """Print what the run in `folder` says of one pair, as text or as JSON, and draw it into the file `picture`.

    audio, image  Paths, or None; picture: Path or None; windows: as ptm_mini.load takes them
    """
    if picture:
        refuse_existing(picture)
    model = Predictor(folder, device, windows)
    prepared = model.prepare(audio, image)
    answer = model.answer([prepared])[0]
    if picture:
        write_file(picture, drawn(answer, prepared))
    print(json.dumps(facts(answer, audio, image), indent=1) if as_json else "\n".join(lines(answer)))


def lines(answer):
    """The classes and their probabilities, then which prompts answered, and why."""
    width = max(map(len, answer.probabilities))
    return [*(f"{name:<{width}}  {p:.3f}" for name, p in answer.probabilities.items()), "", *reasons(answer)]


def reasons(answer):
    """Which prompts answered, and why: two lines."""
    if answer.router is None:
        missing = "audio" if answer.situation == Situation.NOISY_AUDIO else "image"
        return [f"prompts: {answer.situation.label}", f"no {missing} is given, so the situation is known"]
    said = ", ".join(f"{situation.label} {p:.3f}" for situation, p in answer.router.items())
    return [f"prompts: {answer.situation.label}", f"picked by the router, which says {said}"]


def facts(answer, audio, image):
    """The same for programs, as JSON can hold it."""
    return {"audio": audio and str(audio), "image": image and str(image), "answer": answer.label,
            "probabilities": answer.probabilities, "situation": answer.situation.label,
            "router": answer.router and {situation.label: p for situation, p in answer.router.items()}}


def drawn(answer, prepared):
    """What the model saw of a pair, and a bar for each of the likeliest classes. returns PNG bytes"""
    side, left, line, across = 200, 20, 24, 260
    shown, why = list(answer.probabilities.items())[:DRAWN], reasons(answer)
    name_left = left + 2 * side + 30
    bar_left = name_left + 10 + max(font(14).getlength(name) for name, _ in shown)
    width = max(bar_left + across + 50, *(left + font(14).getlength(reason) for reason in why)) + left
    picture = Image.new("RGB", (round(width), 70 + max(side, line * len(shown)) + 60), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((left, 10), answer.label, INK, font(20))
    show(picture, left, 44, side, prepared.audio[0], prepared.image)
    for missing, x in ((Situation.NOISY_IMAGE, left), (Situation.NOISY_AUDIO, left + side + 6)):
        if prepared.lacking & missing:
            draw.rectangle((x, 44, x + side - 1, 43 + side), FAINT)
            draw.text((x + side / 2, 44 + side / 2), "missing", INK, font(16), anchor="mm")
    for i, (name, p) in enumerate(shown):
        y = 44 + line * i
        draw.text((name_left, y), name, INK, font(14))
        draw.rectangle((bar_left, y + 2, bar_left + across, y + 16), FAINT)
        draw.rectangle((bar_left, y + 2, bar_left + across * p, y + 16), COLOURS[1])
        draw.text((bar_left + across + 10, y), f"{p:.3f}", INK, font(14))
    for i, reason in enumerate(why):
        draw.text((left, picture.height - 56 + 22 * i), reason, INK, font(14))
    return as_png(picture)


def ask_many(folder, device, pairs, out, windows):
    """Answer every pair of the CSV file `pairs` into the new CSV file `out`, which has its columns and then ours.

    A pair that can't be answered has the reason in its column `error`. Neither file is ever in memory as a whole.
    """
    refuse_existing(out)
    columns, total = survey(pairs)
    model = Predictor(folder, device, windows)
    classes = model.run.classes
    ours = ["answer", "probability", "situation", *(f"p_{name}" for name in classes), "error"]
    for column in ours:
        if column in columns:
            raise InputError(f"{pairs}: column {column!r}: {out} is to have one of that name; expected another: rename it")
    rows, ahead = itertools.tee(rows_of(pairs))
    files = ([pairs.parent / cells[column] if cells[column] else None for column in ("audio", "image")] for cells in ahead)
    failed, start = 0, time.monotonic()
    said = start
    with new_file(out) as file:
        writer = csv.DictWriter(file, [*columns, *ours], lineterminator="\n")
        writer.writeheader()
        for done, (cells, answer) in enumerate(zip(rows, model.answers(files)), start=1):
            writer.writerow(cells | cells_of(answer))
            failed += not isinstance(answer, Answer)
            now = time.monotonic()
            if now - said > EVERY:
                said, rate = now, done / (now - start)
                logger.info("%d of %d pairs   %.0f/s   left %s", done, total, rate, minutes((total - done) / rate))
    logger.info("wrote %s: %d pairs, %s", out, total, f"{failed} failed, see their column error" if failed else "none failed")


def cells_of(answer):
    """An Answer, or the InputError that says why there is none, as cells. Nine digits hold a float32 to the bit."""
    if isinstance(answer, InputError):
        return {"error": str(answer)}
    return {"answer": answer.label, "probability": f"{answer.probabilities[answer.label]:.9g}",
            "situation": answer.situation.label, **{f"p_{name}": f"{p:.9g}" for name, p in answer.probabilities.items()}}


def survey(path):
    """Read a CSV file of pairs once, so that what is wrong with it is found before any work. returns columns, count"""
    columns, total = None, 0
    for cells in rows_of(path):
        columns, total = list(cells), total + 1
    if not total:
        raise InputError(f"{path}: no rows; expected pairs below the line  audio,image")
    return columns, total


def rows_of(path):
    """Yield {column: cell} for each row of a CSV file of pairs, with columns audio and image and any others."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for column in ("audio", "image"):
                if column not in columns:
                    raise InputError(f"{path}: no column {column!r}; expected audio and image, whose cells can be empty")
            for column in columns:
                if columns.count(column) > 1:
                    raise InputError(f"{path}: two columns of one name, {column!r}; expected different ones")
            for cells in reader:
                if None in cells or None in cells.values():
                    raise InputError(f"{path}:{reader.line_num}: expected {len(columns)} cells, as the first line has")
                yield cells
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected a CSV file of pairs") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8 text") from error
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}; expected comma-separated text") from error
