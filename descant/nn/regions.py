"""Regions: pure functions of tensors whose shapes their key tells, so that whoever runs them may capture them once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, Protocol

from torch import Tensor

Region = Callable[..., tuple[Tensor, ...]]
# In what company a shape is met: any; hardly another one at the same time; none, as there are too many such shapes
Company = Literal["any", "alone", "none"]


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


def runner(regions: Regions, companies: Iterable[Company]) -> Regions:
    """The runner of a batch: ``regions`` where its shape is met again, else as they are. A graph has buffers of its own
    for what goes in and comes out, so one for every row count of every end of an utterance would fill a small card."""
    met = list(companies)
    return regions if "any" in met or met == ["alone"] else EAGER
