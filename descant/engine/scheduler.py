"""Who is served in the next step: a pure function of what is known of each session, tested without a model.

Sound has deadlines: a session whose listener would run dry first is served first. Text-only sessions get the rest. A
long prompt is read in chunks, so that a voice that is speaking never waits for more than one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from descant.checks import CheckedOptions


@dataclass(frozen=True)
class SlotView:
    """One session, as the scheduler sees it. priority: smaller is served first; (listens, number): who waits for an
    answer comes before who still speaks, and then who came first."""

    id: int
    priority: tuple[bool, int]
    unread: int  # prompt tokens that are not in the cache yet
    thinks: bool = False  # could write a token now
    talks: bool = False  # could sing a code now
    decodes: bool = False  # the codec decoder would move on
    missing_codes: int | None = None  # that its next window lacks, 0 or less: none; None: no more codes will come
    unplayed_s: float | None = None  # seconds of sound that are made and not yet heard; None: nobody listens (yet)


@dataclass(frozen=True)
class SchedulerConfig(CheckedOptions):
    """The most that one step may hold.

    prefill_tokens: of all prompts when nobody is speaking; prefill_tokens_speaking: when somebody is. think_batch,
    talk_batch, decode_batch: sessions of the three stages. enough_s: seconds of unplayed sound from which on a voice
    may wait while another has less. hold_codes: codes for which a complete window may wait, so that others are decoded
    with it. messages: handled before a step, so that who says much does not stop the others. code_run: codes that
    voices sing in one step while nobody waits for another stage.
    """

    prefill_tokens: int = 512
    prefill_tokens_speaking: int = 64
    think_batch: int = 32
    talk_batch: int = 32
    decode_batch: int = 8
    enough_s: float = 1.0
    hold_codes: int = 4
    messages: int = 256
    code_run: int = 1

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "prefill_tokens": (1, 2**20),
        "prefill_tokens_speaking": (1, 2**20),
        "think_batch": (1, 2**16),
        "talk_batch": (1, 2**16),
        "decode_batch": (1, 2**16),
        "enough_s": (0, 3600),
        "hold_codes": (0, 2**10),
        "messages": (1, 2**20),
        "code_run": (1, 2**10),
    }


@dataclass(frozen=True)
class StepPlan:
    """The ids that a step serves, in order of need; prefill: whose prompts, and how many tokens of each; codes: that
    each of those who talk may sing."""

    prefill: tuple[tuple[int, int], ...]
    think: tuple[int, ...]
    talk: tuple[int, ...]
    decode: tuple[int, ...]
    codes: int = 1

    def __bool__(self) -> bool:
        return bool(self.prefill or self.think or self.talk or self.decode)


def plan_step(views: Sequence[SlotView], config: SchedulerConfig) -> StepPlan:
    """The next step. Nobody starves: what a limit leaves out has less unplayed sound next time, or is the oldest."""
    ordered = sorted(views, key=need)
    speaking = any(view.unplayed_s is not None for view in views)
    chunk = config.prefill_tokens_speaking if speaking else config.prefill_tokens
    talks = first(in_hurry([view for view in ordered if view.talks], config.enough_s), config.talk_batch)
    codes = codes_at_once(views, talks, config.code_run)
    held = held_back(ordered, talks, config.hold_codes, codes)
    decodes = [view for view in ordered if view.decodes and view.id not in held]
    return StepPlan(
        shared_prefill(views, chunk),
        first((view for view in ordered if view.thinks), config.think_batch),
        talks,
        first(in_hurry(decodes, config.enough_s), config.decode_batch),
        codes,
    )


def codes_at_once(views: Sequence[SlotView], talks: Sequence[int], most: int) -> int:
    """Codes, up to ``most``, that voices sing before anybody else is served: as many as the first window to be complete
    lacks; one while somebody reads or thinks, or has a window due."""
    if most == 1 or any(view.thinks or view.unread for view in views):
        return 1
    if any(view.decodes and (view.missing_codes or 0) <= 0 for view in views):
        return 1
    missing = (view.missing_codes for view in views if view.id in talks and view.missing_codes is not None)
    return min((most, *missing)) if talks else 1


def shared_prefill(views: Iterable[SlotView], tokens: int) -> tuple[tuple[int, int], ...]:
    """Deal a step's tokens out to the prompts, in order of priority: (id, tokens) each; one pass reads them all."""
    dealt = []
    for view in sorted((view for view in views if view.unread), key=lambda view: view.priority):
        if not tokens:
            break
        count = min(view.unread, tokens)
        dealt.append((view.id, count))
        tokens -= count
    return tuple(dealt)


def need(view: SlotView) -> tuple[float, tuple[bool, int]]:
    """Voices before texts, the driest first, then by priority. A voice that has made no sound yet is driest of all."""
    silent = view.unplayed_s is None and not view.talks and not view.decodes
    return math.inf if silent else view.unplayed_s or 0.0, view.priority


def in_hurry(ordered: Sequence[SlotView], enough_s: float) -> Iterable[SlotView]:
    """Those who have little sound left; everybody, if all have plenty."""
    short = [view for view in ordered if (view.unplayed_s or 0.0) < enough_s]
    return short or ordered


def held_back(ordered: Sequence[SlotView], talks: Sequence[int], hold_codes: int, codes: int = 1) -> set[int]:
    """Hold complete windows back so that several are decoded in one batch (four together cost half of four apart).

    A window is held for at most ``hold_codes`` codes, and only if another will be complete by then. Whoever is decoded
    in one batch stays together, since all sing as many ``codes`` a step.
    """
    missing = {v.id: v.missing_codes - codes * (v.id in talks) for v in ordered if v.missing_codes is not None}  # after
    soon = [missing[one] for one in talks if missing.get(one, 0) > 0]
    complete = {one: codes for one, codes in missing.items() if codes <= 0}
    worth = soon and complete and min(soon) - min(complete.values()) <= hold_codes
    return set(complete) if worth else set()


def first(chosen: Iterable[SlotView], count: int) -> tuple[int, ...]:
    """The ids of the first ``count``."""
    return tuple(view.id for view in chosen)[:count]
