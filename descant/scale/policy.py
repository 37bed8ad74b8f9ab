"""The number of replicas that there should be, from the figures of their engines. Pure: no Ray in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FULL_SHARE = 0.7  # share of an engine's places that may be taken before one more replica is wanted
UNDERRUNS_PER_ANSWER = 0.05  # more of them, and listeners hear gaps: the engine is slower than its places promise


@dataclass(frozen=True)
class Load:
    """One engine. answering: answers being made; waiting: in its queue; places: answers that it makes at once;
    underruns: per answer that ended of late."""

    answering: float
    waiting: float
    places: float
    underruns: float


def replicas_wanted(loads: Sequence[Load], current: int) -> int:
    """Replicas that would carry what is asked for now. current: those there should be so far; loads: of those that
    have told theirs.

    An engine whose listeners run out of sound counts as full, whatever its free places are: what a place costs depends
    on what is said. None is given up while that holds anywhere, and none on a guess: without figures all stay.
    """
    if not loads:
        return current
    places = sum(load.places for load in loads) / len(loads)
    asked = sum(load.waiting + (load.places if is_late(load) else load.answering) for load in loads)
    wanted = math.ceil(round(asked / (FULL_SHARE * places), 6)) if places else current
    unheard = max(0, current - len(loads))  # replicas that start, or have not told yet: what they will take is unknown
    if unheard or any(is_late(load) for load in loads):
        return max(current, wanted)
    return max(1, wanted)


def is_late(load: Load) -> bool:
    """True for an engine that does not keep up with its listeners."""
    return load.underruns > UNDERRUNS_PER_ANSWER
