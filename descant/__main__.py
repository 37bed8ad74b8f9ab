"""``python -m descant`` is the script ``descant``."""

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and leave with its exit code. An interrupt is one line, also while modules are read."""
    try:
        from descant.cli import main as run

        code = run()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT  # what a shell expects
        if sys.stderr is not None:
            print("\nstopped", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience would only break the end
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process once what is registered for its end is done and all is written.

    The interpreter's own end takes torch apart for half a second, a third of a short command.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # a reader that went away; a stream that was closed
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
