"""What a user can cause: errors of one line, and the exit status that a command ends with."""
import argparse
import difflib
import logging
import sys
from collections.abc import Callable, Iterable


class InputError(Exception):
    """A user's input can't be used: one line with its name, its value, what to expect, the mend."""


class NonFiniteLoss(RuntimeError):
    """A loss became infinite or not a number."""


def new_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Make a parser whose help has the lines of both texts as they are."""
    return argparse.ArgumentParser(description=description, epilog=epilog,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def run(main: Callable[[], None]) -> None:
    """Run a command's `main()` with its log on standard output; end with one line for an error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)      # its remarks name no file
    try:
        main()
        return
    except NonFiniteLoss as error:
        message, status = str(error), 1
    except (InputError, OSError) as error:            # OSError: the system refuses something
        message, status = str(error), 2
    except KeyboardInterrupt as error:
        message, status = str(error) or "interrupted", 130
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)      # as in names
    print(f"error: {line}", file=sys.stderr)
    sys.exit(status)


def nearest(word: object, words: Iterable[str]) -> str:
    """Say how to mend an unknown word: the nearest valid one, or the first ten."""
    words = list(words)
    if close := difflib.get_close_matches(str(word), words, n=1):
        return f"did you mean {close[0]}?"
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    return f"expected one of {', '.join(words[:10])}{more}"
