"""How sessions, answers and the engine end: politely, rudely, twice, in any order and on any thread; nothing is left.

A bystander is answered meanwhile wherever somebody misbehaves, and hears what it hears alone.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.live import LiveSession
from descant.engine.scheduler import SchedulerConfig
from descant.errors import SessionError
from descant.types import Finished, TextDelta
from tests.engine import rig, talks
from tests.engine.talks import NOISE

BYSTANDER = rig.request("a bystander", speech=talks.SPEECH)
ALONE = talks.alone(BYSTANDER)
SLOW = Limits(scheduler=SchedulerConfig(prefill_tokens=2, prefill_tokens_speaking=2))


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine with a bystander, who is undisturbed; at the end it is empty."""
    engine = Engine(talks.MODELS, SLOW)
    bystander = engine.submit(BYSTANDER)
    yield engine
    talks.same(talks.served(engine, bystander)[0], ALONE)
    gc.collect()
    talks.empty(engine)


def steps(engine: Engine, count: int) -> None:
    for _ in range(count):
        engine.worker.step()
        talks.sound(engine)


def asked(session: LiveSession, words: str = "hello") -> Answer:
    session.add(words)
    return session.respond()


def answers_as_before(engine: Engine, session: LiveSession) -> None:
    """The session is usable: what it answers now is what a new context answers to the same conversation."""
    (answer,) = talks.served(engine, asked(session, "and now?"))
    assert answer.error is None and answer.whole
    talks.sound(engine)
    session.close()
    with pytest.raises(SessionError, match="open another"):
        session.push_audio(NOISE, 16000)


# ---------------------------------------------------------------- answers that nobody wants any more


@pytest.mark.parametrize("phase", [0, 1, 3, 8, 20, 30])
@pytest.mark.parametrize("manner", ["cancel", "drop", "leave the loop", "truncate"])
def test_an_answer_that_is_not_wanted_any_more(engine: Engine, manner: str, phase: int) -> None:
    session = talks.opened(engine)
    talks.served(engine, asked(session, "first"))  # so that the Talker has a reply to catch up with
    answer = asked(session)
    steps(engine, phase)
    if manner == "cancel":
        session.cancel()
        assert list(answer) == []
    elif manner == "truncate":
        session.truncate(0.1)
    elif manner == "leave the loop":
        while answer.events.empty():
            engine.worker.step()
        for _ in answer:
            break
    del answer
    steps(engine, 2)
    live = [slot for slot in engine.worker.slots.values() if slot.conversation is not None]
    assert all(slot.listens for slot in live) or manner == "drop"
    answers_as_before(engine, session)


def test_what_is_pushed_after_cancel_is_the_next_turn(engine: Engine) -> None:
    session = talks.opened(engine)
    asked(session)
    steps(engine, 4)
    session.push_audio(NOISE[:9000], 16000)
    session.cancel()
    session.push_audio(NOISE[9000:], 16000)
    session.cancel()
    answers_as_before(engine, session)


def test_a_cancel_storm(engine: Engine) -> None:
    session = talks.opened(engine)
    for count in range(30):
        asked(session)
        steps(engine, count % 4)
        for _ in range(20):
            session.cancel()
    answers_as_before(engine, session)


def test_the_words_that_were_heard_only_become_fewer(engine: Engine) -> None:
    session = talks.opened(engine)
    (answer,) = talks.served(engine, asked(session))
    whole = session.truncate(99.0)
    assert whole == answer.text
    assert session.truncate(0.0) == session.truncate(0.3) == session.truncate(99.0) == ""
    answers_as_before(engine, session)


def test_truncate_after_the_next_turn_was_asked_means_that_one(engine: Engine) -> None:
    session = talks.opened(engine)
    talks.served(engine, asked(session))
    second = asked(session, "second")
    assert session.truncate(9.0) == "" and second.cancelled.is_set()
    steps(engine, 3)
    answers_as_before(engine, session)


def test_an_answer_is_taken_once(engine: Engine) -> None:
    answer = engine.submit(BYSTANDER)
    while not answer.record.over:
        engine.worker.step()
    assert isinstance(list(answer)[-1], Finished)
    assert list(answer) == []


# ---------------------------------------------------------------- sessions that are gone


@pytest.mark.parametrize("phase", [0, 3, 12])
def test_a_session_dropped_without_closing(engine: Engine, phase: int) -> None:
    session = talks.opened(engine)
    session.push_audio(NOISE[:9000], 16000)
    steps(engine, phase)
    answer = session.respond()
    steps(engine, phase)
    del session, answer
    gc.collect()
    engine.worker.step()
    assert engine.ledger().live_sessions == 0


def test_an_answer_keeps_its_session(engine: Engine) -> None:
    answer = asked(talks.opened(engine))
    gc.collect()
    assert talks.served(engine, answer)[0].whole


def test_a_session_closed_while_its_answer_is_taken(engine: Engine) -> None:
    session = talks.opened(engine)
    answer = asked(session)
    while answer.events.empty():
        engine.worker.step()
    events = iter(answer)
    del answer
    next(events)
    session.close()
    session.close()
    assert list(events) == []
    for act in (lambda: session.add("x"), session.respond, lambda: session.truncate(1.0)):
        with pytest.raises(SessionError, match="open another"):
            act()
    session.cancel()


@pytest.mark.parametrize("waits", [True, False])
def test_who_is_answered_is_told_when_the_session_is_taken_away(waits: bool) -> None:
    engine = Engine(talks.MODELS, Limits(sessions=1))
    other = engine.submit(BYSTANDER)
    session = talks.opened(engine)
    if waits:
        engine.worker.step()
    else:
        talks.served(engine, other)
    answer = asked(session)
    steps(engine, 3)
    engine.close_session(session._number)
    late = talks.served(engine, answer)[0]
    assert isinstance(late.error, SessionError) and "open another" in str(late.error)
    session.add("x")  # dropped: the engine knows no such session
    late = talks.served(engine, session.respond())[0]
    assert isinstance(late.error, SessionError) and "open another" in str(late.error)
    talks.served(engine, other)
    session.close()
    talks.empty(engine)


@pytest.mark.parametrize("phase", [0, 1, 6])
def test_who_is_cancelled_by_another_is_told(engine: Engine, phase: int) -> None:
    session = talks.opened(engine)
    answers = [asked(session), engine.submit(BYSTANDER)]
    steps(engine, phase)
    for answer in answers:
        engine.cancel(answer.number)
    for late in talks.served(engine, *answers):
        assert isinstance(late.error, SessionError) and "ask again" in str(late.error)
    answers_as_before(engine, session)


def test_numbers_that_nobody_has(engine: Engine) -> None:
    session = talks.opened(engine)
    talks.served(engine, asked(session))
    plain = engine.submit(BYSTANDER)
    steps(engine, 2)
    before = engine.ledger()
    for number in (0, -1, 99, plain.number):
        engine.close_session(number)
        engine.update_draft(number, talks.FORMATTER.closing())
        engine.truncate_reply(number, number, 0)
        if number != plain.number:
            engine.cancel(number)
        ghost = engine.ask(number, talks.FORMATTER.closing, BYSTANDER.settings, 0.0)
        engine.worker.step()
        assert isinstance(ghost.events.get(), SessionError)
    assert engine.is_caught_up(99) and engine.ledger().live_sessions == before.live_sessions == 1
    talks.same(talks.served(engine, plain)[0], ALONE)
    engine.cancel(plain.number)
    answers_as_before(engine, session)


def test_a_listener_that_gave_up_its_pages_is_read_again_when_it_asks() -> None:
    engine = Engine(talks.MODELS, Limits(tokens=96, talker_tokens=200, page=4))
    listener, same = talks.opened(engine), talks.opened(Engine(talks.MODELS))
    for session in (listener, same):
        session.push_audio(NOISE[:16000], 16000)
    steps(engine, 5)
    assert engine.ledger().thinker_pages
    big = engine.submit(rig.request("x" * 60, speech=talks.SPEECH))
    first = listener.respond()
    steps(engine, 2)
    assert engine.worker.slots[1].reserved == (0, 0)
    ours, other = talks.served(engine, first, big)
    assert other.whole
    talks.same(ours, talks.served(same._engine, same.respond())[0])
    listener.close()
    talks.empty(engine)


def test_nobody_gives_up_pages_in_vain() -> None:
    engine = Engine(talks.MODELS, Limits(tokens=100, talker_tokens=400, page=4))
    listener = talks.opened(engine)
    listener.push_audio(NOISE[:8000], 16000)
    answers = [engine.submit(rig.request("x" * 40, voice=None)) for _ in range(2)]
    steps(engine, 3)
    held = engine.worker.slots[1].reserved
    assert any(held) and len(engine.worker.pending) == 1
    talks.served(engine, *answers)
    listener.close()
    talks.empty(engine)


# ---------------------------------------------------------------- the engine's own end


def test_an_engine_closed_while_sessions_live() -> None:
    engine = Engine(talks.MODELS, Limits(sessions=1))
    engine.start()
    session, other = talks.opened(engine), talks.opened(engine)
    answers = [asked(session), asked(other), engine.submit(BYSTANDER)]
    engine.close()
    engine.close()
    for answer in answers:
        with pytest.raises(SessionError, match="closed"):
            list(answer)
    acts: list[Callable[[], object]] = [
        lambda: session.push_audio(NOISE, 16000), lambda: session.add("x"), session.respond,
        lambda: session.truncate(1.0), lambda: talks.opened(engine),
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(SessionError, match="make a new one"):
            act()
    session.cancel()
    session.close()
    assert engine.ledger().idle and engine.worker.idle_faults == 0
    engine.worker.slots.check_pages()


def test_an_engine_closed_by_many_at_once() -> None:
    engine = Engine(talks.MODELS)
    engine.start()
    session = talks.opened(engine)
    asked(session)
    together([engine.close] * 4)
    assert engine.ledger().idle


@pytest.mark.parametrize("where", ["_serve", "_admit"])
def test_a_worker_that_dies_while_some_listen_and_one_is_answered(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(talks.MODELS)
    listener, talker = talks.opened(engine), talks.opened(engine)
    listener.push_audio(NOISE, 16000)
    first = asked(talker)
    steps(engine, 4)
    monkeypatch.setattr(engine.worker, where, lambda *given: 1 / 0)
    engine.start()
    with pytest.raises(SessionError, match="ZeroDivisionError.*load the model again"):
        list(first)
    for session in (listener, talker):
        with pytest.raises(SessionError, match="make a new one"):
            session.add("x")
        session.close()
    engine.close()
    assert engine.ledger().idle
    engine.worker.slots.check_pages()


def test_what_goes_wrong_with_one_session_s_words_is_its_own(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = talks.opened(engine)
    engine.worker.step()
    talk = engine.worker.slots[session._number].conversation
    assert talk is not None
    monkeypatch.setattr(talk, "update_draft", lambda draft: 1 / 0)
    session.add("x")
    steps(engine, 2)
    assert "ZeroDivisionError" in caplog.text
    answers_as_before(engine, session)


# ---------------------------------------------------------------- threads and event loops


def together(acts: list[Callable[[], object]]) -> None:
    """All at once, each on a thread of its own; what one raises is raised here."""
    raised: list[BaseException] = []

    def run(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if raised:
        raise raised[0]


def test_two_threads_push_at_once() -> None:
    engine = Engine(talks.MODELS)
    engine.start()
    session = talks.opened(engine)

    def push() -> None:
        for start in range(0, 16000, 400):
            session.push_audio(NOISE[start : start + 400], 16000)

    together([push, push])
    assert isinstance(list(session.respond())[-1], Finished)
    session.close()
    engine.close()
    assert engine.ledger().idle and engine.worker.idle_faults == 0


def test_closing_the_engine_while_others_ask_leaves_nobody_waiting() -> None:
    """Whoever got an answer to take is told, however close the end was."""
    for _ in range(30):
        engine = Engine(talks.MODELS, Limits(waiting=1000))
        engine.start()
        session = talks.opened(engine)
        begun = threading.Barrier(4)

        def ask(engine: Engine = engine, begun: threading.Barrier = begun) -> None:
            begun.wait()
            try:
                for _ in range(100):
                    list(engine.submit(rig.request("a", voice=None)))
            except SessionError:
                return

        def live(session: LiveSession = session, begun: threading.Barrier = begun) -> None:
            begun.wait()
            try:
                for _ in range(100):
                    list(asked(session))
            except SessionError:
                return

        def close(engine: Engine = engine, begun: threading.Barrier = begun) -> None:
            begun.wait()
            engine.close()

        together([ask, ask, live, close])
        assert engine.ledger().idle, engine.ledger()


def test_looking_at_the_ledger_disturbs_nobody() -> None:
    engine = Engine(talks.MODELS, Limits(page=1))
    engine.start()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            engine.ledger()

    def work() -> None:
        try:
            for i in range(2):
                session = talks.opened(engine)
                session.push_audio(NOISE[i * 400 :], 16000)
                list(session.respond(max_tokens=1))
                session.close()
        finally:
            done.set()

    together([look, look, work])
    engine.close()
    assert engine.worker.idle_faults == 0


def test_an_event_loop_that_ends_before_its_answer() -> None:
    engine = Engine(talks.MODELS)
    session, bystander = talks.opened(engine), engine.submit(BYSTANDER)
    answer = asked(session)
    reader = aiter(answer)

    async def begin() -> None:
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        engine.worker.step()
        while not engine.worker.slots[session._number].session.events and answer.events.empty():
            engine.worker.step()
        await waiting

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    talks.same(talks.served(engine, bystander)[0], ALONE)
    talks.rest(engine)
    assert answer.cancelled.is_set() and engine.ledger().sessions == 0
    answers_as_before(engine, session)
    talks.empty(engine)


def test_a_reader_in_an_event_loop_that_is_cancelled() -> None:
    engine = Engine(talks.MODELS)
    engine.start()
    session = talks.opened(engine)

    async def read(answer: Answer) -> list[object]:
        return [event async for event in answer]

    async def main() -> None:
        for patience in (0.0, 0.005, 0.02):
            session.add("hello")
            task = asyncio.create_task(read(session.respond()))
            await asyncio.sleep(patience)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        session.add("hello")
        events = await read(session.respond())
        assert isinstance(events[-1], Finished) and any(isinstance(event, TextDelta) for event in events)

    asyncio.run(main())
    session.close()
    engine.close()
    assert engine.ledger().idle and engine.worker.idle_faults == 0


def test_a_finalizer_may_speak_to_the_engine_in_the_middle_of_anything() -> None:
    """The garbage collector may let go of an answer or a session while this very thread speaks to the engine."""
    engine = Engine(talks.MODELS)
    engine.start()

    class Knot:
        def __init__(self) -> None:
            self.me, self.held = self, asked(talks.opened(engine))

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(20):
            Knot()
    finally:
        gc.set_threshold(*before)
    while not engine.ledger().idle:
        gc.collect()
        time.sleep(0.001)
    engine.close()
    assert engine.worker.idle_faults == 0
