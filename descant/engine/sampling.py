"""The settings, the seed and the forced ids of one stream of draws. ``draws`` draws for many."""

from __future__ import annotations

import math
import struct
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from enum import IntEnum

from torch import Tensor

from descant.errors import OptionError
from descant.nn.seeds import mix64
from descant.types import Sampling

BROKEN_ID = -1  # the id of a row that is not numbers
UNFORCED_ID = -1  # where an id is drawn

COLDEST_TEMPERATURE = 1e-6  # below it only the largest score is ever drawn, and float32 would divide by zero
SEED_END = 2**63  # seeds are 0 .. 2**63 - 1
TOP_P_OFF = 2.0  # no sum of probabilities reaches it
WINDOW_IDS = 64  # the largest top_k for which the best scores are looked for, and not all of them sorted


class DrawKind(IntEnum):
    """The way a row draws. A batch computes all kinds of its rows, and what a row draws does not depend on the
    others'."""

    GREEDY = 0  # the largest score
    WINDOW = 1  # among the top_k best, at most WINDOW_IDS
    PLAIN = 2  # among all ids
    SORTED = 3  # among all, of which top_p or a large top_k leaves out some


def kind_of(sampling: Sampling) -> DrawKind:
    """The kind of draws."""
    if sampling.temperature == 0:
        return DrawKind.GREEDY
    if 0 < sampling.top_k <= WINDOW_IDS:
        return DrawKind.WINDOW
    return DrawKind.PLAIN if not sampling.top_k and sampling.top_p == 1 else DrawKind.SORTED


def noise_key(seed: int, step: int) -> int:
    """64 bits of (seed, step), as a signed whole number."""
    bits = mix64(seed, step)
    return bits - 2**64 if bits >> 63 else bits


def check_sampling(sampling: Sampling, stream: str) -> None:
    """Refuse values that mean nothing; ``stream`` ("text" or "speech") names the culprit in the message."""

    def need(ok: bool, name: str, value: float, allowed: str) -> None:
        if not ok:
            raise OptionError(f"{stream} sampling: {name}={value!r} is impossible; allowed: {allowed}")

    temperature = sampling.temperature
    penalty = sampling.repetition_penalty
    need(0 <= temperature < math.inf, "temperature", temperature, "0 (greedy) or any positive number")
    need(_whole(sampling.top_k) and sampling.top_k >= 0, "top_k", sampling.top_k, "0 (off) or a positive whole number")
    need(0 < sampling.top_p <= 1, "top_p", sampling.top_p, "more than 0, at most 1 (1 is off)")
    need(0 < penalty < math.inf, "repetition_penalty", penalty, "any positive number (1 is off)")
    for name in ("presence_penalty", "frequency_penalty"):
        need(-2 <= vars(sampling)[name] <= 2, name, vars(sampling)[name], "-2 to 2 (0 is off)")
    need(_whole(sampling.max_tokens) and sampling.max_tokens > 0, "max_tokens", sampling.max_tokens, "1 or more, whole")


def check_seed(seed: int) -> None:
    """Refuse a seed that is no whole number of 63 bits."""
    if not (_whole(seed) and 0 <= seed < SEED_END):
        raise OptionError(f"seed={seed!r} is impossible; allowed: whole numbers from 0 to 2**63 - 1")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Sampler:
    """The draws of one token stream of one session, as the host knows them.

    prompt (P,) int64: the ids that the repetition penalty counts as seen before the first draw (None: none);
    banned: ids that are never drawn; forced: the ids that it gives first, before it draws any. step: draws that were
    kept; last: the id of the last of them; unmarked: those before it that its ``DrawTable`` was not told of. row: what
    it was lent of the table; over: it draws no more, and what it was lent may go to others. allowed: tells before each
    draw which ids may be drawn, (V,) bool (None: all).
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        seed: int = 0,
        prompt: Tensor | None = None,
        banned: Collection[int] = (),
        forced: Iterable[int] = (),
    ) -> None:
        self.sampling = sampling
        self.seed = seed
        self.prompt = prompt
        self.banned = tuple(sorted(banned))
        self.forced = deque(forced)
        self.step = 0
        self.last: int | None = None
        self.unmarked: list[int] = []
        self.row: int | None = None
        self.over = False
        self.allowed: Callable[[], Tensor | None] | None = None
        self._counts: Counter[int] | None = None
        if sampling.presence_penalty != 0 or sampling.frequency_penalty != 0:
            self._counts = Counter()
        self.kind = kind_of(sampling)
        self.penalised = sampling.repetition_penalty != 1
        temperature = max(sampling.temperature, COLDEST_TEMPERATURE) if sampling.temperature else 1.0
        top_p = sampling.top_p if sampling.top_p < 1 else TOP_P_OFF
        self.floats: tuple[int, int] = struct.unpack(
            "<qq", struct.pack("<4f", temperature, top_p, sampling.repetition_penalty, 0.0)
        )

    @property
    def forced_id(self) -> int:
        """The id that comes next, whatever the scores are; UNFORCED_ID: it is drawn."""
        return self.forced[0] if self.forced else UNFORCED_ID

    @property
    def noise_key(self) -> int:
        """The key of the next draw's noise."""
        return 0 if self.kind is DrawKind.GREEDY else noise_key(self.seed, self.step)

    @property
    def loss(self) -> dict[int, float]:
        """The loss of scores of ids because they were drawn before: presence once, frequency for each time."""
        how = self.sampling
        counts: dict[int, int] = self._counts or {}
        return {index: how.presence_penalty + how.frequency_penalty * count for index, count in counts.items()}

    @property
    def follows(self) -> bool:
        """True if the host need not know an id for the next one to be drawn."""
        return self._counts is None and self.allowed is None and not self.forced

    def keep(self, *ids: int) -> None:
        """Count draws, in order: their ids are kept."""
        self.step += len(ids)
        if self._counts is not None:
            self._counts.update(ids)
        self.unmarked += ids[:-1] if self.penalised else ()
        self.last = ids[-1]
        for _ in ids[: len(self.forced)]:
            self.forced.popleft()


def reciting(ids: Iterable[int]) -> Sampler:
    """A stream that gives ``ids`` and draws nothing; what the model would have written does not matter."""
    return Sampler(Sampling(), forced=ids)
