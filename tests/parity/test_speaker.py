"""ECAPA against the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from descant.model import speaker
from tests.parity.token2wav import BROKEN, TOLERANCE, draw, pair, relative
from tests.tiny_speech import MELS


def difference(ref_mel: Tensor) -> float:
    reference, ours = pair()
    with torch.no_grad():
        expected = reference.code2wav_dit_model.input_embed.spk_encoder(ref_mel)
        return relative(ours.dit.input_embed.spk_encoder(ref_mel), expected)


@pytest.mark.parametrize("frames", [5, 30, 203])
def test_parity(frames: int, record: Callable[[str, str, float], None]) -> None:
    worst = difference(draw(2, frames, MELS))
    record("ECAPA", f"{frames} reference frames", worst)
    assert worst < TOLERANCE


def test_parity_of_the_null_reference() -> None:
    assert difference(torch.zeros(1, 30, MELS)) < TOLERANCE


def no_std(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * x).sum(dim=2, keepdim=True)
    return mean, (weights * (x - mean).square()).sum(dim=2, keepdim=True)


BREAKS: dict[str, tuple[type, str, object]] = {
    "no squeeze-excite": (speaker.SqueezeExcite, "forward", lambda self, x: x),
    "variance for deviation": (speaker.AttentiveStatistics, "moments", staticmethod(no_std)),
    "no res2net": (speaker.Res2Net, "forward", lambda self, x: x),
    "no relu": (speaker.TimeDelay, "forward", lambda self, x: self.conv(x)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, replacement = BREAKS[name]
    monkeypatch.setattr(owner, attribute, replacement)
    assert difference(draw(2, 30, MELS)) > BROKEN
