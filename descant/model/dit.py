"""The flow-matching transformer: noise, codes and a voice -> the velocity that leads to a log-mel.

Axes: B batch, T mel frames, N blocks, K frames of a block, H heads, D width, C codes, M mel bins, R reference frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.config import DiTConfig
from descant.model.block_attention import Attend, BlockAttention, Rotary, WindowLayout
from descant.model.speaker import Ecapa
from descant.nn.kernels import Operation, numbers
from descant.nn.linear import GeluLinear, Linear
from descant.nn.prepare import Preparable

TIME_DIM = 256  # width of the sinusoid of t
TIME_SCALE = 1000.0  # t in [0, 1] is read as 0..1000, the range of diffusion step numbers
NORM_EPS = 1e-6
MAX_SCHEDULES = 16  # solver schedules whose times a prepared DiT keeps


@dataclass(frozen=True)
class Condition:
    """The words of the mel and its voice: codes (B, C) int64, speaker (B, E), ref_mel (B, R, M)."""

    codes: Tensor
    speaker: Tensor
    ref_mel: Tensor

    def null(self) -> Condition:
        """The condition of guidance: code 0 everywhere, a zero speaker and a zero reference (still read by ECAPA)."""
        return Condition(torch.zeros_like(self.codes), torch.zeros_like(self.speaker), torch.zeros_like(self.ref_mel))


class TimeEmbedding(nn.Module):
    """t (B,) -> (B, D): sines then cosines at 128 geometric frequencies, then a small MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.time_mlp = nn.Sequential(Linear(TIME_DIM, width), nn.SiLU(), Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        half = TIME_DIM // 2
        rates = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(10000.0) / (half - 1)))
        angles = TIME_SCALE * t[:, None] * rates[None]
        embedded: Tensor = self.time_mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return embedded


class CodeEmbedding(nn.Module):
    """codes (B, C) -> (B, C * repeats, emb_dim); a code lasts ``repeats`` mel frames."""

    def __init__(self, cfg: DiTConfig):
        super().__init__()
        self.codec_embed = nn.Embedding(cfg.num_embeds + 1, cfg.emb_dim)
        self.repeats = cfg.repeats

    def forward(self, codes: Tensor) -> Tensor:
        embedded: Tensor = self.codec_embed(codes)
        return embedded.repeat_interleave(self.repeats, dim=1)


class InputEmbedding(nn.Module):
    """One linear map of [x, ECAPA(ref_mel), code, speaker], computed as a sum of its parts.

    The parts that do not depend on x are computed once for the many evaluations of one solve.
    """

    def __init__(self, cfg: DiTConfig):
        super().__init__()
        self.parts = [cfg.mel_dim, cfg.ecapa.enc_dim, cfg.emb_dim, cfg.enc_emb_dim]
        self.proj = nn.Linear(sum(self.parts), cfg.hidden_size)
        self.spk_encoder = Ecapa(cfg.ecapa)

    def voice(self, speaker: Tensor, ref_mel: Tensor) -> Tensor:
        """speaker (B, E), ref_mel (B, R, M) -> (B, D), bias included."""
        _, ref, _, spk = torch.split(self.proj.weight, self.parts, dim=1)
        return F.linear(self.spk_encoder(ref_mel), ref) + F.linear(speaker, spk, self.proj.bias)

    def codes(self, embedded: Tensor) -> Tensor:
        """embedded (B, T, emb_dim) -> (B, T, D)."""
        return F.linear(embedded, torch.split(self.proj.weight, self.parts, dim=1)[2])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, M) and the rest of the sum (B, T, D) -> (B, T, D)."""
        return F.linear(x, torch.split(self.proj.weight, self.parts, dim=1)[0]) + condition


class Modulation(nn.Module):
    """Shifts, scales and gates read from the time embedding (adaptive layer norm, arXiv 2212.09748).

    scales: which chunks are scales. They come out with the 1 that ``modulated`` would add at every evaluation.
    """

    def __init__(self, width: int, chunks: int, scales: slice):
        super().__init__()
        self.chunks, self.scales = chunks, scales
        self.linear = Linear(width, chunks * width)

    def forward(self, t: Tensor) -> Tensor:
        """t (B, D) -> (B, chunks * D)."""
        rows: Tensor = self.linear(F.silu(t))
        rows.view(len(rows), self.chunks, -1)[:, self.scales].add_(1)
        return rows

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """(B, chunks * D) -> ``chunks`` tensors (B, 1, D)."""
        return rows[:, None].chunk(self.chunks, dim=-1)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x (B, T, D) normalised, then scaled and shifted, (B or 1, 1, D) each."""
    out: Tensor = modulate(x, scale, shift, NORM_EPS)
    return out


def normed_and_moved(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """See ``modulated``."""
    return torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=eps), scale)


def modulation_example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor | float, ...]:
    """Two sequences of three frames, each moved by its own time."""
    rows = numbers((2, 1, 2 * 40), device, dtype, 1)
    return numbers((2, 3, 40), device, dtype), *rows.chunk(2, dim=-1), NORM_EPS


modulate = Operation(
    "modulate(Tensor x, Tensor scale, Tensor shift, float eps) -> Tensor",
    normed_and_moved,
    lambda x, *_: torch.empty_like(x),
    modulation_example,
)


class FeedForward(nn.Module):
    def __init__(self, cfg: DiTConfig):
        super().__init__()
        inner = cfg.hidden_size * cfg.ff_mult
        self.ff = nn.Sequential(
            GeluLinear(cfg.hidden_size, inner),
            nn.Identity(),  # in place of the reference's GELU and dropout: the next map's official index is 3
            nn.Identity(),
            Linear(inner, cfg.hidden_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ff(x)
        return y


class DiTBlock(nn.Module):
    """Attention and MLP, each normalised, modulated and gated by the time."""

    def __init__(self, cfg: DiTConfig, index: int):
        super().__init__()
        back, ahead = int(index in cfg.look_backward_layers), int(index in cfg.look_ahead_layers)
        self.attn_norm = Modulation(cfg.hidden_size, 6, slice(1, None, 3))
        self.attn = BlockAttention(cfg, back, ahead)
        self.ff = FeedForward(cfg)

    def forward(
        self, x: Tensor, time: Tensor, angles: tuple[Tensor, Tensor], layout: WindowLayout, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """time (B or 1, 6 * D) as ``attn_norm`` gives it; the second result: keys and values of ``BlockAttention``."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.attn_norm.split(time)
        mixed, known = self.attn(modulated(x, scale_a, shift_a), angles, layout, past)
        x = torch.addcmul(x, gate_a, mixed)
        return torch.addcmul(x, gate_m, self.ff(modulated(x, scale_m, shift_m))), known


class DiT(Preparable):
    """x (B, T, M), t (B,), condition -> velocity (B, T, M) of the path from noise (t = 0) to mel (t = 1).

    Blocks are counted from the first frame of x, so x must start on a block boundary of the utterance.
    Gates and the output start at zero (adaLN-zero), so a fresh model predicts no motion.
    """

    _schedules: dict[Hashable, list[Tensor]] | None = None

    def __init__(self, cfg: DiTConfig):
        super().__init__()
        self.cfg = cfg
        self.time_embed = TimeEmbedding(cfg.hidden_size)
        self.text_embed = CodeEmbedding(cfg)
        self.input_embed = InputEmbedding(cfg)
        self.rotary_embed = Rotary(cfg)
        self.transformer_blocks = nn.ModuleList(DiTBlock(cfg, i) for i in range(cfg.num_hidden_layers))
        self.norm_out = Modulation(cfg.hidden_size, 2, slice(0, 1))
        self.proj_out = Linear(cfg.hidden_size, cfg.mel_dim)
        modulations = [m for m in self.modules() if isinstance(m, Modulation)]
        for linear in [*(m.linear for m in modulations), self.proj_out]:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, x: Tensor, t: Tensor, cond: Condition, *, attend: Attend = "blocks", lengths: Tensor | None = None
    ) -> Tensor:
        """``lengths`` (B,) int64: frames of x that are real in each example; the rest neither acts nor means a thing.
        ``attend`` "full" lifts the block mask (training draws it now and then)."""
        return self.velocity(x, t, self.condition(cond), attend=attend, lengths=lengths)

    def condition(self, cond: Condition) -> Tensor:
        """Everything of the input projection that does not depend on x: (B, C * repeats, D)."""
        return self.voice(cond.speaker, cond.ref_mel)[:, None] + self.code_rows(cond.codes)

    def voice(self, speaker: Tensor, ref_mel: Tensor) -> Tensor:
        """The voice's share of ``condition``: (B, D). A stream computes it once."""
        return self.input_embed.voice(speaker, ref_mel)

    def code_rows(self, codes: Tensor) -> Tensor:
        """The codes' share of ``condition``: (B, C * repeats, D)."""
        return self.input_embed.codes(self.text_embed(codes))

    def velocity(
        self, x: Tensor, t: Tensor, condition: Tensor, *, attend: Attend = "blocks", lengths: Tensor | None = None
    ) -> Tensor:
        """``forward`` with the condition (B, T, D) already computed; x (B, T, M), t (B,), or (1,) for all."""
        frames = x.shape[1]
        h = self.embed(x, condition, attend)
        layout = self.layout(h, frames, attend, lengths)
        angles, times = self.rotary_embed(h.shape[1], h.device), self.times(t)
        for block, time in zip(self.transformer_blocks, times, strict=False):
            h, _ = block(h, time, angles, layout)
        return self.read(h[:, :frames], times[-1])

    def window(
        self,
        x: Tensor,
        times: Sequence[Tensor],
        condition: Tensor,
        angles: tuple[Tensor, Tensor],
        past: Tensor | None,
        keep: int,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``velocity`` of a window that begins where another ended; times as ``self.times`` gives them, for this t, and
        angles as ``window_angles`` does, for all of them.

        past (L, B, K, 2, H * d): at each of the L layers that look back, the keys and values of the block before x, as
        they were when that block was solved, at this same t; None at the start of the utterance. Also gives those of
        block ``keep`` of x, for the window after it. No more of the past is ever read: such layers see one block back.
        """
        frames, block = x.shape[1], self.cfg.block_size
        h = self.embed(x, condition, "blocks")
        layout = self.layout(h, frames, "blocks", lengths)
        pasts, kept = iter(() if past is None else past), []
        for i, (layer, time) in enumerate(zip(self.transformer_blocks, times, strict=False)):
            looks_back = i in self.cfg.look_backward_layers
            h, known = layer(h, time, angles, layout, next(pasts, None) if looks_back else None)
            if looks_back:
                kept.append(known[:, keep * block : (keep + 1) * block])
        none = h.new_zeros(0, len(h), 0, 2, 0)  # of a DiT without a layer that looks back
        return self.read(h[:, :frames], times[-1]), torch.stack(kept) if kept else none

    def window_angles(self, frames: int, device: torch.device, follows: bool) -> tuple[Tensor, Tensor]:
        """The rotary angles of a window of so many frames; follows: it has a past."""
        block = self.cfg.block_size
        angles: tuple[Tensor, Tensor] = self.rotary_embed(
            frames + -frames % block, device, before=block if follows else 0
        )
        return angles

    def embed(self, x: Tensor, condition: Tensor, attend: Attend) -> Tensor:
        """(B, T, D), T padded to whole blocks where blocks matter."""
        padding = -x.shape[1] % self.cfg.block_size if attend == "blocks" else 0
        return F.pad(self.input_embed(x, condition), (0, 0, 0, padding))

    def times(self, t: Tensor) -> list[Tensor]:
        """The modulation that each block (B, 6 * D), and last the output (B, 2 * D), reads of the times t (B,)."""
        embedded = self.time_embed(t)
        blocks = (block for block in self.transformer_blocks if isinstance(block, DiTBlock))
        return [*(block.attn_norm(embedded) for block in blocks), self.norm_out(embedded)]

    def prepare(self) -> None:
        """Keep what ``schedule_times`` computes from now on."""
        self._schedules = {} if self._schedules is None else self._schedules

    def schedule_times(self, schedule: Hashable, t: Tensor) -> list[Tensor]:
        """``times`` of all moments t of a solver's schedule, from the CPU; computed once for each schedule when
        prepared."""
        kept, device = self._schedules, self.text_embed.codec_embed.weight.device
        if kept is None or torch.is_grad_enabled():
            return self.times(t.to(device))
        if schedule not in kept:
            kept[schedule] = self.times(t.to(device))
            for oldest in list(kept)[:-MAX_SCHEDULES]:
                del kept[oldest]
        return kept[schedule]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._schedules = None  # other weights: other times
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def read(self, h: Tensor, time: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, M)."""
        scale, shift = self.norm_out.split(time)
        out: Tensor = self.proj_out(modulated(h, scale, shift))
        return out

    def layout(self, h: Tensor, frames: int, attend: Attend, lengths: Tensor | None) -> WindowLayout:
        """h (B, T padded, D); ``frames`` of them were given, ``lengths`` of those are real."""
        block, padded = self.cfg.block_size, h.shape[1]
        if lengths is None and padded == frames:
            return WindowLayout(block, None, attend)
        if lengths is None:
            lengths = torch.full((1,), frames, device=h.device)
        real = torch.arange(padded, device=h.device)[None] < lengths[:, None]
        return WindowLayout(block, real if attend == "full" else real.view(-1, padded // block, block), attend)
