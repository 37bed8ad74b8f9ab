"""The request boundary of the command line: every failure is one line on stderr and exit code 2; Ctrl-C is 130."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from descant.errors import DescantError, readable

WRONG_EXIT = 2
INTERRUPTED_EXIT = 130  # 130 = 128 + SIGINT, what a shell expects


def one_line(error: BaseException) -> str:
    """An error as one line. What descant did not raise on purpose is named by its type, so that it can be reported."""
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    text = " ".join(text.split()).replace("Value error, ", "")
    if isinstance(error, DescantError | typer.TyperException):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the output'}: {error.strerror}. Make room, or name another file"
    return f"{type(error).__name__}: {text} (--debug shows where)"


def fail(error: BaseException, debug: bool) -> int:
    if sys.stderr is not None:  # it was closed
        if debug:
            traceback.print_exception(error)
        print(f"descant: {readable(one_line(error))}", file=sys.stderr)
    return WRONG_EXIT


def prepare_streams() -> None:
    """Have stdout and stderr take any text: what their encoding lacks is replaced, and what is closed swallows it."""
    for name in ("stdout", "stderr"):
        stream = vars(sys)[name]
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the very end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(argv: Sequence[str] | None = None) -> int:
    """The script ``descant``: parse, run one command, return the exit code."""
    from descant.cli.app import app

    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in words  # accepted before and after the command
    prepare_streams()
    command = typer.main.get_command(app)
    try:
        code = command.main([w for w in words if w != "--debug"], prog_name="descant", standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk can still be told
    except KeyboardInterrupt:
        code = INTERRUPTED_EXIT
    except BrokenPipeError:  # whoever read it has gone, and wants no more
        return 1
    except Exception as error:
        return fail(error, debug)
    if code == INTERRUPTED_EXIT:
        print("\nstopped", file=sys.stderr)
    return code if isinstance(code, int) else 0
