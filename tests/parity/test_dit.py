"""The DiT's velocity against the reference, with the doubled batch of guidance and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from descant.model import block_attention, dit
from descant.model.dit import Condition
from tests.parity.token2wav import BROKEN, TOLERANCE, draw, pair, relative
from tests.tiny_speech import CODES, DIT, MELS, SPEAKER

SHAPES = {"7 blocks": (84, 2), "a partial last block": (53, 2), "one frame pair": (1, 2), "25 Hz": (29, 4)}


def inputs(count: int, repeats: int, batch: int = 2) -> tuple[Tensor, Tensor, Condition]:
    codes = torch.randint(0, CODES + 1, (batch, count), generator=torch.Generator().manual_seed(3))
    cond = Condition(codes, draw(batch, SPEAKER, seed=4), draw(batch, 30, MELS, seed=5))
    return draw(batch, count * repeats, MELS, seed=6), torch.tensor([0.3, 0.85])[:batch], cond


def difference(count: int, repeats: int) -> float:
    """Both halves of the reference's doubled batch against two conditions of ours."""
    reference, ours = pair(replace(DIT, repeats=repeats))
    x, t, cond = inputs(count, repeats)
    with torch.no_grad():
        expected = reference.code2wav_dit_model(
            hidden_states=x,
            condition_vector=cond.ref_mel,
            speaker_embedding=cond.speaker[:, None].expand(-1, x.shape[1], -1),
            quantized_code=cond.codes,
            time_step=t,
        )
        both = torch.cat([ours.dit(x, t, cond), ours.dit(x, t, cond.null())])
    return relative(both, expected)


@pytest.mark.parametrize("name", SHAPES)
def test_parity(name: str, record: Callable[[str, str, float], None]) -> None:
    worst = difference(*SHAPES[name])
    record("DiT velocity", name, worst)
    assert worst < TOLERANCE


def every_head(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x * cos, block_attention.swapped(x), sin)


def half_split(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos[..., 1::2], sin[..., 1::2]
    first, second = x[:, :, :1].chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return torch.cat([turned, x[:, :, 1:]], dim=2)


def own_block_only(x: Tensor, back: int, ahead: int) -> Tensor:
    return x


def mirrored(x: Tensor, back: int, ahead: int) -> Tensor:
    return REAL_NEIGHBOURS(x, ahead, back)


REAL_NEIGHBOURS = block_attention.neighbours
BREAKS: dict[str, tuple[object, str, object]] = {
    "rotary on every head": (block_attention, "rotate_first_head", every_head),
    "rotary on halves": (block_attention, "rotate_first_head", half_split),
    "no rotary": (block_attention, "rotate_first_head", lambda x, cos, sin: x),
    "no look-back, no look-ahead": (block_attention, "neighbours", own_block_only),
    "look-back and look-ahead exchanged": (block_attention, "neighbours", mirrored),
    "time not scaled": (dit, "TIME_SCALE", 1.0),
    "no layer norm": (dit, "modulated", lambda x, scale, shift: x * scale + shift),
    "null reference without ECAPA": (Condition, "null", lambda c: replace(c, codes=c.codes * 0, speaker=c.speaker * 0)),
    "null code 1": (Condition, "null", lambda c: Condition(c.codes * 0 + 1, c.speaker * 0, c.ref_mel * 0)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, replacement = BREAKS[name]
    monkeypatch.setattr(owner, attribute, replacement)
    assert difference(53, 2) > BROKEN
