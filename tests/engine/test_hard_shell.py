"""What one user does costs no other: bounded messages, prices, readers who leave, threads that are gone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from descant.engine import engine as engine_module
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.live import LiveSession
from descant.engine.passages import first_cut, passages
from descant.engine.scheduler import SchedulerConfig
from descant.engine.spoken_prefix import SECONDS_PER_LETTER, weight
from descant.errors import BusyError, DescantError, OptionError, SessionError
from descant.inputs.tokenizer import Tokenizer
from descant.types import AudioChunk, Budget, Decoding, Finished, Memory, Text
from tests.engine import rig, talks

ROOT = Path(__file__).parents[2]
CALLS = 200  # of a session that storms, before each step
STORMS: dict[str, Callable[[LiveSession], object]] = {
    "add, respond, cancel": lambda s: (s.add("x"), s.respond(max_tokens=5), s.cancel()),
    "add": lambda s: s.add("word "),
    "truncate": lambda s: s.truncate(0),
    "push sound": lambda s: s.push_audio(bytes(320), 16000),
    "push frames": lambda s: s.push_frame(talks.GREY, 0.0),
    "cancel": lambda s: s.cancel(),
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "GIVE_WAY_S", 0.0)


def steps_to_answer(engine: Engine, between: Callable[[], object]) -> int:
    """Steps until a short answer of somebody else is there; ``between`` is called before each of them."""
    answer = engine.submit(rig.request("short", voice=None))
    for count in range(1, 100):
        between()
        engine.worker.step()
        if answer.record.complete:
            list(answer)
            return count
    raise AssertionError("the answer hangs")


@pytest.mark.parametrize("name", STORMS)
def test_a_storm_of_one_session_delays_another_by_one_step_at_most(name: str) -> None:
    engine = Engine(talks.MODELS)
    quiet = steps_to_answer(engine, lambda: None)
    deepest = 0

    def storm() -> None:
        nonlocal deepest
        for _ in range(CALLS):
            with suppress(DescantError):  # what is too much for it is refused
                STORMS[name](session)
        deepest = max(deepest, engine.worker.inbox.qsize())

    with talks.opened(engine) as session:
        session.add("hello")
        talks.served(engine, session.respond())
        session.add("again")
        assert steps_to_answer(engine, storm) <= quiet + 1
        # of each turn that may wait its draft, the asking and the end; a draft more, and what the other asked
        assert deepest <= 3 * (engine.limits.asks + 1)
    engine.worker.step()


def test_turns_that_the_worker_has_not_seen_are_few() -> None:
    engine = Engine(talks.MODELS, Limits(asks=2))
    with talks.opened(engine) as session:
        for _ in range(2):
            session.add("x")
            session.respond().cancel()
        session.add("x")
        with pytest.raises(BusyError, match="2 turns of this session wait to be seen"):
            session.respond()
        engine.worker.step()
        assert talks.served(engine, session.respond())[0].whole


def test_a_draft_replaces_the_one_before_and_none_is_lost_behind_a_turn_that_was_asked() -> None:
    engine = Engine(talks.MODELS)
    with talks.opened(engine) as session:
        for _ in range(5):
            session.add("a longer and longer question " * 5)
        assert engine.worker.inbox.qsize() == 2  # the opening, and one draft
        answer = session.respond()
        session.add("the next one")
        talks.served(engine, answer)
        conversation = engine.worker.slots[session._number].conversation
        assert conversation is not None and len(conversation.draft)


def test_adding_to_a_turn_costs_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(talks.MODELS)
    real = Tokenizer.encode
    read = 0

    def counted(self: Tokenizer, text: str) -> list[int]:
        nonlocal read
        read += len(text)
        return real(self, text)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    with talks.opened(engine) as session:
        for _ in range(3000):
            session.add("word ")
        assert read < 12 * 3000 * len("word ")


@pytest.mark.parametrize("spoken", [False, True], ids=["typed", "while sound comes in"])
def test_refused_text_leaves_the_turn_as_it_was(spoken: bool) -> None:
    engine = Engine(talks.MODELS)
    with talks.opened(engine) as session:
        session.add("What is seven plus five?")
        if spoken:
            session.push_audio(talks.NOISE[:8000], 16000)
        with pytest.raises(OptionError, match="lone surrogate"):
            session.add("fine", "a\ud800")
        session.add("hi")
        (said,) = talks.served(engine, session.respond())
    with talks.opened(engine) as session:
        session.add("What is seven plus five?")
        if spoken:
            session.push_audio(talks.NOISE[:8000], 16000)
        session.add("hi")
        (clean,) = talks.served(engine, session.respond())
    talks.same(said, clean)


# ---------------------------------------------------------------- the price of a request


def test_a_prompt_beyond_the_context_is_refused_and_an_answer_ends_where_the_context_does() -> None:
    engine = Engine(rig.models(), Limits(tokens=100_000, talker_tokens=100_000))
    context = rig.models().thinker.cfg.text.max_position_embeddings
    for beyond in (0, 1):
        with pytest.raises(OptionError, match="leaves no room for an answer in a context of 32,768"):
            engine.submit(rig.request(prompt=rig.prompt("x" * (context + beyond)), voice=None))
    fitted = engine._fitted(rig.request(prompt=rig.prompt("x" * (context - 3)), voice=None))
    assert fitted.settings.text.max_tokens == 3
    assert engine._fitted(rig.request()).settings == rig.request().settings
    with pytest.raises(OptionError, match="leaves no room"):
        engine.submit(rig.request(prompt=rig.prompt("x" * (context - 5)), forced=tuple(range(5))))
    assert engine.ledger().idle


def test_text_has_a_price_before_it_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = replace(talks.FORMATTER.builder, budget=Budget(text_bytes=140))
    assert len(builder.build("x" * 60, speech=False))
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: pytest.fail("the text was tokenised"))
    with pytest.raises(OptionError, match="the text has .* bytes; at most 140 are read at once"):
        builder.build("ü" * 60, speech=False)
    turn = replace(talks.FORMATTER, builder=builder).turn()
    turn.add([Text("x" * 60)])
    with pytest.raises(OptionError, match="at most 140"):
        turn.add([Text("x" * 100)])


MAKERS: dict[str, Callable[[], object]] = {
    "points": lambda: Decoding(points=100_000),
    "no points": lambda: Decoding(points=0),
    "guidance nan": lambda: Decoding(guidance=float("nan")),
    "guidance inf": lambda: Decoding(guidance=float("inf")),
    "guidance": lambda: Decoding(guidance=1e38),
    "noise": lambda: Decoding(noise_scale=float("nan")),
    "noise much": lambda: Decoding(noise_scale=1e38),
    "sway": lambda: Decoding(sway=float("inf")),
    "now": lambda: Decoding(now=10**9),
    "solver": lambda: Decoding(solver="magic"),  # type: ignore[arg-type]
    "sessions": lambda: Limits(sessions=0),
    "unread": lambda: Limits(unread=-1),
    "page": lambda: Limits(page=0),
    "large page": lambda: Limits(page=10**9),
    "threads": lambda: Limits(threads=-1),
    "many threads": lambda: Limits(threads=10**6),
    "scheduler": lambda: Limits(scheduler={"messages": 5}),  # type: ignore[arg-type]
    "chunk": lambda: SchedulerConfig(prefill_tokens=0, prefill_tokens_speaking=0),
    "think": lambda: SchedulerConfig(think_batch=0),
    "talk": lambda: SchedulerConfig(talk_batch=0),
    "decode": lambda: SchedulerConfig(decode_batch=0),
    "memory": lambda: Memory(tokens=0),
    "full": lambda: Memory(full="forget"),  # type: ignore[arg-type]
    "budget": lambda: Budget(audio_s=float("nan")),
}


@pytest.mark.parametrize("name", MAKERS)
def test_limits_and_settings_are_checked_where_they_are_made(name: str) -> None:
    with pytest.raises(OptionError, match=r"is impossible; allowed: |is unknown; choose |write a SchedulerConfig"):
        MAKERS[name]()


# ---------------------------------------------------------------- nobody waits in silence


def test_an_answer_that_nobody_reads_gives_its_slot_back() -> None:
    engine = Engine(rig.models(), Limits(sessions=1, unread=1, unread_s=0))
    unread, waiting = engine.submit(rig.request()), engine.submit(rig.request(voice=None))
    for _ in range(100):
        engine.worker.step()
        while not waiting.events.empty():
            waiting.events.get()
    assert waiting.record.complete
    with pytest.raises(SessionError, match="nobody took an event of the answer for 0 s"):
        list(unread)


def test_two_readers_of_one_answer_get_an_error() -> None:
    engine = Engine(rig.models())
    engine.start()
    answer = engine.submit(rig.request())
    loop = iter(answer)
    next(loop)
    with pytest.raises(SessionError, match="another loop takes the events"):
        next(iter(answer))
    assert isinstance(list(loop)[-1], Finished)
    assert list(answer) == []


def test_an_engine_without_a_thread_says_so_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(rig.models())

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for _ in range(2):
            with pytest.raises(SessionError, match="the engine cannot start: can't start new thread"):
                engine.start()
    engine.start()
    assert isinstance(list(engine.submit(rig.request()))[-1], Finished)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_worker_that_dies_tells_everybody(kind: type[BaseException]) -> None:
    engine = Engine(rig.models())
    engine.start()
    answer = engine.submit(rig.request(forced=tuple([65] * 2000)))
    taken = iter(answer)
    next(taken)
    assert engine._thread is not None and engine._thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(engine._thread.ident), ctypes.py_object(kind))
    with pytest.raises(SessionError, match=kind.__name__):
        list(taken)
    engine._thread.join(60)
    with pytest.raises(SessionError, match="closed"):
        engine.submit(rig.request())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_at_once() -> None:
    engine = Engine(rig.models())
    engine.start()
    begun = engine.submit(rig.request())
    child = os.fork()
    if not child:
        told = 0
        for ask in (lambda: engine.submit(rig.request()), lambda: next(iter(begun)), lambda: talks.opened(engine)):
            try:
                ask()
            except SessionError as error:
                told += "forked" in str(error)
        os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert isinstance(list(begun)[-1], Finished)


SLOW_END = """
import time
import torch
from descant.engine.engine import Engine
from descant.engine.worker import EngineWorker
from tests.engine import rig

def leave(self, slot, phase, real=EngineWorker._leave):  # the worker is the last to hold the answer, and its engine
    real(self, slot, phase)
    time.sleep(0.3)

def abandon(self, why, real=EngineWorker.abandon):
    real(self, why)
    x = torch.randn(1500, 1500)
    for _ in range(8):
        x = x @ x

EngineWorker._leave = leave
EngineWorker.abandon = abandon
engine = Engine(rig.models())
engine.start()
answer = engine.submit(rig.request())
while not answer.record.complete:
    time.sleep(0.01)
del answer, engine
time.sleep(0.4)
"""


def test_the_program_waits_for_a_worker_that_ended_its_own_engine() -> None:
    """A thread that computes while the interpreter ends is a SIGABRT ("terminate called without an active
    exception")."""
    ended = subprocess.run([sys.executable, "-c", SLOW_END], cwd=ROOT, check=False, timeout=120)
    assert ended.returncode == 0


# ---------------------------------------------------------------- what leaves


def test_sound_that_is_not_numbers_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    models = rig.models()
    engine = Engine(models)
    real = type(models.token2wav).step

    def broken(self: object, *given: object) -> object:
        return [(samples * torch.nan, state) for samples, state in real(self, *given)]  # type: ignore[arg-type]

    monkeypatch.setattr(type(models.token2wav), "step", broken)
    engine.start()
    events = []
    with pytest.raises(SessionError, match="the sound is not numbers"):
        events += [event for event in engine.submit(rig.request()) if isinstance(event, AudioChunk)]
    assert not events


@pytest.mark.parametrize(("codes", "cut"), [(40, True), (5, True)])
def test_speech_that_is_cut_at_its_limit_says_so(codes: int, cut: bool) -> None:
    settings = rig.settings()
    engine = Engine(rig.models())
    engine.start()
    asked = rig.request(speech=replace(settings.speech, max_tokens=codes), forced=(65, 66))
    end = list(engine.submit(asked))[-1]
    assert isinstance(end, Finished)
    assert (end.usage.speech_cut, end.usage.text_cut, end.reason) == (cut, False, "length")


def test_an_answer_of_several_parts_is_one_stream() -> None:
    engine = Engine(rig.models())
    engine.start()
    parts = [rig.request(f"part {n}", forced=(65 + n, 66), seed=3, clock=0.0) for n in range(3)]
    leads = ["", " ", "\n"]
    joined = replace(parts[0], rest=tuple(replace(p, lead=w) for p, w in zip(parts[1:], leads[1:], strict=True)))
    events = list(engine.submit(joined))
    alone = [list(engine.submit(part)) for part in parts]
    sound = [event for event in events if isinstance(event, AudioChunk)]
    wanted = [event.samples for part in alone for event in part if isinstance(event, AudioChunk)]
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in sound]), np.concatenate(wanted))
    assert [chunk.start_sample for chunk in sound] == [
        sum(len(before.samples) for before in sound[:place]) for place in range(len(sound))
    ]
    end = events[-1]
    ends = [part[-1] for part in alone]
    assert isinstance(end, Finished) and end.text == "".join(
        lead + last.text for lead, last in zip(leads, ends, strict=True) if isinstance(last, Finished)
    )
    counts = [vars(last.usage) for last in ends if isinstance(last, Finished)]
    for name in ("prompt_tokens", "text_tokens", "codes", "samples"):
        assert vars(end.usage)[name] == sum(count[name] for count in counts)


TEXTS = [
    "One. Two, three; four five. " * 20,
    "word " * 300,
    "a" * 2000,
    "七加五等于十二。" * 50,
    "   \n\n  ",
    "x",
    "1234567890" * 30,
    "Hello!!! " + "?" * 500 + " yes.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_passages_joined_are_the_text_and_each_is_short(text: str) -> None:
    seconds = 5.0
    parts = list(passages(text, seconds))
    assert "".join(parts) == text and all(parts)
    letters = seconds / SECONDS_PER_LETTER
    assert all(sum(weight(word) for word in part.split()) <= letters + 1 for part in parts)


def test_passages_end_where_a_reader_breathes() -> None:
    assert list(passages("One two. Three four, five. Six", 1.3)) == ["One two. ", "Three four, five. ", "Six"]
    assert first_cut("one, two three", 10) == len("one, ")
