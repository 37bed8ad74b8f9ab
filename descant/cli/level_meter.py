"""A line of the terminal that shows how loud the microphone is."""

from __future__ import annotations

import sys
from collections import deque

import numpy as np
import numpy.typing as npt

BARS = "▁▂▃▄▅▆▇█"
QUIETEST_DB = -60.0  # of full scale: the lowest bar
BARS_SHOWN = 24
CLEAR_LINE = "\r\x1b[K"


def bar_of(samples: npt.NDArray[np.float32]) -> str:
    """The bar of samples (W,), by their loudness in decibels."""
    rms = float(np.sqrt(np.square(samples).mean())) if len(samples) else 0.0
    share = 1 - 20 * np.log10(max(rms, 1e-9)) / QUIETEST_DB
    return BARS[min(len(BARS) - 1, max(0, int(share * len(BARS))))]


class LevelMeter:
    """The last loudnesses, the newest at the right, behind a label. It stays on one line, and leaves none behind."""

    def __init__(self, label: str):
        self.label = label
        self._bars: deque[str] = deque(BARS[0] * BARS_SHOWN, BARS_SHOWN)

    def show(self, samples: npt.NDArray[np.float32]) -> None:
        """Add samples (W,), if there are any, and draw."""
        if len(samples):
            self._bars.append(bar_of(samples))
        print(f"{CLEAR_LINE}{''.join(self._bars)} {self.label}", end="", file=sys.stderr, flush=True)

    def hide(self) -> None:
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
