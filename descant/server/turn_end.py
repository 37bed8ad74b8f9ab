"""Semantic turn end: whether somebody who pauses has said what they wanted to say.

    a pause of 0.2 s -> the Thinker writes down what was said -> complete, open or unsure -> how long to wait

What a sentence of speech looks like to the model that hears it is in the transcript: where it ends it in a full stop or
a question mark, it is complete; where its last word wants another one ("and", "the", "of"), it is open. The transcript
is made while the silence is counted, beside everything else. Words of other languages than English are unsure, and then
silence alone tells. Measured by ``benchmarks/turn_end.py``.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from descant.errors import DescantError
from descant.types import TRANSCRIBE, Audio, Finished, user

if TYPE_CHECKING:
    from descant.omni import Omni

Eagerness = Literal["low", "medium", "high", "auto"]
Completeness = Literal["complete", "unsure", "open"]
# eagerness -> seconds of silence that end a turn whose words are complete, unsure, open
WAIT_S: dict[Eagerness, tuple[float, float, float]] = {
    "high": (0.3, 0.6, 2.0),
    "medium": (0.5, 1.0, 4.0),
    "auto": (0.5, 1.0, 4.0),
    "low": (0.8, 2.0, 8.0),
}
FULL_STOPS = (".", "?", "!", "…", "。", "？", "！")
# words that a sentence seldom ends in: articles, determiners, prepositions, conjunctions, auxiliaries, fillers
OPEN_WORDS = frozenset(
    "a an the my your his her its our their this that these those every each some any no which whose "
    "of in on at by for from with to into onto over under between about after before than as like "
    "and or but because so if when while where what who how why then plus minus times "
    "is are was were am be been do does did have has had can could will would shall should may might must "
    "i you he she we they it um uh er hmm well".split()
) - {"what", "who", "how", "why", "where", "it", "you", "then", "so", "that", "this", "those", "these", "well"}


def completeness(text: str) -> Completeness:
    """Judge a transcript by its end."""
    text = text.strip()
    if text.endswith(FULL_STOPS) and not text.endswith(("...", "…")):
        return "complete"
    words = re.findall(r"[\w']+", text.lower())
    if not words or text.endswith((",", "...", "…", "-", ":")) or words[-1] in OPEN_WORDS:
        return "open"
    return "unsure"


class TurnEnd:
    """The judge of the pauses of one microphone. over: the turn is."""

    def __init__(self, eagerness: Eagerness):
        self.waits = dict(zip(("complete", "unsure", "open"), WAIT_S[eagerness], strict=True))
        self.longest_s = self.waits["open"]
        self.over = False
        self._wait_s = self.longest_s
        self._task: asyncio.Task[None] | None = None

    def begin(self, omni: Omni, samples: npt.NDArray[np.float32], rate: int) -> None:
        """A pause has begun after samples (W,): ask the model what they say."""
        self.reset()
        self._task = asyncio.ensure_future(self._judge(omni, Audio(samples, rate)))

    def paused(self, quiet_s: float) -> None:
        """So many seconds of silence so far; 0: somebody speaks."""
        if quiet_s == 0 and self._task is not None:
            self.reset()
        self.over = quiet_s >= self._wait_s

    def reset(self) -> None:
        """Forget the pause."""
        if self._task is not None:
            self._task.cancel()
        self._task = None
        self._wait_s = self.longest_s
        self.over = False

    async def _judge(self, omni: Omni, sound: Audio) -> None:
        said: Completeness = "unsure"
        try:
            async for event in await omni.achat([user(sound, TRANSCRIBE)], speech=False, max_tokens=256):
                if isinstance(event, Finished):
                    said = completeness(event.text)
        except DescantError:
            pass  # busy, or too short to be heard: silence alone tells
        self._wait_s = self.waits[said]
