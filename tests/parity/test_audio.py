"""The audio encoder against the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from descant.config import AudioConfig, audio_tokens
from descant.model import audio
from tests.parity.reference import BROKEN, MELS, PROMISE, TOLERANCE, Pair, noise, relative, thinker_pair

CASES = {
    "0.03 s": [3],
    "2 s": [200],
    "2.01 s": [201],
    "31 s": [3100],
    "31.03 s": [3103],
    "several": [3, 200, 201, 457, 64, 1000, 399],
}


@pytest.fixture(scope="module")
def pair() -> Pair:
    return thinker_pair()


def difference(pair: Pair, frames: list[int]) -> float:
    clips = [noise(MELS, n, seed=n) for n in frames]
    with torch.no_grad():
        tower = pair.reference.model.audio_tower
        lengths = torch.tensor(frames)
        expected = tower(torch.cat(clips, dim=1), feature_lens=lengths).last_hidden_state
        rows = pair.ours.audio(clips)
    counts = [r.shape[0] for r in rows]
    assert counts == [audio_tokens(n) for n in frames] == tower._get_feat_extract_output_lengths(lengths)[1].tolist()
    return relative(torch.cat(rows), expected)


@pytest.mark.parametrize("case", CASES)
def test_parity(pair: Pair, case: str, record: Callable[[str, str, float], None]) -> None:
    worst = difference(pair, CASES[case])
    record("audio encoder", case, worst)
    assert worst < TOLERANCE


def _shifted_positions(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    return _sinusoids(length + 1, dim, device)[1:]


def _interleaved_positions(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    first, second = _sinusoids(length, dim, device).chunk(2, dim=1)
    return torch.stack((first, second), dim=2).flatten(1)


_sinusoids = audio.sinusoids
BREAKS = {
    "tanh gelu": ("gelu", lambda x: F.gelu(x, approximate="tanh")),
    "positions start at one": ("sinusoids", _shifted_positions),
    "positions interleaved": ("sinusoids", _interleaved_positions),
    "pooling keeps the first": ("pool_pairs", lambda x: x[: x.shape[0] // 2 * 2 : 2]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, broken = BREAKS[name]
    monkeypatch.setattr(audio, attribute, broken)
    limit = PROMISE if name == "tanh gelu" else BROKEN  # the two gelus differ by 4e-4 at most
    assert difference(pair, [457]) > limit


def test_positions_that_do_not_restart_are_seen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AudioConfig, "block_frames", property(lambda self: 100_000))
    assert difference(pair, [457]) > BROKEN


def test_padding_that_leaks_is_seen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "conv_lengths", lambda frames: frames)
    assert difference(pair, [150, 64]) > BROKEN
