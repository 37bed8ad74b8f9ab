"""Rows: the first sound and the whole of one spoken answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from descant.bench.harness import Bench, Line, Target, interleave, median, time_line
from descant.bench.reference import Reference
from descant.bench.shapes import models_of, random_parts, random_prompt, random_voice, request
from descant.engine.loop import run
from descant.engine.session import Models, open_session
from descant.errors import SessionError
from descant.model.codec import decoding_for
from descant.types import AudioChunk, Latency, Prompt, Voice

FIRST_AUDIO = Target("ratio >=", 12.0)
WHOLE = Target("ratio >=", 3.0)
PEER = "transformers"
SETTINGS: tuple[Latency, ...] = ("balanced", "quality")


@dataclass(frozen=True)
class Timing:
    """One answer: seconds to its first sound and to its end, and what it was, to see that all sides did the same."""

    first: float
    whole: float
    ids: tuple[int, ...]
    samples: int


@dataclass(frozen=True)
class Job:
    """What is asked of every side."""

    prompt: Prompt
    voice: Voice
    words: int
    codes: int


def first_audio(bench: Bench) -> list[Line]:
    """Seconds to the first sound against transformers' whole answer, before which it gives none."""
    sides = answers(bench)
    theirs = median([t.whole for t in sides[PEER]]) if PEER in sides else None
    ours = median([t.first for t in sides["balanced"]])
    return [time_line("first audio, bench-tiny", ours, theirs, FIRST_AUDIO, about(bench))]


def whole_answer(bench: Bench) -> list[Line]:
    """Seconds of the whole answer: balanced is judged; quality is the official solver (RK4) and is reported."""
    sides = answers(bench)
    theirs = median([t.whole for t in sides[PEER]]) if PEER in sides else None
    lines = []
    for setting in SETTINGS:
        ours, target = median([t.whole for t in sides[setting]]), WHOLE if setting == "balanced" else None
        lines.append(time_line(f"whole answer, bench-tiny, {setting}", ours, theirs, target, about(bench)))
    return lines


def about(bench: Bench) -> str:
    scale = bench.scale
    return f"{scale.prompt}-token prompt, {scale.words} text tokens, {scale.codes} codes; median of {bench.repeats}"


@lru_cache(maxsize=1)
def answers(bench: Bench) -> dict[str, list[Timing]]:
    """All sides in turn, once for both rows."""
    scale = bench.scale
    parts, voice = random_parts(scale.answer), random_voice(scale.answer)
    bench.say(f"bench-tiny: {sum(parts.counts().values()) / 1e6:.0f} M random weights")
    job, models = Job(random_prompt(scale.prompt), voice, scale.words, scale.codes), models_of(parts)
    sides: dict[str, Callable[[], Timing]] = {
        "balanced": lambda: descant_answer(models, job, "balanced"),
        "quality": lambda: descant_answer(models, job, "quality"),
    }
    if bench.compare is not None:
        reference = Reference(scale.answer, parts, voice)
        sides[PEER] = lambda: reference_answer(reference, job)
    timings = interleave(sides, bench.repeats)
    check_same(timings, job)
    return timings


def descant_answer(models: Models, job: Job, setting: Latency) -> Timing:
    asked = request(job.prompt, job.voice, job.words, job.codes, decoding_for(setting))
    session, first, samples = open_session(models, asked), None, 0
    for event in run(models, session):
        if isinstance(event, AudioChunk):
            first = session.now() if first is None else first
            samples += len(event.samples)
    whole = session.now()
    return Timing(whole if first is None else first, whole, tuple(session.thought.ids), samples)


def reference_answer(reference: Reference, job: Job) -> Timing:
    begin = time.perf_counter()
    ids, samples = reference.answer(job.prompt, job.words, job.codes)
    whole = time.perf_counter() - begin
    return Timing(whole, whole, tuple(ids), samples)


def check_same(timings: dict[str, list[Timing]], job: Job) -> None:
    """A comparison is one only if every side wrote the same text, of the length asked for, and as much sound."""
    outcomes = {(t.ids, t.samples) for side in timings.values() for t in side}
    if len(outcomes) != 1 or len(next(iter(outcomes))[0]) != job.words:
        lengths = {name: sorted({(len(t.ids), t.samples) for t in side}) for name, side in timings.items()}
        raise SessionError(f"the sides did not give the same answer; (text tokens, samples) of each: {lengths}")
