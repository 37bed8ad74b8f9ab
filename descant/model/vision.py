"""The vision encoder: patches -> one row per 2x2 patches (Qwen2.5-VL's ViT, arXiv 2502.13923).

Attention stays inside a window of 112 px, except in a few layers where it spans one temporal grid (an image, or two
frames of a video). Nothing ever crosses time, so a video may be encoded grid by grid as it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from descant.config import VisionConfig
from descant.errors import SessionError
from descant.nn.attention import segment_attention
from descant.nn.fusion import SwiGLU
from descant.nn.linear import Linear
from descant.nn.norm import RMSNorm
from descant.nn.rope import axial, rotate

Grid = tuple[int, int, int]  # t, h, w in patches
_EPS = 1e-6
_THETA = 10000.0


@dataclass(frozen=True)
class PatchLayout:
    """An order of merge units in which every attention segment is contiguous and equal lengths are neighbours.

    order (U,) int64: unit i of this layout is unit order[i] of the prompt;
    runs: (segments, patches per segment), see segment_attention.
    """

    order: Tensor
    runs: tuple[tuple[int, int], ...]


def layout(segments: Tensor, patches_per_unit: int) -> PatchLayout:
    """segments (U,): the segment that each merge unit belongs to -> the layout that makes them contiguous."""
    _, member, sizes = torch.unique(segments, return_inverse=True, return_counts=True)
    by_segment = member.argsort(stable=True)
    order = by_segment[sizes[member[by_segment]].argsort(stable=True)]
    lengths, counts = sizes.sort().values.unique_consecutive(return_counts=True)
    runs = zip(counts.tolist(), (lengths * patches_per_unit).tolist(), strict=True)
    return PatchLayout(order, tuple(runs))


def window_units(cfg: VisionConfig) -> int:
    """Side of a window in merge units: 112 px / 14 / 2 = 4."""
    return cfg.window_size // cfg.patch_size // cfg.spatial_merge_size


def segment_ids(grids: Sequence[Grid], side: int | None, merge: int) -> Tensor:
    """The segment of each merge unit, (U,) int64: a window of ``side`` units, or the whole temporal grid if None."""
    ids: list[Tensor] = []
    first = 0
    for t, h, w in grids:
        rows, columns = torch.arange(h // merge), torch.arange(w // merge)
        across = 1 if side is None else -(-columns.numel() // side)
        down = 1 if side is None else -(-rows.numel() // side)
        row, column = (0 * rows, 0 * columns) if side is None else (rows // side, columns // side)
        time = torch.arange(t)[:, None, None] * (down * across)
        ids.append((first + time + row[:, None] * across + column).flatten())
        first += t * down * across
    return torch.cat(ids)


def patch_positions(grids: Sequence[Grid], merge: int) -> Tensor:
    """(row, column) of each patch in prompt order, (N, 2) int64: merge blocks of 2x2 patches are contiguous."""
    all_positions: list[Tensor] = []
    for t, h, w in grids:
        rows = torch.arange(h).view(h // merge, 1, merge, 1).expand(-1, w // merge, -1, merge)
        columns = torch.arange(w).view(1, w // merge, 1, merge).expand(h // merge, -1, merge, -1)
        all_positions.append(torch.stack((rows.flatten(), columns.flatten()), dim=1).repeat(t, 1))
    return torch.cat(all_positions)


class VisionAttention(nn.Module):
    """Full attention inside each segment; separate q, k, v with biases."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = Linear(dim, dim)
        self.k = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (self.q(x), self.k(x), self.v(x)))
        q, k = rotate(q, k, cos, sin)
        out: Tensor = self.proj(segment_attention(q, k, v, runs))
        return out


class VisionBlock(nn.Module):
    """Pre-norm attention and SwiGLU, each with a residual."""

    def __init__(self, cfg: VisionConfig):
        super().__init__()
        self.norm1 = RMSNorm(cfg.hidden_size, _EPS)
        self.norm2 = RMSNorm(cfg.hidden_size, _EPS)
        self.attn = VisionAttention(cfg.hidden_size, cfg.num_heads)
        self.mlp = SwiGLU(cfg.hidden_size, cfg.intermediate_size, bias=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin, runs)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    """A convolution whose kernel is its stride, that is a linear map of each flattened patch."""

    def __init__(self, cfg: VisionConfig):
        super().__init__()
        kernel = (cfg.temporal_patch_size, cfg.patch_size, cfg.patch_size)
        self.proj = nn.Conv3d(cfg.in_channels, cfg.hidden_size, kernel_size=kernel, stride=kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.proj.weight.flatten(1)
        return nn.functional.linear(patches.to(weight.dtype), weight)


class PatchMerger(nn.Module):
    """Four neighbouring patches -> one row in the Thinker's width."""

    def __init__(self, cfg: VisionConfig):
        super().__init__()
        width = cfg.hidden_size * cfg.spatial_merge_size**2
        self.width = width
        self.ln_q = RMSNorm(cfg.hidden_size, _EPS)
        self.mlp = nn.Sequential(Linear(width, width), nn.GELU(), Linear(width, cfg.out_hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.ln_q(x).reshape(-1, self.width))
        return out


class VisionEncoder(nn.Module):
    """Images and videos as patches -> rows for the Thinker."""

    def __init__(self, cfg: VisionConfig):
        super().__init__()
        self.cfg = cfg
        self.patch_embed = PatchEmbed(cfg)
        self.blocks = nn.ModuleList([VisionBlock(cfg) for _ in range(cfg.depth)])
        self.merger = PatchMerger(cfg)

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """patches (N, channels * temporal * patch * patch) of all grids in order -> (N / 4, out_hidden), same order.

        Layers run in the window layout; around a full-attention layer the rows are put into grid layout and back.
        """
        merge, unit = self.cfg.spatial_merge_size, self.cfg.spatial_merge_size**2
        expected = sum(t * h * w for t, h, w in grids)
        if patches.shape[0] != expected:
            raise SessionError(f"{patches.shape[0]} patches were given for grids {list(grids)} of {expected}")
        windows = layout(segment_ids(grids, window_units(self.cfg), merge), unit)
        whole = layout(segment_ids(grids, None, merge), unit)
        back = windows.order.argsort()
        device = patches.device
        to_windows, to_whole = _patch_order(windows.order, unit, device), _patch_order(whole.order, unit, device)
        whole_from_windows = _patch_order(back[whole.order], unit, device)
        windows_from_whole = whole_from_windows.argsort()
        positions = patch_positions(grids, merge).to(device)
        cos, sin = axial(positions, self.cfg.hidden_size // self.cfg.num_heads, _THETA)
        in_windows = cos.index_select(0, to_windows), sin.index_select(0, to_windows)
        in_whole = cos.index_select(0, to_whole), sin.index_select(0, to_whole)

        x = self.patch_embed(patches).index_select(0, to_windows)
        for index, block in enumerate(self.blocks):
            if index in self.cfg.fullatt_block_indexes:
                x = block(x.index_select(0, whole_from_windows), *in_whole, whole.runs)
                x = x.index_select(0, windows_from_whole)
            else:
                x = block(x, *in_windows, windows.runs)
        merged: Tensor = self.merger(x)
        return merged.index_select(0, back.to(device))


def _patch_order(units: Tensor, patches_per_unit: int, device: torch.device) -> Tensor:
    """An order of merge units (U,) as an order of patches (N,)."""
    return (units[:, None] * patches_per_unit + torch.arange(patches_per_unit)).flatten().to(device)
