"""When is a turn over? Silence alone beside the words, on made-up pauses. ``python benchmarks/turn_end.py``

A voice (flite) says a sentence; at a word's end it pauses for 0.3 to 2 s, and at its end it is silent. A detector that
waits for so much silence ends the turn in the pause (wrong), or some time after the end (the delay). Semantic turn end
decides in each pause how long to wait, by a transcript of what was said so far (`descant/server/turn_end.py`):

- nano's own transcripts of its own domain's questions, held out from training;
- the true words with their punctuation, of everyday sentences: what a model that hears without error would write.

It needs flite (Debian: flite, libflite1). Figures go to benchmarks/results/turn-end.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from timing import Reading, TimedFlite

import descant
from descant.config import OUTPUT_RATE_HZ
from descant.server.silero import detector
from descant.server.turn_end import WAIT_S, completeness
from descant.server.vad import VadSettings
from descant.train.nano import domain
from descant.train.nano.speech_data import Flite
from descant.types import Audio

RESULTS = Path(__file__).resolve().parent / "results" / "turn-end.json"
RATE_HZ = 16_000
PAUSES_S = (0.3, 2.0)
SILENCE_S = 9.0  # after the end: longer than anybody waits
FIXED_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0)  # silence alone
CUT_S = 0.02
EVERYDAY = (
    "Could you tell me what the weather is like in Rome tomorrow?",
    "I would like to book a table for two people on Friday evening.",
    "What is the name of the man who wrote that book about the sea?",
    "Please remind me to call my mother when I get home.",
    "How long does it take to get from here to the station by bus?",
    "The red one on the left is bigger than the blue one on the right.",
    "Can you turn off the light in the kitchen and close the door?",
    "My sister wants to know whether the shop is open on Sunday.",
    "We were going to leave at nine, but the train was late again.",
    "Tell me a short story about a dog and a cat who live on a farm.",
    "Where did you put the keys that were on the table this morning?",
    "I think that the second answer was better than the first one.",
    "Which of these two pictures shows a bridge over a river?",
    "There is a small green bird on the branch of that old tree.",
    "Play something quiet, because the children are already asleep.",
    "What should I cook for dinner if I only have rice and eggs?",
    "It was so cold that nobody wanted to go out for a walk.",
    "Do you remember the song that we heard in the car last night?",
    "Send a message to Peter and say that I will be ten minutes late.",
    "Is there anything else that you would like to know about it?",
)

Samples = npt.NDArray[np.float32]
Transcribe = Callable[["Spoken", int], str]


@dataclass(frozen=True)
class Spoken:
    """A sentence with a pause. sound (W,): at 16 kHz; end: sample at which it is over; said: its words so far at a
    sample."""

    sound: Samples
    end: int
    words: tuple[tuple[int, str], ...]  # the sample at which each word is over, and the text up to there

    def text_at(self, sample: int) -> str:
        said = [text for over, text in self.words if over <= sample]
        return said[-1] if said else ""


def with_pause(text: str, reading: Reading, sound: Samples, rng: random.Random) -> Spoken:
    """A sentence that pauses behind one of its words."""
    pieces = text.split()
    word = rng.randrange(1, len(pieces))
    place = round(reading.spans[word - 1][1] * RATE_HZ)
    pause = round(rng.uniform(*PAUSES_S) * RATE_HZ)
    room = np.random.default_rng(0)
    quiet = np.zeros(pause, np.float32)
    whole = np.concatenate([np.zeros(RATE_HZ, np.float32), sound[:place], quiet, sound[place:]])
    end = len(whole)
    whole = np.concatenate([whole, np.zeros(round(SILENCE_S * RATE_HZ), np.float32)])
    whole += 1e-4 * room.standard_normal(len(whole)).astype(np.float32)
    words = []
    for n in range(len(pieces)):
        over = RATE_HZ + round(reading.spans[n][1] * RATE_HZ) + (pause if n >= word else 0)
        words.append((over - RATE_HZ // 10, " ".join(pieces[: n + 1])))
    return Spoken(whole, end, tuple(words))


def stops(spoken: Spoken, wait_of: Callable[[int], float]) -> list[int]:
    """The samples at which a turn would end. wait_of: a pause told at a sample -> seconds that end the turn."""
    one = detector("auto", RATE_HZ, VadSettings(silence_s=SILENCE_S))
    found, wait = [], 0.0
    step = round(CUT_S * RATE_HZ)
    for start in range(0, len(spoken.sound) - step, step):
        for event in one.push(spoken.sound[start : start + step]):
            if event.kind == "pausing":
                wait = wait_of(start + step)
        if one.speaking and wait and one.quiet_s >= wait:
            found.append(start + step)
            one.stop()
            wait = 0.0
        elif one.quiet_s == 0:
            wait = 0.0
    return found


@dataclass
class Score:
    """wrong: turns that ended in a pause; delays_s: from the end of a sentence to the end of its turn."""

    wrong: int = 0
    delays_s: list[float] | None = None

    def add(self, spoken: Spoken, ends: list[int]) -> None:
        before = [end for end in ends if end < spoken.end]
        after = [end for end in ends if end >= spoken.end]
        self.wrong += bool(before)
        self.delays_s = [*(self.delays_s or []), *((end - spoken.end) / RATE_HZ for end in after[:1])]

    def row(self, count: int) -> dict[str, float]:
        delays = self.delays_s or [0.0]
        return {
            "wrong_share": round(self.wrong / count, 3),
            "delay_median_s": round(statistics.median(delays), 2),
            "delay_p95_s": round(sorted(delays)[int(0.95 * (len(delays) - 1))], 2),
        }


def measure(all_spoken: list[Spoken], transcribe: Transcribe) -> dict[str, dict[str, float]]:
    """Every way to wait, over all sentences."""
    scores: dict[str, Score] = {}
    for spoken in all_spoken:
        judged: dict[int, tuple[str, float]] = {}

        def judge(sample: int, spoken: Spoken = spoken, judged: dict[int, tuple[str, float]] = judged) -> str:
            if sample not in judged:
                begin = time.perf_counter()
                judged[sample] = completeness(transcribe(spoken, sample)), time.perf_counter() - begin
            return judged[sample][0]

        for seconds in FIXED_S:
            ends = stops(spoken, lambda _, seconds=seconds: seconds)  # type: ignore[misc]
            scores.setdefault(f"silence {seconds:g} s", Score()).add(spoken, ends)
        for eagerness in ("high", "medium", "low"):
            waits = dict(zip(("complete", "unsure", "open"), WAIT_S[eagerness], strict=True))  # type: ignore[index]
            ends = stops(spoken, lambda sample, waits=waits: waits[judge(sample)])  # type: ignore[misc]
            scores.setdefault(f"words, {eagerness}", Score()).add(spoken, ends)
    return {name: score.row(len(all_spoken)) for name, score in scores.items()}


def spoken_texts(texts: Iterable[str], seed: int) -> list[Spoken]:
    """Sentences as flite says them, each with a pause."""
    rng, timed, voice = random.Random(seed), TimedFlite(), Flite("slt")
    made = []
    for text in texts:
        sound = soxr.resample(voice.speak(text)[0].astype(np.float32), OUTPUT_RATE_HZ, RATE_HZ)
        made.append(with_pause(text, timed.read(text), sound, rng))
    return made


def questions(count: int) -> list[str]:
    """Questions of nano's domain that training never saw, of four words or more."""
    rng = random.Random(1)
    found: list[str] = []
    while len(found) < count:
        task = rng.choice(domain.TEXT_TASKS)
        core, form = rng.choice(domain.cores(task)), rng.randrange(3)
        wrapper = domain.draw_wrapper(rng)
        words = domain.question_words(task, core, form % len(domain._FORMS[task]), wrapper)
        if len(words.split()) >= 4 and words not in found:
            found.append(words)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sentences", type=int, default=60)
    count: int = parser.parse_args().sentences
    omni = descant.load("nano")

    def by_nano(spoken: Spoken, sample: int) -> str:
        return str(omni.transcribe(Audio(spoken.sound[RATE_HZ // 2 : sample], RATE_HZ), max_tokens=256))

    results = {
        "nano's transcripts, its own questions": measure(spoken_texts(questions(count), 2), by_nano),
        "true words, everyday sentences": measure(spoken_texts(EVERYDAY, 3), Spoken.text_at),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, rows in results.items():
        print(name)
        for way, row in rows.items():
            wrong, delay, late = row["wrong_share"], row["delay_median_s"], row["delay_p95_s"]
            print(f"  {way:14} ended in the pause {100 * wrong:4.0f} %   delay {delay:.2f} s, p95 {late:.2f} s")


if __name__ == "__main__":
    main()
