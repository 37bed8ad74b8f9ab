"""Video: frames at 2 a second by their real timestamps, and patches of two frames each.

Axes: T frames, H rows, W columns, N patches.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs.image import Pixels, normalise, patchify, smart_resize
from descant.types import PixelGrid


def sample_clip(frames: Pixels, fps: float, inputs: InputsConfig) -> Pixels:
    """Frames (T, H, W, 3) uint8 shown at a constant ``fps`` -> the sampled ones, an even number."""
    return frames[sample_frames(np.arange(len(frames)) / fps, fps, inputs)]


def sample_frames(times: npt.NDArray[np.float64], rate: float, inputs: InputsConfig) -> list[int]:
    """Indices of the sampled frames, ascending, an even number.

    times (T,): timestamps in seconds, ascending; rate: the nominal frames a second. The count is duration * fps, at least
    ``min_frames``, rounded down to even. At constant rate it is at most T, and the indices are the rounded linspace of the
    authors' utilities; otherwise each sample takes the frame whose time is nearest, so that a screen recording that stood
    still is not sped up. A single frame is shown twice.
    Raises MediaError: "video.no_frames"; "video.too_many_frames" over ``max_frames`` (the utilities thin out instead,
    which bends the clock that positions are computed by).
    """
    total = len(times)
    if total == 0:
        raise MediaError("video.no_frames", "the video has no frames; expected at least one. Record or convert it again.")
    if total == 1:
        return [0] * inputs.temporal_patch_size
    if _is_steady(times, rate):
        count = _frame_count(min(max(total / rate * inputs.fps, inputs.min_frames), total), total / rate, inputs)
        return [int(i) for i in torch.linspace(0, total - 1, count).round().long()]
    duration = float(times[-1] - times[0] + np.median(np.diff(times)))  # the last frame is shown for a while, too
    wanted = np.linspace(times[0], times[-1], _frame_count(max(duration * inputs.fps, inputs.min_frames), duration, inputs))
    after = np.clip(np.searchsorted(times, wanted), 1, total - 1)
    nearer = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)
    return [int(i) for i in nearer]


def _is_steady(times: npt.NDArray[np.float64], rate: float) -> bool:
    """Whether every frame is within half a frame of where a constant rate puts it."""
    return bool(np.all(np.abs(times - times[0] - np.arange(len(times)) / rate) < 0.5 / rate))


def _frame_count(wanted: float, duration: float, inputs: InputsConfig) -> int:
    step = inputs.temporal_patch_size
    count = max(math.floor(wanted / step), 1) * step
    if count > inputs.max_frames:
        raise MediaError(
            "video.too_many_frames",
            f"the video lasts {duration:.1f} s, which is {count} frames at {inputs.fps:g} a second; at most "
            f"{inputs.max_frames} are seen ({inputs.max_frames / inputs.fps:g} s). Cut it into shorter pieces.",
        )
    return count


def seconds_per_grid(inputs: InputsConfig) -> float:
    """The time that one temporal grid stands for in TMRoPE: two frames at the nominal rate, 1 s by default.

    The nominal rate is used even for clips so short that ``min_frames`` samples them more densely: the reference does so.
    """
    return inputs.temporal_patch_size / inputs.fps


def video_grid(frames: Pixels | Tensor, inputs: InputsConfig) -> PixelGrid:
    """Sampled frames (T, H, W, 3) uint8 -> patches. Raises MediaError ("image.aspect")."""
    pixels = torch.as_tensor(frames).permute(0, 3, 1, 2)
    count, _, height, width = pixels.shape
    factor = inputs.patch_size * inputs.merge_size
    share = inputs.video_total_pixels / count * inputs.temporal_patch_size
    ceiling = max(min(inputs.video_max_pixels, share), int(inputs.video_min_pixels * 1.05))
    size = smart_resize(height, width, factor, inputs.video_min_pixels, ceiling, at_least=factor)
    pixels = _resize(pixels, size)
    size = smart_resize(*size, factor, inputs.video_min_pixels, inputs.video_max_pixels)
    return patchify(normalise(_resize(pixels, size), inputs), inputs)


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, 3, H, W) uint8 -> uint8 at ``size``: bicubic with antialiasing in float32, clamped and rounded.

    What torchvision does with a tensor; against Pillow's fixed-point bicubic it may differ by one grey level.
    """
    if frames.shape[2:] == size:
        return frames
    scaled = torch.nn.functional.interpolate(frames.float(), size, mode="bicubic", antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
