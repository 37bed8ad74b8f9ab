"""The DiT's attention: over blocks of frames and their neighbours, with positions in its first head alone.

Axes: B batch, T frames, N blocks of K frames, H heads, d dim of a head, D width, S keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.config import DiTConfig
from descant.nn.fusion import Fusable
from descant.nn.kernels import Operation, numbers
from descant.nn.linear import Linear
from descant.nn.rope import inverse_frequencies

Attend = Literal["blocks", "full"]


class Rotary(nn.Module):
    """Angles of the rotary embedding. Official checkpoints store ``inv_freq``; it holds the very numbers that theta
    gives, and like the reference we compute them, so the stored key is kept but never read."""

    inv_freq: Tensor

    def __init__(self, cfg: DiTConfig):
        super().__init__()
        self.head_dim, self.theta = cfg.head_dim, cfg.rope_theta
        frequencies = torch.empty(cfg.head_dim // 2)
        if not frequencies.is_meta:  # there an arange would bring torch's compiler in
            frequencies = inverse_frequencies(cfg.head_dim, cfg.rope_theta)
        self.register_buffer("inv_freq", frequencies)

    def forward(self, frames: int, device: torch.device, before: int = 0) -> tuple[Tensor, Tensor]:
        """cos and sin (before + T, 1, head_dim) float32 of frames -before..T-1, both for each number of a pair; of sin
        the first has the sign that ``rotate_pairs`` needs."""
        rates = inverse_frequencies(self.head_dim, self.theta, device)
        angles = torch.arange(-before, frames, device=device, dtype=torch.float32)[:, None, None] * rates
        cos, sin = angles.cos(), angles.sin()
        return torch.stack([cos, cos], dim=-1).flatten(-2), torch.stack([-sin, sin], dim=-1).flatten(-2)


def rotate_first_head(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the interleaved pairs (0,1), (2,3), ... of head 0; x (B, T, H, d). The other heads know no position:
    the official weights were trained so."""
    first = x[:, :, :1]
    return torch.cat([torch.addcmul(first * cos, swapped(first), sin), x[:, :, 1:]], dim=2)


def swapped(x: Tensor) -> Tensor:
    """The two numbers of each pair of x (..., d) in each other's place: a copy."""
    return x.view(*x.shape[:-1], -1, 2).flip(-1).flatten(-2)


def pairs_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """See ``rotate_pairs``."""
    other = swapped(x)
    x.mul_(cos).addcmul_(other, sin)


def pairs_example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The first of two heads of queries and keys, beside values."""
    cos, sin = numbers((2, 3, 1, 8), device, dtype, 1).unbind()
    return numbers((2, 3, 3, 2, 8), device, dtype)[:, :, :2, 0], cos, sin


# The interleaved pairs of x (B, T, n, d), a head of each of n neighbours, rotated in place by cos, sin (T, 1, d)
rotate_pairs = Operation(
    "rotate_pairs(Tensor(a!) x, Tensor cos, Tensor sin) -> ()",
    pairs_in_place,
    lambda *_: None,
    pairs_example,
)


def neighbours(x: Tensor, back: int, ahead: int) -> Tensor:
    """x (B, N, K, ...) -> (B, N, (back + 1 + ahead) * K, ...): a block and its neighbours, zeros past the ends."""
    if back == ahead == 0:
        return x
    tail = [0, 0] * (x.ndim - 2)
    padded = F.pad(x, [*tail, back, ahead])
    return torch.cat([padded[:, i : i + x.shape[1]] for i in range(back + 1 + ahead)], dim=2)


@dataclass(frozen=True)
class WindowLayout:
    """The blocks of a batch of frames, and which frames are real.

    real: (B or 1, N, K) bool, or None when every frame is real. ``block`` None: one attention over all frames.
    """

    block: int
    real: Tensor | None
    attend: Attend

    def mask(self, back: int, ahead: int, x: Tensor, past: int = 0) -> Tensor | None:
        """Allowed keys, broadcastable over (B * N, H, K, S); None when all are. x (B, T, D) tells shape and device;
        ``past``: blocks before x whose keys are there too.

        A block of padding alone may have no key at all; scaled_dot_product_attention then gives zeros.
        """
        if back == ahead == 0 and self.real is None:
            return None
        batch, blocks = x.shape[0], x.shape[1] // self.block
        real = self.real
        if real is None:
            real = torch.ones(1, blocks, self.block, dtype=torch.bool, device=x.device)
        keys = neighbours(F.pad(real, (0, 0, past, 0), value=True), back, ahead)[:, past:]
        return keys.expand(batch, -1, -1).reshape(batch * blocks, 1, 1, -1)


class BlockAttention(Fusable):
    """Attention inside a block, and to ``back`` blocks before and ``ahead`` after it. x (B, T, D), T = N * K.

    Gives the output (B, T, D), and of a layer that looks back the keys and values (B, T, 2, H * d) before rotation: a
    block's share of them is the ``past`` (B, K, 2, H * d) of the window that begins after it.
    """

    def __init__(self, cfg: DiTConfig, back: int, ahead: int):
        super().__init__()
        self.heads, self.head_dim, self.back, self.ahead = cfg.num_attention_heads, cfg.head_dim, back, ahead
        inner = cfg.num_attention_heads * cfg.head_dim
        self.to_q = Linear(cfg.hidden_size, inner)
        self.to_k = Linear(cfg.hidden_size, inner)
        self.to_v = Linear(cfg.hidden_size, inner)
        self.to_out = nn.ModuleList([Linear(inner, cfg.hidden_size)])  # a list: official key to_out.0

    def fused_layers(self) -> Sequence[nn.Linear]:
        return self.to_q, self.to_k, self.to_v

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], layout: WindowLayout, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``angles``: those of x, and before them those of ``past`` if there is one."""
        batch, frames, _ = x.shape
        heads, block = (self.heads, self.head_dim), layout.block
        q, k, v, own = self.turned(x, angles, past)
        if layout.attend == "full":
            mask = None if layout.real is None else layout.real.reshape(-1, 1, 1, frames)
            mixed = attend(q, k, v, mask)
        else:
            before = (k.shape[1] - frames) // block
            q = q.reshape(-1, block, *heads)
            k = neighbours(k.reshape(batch, -1, block, *heads), self.back, self.ahead)[:, before:].flatten(0, 1)
            v = neighbours(v.reshape(batch, -1, block, *heads), self.back, self.ahead)[:, before:].flatten(0, 1)
            mixed = attend(q, k, v, layout.mask(self.back, self.ahead, x, before))
        out: Tensor = self.to_out[0](mixed.reshape(batch, frames, -1))
        return out, own

    def turned(
        self, x: Tensor, angles: tuple[Tensor, Tensor], past: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries (B, T, H, d), keys and values (B, S, H, d), those of ``past`` before their own, first heads rotated;
        and the keys and values of x (B, T, 2, H * d) before rotation, of a layer that looks back."""
        batch, frames, _ = x.shape
        heads = (self.heads, self.head_dim)
        now = cos, sin = angles[0][-frames:], angles[1][-frames:]
        if self.fused is not None and past is None:
            all_three = self.fused(x).view(batch, frames, 3, *heads)
            own = all_three[:, :, 1:].flatten(-2)
            own = own.clone() if self.back else own
            rotate_pairs(all_three[:, :, :2, 0], cos, sin)
            q, k, v = all_three.unbind(2)
            return q, k, v, own
        q, own = self.projected(x)
        known = own if past is None else torch.cat([past, own], dim=1)
        k, v = known.view(batch, -1, 2, *heads).unbind(2)
        turned = rotate_first_head(k, *(angle[-k.shape[1] :] for angle in angles))
        return rotate_first_head(q.view(batch, frames, *heads), *now), turned, v, own

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> queries (B, T, H * d), keys and values (B, T, 2, H * d)."""
        if self.fused is None:
            return self.to_q(x), torch.stack([self.to_k(x), self.to_v(x)], dim=2)
        all_three = self.fused(x).view(*x.shape[:2], 3, -1)
        return all_three[:, :, 0], all_three[:, :, 1:]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q (B, T, H, d), k and v (B, S, H, d) -> (B, T, H, d)."""
    heads_first = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=mask).transpose(1, 2)
