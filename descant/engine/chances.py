"""The chances of the ids that are written, for those who ask: of raw logits, before any penalty, mask or temperature.

Axes: B rows that draw, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descant.inputs.tokenizer import Tokenizer
from descant.types import TokenChance


@dataclass(frozen=True)
class Noted:
    """An id that was drawn, and the likeliest ids, with the logarithm of the chance of each."""

    ids: tuple[int, ...]
    chances: tuple[float, ...]


def note_chances(logits: Tensor, ids: Tensor, tops: Sequence[int | None]) -> list[Noted | None]:
    """The note of each row of logits (B, V) that drew ids (B,). tops: how many of the likeliest are wanted, 0 or more
    (None: no note)."""
    asked = [row for row, top in enumerate(tops) if top is not None]
    notes: list[Noted | None] = [None] * len(tops)
    if not asked:
        return notes
    chances = logits[asked].float().log_softmax(-1)
    likeliest = chances.topk(min(max(tops[row] or 0 for row in asked), chances.shape[1]))
    drawn = ids[asked].clamp(min=0)[:, None]  # a row that is not numbers drew nothing, and ends its session
    values = torch.cat([chances.gather(1, drawn), likeliest.values], dim=1).tolist()
    found = torch.cat([drawn, likeliest.indices], dim=1).tolist()
    for row, of, value in zip(asked, found, values, strict=True):
        stop = 1 + (tops[row] or 0)
        notes[row] = Noted(tuple(of[:stop]), tuple(value[:stop]))
    return notes


def token_chance(noted: Noted, tokenizer: Tokenizer) -> TokenChance:
    """A note as its reader gets it."""
    pairs = [(tokenizer.token_bytes(index), value) for index, value in zip(noted.ids, noted.chances, strict=True)]
    return TokenChance(*pairs[0], tuple(pairs[1:]))
