"""Inputs of whole-Thinker tests: tokens and media as the reference takes them, and the same as our PromptTokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from descant.config import audio_tokens
from descant.tokens import PixelGrid, PromptTokens
from tests.filled import found_tokens
from tests.parity.reference import IDS, MELS, PAD, noise, patches

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Talk:
    """One conversation: ids and its media, in order of appearance."""

    ids: tuple[int, ...]
    frames: tuple[int, ...] = ()  # mel frames of each clip
    images: tuple[Grid, ...] = ()
    videos: tuple[Grid, ...] = ()
    sound_in_video: bool = False


def text(seed: int, n: int = 7) -> list[int]:
    return torch.randint(0, 130, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def sound(frames: int) -> list[int]:
    return [IDS.audio_start, *[IDS.audio] * audio_tokens(frames), IDS.audio_end]


def image(grid: Grid) -> list[int]:
    return [IDS.vision_start, *[IDS.image] * (grid[0] * grid[1] * grid[2] // 4), IDS.vision_end]


def video(grid: Grid) -> list[int]:
    return [IDS.vision_start, *[IDS.video] * (grid[0] * grid[1] * grid[2] // 4), IDS.vision_end]


def video_with_sound(grid: Grid, frames: int) -> list[int]:
    """Interleaved in chunks of 2 s: two grids (1 s each), then 50 audio tokens; the longer stream goes on alone."""
    seen, heard = [IDS.video] * (grid[1] * grid[2] // 4), audio_tokens(frames)
    body: list[int] = []
    for chunk in range(max(-(-grid[0] // 2), -(-heard // 50))):
        body += seen * max(0, min(2, grid[0] - 2 * chunk))
        body += [IDS.audio] * max(0, min(50, heard - 50 * chunk))
    return [IDS.vision_start, IDS.audio_start, *body, IDS.audio_end, IDS.vision_end]


TALKS = {
    "text": Talk(tuple(text(1, 30))),
    "image": Talk((*text(2), *image((1, 14, 22)), *text(3)), images=((1, 14, 22),)),
    "several images": Talk(
        (*text(4), *image((1, 6, 10)), *image((1, 2, 2)), *text(5), *image((1, 20, 4)), *text(6)),
        images=((1, 6, 10), (1, 2, 2), (1, 20, 4)),
    ),
    "audio 0.03 s": Talk((*text(7), *sound(3), *text(8)), frames=(3,)),
    "audio 2 s": Talk((*text(7), *sound(200), *text(8)), frames=(200,)),
    "audio 2.01 s": Talk((*text(7), *sound(201), *text(8)), frames=(201,)),
    "audio 31 s": Talk((*text(7), *sound(3100), *text(8)), frames=(3100,)),
    "silent video": Talk((*text(9), *video((3, 10, 12)), *text(10)), videos=((3, 10, 12),)),
    "video, sound equally long": Talk(
        (*text(11), *video_with_sound((4, 4, 4), 400), *text(12)), (400,), (), ((4, 4, 4),), True
    ),
    "video, sound longer": Talk(
        (*text(13), *video_with_sound((2, 4, 8), 512), *text(14)), (512,), (), ((2, 4, 8),), True
    ),
    "video longer than its sound": Talk(
        (*text(15), *video_with_sound((6, 4, 4), 150), *text(16)), (150,), (), ((6, 4, 4),), True
    ),
    "all mixed": Talk(
        (*text(17), *sound(64), *text(18), *image((1, 6, 10)), *text(19), *video((2, 4, 8)), *sound(457), *text(20)),
        frames=(64, 457),
        images=((1, 6, 10),),
        videos=((2, 4, 8),),
    ),
}
BATCH = ("text", "all mixed", "several images", "audio 2.01 s", "silent video")


def clips(talk: Talk) -> list[Tensor]:
    return [noise(MELS, n, seed=n) for n in talk.frames]


def pictures(grids: Sequence[Grid], seed: int) -> list[PixelGrid]:
    return [PixelGrid(patches(grid, seed + i), grid) for i, grid in enumerate(grids)]


def for_reference(talks: Sequence[Talk]) -> dict[str, Any]:
    """Keyword arguments of the reference's Thinker: a left-padded batch."""
    longest = max(len(talk.ids) for talk in talks)
    ids = torch.tensor([[PAD] * (longest - len(talk.ids)) + list(talk.ids) for talk in talks])
    mask = torch.tensor([[0] * (longest - len(talk.ids)) + [1] * len(talk.ids) for talk in talks])
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_audio_in_video": False}
    heard = [clip for talk in talks for clip in clips(talk)]
    if heard:
        width = max(clip.shape[1] for clip in heard)
        inputs["input_features"] = torch.stack([F.pad(clip, (0, width - clip.shape[1])) for clip in heard])
        inputs["feature_attention_mask"] = torch.tensor([[i < c.shape[1] for i in range(width)] for c in heard]).long()
    images = [p for talk in talks for p in pictures(talk.images, 50)]
    videos = [p for talk in talks for p in pictures(talk.videos, 70)]
    if images:
        inputs["pixel_values"] = torch.cat([p.patches for p in images])
        inputs["image_grid_thw"] = torch.tensor([p.grid for p in images])
    if videos:
        inputs["pixel_values_videos"] = torch.cat([p.patches for p in videos])
        inputs["video_grid_thw"] = torch.tensor([p.grid for p in videos])
        inputs["video_second_per_grid"] = torch.ones(len(videos))
        inputs["use_audio_in_video"] = any(talk.sound_in_video for talk in talks)
    return inputs


def reference_positions(model: Any, inputs: dict[str, Any]) -> Tensor:
    """TMRoPE ids (3, B, T) by the reference itself; ours have their own test."""
    mask = inputs.get("feature_attention_mask")
    positions: Tensor = model.get_rope_index(
        inputs["input_ids"],
        inputs.get("image_grid_thw"),
        inputs.get("video_grid_thw"),
        inputs["attention_mask"],
        inputs["use_audio_in_video"],
        None if mask is None else mask.sum(1),
        inputs.get("video_second_per_grid"),
    )[0]
    return positions.long()


def our_prompt(talk: Talk, positions: Tensor) -> PromptTokens:
    """The same as our PromptTokens; positions (3, T)."""
    return found_tokens(
        torch.tensor(talk.ids),
        positions,
        IDS,
        audio=clips(talk),
        images=pictures(talk.images, 50),
        videos=pictures(talk.videos, 70),
    )
