"""Layers that more than one part of the model uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Value = TypeVar("Value")


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # whoever asks first: a training step may be the next
def scalar(value: float, device: torch.device) -> Tensor:
    """() float32, made once: a Python number costs a small operation as much again."""
    return torch.tensor(value, device=device)


def normalise(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last axis, x float32. For one row on a CPU in half the time of functional.rms_norm."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    floor = (torch.tensor if torch.compiler.is_compiling() else scalar)(eps, device=x.device)
    return x * torch.addcmul(floor, size, size, value=1 / x.shape[-1]).rsqrt()


class RMSNorm(nn.Module):
    """x / rms(x) * weight (arXiv 1910.07467). The statistics are float32; the result has the dtype of x."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * normalise(x.float(), self.eps).to(x.dtype)  # the weight after the cast, as the official


# oneDNN makes a kernel for each shape, in about a millisecond, and keeps 1024. A window of the vocoder has some 80, so
# that answers of several settings drove each other's out. It reads this once, before its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")

ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
WORTH = 2**16  # weights; for a smaller matrix the call of oneDNN costs more than it saves
KEPT = 16  # results that a settled module keeps
FEW = 4  # rows: oneDNN reads the weights faster for four than for one or two
ROWS = 64  # what a packed order is chosen for; it serves any number


def suits(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by this weight faster than torch does by itself."""
    return ONEDNN and weight.numel() >= WORTH and weight.device.type == "cpu" and weight.dtype is torch.float32


def packed(weight: Tensor) -> Tensor | None:
    """weight (N, D) as oneDNN reads it fastest, or None: only a large enough float32 one on a CPU is packed.

    The order is oneDNN's own: only ``product`` can read it. On an AMD EPYC it is up to twice as fast for a few rows,
    and a tenth faster for many (LOG.md, Decoding).
    """
    if not suits(weight):
        return None
    order: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return order


def product(x: Tensor, order: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """x (..., D) and the packed weight (N, D), bias (N,) -> (..., N), as functional.linear; no gradient."""
    if x.ndim > 1 and x.numel() < 3 * x.shape[-1]:  # one row or two
        several = x.expand(FEW, *x.shape[1:]) if x.shape[0] == 1 else torch.cat((x, x))
        return multiply(several, order, bias, gelu).narrow(0, 0, x.shape[0])
    return multiply(x, order, bias, gelu)


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """functional.linear through oneDNN, and after it the GELU if wanted; weight as it is, or packed."""
    then, how = ("gelu", "tanh") if gelu else ("none", "")
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], how)
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., D), weight (N, D) -> (..., N): for a weight that must stay as it is. In inference through oneDNN too."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not suits(weight):  # a compiler chooses by itself
        return F.linear(x, weight)
    return multiply(x, weight, None)


class Linear(nn.Linear):
    """nn.Linear that can be packed for inference. Then it can no more learn, be saved, moved or cast."""

    _order: Tensor | None = None

    def pack(self) -> None:
        """Once, when the weights are there. The weight's name and shape stay, and whoever reads it is told."""
        self._order = packed(self.weight)
        if self._order is not None:
            self.weight = nn.Parameter(self.weight.to("meta"), requires_grad=self.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        if self._order is None:
            return F.linear(x, self.weight, self.bias)
        return product(x, self._order, self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        refuse_packed(self._order)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]


class GeluLinear(Linear):
    """Linear, then GELU in its tanh form; as one operation where it is packed."""

    def forward(self, x: Tensor) -> Tensor:
        if self._order is None:
            return F.gelu(super().forward(x), approximate="tanh")
        return product(x, self._order, self.bias, gelu=True)


def refuse_packed(order: Tensor | None) -> None:
    """Raises RuntimeError where a weight is in oneDNN's order."""
    if order is not None:
        raise RuntimeError("a model that was prepared for answering cannot be moved or cast; load it as it is wanted")


class Joint:
    """Linear layers that read the same input, as one product: their weights lie one after another in one tensor.

    Where that is packed, the layers keep but the names and shapes of their parameters. Elsewhere these become views of
    it: nothing is held twice, and what is written into one is seen by the other. For inference only: no gradient would
    find its way to the layers.
    """

    def __init__(self, layers: Sequence[nn.Linear]):
        self.sizes = [layer.out_features for layer in layers]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.order = packed(weight)
        self.weight = weight if self.order is None else weight.to("meta")
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        for layer, rows in zip(layers, torch.split(self.weight, self.sizes), strict=True):
            layer.weight = nn.Parameter(rows, requires_grad=layer.weight.requires_grad)
        if self.bias is not None:
            for layer, values in zip(layers, torch.split(self.bias, self.sizes), strict=True):
                layer.bias = nn.Parameter(values, requires_grad=layer.bias.requires_grad)

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., D) -> the outputs of all layers side by side, (..., sum of sizes)."""
        if self.order is None:
            return F.linear(x, self.weight, self.bias)
        return product(x, self.order, self.bias)


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
        """Lay the siblings together, when the weights are there. Harmless when repeated."""
        if self._joint is None:
            self._joint = Joint(self.siblings())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        refuse_packed(None if self._joint is None else self._joint.order)
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


class Settled(nn.Module):
    """A module that can keep what it computes again and again, once its weights will not change any more."""

    _kept: dict[Hashable, Any] | None = None

    def settle(self) -> None:
        """From now on ``once`` is true to its name."""
        self._kept = {} if self._kept is None else self._kept

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What ``make`` gave for this key, if it is kept; else it is made. The oldest of ``KEPT`` goes first."""
        kept = self._kept
        if kept is None or torch.is_grad_enabled():
            return make()
        found: Value | None = kept.get(key)
        if found is None:
            found = kept[key] = make()
            for old in list(kept)[:-KEPT]:  # a copy, and pop: another thread may be here too
                kept.pop(old, None)
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]


def prepare(module: nn.Module) -> None:
    """Make ``module`` fast for answering, when its weights are there: siblings are fused, large weights packed, and
    what never changes is computed once.

    Harmless when repeated. Its results differ by rounding alone. It is for nothing else afterwards: weights may not
    change, and on a CPU in float32 not even move, see ``Linear``.
    """
    parts = list(module.modules())
    for part in parts:
        if isinstance(part, Fusible):
            part.fuse()
        if isinstance(part, Settled):
            part.settle()
    for part in parts:
        if isinstance(part, Linear) and not part.weight.is_meta:
            part.pack()


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Initialise for training: weights of linear, convolution and embedding layers N(0, std), biases 0, norms 1."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv3d, nn.Embedding)):
            nn.init.normal_(part.weight, 0.0, std)
            if not isinstance(part, nn.Embedding) and part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, RMSNorm):
            nn.init.ones_(part.weight)
