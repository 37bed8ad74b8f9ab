"""The Triton programs of ``nn.kernels``, and how each is launched; imported where Triton is, and nowhere else.

A launch is made from tensors by a pure function, on any device: so it is run on CUDA, interpreted on a CPU
(TRITON_INTERPRET=1) and compiled ahead for a card that is not there (``tests/kernels``). Sums and statistics are
float32 whatever the tensors are; results are rounded where the twin rounds.

Axes: B rows, Hq and Hk heads of queries and of keys, D dim of a head, P pages of a row, N rows of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PAST_SPLITS = 16  # of a row's past: fixed, so that a row's numbers do not follow from its neighbours
SNAKE_RUN = 32  # outputs of one walk, which makes six pairs of samples before the first
MIN_DOT = 16  # rows, columns and depth of the smallest product of a tensor core


Args = dict[str, Tensor | int | float]


@dataclass(frozen=True)
class Launch:
    """A program, how many of it, and what it is given: the names of ``args`` and ``constants`` are its parameters."""

    program: Any
    grid: tuple[int, ...]
    args: Args
    constants: Mapping[str, int | str]
    warps: int = 4
    stages: int = 2

    def run(self) -> None:
        """Enqueue it on the current stream."""
        self.program[self.grid](**self.args, **self.constants, num_warps=self.warps, num_stages=self.stages)


Launched = tuple[tuple[Launch, ...], Any]  # what is launched, in order, and the result


def padded(size: int, least: int = 1) -> int:
    """The next power of two, which is what a block of Triton may hold."""
    return max(least, int(triton.next_power_of_2(size)))


# ---------------------------------------------------------------- attention of one query to pages where they lie


@triton.jit
def copied(given, place, mask):
    """Copy from ``given`` to ``place``; the copy as it is read there, in float32."""
    x = tl.load(given, mask=mask, other=0.0).to(place.dtype.element_ty)
    tl.store(place, x, mask=mask)
    return x.to(tl.float32)


@triton.jit
def attended(q, k, v, real, scale, top, total, acc, PRECISION: tl.constexpr):
    """A block of keys and values (BLOCK, WIDTH), those that are ``real``, taken into the running softmax of q (QUERIES,
    WIDTH): the largest score, the sum of exponents and the weighted sum of values, by the largest."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    scores = tl.where(real[None, :], scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, 1))
    chances, kept = tl.exp(scores - higher[:, None]), tl.exp(top - higher)
    acc = acc * kept[:, None] + tl.dot(chances.to(v.dtype), v, input_precision=PRECISION)
    return higher, total * kept + tl.sum(chances, 1), acc


@triton.jit(do_not_specialize=["length_row", "rows"])
def attend_split(
    q_ptr, new_ptr, store_ptr, pages_ptr, lengths_ptr, parts_ptr, sums_ptr, scale, q_row, new_row, length_row, rows,
    SIZE: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, QUERIES: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (row, head of keys, split): the queries of one head over a share of the row's past. The first split
    writes the new token and starts with it; nobody else reads its slot. See ``launch_attention``."""
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths_ptr + row * length_row).to(tl.int32)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    g, d, t = tl.arange(0, QUERIES), tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    own, wide = g < GROUP, d < DIM
    at = row * q_row + (head * GROUP + g[:, None]) * DIM + d[None, :]
    q = tl.load(q_ptr + at, mask=own[:, None] & wide[None, :], other=0.0)
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, WIDTH], tl.float32)
    if split == 0:
        page = tl.load(pages_ptr + (length // SIZE) * rows + row)
        place = store_ptr + ((page * SIZE + length % SIZE) * 2 * HEADS + head) * DIM + d
        fresh = new_ptr + row * new_row + head * DIM + d
        k, v = copied(fresh, place, wide), copied(fresh + HEADS * DIM, place + HEADS * DIM, wide)
        top = tl.sum(q.to(tl.float32) * k[None, :], 1) * scale
        total += 1.0
        acc += v[None, :]
    for start in range(split * share, tl.minimum(split * share + share, length), BLOCK):
        real = start + t < length
        page = tl.load(pages_ptr + ((start + t) // SIZE) * rows + row, mask=real, other=0)
        base = ((page * SIZE + (start + t) % SIZE) * 2 * HEADS + head) * DIM
        keys = store_ptr + base[:, None] + d[None, :]
        inside = real[:, None] & wide[None, :]
        k = tl.load(keys, mask=inside, other=0.0)
        v = tl.load(keys + HEADS * DIM, mask=inside, other=0.0)
        top, total, acc = attended(q, k, v, real, scale, top, total, acc, PRECISION)
    at = (row * HEADS * GROUP + head * GROUP + g) * SPLITS + split
    some = tl.where(total > 0, total, 1.0)  # a split without tokens has no sum
    tl.store(sums_ptr + at, tl.where(total > 0, top + tl.log(some), float("-inf")), mask=own)
    part = acc / some[:, None]
    tl.store(parts_ptr + at[:, None] * DIM + d[None, :], part, mask=own[:, None] & wide[None, :])


@triton.jit
def attend_join(parts_ptr, sums_ptr, out_ptr, DIM: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    """Program (row of a head): the mean of its parts, each by the share of its sum."""
    row = tl.program_id(0)
    d, s = tl.arange(0, WIDTH), tl.arange(0, SPLITS)
    sums = tl.load(sums_ptr + row * SPLITS + s)
    shares = tl.exp(sums - tl.max(sums, 0))
    shares = shares / tl.sum(shares, 0)
    at = (row * SPLITS + s[:, None]) * DIM + d[None, :]
    parts = tl.load(parts_ptr + at, mask=(d < DIM)[None, :], other=0.0)
    out = tl.sum(parts * shares[:, None], 0)
    tl.store(out_ptr + row * DIM + d, out.to(out_ptr.dtype.element_ty), mask=d < DIM)


def launch_attention(q: Tensor, new: Tensor, store: Tensor, pages: Tensor, lengths: Tensor, size: int) -> Launched:
    """See ``pages.attend_pages``. Softmax by its running maximum and sum (arXiv 1805.02867): a program for each share
    of a past gives its part, (B, Hq, PAST_SPLITS, D), and the logarithm of its sum of exponents; another joins them."""
    rows, queries, dim = q.shape
    heads = new.shape[2]
    parts = q.new_empty(rows, queries, PAST_SPLITS, dim, dtype=torch.float32)
    sums = q.new_empty(rows, queries, PAST_SPLITS, dtype=torch.float32)
    out = q.new_empty(rows, queries * dim)
    exact = q.dtype == torch.float32
    args: Args = {"q_ptr": q, "new_ptr": new, "store_ptr": store, "pages_ptr": pages}
    args |= {"lengths_ptr": lengths, "parts_ptr": parts, "sums_ptr": sums, "scale": dim**-0.5}
    args |= {"q_row": q.stride(0), "new_row": new.stride(0), "length_row": lengths.stride(0), "rows": rows}
    joined: dict[str, int | str] = {"DIM": dim, "WIDTH": padded(dim, MIN_DOT), "SPLITS": PAST_SPLITS}
    split = joined | {"SIZE": size, "HEADS": heads, "GROUP": queries // heads}
    split |= {"QUERIES": padded(queries // heads, MIN_DOT), "BLOCK": 32 if exact else 64}
    split |= {"PRECISION": "ieee" if exact else "tf32"}
    first = Launch(attend_split, (rows, heads, PAST_SPLITS), args, split, warps=8 if exact else 4)
    then: Args = {"parts_ptr": parts, "sums_ptr": sums, "out_ptr": out}
    return (first, Launch(attend_join, (rows * queries,), then, joined, warps=2)), out


# ---------------------------------------------------------------- what stands between the products of a layer


@triton.jit
def norm_row(x_ptr, weight_ptr, out_ptr, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Program (row): x / rms(x), rounded, times the weight."""
    d = tl.arange(0, BLOCK)
    at, wide = tl.program_id(0).to(tl.int64) * WIDTH + d, d < WIDTH
    x = tl.load(x_ptr + at, mask=wide, other=0.0).to(tl.float32)
    normal = (x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)).to(out_ptr.dtype.element_ty)
    weight = tl.load(weight_ptr + d, mask=wide, other=0.0)
    out = normal.to(tl.float32) * weight.to(tl.float32)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=wide)


def launch_norm(x: Tensor, weight: Tensor, eps: float) -> Launched:
    """See ``norm.rms_norm``."""
    x = x.contiguous()
    out, width = torch.empty_like(x), x.shape[-1]
    block = padded(width)
    args: Args = {"x_ptr": x, "weight_ptr": weight, "out_ptr": out, "eps": eps}
    sizes = {"WIDTH": width, "BLOCK": block}
    return (Launch(norm_row, (x.numel() // width,), args, sizes, warps=min(16, max(1, block // 256))),), out


@triton.jit
def silu_row(x_ptr, out_ptr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Program (row, block of columns): silu of the first half, rounded, times the second."""
    row, d = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wide = d < WIDTH
    gate = tl.load(x_ptr + row * 2 * WIDTH + d, mask=wide, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * WIDTH + WIDTH + d, mask=wide, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * WIDTH + d, (silu.to(tl.float32) * up).to(out_ptr.dtype.element_ty), mask=wide)


def launch_gate(x: Tensor) -> Launched:
    """See ``fusion.silu_mul``."""
    x = x.contiguous()
    width = x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], width)
    block = min(1024, padded(width))
    grid = out.numel() // width, triton.cdiv(width, block)
    return (Launch(silu_row, grid, {"x_ptr": x, "out_ptr": out}, {"WIDTH": width, "BLOCK": block}),), out


@triton.jit
def turn_row(
    heads_ptr, cos_ptr, sin_ptr, row_step,
    HEADS: tl.constexpr, HALF: tl.constexpr, MOST: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (token): the two halves of each head turned against each other, in place; see ``rope.turned``."""
    row = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, MOST), tl.arange(0, WIDTH)
    real = (h < HEADS)[:, None] & (d < HALF)[None, :]
    first = heads_ptr + row * row_step + h[:, None] * 2 * HALF + d[None, :]
    a = tl.load(first, mask=real, other=0.0).to(tl.float32)
    b = tl.load(first + HALF, mask=real, other=0.0).to(tl.float32)
    angle, half = row * 2 * HALF + d, d < HALF
    cos_a = tl.load(cos_ptr + angle, mask=half, other=0.0)[None, :]
    cos_b = tl.load(cos_ptr + angle + HALF, mask=half, other=0.0)[None, :]
    sin_a = tl.load(sin_ptr + angle, mask=half, other=0.0)[None, :]
    sin_b = tl.load(sin_ptr + angle + HALF, mask=half, other=0.0)[None, :]
    tl.store(first, (a * cos_a + b * sin_a).to(heads_ptr.dtype.element_ty), mask=real)
    tl.store(first + HALF, (b * cos_b + a * sin_b).to(heads_ptr.dtype.element_ty), mask=real)


def launch_turn(heads: Tensor, cos: Tensor, sin: Tensor) -> Launched:
    """See ``rope.turn_heads``."""
    batch, new, count, dim = heads.shape
    args: Args = {"heads_ptr": heads, "cos_ptr": cos, "sin_ptr": sin, "row_step": heads.stride(1)}
    sizes = {"HEADS": count, "HALF": dim // 2, "MOST": padded(count), "WIDTH": padded(dim // 2)}
    return (Launch(turn_row, (batch * new,), args, sizes),), None


# ---------------------------------------------------------------- what stands between the products of the DiT


@triton.jit(do_not_specialize=["times", "step"])
def modulate_row(
    x_ptr, scale_ptr, shift_ptr, out_ptr, eps, times, step, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Program (row): layer norm, rounded, then scaled and shifted as its sequence is."""
    row = tl.program_id(0).to(tl.int64)
    d, moved = tl.arange(0, BLOCK), row // times * step
    wide = d < WIDTH
    x = tl.load(x_ptr + row * WIDTH + d, mask=wide, other=0.0).to(tl.float32)
    x = tl.where(wide, x - tl.sum(x, 0) / WIDTH, 0.0)
    normal = (x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)).to(out_ptr.dtype.element_ty)
    scale = tl.load(scale_ptr + moved + d, mask=wide, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + moved + d, mask=wide, other=0.0).to(tl.float32)
    out = normal.to(tl.float32) * scale + shift
    tl.store(out_ptr + row * WIDTH + d, out.to(out_ptr.dtype.element_ty), mask=wide)


def launch_modulation(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Launched:
    """See ``dit.modulated``."""
    x = x.contiguous()
    out, (batch, times, width) = torch.empty_like(x), x.shape
    block = padded(width)
    step = scale.stride(0) if len(scale) > 1 else 0
    args: Args = {"x_ptr": x, "scale_ptr": scale, "shift_ptr": shift, "out_ptr": out}
    args |= {"eps": eps, "times": times, "step": step}
    sizes = {"WIDTH": width, "BLOCK": block}
    return (Launch(modulate_row, (batch * times,), args, sizes, warps=min(8, max(1, block // 256))),), out


@triton.jit(do_not_specialize=["times"])
def rotate_row(
    x_ptr, cos_ptr, sin_ptr, times, row_step, head_step,
    HEADS: tl.constexpr, HALF: tl.constexpr, MOST: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (frame): the numbers of each pair turned against each other, in place; see ``rotate_pairs``."""
    row = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, MOST), tl.arange(0, WIDTH)
    half = d < HALF
    real = (h < HEADS)[:, None] & half[None, :]
    first = x_ptr + row * row_step + h[:, None] * head_step + 2 * d[None, :]
    a = tl.load(first, mask=real, other=0.0).to(tl.float32)
    b = tl.load(first + 1, mask=real, other=0.0).to(tl.float32)
    angle = row % times * 2 * HALF + 2 * d
    cos_a = tl.load(cos_ptr + angle, mask=half, other=0.0).to(tl.float32)[None, :]
    cos_b = tl.load(cos_ptr + angle + 1, mask=half, other=0.0).to(tl.float32)[None, :]
    sin_a = tl.load(sin_ptr + angle, mask=half, other=0.0).to(tl.float32)[None, :]
    sin_b = tl.load(sin_ptr + angle + 1, mask=half, other=0.0).to(tl.float32)[None, :]
    tl.store(first, (a * cos_a + b * sin_a).to(x_ptr.dtype.element_ty), mask=real)
    tl.store(first + 1, (b * cos_b + a * sin_b).to(x_ptr.dtype.element_ty), mask=real)


def launch_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Launched:
    """See ``block_attention.rotate_pairs``."""
    batch, times, count, dim = x.shape
    args: Args = {"x_ptr": x, "cos_ptr": cos, "sin_ptr": sin, "times": times}
    args |= {"row_step": x.stride(1), "head_step": x.stride(2)}
    sizes = {"HEADS": count, "HALF": dim // 2, "MOST": padded(count), "WIDTH": padded(dim // 2)}
    return (Launch(rotate_row, (batch * times,), args, sizes, warps=1),), None


# ---------------------------------------------------------------- the snake at twice the rate


@triton.jit
def twelve(taps_ptr):
    """The taps of a filter, read once."""
    return (
        tl.load(taps_ptr), tl.load(taps_ptr + 1), tl.load(taps_ptr + 2), tl.load(taps_ptr + 3),
        tl.load(taps_ptr + 4), tl.load(taps_ptr + 5), tl.load(taps_ptr + 6), tl.load(taps_ptr + 7),
        tl.load(taps_ptr + 8), tl.load(taps_ptr + 9), tl.load(taps_ptr + 10), tl.load(taps_ptr + 11),
    )  # fmt: skip


@triton.jit(do_not_specialize=["x_batch", "x_time", "times"])
def snake_run(
    x_ptr, out_ptr, frequency_ptr, height_ptr, up_ptr, down_ptr, x_batch, x_time, times,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """Program (batch, block of channels, run of time): a walk along the time with the last twelve samples of the
    doubled rate in registers. A step makes two of them, numbers 2m and 2m + 1 with m = t + 3, and from twelve the
    output t. Outside its borders each signal goes on as it was at them."""
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wide, begin = c < CHANNELS, tl.program_id(2) * RUN
    x_row = x_ptr + tl.program_id(0).to(tl.int64) * x_batch + c
    out_row = out_ptr + tl.program_id(0).to(tl.int64) * times * CHANNELS + c
    frequency = tl.load(frequency_ptr + c, mask=wide, other=0.0)
    height = tl.load(height_ptr + c, mask=wide, other=0.0)
    up, down = twelve(up_ptr), twelve(down_ptr)
    z = tl.zeros([BLOCK], tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10 = z, z, z, z, z, z, z, z, z, z, z
    for step in range(RUN + 6):  # the first six only fill the registers
        t = begin + step - 6
        m = tl.minimum(tl.maximum(t + 3, 0), times - 1)
        even, odd = z, z
        for j in tl.static_range(7):
            q = tl.minimum(tl.maximum(m + j - 3, 0), times - 1)
            x = tl.load(x_row + q * x_time, mask=wide, other=0.0).to(tl.float32)
            if j < 6:
                even += x * up[11 - 2 * j]
            if j > 0:
                odd += x * up[12 - 2 * j]
        even_wave, odd_wave = tl.sin(even * frequency), tl.sin(odd * frequency)
        even += even_wave * height * even_wave
        odd += odd_wave * height * odd_wave
        s11, s12 = tl.where(t + 3 > times - 1, odd, even), tl.where(t + 3 < 0, even, odd)
        out = down[0] * s0 + down[1] * s1 + down[2] * s2 + down[3] * s3 + down[4] * s4 + down[5] * s5
        out += down[6] * s6 + down[7] * s7 + down[8] * s8 + down[9] * s9 + down[10] * s10 + down[11] * s11
        inside = wide & (t >= begin) & (t < times)
        tl.store(out_row + t * CHANNELS, out.to(out_ptr.dtype.element_ty), mask=inside)
        s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10 = s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12


def launch_snake(x: Tensor, frequency: Tensor, height: Tensor, up: Tensor, down: Tensor) -> Launched:
    """See ``vocoder.snake``."""
    batch, channels, _, times = x.shape
    if x.stride(1) != 1:
        x = x.contiguous(memory_format=torch.channels_last)
    out = x.new_empty(batch, times, channels)
    args: Args = {"x_ptr": x, "out_ptr": out, "frequency_ptr": frequency, "height_ptr": height, "up_ptr": up}
    args |= {"down_ptr": down, "x_batch": x.stride(0), "x_time": x.stride(3), "times": times}
    grid = batch, triton.cdiv(channels, 32), triton.cdiv(times, SNAKE_RUN)
    sizes = {"CHANNELS": channels, "BLOCK": 32, "RUN": SNAKE_RUN}
    return (Launch(snake_run, grid, args, sizes, warps=1),), out.permute(0, 2, 1).unsqueeze(2)


LAUNCHES: Mapping[str, Callable[..., Launched]] = {
    "attend_pages": launch_attention,
    "rms_norm": launch_norm,
    "silu_mul": launch_gate,
    "turn_heads": launch_turn,
    "modulate": launch_modulation,
    "rotate_pairs": launch_rotation,
    "snake": launch_snake,
}
