"""Who is served: the driest first, nobody never, and a long prompt never more than one chunk at a time."""

from __future__ import annotations

import random
from dataclasses import replace

from descant.engine.scheduler import Pace, Plan, Standing, plan


def voice(name: str, unplayed: float, arrived: int = 0) -> Standing:
    return Standing(name, arrived, 0, thinks=True, talks=True, decodes=True, unplayed=unplayed)


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert not plan([], Pace()) and not plan([Standing("a", 1, 0)], Pace())


def test_the_driest_listener_is_served_first_and_texts_get_the_rest() -> None:
    text = Standing("text", 0, 0, thinks=True)
    made = plan([text, voice("rich", 0.9), voice("dry", 0.1), voice("new", 0.0)], Pace(thoughts=3, codes=2, windows=1))
    assert made == Plan(None, ("new", "dry", "rich"), ("new", "dry"), ("new",))


def test_who_has_plenty_waits_while_another_has_little() -> None:
    both = [voice("rich", 5.0), voice("dry", 0.2)]
    assert plan(both, Pace(ahead=1.0)).talk == ("dry",)
    assert plan([replace(one, unplayed=4.0) for one in both], Pace(ahead=1.0)).talk == ("rich", "dry")


def test_a_complete_window_waits_for_company_but_not_for_long() -> None:
    def windows(*missing: int | None, company: int = 4) -> tuple[str, ...]:
        """Who is decoded; missing: what each window lacks before this step, in which all sing a code."""
        voices = [replace(voice(str(i), 0.5, i), missing=lacks) for i, lacks in enumerate(missing)]
        return plan(voices, Pace(company=company)).decode

    assert windows(1, 1, 8) == ("0", "1", "2")  # the third would come too late (and is only told of its code)
    assert windows(1, 3) == ("1",)  # the first is complete with this step's code, and waits
    assert windows(0, 2, company=1) == ("0", "1") and windows(0, 2, company=2) == ("1",)  # it has waited for one
    assert windows(-4, 2) == ("0", "1")
    assert windows(1, None) == ("0", "1")  # whoever sings no more is nobody to wait for
    idle = replace(voice("idle", 9.0, 2), missing=2)  # it has plenty, and sings nothing now
    assert plan([replace(voice("due", 0.5), missing=1), idle], Pace()).decode == ("due",)


def test_voices_that_begin_one_step_apart_are_decoded_together() -> None:
    pace, lacks, groups = Pace(), {str(i): 24 + i for i in range(4)}, list[tuple[str, ...]]()
    for _ in range(200):
        standings = [replace(voice(name, 0.5, int(name)), missing=left) for name, left in lacks.items()]
        chosen = plan(standings, pace).decode
        lacks = {name: left - 1 for name, left in lacks.items()}
        made = tuple(name for name in chosen if lacks[name] <= 0)
        if made:
            groups.append(made)
            lacks.update({name: lacks[name] + 12 for name in made})
    assert len(groups) > 10 and all(len(group) == 4 for group in groups)


def test_a_long_prompt_is_read_in_small_bites_while_somebody_speaks() -> None:
    long, late = Standing("long", 1, 9000), Standing("late", 2, 10)
    pace = Pace(chunk=500, patient=20)
    assert plan([late, long], pace).prefill == ("long", 500)
    assert plan([late, long, voice("a", 0.5)], pace).prefill == ("long", 20)
    assert plan([late], pace).prefill == ("late", 10)


def test_nobody_starves() -> None:
    """Served voices gain sound and all lose it by playing: over a while every one of many is served."""
    rng, pace = random.Random(0), Pace(codes=2, thoughts=2, windows=2)
    sound, served = {f"v{i}": 0.0 for i in range(7)}, dict.fromkeys((f"v{i}" for i in range(7)), 0)
    for _ in range(300):
        standings = [voice(name, left, i) for i, (name, left) in enumerate(sound.items())]
        rng.shuffle(standings)
        for name in plan(standings, pace).talk:
            sound[name] += 0.08
            served[name] += 1
        sound = {name: max(0.0, left - 0.02) for name, left in sound.items()}
    assert min(served.values()) > 0.8 * max(served.values())


def test_the_order_in_which_sessions_are_told_of_does_not_matter() -> None:
    standings = [voice(f"v{i}", unplayed, i) for i, unplayed in enumerate([0.3, 0.3, 2.0, 0.0, 0.7])]
    for seed in range(20):
        mixed = standings[:]
        random.Random(seed).shuffle(mixed)
        assert plan(mixed, Pace(codes=3)) == plan(standings, Pace(codes=3))
