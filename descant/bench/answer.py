"""Rows: the first sound and the whole of one spoken answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import get_args

from descant.bench.harness import Bench, BenchLine, Target, interleave, median, stepped, time_line
from descant.bench.reference import Reference
from descant.bench.shapes import (
    CODEPOINTS,
    bench_models,
    prepared_voice,
    random_parts,
    random_prompt,
    random_voice,
    request,
)
from descant.engine.engine import Engine
from descant.engine.models import Models
from descant.errors import SessionError
from descant.model.codec import PreparedVoice, decoding_for
from descant.tokens import PromptTokens
from descant.types import Finished, Latency

FIRST_AUDIO_TARGET = Target("ratio >=", 12.0)
WHOLE = Target("ratio >=", 3.0)
PEER = "transformers"
STAGES = "queue", "read", "think", "talk", "decode"
SETTINGS: tuple[Latency, ...] = get_args(Latency)


@dataclass(frozen=True)
class Timing:
    """One answer: seconds to its first sound and to its end, and what it was, to see that all sides did the same.

    stages: seconds of each stage, of the engine's alone.
    """

    first: float
    whole: float
    ids: tuple[int, ...]
    samples: int
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """The question that every side answers."""

    prompt: PromptTokens
    voice: PreparedVoice
    words: int
    codes: int


def first_audio(bench: Bench) -> list[BenchLine]:
    """Seconds to the first sound against transformers' whole answer, before which it gives none.

    Judged at both settings that are made for a talk: low, which is there for the soonest sound, and the default.
    """
    sides = timed_answers(bench)
    theirs = median([t.whole for t in sides[PEER]]) if PEER in sides else None
    return [
        time_line(
            f"first audio, bench-tiny, {setting}",
            median([t.first for t in sides[setting]]),
            theirs,
            FIRST_AUDIO_TARGET if setting != "quality" else None,
            about(bench),
        )
        for setting in SETTINGS
    ]


def whole_answer(bench: Bench) -> list[BenchLine]:
    """Seconds of the whole answer: balanced, the default, is judged; quality is the official solver (RK4)."""
    sides = timed_answers(bench)
    theirs = median([t.whole for t in sides[PEER]]) if PEER in sides else None
    lines = []
    for setting in SETTINGS:
        ours = median([t.whole for t in sides[setting]])
        target = WHOLE if setting == "balanced" else None
        note = f"{about(bench)}; {told(sides[setting])}"
        lines.append(time_line(f"whole answer, bench-tiny, {setting}", ours, theirs, target, note))
    return lines


def about(bench: Bench) -> str:
    scale = bench.scale
    return f"{scale.prompt}-token prompt, {scale.words} text tokens, {scale.codes} codes; median of {bench.repeats}"


@lru_cache(maxsize=1)
def timed_answers(bench: Bench) -> dict[str, list[Timing]]:
    """All sides in turn, once for both rows."""
    scale = bench.scale
    parts = random_parts(scale.answer)
    voice = random_voice(scale.answer)
    bench.say(f"bench-tiny: {sum(parts.counts().values()) / 1e6:.0f} M random weights")
    reference = None if bench.compare is None else Reference(scale.answer, parts, voice)
    models = bench_models(parts)
    job = Job(random_prompt(scale.prompt), prepared_voice(models, scale.answer), scale.words, scale.codes)
    sides: dict[str, Callable[[], Timing]] = {
        setting: partial(descant_answer, models, job, setting) for setting in SETTINGS
    }
    if reference is not None:
        sides[PEER] = partial(reference_answer, reference, job)
    timings = interleave(sides, bench.repeats)
    check_same(timings, job)
    return timings


def descant_answer(models: Models, job: Job, setting: Latency) -> Timing:
    asked = request(job.prompt, job.voice, job.words, job.codes, decoding_for(setting))
    engine = Engine(models)
    *_, last = stepped(engine, engine.submit(asked))
    assert isinstance(last, Finished)
    timings = last.timings
    assert timings.first_audio_s is not None
    stages = {stage: vars(timings)[f"{stage}_s"] for stage in STAGES}
    return Timing(timings.first_audio_s, timings.total_s, CODEPOINTS.ids(last.text), last.usage.samples, stages)


def told(sides: Sequence[Timing]) -> str:
    """Where the time of an answer went: medians of its stages."""
    return ", ".join(f"{stage} {median([side.stages[stage] for side in sides]):.2g} s" for stage in STAGES)


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
