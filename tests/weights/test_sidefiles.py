"""preprocessor_config.json and generation_config.json: official forms, our own object, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from descant.config import InputsConfig
from descant.errors import ConfigError
from descant.export.sidefiles import write_generation, write_inputs
from descant.types import Decoding, Sampling
from descant.weights.generation import GenerationDefaults, read_generation
from descant.weights.inputsfile import read_inputs
from tests import tiny

NANO = {"video_min_pixels": 784, "video_max_pixels": 3136, "default_system": None, "speech_system": None}


def official() -> dict[str, Any]:
    """The official preprocessor_config.json."""
    return {
        "chunk_length": 300, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
        "hop_length": 160, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": 12845056, "merge_size": 2, "min_pixels": 3136, "n_fft": 400, "n_samples": 4800000,
        "nb_max_frames": 30000, "padding_side": "left", "padding_value": 0.0, "patch_size": 14,
        "processor_class": "Qwen2_5OmniProcessor", "return_attention_mask": True, "sampling_rate": 16000,
        "temporal_patch_size": 2,
    }  # fmt: skip


def put(folder: Path, data: object, name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(json.dumps(data))
    return folder


def test_official_inputs_are_the_defaults(tmp_path: Path) -> None:
    assert read_inputs(put(tmp_path, official())) == InputsConfig()


def test_own_object(tmp_path: Path) -> None:
    found = read_inputs(put(tmp_path, {**official(), "descant": NANO}))
    assert (found.video_min_pixels, found.video_max_pixels) == (784, 3136)
    assert found.default_system is None and found.speech_system is None
    assert found.fps == InputsConfig().fps


def test_inputs_round_trip(tmp_path: Path) -> None:
    odd = dataclasses.replace(
        InputsConfig(), max_audio_s=30.0, min_pixels=784, max_pixels=12544, fps=1.5, max_frames=64,
        default_system="Sei höflich.", speech_system=None, image_mean=(0.5, 0.5, 0.5), feature_size=80,
    )  # fmt: skip
    for config in (InputsConfig(), odd):
        write_inputs(config, tmp_path)
        assert read_inputs(tmp_path) == config
    with pytest.raises(ConfigError, match="max_audio_s"):
        write_inputs(dataclasses.replace(odd, max_audio_s=0.5), tmp_path)


def test_layout_of_transformers_5(tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    sound = WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)
    sight = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056})
    both = {
        "feature_extractor": json.loads(sound.to_json_string()),
        "image_processor": json.loads(sight.to_json_string()),
        "processor_class": "Qwen2_5OmniProcessor",
    }
    assert read_inputs(put(tmp_path, both, "processor_config.json")) == InputsConfig()
    put(tmp_path, {**both["feature_extractor"], **both["image_processor"]})
    assert read_inputs(tmp_path) == InputsConfig()


def test_old_file_wins_over_stale_edges(tmp_path: Path) -> None:
    data = {**official(), "size": {"shortest_edge": 1, "longest_edge": 2}}
    assert read_inputs(put(tmp_path, data)).max_pixels == 12845056


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("dither", 0.1, "dither"),
        ("n_samples", 480000, "n_samples"),
        ("nb_max_frames", 3000, "nb_max_frames"),
        ("resample", 2, "resample"),
        ("rescale_factor", 1.0, "rescale_factor"),
        ("do_normalize", False, "do_normalize"),
        ("image_mean", [0.5, 0.5], "a list of 3 numbers"),
        ("image_std", [0.5, 0.5, 0.0], "positive"),
        ("min_pixels", 16000000, "max_pixels"),
        ("patch_size", 0, "patch_size"),
        ("patch_sizes", 1, "unknown key patch_sizes"),
        ("descant", {"surprise": 1}, r"unknown key descant\.surprise"),
        ("descant", {"fps": 0}, "fps"),
        ("descant", {"fps": "2"}, r"descant\.fps"),
        ("descant", {"default_system": 1}, r"descant\.default_system"),
        ("descant", {"video_min_pixels": 10**9}, "video_min_pixels"),
    ],
)
def test_bad_inputs(key: str, value: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        read_inputs(put(tmp_path, {**official(), key: value}))
    assert "preprocessor_config.json" in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file .*preprocessor_config.json"):
        read_inputs(tmp_path)


# ---------------------------------------------------------------- generation

CONFIG = tiny.descant_config()
BASE = GenerationDefaults(
    text=Sampling(max_tokens=1024),
    speech=Sampling(temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.05, max_tokens=4096),
    stop_ids=(tiny.ID["<|im_end|>"],),
    stop_codes=(tiny.CODEC["pad"], tiny.CODEC["end"]),
    suppressed_codes=(tiny.CODEC["start"],),
)


def generation(folder: Path, data: object) -> GenerationDefaults:
    return read_generation(put(folder, data, "generation_config.json"), CONFIG)


def test_reference_defaults(tmp_path: Path) -> None:
    """The numbers of the reference's generate() signature, read from it."""
    import inspect

    from transformers import Qwen2_5OmniForConditionalGeneration

    assert read_generation(tmp_path, CONFIG) == BASE
    theirs = inspect.signature(Qwen2_5OmniForConditionalGeneration.generate).parameters
    speech = BASE.speech
    assert (speech.temperature, speech.top_k, speech.top_p) == tuple(
        theirs[f"talker_{name}"].default for name in ("temperature", "top_k", "top_p")
    )
    assert speech.repetition_penalty == theirs["talker_repetition_penalty"].default
    assert speech.max_tokens == theirs["talker_max_new_tokens"].default
    assert BASE.text.max_tokens == theirs["thinker_max_new_tokens"].default


def test_file_that_transformers_writes_by_itself(tmp_path: Path) -> None:
    data = {"_from_model_config": True, "output_attentions": False, "output_hidden_states": False,
            "transformers_version": "5.23.0", "use_cache": True}  # fmt: skip
    assert generation(tmp_path, data) == BASE


def test_without_config_it_is_read_from_the_folder(seven: Path) -> None:
    assert read_generation(seven).stop_ids == (tiny.ID["<|im_end|>"], tiny.ID["<|endoftext|>"])


def test_sampling_of_the_thinker(tmp_path: Path) -> None:
    assert generation(tmp_path, {"do_sample": True}).text == Sampling(1.0, 50, 1.0, 1.0, 1024)
    data = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1}
    assert generation(tmp_path, data).text == Sampling(0.7, 20, 0.8, 1.1, 1024)
    assert generation(tmp_path, {**data, "thinker_do_sample": False}).text == Sampling(0.0, 0, 1.0, 1.1, 1024)
    assert generation(tmp_path, {**data, "thinker_temperature": 0.2}).text.temperature == 0.2
    assert generation(tmp_path, {"temperature": 0.7}).text.temperature == 0.0  # without do_sample it means nothing


def test_keys_of_the_talker(tmp_path: Path) -> None:
    data = {"talker_do_sample": False, "talker_max_new_tokens": 64, "talker_eos_token_id": 94,
            "talker_suppress_tokens": [93, 95], "eos_token_id": 7}  # fmt: skip
    found = generation(tmp_path, data)
    assert (found.speech.temperature, found.speech.max_tokens, found.speech.repetition_penalty) == (0.0, 64, 1.05)
    assert (found.stop_codes, found.suppressed_codes, found.stop_ids) == ((94,), (93, 95), (7,))
    assert generation(tmp_path, {"talker_top_k": 0}).speech.top_k == 0


def test_decoding_overrides(tmp_path: Path) -> None:
    found = generation(tmp_path, {"descant": {"decoding": {"low": {"solver": "euler", "points": 5, "guidance": 0}}}})
    assert found.decoding("low", Decoding(ahead=2)) == Decoding(ahead=2, solver="euler", points=5, guidance=0.0)
    assert found.decoding("quality", Decoding()) == Decoding()


def test_generation_round_trip(tmp_path: Path) -> None:
    odd = GenerationDefaults(
        Sampling(0.7, 0, 0.9, 1.2, 77), Sampling(0.0, 0, 1.0, 1.0, 9), (1, 2), (3,), (), {"low": {"points": 4}}
    )
    for defaults in (BASE, odd):
        write_generation(defaults, tmp_path)
        assert read_generation(tmp_path, CONFIG) == defaults


@pytest.mark.parametrize(
    "data, words",
    [
        ({"max_new_token": 1}, "unknown key max_new_token .*Did you mean max_new_tokens"),
        ({"num_beams": 4}, "num_beams"),
        ({"top_p": 1.5}, "top_p"),
        ({"temperature": -1}, "temperature"),
        ({"do_sample": True, "temperature": 0}, "do_sample"),
        ({"talker_temperature": 0}, "talker_temperature"),
        ({"talker_top_p": 0}, "talker_top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"eos_token_id": []}, "never ends"),
        ({"eos_token_id": 320}, "below the vocabulary's 320"),
        ({"talker_eos_token_id": [100]}, "below the vocabulary's 100"),
        ({"talker_suppress_tokens": [100]}, "below the vocabulary's 100"),
        ({"descant": {"decoding": {"fast": {}}}}, r"unknown key descant\.decoding\.fast"),
        ({"descant": {"decoding": {"low": {"steps": 3}}}}, r"unknown key descant\.decoding\.low\.steps"),
        ({"descant": {"decoding": {"low": {"solver": "heun"}}}}, "one of euler, midpoint, rk4"),
        ({"descant": {"decoding": {"low": {"points": 2.5}}}}, r"descant\.decoding\.low\.points"),
    ],
)
def test_bad_generation(data: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        generation(tmp_path, data)
