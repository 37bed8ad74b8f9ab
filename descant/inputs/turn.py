"""One turn of a live session: what is typed, attached, said and shown, as rows that grow.

    added before the sound | what comes from microphone and camera, one medium | added since, and the end

The law: the rows of a finished turn are those of a user message with these parts in this order. What is added while
sound or pictures are coming in stands after them, so that a sentence stays in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from descant.config import InputsConfig, ThinkerConfig
from descant.errors import SessionError
from descant.inputs.layout import Walk
from descant.inputs.live import LiveMedia
from descant.inputs.messages import check_part
from descant.inputs.prompt import Media
from descant.inputs.rows import NOTHING, Rows, joined, rows_of, text_rows
from descant.inputs.template import CLOSING, Medium, Piece, Special, merged, opening, piece_of
from descant.inputs.tokenizer import Tokenizer
from descant.types import Budget, Part


class Scribe:
    """How the turns of one model are written: its tokenizer, its input shapes and its ids."""

    def __init__(self, tokenizer: Tokenizer, inputs: InputsConfig, cfg: ThinkerConfig):
        self.tokenizer, self.inputs, self.cfg = tokenizer, inputs, cfg

    def system(self, text: str | None, *, speech: bool) -> Rows:
        """The system turn before a conversation; text None: the model's own default, which may be none."""
        default = self.inputs.speech_system if speech else self.inputs.default_system
        text = default if text is None else text
        if text is None:
            return NOTHING
        return self.write([*opening("system"), text, *CLOSING])

    def write(self, pieces: Sequence[Piece]) -> Rows:
        """Pieces of the template as rows from position 0."""
        return Passage(self).add(pieces).rows()

    def closing(self) -> Rows:
        """What follows the assistant's words when the next turn begins."""
        return self.write(CLOSING)


class Passage:
    """Pieces in order. Media are read once, when they are added, and then are rows."""

    def __init__(self, scribe: Scribe, budget: Budget | None = None):
        self._scribe, self._budget = scribe, budget or Budget()
        self._pieces: list[str | Special | Rows] = []

    def add(self, pieces: Sequence[Piece]) -> Passage:
        """All of them or, when one is refused, none."""
        self._pieces += [piece if isinstance(piece, str | Special) else self._medium(piece) for piece in pieces]
        return self

    def rows(self, ending: Sequence[str | Special] = ()) -> Rows:
        """What was added, and ``ending`` behind it."""
        chain, scribe = list[Rows](), self._scribe
        pieces: list[str | Special | Rows] = [*self._pieces, *ending]
        for piece in merged(pieces):
            if isinstance(piece, Special):
                chain.append(text_rows([scribe.tokenizer.special(piece.name)]))
            else:
                chain.append(text_rows(scribe.tokenizer.encode(piece)) if isinstance(piece, str) else piece)
        return joined(chain)

    def _medium(self, piece: Medium) -> Rows:
        scribe = self._scribe
        media = Media(scribe.tokenizer, scribe.inputs, self._budget)
        segment = media.segment(piece)
        walk = Walk(scribe.cfg.ids, scribe.inputs.merge_size)
        walk.add(segment)  # where the walk goes on; a sound that outlasts its video ends before the largest position
        return replace(rows_of(media.prompt([segment], scribe.cfg.ids), scribe.cfg), span=walk.base)


class LiveTurn:
    """A user's turn while it is being made. One thread at a time."""

    def __init__(self, scribe: Scribe, budget: Budget | None = None):
        self._scribe, self._budget = scribe, budget
        self._before = Passage(scribe, budget).add(opening("user"))
        self._after = Passage(scribe, budget)
        self._live: LiveMedia | None = None
        self._head: Rows | None = None  # of ``_before``, while nothing is added to it
        self.empty = True

    def push_audio(self, pcm: bytes | npt.NDArray[np.generic], rate: int) -> None:
        """LiveMedia.push_audio. No samples are no sound: they begin nothing."""
        live = self._live or self._open(sound=True)
        live.push_audio(pcm, rate)
        if len(pcm):
            self._live, self.empty = live, False

    def push_frame(self, image: object, at: float) -> None:
        """LiveMedia.push_frame. at: seconds since the turn began, which is the first sound or frame of it."""
        live = self._live or self._open(sound=False)
        live.push_frame(image, at)
        self._live, self.empty = live, False

    def add(self, parts: Sequence[Part]) -> None:
        """Typed text and media, each read at once; what is refused leaves the turn as it was."""
        (self._before if self._live is None else self._after).add([piece_of(check_part(part)) for part in parts])
        self._head = None
        self.empty = self.empty and not parts

    def rows(self) -> Rows:
        """All that can be read by now. Later rows begin with these, but for what ``unchanged`` tells."""
        if self._head is None:
            self._head = self._before.rows()
        return self._head if self._live is None else joined([self._head, self._live.laid()])

    @property
    def growing(self) -> int:
        """How many rows at the end of ``rows()`` are of a block that still grows: they will be read again."""
        if self._live is None:
            return 0
        rows = self._live.rows()
        return len(rows.ids) - rows.final

    def finish(self) -> Rows:
        """The whole turn, and the opening of the assistant's. Refused (and more may come) as LiveMedia.finish."""
        if self.empty:
            raise SessionError("there is nothing to answer: push sound or frames, or add a message, before respond()")
        ending = [*CLOSING, *opening("assistant")]
        if self._live is None:
            return self._before.rows(ending)
        self._live.finish()
        return joined([self._before.rows(), self._live.laid(), self._after.rows(ending)])

    def cancel(self) -> None:
        """Drop what was pushed."""
        if self._live is not None:
            self._live.cancel()

    def _open(self, *, sound: bool) -> LiveMedia:
        scribe = self._scribe
        block = 2 * scribe.cfg.audio.n_window
        return LiveMedia(scribe.inputs, scribe.cfg.ids, sound=sound, sight=not sound, block=block, budget=self._budget)
