"""Keys of a terminal as they are pressed, while no line is being edited."""

from __future__ import annotations

import os
import select
import sys
from types import TracebackType

try:
    import termios
    import tty
except ImportError:  # Windows
    HAS_KEYS = False
else:
    HAS_KEYS = True

ENTER = ("\r", "\n")
ESCAPE = "\x1b"
BACKSPACE = ("\x7f", "\b")
KEYS_BYTES_MOST = 1024  # that are read at once


class Keyboard:
    """A context in which keys come one by one and are not shown; Ctrl-C interrupts as ever. Standard input must be a
    terminal of a system with termios (``HAS_KEYS``); elsewhere no key is ever pressed."""

    def __enter__(self) -> Keyboard:
        self._fd = sys.stdin.fileno() if HAS_KEYS else -1
        if HAS_KEYS:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSADRAIN)  # what was typed already is not lost
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if HAS_KEYS:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def waits(self, wait_s: float) -> bool:
        """True as soon as something was typed, which is left for whoever reads next."""
        if not HAS_KEYS:
            return False
        return bool(select.select([self._fd], [], [], wait_s)[0])

    def pressed(self, wait_s: float = 0.0) -> str:
        """The keys that were pressed: characters, or one whole escape sequence; "" if there were none. ESCAPE when the
        terminal has gone."""
        if not self.waits(wait_s):
            return ""
        data = os.read(self._fd, KEYS_BYTES_MOST)
        return data.decode(errors="ignore") if data else ESCAPE
