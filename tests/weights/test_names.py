"""The official key lists map onto the modules: nothing missing, nothing left over, the same shapes, both ways."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from descant.weights import names
from descant.weights.configfile import read_config
from descant.weights.names import NAME_RULES, OPTIONAL, to_official, to_ours
from descant.weights.parts import build_on_meta
from tests import tiny

DATA = Path(__file__).parent.parent / "data"
SIZES = {"7b": 2448, "3b": 2544}


@cache
def official(size: str) -> dict[str, tuple[int, ...]]:
    """The tensors of an official checkpoint: name -> shape."""
    lines = gzip.decompress((DATA / size / "keys.txt.gz").read_bytes()).decode().splitlines()
    return {name: tuple(json.loads(shape)) for name, shape in (line.split("\t") for line in lines)}


@cache
def modules(size: str) -> dict[str, tuple[int, ...]]:
    """The tensors of our modules on the meta device."""
    parts = build_on_meta(read_config(DATA / size))
    return {name: tuple(tensor.shape) for name, tensor in parts.tensors().items()}


def differences(ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Everything that does not fit."""
    mapped = {name: to_ours(name) for name in theirs}
    unknown = [f"unknown {name}" for name, our in mapped.items() if our is None]
    left = [f"left over {name}" for name, our in mapped.items() if our is not None and our not in ours]
    missing = [f"missing {name}" for name in set(ours) - set(mapped.values())]
    shapes = [f"shape of {name}" for name, our in mapped.items() if our in ours and ours[our] != theirs[name]]
    return unknown + left + missing + shapes


@pytest.mark.parametrize("size", SIZES)
def test_official_keys_fit_the_modules(size: str) -> None:
    assert len(official(size)) == SIZES[size]
    assert differences(modules(size), official(size)) == []


@pytest.mark.parametrize("size", SIZES)
def test_names_round_trip(size: str) -> None:
    for name in official(size):
        ours = to_ours(name)
        assert ours is not None
        assert to_official(ours) == name
    assert len({to_ours(name) for name in official(size)}) == SIZES[size]


@pytest.mark.parametrize("size", SIZES)
def test_a_name_belongs_to_one_row_in_each_direction(size: str) -> None:
    for name in official(size):
        assert sum(pattern.fullmatch(name) is not None for pattern, _ in names._OFFICIAL) == 1
        assert sum(pattern.fullmatch(to_ours(name) or "") is not None for pattern, _ in names._OURS) == 1


@pytest.mark.parametrize("row", range(len(NAME_RULES)))
def test_every_row_is_needed(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, one of the three models does not map: this also shows that the comparison can fail."""
    for table in ("_OFFICIAL", "_OURS"):
        rows = getattr(names, table)
        monkeypatch.setattr(names, table, rows[:row] + rows[row + 1 :])
    vocos = build_on_meta(tiny.descant_config(vocoder="vocos")).tensors()
    assert differences(modules("7b"), official("7b")) or any(to_official(name) is None for name in vocos)


def test_other_vocoder_round_trips() -> None:
    for name in build_on_meta(tiny.descant_config(vocoder="vocos")).tensors():
        official_name = to_official(name)
        assert official_name is not None
        assert to_ours(official_name) == name
        assert "bigvgan" not in official_name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "thinker.model.layers.0.self_attn.o_proj.bias",
        "thinker.audio_tower.layers.0.self_attn.k_proj.bias",
        "thinker.model.language_model.embed_tokens.weight",
        "thinker.model.embed_tokens.weight.extra",
        "talker.model.layers.x.input_layernorm.weight",
        "xthinker.lm_head.weight",
    ],
)
def test_unknown_names_are_not_guessed(name: str) -> None:
    assert to_ours(name) is None


def test_only_the_computed_buffer_is_optional() -> None:
    assert [n for n in modules("7b") if OPTIONAL.fullmatch(n)] == ["token2wav.dit.rotary_embed.inv_freq"]
