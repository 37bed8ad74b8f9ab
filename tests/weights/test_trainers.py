"""Checkpoints as people's tools save them: whatever transformers' own classes write loads, or says what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import descant
from descant.config import OmniConfig
from descant.errors import ConfigError, DescantError, OptionError, WeightsError
from descant.types import Finished
from descant.weights import configfile, strict
from descant.weights.checkpoint import as_stored, load_checkpoint
from descant.weights.generation import read_generation
from descant.weights.shards import read_headers
from tests import tiny
from tests.weights.conftest import Copy

SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json")


@pytest.fixture(scope="module")
def reference(seven: Path) -> Any:
    from transformers import Qwen2_5OmniForConditionalGeneration

    return Qwen2_5OmniForConditionalGeneration.from_pretrained(seven)


def saved(model: Any, seven: Path, folder: Path, *extra: str) -> Path:
    """``model`` as its own ``save_pretrained`` writes it, with the side files of the folder that it came from."""
    model.save_pretrained(folder)
    for name in (*SIDE_FILES, *extra):
        if (seven / name).exists():
            shutil.copy(seven / name, folder / name)
    return folder


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_every_config_as_to_dict_writes_it(reference: Any, copy: Copy, seven: Path) -> None:
    """Each sub-config through its own ``to_dict()``: base classes add dozens of keys to every object."""
    folder = copy(seven)
    whole = reference.config.to_dict()
    for part in ("thinker_config", "talker_config", "token2wav_config"):
        whole[part] = getattr(reference.config, part).to_dict()
    for part in ("text_config", "audio_config", "vision_config"):
        whole["thinker_config"][part] = getattr(reference.config.thinker_config, part).to_dict()
    for part in ("dit_config", "bigvgan_config"):
        whole["token2wav_config"][part] = getattr(reference.config.token2wav_config, part).to_dict()
    (folder / "config.json").write_text(json.dumps(whole, default=str))
    assert configfile.read_config(folder) == configfile.read_config(seven)


TRAINERS: dict[str, dict[str, object]] = {
    "gradient checkpointing": {"use_cache": False},
    "unsloth": {"unsloth_version": "2026.1", "unsloth_fixed": True},
    "attention": {"_attn_implementation": "sdpa", "attn_implementation": None},
    "remote code": {"auto_map": {"AutoModel": "modeling.X"}},
    "inference": {"keys_to_ignore_at_inference": ["past_key_values"]},
    "a key that nobody knows": {"my_trainers_own_note": [1, 2]},
}


@pytest.mark.parametrize("name", TRAINERS)
def test_marks_of_trainers_change_nothing(name: str, copy: Copy, seven: Path) -> None:
    folder = copy(seven)
    rewritten(folder / "config.json", lambda data: data.update(TRAINERS[name]))
    for part in ("thinker_config", "talker_config", "token2wav_config"):
        rewritten(folder / "config.json", lambda data, part=part: data[part].update(TRAINERS[name]))
    assert configfile.read_config(folder) == configfile.read_config(seven)


def test_a_tie_flag_of_the_base_class_does_not_tie_a_head_that_was_stored(copy: Copy, seven: Path) -> None:
    folder = copy(seven)

    def tie(data: dict[str, Any]) -> None:
        data["tie_word_embeddings"] = data["thinker_config"]["tie_word_embeddings"] = True
        data["thinker_config"]["text_config"]["tie_word_embeddings"] = False

    rewritten(folder / "config.json", tie)
    loaded = load_checkpoint(folder)
    assert torch.equal(loaded.thinker.lm_head.weight, load_checkpoint(seven).thinker.lm_head.weight)
    assert loaded.thinker.lm_head.weight is not loaded.thinker.decoder.embed_tokens.weight


def test_a_model_saved_without_its_talker_answers_in_text(reference: Any, seven: Path, tmp_path: Path) -> None:
    from transformers import Qwen2_5OmniForConditionalGeneration

    model = Qwen2_5OmniForConditionalGeneration.from_pretrained(seven)
    model.disable_talker()
    strict.warn_once.cache_clear()
    folder = saved(model, seven, tmp_path / "mute", "spk_dict.pt")
    assert configfile.read_config(folder).talker is not None
    omni = descant.load(folder)
    assert not omni.speaks
    assert isinstance(list(omni.chat("hi", speech=False, max_tokens=2))[-1], Finished)
    with pytest.raises(OptionError, match="no voice"):
        omni.chat("hi")
    omni.close()


def test_a_thinker_saved_alone_answers_in_text_as_it_did(reference: Any, seven: Path, tmp_path: Path) -> None:
    folder = saved(reference.thinker, seven, tmp_path / "thinker")
    alone, whole = load_checkpoint(folder), load_checkpoint(seven)
    assert alone.talker is None and alone.token2wav is None
    for (name, ours), theirs in zip(alone.thinker.named_parameters(), whole.thinker.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("kind", ["missing", "a link to nothing"])
def test_a_model_without_its_voices_file_says_which_and_from_where(kind: str, copy: Copy, seven: Path) -> None:
    folder = copy(seven)
    for name in ("spk_dict.pt", "voices.safetensors"):
        (folder / name).unlink(missing_ok=True)
    if kind == "missing":
        omni = descant.load(folder)
        with pytest.raises(OptionError, match=r"lacks its voices. Copy spk_dict.pt .* there, or ask with speech=False"):
            omni.chat("hi")
        omni.close()
    else:
        (folder / "spk_dict.pt").symlink_to(folder / "gone")
        with pytest.raises(WeightsError, match="link to a file that is not there"):
            descant.load(folder)


NEUTRAL: dict[str, object] = {
    "min_length": 0,
    "typical_p": 1.0,
    "renormalize_logits": False,
    "disable_compile": True,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "no_repeat_ngram_size": 0,
    "max_time": None,
    "min_p": None,
    "diversity_penalty": 0.0,
}


def test_generation_options_that_change_nothing_are_absent(reference: Any, copy: Copy, seven: Path) -> None:
    folder = copy(seven)
    plain = read_generation(folder)
    whole = reference.generation_config.to_dict() | NEUTRAL
    given = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(whole | given))
    assert read_generation(folder) == plain
    rewritten(folder / "generation_config.json", lambda data: data.update(typical_p=0.5))
    with pytest.raises(ConfigError, match="typical_p is 0.5"):
        read_generation(folder)


# ---------------------------------------------------------------- folders with something else in them

FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "spk_dict.pt",
    "voices.safetensors", "model.safetensors.index.json", "model.safetensors",
)  # fmt: skip
SPOILT: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("name", FILES)
def test_no_file_of_a_folder_is_waited_for_or_read_for_ever(name: str, what: str, copy: Copy, ours: Path) -> None:
    folder = copy(ours)
    (folder / name).unlink(missing_ok=True)
    SPOILT[what](folder / name)
    with pytest.raises(DescantError) as caught:
        descant.load(folder)
    assert name in str(caught.value) or "weight_map" in str(caught.value)


NUMBERS = {
    "layers": ("thinker_config.text_config.num_hidden_layers", 10**9),
    "layers by far": ("thinker_config.text_config.num_hidden_layers", 10**18),
    "vocabulary": ("thinker_config.text_config.vocab_size", 10**18),
    "width": ("thinker_config.text_config.intermediate_size", 2**62),
    "beyond a float": ("thinker_config.text_config.rope_theta", 10**400),
    "block": ("token2wav_config.dit_config.block_size", 10**9),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_sizes_have_ceilings_before_anything_is_built(name: str, copy: Copy, seven: Path) -> None:
    folder = copy(seven)
    dotted, value = NUMBERS[name]
    *parts, key = dotted.split(".")

    def change(data: dict[str, Any]) -> None:
        for part in parts:
            data = data[part]
        data[key] = value

    rewritten(folder / "config.json", change)
    with pytest.raises(ConfigError, match=key):
        configfile.read_config(folder)


INPUTS = {"sampling_rate": 10**9, "n_fft": 10**12, "min_pixels": 4 * 10**8, "hop_length": 10**9, "feature_size": 10**7}


@pytest.mark.parametrize("key", INPUTS)
def test_numbers_of_the_preprocessor_have_ceilings(key: str, copy: Copy, ours: Path) -> None:
    folder = copy(ours)
    rewritten(folder / "preprocessor_config.json", lambda data: data.update({key: INPUTS[key]}))
    with pytest.raises(ConfigError, match=key):
        descant.load(folder)


TOKENIZERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "merges of unknown tokens": lambda t: t["model"]["merges"].append(["qqq", "zzz"]),
    "an id beyond the vocabulary": lambda t: t["model"]["vocab"].update({"W": 10**6}),
    "an id that is none": lambda t: t["model"]["vocab"].update({"W": "x"}),
    "a negative id": lambda t: t["model"]["vocab"].update({"W": -1}),
    "added tokens that are numbers": lambda t: t.update(added_tokens=[1]),
    "an unknown normalizer": lambda t: t.update(normalizer={"type": "Magic"}),
    "a broken pattern": lambda t: t.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    ),
    "special ids that changed places": lambda t: [
        row.update(content={"<|AUDIO|>": "<|IMAGE|>", "<|IMAGE|>": "<|AUDIO|>"}.get(row["content"], row["content"]))
        for row in t["added_tokens"]
    ],
    "no beginning of a turn": lambda t: t.update(
        added_tokens=[row for row in t["added_tokens"] if row["content"] != "<|im_start|>"]
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_does_not_fit_is_found_before_weights_are_read(
    name: str, copy: Copy, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ours)
    rewritten(folder / "tokenizer.json", TOKENIZERS[name])
    monkeypatch.setattr("descant.weights.checkpoint.fill", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(ConfigError, match="tokenizer"):
        descant.load(folder)


def test_a_library_that_panics_is_a_config_error(copy: Copy, ours: Path) -> None:
    """vocab.json and merges.txt that do not belong together: the tokenizer library raises a BaseException."""
    folder = copy(ours)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
    (folder / "merges.txt").write_text("a b\n")
    (folder / "added_tokens.json").write_text('{"<|im_start|>": 2}')
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError):
        descant.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["thinker.model", "talker.model", "token2wav"])
def test_a_weight_that_is_no_number_is_named_with_its_file(value: float, part: str, copy: Copy, seven: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy(seven)
    entry = next(entry for name, entry in sorted(read_headers(folder).items()) if name.startswith(part))
    tensors = load_file(entry.file)
    tensors[entry.name].view(-1)[0] = value
    save_file(tensors, entry.file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="holds NaN or infinity") as caught:
        load_checkpoint(folder)
    assert entry.name in str(caught.value) and entry.file.name in str(caught.value)


@pytest.mark.parametrize("name", ["", "  ", "a\x1b[31m", "two\nlines", "x" * 101])
def test_voices_have_printable_names(name: str, copy: Copy, seven: Path) -> None:
    folder = copy(seven)
    (folder / "voices.safetensors").unlink(missing_ok=True)
    torch.save({name: tiny.speakers()["Ethan"]}, folder / "spk_dict.pt")
    with pytest.raises(WeightsError, match="a printable name"):
        load_checkpoint(folder)


def test_a_voice_that_is_larger_in_memory_than_in_its_file(copy: Copy, seven: Path) -> None:
    folder = copy(seven)
    (folder / "voices.safetensors").unlink(missing_ok=True)
    row = tiny.speakers()["Ethan"] | {"ref_mel": torch.zeros(1).expand(1, 50_000_000, 80)}
    torch.save({"Ethan": row}, folder / "spk_dict.pt")
    with pytest.raises(WeightsError, match="at most"):
        load_checkpoint(folder)


def test_as_stored_leaves_a_whole_model_as_it_is(seven: Path) -> None:
    config: OmniConfig = configfile.read_config(seven)
    assert as_stored(config, read_headers(seven)) == config
