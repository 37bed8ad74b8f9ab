"""One turn of a live session: what is typed, attached, said and shown, as tokens that grow.

    added before the sound | what comes from microphone and camera, one medium | added since, and the end

The law: the tokens of a finished turn are those of a user message with these parts in this order. What is added while
sound or pictures are coming in stands after them, so that a sentence stays in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from descant.errors import OptionError, SessionError
from descant.inputs.live import LiveMedia
from descant.inputs.messages import check_part
from descant.inputs.prompt import PromptBuilder, check_text
from descant.inputs.template import CLOSING, Piece, Special, default_system, merged, opening, system_turn, written
from descant.tokens import NO_TOKENS, PromptTokens, concatenate
from descant.tools import Tool, ToolCall
from descant.types import Budget, Part, Role


@dataclass(frozen=True)
class TurnFormatter:
    """Writes the turns of a conversation that is laid out piece by piece."""

    builder: PromptBuilder

    def system(self, text: str | None, *, speech: bool, tools: Sequence[Tool] = ()) -> PromptTokens:
        """The system turn before a conversation; text None: the model's own default, which may be none. tools: that
        the model may call."""
        text = default_system(self.builder.inputs, speech=speech) if text is None else text
        if text is None and not tools:
            return NO_TOKENS
        return self.builder.write(merged(system_turn([text or ""], tools)))

    def opening(self) -> PromptTokens:
        """The tokens before the assistant's words."""
        return self.builder.write(opening("assistant"))

    def closing(self) -> PromptTokens:
        """The tokens between the assistant's words when the next turn begins."""
        return self.builder.write(CLOSING)

    def message(self, role: Role, parts: Sequence[Part]) -> PromptTokens:
        """A whole message, whose media are read here."""
        pieces = written([check_part(part) for part in parts])
        return self.builder.write(merged([*opening(role), *pieces, *CLOSING]))

    def turn(self, budget: Budget | None = None) -> LiveTurn:
        """A user's turn, still empty. budget: what its media may cost (None: as the builder says)."""
        return LiveTurn(self.builder.with_budget(budget))


class TurnBuilder:
    """Pieces in order. Media are read once, when they are added, and then are tokens."""

    def __init__(self, builder: PromptBuilder):
        self._builder = builder
        self._pieces: list[str | Special | PromptTokens] = []
        self.size = 0  # characters of text and tokens of media
        self.added = False  # a part of the user's

    def add(self, pieces: Sequence[Piece]) -> TurnBuilder:
        """All of them or, when one is refused, none."""
        check_text(pieces, self._builder.budget, beside=self.size)
        added = [p if isinstance(p, str | Special) else self._builder.piece(p) for p in pieces]
        self._pieces += added
        self.size += sum(1 if isinstance(piece, Special) else len(piece) for piece in added)
        return self

    def join(self, other: TurnBuilder) -> None:
        """Append what was added to another."""
        self._pieces += other._pieces
        self.size += other.size
        self.added = self.added or other.added

    def tokens(self, ending: Sequence[str | Special] = ()) -> PromptTokens:
        """The tokens of what was added, and ``ending`` behind it."""
        pieces: list[str | Special | PromptTokens] = [*self._pieces, *ending]
        return concatenate([p if isinstance(p, PromptTokens) else self._builder.piece(p) for p in merged(pieces)])


class LiveTurn:
    """A user's turn while it is being made. One thread at a time."""

    def __init__(self, builder: PromptBuilder):
        self._builder = builder
        self._before = TurnBuilder(builder).add(opening("user"))
        self._after = TurnBuilder(builder)
        self._live: LiveMedia | None = None
        self._head: PromptTokens | None = None  # of ``_before``, while nothing is added to it
        self.empty = True

    @property
    def size(self) -> int:
        """Characters and tokens of what was added; what is said and shown is not counted."""
        return self._before.size + self._after.size

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
        if any(isinstance(part, ToolCall) for part in parts):
            raise OptionError("a ToolCall is what the model says; add a ToolResult to the turn that answers it")
        builder = self._before if self._live is None else self._after
        builder.add(written([check_part(part) for part in parts], behind=not self.empty))
        builder.added = builder.added or bool(parts)
        self._head = None
        self.empty = self.empty and not parts

    def tokens(self, *, settled: bool = False) -> PromptTokens:
        """All that can be read by now; see ``LiveMedia.tokens``. Later tokens begin with these, but for what
        ``unchanged`` tells."""
        if self._head is None:
            self._head = self._before.tokens()
        return self._head if self._live is None else concatenate([self._head, self._live.tokens(settled=settled)])

    def finish(self, *, generate: bool = True) -> PromptTokens:
        """The whole turn, and the opening of the assistant's unless ``generate`` is False. Refused (and more may come)
        as LiveMedia.finish."""
        if self.empty:
            raise SessionError("there is nothing to answer: push sound or frames, or add a message, before respond()")
        ending = [*CLOSING, *(opening("assistant") if generate else [])]
        if self._live is None:
            return self._before.tokens(ending)
        return concatenate([self._before.tokens(), self._live.finish(), self._after.tokens(ending)])

    @property
    def forgotten_s(self) -> float:
        """Seconds of what was said and shown that the limit of a turn left out."""
        return 0.0 if self._live is None else self._live.forgotten_s

    def clear(self) -> None:
        """Drop what was said and shown, as if it had never been; what was added stays."""
        self.cancel()
        self._live = None
        self._before.join(self._after)
        self._after = TurnBuilder(self._builder)
        self._head = None
        self.empty = not self._before.added

    def cancel(self) -> None:
        """Drop what was pushed."""
        if self._live is not None:
            self._live.cancel()

    def _open(self, *, sound: bool) -> LiveMedia:
        builder = self._builder
        block = builder.cfg.audio.block_frames
        return LiveMedia(
            builder.inputs, builder.cfg.ids, sound=sound, sight=not sound, block=block, budget=builder.budget
        )
