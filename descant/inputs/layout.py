"""Segments -> token ids and TMRoPE positions, in one walk.

A prompt is a list of segments. Each kind of segment knows two things: which ids it contributes, and where its tokens
stand in (time, height, width), counted from the first free position. Nothing is found by searching for placeholders.

    text             t = h = w = 0 1 2 ...                            one id per token
    sound            bos, 0 1 2 ..., eos                              one id per 40 ms
    image            bos, t = 0, h = row, w = column, eos             on the merged grid
    video            bos, t = trunc(grid * seconds * 25), h, w, eos
    video + sound    bos, then in chunks of 2 s: video, sound, video, sound, ..., then eos

      time      |<------- 2 s ------->|<------- 2 s ------->|
      emitted   [V0 V1][A0 ....... A49][V2 V3][A50 ..... A99]         both streams count from the same base

Source: Qwen2.5-Omni technical report (arXiv 2503.20215), section 2.2; equality with transformers is under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest

import torch
from torch import Tensor

from descant.config import MediaIds


@dataclass(frozen=True)
class TextSeg:
    """A run of ids, special ones included."""

    ids: Sequence[int]


@dataclass(frozen=True)
class AudioSeg:
    """A sound of ``tokens`` placeholders (40 ms each)."""

    tokens: int


@dataclass(frozen=True)
class ImageSeg:
    """A picture; grid in patches, before merging: t (1), h, w."""

    t: int
    h: int
    w: int


@dataclass(frozen=True)
class VideoSeg:
    """A silent video; grid in patches; ``seconds`` of one temporal grid = temporal_patch_size / fps."""

    t: int
    h: int
    w: int
    seconds: float


@dataclass(frozen=True)
class AudioVideoSeg:
    """A video interleaved with its sound of ``audio`` tokens; either may be the longer."""

    t: int
    h: int
    w: int
    seconds: float
    audio: int


Segment = TextSeg | AudioSeg | ImageSeg | VideoSeg | AudioVideoSeg

# A piece of the walk: (ids (n,), positions (3, n) counted from 0). Pieces of one step share their base.
_Piece = tuple[Tensor, Tensor]


class Walk:
    """The one walk over segments. ``base``: the first free position.

    Each step starts at one past the largest position of the LAST piece before it, not of all pieces: when sound
    outlasts a video whose frames are many tokens wide, the reference counts on from the sound, and so do we.
    """

    def __init__(self, ids: MediaIds, merge: int, base: int = 0):
        """merge: the spatial merge size (2: four patches make one token)."""
        self._ids = ids
        self._merge = merge
        self.base = base

    def add(self, segment: Segment, *, growing: bool = False) -> tuple[Tensor, Tensor]:
        """Go over one segment: ids (T,) int64 and positions (3, T) int64, axes time, height, width.

        growing: more grids or more sound of this segment may still come. Then only those leading rows are given that
        come first whatever follows, and the walk ends here: ``base`` is of no use after it.
        """
        all_ids, all_positions = [torch.empty(0, dtype=torch.int64)], [torch.empty(3, 0, dtype=torch.int64)]
        for step in _steps(segment, self._ids, self._merge, growing):
            for piece_ids, offsets in step:
                all_ids.append(piece_ids)
                all_positions.append(offsets + self.base)
            last = step[-1][1]
            self.base += int(last.max()) + 1 if last.numel() else 0
        return torch.cat(all_ids), torch.cat(all_positions, dim=1)


def layout(segments: Sequence[Segment], ids: MediaIds, merge: int) -> tuple[Tensor, Tensor]:
    """The walk over all segments from position 0. Returns ids (T,) int64 and positions (3, T) int64."""
    walk = Walk(ids, merge)
    rows = [walk.add(segment) for segment in (TextSeg(()), *segments)]  # the empty one: there may be no other
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows], dim=1)


def next_position(positions: Tensor) -> int:
    """The position of the first generated token: one past the largest of all. positions (3, T)."""
    return int(positions.max()) + 1 if positions.numel() else 0


def _steps(segment: Segment, ids: MediaIds, merge: int, growing: bool) -> list[list[_Piece]]:
    """The steps of one segment; pieces inside a step count from the same base. A growing one has no closing yet."""
    match segment:
        case TextSeg():
            return [[_run(torch.as_tensor(segment.ids, dtype=torch.int64))]]
        case AudioSeg():
            steps = [[_one(ids.audio_start)], [_sound(segment.tokens, ids)], [_one(ids.audio_end)]]
        case ImageSeg():
            times = [grid * ids.position_id_per_seconds for grid in range(segment.t)]  # t is 1 but for odd callers
            picture = (_fill(segment, ids.image, merge), _grid(segment, times, merge))
            steps = [[_one(ids.vision_start)], [picture], [_one(ids.vision_end)]]
        case VideoSeg():
            steps = [[_one(ids.vision_start)], [_frames(segment, ids, merge)], [_one(ids.vision_end)]]
        case AudioVideoSeg():
            opening = [_one(ids.vision_start), _one(ids.audio_start)]  # both on one position
            closing = [_one(ids.audio_end), _one(ids.vision_end)]
            body = _settled(segment, ids, merge) if growing else _interleave(segment, ids, merge)
            steps = [opening, body, closing]
    return steps[:-1] if growing else steps


def _run(ids: Tensor) -> _Piece:
    return ids, torch.arange(len(ids)).expand(3, -1)


def _one(index: int) -> _Piece:
    return _run(torch.tensor([index]))


def _sound(tokens: int, ids: MediaIds) -> _Piece:
    return _run(torch.full((tokens,), ids.audio))


def _frames(segment: VideoSeg | AudioVideoSeg, ids: MediaIds, merge: int) -> _Piece:
    # float32 and truncation, as in the reference: a grid of 1/3 s must not land one id later
    seconds = torch.arange(segment.t) * torch.tensor(segment.seconds, dtype=torch.float32)
    times: list[int] = (seconds * ids.position_id_per_seconds).long().tolist()
    return _fill(segment, ids.video, merge), _grid(segment, times, merge)


def _fill(segment: ImageSeg | VideoSeg | AudioVideoSeg, index: int, merge: int) -> Tensor:
    return torch.full((segment.t * (segment.h // merge) * (segment.w // merge),), index)


def _grid(segment: ImageSeg | VideoSeg | AudioVideoSeg, times: list[int], merge: int) -> Tensor:
    """(3, t*h*w) positions of a merged grid, row by row; times: the time id of each temporal grid."""
    axes = (torch.tensor(times), torch.arange(segment.h // merge), torch.arange(segment.w // merge))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def _interleave(segment: AudioVideoSeg, ids: MediaIds, merge: int) -> list[_Piece]:
    """Chunks of 2 s: the video's tokens first, then the sound's; the longer stream goes on alone."""
    video, sound = _streams(segment, ids, merge)
    return [piece for pair in zip_longest(video, sound) for piece in pair if piece is not None]


def _settled(segment: AudioVideoSeg, ids: MediaIds, merge: int) -> list[_Piece]:
    """The leading pieces of ``_interleave`` that stay when more of both streams comes.

    The last chunk of each stream is open, and what follows an open chunk is not settled. To see which chunk that is,
    each stream is cut with its next grid or token at its end, and that one is taken off again.
    """
    video, sound = _streams(replace(segment, t=segment.t + 1, audio=segment.audio + 1), ids, merge)
    video[-1] = _without(video[-1], (segment.h // merge) * (segment.w // merge))
    sound[-1] = _without(sound[-1], 1)
    pieces = [piece for pair in zip(video, sound) for piece in pair]
    return pieces if len(sound) < len(video) else pieces[:-1]  # else the video's open chunk comes first


def _streams(segment: AudioVideoSeg, ids: MediaIds, merge: int) -> tuple[list[_Piece], list[_Piece]]:
    """The chunks of the video and those of the sound."""
    span = ids.position_id_per_seconds * ids.seconds_per_chunk  # 50 ids
    return _chunks(_frames(segment, ids, merge), span), _chunks(_sound(segment.audio, ids), span)


def _without(piece: _Piece, count: int) -> _Piece:
    """A piece without its last ``count`` tokens."""
    tokens, positions = piece
    return tokens[:-count], positions[:, :-count]


def _chunks(stream: _Piece, span: int) -> list[_Piece]:
    """Cut a stream where its time id reaches the next multiple of ``span``.

    The limit grows by one span per cut, however far the id jumped: grids sparser than a span drift against the sound.
    That is the reference's behaviour, and the released weights were trained with it.
    """
    tokens, positions = stream
    cuts, limit = [0], span
    for place, time in enumerate(positions[0].tolist()):
        if time >= limit:
            cuts.append(place)
            limit += span
    cuts.append(len(tokens))
    return [(tokens[a:b], positions[:, a:b]) for a, b in pairwise(cuts)]
