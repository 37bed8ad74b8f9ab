"""The draw of one id for each of many rows of logits, at once, on the device: nothing is copied for a single session.

The processors and their order are the reference's (transformers `GenerationMixin._get_logits_processor`): repetition
penalty, suppression, temperature, top-k, top-p, then a draw; temperature 0 takes the largest score instead.

The draw is a race: id i arrives after E_i / p_i, E_i of the exponential distribution, and the first is drawn, which is
i with probability p_i. The E_i are counted, not drawn: they belong to (seed, step, id), as a hash of the three. So a
seed draws the same ids alone and in company, a step made again draws the same again, and no generator is kept.

Axes: B rows that draw, V ids, R rows of the table, K candidates of a row.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from descant.engine.sampling import BROKEN_ID, UNFORCED_ID, WINDOW_IDS, DrawKind, Sampler

NO_ROW = 0  # of the table: the row of whoever has seen nothing, and bans nothing
DRAW_WORDS = 8  # that say how a row draws; see ``Drawing``

ID_SPREAD = 0x9E3779B1 - 2**32  # 2**32 divided by the golden ratio, odd: neighbours among ids go far apart
MIXERS = (0x21F0AAAD, 0x735A2D97)  # of a hash of 32 bits with low bias (Wellons, "hash prospector")
SHIFTS = (16, 15)


# ---------------------------------------------------------------- noise that is counted


def fold(x: Tensor, bits: int) -> Tensor:
    """x ^ (x >> bits) in place, x int32, zeros coming in from the left."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def hashed(keys: tuple[Tensor, Tensor], ids: Tensor) -> Tensor:
    """32 bits of each id under two keys, int32: whole numbers that wrap around, so that every device gives the same.

    keys (B, 1), ids (V,) or (B, K), all int32 -> (B, V) or (B, K).
    """
    x = fold(ids * ID_SPREAD + keys[0], SHIFTS[0]).mul_(MIXERS[0]).bitwise_xor_(keys[1])
    return fold(x, SHIFTS[1]).mul_(MIXERS[1])


def arrivals(keys: tuple[Tensor, Tensor], ids: Tensor) -> Tensor:
    """Minus the exponential noise of each id, float32, shaped as ``hashed``: small values, which win, are finest."""
    chance = (hashed(keys, ids) >> 1).bitwise_and_(2**31 - 1).float()
    return chance.add_(0.5).mul_(-(2.0**-31)).log1p_()


def first_to_arrive(chances: Tensor, keys: tuple[Tensor, Tensor], ids: Tensor) -> Tensor:
    """The place (B, 1) of whoever arrives first, by chances (B, K) that need not sum to 1; 0 is never drawn."""
    return (chances / arrivals(keys, ids)).argmin(-1, keepdim=True)


# ---------------------------------------------------------------- processors


def penalise(scores: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Make ids that were seen less likely (CTRL, arXiv 1909.05858): divide what is positive, multiply what is not.

    scores (B, V) float32, seen (B, V) bool, penalty (B, 1) -> (B, V).
    """
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def candidates(scores: Tensor, drawing: Drawing, count: int) -> tuple[Tensor, Tensor]:
    """The chances (B, K) of the ``count`` best, the best first, and their ids (B, K); 0: it will not be drawn.

    Kept are the top_k largest and what ties with the smallest of them; of these the fewest whose probabilities reach
    top_p, which are never none. The chances of those that are kept do not sum to 1.
    """
    best, ids = scores.topk(count, dim=-1) if count < scores.shape[1] else scores.sort(dim=-1, descending=True)
    smallest = best.gather(1, drawing.last.clamp(max=count - 1))
    chances = (best / drawing.temperature).masked_fill_(best < smallest, -math.inf).softmax(-1)
    before = chances.cumsum(-1).sub_(chances)  # the probability of all that are better
    return chances.masked_fill_(before >= drawing.top_p, 0.0), ids


# ---------------------------------------------------------------- the draw


@dataclass(frozen=True)
class Drawing:
    """The way each row of a batch draws, (B, 1) each: the row of the table, the id that was kept last (V: none), the id
    that it is to give (UNFORCED_ID: it draws), the kind and the place of the last score that top_k keeps, int64; the
    keys of its noise, int32; temperature, top_p and penalty, float32."""

    row: Tensor
    before: Tensor
    forced: Tensor
    kind: Tensor
    last: Tensor
    keys: tuple[Tensor, Tensor]
    temperature: Tensor
    top_p: Tensor
    penalty: Tensor

    @classmethod
    def of(cls, words: Tensor) -> Drawing:
        """words (B, DRAW_WORDS) int64 of ``words_of``: the sixth holds two int32, the last two hold two float32
        each."""
        row, before, forced, kind, last = words[:, :5, None].unbind(1)
        key, other = words[:, 5:6].view(torch.int32)[:, :, None].unbind(1)
        temperature, top_p, penalty, _ = words[:, 6:8].view(torch.float32)[:, :, None].unbind(1)
        return cls(row, before, forced, kind, last, (key, other), temperature, top_p, penalty)


def words_of(sampler: Sampler, row: int, vocab_size: int) -> list[int]:
    """The DRAW_WORDS of one stream's next draw; see ``Drawing``."""
    last = min(sampler.sampling.top_k or vocab_size, vocab_size) - 1
    before = vocab_size if sampler.last is None else sampler.last
    return [row, before, sampler.forced_id, sampler.kind, last, sampler.noise_key, *sampler.floats]


class Needs(NamedTuple):
    """The work of a batch: at least the kinds of its rows, and what any of them has (a penalty, ids that it bans, ids
    that it is to give). What is computed beyond that changes nothing."""

    kinds: frozenset[DrawKind] = frozenset(DrawKind)
    penalised: bool = True
    banned: bool = True
    forced: bool = True

    @classmethod
    def of(cls, samplers: Sequence[Sampler]) -> Needs:
        """The needs of these streams."""
        return cls(
            frozenset(sampler.kind for sampler in samplers),
            any(sampler.penalised for sampler in samplers),
            any(sampler.banned for sampler in samplers),
            any(sampler.forced for sampler in samplers),
        )


@dataclass(frozen=True)
class Extras:
    """Wishes of few streams, sent anew for each draw. losses: rows and ids (N,) int64, and what the score of each
    loses (N,); allowed (B, V) bool: what may be drawn."""

    losses: tuple[Tensor, Tensor, Tensor] | None
    allowed: Tensor | None

    @classmethod
    def of(cls, samplers: Sequence[Sampler], device: torch.device) -> Extras | None:
        """The wishes of these streams; None: there are none."""
        lost = [(row, *pair) for row, sampler in enumerate(samplers) for pair in sampler.loss.items()]
        masks = [None if sampler.allowed is None else sampler.allowed() for sampler in samplers]
        some = next((mask for mask in masks if mask is not None), None)
        if not lost and some is None:
            return None
        losses = allowed = None
        if lost:
            rows, ids, values = zip(*lost, strict=True)
            at, of = torch.tensor([rows, ids]).to(device).unbind()
            losses = at, of, torch.tensor(values).to(device)
        if some is not None:
            every = torch.ones_like(some)
            allowed = torch.stack([every if mask is None else mask for mask in masks]).to(device)
        return cls(losses, allowed)

    def process(self, scores: Tensor) -> Tensor:
        """scores (B, V) -> (B, V)."""
        if self.losses is not None:
            rows, ids, values = self.losses
            scores = scores.index_put((rows, ids), -values, accumulate=True)
        return scores if self.allowed is None else scores.masked_fill(~self.allowed, -math.inf)


def draw(
    logits: Tensor, words: Tensor, seen: Tensor, banned: Tensor, needs: Needs, extras: Extras | None = None
) -> Tensor:
    """One id for each row of raw logits (B, V), (B,) int64; BROKEN_ID where one of them is not a number.

    words (B, DRAW_WORDS): see ``Drawing``. seen (R, V + 1), banned (R, V) bool: the table's. The id that a row kept
    last is marked as seen first: so a draw that is made again finds what it found before. One sum finds what is not a
    number: numbers would have to be near the end of float32 to overflow it.
    """
    drawing = Drawing.of(words)
    rows = words[:, 0]
    scores = logits.float()
    if needs.penalised:
        seen.index_put_((rows, words[:, 1]), torch.ones_like(rows, dtype=torch.bool))
        scores = penalise(scores, seen.index_select(0, rows)[:, :-1], drawing.penalty)
    if needs.banned:
        scores = scores.masked_fill(banned.index_select(0, rows), -math.inf)
    if extras is not None:
        scores = extras.process(scores)
    first_kind, *others = sorted(needs.kinds)
    ids = draw_kind(first_kind, scores, drawing)
    for kind in others:
        ids = torch.where(drawing.kind == kind, draw_kind(kind, scores, drawing), ids)
    if needs.forced:
        ids = torch.where(drawing.forced == UNFORCED_ID, ids, drawing.forced)
    return torch.where(logits.sum(-1, keepdim=True).isfinite(), ids, BROKEN_ID).squeeze(1)


def draw_kind(kind: DrawKind, scores: Tensor, drawing: Drawing) -> Tensor:
    """The ids (B, 1) that rows of one kind draw from scores (B, V)."""
    if kind is DrawKind.GREEDY:
        return scores.argmax(-1, keepdim=True)
    vocab_size = scores.shape[1]
    if kind is DrawKind.PLAIN:
        every = torch.arange(vocab_size, dtype=torch.int32, device=scores.device)
        return first_to_arrive((scores / drawing.temperature).softmax(-1), drawing.keys, every)
    chances, ids = candidates(scores, drawing, min(WINDOW_IDS, vocab_size) if kind is DrawKind.WINDOW else vocab_size)
    return ids.gather(1, first_to_arrive(chances, drawing.keys, ids.int()))


class DrawTable:
    """The ids that streams of one vocabulary have seen and ban, on the device: a row for each stream that has a penalty
    or bans ids, lent and given back.

    seen (R, V + 1), banned (R, V) bool; the last of seen is no id. Row 0 is nobody's: who needs none reads it, and what
    is seen there does not matter.
    """

    def __init__(self, vocab_size: int, device: torch.device, rows: int = 4):
        self.vocab_size = vocab_size
        self.seen = torch.zeros(rows, vocab_size + 1, dtype=torch.bool, device=device)
        self.banned = torch.zeros(rows, vocab_size, dtype=torch.bool, device=device)
        self._lent: list[weakref.ref[Sampler] | None] = [None] * rows

    @property
    def lent(self) -> int:
        """Rows of streams that are not over. May be asked from any thread."""
        return sum(holds(one) for one in list(self._lent))

    def row(self, sampler: Sampler) -> int:
        """The row of a stream; one is lent to who asks for the first time and needs it."""
        if not (sampler.penalised or sampler.banned):
            return NO_ROW
        if sampler.row is None:
            sampler.row = self._lend(sampler)
        return sampler.row

    def mark(self, samplers: Sequence[Sampler]) -> None:
        """Mark what these streams have kept since they drew, but for the last id, which the next draw itself marks."""
        unmarked = [(self.row(sampler), index) for sampler in samplers for index in sampler.unmarked]
        if unmarked:
            rows, ids = torch.tensor(unmarked).to(self.seen.device).unbind(1)
            self.seen.index_put_((rows, ids), torch.ones_like(rows, dtype=torch.bool))
        for sampler in samplers:
            sampler.unmarked.clear()

    def words(self, sampler: Sampler) -> list[int]:
        """The DRAW_WORDS of a stream's next draw."""
        return words_of(sampler, self.row(sampler), self.vocab_size)

    def draw(self, samplers: Sequence[Sampler], logits: Tensor) -> Tensor:
        """The next id of each stream from its raw logits (B, V), (B,) int64. Drawn again, it is the same: an id counts
        when it is kept (``Sampler.keep``)."""
        sent = torch.tensor([self.words(sampler) for sampler in samplers]).to(logits.device)
        extras = Extras.of(samplers, logits.device)
        return draw(logits, sent, self.seen, self.banned, Needs.of(samplers), extras)

    def _lend(self, sampler: Sampler) -> int:
        free = [row for row, one in enumerate(self._lent) if row != NO_ROW and not holds(one)]
        row = free[0] if free else self._grow()
        self._lent[row] = weakref.ref(sampler)
        self.seen[row].zero_()
        self.banned[row].zero_()
        device = self.seen.device
        if sampler.prompt is not None:
            self.seen[row].index_fill_(0, sampler.prompt.to(device), True)
        if sampler.banned:
            self.banned[row].index_fill_(0, torch.tensor(sampler.banned, device=device), True)
        return row

    def _grow(self) -> int:
        rows = len(self._lent)
        self.seen, self.banned = (torch.cat((one, torch.zeros_like(one))) for one in (self.seen, self.banned))
        self._lent += [None] * rows
        return rows


def holds(lent: weakref.ref[Sampler] | None) -> bool:
    """True if a row is lent to a stream that is not over."""
    sampler = None if lent is None else lent()
    return sampler is not None and not sampler.over
