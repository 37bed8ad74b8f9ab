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
from descant.errors import ConfigError
from descant.weights import inert
from descant.weights.plain import read_value
from descant.weights.strict import Table, read_json, write_json

NAME, NEW_NAME = "preprocessor_config.json", "processor_config.json"
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
BICUBIC = 3  # Pillow's number


def read_inputs(folder: str | Path) -> InputsConfig:
    """Read how this model wants its media. Raises ConfigError on unknown keys and on forms that are not implemented."""
    folder = Path(folder)
    if not (folder / NAME).exists() and (folder / NEW_NAME).exists():
        return _read_new(Table(read_json(folder / NEW_NAME), NEW_NAME))
    table = Table(read_json(folder / NAME), NAME)
    values = {**_image(table), **_audio(table), **_own(table)}
    table.close()
    return _checked(table, dataclasses.replace(InputsConfig(), **values))


def _read_new(top: Table) -> InputsConfig:
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


def _image(table: Table) -> dict[str, Any]:
    table.ignore(*inert.INPUTS)
    for flag in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        table.expect(flag, True)
    table.expect("do_center_crop", False)
    table.expect("do_pad", False)
    table.expect("resample", BICUBIC)
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


def _pixels(table: Table, official: InputsConfig) -> tuple[int, int]:
    """(min, max) pixels of an image; transformers 5 calls them ``size.shortest_edge`` and ``size.longest_edge``."""
    low = table.integer("min_pixels", official.min_pixels)
    high = table.integer("max_pixels", official.max_pixels)
    size = table.maybe_table("size")
    if size is not None:
        named = table.has("min_pixels"), table.has("max_pixels")
        edges = size.integer("shortest_edge", low), size.integer("longest_edge", high)
        size.close()
        # transformers 4 wrote stale edges beside the two keys that it obeyed
        low, high = (low if named[0] else edges[0]), (high if named[1] else edges[1])
    if low > high:
        raise table.error("min_pixels", f"is {low}; expected at most max_pixels = {high}")
    return low, high


def _audio(table: Table) -> dict[str, Any]:
    table.ignore(*inert.INPUTS)
    table.expect("dither", 0, 0.0)
    table.expect("padding_value", 0, 0.0)
    table.expect("return_attention_mask", True)
    official = InputsConfig()
    rate = table.integer("sampling_rate", official.sampling_rate)
    hop = table.integer("hop_length", official.hop_length)
    seconds = table.integer("chunk_length", int(official.max_audio_s))
    table.expect("n_samples", seconds * rate)
    table.expect("nb_max_frames", seconds * rate // hop)
    return {
        "sampling_rate": rate,
        "n_fft": table.integer("n_fft", official.n_fft),
        "hop_length": hop,
        "feature_size": table.integer("feature_size", official.feature_size),
        "max_audio_s": float(seconds),
    }


def _own(top: Table) -> dict[str, Any]:
    table = top.maybe_table("descant")
    if table is None:
        return {}
    hints = get_type_hints(InputsConfig)
    table.ignore(*OWN)
    values = {name: read_value(table, name, hints[name]) for name in OWN if name in table.data}
    table.close()
    return values


def _checked(table: Table, c: InputsConfig) -> InputsConfig:
    for low, high in (("video_min_pixels", "video_max_pixels"), ("min_frames", "max_frames")):
        values = vars(c)
        if values[low] > values[high]:
            raise table.error(f"descant.{low}", f"is {values[low]}; expected at most {high} = {values[high]}")
    if c.fps <= 0:
        raise table.error("descant.fps", f"is {c.fps}; expected more than 0")
    if min(c.image_std) <= 0:
        raise table.error("image_std", f"is {list(c.image_std)}; expected positive numbers")
    return c


def write_inputs(cfg: InputsConfig, folder: str | Path) -> None:
    """Write ``folder``/preprocessor_config.json, so that ``read_inputs(folder) == cfg``."""
    if cfg.max_audio_s != int(cfg.max_audio_s):
        raise ConfigError(f"max_audio_s is {cfg.max_audio_s}; the file holds whole seconds. Round it.")
    values = dataclasses.asdict(cfg)
    seconds = int(cfg.max_audio_s)
    data: dict[str, object] = {
        "processor_class": "Qwen2_5OmniProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "feature_extractor_type": "WhisperFeatureExtractor",
        "chunk_length": seconds,
        "n_samples": seconds * cfg.sampling_rate,
        "nb_max_frames": seconds * cfg.sampling_rate // cfg.hop_length,
        "dither": 0.0,
        "padding_side": "left",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    for name in ("sampling_rate", "n_fft", "hop_length", "feature_size", "patch_size", "temporal_patch_size"):
        data[name] = values[name]
    for name in ("merge_size", "min_pixels", "max_pixels"):
        data[name] = values[name]
    data["image_mean"], data["image_std"] = list(cfg.image_mean), list(cfg.image_std)
    data["descant"] = {name: values[name] for name in OWN}
    write_json(Path(folder) / NAME, data)
