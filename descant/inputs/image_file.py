"""Picture files: any format that is admitted -> RGB, and the size that the model wants. No tensor library: this runs in
the decoder process.

Axes: H rows, W columns.
"""

from __future__ import annotations

import io
import math
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageOps

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.types import Budget

Pixels = npt.NDArray[np.uint8]
Buffer = bytes | memoryview

MAX_ASPECT = 200  # beyond it one side would shrink below a patch
# The authors' utilities resize every picture to these bounds before the processor applies its own (which agree in the
# official configs, so that the second resize changes nothing there).
UTILITY_MIN_PIXELS = 4 * 28 * 28
UTILITY_MAX_PIXELS = 16384 * 28 * 28


def fit_picture(pixels: Pixels, inputs: InputsConfig) -> Pixels:
    """RGB pixels (H, W, 3) uint8 at the size that the model sees, by the official double resize."""
    for size in picture_sizes(pixels.shape[0], pixels.shape[1], inputs):
        pixels = resize(pixels, size)
    return pixels


def picture_sizes(height: int, width: int, inputs: InputsConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """The two sizes (height, width) that a picture is brought to, one after the other."""
    factor = inputs.patch_size * inputs.merge_size
    size = smart_resize(height, width, factor, UTILITY_MIN_PIXELS, UTILITY_MAX_PIXELS, at_least=factor)
    return size, smart_resize(*size, factor, inputs.min_pixels, inputs.max_pixels)


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
    return pixels if pixels.shape[:2] == size else np.array(resized(Pillow.fromarray(pixels), size))


def resized(picture: Pillow.Image, size: tuple[int, int]) -> Pillow.Image:
    """``resize`` of a picture; size: (height, width)."""
    height, width = size
    return picture if picture.size == (width, height) else picture.resize((width, height), Pillow.Resampling.BICUBIC)


# What Pillow's readers raise on damaged files, and on files over Pillow's own ceiling (looser than ours).
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
Pillow.MAX_IMAGE_PIXELS = None  # the budget is looked at first


def decode_image(data: Buffer, form: str, budget: Budget, inputs: InputsConfig | None = None) -> Pixels:
    """Bytes of a file of format ``form`` (limits.IMAGE_FORMATS) -> RGB (H, W, 3) uint8: upright, alpha on white.

    inputs: at the size that the model sees (None: as it is). Of an animation the first frame is seen. Colour profiles
    are not applied (the reference does not). A picture of 64 megapixels is in memory twice at most.
    """
    try:
        with Pillow.open(io.BytesIO(data), formats=(form,)) as picture:
            check_size(picture.width, picture.height, budget)  # only the header is read so far
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            shown = _to_rgb(picture)
        for size in picture_sizes(shown.height, shown.width, inputs) if inputs is not None else ():
            shown = resized(shown, size)
        return np.array(shown)
    except _DAMAGE as error:
        raise MediaError(
            "image.decode_failed",
            f"the {form} picture is damaged or incomplete ({type(error).__name__}); expected a whole one. Export it.",
        ) from None


def check_size(width: int, height: int, budget: Budget) -> None:
    """Refuse a picture of so many pixels: "image.aspect", "image.too_many_pixels"."""
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
        levels = np.asarray(picture)
        grey = Pillow.fromarray(np.clip(levels // 256, 0, 255).astype(np.uint8))
        if isinstance(clear := picture.info.get("transparency"), int):
            grey.paste(255, mask=Pillow.fromarray(levels == clear))
        return grey.convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = Pillow.new("RGB", layered.size, (255, 255, 255))
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")
