"""Layers that more than one part of the model uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normalise(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last axis. Written out: on a CPU this is 2-4 times as fast as functional.rms_norm."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class RMSNorm(nn.Module):
    """x / rms(x) * weight (arXiv 1910.07467). The statistics are float32; the result has the dtype of x."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * normalise(x.float(), self.eps).to(x.dtype)  # the weight after the cast, as the official


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int, *, bias: bool):
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner, bias=bias)
        self.up_proj = nn.Linear(dim, inner, bias=bias)
        self.down_proj = nn.Linear(inner, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Initialise for training: weights of linear, convolution and embedding layers N(0, std), biases 0, norms 1."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv3d, nn.Embedding)):
            nn.init.normal_(part.weight, 0.0, std)
            if not isinstance(part, nn.Embedding) and part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, RMSNorm):
            nn.init.ones_(part.weight)
