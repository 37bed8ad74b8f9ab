"""Pictures: any format -> RGB -> the size that the model wants -> normalised patches.

Axes: H rows, W columns, N patches.
"""

from __future__ import annotations

import io
import math
import struct
import zlib

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.tokens import PixelGrid
from descant.types import Budget

Pixels = npt.NDArray[np.uint8]

MAX_ASPECT = 200  # beyond it one side would shrink below a patch
# The authors' utilities resize every picture to these bounds before the processor applies its own (which agree in the
# official configs, so that the second resize changes nothing there).
UTILITY_MIN_PIXELS = 4 * 28 * 28
UTILITY_MAX_PIXELS = 16384 * 28 * 28


def image_grid(pixels: Pixels, inputs: InputsConfig) -> PixelGrid:
    """RGB pixels (H, W, 3) uint8 -> patches, by the official double resize. Raises MediaError ("image.aspect")."""
    factor = inputs.patch_size * inputs.merge_size
    height, width = pixels.shape[:2]
    size = smart_resize(height, width, factor, UTILITY_MIN_PIXELS, UTILITY_MAX_PIXELS, at_least=factor)
    pixels = resize(pixels, size)
    pixels = resize(pixels, smart_resize(*size, factor, inputs.min_pixels, inputs.max_pixels))
    frames = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return patchify(normalise_pixels(frames, inputs), inputs)


def smart_resize(
    height: int, width: int, factor: int, min_pixels: float, max_pixels: float, *, at_least: int = 0
) -> tuple[int, int]:
    """(height, width) as multiples of ``factor`` with an area within bounds and about the same shape.

    Rounds half to even, as Python does. at_least: the floor of each side before the area is looked at; the authors'
    utilities use ``factor``, the processor 0. Raises MediaError when one side is over 200 times the other.
    """
    if min(height, width) < 1 or max(height, width) > MAX_ASPECT * min(height, width):
        raise MediaError(
            "image.aspect",
            f"the picture has {width} x {height} pixels; a side may be at most {MAX_ASPECT} times the other. Crop it.",
        )
    high = max(at_least, round(height / factor) * factor)
    wide = max(at_least, round(width / factor) * factor)
    if high * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif high * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        high = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    return high, wide


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bicubic with antialiasing, rounded to uint8, by Pillow; the identity when the size is right already."""
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    picture = Pillow.fromarray(pixels).resize((width, height), Pillow.Resampling.BICUBIC)
    return np.array(picture)


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


# ---------------------------------------------------------------- bytes -> pixels

# What Pillow's readers raise on damaged files, and on files over Pillow's own ceiling (looser than ours).
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip
_BOMBS = (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning)


def decode_image(data: bytes, form: str, budget: Budget) -> Pixels:
    """Bytes of a file of format ``form`` (limits.IMAGE_FORMATS) -> RGB (H, W, 3) uint8: upright, alpha on white.

    Of an animation the first frame is seen. Colour profiles are not applied (the reference does not).
    """
    try:
        with Pillow.open(io.BytesIO(data), formats=(form,)) as picture:
            _check_size(picture.width, picture.height, budget)  # only the header is read so far
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            return np.array(_to_rgb(upright))
    except _BOMBS:
        raise MediaError(
            "image.too_many_pixels",
            f"the picture has far more than {budget.image_pixels:,} pixels; no more are decoded. Scale it down.",
        ) from None
    except _DAMAGE as error:
        raise MediaError(
            "image.decode_failed",
            f"the {form} picture is damaged or incomplete ({type(error).__name__}); expected a whole one. Export it.",
        ) from None


def _check_size(width: int, height: int, budget: Budget) -> None:
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise MediaError(
            "image.aspect",
            f"the picture has {width} x {height} pixels; a side may be at most {MAX_ASPECT} times the other. Crop it.",
        )
    if width * height > budget.image_pixels or max(width, height) > budget.image_side:
        raise MediaError(
            "image.too_many_pixels",
            f"the picture has {width} x {height} pixels; at most {budget.image_pixels:,}, and {budget.image_side:,} "
            "a side, are decoded. Scale it down.",
        )


def _to_rgb(picture: Pillow.Image) -> Pillow.Image:
    """RGB of any mode: what is transparent shows white; 16-bit grey keeps its high byte."""
    if picture.mode.startswith("I"):  # Pillow's own conversion would clip 16-bit grey to white
        grey = np.asarray(picture).astype(np.int64)
        return Pillow.fromarray(np.clip(grey >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Pillow.new("RGB", layered.size, (255, 255, 255))
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    return picture.convert("RGB")
