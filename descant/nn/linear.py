"""Linear layers behind one protocol: a weight may be kept in the order in which some kernel reads it fastest.

Packed float32 (oneDNN, on a CPU) is the first kernel; quantised weights come in by the same door: ``pack`` chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from descant.nn.prepare import Preparable

HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
PACK_MIN_WEIGHTS = 2**16  # for a smaller matrix the call of oneDNN costs more than it saves
PAD_ROWS_TO = 4  # oneDNN reads the weights faster for four rows than for one or two
PACK_FOR_ROWS = 64  # what a packed order is chosen for; it serves any number


class Kernel(Protocol):
    """A weight (N, D) in an order of its own, and the product with it. No gradient."""

    def __call__(self, x: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
        """x (..., D), bias (N,) -> (..., N), as functional.linear; gelu: then GELU in its tanh form."""
        ...


class PackedFloat32:
    """A float32 weight as oneDNN reads it fastest on this CPU. The order is oneDNN's own: only its product can read it.

    On an AMD EPYC it is up to twice as fast for a few rows, and a tenth faster for many (LOG.md, Decoding).
    """

    def __init__(self, weight: Tensor):
        self.order: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACK_FOR_ROWS)

    @staticmethod
    def suits(weight: Tensor) -> bool:
        """True if oneDNN multiplies by this weight faster than torch does by itself."""
        large = HAS_ONEDNN and weight.numel() >= PACK_MIN_WEIGHTS
        return large and weight.device.type == "cpu" and weight.dtype is torch.float32

    def __call__(self, x: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
        if x.ndim > 1 and x.numel() < 3 * x.shape[-1]:  # one row or two
            padded = x.expand(PAD_ROWS_TO, *x.shape[1:]) if x.shape[0] == 1 else torch.cat((x, x))
            return multiply(padded, self.order, bias, gelu).narrow(0, 0, x.shape[0])
        return multiply(x, self.order, bias, gelu)


def pack(weight: Tensor) -> Kernel | None:
    """The kernel that multiplies by ``weight`` (N, D) fastest, or None where torch's own product does."""
    return PackedFloat32(weight) if PackedFloat32.suits(weight) else None


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """functional.linear through oneDNN, and after it the GELU if wanted; weight as it is, or packed."""
    then, how = ("gelu", "tanh") if gelu else ("none", "")
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], how)
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., D), weight (N, D) -> (..., N): for a weight that must stay as it is. In inference through oneDNN too."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not PackedFloat32.suits(weight):
        return F.linear(x, weight)  # a compiler chooses by itself
    return multiply(x, weight, None)


def adds_in_place(x: Tensor) -> bool:
    """True where a sum is written over its first part: on a GPU, where each kernel costs, and without gradients."""
    return x.device.type != "cpu" and not torch.is_grad_enabled()


class Linear(nn.Linear, Preparable):
    """nn.Linear that can be packed for inference. Then it can no more learn, be saved, moved or cast."""

    kernel: Kernel | None = None

    def prepare(self) -> None:
        """Pack the weight, if a kernel suits it. Its name and shape stay, and whoever reads it is told."""
        if self.kernel is not None or self.weight.is_meta:
            return
        self.kernel = pack(self.weight)
        if self.kernel is not None:
            self.weight = nn.Parameter(self.weight.to("meta"), requires_grad=self.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return F.linear(x, self.weight, self.bias)
        return self.kernel(x, self.bias)

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual (..., N) + the output for x (..., D). Where ``adds_in_place`` says so, in ``residual`` itself,
        which lies in one piece, by the product's own kernel; only a layer without a bias."""
        if self.kernel is not None or self._parameters.get("bias") is not None or not adds_in_place(residual):
            out: Tensor = residual + self(x)
            return out
        residual.view(-1, residual.shape[-1]).addmm_(x.flatten(0, -2), self.weight.t())
        return residual

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        refuse_packed(self.kernel)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]


class GeluLinear(Linear):
    """Linear, then GELU in its tanh form; as one operation where it is packed."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return F.gelu(super().forward(x), approximate="tanh")
        return self.kernel(x, self.bias, gelu=True)


def refuse_packed(kernel: Kernel | None) -> None:
    """Raise RuntimeError where a weight is in a kernel's own order."""
    if kernel is not None:
        raise RuntimeError("a model that was prepared for answering cannot be moved or cast; load it as it is wanted")
