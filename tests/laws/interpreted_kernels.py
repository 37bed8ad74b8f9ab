"""The programs of ``nn.programs`` are their twins, by Triton's interpreter on the CPU.

``test_kernels.py`` runs this file in a process of its own, where TRITON_INTERPRET=1 stands before Triton is imported.
Shapes are random and small: the interpreter takes 20 us for each operation of each program.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from descant.model.block_attention import rotate_pairs
from descant.model.dit import modulate
from descant.model.vocoder import filters, snake
from descant.nn import programs
from descant.nn.fusion import silu_mul
from descant.nn.kernels import TOLERANCES, Operation, numbers
from descant.nn.norm import rms_norm
from descant.nn.pages import attend_pages
from descant.nn.rope import turn_heads

CPU = torch.device("cpu")
HALF_AND_FULL = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Products of bfloat16, which the interpreter keeps as whole numbers and would multiply as such; few splits."""
    product = InterpreterBuilder.create_dot

    def widened(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        a, b = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return product(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", widened)
    monkeypatch.setattr(programs, "PAST_SPLITS", 4)
    with torch.inference_mode():
        yield


def check(operation: Operation, *given: Any) -> None:
    """The program gives what the twin gives, and writes what it writes."""
    mine, theirs = ([x.clone() if isinstance(x, Tensor) else x for x in given] for _ in range(2))
    compare(operation, mine, theirs)


def compare(operation: Operation, mine: list[Any], theirs: list[Any]) -> None:
    launches, found = programs.LAUNCHES[operation.name](*mine)
    for launch in launches:
        launch.run()
    near = TOLERANCES[mine[0].dtype]
    wanted = operation.twin(*theirs)
    for a, b in zip((found, *mine), (wanted, *theirs), strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b, rtol=near, atol=near, equal_nan=True)


# groups of queries, heads of keys, dim, tokens of a page, tokens before
ATTENTIONS = [
    (7, 2, 8, 16, (0, 40), torch.float32),
    (3, 1, 24, 3, (1, 2, 3, 150), torch.float32),
    (1, 2, 16, 4, (4, 67), torch.bfloat16),
    (6, 1, 32, 1, (130,), torch.bfloat16),
]


@pytest.mark.parametrize(("group", "heads", "dim", "size", "lengths", "dtype"), ATTENTIONS)
def test_attention_to_pages(
    group: int, heads: int, dim: int, size: int, lengths: tuple[int, ...], dtype: torch.dtype
) -> None:
    rows, most = len(lengths), max(lengths) // size + 3
    free = random.Random(dim).sample(range(1, rows * most + 1), rows * most)
    pages = torch.tensor(free).view(most, rows)  # behind those of a row anybody's
    store = numbers(((rows * most + 1) * size, 2, heads, dim), CPU, dtype)
    store[:size] = 0.0
    for row, length in enumerate(lengths):  # what is not written may be no number
        slots = (pages[:, row, None] * size + torch.arange(size)).flatten()
        store[slots[length:]] = float("nan")
    both = numbers((rows, 1, (group + 2) * heads, dim), CPU, dtype, 1)
    q, new = both[:, 0, : group * heads], both[:, 0, group * heads :].view(rows, 2, heads, dim)
    words = torch.tensor([[5, length] for length in lengths])
    wanted = store.clone()
    compare(attend_pages, [q, new, store, pages, words[:, 1], size], [q, new, wanted, pages, words[:, 1], size])
    assert store[pages[lengths[0] // size, 0] * size + lengths[0] % size].isfinite().all()


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 20), (2, 130)])
def test_the_norm(rows: int, width: int, dtype: torch.dtype) -> None:
    check(rms_norm, 3 * numbers((rows, 1, width), CPU, dtype), numbers((width,), CPU, dtype, 1), 1e-6)


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize("width", [1, 20, 1100])
def test_the_gate(width: int, dtype: torch.dtype) -> None:
    check(silu_mul, 3 * numbers((2, 1, 2 * width), CPU, dtype))


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize("sizes", [(1, 1, 3, 2, 4), (2, 3, 5, 4, 12), (3, 1, 7, 7, 8)])
def test_turned_heads(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    batch, new, heads, turning, dim = sizes
    cos, sin = numbers((2, batch, new, 1, dim), CPU, torch.float32, 1).unbind()
    mine, theirs = (numbers((batch, new, heads, dim), CPU, dtype) for _ in range(2))
    compare(turn_heads, [mine.narrow(2, 0, turning), cos, sin], [theirs.narrow(2, 0, turning), cos, sin])
    torch.testing.assert_close(mine, theirs, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])  # the others as they were


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize(("batch", "own", "width"), [(1, 1, 1), (2, 2, 20), (3, 1, 34)])
def test_the_modulation(batch: int, own: int, width: int, dtype: torch.dtype) -> None:
    rows = numbers((own, 1, 3 * width), CPU, dtype, 1)
    _, scale, shift = rows.chunk(3, dim=-1)
    check(modulate, 3 + 2 * numbers((batch, 4, width), CPU, dtype), scale, shift, 1e-6)


@pytest.mark.parametrize("dtype", HALF_AND_FULL)
@pytest.mark.parametrize(("batch", "times", "heads", "dim"), [(1, 1, 1, 2), (2, 3, 2, 12)])
def test_rotated_pairs(batch: int, times: int, heads: int, dim: int, dtype: torch.dtype) -> None:
    cos, sin = numbers((2, times + 2, 1, dim), CPU, torch.float32, 1)[:, 2:].unbind()
    mine, theirs = (numbers((batch, times, 3, heads, dim), CPU, dtype) for _ in range(2))
    compare(rotate_pairs, [mine[:, :, :2, 0], cos, sin], [theirs[:, :, :2, 0], cos, sin])
    torch.testing.assert_close(mine, theirs, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])  # the others as they were


@pytest.mark.parametrize(("batch", "channels", "times"), [(2, 3, 1), (1, 33, 5), (2, 2, 39), (1, 40, 33)])
def test_the_snake(batch: int, channels: int, times: int) -> None:
    x = numbers((batch, channels, 1, times + 4), CPU, torch.float32).contiguous(memory_format=torch.channels_last)
    frequency, height = (numbers((channels, 1, 1), CPU, torch.float32, seed).exp() for seed in (1, 2))
    up, down = (filters(frequency.flatten(), gain) for gain in (2.0, 1.0))
    compare(snake, [x[..., 2:-2], frequency, height, up, down], [x[..., 2:-2], frequency, height, up, down])
