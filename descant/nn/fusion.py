"""Linear layers that read the same input, as one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from descant.nn.kernels import Operation, numbers
from descant.nn.linear import Linear, pack, refuse_packed
from descant.nn.prepare import Preparable


class FusedLinear:
    """Linear layers that read the same input, as one product: their weights lie one after another in one tensor.

    Where that is packed, the layers keep but the names and shapes of their parameters. Elsewhere these become views of
    it: nothing is held twice, and what is written into one is seen by the other. For inference only: no gradient would
    find its way to the layers.
    """

    def __init__(self, layers: Sequence[nn.Linear]):
        self.sizes = [layer.out_features for layer in layers]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.kernel = pack(weight)
        self.weight = weight if self.kernel is None else weight.to("meta")
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        for layer, rows in zip(layers, torch.split(self.weight, self.sizes), strict=True):
            layer.weight = nn.Parameter(rows, requires_grad=layer.weight.requires_grad)
        if self.bias is not None:
            for layer, values in zip(layers, torch.split(self.bias, self.sizes), strict=True):
                layer.bias = nn.Parameter(values, requires_grad=layer.bias.requires_grad)

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., D) -> the outputs of all layers side by side, (..., sum of sizes)."""
        if self.kernel is None:
            return F.linear(x, self.weight, self.bias)
        return self.kernel(x, self.bias)


class Fusable(Preparable):
    """A module that can run some of its linear layers as one. ``fused`` is None until ``prepare``, and while it
    learns."""

    def __init__(self) -> None:
        super().__init__()
        self._fused: FusedLinear | None = None

    @property
    def fused(self) -> FusedLinear | None:
        return None if torch.is_grad_enabled() else self._fused

    def fused_layers(self) -> Sequence[nn.Linear]:
        """The layers that read the same input; all with biases or none."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Lay the layers together. Harmless when repeated."""
        if self._fused is None:
            self._fused = FusedLinear(self.fused_layers())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        refuse_packed(None if self._fused is None else self._fused.kernel)
        self._fused = None  # another dtype or device: the parameters are no views any more
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def gated(x: Tensor) -> Tensor:
    """See ``silu_mul``."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


# x (..., 2 D) -> silu of its first half times its second, (..., D)
silu_mul = Operation(
    "silu_mul(Tensor x) -> Tensor",
    gated,
    lambda x: x.new_empty(*x.shape[:-1], x.shape[-1] // 2),
    lambda device, dtype: (numbers((3, 40), device, dtype),),
)


class SwiGLU(Fusable):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int, *, bias: bool):
        super().__init__()
        self.gate_proj = Linear(dim, inner, bias=bias)
        self.up_proj = Linear(dim, inner, bias=bias)
        self.down_proj = Linear(inner, dim, bias=bias)

    def fused_layers(self) -> Sequence[nn.Linear]:
        return self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.inner(x))
        return out

    def inner(self, x: Tensor) -> Tensor:
        """silu(gate(x)) * up(x)."""
        product: Tensor
        if self.fused is None:
            product = F.silu(self.gate_proj(x)) * self.up_proj(x)
        else:
            product = silu_mul(self.fused(x))
        return product
