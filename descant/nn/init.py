"""The beginning of weights: drawn for training, or left out where they are only names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from descant.nn.norm import RMSNorm


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Initialise for training: weights of linear, convolution and embedding layers N(0, std), biases 0, norms 1."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv3d, nn.Embedding)):
            nn.init.normal_(part.weight, 0.0, std)
            if not isinstance(part, nn.Embedding) and part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, RMSNorm):
            nn.init.ones_(part.weight)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Make modules on the meta device, and draw nothing into their weights: names and shapes alone.

    What torch draws on the meta device goes through its compiler, whose import alone takes a second.
    """
    with _Undrawn(), torch.device("meta"):
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves out what would fill a tensor with random numbers."""

    DRAWING = frozenset({nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, Tensor.uniform_, Tensor.normal_})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self.DRAWING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
