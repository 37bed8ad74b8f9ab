"""Regions: pure functions of tensors whose shapes their key tells, so that whoever runs them may capture them once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from torch import Tensor

Region = Callable[..., tuple[Tensor, ...]]


class Regions(Protocol):
    """Runs regions: as they are, or as graphs (``engine.regions``)."""

    def rows(self, count: int) -> int:
        """The rows that a batch of ``count`` is filled up to, so that there are few shapes."""
        ...

    def run(self, key: Hashable, region: Region, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``region`` of ``inputs``. Equal keys and shapes of inputs: the same operations, whatever the numbers."""
        ...


class EagerRegions:
    """Regions as they are."""

    def rows(self, count: int) -> int:
        return count

    def run(self, key: Hashable, region: Region, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return region(*inputs)


EAGER = EagerRegions()
