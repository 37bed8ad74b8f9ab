"""``python -m descant`` is the script ``descant``."""

import sys

from descant.cli import main as run


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
