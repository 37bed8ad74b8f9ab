"""One decode step of many sessions, one new token each; the one file that knows about CUDA graphs and compilation.

Eagerly a step has the shapes that its sessions happen to have. A static step has those of a bucket: rows and pages are
filled up to powers of two and what is real comes in buffers, so that it can be captured once and replayed, or compiled.
It reads the same pages and gives the same numbers (law: 1e-5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.nn.attention import grouped_attention
from descant.nn.cache import Cache, keys_values
from descant.nn.pages import PADDING_PAGE, PackedBatch, PagedBatch, PageStore, PageTable

log = logging.getLogger(__name__)

StepMode = Literal["off", "graphs", "compile"]
Forward = Callable[[Tensor, Tensor, Cache], tuple[Tensor, ...]]  # x, positions, past -> outputs
StepRun = Callable[[], tuple[Tensor, ...]]

CAPTURE_AFTER = 8  # eager steps of a bucket before it is captured: a short answer is over before that has paid
MIN_BUCKET_PAGES = 8
WARM_UP_RUNS = 3  # runs before a capture, so that libraries have their workspaces; as torch's documentation advises


@dataclass(frozen=True)
class StaticCache:
    """The cache of a static step: every row reads the slots of its pages, then, last, the one that it writes.

    layers: the store's, (slots, 2, H, D) each; read (B * S,), write (B,) int64; mask (B, 1, 1, S): what is written.
    """

    layers: Sequence[Tensor]
    read: Tensor
    write: Tensor
    mask: Tensor

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """q (B, 1, Hq, D), keys and values (B, 1, 2, Hk, D) -> (B, 1, Hq * D); see ``Cache``."""
        store = self.layers[layer]
        store.index_copy_(0, self.write, new.flatten(0, 1).to(store.dtype))
        seen = store.index_select(0, self.read)
        keys, values = keys_values(seen.view(len(self.write), -1, *seen.shape[1:]))
        return grouped_attention(q.transpose(1, 2), keys, values, self.mask, causal=False)


class StepBuffers:
    """The buffers of one bucket over one store: x (B, 1, E), positions (3, B, 1), words (B, P + 1) int64: the pages of
    each row, then its length. PromptTokens that nobody has repeat the first, so that they write what it writes."""

    def __init__(self, forward: Forward, store: PageStore, x: Tensor, rows: int, pages: int):
        self.forward = forward
        self.size = store.size
        self.rows = rows
        self.pages = pages
        self.layers = list(store.layers)  # not the store: it may be forgotten with them
        self.x = x.new_zeros(rows, 1, x.shape[-1])
        self.positions = torch.zeros(3, rows, 1, dtype=torch.long, device=x.device)
        self.words = torch.zeros(rows, pages + 1, dtype=torch.long, device=x.device)
        self.offsets = torch.arange(pages * store.size, device=x.device)

    def fill(self, x: Tensor, positions: Tensor, tables: Sequence[PageTable]) -> None:
        """Lay out one step in the buffers; nothing waits for the device."""
        words = torch.full((self.rows, self.pages + 1), PADDING_PAGE, dtype=torch.long)
        for row, table in enumerate(tables):
            words[row, : len(table.pages)] = torch.tensor(table.pages)
            words[row, -1] = table.length
        words[len(tables) :] = words[0]
        if self.words.is_cuda:
            words = words.pin_memory()  # a copy from other memory waits for the device
        self.words.copy_(words, non_blocking=True)
        for buffer, given, axis in ((self.x, x, 0), (self.positions, positions, 1)):
            buffer.narrow(axis, 0, len(tables)).copy_(given)
            if len(tables) < self.rows:
                spare = buffer.narrow(axis, len(tables), self.rows - len(tables))
                spare.copy_(given.narrow(axis, 0, 1).expand_as(spare))

    def run(self) -> tuple[Tensor, ...]:
        """The step on the buffers: static shapes, no branch on a value."""
        pages = self.words[:, :-1]
        lengths = self.words[:, -1:]
        slots = (pages.unsqueeze(-1) * self.size + self.offsets[: self.size]).flatten(1)  # (B, P * size)
        write = slots.gather(1, lengths)
        read = torch.cat((slots[:, :-1], write), dim=1)
        mask = torch.cat((self.offsets[:-1] < lengths, torch.ones_like(write, dtype=torch.bool)), dim=1)
        past = StaticCache(self.layers, read.flatten(), write.flatten(), mask[:, None, None])
        return self.forward(self.x, self.positions, past)


class DecodeStep:
    """The step of one decoder over one store: eager, or static in buckets that are made when they have been asked for
    often enough. It belongs to one engine, and runs on one thread.

    eager_buckets: why a bucket of rows and pages could not be made.
    """

    def __init__(self, forward: Forward, mode: StepMode):
        self.forward = forward
        self.mode = mode
        self.eager_buckets: dict[tuple[int, int], str] = {}
        self._made: dict[tuple[int, int], tuple[StepBuffers, StepRun]] = {}
        self._asked: dict[tuple[int, int], int] = {}

    def __call__(self, x: Tensor, positions: Tensor, tables: Sequence[PageTable]) -> tuple[Tensor, ...]:
        """x (B, T, E), positions (3, B, T), after the pasts of ``tables`` (several: T = 1) -> what forward returns.

        The tables do not count the new tokens yet: whoever keeps the result does (``PageTable.advance``).
        """
        if self.mode == "off" or x.shape[1] > 1:
            return self.eager(x, positions, tables)
        for table in tables:
            table.reserve(table.length + 1)
        bucket = upward(len(tables)), max(MIN_BUCKET_PAGES, upward(max(len(table.pages) for table in tables)))
        self._asked[bucket] = self._asked.get(bucket, 0) + 1
        if self._asked[bucket] <= CAPTURE_AFTER or bucket in self.eager_buckets:
            return self.eager(x, positions, tables)
        return self.static(x, positions, tables, bucket)

    def eager(self, x: Tensor, positions: Tensor, tables: Sequence[PageTable]) -> tuple[Tensor, ...]:
        new = x.shape[1]
        return self.forward(x, positions, PagedBatch(tables) if new == 1 else PackedBatch(tables, [new] * len(tables)))

    def static(
        self, x: Tensor, positions: Tensor, tables: Sequence[PageTable], bucket: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """The step in its bucket. One that cannot be made is eager from then on; the others stay as they are."""
        store = tables[0].store
        if self._made and next(iter(self._made.values()))[0].layers[0] is not store.layers[0]:
            self._made.clear()  # the store has grown: its tensors are new ones
        if bucket not in self._made:
            buffers = StepBuffers(self.forward, store, x, *bucket)
            buffers.fill(x, positions, tables)
            try:
                run = STEP_COMPILERS[self.mode](buffers.run)
                run()
            except RuntimeError as error:
                graph_pool.cache_clear()  # a capture that failed leaves its pool in disorder: the next takes another
                outputs = self.eager(x, positions, tables)  # raises by itself where the input is at fault
                reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                self.eager_buckets[bucket] = reason
                log.warning("decode steps of %d rows and %d pages stay eager: %s", *bucket, reason)
                return outputs
            self._made[bucket] = buffers, run
        buffers, run = self._made[bucket]
        buffers.fill(x, positions, tables)
        return tuple(out[: len(tables)].clone() for out in run())  # the next step writes where these are


def upward(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


@cache
def graph_pool() -> Any:
    """The memory that graphs share: their steps run one after another, on one stream, and results are copied."""
    return torch.cuda.graph_pool_handle()


def captured(run: StepRun) -> StepRun:
    """``run`` as a CUDA graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    main = torch.cuda.current_stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_RUNS):
            run()
    main.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=graph_pool(), capture_error_mode="thread_local"):  # other threads may go on
        outputs = run()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


def compiled(run: StepRun) -> StepRun:
    """``run`` through torch.compile: tens of seconds at its first call, then fewer and larger kernels."""
    return torch.compile(run)


STEP_COMPILERS: Mapping[StepMode, Callable[[StepRun], StepRun]] = {"graphs": captured, "compile": compiled}


class DecodeSteps:
    """The steps of a model's decoders. mode None: graphs where the weights are on CUDA, else off."""

    def __init__(self, thinker: Thinker, talker: Talker | None, mode: StepMode | None):
        mode = mode or ("graphs" if thinker.device.type == "cuda" else "off")
        self.mode: StepMode = mode

        def think(x: Tensor, positions: Tensor, past: Cache) -> tuple[Tensor, ...]:
            hidden = thinker(x, positions, past)
            return hidden, thinker.logits(hidden[:, -1])

        def sing(x: Tensor, positions: Tensor, past: Cache) -> tuple[Tensor, ...]:
            assert talker is not None
            return (talker(x, positions, past),)

        self.thinker = DecodeStep(think, mode)  # x (B, T, D) -> hidden (B, T, D), logits (B, V) of the last row
        self.talker = DecodeStep(sing, mode)  # rows (B, T, E) -> logits (B, T, C)

    @property
    def faults(self) -> tuple[str, ...]:
        """The buckets that could not be made and are eager, one line each. May be read from any thread."""
        steps = {"thinker": self.thinker, "talker": self.talker}
        return tuple(
            f"{name}, {rows} rows, {pages} pages: {reason}"
            for name, step in steps.items()
            for (rows, pages), reason in list(step.eager_buckets.items())
        )
