"""Regions of the codec as CUDA graphs: captured by key and shapes once they have been asked for often enough."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from descant.engine.graphs import CAPTURE_AFTER, StepMode, StepRun, static_run, upward
from descant.nn.regions import Region

log = logging.getLogger(__name__)

MOST_REGIONS = 96  # captured at once: the windows of a setting times the rows, with room; what is asked later is eager


@dataclass(frozen=True)
class MadeRegion:
    """A captured region: the buffers that its inputs are copied to, its replay, and the region itself, whose constants
    the graph reads for as long as it lives."""

    buffers: Sequence[Tensor]
    replay: StepRun
    region: Region


class GraphRegions:
    """Regions that are captured. It belongs to one engine, and runs on one thread.

    eager: why a region could not be captured, by its key.
    """

    def __init__(self, mode: StepMode):
        self.mode = mode
        self.eager: dict[Hashable, str] = {}
        self._made: dict[Hashable, MadeRegion] = {}
        self._asked: dict[Hashable, int] = {}

    def rows(self, count: int) -> int:
        """A power of two, where there are graphs."""
        return upward(count) if self.mode == "graphs" else count

    def run(self, key: Hashable, region: Region, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The region's results, which nothing later writes on."""
        if self.mode != "graphs":
            return region(*inputs)
        key = key, *(x.shape for x in inputs)
        asked = self._asked[key] = self._asked.get(key, 0) + 1
        full = key not in self._made and len(self._made) >= MOST_REGIONS
        if asked <= CAPTURE_AFTER or key in self.eager or full:
            return region(*inputs)
        return self.replay(key, region, inputs)

    def replay(self, key: Hashable, region: Region, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The region as a graph, captured when it is first asked for; one that cannot be is eager from then on."""
        if key not in self._made:
            buffers = [x.clone() for x in inputs]
            made = static_run(lambda: region(*buffers), self.mode)
            if isinstance(made, str):
                outputs = region(*inputs)  # raises by itself where the input is at fault
                self.eager[key] = made
                log.warning("a region of the codec stays eager: %s", made)
                return outputs
            self._made[key] = MadeRegion(buffers, made, region)
        found = self._made[key]
        for buffer, x in zip(found.buffers, inputs, strict=True):
            buffer.copy_(x)
        return tuple(out.clone() for out in found.replay())  # the next replay writes where these are
