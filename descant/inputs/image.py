"""Pictures: RGB -> the size that the model wants -> normalised patches.

Axes: H rows, W columns, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descant.config import InputsConfig
from descant.inputs.image_file import Pixels, fit_picture
from descant.tokens import PixelGrid


def image_grid(pixels: Pixels, inputs: InputsConfig) -> PixelGrid:
    """RGB pixels (H, W, 3) uint8 -> patches, by the official double resize. Raises MediaError ("image.aspect")."""
    pixels = fit_picture(pixels, inputs)
    frames = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return patchify(normalise_pixels(frames, inputs), inputs)


def normalise_pixels(frames: Tensor, inputs: InputsConfig) -> Tensor:
    """(T, 3, H, W) with values 0..255 -> float32, (v / 255 - mean) / std per channel."""
    mean = torch.tensor(inputs.image_mean).view(1, 3, 1, 1)
    std = torch.tensor(inputs.image_std).view(1, 3, 1, 1)
    return (frames.float() * (1 / 255) - mean) / std


def patchify(frames: Tensor, inputs: InputsConfig) -> PixelGrid:
    """(T, 3, H, W) float32, H and W multiples of patch * merge -> patches in the official order.

    Rows run over (temporal grid, merged row, merged column, row in the block, column in the block): the four patches of
    a merge block are neighbours. Columns run over (channel, frame in the grid, row, column). A last odd frame is
    repeated, so that one picture becomes a grid of two equal frames.
    """
    step, merge, side = inputs.temporal_patch_size, inputs.merge_size, inputs.patch_size
    missing = -len(frames) % step
    if missing:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    count, channels, height, width = frames.shape
    t, h, w = count // step, height // side, width // side
    blocks = frames.reshape(t, step, channels, h // merge, merge, side, w // merge, merge, side)
    patches = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, channels * step * side * side)
    return PixelGrid(patches, (t, h, w))
