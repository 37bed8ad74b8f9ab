"""``python -m descant`` is the script ``descant``."""

import signal
import sys


def main() -> None:
    """Run the command line and leave with its exit code. An interrupt is one line, also while modules are read."""
    try:
        from descant.cli import main as run

        code = run()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT  # what a shell expects
        if sys.stderr is not None:
            print("\nstopped", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience would only break the end
    sys.exit(code)


if __name__ == "__main__":
    main()
