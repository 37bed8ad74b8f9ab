"""The decoder against the reference's text body: positions, grouped heads, masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from descant.model import decoder
from descant.nn import attention, fusion, norm, rope
from tests.parity.reference import BROKEN, TOLERANCE, Pair, Shape, noise, relative, talker_pair, thinker_pair

PAIRS: dict[str, Callable[[], Pair]] = {
    "thinker 7b": lambda: thinker_pair("7b"),
    "thinker 3b": lambda: thinker_pair("3b"),
    "talker 7b": lambda: talker_pair("7b"),
    "talker 3b": lambda: talker_pair("3b"),
}
B, T = 2, 23


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, Pair]:
    return request.param, PAIRS[request.param]()


def scattered_positions() -> Tensor:
    """Ids that differ on every axis and sample, as pictures and sounds make them, (3, B, T)."""
    steps = torch.randint(0, 4, (3, B, T), generator=torch.Generator().manual_seed(5))
    return steps.cumsum(-1)


def body(name: str, pair: Pair) -> Any:
    return pair.reference.model.language_model if name.startswith("thinker") else pair.reference.model


def difference(name: str, pair: Pair, mask: Tensor | None = None) -> float:
    x, positions = noise(B, T, pair.ours.decoder.cfg.hidden_size, seed=3), scattered_positions()
    with torch.no_grad():
        expected = body(name, pair)(
            inputs_embeds=x, position_ids=positions, attention_mask=None if mask is None else mask.long()
        ).last_hidden_state
        ours = pair.ours.decoder(x, positions, None, mask)
    real = torch.ones(B, T, dtype=torch.bool) if mask is None else mask
    return relative(ours[real], expected[real])


@pytest.mark.parametrize("padded", [False, True])
def test_parity(pair: tuple[str, Pair], padded: bool, record: Callable[[str, str, float], None]) -> None:
    mask = None
    if padded:
        mask = torch.ones(B, T, dtype=torch.bool)
        mask[0, :9] = False
    worst = difference(*pair, mask)
    record("decoder", f"{pair[0]}, {'left-padded' if padded else 'plain'}", worst)
    assert worst < TOLERANCE


def _interleaved_axes(section: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    return torch.arange(sum(section), device=device) % 3


def _reversed_axes(section: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    return 2 - _axes(section, device)


def _turn_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    partner = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return x * cos + partner * sin


def _tiled_heads(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    times = q.shape[1] // k.shape[1]
    return _attention(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1), mask, causal=causal)


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)


_axes, _attention, _frequencies = rope.frequency_axes, attention.grouped_attention, rope.inverse_frequencies
BREAKS: dict[str, tuple[Any, str, Any]] = {
    "sections interleaved": (rope, "frequency_axes", _interleaved_axes),
    "sections reversed": (rope, "frequency_axes", _reversed_axes),
    "interleaved pairs": (decoder, "turn", _turn_pairs),
    "theta": (rope, "inverse_frequencies", lambda dim, theta, device=None: _frequencies(dim, theta / 2, device)),
    "not causal": (decoder, "grouped_attention", lambda q, k, v, mask, causal: _attention(q, k, v, mask, causal=False)),
    "gelu for silu": (fusion.F, "silu", F.gelu),
    "layer norm": (norm, "rms_normalise", _layer_norm),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(pair: tuple[str, Pair], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, broken = BREAKS[name]
    expected = _expected(*pair)
    with monkeypatch.context() as patch:
        patch.setattr(rope, "followed_frequencies", rope.followed_frequencies.__wrapped__)  # nothing is kept
        patch.setattr(where, attribute, broken)
        assert _against(pair[1], expected) > BROKEN


def test_grouped_heads_in_the_wrong_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = thinker_pair("7b")  # 4 query heads, 2 key heads: tiled and repeated heads differ
    expected = _expected("thinker 7b", pair)
    monkeypatch.setattr(decoder, "grouped_attention", _tiled_heads)
    assert _against(pair, expected) > BROKEN


def _expected(name: str, pair: Pair) -> Tensor:
    """The reference first: some breaks replace functions of torch that it uses too."""
    x = noise(B, T, pair.ours.decoder.cfg.hidden_size, seed=3)
    with torch.no_grad():
        out: Tensor = body(name, pair)(inputs_embeds=x, position_ids=scattered_positions()).last_hidden_state
    return out


def _against(pair: Pair, expected: Tensor) -> float:
    x = noise(B, T, pair.ours.decoder.cfg.hidden_size, seed=3)
    with torch.no_grad():
        return relative(pair.ours.decoder(x, scattered_positions()), expected)


def test_shapes_are_the_official_ones_in_small() -> None:
    shapes: dict[Shape, tuple[bool, int]] = {"7b": (True, 3), "3b": (False, 0)}
    for shape, (wider, last) in shapes.items():
        cfg = talker_pair(shape).ours.decoder.cfg
        assert (cfg.num_attention_heads * cfg.head_dim != cfg.hidden_size) == wider
        assert cfg.mrope_section[2] == last
