"""What a user can cause: errors of one line, and the exit status that a command ends with."""
import difflib
import logging
import sys
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """A user's input can't be used: one line with its name, its value, what to expect, the mend."""


class NonFiniteLoss(RuntimeError):
    """The training loss became infinite or not a number."""


def run(main: Callable[[], None]) -> None:
    """Run a command's `main()` with its log on standard output; turn errors into one line.

    Exit status 2: unusable input, or the system refuses something; 1: the loss became non-finite;
    130: Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)      # its remarks name no file
    try:
        main()
    except (InputError, OSError) as error:
        fail(error, status=2)
    except NonFiniteLoss as error:
        fail(error, status=1)
    except KeyboardInterrupt as interruption:
        fail(str(interruption) or "interrupted", status=130)


def fail(error: Exception | str, status: int) -> None:
    """Print the error on one line, whatever control characters stand in a name, and exit."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    print(f"error: {line}", file=sys.stderr)
    sys.exit(status)


def nearest(word: object, words: Iterable[str]) -> str:
    """Say how to mend an unknown word: the nearest valid one, or the first ten."""
    words = list(words)
    if close := difflib.get_close_matches(str(word), words, n=1):
        return f"did you mean {close[0]}?"
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    return f"expected one of {', '.join(words[:10])}{more}"
