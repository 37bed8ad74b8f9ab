"""Attention without dense masks where the structure is known: causal, over many independent segments, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from inspect import signature
from itertools import accumulate, chain, repeat

import torch
from torch import Tensor
from torch.nn import functional as F


@cache
def varlen_attention(*options: str) -> Callable[..., Tensor] | None:
    """torch's attention over segments of any length, one kernel for all; None where torch has none with ``options``.

    It is imported when it is asked for, on CUDA alone: with it comes torch's compiler, which takes a second.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = signature(varlen_attn).parameters
    return varlen_attn if all(option in known for option in options) else None  # type: ignore[return-value]


def packed_kernel(device: torch.device, dtype: torch.dtype, dim: int) -> Callable[..., Tensor] | None:
    """One kernel for new tokens of many sequences, each behind a past of its own; None where there is none.

    It takes q (T, Hq, D), k and v (S, Hk, D) of all sequences, one after another, the borders of the new tokens and of
    all tokens (N + 1,) int32, and the longest of either -> (T, Hq, D). A query sees its sequence up to itself.
    """
    if not can_varlen(device, dtype, dim):
        return None
    attend = varlen_attention("window_size", "enable_gqa")
    return None if attend is None else partial(attend, window_size=(-1, 0), enable_gqa=True)


def causal_mask(new: int, past: int, valid: Tensor | None, device: torch.device) -> Tensor | None:
    """The mask of ``new`` queries after ``past`` keys: bool (B or 1, 1, T, S), or None where none is needed.

    valid (B, S) bool marks real tokens (False: padding); S = past + new. A padding query sees itself, so that no
    row of the softmax is empty and no NaN can reach a gradient.
    """
    if valid is None:
        if past == 0 or new == 1:
            return None  # is_causal=True says it all, or one query sees every key
        return _seen(new, past, device)[None, None]
    mask = valid[:, None, None, :]
    own = torch.eye(new, past + new, dtype=torch.bool, device=device).roll(past, dims=1)
    return (mask & _seen(new, past, device)) | own


def _seen(new: int, past: int, device: torch.device) -> Tensor:
    return torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(D)) v; q (B, Hq, T, D), k and v (B, Hk, S, D), Hq a multiple of Hk -> (B, T, Hq * D)."""
    batch, heads, new, dim = q.shape
    groups = heads // k.shape[1]
    if new == 1:  # the heads of a group become queries of one head: the cached keys are read once, not once per head
        out = F.scaled_dot_product_attention(q.reshape(batch, -1, groups, dim), k, v, attn_mask=mask)
        return out.reshape(batch, 1, heads * dim)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=groups > 1)
    return out.transpose(1, 2).flatten(2)


def segment_attention(q: Tensor, k: Tensor, v: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
    """Full attention inside each of many segments laid one after another; nothing crosses a border.

    q, k, v (N, H, D); runs: (segments, length) of neighbours of equal length, so that each run is one batch
    without padding; sum of segments * length = N. Returns (N, H * D).
    """
    heads, dim = q.shape[1:]
    if len(runs) > 1 and can_varlen(q.device, q.dtype, dim) and (attend := varlen_attention()) is not None:
        ends, longest = borders(tuple(runs), q.device), max(length for _, length in runs)
        return attend(q, k, v, ends, ends, longest, longest).flatten(1)
    outs: list[Tensor] = []
    start = 0
    for segments, length in runs:
        stop = start + segments * length
        shape = (segments, length, heads, dim)
        parts = [x[start:stop].reshape(shape).transpose(1, 2) for x in (q, k, v)]
        out = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        outs.append(out.transpose(1, 2).reshape(segments * length, heads * dim))
        start = stop
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def can_varlen(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """True where the kernels of ``varlen_attention`` run: half precision on CUDA."""
    if device.type != "cuda":
        return False
    if dtype not in (torch.float16, torch.bfloat16) or dim % 8 or dim > 256:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@lru_cache(maxsize=16)
def borders(runs: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Where segments begin and the last one ends, (segments + 1,) int32. Kept, because every layer asks again."""
    lengths = chain.from_iterable(repeat(length, segments) for segments, length in runs)
    with torch.inference_mode(False):  # a training step may be the next to ask
        return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
