"""preprocessor_config.json <-> InputsConfig.

The official file describes the image processor and the feature extractor side by side. What it cannot say (video
limits, system turns) stands in one object of our own, ``descant``, with the field names of InputsConfig. What is left
out has the official processors' numbers. transformers 5 may write ``processor_config.json`` instead, with one object
per processor; it is read where the first file is absent.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from descant.config import InputsConfig
from descant.files import is_there
from descant.weights import inert
from descant.weights.plain import read_value
from descant.weights.strict import ConfigTable, read_json

INPUTS_FILE = "preprocessor_config.json"
NEW_NAME = "processor_config.json"
OWN = (
    "video_min_pixels",
    "video_max_pixels",
    "video_total_pixels",
    "fps",
    "min_frames",
    "max_frames",
    "default_system",
    "speech_system",
)
MIN_RATE_HZ = 1000
MAX_RATE_HZ = 192_000
MAX_WINDOW = 2**14  # samples
MAX_AUDIO_S = 3600
BICUBIC_FILTER = 3  # Pillow's number


def read_inputs(folder: str | Path) -> InputsConfig:
    """Read how this model wants its media. Raises ConfigError on unknown keys and on forms that are not implemented."""
    folder = Path(folder)
    if not is_there(folder / INPUTS_FILE) and is_there(folder / NEW_NAME):
        return _read_new(ConfigTable(read_json(folder / NEW_NAME), NEW_NAME))
    table = ConfigTable(read_json(folder / INPUTS_FILE), INPUTS_FILE)
    values = {**_image(table), **_audio(table), **_own(table)}
    table.close()
    return _checked(table, dataclasses.replace(InputsConfig(), **values))


def _read_new(top: ConfigTable) -> InputsConfig:
    top.ignore("processor_class", "auto_map")
    values: dict[str, Any] = _own(top)
    for name, read in (("image_processor", _image), ("feature_extractor", _audio)):
        part = top.maybe_table(name)
        if part is not None:
            values.update(read(part))
            part.close()
    video = top.maybe_table("video_processor")
    if video is not None:
        # the authors' own utilities sample and size the frames before this processor sees them
        _image(video)
        video.ignore("fps", "min_frames", "max_frames", "do_sample_frames")
        video.close()
    top.close()
    return _checked(top, dataclasses.replace(InputsConfig(), **values))


def _image(table: ConfigTable) -> dict[str, Any]:
    table.ignore(*inert.INPUTS_KEYS)
    for flag in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        table.expect(flag, True)
    table.expect("do_center_crop", False)
    table.expect("do_pad", False)
    table.expect("resample", BICUBIC_FILTER)
    scale = table.number("rescale_factor", 1 / 255)
    if abs(scale * 255 - 1) > 1e-6:
        raise table.error("rescale_factor", f"is {scale}; expected 1/255, the only form that is implemented")
    official = InputsConfig()
    low, high = _pixels(table, official)
    return {
        "patch_size": table.integer("patch_size", official.patch_size),
        "temporal_patch_size": table.integer("temporal_patch_size", official.temporal_patch_size),
        "merge_size": table.integer("merge_size", official.merge_size),
        "min_pixels": low,
        "max_pixels": high,
        "image_mean": table.numbers("image_mean", official.image_mean, 3),
        "image_std": table.numbers("image_std", official.image_std, 3),
    }


def _pixels(table: ConfigTable, official: InputsConfig) -> tuple[int, int]:
    """(min, max) pixels of an image; transformers 5 calls them ``size.shortest_edge`` and ``size.longest_edge``."""
    low = table.integer("min_pixels", official.min_pixels)
    high = table.integer("max_pixels", official.max_pixels)
    size = table.maybe_table("size")
    if size is not None:
        named = table.has("min_pixels"), table.has("max_pixels")
        edges = size.integer("shortest_edge", low), size.integer("longest_edge", high)
        size.close()
        # transformers 4 wrote stale edges beside the two keys that it obeyed
        low = low if named[0] else edges[0]
        high = high if named[1] else edges[1]
    if low > high:
        raise table.error("min_pixels", f"is {low}; expected at most max_pixels = {high}")
    return low, high


def _audio(table: ConfigTable) -> dict[str, Any]:
    table.ignore(*inert.INPUTS_KEYS)
    table.expect("dither", 0, 0.0)
    table.expect("padding_value", 0, 0.0)
    table.expect("return_attention_mask", True)
    official = InputsConfig()
    rate = table.integer("sampling_rate", official.sampling_rate, minimum=MIN_RATE_HZ, maximum=MAX_RATE_HZ)
    hop = table.integer("hop_length", official.hop_length, maximum=MAX_WINDOW)
    seconds = table.integer("chunk_length", int(official.max_audio_s), maximum=MAX_AUDIO_S)
    table.expect("n_samples", seconds * rate)
    table.expect("nb_max_frames", seconds * rate // hop)
    return {
        "sampling_rate": rate,
        "n_fft": table.integer("n_fft", official.n_fft, maximum=MAX_WINDOW),
        "hop_length": hop,
        "feature_size": table.integer("feature_size", official.feature_size, maximum=MAX_WINDOW),
        "max_audio_s": float(seconds),
    }


def _own(top: ConfigTable) -> dict[str, Any]:
    table = top.maybe_table("descant")
    if table is None:
        return {}
    hints = get_type_hints(InputsConfig)
    table.ignore(*OWN)
    values = {name: read_value(table, name, hints[name]) for name in OWN if name in table.data}
    table.close(ours=True)
    return values


def _checked(table: ConfigTable, c: InputsConfig) -> InputsConfig:
    for low, high in (("video_min_pixels", "video_max_pixels"), ("min_frames", "max_frames")):
        values = vars(c)
        if values[low] > values[high]:
            raise table.error(f"descant.{low}", f"is {values[low]}; expected at most {high} = {values[high]}")
    if c.hop_length > c.n_fft:
        raise table.error("hop_length", f"is {c.hop_length}; expected at most n_fft = {c.n_fft}")
    if c.fps <= 0:
        raise table.error("descant.fps", f"is {c.fps}; expected more than 0")
    if min(c.image_std) <= 0:
        raise table.error("image_std", f"is {list(c.image_std)}; expected positive numbers")
    return c
