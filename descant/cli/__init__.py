"""The command line. Heavy imports happen inside the commands, so that ``descant --help`` answers at once."""

from descant.cli.errors import run as main

__all__ = ["main"]
