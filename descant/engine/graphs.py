"""One decode step of many sessions, one new token each, and the draw behind it; the one file that knows of CUDA graphs
and compilation.

Eagerly a step has the shapes that its sessions happen to have. A static step has those of a bucket: rows are filled up
to powers of two, and so are pages where they are not read in place (``pages.attend_pages``); what is real comes in
buffers, so that it can be captured once and replayed, or compiled. It reads the same pages and gives the same numbers
(law: 1e-5). What a step needs of the host comes in one copy.

Axes: B rows, E width of what is read, V ids, P pages of the longest row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from descant.engine.draws import DRAW_WORDS, DrawTable, Extras, Needs, draw
from descant.engine.sampling import DrawKind, Sampler
from descant.model.talker import Talker, reply_rows, step_row
from descant.model.thinker import Thinker
from descant.nn.cache import Cache
from descant.nn.pages import PagedBatch, PageStore, PageTable, attend_pages, static_cache
from descant.types import Sampling

log = logging.getLogger(__name__)

StepMode = Literal["off", "graphs", "compile"]
# tokens (B, 1), states (B, 1, E) or None, positions (3, B, 1), past -> outputs (B, ...) each, the last logits (B, V)
Forward = Callable[[Tensor, Tensor | None, Tensor, Cache], tuple[Tensor, ...]]
StepRun = Callable[[], tuple[Tensor, ...]]

CHEAP_DRAWS = frozenset({DrawKind.GREEDY, DrawKind.WINDOW, DrawKind.PLAIN})  # those that sort nothing
WARM_PAGES = 64  # of each row, 1,024 tokens: longer steps are captured when they have been asked for often
CAPTURE_AFTER = 8  # eager steps of a bucket before it is captured: a short answer is over before that has paid
MIN_BUCKET_PAGES = 8
WARM_UP_RUNS = 3  # runs before a capture, so that libraries have their workspaces; as torch's documentation advises
ROW_WORDS = 2 + DRAW_WORDS  # of each row: its token, its position, and how it draws
BEFORE_WORD = 3  # among them, of how it draws: the id that was kept last


@dataclass(frozen=True)
class StepRow:
    """One row of a step: a token that is read behind the past of a table, and the draw of the next. state (E,): what is
    added to the token's embedding (None: nothing)."""

    table: PageTable
    token: int
    position: int
    sampler: Sampler
    state: Tensor | None = None


@dataclass(frozen=True)
class Stepped:
    """The result of a step. outputs: the forward's, (B, ...) each, the last of them logits (B, V); ids (B,) int64."""

    outputs: tuple[Tensor, ...]
    ids: Tensor

    @property
    def logits(self) -> Tensor:
        return self.outputs[-1]


class Bucket(NamedTuple):
    """The shape of a static step: its rows, and the pages of each."""

    rows: int
    pages: int

    def __str__(self) -> str:
        return f"{self.rows} rows, {self.pages} pages"


class StepBuffers:
    """The buffers of one bucket over one store and one table of draws.

    words (B, ROW_WORDS + 1) int64: of each row the token, the position, the words of its draw and the length of its
    past; pages (P, B) int64: its pages, behind them any; both lie in ``given``. states (B, 1, E). A row that nobody
    has repeats the first, so that it writes what that writes.
    """

    def __init__(self, step: DecodeStep, store: PageStore, bucket: Bucket, states: Tensor | None):
        draws = step.draws
        self.forward = step.forward
        self.needs = Needs(step.kinds)
        self.size = store.size
        self.bucket = bucket
        self.layers = list(store.layers)  # not the store: it may be forgotten with them
        self.seen = draws.seen
        self.banned = draws.banned
        device = self.layers[0].device
        size = bucket.rows * (ROW_WORDS + 1 + bucket.pages)
        self.given = torch.zeros(size, dtype=torch.long, device=device)
        self.words, self.pages = self._parts(self.given)
        self.sent = torch.zeros(size, dtype=torch.long, pin_memory=self.given.is_cuda)  # what is copied into them
        self._written = [part.numpy() for part in self._parts(self.sent)]
        self.copied = torch.cuda.Event() if self.given.is_cuda else None  # type: ignore[no-untyped-call]
        self.states = None if states is None else states.new_zeros(bucket.rows, 1, states.shape[-1])

    def _parts(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """The words and the pages in ``given``; the first pages of all rows come first, so that few are copied."""
        rows = self.bucket.rows
        words = rows * (ROW_WORDS + 1)
        return given[:words].view(rows, -1), given[words:].view(-1, rows)

    def fill(self, rows: Sequence[StepRow], draws: DrawTable, drawn: Tensor | None = None) -> None:
        """Lay out one step in the buffers, by one copy; nothing waits for the device. drawn: see ``DecodeStep``."""
        if self.copied is not None:
            self.copied.synchronize()  # the copy before this one has left; it was over long ago
        count, most = len(rows), max(len(row.table.pages) for row in rows)
        words, pages = self._written
        for place, row in enumerate(rows):
            words[place] = words_of_row(row, draws) + [row.table.length]
            pages[: len(row.table.pages), place] = row.table.pages
        words[count:] = words[0]
        pages[:most, count:] = pages[:most, :1]
        used = words.size + most * self.bucket.rows
        self.given[:used].copy_(self.sent[:used], non_blocking=True)
        if self.copied is not None:
            self.copied.record()
        if drawn is not None:
            put_drawn(self.words, torch.cat((drawn, drawn[:1].expand(self.bucket.rows - count))))
        if self.states is not None:
            states = stacked(rows)
            self.states[:count, 0].copy_(states)
            if count < self.bucket.rows:
                self.states[count:, 0].copy_(states[:1].expand(self.bucket.rows - count, -1))

    def run(self) -> tuple[Tensor, ...]:
        """The step on the buffers, and its draw: static shapes, no branch on a value."""
        tokens, positions = self.words[:, 0:1], self.words[:, 1:2].expand(3, -1, -1)
        past = static_cache(self.layers, self.pages, self.words[:, ROW_WORDS], self.size)
        outputs = self.forward(tokens, self.states, positions, past)
        return *outputs, draw(outputs[-1], self.words[:, 2:ROW_WORDS], self.seen, self.banned, self.needs)


def words_of_row(row: StepRow, draws: DrawTable) -> list[int]:
    """The ROW_WORDS of a row."""
    return [row.token, row.position, *draws.words(row.sampler)]


def put_drawn(words: Tensor, drawn: Tensor) -> None:
    """Write ids (B,) into words (B, ...) as the tokens, and as those that were kept last. What is no id is read as the
    first one: whoever keeps it finds out."""
    ids = drawn.clamp(min=0)
    words[:, 0].copy_(ids)
    words[:, BEFORE_WORD].copy_(ids)


def stacked(rows: Sequence[StepRow]) -> Tensor:
    """The states of rows that have one, (B, E)."""
    return torch.stack([row.state for row in rows if row.state is not None])


class DecodeStep:
    """The step of one decoder over one store: eager, or static in buckets that are made when they have been asked for
    often enough. It belongs to one engine, and runs on one thread.

    kinds: of draws that static steps make; others are drawn behind them. eager_buckets: why a bucket could not be made.
    """

    def __init__(self, forward: Forward, draws: DrawTable, mode: StepMode, kinds: frozenset[DrawKind] = CHEAP_DRAWS):
        self.forward = forward
        self.draws = draws
        self.mode = mode
        self.kinds = kinds
        self.eager_buckets: dict[Bucket, str] = {}
        self._made: dict[Bucket, tuple[StepBuffers, StepRun]] = {}
        self._asked: dict[Bucket, int] = {}

    def __call__(self, rows: Sequence[StepRow], drawn: Tensor | None = None) -> Stepped:
        """One step. The tables do not count the new tokens yet, nor the samplers their draws: whoever keeps the result
        does (``PageTable.advance``, ``Sampler.keep``). So a step can be made again. drawn (B,): ids that another step
        has drawn, and the host does not know; they are read in place of the rows' tokens."""
        samplers = [row.sampler for row in rows]
        extras = Extras.of(samplers, self.draws.seen.device)
        self.draws.mark(samplers)
        if self.mode == "off":
            return self.eager(rows, extras, drawn)
        for row in rows:
            row.table.reserve(row.table.length + 1)
            self.draws.row(row.sampler)
        bucket = Bucket(upward(len(rows)), self._pages(rows))
        self._forget_outgrown(rows[0].table.store)
        self._asked[bucket] = self._asked.get(bucket, 0) + 1
        soon = self._asked[bucket] <= CAPTURE_AFTER and bucket not in self._made
        if soon or bucket in self.eager_buckets:
            return self.eager(rows, extras, drawn)
        return self.static(rows, extras, bucket, drawn)

    def warm(self, bucket: Bucket, store: PageStore, width: int | None) -> None:
        """Make a bucket before anybody asks for it. width: of the states that are read (None: there are none)."""
        if bucket in self._made or bucket in self.eager_buckets:
            return
        state = None if width is None else store.layers[0].new_zeros(width)
        table = PageTable(store)
        table.reserve(1)
        reason = self._make(bucket, [StepRow(table, 0, 0, Sampler(Sampling()), state)])
        table.free()
        if reason is not None:
            self._give_up(bucket, reason)

    def eager(self, rows: Sequence[StepRow], extras: Extras | None, drawn: Tensor | None = None) -> Stepped:
        """The step in the shapes that it has."""
        words = torch.tensor([words_of_row(row, self.draws) for row in rows]).to(self.draws.seen.device)
        if drawn is not None:
            put_drawn(words, drawn)
        states = None if rows[0].state is None else stacked(rows)[:, None]
        past = PagedBatch([row.table for row in rows])
        outputs = self.forward(words[:, 0:1], states, words[:, 1:2].expand(3, -1, -1), past)
        needs = Needs.of([row.sampler for row in rows])
        return Stepped(outputs, draw(outputs[-1], words[:, 2:], self.draws.seen, self.draws.banned, needs, extras))

    def static(
        self, rows: Sequence[StepRow], extras: Extras | None, bucket: Bucket, drawn: Tensor | None = None
    ) -> Stepped:
        """The step in its bucket. One that cannot be made is eager from then on; the others stay as they are."""
        if bucket not in self._made and (reason := self._make(bucket, rows)) is not None:
            stepped = self.eager(rows, extras, drawn)  # raises by itself where the input is at fault
            self._give_up(bucket, reason)
            return stepped
        buffers, run = self._made[bucket]
        buffers.fill(rows, self.draws, drawn)
        # copies: the next step writes where these are
        *outputs, ids = (out[: len(rows)].clone() for out in run())
        needs = Needs.of([row.sampler for row in rows])
        if extras is not None or not needs.kinds <= self.kinds:  # what few ask for is not part of what was captured
            words = buffers.words[: len(rows), 2:ROW_WORDS]
            ids = draw(outputs[-1], words, self.draws.seen, self.draws.banned, needs, extras)
        return Stepped(tuple(outputs), ids)

    def _make(self, bucket: Bucket, rows: Sequence[StepRow]) -> str | None:
        """Make a bucket; returns why it cannot be made, or None."""
        buffers = StepBuffers(self, rows[0].table.store, bucket, rows[0].state)
        buffers.fill(rows, self.draws)
        run = static_run(buffers.run, self.mode)
        if isinstance(run, str):
            return run
        self._made[bucket] = buffers, run
        return None

    def _pages(self, rows: Sequence[StepRow]) -> int:
        """The pages of a bucket: as many as a row can have, where they are read in place."""
        store = rows[0].table.store
        if attend_pages.fits(store.layers[0]):
            return store.limit
        return max(MIN_BUCKET_PAGES, upward(max(len(row.table.pages) for row in rows)))

    def _give_up(self, bucket: Bucket, reason: str) -> None:
        self.eager_buckets[bucket] = reason
        log.warning("decode steps of %s stay eager: %s", bucket, reason)

    def _forget_outgrown(self, store: PageStore) -> None:
        """Let go of what was made, if the store or the table of draws has grown: its tensors are new ones."""
        if not self._made:
            return
        made, _ = next(iter(self._made.values()))
        if made.layers[0] is not store.layers[0] or made.seen is not self.draws.seen:
            self._made.clear()


def upward(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def bucket_pages(store: PageStore) -> list[int]:
    """The pages of the buckets that are made beforehand, fewest first: of up to WARM_PAGES, or all that a row can have
    where they are read in place."""
    if attend_pages.fits(store.layers[0]):
        return [store.limit]
    most = min(WARM_PAGES, upward(store.limit))
    return [1 << n for n in range(MIN_BUCKET_PAGES.bit_length() - 1, most.bit_length())]


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


def static_run(run: StepRun, mode: StepMode) -> StepRun | str:
    """``run`` as it is repeated, made and tried; or why it cannot be, in one line."""
    try:
        made = STEP_COMPILERS[mode](run)
        made()
    except RuntimeError as error:
        graph_pool.cache_clear()  # a capture that failed leaves its pool in disorder: the next takes another
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return made


class DecodeSteps:
    """The steps of a model's decoders. mode None: graphs where the weights are on CUDA, else off."""

    def __init__(self, thinker: Thinker, talker: Talker | None, mode: StepMode | None, rows: int = 4):
        mode = mode or ("graphs" if thinker.device.type == "cuda" else "off")
        self.mode: StepMode = mode

        def think(tokens: Tensor, _: Tensor | None, positions: Tensor, past: Cache) -> tuple[Tensor, ...]:
            embeds = thinker.embed_tokens(tokens)
            hidden = thinker(embeds, positions, past)
            return reply_rows(embeds, hidden)[:, 0], thinker.logits(hidden[:, -1])

        def sing(tokens: Tensor, states: Tensor | None, positions: Tensor, past: Cache) -> tuple[Tensor, ...]:
            assert talker is not None and states is not None
            return (talker(step_row(talker, tokens, states), positions, past)[:, -1],)

        self.width = thinker.cfg.text.hidden_size
        ids = 0 if talker is None else talker.cfg.decoder.vocab_size
        texts = DrawTable(thinker.cfg.text.vocab_size, thinker.device, rows)
        self.thinker = DecodeStep(think, texts, mode)  # reply states (B, E), logits (B, V)
        codes = DrawTable(ids, thinker.device, rows)
        self.talker = DecodeStep(sing, codes, mode, CHEAP_DRAWS - {DrawKind.PLAIN})  # logits (B, C)

    def warm_up(self, thinker: PageStore, talker: PageStore | None, sessions: int) -> Iterator[int]:
        """Make the buckets of up to so many sessions over the stores, the largest first, so that smaller ones find
        their memory; yields how many are left. None where steps are not replayed."""
        if self.mode != "graphs":
            return
        sizes = [1 << n for n in range(upward(sessions).bit_length())]
        steps = [(self.thinker, thinker, None)] + ([] if talker is None else [(self.talker, talker, self.width)])
        with torch.inference_mode():
            work = [(step, Bucket(rows, pages), store, width)
                    for rows in reversed(sizes) for step, store, width in steps
                    for pages in reversed(bucket_pages(store))]  # fmt: skip
        for left, (step, bucket, store, width) in zip(reversed(range(len(work))), work, strict=True):
            with torch.inference_mode():
                step.warm(bucket, store, width)
            yield left

    @property
    def faults(self) -> tuple[str, ...]:
        """The buckets that could not be made and are eager, one line each. May be read from any thread."""
        steps = {"thinker": self.thinker, "talker": self.talker}
        return tuple(
            f"{name}, {bucket}: {reason}"
            for name, step in steps.items()
            for bucket, reason in list(step.eager_buckets.items())
        )
