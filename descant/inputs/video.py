"""Video: frames at 2 a second by their real timestamps, and patches of two frames each.

Axes: T frames, H rows, W columns, N patches.
"""

from __future__ import annotations

import numpy as np
import torch

from descant.config import InputsConfig
from descant.inputs.image import normalise_pixels, patchify
from descant.inputs.image_file import Pixels
from descant.inputs.video_file import fit_frame, sample_frames
from descant.tokens import PixelGrid


def sample_clip(frames: Pixels, fps: float, inputs: InputsConfig) -> Pixels:
    """Frames (T, H, W, 3) uint8 shown at a constant ``fps`` -> the sampled ones, an even number."""
    return frames[sample_frames(np.arange(len(frames)) / fps, fps, inputs)]


def seconds_per_grid(inputs: InputsConfig) -> float:
    """The time that one temporal grid stands for in TMRoPE: two frames at the nominal rate, 1 s by default.

    The nominal rate is used even for clips so short that ``min_frames`` samples them more densely, as in the reference.
    """
    return inputs.temporal_patch_size / inputs.fps


def video_grid(frames: Pixels, inputs: InputsConfig) -> PixelGrid:
    """Sampled frames (T, H, W, 3) uint8 of any size -> patches. Raises MediaError ("image.aspect")."""
    return fitted_grid(np.stack([fit_frame(frame, len(frames), inputs) for frame in frames]), inputs)


def fitted_grid(frames: Pixels, inputs: InputsConfig) -> PixelGrid:
    """Frames (T, H, W, 3) uint8 that have their final size -> patches."""
    return patchify(normalise_pixels(torch.from_numpy(frames).permute(0, 3, 1, 2), inputs), inputs)
