"""The line that a person types in a talk: editing, completion, and a history that is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from descant.cli.chat_commands import COMMANDS
from descant.errors import OptionError

if TYPE_CHECKING:
    from descant.cli.shell import ChatShell

LEAVE = ("/quit", "/exit", "quit", "exit")
MAX_LINE_CHARACTERS = 1 << 20
HISTORY_LINES = 1000


def read_line(begun: str = "") -> str | None:
    """One line from the person, or from what is piped; None at the end of input or at /quit. begun: its beginning,
    which was typed already."""
    if sys.stdin is None:
        return None
    if sys.stdin.isatty():
        try:
            with beginning(begun):
                line = input("you> ")
        except EOFError:
            return None
    else:
        line = sys.stdin.readline(MAX_LINE_CHARACTERS)
        if not line:
            return None
        if len(line) == MAX_LINE_CHARACTERS:
            raise OptionError(f"a line of over {MAX_LINE_CHARACTERS:,} characters was piped; send shorter ones")
    return None if line.strip() in LEAVE else line


@contextmanager
def beginning(text: str) -> Iterator[None]:
    """The next line that is edited begins with a text."""
    if not text:
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        yield
    finally:
        readline.set_startup_hook()


@contextmanager
def line_editor(shell: ChatShell) -> Iterator[None]:
    """Line editing, completion of commands, files and voices, and a history that is kept from one talk to the next."""
    try:
        import readline
    except ImportError:  # not on every platform, and only a comfort
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "descant"
    history = state / "chat_history"
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    readline.set_completer(lambda _, n: next(islice(completions(shell, readline.get_line_buffer()), n, None), None))
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with suppress(OSError):
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(history)


def completions(shell: ChatShell, line: str) -> Iterator[str]:
    """The words that the last one of a line may become: commands, voices, files."""
    word, space, rest = line.partition(" ")
    if not space:
        yield from (f"{name} " for name in COMMANDS if name.startswith(word))
    elif word == "/voice":
        yield from (name for name in shell.omni.voices if name.startswith(rest))
    elif word in ("/image", "/audio", "/video", "/save"):
        path = Path(rest or ".").expanduser()
        folder, begin = (path, "") if rest.endswith("/") or not rest else (path.parent, path.name)
        with suppress(OSError):
            for found in sorted(folder.iterdir()):
                if found.name.startswith(begin):
                    yield f"{found}/" if found.is_dir() else str(found)
