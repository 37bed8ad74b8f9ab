"""Layers that more than one part of the model uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

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


LARGE = 2**19  # weights; a smaller matrix stays in the caches, where the call of oneDNN costs more than it saves
ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., D), weight (N, D), bias (N,) -> (..., N), as functional.linear.

    In inference on a CPU a large float32 matrix goes through oneDNN, as compiled models do, because MKL multiplies few
    rows on one thread, or at half the speed, where the processor is not Intel's. The weight stays as it is stored.
    """
    if ONEDNN and weight.numel() >= LARGE and weight.is_cpu and weight.dtype is torch.float32:
        if not (torch.is_grad_enabled() or torch.compiler.is_compiling()):  # a compiler chooses by itself
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
            return out
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear through ``linear``."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Joint:
    """Linear layers that read the same input, as one product: their weights lie one after another in one tensor.

    The layers keep their parameters, which become views of it: nothing is held twice, names do not change, and what
    is written into one is seen by the other. For inference only: no gradient would find its way to the layers.
    """

    def __init__(self, layers: Sequence[nn.Linear]):
        self.sizes = [layer.out_features for layer in layers]
        self.weight = torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        for layer, rows in zip(layers, torch.split(self.weight, self.sizes), strict=True):
            layer.weight = nn.Parameter(rows, requires_grad=layer.weight.requires_grad)
        if self.bias is not None:
            for layer, values in zip(layers, torch.split(self.bias, self.sizes), strict=True):
                layer.bias = nn.Parameter(values, requires_grad=layer.bias.requires_grad)

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., D) -> the outputs of all layers side by side, (..., sum of sizes)."""
        return linear(x, self.weight, self.bias)


class Fusible(nn.Module):
    """A module that can run some of its linear layers as one. ``joint`` is None until ``fuse``, and while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self._joint: Joint | None = None

    @property
    def joint(self) -> Joint | None:
        return None if torch.is_grad_enabled() else self._joint

    def siblings(self) -> Sequence[nn.Linear]:
        """The layers that read the same input; all with biases or none."""
        raise NotImplementedError

    def fuse(self) -> None:
        """Lay the siblings together, once, when the weights are there."""
        self._joint = Joint(self.siblings())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._joint = None  # another dtype or device: the parameters are no views any more
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class SwiGLU(Fusible):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int, *, bias: bool):
        super().__init__()
        self.gate_proj = Linear(dim, inner, bias=bias)
        self.up_proj = Linear(dim, inner, bias=bias)
        self.down_proj = Linear(inner, dim, bias=bias)

    def siblings(self) -> Sequence[nn.Linear]:
        return self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        if self.joint is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = self.joint(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
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
