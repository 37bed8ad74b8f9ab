"""Live input: what a user says and shows, as rows that can be prefilled while it is still coming in.

    microphone --LiveAudio---> blocks of 2 s  --+
                                                +--> one segment, growing --layout.Walk--> ids, positions, spans
    camera ----LiveFrames--> grids of 1 s     --+

    time      |<------- 2 s ------->|<------- 2 s ------->|
    rows      [bos][V0 V1][A block 0 ][V2 V3][A block 1 : so far]  ...        | eos at the end only
               \\________ final ________________/\\_ may still grow _/

The law: pushed in any cuts, the rows at the end are those of ``build_prompt`` for the message with the same Audio or
Video; and rows once given stay, but for the features of blocks that grow or that a louder moment changes, and where
another stream joins. An engine prefills ``laid()``, and later rolls its cache back to ``rows.unchanged(before, now)``.

Axes: T rows (tokens), M mel bins, F mel frames, N patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from descant.config import InputsConfig, MediaIds
from descant.errors import MediaError, SessionError
from descant.inputs.layout import AudioSeg, AudioVideoSeg, Segment, VideoSeg, Walk
from descant.inputs.live_sight import LiveFrames
from descant.inputs.live_sound import BLOCK, Block, LiveAudio
from descant.inputs.rows import Content, Rows, Unit, dealt, digest
from descant.inputs.video import seconds_per_grid
from descant.types import Budget, PixelGrid


@dataclass(frozen=True)
class Span:
    """The rows (n,) int64, ascending, that one block of sound or one temporal grid fills with its encoder's output.

    In rows of one version the features are the same; a version may get more rows. final: only a louder moment of sound
    can change the features; a block that grows is not final.
    """

    kind: Literal["audio", "video"]
    index: int
    version: int
    rows: Tensor
    final: bool


@dataclass(frozen=True)
class LiveRows:
    """The rows of a live medium so far: ids (T,) int64, positions (3, T) int64, spans in order of their first rows.

    base: the first free position after the medium once it is finished, None before.
    """

    ids: Tensor
    positions: Tensor
    spans: tuple[Span, ...]
    base: int | None

    @property
    def final(self) -> int:
        """How many leading rows only a louder moment can change."""
        return min((int(span.rows[0]) for span in self.spans if not span.final), default=len(self.ids))


class LiveMedia:
    """The live medium of one turn: sound, pictures, or pictures with their sound on one clock.

    Nothing is laid out before each expected stream has shown itself: its first rows tell which kind of segment it is.
    When a stream never comes, the turn ends as that of the other alone; when none does, without rows. A stream that was
    not expected may join; what was laid out without it is laid out anew.
    """

    def __init__(
        self,
        inputs: InputsConfig,
        ids: MediaIds,
        *,
        sound: bool = True,
        sight: bool = False,
        base: int = 0,
        block: int = BLOCK,
        budget: Budget | None = None,
    ):
        """sound, sight: which streams to expect. base: the first free position (``Walk.base`` of what stands before).

        block: mel frames that the encoder reads together. The clock of frames starts with the sound; where none is
        expected, with the first frame.
        """
        if not (sound or sight):
            raise SessionError("live input of neither sound nor pictures was asked for. Expect at least one.")
        self._inputs = inputs
        self._ids = ids
        self._base = base
        self._block = block
        self._budget = budget
        self._filled: dict[tuple[str, int], tuple[int, Content | None, bytes]] = {}  # version, content, its digest
        self._sound = LiveAudio(inputs, block=block, budget=budget) if sound else None
        self._sight = LiveFrames(inputs, start=0.0 if sound else None, budget=budget) if sight else None
        self._finished = False
        self._closed: str | None = None  # why nothing more may come

    def push_audio(self, pcm: bytes | npt.NDArray[np.generic], rate: int) -> None:
        """LiveAudio.push. MediaError "audio.late" where sound joins pictures whose clock began long before it."""
        self._check_open("sound was pushed")
        sound = self._sound or LiveAudio(self._inputs, block=self._block, budget=self._budget)
        if self._sound is None and self._sight is not None and self._sight.start > 1 / self._inputs.fps:
            raise MediaError(
                "audio.late",
                f"sound joins pictures whose clock began at {self._sight.start:g} s, and nobody can say when the sound "
                "began. Push the sound first, or count the frames' times from the beginning of the turn.",
            )
        sound.push(pcm, rate)
        self._sound = sound

    def push_frame(self, image: object, at: float) -> None:
        """LiveFrames.push."""
        self._check_open("a frame was pushed")
        sight = self._sight or LiveFrames(self._inputs, start=0.0, budget=self._budget)
        sight.push(image, at)
        self._sight = sight

    def block(self, index: int) -> Block:
        """The block of sound behind a span, as it is now."""
        return self._blocks()[index]

    def grid(self, index: int) -> PixelGrid:
        """The temporal grid (1, h, w) behind a span."""
        if self._sight is None:
            raise SessionError(f"grid {index} of live input without pictures was asked for. Read the spans of rows().")
        return self._sight.grid(index)

    def rows(self) -> LiveRows:
        """The rows so far. Of what is given, only features change; see ``LiveRows.final`` and ``unchanged``."""
        blocks = self._blocks()
        segment = self._segment(sum(block.tokens for block in blocks))
        if segment is None:
            base = self._base if self._finished else None
            return LiveRows(torch.empty(0, dtype=torch.int64), torch.empty(3, 0, dtype=torch.int64), (), base)
        walk = Walk(self._ids, self._inputs.merge_size, self._base)
        ids, positions = walk.add(segment, growing=not self._finished)
        spans = sorted([*self._sounds(ids, blocks), *self._sights(ids)], key=lambda span: int(span.rows[0]))
        return LiveRows(ids, positions, tuple(spans), walk.base if self._finished else None)

    def laid(self) -> Rows:
        """The rows so far with what fills them, as the engine reads them."""
        rows, units = self.rows(), list[Unit]()
        for span in rows.spans:
            version, content, told = self._filled.get((span.kind, span.index), (-1, None, b""))
            if content is None or version != span.version:
                content = self.block(span.index).mel if span.kind == "audio" else self.grid(span.index)
                told = digest(content)
                self._filled[span.kind, span.index] = span.version, content, told
            units.append(Unit(span.rows, content, told))
        return Rows(rows.ids, rows.positions, 0 if rows.base is None else rows.base - self._base, tuple(units))

    def finish(self) -> LiveRows:
        """End all streams. Every row is there and final.

        Raises MediaError when the sound is too short to be heard, and then more may still be pushed; SessionError after
        the end.
        """
        self._check_open("an end was asked for")
        if self._sound is not None and self._sound.seconds:
            self._sound.finish()  # first, for it may be refused
        if self._sight is not None:
            self._sight.finish()
        self._finished, self._closed = True, "the end"
        return self.rows()

    def media(self) -> tuple[tuple[Tensor, ...], tuple[PixelGrid, ...]]:
        """The features so far, as a Prompt holds them: audio (M, F) and videos."""
        mels = [block.mel for block in self._blocks()]
        grids = self._sight.whole() if self._sight is not None and self._sight.shape[0] else None
        return (torch.cat(mels, dim=1),) if mels else (), () if grids is None else (grids,)

    def cancel(self) -> None:
        """Drop everything. Harmless when repeated."""
        self._closed = "the turn was cancelled"
        self._filled.clear()
        for stream in (self._sound, self._sight):
            if stream is not None:
                stream.cancel()

    # ---------------------------------------------------------------- inside

    def _check_open(self, what: str) -> None:
        if self._closed is not None:
            raise SessionError(f"{what} after {self._closed}; nothing more may come. Open a new turn.")

    def _blocks(self) -> list[Block]:
        return self._sound.blocks() if self._sound is not None else []

    def _segment(self, tokens: int) -> Segment | None:
        """The one segment of what came so far; None while its kind is open, or when nothing came."""
        grids, height, width = self._sight.shape if self._sight is not None else (0, 0, 0)
        seconds = seconds_per_grid(self._inputs)
        if not self._finished and ((self._sound is not None and not tokens) or (self._sight is not None and not grids)):
            return None
        if grids and tokens:
            return AudioVideoSeg(grids, height, width, seconds, tokens)
        if grids:
            return VideoSeg(grids, height, width, seconds)
        return AudioSeg(tokens) if tokens else None

    def _sounds(self, ids: Tensor, blocks: list[Block]) -> list[Span]:
        rows = torch.nonzero(ids == self._ids.audio)[:, 0]
        parts = dealt(rows, [block.tokens for block in blocks])
        return [
            Span("audio", block.index, block.version, part, block.final)
            for block, part in zip(blocks, parts)
            if len(part)
        ]

    def _sights(self, ids: Tensor) -> list[Span]:
        grids, height, width = self._sight.shape if self._sight is not None else (0, 0, 0)
        rows = torch.nonzero(ids == self._ids.video)[:, 0]
        share = (height // self._inputs.merge_size) * (width // self._inputs.merge_size)
        parts = dealt(rows, [share] * grids)
        return [Span("video", index, 0, part, True) for index, part in enumerate(parts) if len(part)]
