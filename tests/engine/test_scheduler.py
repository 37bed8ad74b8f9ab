"""Who is served: the driest first, nobody never, and a long prompt never more than one chunk at a time."""

from __future__ import annotations

import random
from dataclasses import replace

from descant.engine.scheduler import SchedulerConfig, SlotView, StepPlan, plan_step

RICH, DRY, NEW, TEXT = range(1, 5)


def slot(number: int, unread: int = 0, *, arrived: int = 0, thinks: bool = False) -> SlotView:
    return SlotView(number, (False, arrived), unread, thinks=thinks)


def voice(number: int, unplayed_s: float, arrived: int = 0) -> SlotView:
    priority = False, arrived
    return SlotView(number, priority, 0, thinks=True, talks=True, decodes=True, unplayed_s=unplayed_s)


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert not plan_step([], SchedulerConfig()) and not plan_step([slot(1)], SchedulerConfig())


def test_the_driest_listener_is_served_first_and_texts_get_the_rest() -> None:
    views = [slot(TEXT, thinks=True), voice(RICH, 0.9), voice(DRY, 0.1), voice(NEW, 0.0)]
    made = plan_step(views, SchedulerConfig(think_batch=3, talk_batch=2, decode_batch=1))
    assert made == StepPlan((), (NEW, DRY, RICH), (NEW, DRY), (NEW,))


def test_who_has_plenty_waits_while_another_has_little() -> None:
    both = [voice(RICH, 5.0), voice(DRY, 0.2)]
    assert plan_step(both, SchedulerConfig(enough_s=1.0)).talk == (DRY,)
    assert plan_step([replace(one, unplayed_s=4.0) for one in both], SchedulerConfig(enough_s=1.0)).talk == (RICH, DRY)


def test_a_complete_window_waits_for_company_but_not_for_long() -> None:
    def windows(*missing: int | None, company: int = 4) -> tuple[int, ...]:
        """Who is decoded; missing: what each window lacks before this step, in which all sing a code."""
        voices = [replace(voice(i, 0.5, i), missing_codes=lacks) for i, lacks in enumerate(missing)]
        return plan_step(voices, SchedulerConfig(hold_codes=company)).decode

    assert windows(1, 1, 8) == (0, 1, 2)  # the third would come too late (and is only told of its code)
    assert windows(1, 3) == (1,)  # the first is complete with this step's code, and waits
    assert windows(0, 2, company=1) == (0, 1) and windows(0, 2, company=2) == (1,)  # it has waited for one
    assert windows(-4, 2) == (0, 1)
    assert windows(1, None) == (0, 1)  # whoever sings no more is nobody to wait for
    idle = replace(voice(2, 9.0, 2), missing_codes=2)  # it has plenty, and sings nothing now
    assert plan_step([replace(voice(1, 0.5), missing_codes=1), idle], SchedulerConfig()).decode == (1,)


def test_voices_that_begin_one_step_apart_are_decoded_together() -> None:
    pace, lacks, groups = SchedulerConfig(), {i: 24 + i for i in range(4)}, list[tuple[int, ...]]()
    for _ in range(200):
        standings = [replace(voice(name, 0.5, name), missing_codes=left) for name, left in lacks.items()]
        chosen = plan_step(standings, pace).decode
        lacks = {name: left - 1 for name, left in lacks.items()}
        made = tuple(name for name in chosen if lacks[name] <= 0)
        if made:
            groups.append(made)
            lacks.update({name: lacks[name] + 12 for name in made})
    assert len(groups) > 10 and all(len(group) == 4 for group in groups)


def test_a_long_prompt_is_read_in_small_bites_while_somebody_speaks() -> None:
    long, late = slot(1, 9000, arrived=1), slot(2, 10, arrived=2)
    pace = SchedulerConfig(prefill_tokens=500, prefill_tokens_speaking=20)
    assert plan_step([late, long], pace).prefill == ((1, 500),)
    assert plan_step([late, long, voice(3, 0.5)], pace).prefill == ((1, 20),)
    assert plan_step([late], pace).prefill == ((2, 10),)


def test_short_prompts_share_a_pass_and_its_budget() -> None:
    """In order of priority, each whole before the next; never more tokens than the step may hold."""
    rng = random.Random(0)
    for _ in range(200):
        views = [slot(i, rng.choice([0, 1, 9, 40, 900]), arrived=rng.randrange(50)) for i in range(rng.randrange(9))]
        room = rng.randrange(1, 600)
        dealt = plan_step(views, SchedulerConfig(prefill_tokens=room)).prefill
        waiting = sorted((view for view in views if view.unread), key=lambda view: view.priority)
        assert [number for number, _ in dealt] == [view.id for view in waiting[: len(dealt)]]
        assert all(count == view.unread for (_, count), view in zip(dealt[:-1], waiting, strict=False))
        assert sum(count for _, count in dealt) == min(room, sum(view.unread for view in waiting))


def test_nobody_starves() -> None:
    """Served voices gain sound and all lose it by playing: over a while every one of many is served."""
    rng, pace = random.Random(0), SchedulerConfig(talk_batch=2, think_batch=2, decode_batch=2)
    sound, served = dict.fromkeys(range(7), 0.0), dict.fromkeys(range(7), 0)
    for _ in range(300):
        standings = [voice(name, left, name) for name, left in sound.items()]
        rng.shuffle(standings)
        for name in plan_step(standings, pace).talk:
            sound[name] += 0.08
            served[name] += 1
        sound = {name: max(0.0, left - 0.02) for name, left in sound.items()}
    assert min(served.values()) > 0.8 * max(served.values())


def test_the_order_in_which_sessions_are_told_of_does_not_matter() -> None:
    standings = [voice(i, unplayed, i) for i, unplayed in enumerate([0.3, 0.3, 2.0, 0.0, 0.7])]
    for seed in range(20):
        mixed = standings[:]
        random.Random(seed).shuffle(mixed)
        assert plan_step(mixed, SchedulerConfig(talk_batch=3)) == plan_step(standings, SchedulerConfig(talk_batch=3))


def test_who_waits_for_an_answer_is_read_before_who_still_speaks() -> None:
    listens = replace(slot(1, 50, arrived=1), priority=(True, 1))
    assert plan_step([listens, slot(2, 10, arrived=2)], SchedulerConfig(prefill_tokens=10)).prefill == ((2, 10),)
    assert plan_step([listens], SchedulerConfig()).prefill == ((1, 50),)
