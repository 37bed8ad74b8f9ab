"""Who is served in the next step: a pure function of what is known of each session, tested without a model.

Sound has deadlines: a session whose listener would run dry first is served first; text-only sessions get the rest, and
a long prompt is read in chunks, so that a voice that is speaking never waits for more than one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from descant.types import CheckedOptions


@dataclass(frozen=True)
class Standing:
    """One session, as the scheduler sees it."""

    id: str
    arrived: int  # a number that grows with every admission
    unread: int  # prompt tokens that are not in the cache yet
    thinks: bool = False  # could write a token now
    talks: bool = False  # could sing a code now
    decodes: bool = False  # the codec decoder would move on
    missing: int | None = None  # codes that its next window lacks, 0 or less: none; None: no more codes will come
    unplayed: float | None = None  # seconds of sound that are made and not yet heard; None: nobody listens (yet)


@dataclass(frozen=True)
class Pace(CheckedOptions):
    """How much one step may hold. chunk: prompt tokens when nobody is speaking, patient: when somebody is.
    thoughts, codes, windows: rows of the three stages. ahead: seconds of unplayed sound from which on a voice may wait
    while another has less. company: codes for which a complete window may wait, so that others are decoded with it."""

    chunk: int = 512
    patient: int = 64
    thoughts: int = 32
    codes: int = 32
    windows: int = 8
    ahead: float = 1.0
    company: int = 4


@dataclass(frozen=True)
class Plan:
    """The ids that a step serves, in order of need; prefill: one session and how many of its tokens."""

    prefill: tuple[str, int] | None
    think: tuple[str, ...]
    talk: tuple[str, ...]
    decode: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.prefill or self.think or self.talk or self.decode)


def plan(standings: Sequence[Standing], pace: Pace) -> Plan:
    """The next step. Nobody starves: what a limit leaves out has less unplayed sound next time, or is the oldest."""
    ordered = sorted(standings, key=need)
    speaking = any(one.unplayed is not None for one in standings)
    unread = min((one for one in standings if one.unread), key=lambda one: one.arrived, default=None)
    chunk = pace.patient if speaking else pace.chunk
    singing = first(hurried([one for one in ordered if one.talks], pace.ahead), pace.codes)
    patient = waiting(ordered, singing, pace.company)
    return Plan(
        (unread.id, min(unread.unread, chunk)) if unread else None,
        first((one for one in ordered if one.thinks), pace.thoughts),
        singing,
        first(hurried([one for one in ordered if one.decodes and one.id not in patient], pace.ahead), pace.windows),
    )


def need(one: Standing) -> tuple[float, int]:
    """Voices before texts, the driest first, then the oldest. A voice that has made no sound yet is driest of all."""
    return (
        math.inf if one.unplayed is None and not one.talks and not one.decodes else one.unplayed or 0.0,
        one.arrived,
    )


def hurried(ordered: Sequence[Standing], ahead: float) -> Iterable[Standing]:
    """Those who have little sound left; everybody, if all have plenty."""
    short = [one for one in ordered if (one.unplayed or 0.0) < ahead]
    return short or ordered


def waiting(ordered: Sequence[Standing], singing: Sequence[str], company: int) -> set[str]:
    """Complete windows that wait for others, which is cheaper for all: four together cost half of four apart.

    One is worth waiting for if it will be complete before any that waits has waited for more than ``company`` codes;
    whoever is decoded in one batch stays together, since all sing one code a step.
    """
    lacks = {one.id: one.missing - (one.id in singing) for one in ordered if one.missing is not None}  # after this step
    soon = [lacks[one] for one in singing if lacks.get(one, 0) > 0]
    due = {one: missing for one, missing in lacks.items() if missing <= 0}
    return set(due) if soon and due and min(soon) - min(due.values()) <= company else set()


def first(chosen: Iterable[Standing], count: int) -> tuple[str, ...]:
    return tuple(one.id for one in chosen)[:count]
