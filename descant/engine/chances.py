"""The chances of the ids that are written, for those who ask."""

from __future__ import annotations

import torch
from torch import Tensor

from descant.engine.sampling import Choose
from descant.inputs.tokenizer import Tokenizer
from descant.types import TokenChance


class ChanceRecorder:
    """A source of ids that also notes how likely each was, and the likeliest others: of the raw logits, before any
    penalty, mask or temperature. top: how many others, 0 or more."""

    def __init__(self, choose: Choose, top: int) -> None:
        self._choose = choose
        self._top = top
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        chosen = self._choose(logits)
        chances = logits.float().log_softmax(-1)
        likeliest = chances.topk(min(self._top, len(chances)))
        self._last = (
            torch.cat([chances.gather(0, chosen[None]), likeliest.values]),
            torch.cat([chosen[None], likeliest.indices]),
        )
        return chosen

    def take(self, tokenizer: Tokenizer) -> TokenChance:
        """The note of the id that was drawn last."""
        assert self._last is not None
        values, ids = (part.tolist() for part in self._last)
        pairs = [(tokenizer.token_bytes(index), value) for index, value in zip(ids, values)]
        return TokenChance(*pairs[0], tuple(pairs[1:]))
