"""The errors that a user can cause, and what every command has around its work: help, one line an error, an exit status."""
import logging
import signal
import sys


class InputError(ValueError):
    """Something a user gave can't be used: one line that names it, its value, what was expected and the mend."""


class NonFiniteLoss(RuntimeError):
    """The training loss became infinite or not a number."""


def run(main):
    """Run `main()` as a command: log lines go to standard output, an error to standard error in one line.

    Exit status 2: unusable input; 1: the loss became non-finite; 130: interrupted.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if hasattr(signal, "SIGPIPE"):                      # end quietly under  | head , where the system knows that signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        main()
    except InputError as error:
        fail(error, status=2)
    except NonFiniteLoss as error:
        fail(error, status=1)
    except KeyboardInterrupt:
        fail("interrupted", status=130)


def fail(error, status):
    print(f"error: {error}", file=sys.stderr)
    sys.exit(status)


def listing(title, remarks):
    """A part of a --help text: {choice: what it means}, a line each."""
    return "\n".join([f"{title}:", *(f"  {name:<20} {remark}" for name, remark in remarks.items())])
