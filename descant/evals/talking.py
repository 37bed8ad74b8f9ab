"""Right by turn: talks of eight turns through ``Omni.session``, typed and spoken; and what a spoken answer costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from descant import omni as omnis
from descant.evals import wide
from descant.train.nano import domain, refusals, talks, wording
from descant.train.nano.questions import QUESTION_RATE_HZ
from descant.train.nano.wording import Asked
from descant.types import Audio, Finished, Part

UNINTERRUPTED = {**talks.SHARES, "resume": 0.0}
TURN_BARS = {"typed": 95.0, "spoken": 85.0}


def utter(spoken: bool) -> talks.Utter:
    """Questions of the test split, typed, or said by a voice of training."""

    def ask(task: str, rng: random.Random) -> tuple[Asked, Part]:
        if not spoken:
            return talks.type_question(task, rng, "test")
        asked = talks.draw_question(task, rng, "test")
        return asked, Audio(wide.voiced(asked.words, rng), QUESTION_RATE_HZ)

    return ask


def drawn_talk(number: int, seed: int, spoken: bool) -> talks.Talk:
    """Talk ``number``: eight turns, without interruptions."""
    rng = random.Random(f"talking/{seed}/{spoken}/{number}")
    return talks.draw_talk(utter(spoken), rng, "test", talks.LONGEST_TALK, UNINTERRUPTED)


def hold_talk(omni: omnis.Omni, talk: talks.Talk) -> list[bool]:
    """Hold a talk in a live session: whether each turn is answered rightly, after what the model itself said before."""
    right = []
    last = refusals.NOT_SAID
    with omni.session(instructions=talk.system or None, speech=False, seed=0) as session:
        for turn in talk.turns:
            for part in turn.parts:
                if isinstance(part, Audio):
                    session.push_audio(np.asarray(part.source), QUESTION_RATE_HZ)
                else:
                    session.add(part)
            answer = next(event.text for event in session.respond() if isinstance(event, Finished))
            wanted = last if turn.kind == "again" else turn.reply
            right.append(
                refusals.is_honest(answer) if turn.kind == "outside" else domain.correct(turn.task, answer, wanted)
            )
            last = answer
    return right


def by_turn(
    omni: omnis.Omni, count: int, seed: int, spoken: bool, told: Callable[[int, Sequence[float]], None]
) -> list[float]:
    """Percent of right answers at each of eight turns over ``count`` talks; told: after each talk."""
    sums = np.zeros(talks.LONGEST_TALK)
    for number in range(count):
        sums += hold_talk(omni, drawn_talk(number, seed, spoken))
        told(number + 1, (100 * sums / (number + 1)).tolist())
    shares: list[float] = (100 * sums / count).tolist()
    return shares


def cost(omni: omnis.Omni, count: int, seed: int) -> tuple[float, float, float]:
    """(megabytes of weights, seconds from a spoken question's end to the first sound, real-time factor); medians."""
    folder = omni.checkpoint.folder
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    firsts = []
    factors = []
    for number in range(count):
        rng = random.Random(f"cost/{seed}/{number}")
        asked = wording.draw_asked(rng.choice(wording.ASKING), rng, "test")
        with omni.session(seed=0) as session:
            session.push_audio(wide.voiced(asked.words, rng), QUESTION_RATE_HZ)
            timings = next(event.timings for event in session.respond() if isinstance(event, Finished))
        if timings.first_audio_s is not None and timings.rtf is not None:
            firsts.append(timings.first_audio_s)
            factors.append(timings.rtf)
    return size, float(np.median(firsts)), float(np.median(factors))
