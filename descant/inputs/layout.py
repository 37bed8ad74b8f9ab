"""Segments -> token ids and TMRoPE positions, in one walk.

A prompt is a list of segments. Each kind of segment knows two things: which ids it contributes, and where its tokens
stand in (time, height, width), counted from the first free position. Each piece of the walk knows which medium fills
it, so the spans come out of the same walk: nothing is found by searching for placeholders.

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, zip_longest

import torch
from torch import Tensor

from descant.config import MediaIds
from descant.errors import SessionError
from descant.tokens import NO_TOKENS, EncoderInput, MediaSpan, MediaType, PromptTokens


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


@dataclass(frozen=True)
class _Piece:
    """A run of tokens of one kind; pieces of one step share their base.

    ids (n,); positions (3, n) counted from 0; kind: the medium that fills all of them (None: text and delimiters).
    """

    ids: Tensor
    positions: Tensor
    kind: MediaType | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> _Piece:
        """The tokens start .. stop - 1."""
        return _Piece(self.ids[start:stop], self.positions[:, start:stop], self.kind)


def lay_out(
    segment: Segment, ids: MediaIds, merge: int, sources: Sequence[EncoderInput] = (), *, growing: bool = False
) -> PromptTokens:
    """The walk over one segment, from position 0.

    merge: the spatial merge size (2: four patches make one token). sources: what fills its media tokens, for each kind
    in order of time. growing: more grids or more sound of this segment may still come. Then only those leading tokens
    are given that come first whatever follows, and the extent is not known yet.

    Each step starts at one past the largest position of the LAST piece before it, not of all pieces: when sound
    outlasts a video whose frames are many tokens wide, the reference counts on from the sound, and so do we.

    SessionError when the sources make more or fewer tokens than the segment has.
    """
    base = 0
    all_ids, all_positions = [NO_TOKENS.ids], [NO_TOKENS.positions]
    filled: dict[MediaType, list[Tensor]] = {"audio": [], "image": [], "video": []}
    length = 0
    for step in _steps(segment, ids, merge, growing):
        for piece in step:
            all_ids.append(piece.ids)
            all_positions.append(piece.positions + base)
            if piece.kind is not None:
                filled[piece.kind].append(torch.arange(length, length + len(piece)))
            length += len(piece)
        last = step[-1].positions
        base += int(last.max()) + 1 if last.numel() else 0
    spans = [span for kind, parts in filled.items() for span in _spans(kind, parts, sources, growing)]
    spans.sort(key=lambda span: span.first)
    extent = 0 if growing else base
    return PromptTokens(torch.cat(all_ids), torch.cat(all_positions, dim=1), extent, tuple(spans))


def _spans(
    kind: MediaType, parts: Sequence[Tensor], sources: Sequence[EncoderInput], growing: bool
) -> Iterator[MediaSpan]:
    """Deal the tokens of one kind out to its sources, in order; while growing, the last ones get fewer, or none."""
    own = [source for source in sources if source.kind == kind]
    indices, made = torch.cat([NO_TOKENS.ids, *parts]), sum(source.tokens for source in own)
    if made != len(indices) and not (growing and made > len(indices)):
        raise SessionError(
            f"a segment has {len(indices)} {kind} tokens but its media give {made}: "
            "build prompts with PromptBuilder, which counts the tokens of the media"
        )
    ends = accumulate((source.tokens for source in own), initial=0)
    for source, (start, stop) in zip(own, pairwise(ends), strict=True):
        if len(indices[start:stop]):
            yield MediaSpan(indices[start:stop], source)


def _steps(segment: Segment, ids: MediaIds, merge: int, growing: bool) -> list[list[_Piece]]:
    """The steps of one segment; pieces inside a step count from the same base. A growing one has no closing yet."""
    match segment:
        case TextSeg():
            return [[_run(torch.as_tensor(segment.ids, dtype=torch.int64))]]
        case AudioSeg():
            steps = [[_one(ids.audio_start)], [_sound(segment.tokens, ids)], [_one(ids.audio_end)]]
        case ImageSeg():
            times = [grid * ids.position_id_per_seconds for grid in range(segment.t)]  # t is 1 but for odd callers
            picture = _Piece(_fill(segment, ids.image, merge), _grid(segment, times, merge), "image")
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
    return _Piece(ids, torch.arange(len(ids)).expand(3, -1))


def _one(index: int) -> _Piece:
    return _run(torch.tensor([index]))


def _sound(tokens: int, ids: MediaIds) -> _Piece:
    return replace(_run(torch.full((tokens,), ids.audio)), kind="audio")


def _frames(segment: VideoSeg | AudioVideoSeg, ids: MediaIds, merge: int) -> _Piece:
    # float32 and truncation, as in the reference: a grid of 1/3 s must not land one id later
    seconds = torch.arange(segment.t) * torch.tensor(segment.seconds, dtype=torch.float32)
    times: list[int] = (seconds * ids.position_id_per_seconds).long().tolist()
    return _Piece(_fill(segment, ids.video, merge), _grid(segment, times, merge), "video")


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
    video[-1] = video[-1].part(0, len(video[-1]) - (segment.h // merge) * (segment.w // merge))
    sound[-1] = sound[-1].part(0, len(sound[-1]) - 1)
    pieces = [piece for pair in zip(video, sound) for piece in pair]
    return pieces if len(sound) < len(video) else pieces[:-1]  # else the video's open chunk comes first


def _streams(segment: AudioVideoSeg, ids: MediaIds, merge: int) -> tuple[list[_Piece], list[_Piece]]:
    """The chunks of the video and those of the sound."""
    span = ids.position_id_per_seconds * ids.seconds_per_chunk  # 50 ids
    return _chunks(_frames(segment, ids, merge), span), _chunks(_sound(segment.audio, ids), span)


def _chunks(stream: _Piece, span: int) -> list[_Piece]:
    """Cut a stream where its time id reaches the next multiple of ``span``.

    The limit grows by one span per cut, however far the id jumped: grids sparser than a span drift against the sound.
    That is the reference's behaviour, and the released weights were trained with it.
    """
    cuts, limit = [0], span
    for place, time in enumerate(stream.positions[0].tolist()):
        if time >= limit:
            cuts.append(place)
            limit += span
    cuts.append(len(stream))
    return [stream.part(start, stop) for start, stop in pairwise(cuts)]
