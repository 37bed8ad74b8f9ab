"""Regions of the codec as CUDA graphs: captured at load for one setting, else once they have been asked for often
enough."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from descant.engine.graphs import CAPTURE_AFTER, StepMode, StepRun, static_run, upward
from descant.model.codec import CodecState, PreparedVoice, Token2Wav, WindowPlan
from descant.nn.regions import EagerRegions, Region
from descant.types import Decoding

log = logging.getLogger(__name__)

MOST_REGIONS = 256  # captured at once: the windows of two settings times the rows, with room
REGION_BYTES = 2**29  # of the buffers of all: a graph has its own for what goes in and comes out

DueWindow = tuple[CodecState, WindowPlan]


def region_key(key: Hashable, inputs: Sequence[Tensor]) -> Hashable:
    """The key of a region with the shapes of its inputs: whatever has an equal one makes the same operations."""
    return key, *(x.shape for x in inputs)


class NotedRegions(EagerRegions):
    """Regions as they are. asked: the keys of those that were run."""

    def __init__(self) -> None:
        self.asked: set[Hashable] = set()

    def run(self, key: Hashable, region: Region, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.asked.add(region_key(key, inputs))
        return region(*inputs)


@dataclass(frozen=True)
class MadeRegion:
    """A captured region: the buffers that its inputs are copied to, its replay, and the region itself, whose constants
    the graph reads for as long as it lives."""

    buffers: Sequence[Tensor]
    replay: StepRun
    region: Region


def all_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.nbytes for tensor in tensors)


class GraphRegions:
    """Regions that are captured. It belongs to one engine, and runs on one thread.

    eager: why a region could not be captured, by its key.
    """

    def __init__(self, mode: StepMode):
        self.mode = mode
        self.eager: dict[Hashable, str] = {}
        self._made: dict[Hashable, MadeRegion] = {}
        self._asked: dict[Hashable, int] = {}
        self._bytes = 0  # of what was made
        self._warming = False

    def rows(self, count: int) -> int:
        """A power of two, where there are graphs."""
        return upward(count) if self.mode == "graphs" else count

    def run(self, key: Hashable, region: Region, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The region's results, which nothing later writes on."""
        if self.mode != "graphs":
            return region(*inputs)
        key = region_key(key, inputs)
        asked = self._asked[key] = self._asked.get(key, 0) + 1
        soon = asked <= CAPTURE_AFTER and not self._warming
        more = self._bytes + 2 * all_bytes(inputs)  # what comes out is as large
        full = more > REGION_BYTES or len(self._made) >= MOST_REGIONS
        if (key not in self._made and (soon or full)) or key in self.eager:
            return region(*inputs)
        return self.replay(key, region, inputs)

    def warm_up(self, codec: Token2Wav, work: Sequence[tuple[DueWindow, int]]) -> Iterator[int]:
        """Capture the regions of batches of so many windows; yields how many are left."""
        for left, (due, count) in zip(reversed(range(len(work))), work, strict=True):
            with torch.inference_mode():
                self.warm(codec, due, count)
            yield left

    def warm(self, codec: Token2Wav, due: DueWindow, rows: int) -> None:
        """Capture the regions of so many windows like this one, before anybody asks for them."""
        self._warming = True
        try:
            codec.step_windows([due] * rows, self)
        finally:
            self._warming = False

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
            self._bytes += 2 * all_bytes(inputs)
        found = self._made[key]
        for buffer, x in zip(found.buffers, inputs, strict=True):
            buffer.copy_(x)
        return tuple(out.clone() for out in found.replay())  # the next replay writes where these are


def window_batches(windows: Sequence[DueWindow], most: int) -> list[tuple[DueWindow, int]]:
    """The batches of up to ``most`` rows that are captured, as ``GraphRegions.rows`` fills them up: the largest first,
    so that smaller ones find their memory. What has no company comes alone; where REGION_BYTES are too few, the largest
    are left out."""
    counts = [1 << n for n in range(upward(most).bit_length())]
    sorted_windows = sorted(windows, key=lambda due: due[1].company != "any")
    batches = [(due, count) for count in counts for due in sorted_windows if count == 1 or due[1].company == "any"]
    row_bytes = 2 * max((all_bytes(state.past or ()) for state, _ in windows), default=0)
    filled = accumulate(count * row_bytes for _, count in batches)
    return [batch for batch, total in zip(batches, filled, strict=True) if total <= REGION_BYTES][::-1]


@torch.inference_mode()
def stream_windows(codec: Token2Wav, voice: PreparedVoice, decoding: Decoding) -> list[DueWindow]:
    """The windows of a stream of any length, one of each shape: those of a stream that goes on, until nothing changes
    any more, and at each of them those of its ends. They are made meanwhile, as they are."""
    noted, found = NotedRegions(), list[DueWindow]()
    state, before = codec.start(voice, 0, decoding), None
    while (now := shape_of(codec, state)) != before:
        before = now
        for some in [*ends(codec, state), going_on(codec, state)]:
            known = len(noted.asked)
            plan = codec.next_window(some)
            if plan is None:
                continue
            [(_, moved)] = codec.step_windows([(some, plan)], noted)
            if len(noted.asked) > known:
                found.append((some, plan))
        state = moved
    return found


def shape_of(codec: Token2Wav, state: CodecState) -> Hashable:
    """All that the shapes of a stream's windows follow from."""
    sound = state.vocoder
    return codec.upcoming_window(state), state.past is None, sound.mel.shape, sound.emitted - sound.start


def going_on(codec: Token2Wav, state: CodecState) -> CodecState:
    """The stream with the codes of its next window."""
    return replace(state, codes=F.pad(state.codes, (0, codec.missing_codes(state))))


def ends(codec: Token2Wav, state: CodecState) -> Iterator[CodecState]:
    """The stream where no more codes come: with any number of blocks that is no window of one that goes on, the last
    of them whole or not."""
    plan, per_block = codec.upcoming_window(state), codec.codes_per_block
    for blocks in range(plan.count + plan.ahead + 1):
        for codes in {blocks * per_block, max(0, blocks * per_block - 1)}:
            yield replace(state, codes=torch.zeros(codes, dtype=torch.long), finished=True)
