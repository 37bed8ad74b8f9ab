"""Rotary positions (arXiv 2104.09864) in the half-split layout: dimension i is paired with i + head_dim / 2.

TMRoPE (the Qwen2.5-Omni report, section 2.2): each token has three ids (time, height, width) and every frequency
follows one of them. The vision encoder uses two (row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

from descant.nn.kernels import Operation, numbers


def inverse_frequencies(dim: int, theta: float, device: torch.device | None = None) -> Tensor:
    """theta ** (-2i / dim), (dim / 2,) float32."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    return 1.0 / (theta**exponents)


def frequency_axes(section: Sequence[int], device: torch.device | None = None) -> Tensor:
    """The axis (0 time, 1 height, 2 width) that each frequency follows, (sum(section),) int64.

    The official layout is contiguous, not interleaved: section [16, 24, 24] gives 16 frequencies to time first.
    """
    places = torch.arange(sum(section), device=device)
    axes = torch.zeros_like(places)  # made on the device: a copy from the host would wait, and cannot be captured
    for end in accumulate(section[:-1]):
        axes = axes + (places >= end)
    return axes


@cache  # and never let go: captured steps read them
@torch.inference_mode(False)  # whoever asks first: a training step may be the next
def followed_frequencies(
    dim: int, theta: float, section: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """``frequency_axes`` and ``inverse_frequencies``, made once."""
    return frequency_axes(section, device), inverse_frequencies(dim, theta, device)


def mrope(positions: Tensor, head_dim: int, theta: float, section: Sequence[int]) -> tuple[Tensor, Tensor]:
    """cos and sin (B, T, head_dim) float32, for ``turn``, of TMRoPE ids positions (3, B, T); section sums to
    head_dim / 2."""
    axes, frequencies = followed_frequencies(head_dim, theta, tuple(section), positions.device)
    followed = positions.index_select(0, axes).permute(1, 2, 0)  # (B, T, head_dim / 2)
    return _cos_sin(followed.float() * frequencies)


def axial(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin (N, head_dim) float32, for ``turn``, of patch positions (N, 2) = (row, column).

    A quarter of head_dim follows the row, the next quarter the column; the second half repeats the first.
    """
    frequencies = inverse_frequencies(head_dim // 2, theta, positions.device)
    angles = positions.float().unsqueeze(-1) * frequencies  # (N, 2, head_dim / 4)
    return _cos_sin(angles.flatten(1))


def _cos_sin(angles: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Turn q (..., Hq, D) and k (..., Hk, D) by cos, sin (..., D); in float32, returned in their own dtype."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return turn(q, cos, sin), turn(k, cos, sin)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (..., D) turned by cos, sin that broadcast against it; in float32, returned in its own dtype."""
    return turned(x, cos, sin).to(x.dtype)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``turn``, returned in float32: for who writes it into another tensor, which casts it by itself.

    The first half of sin is negative: so halves that change places need no other sign.
    """
    first, second = x.chunk(2, dim=-1)  # in x's own dtype: the products are computed in that of cos and sin
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)


def turn_in_place(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """See ``turn_heads``."""
    heads.copy_(turned(heads, cos, sin))


def heads_example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Three of five heads of four tokens."""
    angles = numbers((2, 2, 1, 8), device, torch.float32, 1)
    return (numbers((2, 2, 5, 16), device, dtype).narrow(2, 0, 3), *_cos_sin(angles))


# heads (B, T, H, D), some of the neighbours in one tensor of heads, turned in place by cos, sin (B, T, 1, D) float32
turn_heads = Operation(
    "turn_heads(Tensor(a!) heads, Tensor cos, Tensor sin) -> ()",
    turn_in_place,
    lambda *_: None,
    heads_example,
)
