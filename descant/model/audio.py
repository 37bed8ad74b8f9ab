"""The audio encoder: log-mel -> 25 tokens a second. Whisper's layers over independent blocks of 2 s.

A block of 2 * n_window = 200 mel frames (10 ms each) never sees another: convolutions, positions and attention all
restart with it. So a clip may be encoded block by block as it arrives, and the result is that of the whole clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import gelu  # the exact one (erf), as in Whisper

from descant.config import AudioConfig
from descant.nn.linear import Linear


def conv_frames(frames: int) -> int:
    """Frames after the stride-2 convolution (20 ms each)."""
    return (frames - 1) // 2 + 1


def sinusoids(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Whisper's positions (length, dim) float32: first half sines, second cosines, timescales to 10000."""
    step = math.log(10000.0) / (dim // 2 - 1)
    scales = torch.exp(-step * torch.arange(dim // 2, dtype=torch.float32, device=device))
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * scales
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def pool_pairs(x: Tensor) -> Tensor:
    """The mean of neighbours over a whole clip, (T, D) -> (T // 2, D); an odd last frame is dropped."""
    return x[: x.shape[0] // 2 * 2].reshape(-1, 2, x.shape[1]).mean(1)


class AudioAttention(nn.Module):
    """Full attention inside each block of a batch. The key projection has no bias."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj = Linear(dim, dim, bias=False)
        self.v_proj = Linear(dim, dim)
        self.q_proj = Linear(dim, dim)
        self.out_proj = Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T, D); mask (B, 1, 1, T) bool, True for real frames, or None when all are."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class AudioLayer(nn.Module):
    """Pre-norm attention and a GELU MLP, each with a residual."""

    def __init__(self, cfg: AudioConfig):
        super().__init__()
        self.self_attn = AudioAttention(cfg.d_model, cfg.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(cfg.d_model)
        self.fc1 = Linear(cfg.d_model, cfg.encoder_ffn_dim)
        self.fc2 = Linear(cfg.encoder_ffn_dim, cfg.d_model)
        self.final_layer_norm = nn.LayerNorm(cfg.d_model)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        x = x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))
        if x.dtype == torch.float16:  # the official guard against overflow: 65504 - 1000
            x = x.clamp(-64504.0, 64504.0)
        return x


class AudioEncoder(nn.Module):
    """Clips of log-mel -> one row per 40 ms, in the Thinker's width."""

    def __init__(self, cfg: AudioConfig):
        super().__init__()
        self.cfg = cfg
        self.conv1 = nn.Conv1d(cfg.num_mel_bins, cfg.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(cfg.d_model, cfg.d_model, kernel_size=3, stride=2, padding=1)
        self.audio_bos_eos_token = nn.Embedding(2, cfg.output_dim)  # stored in the official files, never used
        self.layers = nn.ModuleList([AudioLayer(cfg) for _ in range(cfg.encoder_layers)])
        self.ln_post = nn.LayerNorm(cfg.d_model)
        self.proj = Linear(cfg.d_model, cfg.output_dim)

    def forward(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """mels: one (M, F) log-mel per clip, valid frames only -> one (audio_tokens(F), output_dim) per clip."""
        return self.project(self.features(mels))

    def project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features (T, d_model) of each clip -> (T, output_dim) of each, in the Thinker's width."""
        if not features:
            return []
        projected: Tensor = self.proj(torch.cat(list(features)))
        return list(torch.split(projected, [rows.shape[0] for rows in features]))

    def features(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """The rows that ``project`` takes, (audio_tokens(F), d_model) per clip; mels as in ``forward``.

        All whole blocks of all clips run as one batch without a mask, all shorter tails as another, padded.
        """
        cuts = [list(torch.split(mel.to(self.conv1.weight.dtype), self.cfg.block_frames, dim=1)) for mel in mels]
        flat = [piece for clip in cuts for piece in clip]
        encoded: list[Tensor] = [x.new_empty(0) for x in flat]
        whole = [i for i, piece in enumerate(flat) if piece.shape[1] == self.cfg.block_frames]
        tails = [i for i, piece in enumerate(flat) if piece.shape[1] != self.cfg.block_frames]
        for group in (whole, tails):
            for index, rows in zip(group, self._encode([flat[i] for i in group]), strict=True):
                encoded[index] = rows
        pooled: list[Tensor] = []
        start = 0
        for clip in cuts:
            pooled.append(pool_pairs(torch.cat(encoded[start : start + len(clip)])))
            start += len(clip)
        if not pooled:
            return []
        normed: Tensor = self.ln_post(torch.cat(pooled))
        return list(torch.split(normed, [rows.shape[0] for rows in pooled]))

    def _encode(self, pieces: list[Tensor]) -> list[Tensor]:
        """Independent pieces (M, F_i), F_i <= block -> hidden rows (conv_frames(F_i), D), in one padded batch."""
        if not pieces:
            return []
        frames = [piece.shape[1] for piece in pieces]
        longest = max(frames)
        x = torch.stack([F.pad(piece, (0, longest - piece.shape[1])) for piece in pieces])
        lengths = torch.tensor(frames, device=x.device)
        ragged = min(frames) != longest
        x = gelu(self.conv1(x))
        if ragged:  # conv2 must find zeros beyond the end, as it does where a clip ends the batch
            x = x * (torch.arange(longest, device=x.device) < lengths[:, None]).unsqueeze(1)
        x = gelu(self.conv2(x)).transpose(1, 2)
        x = x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)  # restarts with every block
        mask = None
        if ragged:
            mask = (torch.arange(x.shape[1], device=x.device) < conv_lengths(lengths)[:, None])[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        return [rows[: conv_frames(n)] for rows, n in zip(x, frames, strict=True)]


def conv_lengths(frames: Tensor) -> Tensor:
    """conv_frames of each entry."""
    return (frames - 1) // 2 + 1
