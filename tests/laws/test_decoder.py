"""The decoder: any cuts == whole, batched == alone, padded == bare; its cache; half precision; gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descant.config import DecoderConfig
from descant.model.decoder import Decoder
from descant.nn.attention import causal_mask, grouped_attention
from descant.nn.init import init_normal
from tests import decoding
from tests.decoding import KVCache, sequential_positions

CFG = DecoderConfig(40, 24, 24, 48, 3, 4, 2, 8, (1, 1, 2), rope_theta=1e4)
T = 90  # more than the cache's first buffer, so that it grows
LAW = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def body() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CFG).eval()


def rows(batch: int, length: int = T, seed: int = 0) -> Tensor:
    return torch.randn(batch, length, CFG.hidden_size, generator=torch.Generator().manual_seed(seed))


def ids(batch: int, length: int = T) -> Tensor:
    steps = torch.randint(0, 3, (3, batch, length), generator=torch.Generator().manual_seed(9))
    return steps.cumsum(-1)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def in_pieces(body: Decoder, x: Tensor, positions: Tensor, cuts: list[int], mask: Tensor | None = None) -> Tensor:
    cache, parts = KVCache.empty(CFG.num_hidden_layers, mask), []
    for a, b in pairwise(sorted({0, *cuts, x.shape[1]})):
        part = body(x[:, a:b], positions[..., a:b], cache)
        assert cache.length == b
        parts.append(part)
    return torch.cat(parts, dim=1)


@LAW
@given(cuts=st.lists(st.integers(1, T - 1), max_size=8))
@torch.no_grad()
def test_any_cuts_are_the_whole(body: Decoder, cuts: list[int]) -> None:
    close(in_pieces(body, rows(2), ids(2), cuts), body(rows(2), ids(2)))


@torch.no_grad()
def test_token_by_token_is_the_whole(body: Decoder) -> None:
    close(in_pieces(body, rows(1), ids(1), [20, *range(21, T)]), body(rows(1), ids(1)))


@LAW
@given(pads=st.lists(st.integers(0, 30), min_size=2, max_size=4), cuts=st.lists(st.integers(1, T - 1), max_size=4))
@torch.no_grad()
def test_left_padded_together_is_alone(body: Decoder, pads: list[int], cuts: list[int]) -> None:
    x, positions = rows(len(pads)), ids(len(pads))
    mask = torch.arange(T) >= torch.tensor(pads)[:, None]
    together = in_pieces(body, x, positions, cuts, mask)
    assert together.isfinite().all()
    for i, pad in enumerate(pads):
        close(together[i : i + 1, pad:], body(x[i : i + 1, pad:], positions[:, i : i + 1, pad:]))


@torch.no_grad()
def test_a_mask_beside_a_cache_is_refused(body: Decoder) -> None:
    with pytest.raises(AssertionError, match="only without one"):
        body(rows(1, 3), ids(1, 3), KVCache.empty(CFG.num_hidden_layers), torch.ones(1, 3, dtype=torch.bool))


@torch.no_grad()
def test_padding_on_the_right_needs_no_mask(body: Decoder) -> None:
    x, positions = rows(2), ids(2)
    junk = x.clone()
    junk[0, 50:] = 100.0
    close(body(junk, positions)[0, :50], body(x, positions)[0, :50])


def test_sessions_share_weights_and_nothing_else(body: Decoder) -> None:
    with torch.no_grad():
        one, two, third = (KVCache.empty(CFG.num_hidden_layers) for _ in range(3))
        body(rows(1, 5, seed=1), ids(1, 5), one)
        body(rows(1, 9, seed=2), ids(1, 9), two)
        mixed = body(rows(1, 4, seed=3), ids(1, 4), one)
        body(rows(1, 5, seed=1), ids(1, 5), third)
        alone = body(rows(1, 4, seed=3), ids(1, 4), third)
    assert (one.length, two.length) == (9, 9)
    assert torch.equal(mixed, alone)


def test_the_plain_paths_build_no_mask() -> None:
    device = torch.device("cpu")
    assert causal_mask(100, 0, None, device) is None
    assert causal_mask(1, 100, None, device) is None
    assert causal_mask(2, 3, None, device).tolist() == [[[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]]  # type: ignore[union-attr]
    lone = causal_mask(1, 2, torch.tensor([[False, False, False]]), device)
    assert lone is not None and lone.tolist() == [[[[0, 0, 1]]]]
    padded = causal_mask(2, 1, torch.tensor([[False, False, True]]), device)
    assert padded is not None and padded.tolist() == [[[[0, 1, 0], [0, 0, 1]]]]  # a padding query sees itself


def test_laws_fail_when_the_mask_is_wrong(body: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = body(rows(1), ids(1))
    monkeypatch.setattr(decoding, "causal_mask", lambda new, past, valid, device: None)
    assert (in_pieces(body, rows(1), ids(1), [30]) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_one_query_folds_its_groups() -> None:
    q, k, v = (torch.randn(2, heads, 7, 8) for heads in (6, 2, 2))
    last = grouped_attention(q[:, :, -1:], k, v, None, causal=False)
    close(last, grouped_attention(q, k, v, None, causal=True)[:, -1:])
    valid = torch.rand(2, 7) > 0.4
    mask = causal_mask(1, 6, valid, q.device)
    whole = causal_mask(7, 0, valid, q.device)
    close(grouped_attention(q[:, :, -1:], k, v, mask, causal=False),
          grouped_attention(q, k, v, whole, causal=False)[:, -1:])  # fmt: skip


def test_gradients_are_finite_and_padding_gives_none(body: Decoder) -> None:
    x = rows(2).requires_grad_()
    mask = torch.arange(T) >= torch.tensor([[30], [0]])
    hidden = body(x, ids(2), None, mask)
    hidden[mask].square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert (x.grad[0, :30] == 0).all() and (x.grad[0, 30:] != 0).any()
    for name, weight in body.named_parameters():
        assert name == "embed_tokens.weight" or (weight.grad is not None and weight.grad.isfinite().all()), name
    body.zero_grad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    body = Decoder(CFG).eval()
    expected = body(rows(1), ids(1))
    half = body.to(dtype)
    hidden = half(rows(1).to(dtype), ids(1))
    assert hidden.dtype == dtype
    torch.testing.assert_close(hidden.float(), expected, rtol=0.1, atol=0.1)
    streamed = in_pieces(half, rows(1).to(dtype), ids(1), [40, 41])
    torch.testing.assert_close(streamed.float(), hidden.float(), rtol=0.05, atol=0.05)


def test_positions_reach_far_in_float32() -> None:
    """Rotary tables are float32 whatever the weights are: ids beyond 256 are not whole numbers in bfloat16."""
    body = Decoder(CFG).to(torch.bfloat16).eval()
    with torch.no_grad():
        near = body(rows(1, 3).bfloat16(), sequential_positions(1, 0, 3))
        far = body(rows(1, 3).bfloat16(), sequential_positions(1, 30_001, 3))
    torch.testing.assert_close(near.float(), far.float(), rtol=0.05, atol=0.05)  # attention is relative


def test_init_normal_is_for_training() -> None:
    body = Decoder(CFG)
    init_normal(body, std=0.02)
    assert body.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.2)
    biases = [p for n, p in body.named_parameters() if n.endswith("bias")]
    assert biases and not any(p.any() for p in biases)
    assert all((p == 1).all() for n, p in body.named_parameters() if "norm" in n)
