"""Row: several answers at once, beside the same answers one after another.

A decode step of one answer reads every weight and computes little; a step of eight reads them once for all. What is
bound by memory gains up to eightfold, what computes all the time (here the codec of bench-tiny) gains next to nothing.
So both shapes are measured: 0.5B, where the decoders decide and the codec is small, is judged.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from descant.bench.harness import Bench, BenchLine, Target, interleave, median, rate_line, stepped
from descant.bench.shapes import bench_models, endless, prepared_voice, random_parts, random_prompt, request
from descant.config import OmniConfig
from descant.engine.engine import Engine
from descant.engine.models import Models
from descant.errors import SessionError
from descant.model.codec import PreparedVoice
from descant.tokens import PromptTokens
from descant.types import Finished

TOGETHER_TARGET = Target("ratio >=", 3.0)
MAX_TURNS = 2  # at most: one takes minutes


@dataclass(frozen=True)
class Workload:
    """Who asks: each with a prompt of its own, so that nothing is shared but the weights."""

    prompts: tuple[PromptTokens, ...]
    voice: PreparedVoice
    words: int
    codes: int


def answers_together(bench: Bench) -> list[BenchLine]:
    """Tokens and codes a second, whole answers with their sound."""
    scale = bench.scale
    judged = sides(bench, scale.decode, "0.5B", TOGETHER_TARGET)
    return [judged, sides(bench, scale.answer, "bench-tiny", None)]


def sides(bench: Bench, config: OmniConfig, name: str, target: Target | None) -> BenchLine:
    scale = bench.scale
    models = endless(bench_models(random_parts(config)))
    prompts = tuple(random_prompt(scale.prompt, seed) for seed in range(scale.crowd))
    crowd = Workload(prompts, prepared_voice(models, config), scale.words, scale.codes)
    repeats = min(bench.repeats, MAX_TURNS)
    rate(models, replace(crowd, prompts=prompts[:2], codes=2), 2)  # the warm-up: a whole one would take minutes
    both = {"together": partial(rate, models, crowd, scale.crowd), "alone": partial(rate, models, crowd, 1)}
    rates = interleave(both, repeats, warmups=0)
    ours, theirs = (median(rates[side]) for side in ("together", "alone"))
    codec = "its codec is small" if target else "with the whole codec; not judged: the codec computes all the time"
    each = f"{scale.prompt}-token prompt, {crowd.words} tokens, {crowd.codes} codes"
    note = f"{scale.crowd} answers, each {each}; {codec}; peer: one after another; median of {repeats}"
    return rate_line(f"{scale.crowd} together, {name}, tokens + codes", ours, theirs, target, note)


def rate(models: Models, crowd: Workload, at_once: int) -> float:
    """Tokens and codes a second, so many answers at once until all are given."""
    engine = Engine(models)
    made = 0
    begin = time.perf_counter()
    for first in range(0, len(crowd.prompts), at_once):
        asked = [
            request(prompt, crowd.voice, crowd.words, crowd.codes) for prompt in crowd.prompts[first : first + at_once]
        ]
        for answer in [engine.submit(one) for one in asked]:
            last = list(stepped(engine, answer))[-1]
            assert isinstance(last, Finished)
            made += last.usage.text_tokens + last.usage.codes
    took = time.perf_counter() - begin
    wanted = len(crowd.prompts) * (crowd.words + crowd.codes)
    if made != wanted:
        raise SessionError(f"{made} tokens and codes were made where {wanted} were asked for: nothing to compare")
    return made / took
