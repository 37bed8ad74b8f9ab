"""Golden values of TMRoPE, worked out once with the reference; the parity test compares many more."""

from __future__ import annotations

import torch
from torch import Tensor

from descant.config import MediaIds
from descant.inputs.layout import AudioSeg, AudioVideoSeg, ImageSeg, Segment, TextSeg, VideoSeg, lay_out
from descant.tokens import concatenate
from tests.filled import unfilled

IDS = MediaIds(audio=46, image=55, video=56, audio_start=47, audio_end=48, vision_start=52, vision_end=53)


def laid(segments: list[Segment]) -> tuple[Tensor, Tensor, int]:
    """ids (T,), positions (3, T), and the position that follows."""
    made = concatenate([lay_out(segment, IDS, 2, unfilled(segment)) for segment in segments])
    return made.ids, made.positions, made.next_position


def test_video_with_sound() -> None:
    """4 s at one grid a second, 4 tokens a grid; 4 s of sound: 100 tokens."""
    ids, positions, following = laid([TextSeg([1, 2, 3]), AudioVideoSeg(4, 4, 4, 1.0, 100), TextSeg([4, 5])])
    assert len(ids) == 125 and following - len(ids) == -18
    assert positions[0, :13].tolist() == [0, 1, 2, 3, 3, 4, 4, 4, 4, 29, 29, 29, 29]
    assert positions[1, 5:13].tolist() == [4, 4, 5, 5, 4, 4, 5, 5]
    assert positions[2, 5:13].tolist() == [4, 5, 4, 5, 4, 5, 4, 5]
    assert positions[:, 13:63].tolist() == [list(range(4, 54))] * 3
    assert positions[0, 63:71].tolist() == [54] * 4 + [79] * 4
    assert positions[:, 71:121].tolist() == [list(range(54, 104))] * 3
    assert positions[:, 121:].tolist() == [[104, 104, 105, 106]] * 3
    assert ids[3:6].tolist() == [52, 47, 56] and ids[-4:].tolist() == [48, 53, 4, 5]


def test_image() -> None:
    ids, positions, following = laid([TextSeg([1, 2]), ImageSeg(1, 4, 6), TextSeg([7, 8])])
    assert ids.tolist() == [1, 2, 52, *[55] * 6, 53, 7, 8]
    assert positions[0, 3:10].tolist() == [3] * 6 + [6]
    assert positions[1, 3:10].tolist() == [3, 3, 3, 4, 4, 4, 6]
    assert positions[2, 3:10].tolist() == [3, 4, 5, 3, 4, 5, 6]
    assert following - len(ids) == -3


def test_silent_video_then_sound() -> None:
    ids, positions, following = laid([TextSeg([1]), VideoSeg(2, 4, 4, 1.0), AudioSeg(5), TextSeg([9])])
    assert positions[0].tolist() == [0, 1, *[2] * 4, *[27] * 4, 28, 29, 30, 31, 32, 33, 34, 35, 36]
    assert following - len(ids) == 18


def test_nothing() -> None:
    ids, positions, following = laid([])
    assert ids.shape == (0,) and positions.shape == (3, 0) and following == 0
    assert ids.dtype == positions.dtype == torch.int64
