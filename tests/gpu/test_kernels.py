"""Every kernel on the card is its torch twin, in the shapes of the official models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from descant.model.block_attention import rotate_pairs
from descant.model.dit import modulate
from descant.model.vocoder import filters, snake
from descant.nn.fusion import silu_mul
from descant.nn.kernels import OPERATIONS, TOLERANCES, Operation, left_out, numbers, unfit
from descant.nn.norm import rms_norm
from descant.nn.pages import attend_pages
from descant.nn.rope import turn_heads

HALF_AND_FULL = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def fit(cuda: torch.device) -> Iterator[None]:
    if (reason := unfit(cuda)) is not None:
        pytest.skip(reason)
    with torch.inference_mode():
        yield


def check(operation: Operation, *given: Any) -> None:
    """The kernel gives what the twin gives, and writes what it writes."""
    mine, theirs = ([x.clone() if isinstance(x, Tensor) else x for x in given] for _ in range(2))
    assert operation.fits(mine[0]), operation.faults
    found = operation(*mine)
    with left_out([operation.name]):
        wanted = operation(*theirs)
    near = TOLERANCES[given[0].dtype]
    for a, b in zip((found, *mine), (wanted, *theirs), strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_kernel_is_used_once_it_gives_what_torch_gives(
    cuda: torch.device, operation: Operation, dtype: torch.dtype
) -> None:
    assert operation.fault(cuda, dtype) is None


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize(("queries", "heads", "dim"), [(28, 4, 128), (16, 2, 128), (12, 4, 128), (14, 2, 64)])
@pytest.mark.parametrize("lengths", [(0,), (1, 15, 16, 17, 1023), (5000, 0, 1024)])
def test_attention_to_pages(
    cuda: torch.device, queries: int, heads: int, dim: int, lengths: tuple[int, ...], dtype: torch.dtype
) -> None:
    rows, size = len(lengths), 16
    most = max(lengths) // size + 1
    pages = (torch.randperm(rows * most, generator=torch.Generator().manual_seed(0)) + 1).view(most, rows).to(cuda)
    store = numbers(((rows * most + 1) * size, 2, heads, dim), cuda, dtype)
    both = numbers((rows, queries + 2 * heads, dim), cuda, dtype, 1)
    new = both[:, queries:].view(rows, 2, heads, dim)
    check(attend_pages, both[:, :queries], new, store, pages, torch.tensor(lengths, device=cuda), size)


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize("rows", [1, 32, 500])
def test_what_stands_between_products(cuda: torch.device, rows: int, dtype: torch.dtype) -> None:
    for width in (3584, 2048, 896):
        check(rms_norm, numbers((rows, 1, width), cuda, dtype), numbers((width,), cuda, dtype, 1), 1e-6)
    for width in (18944, 11008, 4864):
        check(silu_mul, numbers((rows, 1, 2 * width), cuda, dtype))
    cos, sin = numbers((2, rows, 1, 1, 128), cuda, torch.float32, 1).unbind()
    check(turn_heads, numbers((rows, 1, 32, 128), cuda, dtype), cos, sin)


@pytest.mark.parametrize("frames", [24, 48, 144])
def test_what_stands_between_products_of_the_dit(cuda: torch.device, frames: int) -> None:
    scale, shift = numbers((2, 1, 1, 1024), cuda, torch.float32, 1).unbind()
    check(modulate, numbers((2, frames, 1024), cuda, torch.float32), scale, shift, 1e-6)
    cos, sin = numbers((2, frames, 1, 64), cuda, torch.float32, 1).unbind()
    check(rotate_pairs, numbers((2, frames, 2, 64), cuda, torch.float32), cos, sin)


@pytest.mark.parametrize(("channels", "times"), [(768, 290), (96, 6960), (24, 13920), (24, 13919)])
def test_the_snake(cuda: torch.device, channels: int, times: int) -> None:
    x = numbers((2, channels, 1, times), cuda, torch.float32).contiguous(memory_format=torch.channels_last)
    frequency, height = (numbers((channels, 1, 1), cuda, torch.float32, seed).exp() for seed in (1, 2))
    check(snake, x, frequency, height, filters(frequency.flatten(), 2.0), filters(frequency.flatten()))
