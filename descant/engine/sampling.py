"""The draw of one id from one row of logits.

The processors and their order are the reference's (transformers `GenerationMixin._get_logits_processor`):
repetition penalty, suppression, temperature, top-k, top-p, then a draw; temperature 0 takes the largest score instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from descant.errors import OptionError
from descant.types import Sampling

Choose = Callable[[Tensor], Tensor]  # raw logits (V,) float32 -> the chosen id, () int64, without waiting for a device

BROKEN_ID = -1  # the id of a row that is not numbers

COLDEST_TEMPERATURE = 1e-6  # below it only the largest score is ever drawn, and float32 would divide by zero
SEED_END = 2**63  # seeds are 0 .. 2**63 - 1, what torch.Generator takes on every device


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
    """Refuse a seed that torch.Generator would not take."""
    if not (_whole(seed) and 0 <= seed < SEED_END):
        raise OptionError(f"seed={seed!r} is impossible; allowed: whole numbers from 0 to 2**63 - 1")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def penalise(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make ids that were seen less likely (CTRL, arXiv 1909.05858): divide what is positive, multiply what is not.

    scores (V,) float32, seen (V,) bool -> (V,).
    """
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Keep the k largest scores, and whatever ties with the smallest of them. (V,) -> (V,)."""
    smallest = torch.topk(scores, min(k, scores.shape[-1])).values[-1]
    return scores.masked_fill(scores < smallest, -math.inf)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Keep the fewest ids whose probabilities reach p; always at least one. (V,) -> (V,)."""
    ascending, order = torch.sort(scores)
    drop = ascending.softmax(-1).cumsum(-1) <= 1 - p
    drop[-1:].fill_(False)  # a scalar at an index is copied from the host
    return scores.masked_fill(torch.zeros_like(drop).scatter(0, order, drop), -math.inf)


class Sampler:
    """The draws of one token stream of one session: its own generator, and the ids it has seen.

    prompt (P,) int64: the ids that the repetition penalty counts as seen before the first draw;
    banned: ids that are never drawn; allowed: tells before each draw which ids may be drawn, (V,) bool (None: all).
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        vocab_size: int,
        seed: int,
        prompt: Tensor,
        banned: Collection[int] = (),
        allowed: Callable[[], Tensor | None] | None = None,
    ) -> None:
        self.sampling = sampling
        self._allowed = allowed
        counts = sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
        self._drawn = torch.zeros(vocab_size, device=prompt.device) if counts else None
        self._generator = torch.Generator(prompt.device).manual_seed(seed)
        self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=prompt.device)
        self._seen[prompt] = True
        self._banned = torch.tensor(sorted(banned), dtype=torch.long, device=prompt.device)

    def process(self, logits: Tensor) -> Tensor:
        """Raw logits (V,) -> scores (V,) float32; -inf marks what will not be drawn."""
        how = self.sampling
        scores = logits.float()
        if how.repetition_penalty != 1:
            scores = penalise(scores, self._seen, how.repetition_penalty)
        if self._drawn is not None:
            scores = scores - how.frequency_penalty * self._drawn - how.presence_penalty * (self._drawn > 0)
        if len(self._banned):
            scores = scores.index_fill(0, self._banned, -math.inf)
        if self._allowed is not None and (allowed := self._allowed()) is not None:
            scores = scores.masked_fill(~allowed.to(scores.device), -math.inf)
        if how.temperature == 0:
            return scores  # the largest score stays the largest under every warper
        scores = scores - scores.max()  # first, so that nothing overflows
        scores = scores / max(how.temperature, COLDEST_TEMPERATURE)
        if how.top_k:
            scores = keep_top_k(scores, how.top_k)
        if how.top_p < 1:
            scores = keep_top_p(scores, how.top_p)
        return scores

    def __call__(self, logits: Tensor) -> Tensor:
        """Draw one id, () int64, from raw logits (V,), and remember it."""
        scores = self.process(logits)
        if self.sampling.temperature != 0:  # what torch.multinomial does for one draw, without its check on the host
            chances = scores.softmax(-1)
            scores = chances / torch.empty_like(chances).exponential_(generator=self._generator)
        chosen = scores.argmax()
        self._seen.index_fill_(0, chosen, True)
        if self._drawn is not None:
            self._drawn.index_add_(0, chosen[None], torch.ones(1, device=chosen.device))
        return chosen


def drawn(choose: Choose, logits: Tensor) -> Tensor:
    """The id that ``choose`` draws from logits (V,), () int64; BROKEN_ID where one of them is not a number.

    One sum finds that out: a score that is no number makes it none, and numbers would have to be near the end of
    float32 to do so.
    """
    return torch.where(logits.sum().isfinite(), choose(logits), BROKEN_ID)


class ForcedIds:
    """A source of ids that recites ``ids`` and then stops; what the model would have drawn does not matter."""

    def __init__(self, ids: tuple[int, ...], stop: int) -> None:
        self._rest = iter((*ids, stop))

    def __call__(self, logits: Tensor) -> Tensor:
        return torch.tensor(next(self._rest), device=logits.device)


class ForcedBeginning:
    """A source of ids that recites ``ids`` and then draws."""

    def __init__(self, ids: Sequence[int], choose: Choose) -> None:
        self._rest = iter(ids)
        self._choose = choose

    def __call__(self, logits: Tensor) -> Tensor:
        index = next(self._rest, None)
        return self._choose(logits) if index is None else torch.tensor(index, device=logits.device)
