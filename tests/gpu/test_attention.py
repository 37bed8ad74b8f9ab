"""Attention over segments of unequal length, in one kernel, is attention inside each of them."""

from __future__ import annotations

import pytest
import torch

from descant.nn.attention import can_varlen, segment_attention


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("runs", [[(3, 16), (2, 20), (1, 64)], [(1, 4), (40, 64)], [(5, 64)]])
@pytest.mark.parametrize("dim", [64, 80])
def test_segments_in_half_are_segments_on_the_cpu(
    cuda: torch.device, dtype: torch.dtype, runs: list[tuple[int, int]], dim: int
) -> None:
    if not can_varlen(cuda, dtype, dim):
        pytest.skip("this GPU is older than the kernels of varlen attention")
    total = sum(segments * length for segments, length in runs)
    q, k, v = (torch.randn(total, 4, dim).to(dtype) for _ in range(3))
    expected = segment_attention(q.float(), k.float(), v.float(), runs)
    found = segment_attention(q.to(cuda), k.to(cuda), v.to(cuda), runs)
    torch.testing.assert_close(found.float().cpu(), expected, rtol=2e-2, atol=2e-2)
