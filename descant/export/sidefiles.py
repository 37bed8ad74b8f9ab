"""generation_config.json and preprocessor_config.json, as ``weights`` reads them back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from descant.config import InputsConfig
from descant.errors import ConfigError
from descant.weights import generation, inputsfile
from descant.weights.generation import GenerationDefaults
from descant.weights.inputsfile import OWN


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write ``data`` as indented JSON, in the order given."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_generation(g: GenerationDefaults, folder: str | Path) -> None:
    """Write ``folder``/generation_config.json, so that ``read_generation(folder) == g``."""
    data: dict[str, object] = {"eos_token_id": list(g.stop_ids)}
    for prefix, s in (("", g.text), ("talker_", g.speech)):
        data[f"{prefix}do_sample"] = s.temperature > 0
        if s.temperature > 0:
            data.update({f"{prefix}temperature": s.temperature, f"{prefix}top_k": s.top_k, f"{prefix}top_p": s.top_p})
        data[f"{prefix}repetition_penalty"] = s.repetition_penalty
        data[f"{prefix}max_new_tokens"] = s.max_tokens
    if g.stop_codes:
        data["talker_eos_token_id"] = list(g.stop_codes)
        data["talker_suppress_tokens"] = list(g.suppressed_codes)
    if g.overrides:
        data["descant"] = {"decoding": {latency: dict(row) for latency, row in g.overrides.items()}}
    write_json(Path(folder) / generation.GENERATION_FILE, data)


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
    data["image_mean"] = list(cfg.image_mean)
    data["image_std"] = list(cfg.image_std)
    data["descant"] = {name: values[name] for name in OWN}
    write_json(Path(folder) / inputsfile.INPUTS_FILE, data)
