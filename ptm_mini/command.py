"""What every command does around its work: log lines to standard output, errors in one line, an exit status."""
import logging
import signal
import sys

from ptm_mini.config import InputError, NonFiniteLoss


def run(main):
    """Run `main()` as a command. Exit status 2: unusable input; 1: the loss became non-finite; 130: interrupted."""
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
