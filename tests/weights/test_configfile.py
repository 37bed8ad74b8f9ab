"""config.json: both layouts are read to the same values, written ones come back, and nothing odd slips through."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from descant.config import OmniConfig, VocosConfig
from descant.errors import ConfigError
from descant.export.config import write_config
from descant.weights.configfile import read_config
from descant.weights.strict import warn_once
from tests import tiny

DATA = Path(__file__).parent.parent / "data"
OFFICIAL: dict[str, dict[str, Any]] = {
    size: json.loads((DATA / size / "config.json").read_text()) for size in ("7b", "3b")
}


def put(folder: Path, data: object) -> Path:
    (folder / "config.json").write_text(json.dumps(data))
    return folder


def at(data: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    *path, last = dotted.split(".")
    for name in path:
        data = data[name]
    return data, last


def changed(dotted: str, value: object, size: str = "7b") -> dict[str, Any]:
    data = copy.deepcopy(OFFICIAL[size])
    table, name = at(data, dotted)
    table[name] = value
    return data


def without(dotted: str, size: str = "7b") -> dict[str, Any]:
    data = copy.deepcopy(OFFICIAL[size])
    table, name = at(data, dotted)
    del table[name]
    return data


def test_official_7b() -> None:
    c = read_config(DATA / "7b")
    assert c.talker is not None and c.token2wav is not None
    text, body, dit = c.thinker.text, c.talker.decoder, c.token2wav.dit
    assert (text.hidden_size, text.num_hidden_layers, text.head_dim, text.vocab_size) == (3584, 28, 128, 152064)
    assert (body.hidden_size, body.head_dim * body.num_attention_heads, body.mrope_section) == (896, 1536, (16, 24, 24))
    assert (c.thinker.pad_id, c.thinker.eos_id, c.thinker.ids.vision_start) == (151643, 151645, 151652)
    assert (dit.hidden_size, dit.num_hidden_layers, dit.num_attention_heads) == (1024, 22, 16)  # dim, depth, heads
    assert not text.tie_word_embeddings


def test_official_3b() -> None:
    c = read_config(DATA / "3b")
    assert c.talker is not None
    body = c.talker.decoder
    assert (body.num_attention_heads, body.num_key_value_heads, body.head_dim) == (14, 2, 64)
    assert (body.mrope_section, body.intermediate_size, body.embedding_size) == ((16, 16, 0), 4864, 2048)
    assert (c.thinker.text.num_hidden_layers, c.thinker.audio.output_dim) == (36, 2048)


def test_what_official_files_leave_out() -> None:
    dit = OFFICIAL["7b"]["token2wav_config"]["dit_config"]
    assert not {"block_size", "look_ahead_layers", "look_backward_layers", "rope_theta"} & set(dit)
    c = read_config(DATA / "7b")
    assert c.token2wav is not None
    found = c.token2wav.dit
    assert (found.block_size, found.look_ahead_layers, found.look_backward_layers) == (24, (10,), (0, 20))
    assert (found.rope_theta, found.max_position_embeddings) == (10000.0, 32768)


def test_layout_of_transformers_5(seven: Path, three_tied: Path) -> None:
    assert "rope_parameters" in json.loads((seven / "config.json").read_text())["talker_config"]
    assert read_config(seven) == tiny.descant_config("7b")
    assert read_config(three_tied) == tiny.descant_config("3b", tied=True)


def test_transformers_reads_what_we_write(tmp_path: Path) -> None:
    from transformers import Qwen2_5OmniConfig

    write_config(tiny.descant_config("3b", tied=True), tmp_path)
    theirs, meant = Qwen2_5OmniConfig.from_pretrained(tmp_path), tiny.reference_config("3b", tied=True)
    for part in ("thinker_config.text_config", "thinker_config.audio_config", "thinker_config.vision_config",
                 "talker_config", "token2wav_config.dit_config", "token2wav_config.bigvgan_config"):  # fmt: skip
        a: Any = theirs
        b: Any = meant
        for name in part.split("."):
            a, b = getattr(a, name), getattr(b, name)
        loose = {"bos_token_id", "tts_text_start_token_id", "rope_parameters", "head_dim"}
        for name in set(b.to_dict()) - loose - {"id2label", "label2id", "transformers_version"}:
            left, right = a.to_dict().get(name), b.to_dict()[name]
            same = list(left) == list(right) if isinstance(right, tuple | list) else left == right
            assert same, (part, name, left, right)
        if b.to_dict().get("rope_parameters") and "vision" not in part:
            left, right = a.rope_parameters, b.rope_parameters
            assert left["rope_theta"] == right["rope_theta"]
            assert left.get("mrope_section") == right.get("mrope_section")


def variants() -> dict[str, OmniConfig]:
    seven = tiny.descant_config("7b")
    assert seven.token2wav is not None
    mute = dataclasses.replace(seven, talker=None, token2wav=None)
    odd = dataclasses.replace(seven.token2wav.dit, block_size=12, look_ahead_layers=(), rope_theta=5e3)
    return {
        "7b": seven,
        "3b tied": tiny.descant_config("3b", tied=True),
        "vocos": tiny.descant_config("7b", vocoder="vocos"),
        "mute": mute,
        "odd": dataclasses.replace(seven, token2wav=dataclasses.replace(seven.token2wav, dit=odd)),
        "official 7b": read_config(DATA / "7b"),
        "official 3b": read_config(DATA / "3b"),
    }


@pytest.mark.parametrize("name", ["7b", "3b tied", "vocos", "mute", "odd", "official 7b", "official 3b"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    config = variants()[name]
    write_config(config, tmp_path)
    assert read_config(tmp_path) == config


def test_vocos_has_its_own_key(tmp_path: Path) -> None:
    config = tiny.descant_config(vocoder="vocos")
    write_config(config, tmp_path)
    wav = json.loads((tmp_path / "config.json").read_text())["token2wav_config"]
    assert "vocos_config" in wav and "bigvgan_config" not in wav
    assert config.token2wav is not None and isinstance(config.token2wav.vocoder, VocosConfig)
    wav["bigvgan_config"] = OFFICIAL["7b"]["token2wav_config"]["bigvgan_config"]
    data = json.loads((tmp_path / "config.json").read_text())
    data["token2wav_config"] = wav
    with pytest.raises(ConfigError, match="token2wav_config.bigvgan_config"):
        read_config(put(tmp_path, data))


def test_models_that_do_not_speak(tmp_path: Path) -> None:
    for data in (changed("enable_audio_output", False), without("talker_config")):
        config = read_config(put(tmp_path, data))
        assert config.talker is None and config.token2wav is None
        assert config.thinker == read_config(DATA / "7b").thinker


@pytest.mark.parametrize(
    "text, thinker, tied", [(False, None, False), (True, None, True), (True, False, False), (False, True, True)]
)
def test_the_thinker_decides_about_tying(text: bool, thinker: bool | None, tied: bool, tmp_path: Path) -> None:
    data = changed("thinker_config.text_config.tie_word_embeddings", text)
    data["thinker_config"]["tie_word_embeddings"] = thinker
    assert read_config(put(tmp_path, data)).thinker.text.tie_word_embeddings is tied


def test_list_of_end_ids_names_the_first(tmp_path: Path) -> None:
    config = read_config(put(tmp_path, changed("thinker_config.eos_token_id", [151645, 151643])))
    assert config.thinker.eos_id == 151645


MISSING = [
    "thinker_config",
    "thinker_config.text_config",
    "thinker_config.text_config.hidden_size",
    "thinker_config.text_config.rope_theta",
    "thinker_config.text_config.rope_scaling",
    "thinker_config.text_config.vocab_size",
    "thinker_config.audio_config.d_model",
    "thinker_config.vision_config.depth",
    "thinker_config.vision_config.fullatt_block_indexes",
    "thinker_config.audio_token_index",
    "talker_config.embedding_size",
    "talker_config.tts_codec_start_token_id",
    "token2wav_config",
    "token2wav_config.dit_config.dim",
    "token2wav_config.dit_config.num_embeds",
    "token2wav_config.bigvgan_config",
    "token2wav_config.bigvgan_config.upsample_rates",
    "token2wav_config.bigvgan_config.resblock_dilation_sizes",
]


@pytest.mark.parametrize("dotted", MISSING)
def test_missing_key_is_named(dotted: str, tmp_path: Path) -> None:
    named = {"thinker_config.text_config.rope_scaling": "thinker_config.text_config.rope_scaling.mrope_section",
             "token2wav_config.dit_config.dim": "token2wav_config.dit_config.hidden_size"}  # fmt: skip
    with pytest.raises(ConfigError) as error:
        read_config(put(tmp_path, without(dotted)))
    message = str(error.value)
    assert named.get(dotted, dotted) in message and "missing" in message and "expected" in message


@pytest.mark.parametrize(
    "where",
    ["", "thinker_config.", "thinker_config.text_config.", "thinker_config.audio_config.",
     "thinker_config.vision_config.", "talker_config.", "token2wav_config.", "token2wav_config.dit_config.",
     "token2wav_config.bigvgan_config."],
)  # fmt: skip
def test_an_unknown_key_is_named_once_and_changes_nothing(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    plain = read_config(put(tmp_path, changed(f"{where}surprise", None)))
    for _ in range(2):
        assert read_config(put(tmp_path, changed(f"{where}surprise", 1))) == plain
    assert [r.message for r in caplog.records] == [f"config.json: unknown key {where}surprise (value 1) is ignored"]


@pytest.mark.parametrize(
    "where",
    ["talker_config.rope_scaling.surprise", "thinker_config.text_config.rope_factor", "quant_method",
     "thinker_config.audio_config.second_activation", "thinker_config.vision_config.adapter_dim",
     "talker_config.num_extra_layers", "thinker_config.text_config.hidden_sizes"],
)  # fmt: skip
def test_an_unknown_key_that_would_change_the_computation_is_refused(where: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"unknown key {where} ".replace(".", r"\.")):
        read_config(put(tmp_path, changed(where, 1)))


def test_a_typing_error_gets_a_hint(tmp_path: Path) -> None:
    data = without("talker_config.hidden_size")
    data["talker_config"]["head_dimm"] = 128
    data["talker_config"]["hidden_size"] = 896
    with pytest.raises(ConfigError, match="Did you mean talker_config.head_dim?"):
        read_config(put(tmp_path, data))


BAD: list[tuple[str, object, str]] = [
    ("thinker_config.text_config.rope_scaling", {"mrope_section": [16, 24, 25]}, "expected head_dim / 2 = 64"),
    ("thinker_config.text_config.rope_scaling", {"mrope_section": [32, 32]}, "three integers"),
    ("thinker_config.text_config.rope_scaling", {"mrope_section": [16, 24, 24], "rope_type": "yarn"}, "rope_type"),
    ("thinker_config.text_config.num_key_value_heads", 5, "num_attention_heads"),
    ("thinker_config.text_config.hidden_act", "gelu", "hidden_act"),
    ("thinker_config.text_config.use_sliding_window", True, "use_sliding_window"),
    ("thinker_config.text_config.layer_types", ["sliding_attention"] * 28, "layer_types"),
    ("thinker_config.text_config.hidden_size", "3584", "expected an integer"),
    ("thinker_config.text_config.hidden_size", True, "expected an integer"),
    ("thinker_config.text_config.num_hidden_layers", 0, "expected an integer from 1 to"),
    ("thinker_config.text_config.rms_norm_eps", -1e-6, "expected a number"),
    ("thinker_config.text_config.add_cross_attention", True, "add_cross_attention"),
    ("thinker_config.audio_config.output_dim", 1280, "text_config.hidden_size = 3584"),
    ("thinker_config.audio_config.activation_function", "relu", "activation_function"),
    ("thinker_config.audio_config.num_hidden_layers", 31, "another name of the same value"),
    ("thinker_config.audio_config.encoder_attention_heads", 19, "multiple of 19"),
    ("thinker_config.audio_config.scale_embedding", True, "scale_embedding"),
    ("thinker_config.vision_config.out_hidden_size", 1280, "out_hidden_size"),
    ("thinker_config.vision_config.embed_dim", 1281, "embed_dim"),
    ("thinker_config.vision_config.tokens_per_second", 4, "tokens_per_second"),
    ("thinker_config.vision_config.window_size", 100, "window_size"),
    ("thinker_config.vision_config.fullatt_block_indexes", [7, 32], "below depth = 32"),
    ("thinker_config.audio_token_index", 152064, "an id below 152064"),
    ("thinker_config.image_token_index", 151646, "seven different ids"),
    ("thinker_config.eos_token_id", [], "empty list"),
    ("talker_config.embedding_size", 2048, "hidden_size = 3584"),
    ("talker_config.audio_token_index", 151650, "as in thinker_config"),
    ("talker_config.tts_codec_pad_token_id", 8448, "an id below 8448"),
    ("talker_config.tie_word_embeddings", True, "tie_word_embeddings"),
    ("talker_config.spatial_merge_size", 4, "spatial_merge_size"),
    ("token2wav_config.dit_config.hidden_size", 512, "another name of the same value"),
    ("token2wav_config.dit_config.mel_dim", 100, "mel_dim of the vocoder"),
    ("token2wav_config.dit_config.block_size", 25, "block_size"),
    ("token2wav_config.dit_config.enc_kernel_sizes", [5, 3, 3], "enc_kernel_sizes"),
    ("token2wav_config.dit_config.enc_channels", [256, 256, 256, 256, 512], "the sum of the blocks"),
    ("token2wav_config.bigvgan_config.upsample_kernel_sizes", [11, 7, 4, 4, 4], "upsample_kernel_sizes"),
    ("token2wav_config.bigvgan_config.upsample_kernel_sizes", [10, 7, 4, 4, 4, 4], "for a rate of 5"),
    ("token2wav_config.bigvgan_config.upsample_initial_channel", 1500, "upsample_initial_channel"),
    ("token2wav_config.bigvgan_config.use_bias_at_final", True, "use_bias_at_final"),
    (
        "token2wav_config.bigvgan_config.resblock_dilation_sizes",
        [[1, 3, 5], [1, "3", 5], [1, 3, 5]],
        r"dilation_sizes.1",
    ),
    ("model_type", "qwen3_omni", "model_type"),
    ("quantization_config", {"bits": 4}, "float checkpoint"),
    ("thinker_config", [], "expected an object"),
]


@pytest.mark.parametrize("dotted, value, words", BAD, ids=[f"{d}={v}"[:60] for d, v, _ in BAD])
def test_impossible_values(dotted: str, value: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        read_config(put(tmp_path, changed(dotted, value)))
    message = str(error.value)
    assert message.startswith("config.json: ") and "expected" in message and message.endswith(".")


def test_two_rope_layouts_must_agree(tmp_path: Path) -> None:
    new = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}
    both = changed("talker_config.rope_parameters", new)
    assert read_config(put(tmp_path, both)) == read_config(DATA / "7b")
    with pytest.raises(ConfigError, match="talker_config.rope_parameters and rope_scaling/rope_theta disagree"):
        read_config(put(tmp_path, changed("talker_config.rope_parameters", {**new, "rope_theta": 1e4})))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.unlink(),
        lambda p: p.write_text("{"),
        lambda p: p.write_text("[1]"),
        lambda p: p.write_bytes(b"\xff\xfe\x00"),
        lambda p: p.write_text("[" * 100000),
        lambda p: (p.unlink(), p.mkdir()),
    ],
    ids=["gone", "cut", "list", "bytes", "deep", "folder"],
)
def test_files_that_are_no_config(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    path = put(tmp_path, OFFICIAL["7b"]) / "config.json"
    spoil(path)
    with pytest.raises(ConfigError, match="config.json"):
        read_config(tmp_path)
