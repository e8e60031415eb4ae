"""The errors that a user can cause, and what every command has around its work: flags, one line an error, an exit status."""
import argparse
import difflib
import logging
import os
import runpy
import signal
import sys
import threading
from contextlib import contextmanager, suppress

LONGEST, LISTED = 60, 10          # characters of a value, and words to choose from, that an error shows


class InputError(ValueError):
    """Something a user gave can't be used: one line that names it, its value, what was expected and the mend."""


class NonFiniteLoss(RuntimeError):
    """The training loss became infinite or not a number."""


class Stopped(KeyboardInterrupt):
    """The system asks the process to end. number: of the signal that says so"""

    def __init__(self, number):
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def run_script(path):
    """Execute a script once more as a module of another name, and its main() as a command; end with that.

    A script calls this above its own imports: torch takes a second to import, and a Ctrl-C meanwhile ends in one line too.
    """
    run(lambda: runpy.run_path(path)["main"]())
    sys.exit()


def run(main):
    """Run `main()` as a command: log lines go to standard output, an error to standard error in one line.

    Exit status 2: unusable input, or the system refuses something; 1: the loss became non-finite; 130: interrupted; 128 and
    the signal's number: ended by the system, or by the reader of what is printed.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")            # None where it was closed:  python train.py >&-
    sys.stdout.reconfigure(errors="backslashreplace")           # no terminal is too old for a class name, or a ±
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Lines(sys.stdout)])
    try:
        with signals_raise():
            main()
            sys.stdout.flush()
    except InputError as error:
        fail(error, status=2)
    except NonFiniteLoss as error:
        fail(error, status=1)
    except Stopped as stop:
        fail(stop, status=128 + stop.number)
    except KeyboardInterrupt as interruption:
        fail(str(interruption) or "interrupted", status=130)
    except BrokenPipeError:                                     # the reader has left:  python train.py --settings | head
        finish_output()
        sys.exit(141)
    except OSError as error:                                    # one without a name: what is written goes through files.py
        fail(f"{error.filename or 'standard output'}: {error.strerror or error}", status=2)


class Lines(logging.StreamHandler):
    """A line that can't be written ends the command, as a print would, rather than be lost."""

    def handleError(self, record):
        raise


@contextmanager
def signals_raise():
    """Let SIGTERM and SIGHUP raise Stopped meanwhile, so that what is half-written is removed; those ignored stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield                                                   # no other may set this
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]

    def stop(number, frame):
        for other in numbers:                                   # the next one must not disturb the tidying up
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def finish_output():
    """Print what is left to print, or else give it up: Python would try again in the end, and complain in lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error, status):
    finish_output()
    with suppress(OSError):                                     # a terminal that was closed takes no line
        print("error: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error)), file=sys.stderr)
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors: one line, which names the flag and, where it can, the right word."""

    def __init__(self, description, **keywords):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def parse_args(self, args=None, namespace=None):
        options, unknown = self.parse_known_args(args, namespace)
        for word in unknown:
            flag, flags = word.split("=")[0], [part.strip("[]") for part in self.format_usage().split()]
            raise InputError(f"{flag}: no such flag; {nearest(flag, flags, 'say --help for those that there are')}"
                             if flag.startswith("-") else f"{word}: one word too many; say --help for what is expected")
        return options

    def _check_value(self, action, value):                      # of ArgumentParser: raises for a word that is no choice
        if action.choices is not None and value not in action.choices:
            flag = " ".join(action.option_strings or [action.dest])
            raise InputError(f"{flag} {value}: no such choice; {nearest(value, action.choices)}")

    def error(self, message):
        missing = message.removeprefix("the following arguments are required: ")
        raise InputError(f"{missing}: not given; say --help for what is expected" if missing != message else
                         message.removeprefix("argument ").replace("invalid float value:", "expected a number, not"))


def whole_number(least, most=None):
    """The `type` of a flag that takes whole numbers, `least` or more, and `most` or less"""
    def parsed(text):
        with suppress(ValueError):
            if least <= int(text) and (most is None or int(text) <= most):
                return int(text)
        bound = f"{least} or more" if most is None else f"{least} to {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number, {bound}, not {text!r}")
    return parsed


def nearest(word, words, otherwise=None):
    """How to mend an unknown word: the nearest valid one, or else what `otherwise` says, or those that there are."""
    words = list(words)
    close = difflib.get_close_matches(str(word)[:LONGEST], words[:1000], n=1)
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return f"did you mean {close[0]}?" if close else otherwise or f"expected one of {', '.join(words[:LISTED])}{more}"


def counted(number, noun, plural=None):
    """1 sample, 2 samples"""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listing(title, remarks):
    """A part of a --help text: {choice: what it means}, a line each."""
    return "\n".join([f"{title}:", *(f"  {name:<20} {remark}" for name, remark in remarks.items())])
