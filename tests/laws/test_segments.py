"""Attention in one kernel over segments of any length is given the borders of those segments."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from descant.nn import attention
from descant.nn.attention import borders, can_varlen, segment_attention


def in_turn(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, ends_k: Tensor, longest: int, longest_k: int) -> Tensor:
    """What the kernel computes, segment by segment."""
    assert torch.equal(ends, ends_k) and ends.dtype is torch.int32
    assert longest == longest_k == int(ends.diff().max())
    parts = [
        torch.einsum(
            "hqs,shd->qhd", (torch.einsum("qhd,shd->hqs", q[a:b], k[a:b]) / q.shape[-1] ** 0.5).softmax(-1), v[a:b]
        )
        for a, b in pairwise(ends.tolist())
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("runs", [[(3, 2), (2, 5), (1, 7)], [(1, 4), (4, 6)]])
def test_one_kernel_reads_the_same_segments(runs: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(sum(n * length for n, length in runs), 2, 8) for _ in range(3))
    apart = segment_attention(q, k, v, runs)
    monkeypatch.setattr(attention, "can_varlen", lambda device, dtype, dim: True)
    monkeypatch.setattr(attention, "varlen_attention", lambda: in_turn)
    torch.testing.assert_close(segment_attention(q, k, v, runs), apart, rtol=1e-5, atol=1e-5)


def test_borders_are_kept_and_may_be_learnt_with() -> None:
    with torch.inference_mode():
        ends = borders(((2, 3), (1, 4)), torch.device("cpu"))
    assert ends.tolist() == [0, 3, 6, 10] and not ends.is_inference()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_has_no_such_kernel(dtype: torch.dtype) -> None:
    assert not can_varlen(torch.device("cpu"), dtype, 64)
    assert not can_varlen(torch.device("cuda"), torch.float32, 64)
    assert not can_varlen(torch.device("cuda"), torch.bfloat16, 12)
