"""Rows of live sessions: how soon the first text comes after a spoken turn, after ten turns, and beside idle sessions.

The engine has no thread here: it takes its steps between two pieces of sound, until it has read what there is, as it
could while its user speaks. What it cannot do then, and the user waits for, is timed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from string import ascii_lowercase

from descant.bench.decode import clocked
from descant.bench.harness import Bench, BenchLine, Target, growth_line, interleave, median, stepped, time_line
from descant.bench.shapes import (
    CODEPOINTS,
    HEARD_RATE_HZ,
    Scale,
    bench_models,
    endless,
    prepared_voice,
    random_parts,
    random_prompt,
    random_sound,
    request,
)
from descant.config import InputsConfig
from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.engine.live import LiveSession
from descant.engine.models import Models
from descant.engine.session import Request, SessionTerms
from descant.errors import SessionError
from descant.inputs.prompt import PromptBuilder
from descant.inputs.turn import TurnFormatter
from descant.model.codec import PreparedVoice
from descant.tokens import PromptTokens
from descant.types import Audio, Finished, TextDelta, user

SOONER = Target("ratio >=", 5.0)
TENTH = Target("growth <=", 1.3)
IDLE = Target("growth <=", 1.1)
PIECE_SAMPLES = HEARD_RATE_HZ // 50  # 20 ms
BENCH_INPUTS = InputsConfig(
    default_system=None, speech_system=None
)  # in letters it would be five times as long as in words
WORDS_A_TURN = 8
CODES_A_TURN = 24  # of an answer to a turn
SETTLING_STEPS = 4  # steps that read the prompt and find their buffers


@dataclass(frozen=True)
class LiveBench:
    """One model, and what its answers have in common."""

    models: Models
    voice: PreparedVoice

    @property
    def builder(self) -> PromptBuilder:
        return PromptBuilder(CODEPOINTS, BENCH_INPUTS, self.models.thinker.cfg)

    def request(self, prompt: PromptTokens, words: int = WORDS_A_TURN, codes: int = CODES_A_TURN) -> Request:
        return request(prompt, self.voice, words, codes)

    @contextmanager
    def session(self, engine: Engine) -> Iterator[LiveSession]:
        formatter = TurnFormatter(self.builder)
        with LiveSession(engine, formatter, SessionTerms(self.request(random_prompt(0)).settings)) as session:
            yield session


def live_bench(scale: Scale) -> LiveBench:
    models = endless(bench_models(random_parts(scale.live)))
    return LiveBench(models, prepared_voice(models, scale.live))


def rest(engine: Engine) -> None:
    """Steps until there is nothing to do."""
    while engine.worker.step():
        pass


def push_noise(engine: Engine, session: LiveSession, seconds: float, seed: int = 3) -> float:
    """Push noise as a microphone would; seconds that reading it took meanwhile."""
    samples = random_sound(seconds, seed)
    reading = 0.0
    for start in range(0, len(samples), PIECE_SAMPLES):
        begin = time.perf_counter()
        session.push_audio(samples[start : start + PIECE_SAMPLES], HEARD_RATE_HZ)
        rest(engine)
        reading += time.perf_counter() - begin
    return reading


@dataclass(frozen=True)
class TurnTiming:
    """One turn. first: seconds from its end to the first text; reading: seconds of work before its end."""

    first: float
    reading: float
    end: Finished

    @property
    def what(self) -> tuple[str, int]:
        """The question and the answer, to see that all sides did the same."""
        return self.end.text, self.end.usage.prompt_tokens


def wait(engine: Engine, answer: Answer, begin: float, reading: float = 0.0) -> TurnTiming:
    """The answer to a turn that was complete at ``begin``."""
    first: float | None = None
    for event in stepped(engine, answer):
        if first is None and isinstance(event, TextDelta):
            first = time.perf_counter() - begin
        if isinstance(event, Finished) and first is not None:
            return TurnTiming(first, reading, event)
    raise SessionError("an answer had no text: nothing to compare")


# ---------------------------------------------------------------- a long turn


def live_turn(bench: Bench) -> list[BenchLine]:
    """Seconds from the end of a spoken turn to the first text: pushed live, against submitted whole."""
    scale = bench.scale
    home = live_bench(bench.scale)
    turns = interleave({"live": lambda: pushed(home, scale), "whole": lambda: submitted(home, scale)}, bench.repeats)
    outcomes = {turn.what for side in turns.values() for turn in side}
    if len(outcomes) != 1:
        raise SessionError(f"the sides did not answer alike; (text, prompt tokens) of each: {outcomes}")
    ours, theirs = (median([turn.first for turn in turns[side]]) for side in ("live", "whole"))
    faster = scale.spoken / median([turn.reading for turn in turns["live"]])
    note = (
        f"bench-tiny with an audio encoder of 8 x 512; pushed in pieces of 20 ms and read meanwhile, {faster:.1f} "
        f"times faster than spoken; peer: the same turn submitted whole, from its samples on; median of {bench.repeats}"
    )
    return [time_line(f"first text after a {scale.spoken:g} s spoken turn", ours, theirs, SOONER, note)]


def pushed(home: LiveBench, scale: Scale) -> TurnTiming:
    engine = Engine(home.models)
    with home.session(engine) as session:
        reading = push_noise(engine, session, scale.spoken)
        begin = time.perf_counter()
        return wait(engine, session.respond(), begin, reading)


def submitted(home: LiveBench, scale: Scale) -> TurnTiming:
    """Its clock starts before the sound becomes features, which is part of what a whole turn costs at its end."""
    engine = Engine(home.models)
    asked = user(Audio(random_sound(scale.spoken), HEARD_RATE_HZ))
    begin = time.perf_counter()
    prompt = home.builder.build([asked], speech=True)
    return wait(engine, engine.submit(home.request(prompt)), begin)


# ---------------------------------------------------------------- a conversation


def tenth_turn(bench: Bench) -> list[BenchLine]:
    """Seconds to the first text at the last turn of a conversation, against the first turn of the same one."""
    scale = bench.scale
    home = live_bench(bench.scale)
    talks = interleave({"talk": lambda: conversation(home, scale)}, bench.repeats)["talk"]
    first, last = (median([talk[place].first for talk in talks]) for place in (0, -1))
    tokens = talks[0][-1].end.usage.prompt_tokens
    note = (
        f"turns of {scale.turn:g} s of noise, answers of {WORDS_A_TURN} tokens and {CODES_A_TURN} codes; {tokens} "
        f"tokens of context at the last; peer: turn 1; median of {bench.repeats}"
    )
    return [growth_line(f"first text at turn {scale.turns}", last, first, TENTH, note)]


def conversation(home: LiveBench, scale: Scale) -> list[TurnTiming]:
    engine = Engine(home.models)
    turns = list[TurnTiming]()
    with home.session(engine) as session:
        for seed in range(scale.turns):
            reading = push_noise(engine, session, scale.turn, seed)
            begin = time.perf_counter()
            turns.append(wait(engine, session.respond(), begin, reading))
            rest(engine)
    return turns


# ---------------------------------------------------------------- idle sessions


def idle(bench: Bench) -> list[BenchLine]:
    """Seconds of a decode step of one answer while others hold their context and do nothing."""
    scale = bench.scale
    home = live_bench(bench.scale)
    rounds = scale.steps * bench.repeats
    with ExitStack() as stack:
        rooms = {n: stack.enter_context(room(home, scale, n, rounds)) for n in (0, *scale.idle)}
        taken = interleave(rooms, rounds, SETTLING_STEPS)
    before = median(taken[0])
    note = (
        f"each holds a turn of {scale.held} tokens; one answer writes a token and sings a code a step; peer: none "
        f"idle; median of {rounds} steps"
    )
    return [
        growth_line(f"a step beside {count} idle sessions", median(taken[count]), before, IDLE, note)
        for count in scale.idle
    ]


@contextmanager
def room(home: LiveBench, scale: Scale, count: int, rounds: int) -> Iterator[Callable[[], float]]:
    """An engine with ``count`` idle sessions and one answer that lasts long enough; gives the seconds of a step."""
    engine = Engine(home.models)
    with ExitStack() as stack:
        sessions = [stack.enter_context(home.session(engine)) for _ in range(count)]
        for seed, session in enumerate(sessions):
            session.add(babble(scale.held, seed))
        rest(engine)
        length = rounds + 2 * SETTLING_STEPS
        answer = engine.submit(home.request(random_prompt(scale.prompt), length, length))
        yield lambda: clocked(engine.worker.step)
        if answer.record.over:
            raise SessionError("the answer ended before its steps were timed: nothing to compare")
        answer.cancel()


def babble(length: int, seed: int) -> str:
    """So many letters, each a token."""
    return "".join(random.Random(seed).choices(ascii_lowercase, k=length))
