"""Batched == alone: whoever comes, goes, fails or is cut off, every other answer is what it would have been alone."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch

from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.scheduler import SchedulerConfig
from descant.engine.session import Request
from descant.errors import BusyError, OptionError, SessionError
from descant.types import AudioChunk, Event, Finished, Sampling
from tests.engine import rig
from tests.engine.alone import stream

MODELS = rig.models()
SCHEDULES = 40
TOPICS = ["hello", "what is it", "a", "user: tell me of the sea and of the ships on it", "seven plus five"]


def a_request(rng: random.Random) -> Request:
    """A question of any length; greedy or drawn; spoken or not."""
    text = Sampling(temperature=rng.choice([0.0, 1.0]), max_tokens=rng.randrange(1, 14))
    speech = Sampling(temperature=rng.choice([0.0, 1.0]), repetition_penalty=1.05, max_tokens=rng.randrange(1, 30))
    words = " ".join(rng.choices(TOPICS, k=rng.randrange(1, 4)))
    mute = {"voice": None} if rng.random() < 0.3 else {}
    return rig.request(words, text=text, speech=speech, seed=rng.randrange(1000), **mute)


def sound(events: list[Event]) -> np.ndarray:
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    assert [c.start_sample for c in chunks] == [sum(len(c.samples) for c in chunks[:i]) for i in range(len(chunks))]
    return np.concatenate([c.samples for c in chunks]) if chunks else np.zeros(0, np.float32)


def counts(end: Finished) -> dict[str, int]:
    """What does not depend on company: pages are shared, and a busy engine keeps a listener waiting."""
    return {name: count for name, count in vars(end.usage).items() if name not in ("prefilled_tokens", "underruns")}


def same(given: list[Event], request: Request) -> None:
    alone = list(stream(MODELS, request))
    end, wanted = given[-1], alone[-1]
    assert isinstance(end, Finished) and isinstance(wanted, Finished)
    assert (end.text, end.reason, counts(end)) == (wanted.text, wanted.reason, counts(wanted))
    np.testing.assert_allclose(sound(given), sound(alone), atol=1e-4)


def taken(answer: Answer) -> list[Event]:
    """The events that wait, without making a step."""
    events = []
    while not answer.events.empty():
        item = answer.events.get()
        if item is not None:
            events.append(item)
    return events


def finish(engine: Engine) -> None:
    while engine.worker.step() or engine.worker.slots:
        pass


def limits(rng: random.Random) -> Limits:
    config = SchedulerConfig(rng.choice([1, 5, 64]), rng.choice([1, 3]), *(rng.randrange(1, 6) for _ in range(3)))
    return Limits(2000, 2000, sessions=rng.randrange(1, 7), page=rng.choice([1, 4, 16]), scheduler=config)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_any_schedule_gives_every_answer_as_if_alone(seed: int) -> None:
    rng = random.Random(seed)
    engine = Engine(MODELS, limits(rng))
    asked: list[tuple[Request, Answer]] = []
    for _ in range(200):
        if len(asked) < 8 and rng.random() < 0.2:
            asked.append((request := a_request(rng), engine.submit(request)))
        elif asked and rng.random() < 0.01:
            rng.choice(asked)[1].cancel()
        else:
            engine.worker.step()
        engine.worker.slots.check_pages()
    finish(engine)
    assert engine.ledger().idle
    for request, answer in asked:
        if not answer.cancelled.is_set():
            same(taken(answer), request)


@pytest.mark.parametrize("phase", [0, 2, 6, 12])
def test_a_cancelled_answer_gives_nothing_more_and_frees_all_in_one_step(phase: int) -> None:
    engine = Engine(MODELS)
    leaving, staying = engine.submit(rig.request("go")), engine.submit(rig.request("stay"))
    for _ in range(phase):
        engine.worker.step()
    leaving.cancel()
    assert list(leaving) == []
    engine.worker.step()
    assert len(engine.worker.slots) == 1
    finish(engine)
    same(taken(staying), rig.request("stay"))
    assert engine.ledger().idle


def test_a_dropped_answer_is_cancelled() -> None:
    engine = Engine(MODELS)
    engine.submit(rig.request())
    gc.collect()
    engine.worker.step()
    assert engine.ledger().idle


@pytest.mark.parametrize("where", ["think", "talk"])
def test_scores_that_are_no_numbers_end_one_session(where: str) -> None:
    engine = Engine(MODELS)
    sick, well = engine.submit(rig.request("sick")), engine.submit(rig.request("well"))
    for _ in range(3):
        engine.worker.step()
    session = engine.worker.slots[sick.number].session
    assert session.speech is not None
    cache = session.text.kv if where == "think" else session.speech.kv
    with torch.inference_mode():
        cache.store.layers[0][cache.slots(0, 3)] = float("nan")
    finish(engine)
    error = taken(sick)[-1]
    assert isinstance(error, SessionError) and "not numbers" in str(error)
    same(taken(well), rig.request("well"))
    assert engine.ledger().idle


def test_an_exception_in_a_shared_pass_is_its_owner_s(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MODELS)
    sick, well = engine.submit(rig.request("sick")), engine.submit(rig.request("well"))
    for _ in range(3):
        engine.worker.step()
    session = engine.worker.slots[sick.number].session
    session.text.start = "nowhere"  # type: ignore[assignment]
    finish(engine)
    error = taken(sick)[-1]
    assert isinstance(error, SessionError) and "TypeError" in str(error)
    same(taken(well), rig.request("well"))


def test_what_can_never_fit_and_what_finds_the_queue_full_is_refused() -> None:
    engine = Engine(MODELS, Limits(tokens=40, talker_tokens=100, sessions=1, waiting=2))
    with pytest.raises(OptionError, match="can never fit"):
        engine.submit(rig.request("far too long a question for an engine as small as this"))
    answers = [engine.submit(rig.request("a")) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests wait") as full:
        engine.submit(rig.request("a"))
    assert full.value.retry_s is None and "later" in str(full.value)  # nothing was measured yet
    finish(engine)
    for _ in range(2):
        engine.submit(rig.request("a"))
    with pytest.raises(BusyError, match="2 requests wait") as full:
        engine.submit(rig.request("a"))
    assert full.value.retry_s is not None
    finish(engine)
    for answer in answers:
        same(taken(answer), rig.request("a"))


def test_a_request_of_a_page_not_quite_full_is_served_in_the_last_page() -> None:
    engine = Engine(MODELS, Limits(tokens=40, talker_tokens=100))
    request = rig.request("x" * 28)  # 28 + 12 tokens: two and a half pages
    answer = engine.submit(request)
    engine.worker.step()
    assert engine.ledger().sessions == 1
    finish(engine)
    same(taken(answer), request)


def test_answers_on_a_worker_thread() -> None:
    engine = Engine(MODELS)
    engine.start()
    requests = [rig.request(topic, seed=i) for i, topic in enumerate(TOPICS)]
    answers = [engine.submit(request) for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        same(list(answer), request)
    engine.close()
    assert engine.ledger().idle
    with pytest.raises(SessionError, match="closed"):
        engine.submit(requests[0])


def test_a_worker_that_dies_tells_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MODELS)
    answers = [engine.submit(rig.request("a")) for _ in range(3)]
    monkeypatch.setattr(engine.worker, "_serve", lambda plan: 1 / 0)
    engine.start()
    for answer in answers:
        with pytest.raises(SessionError, match="ZeroDivisionError"):
            list(answer)
    with pytest.raises(SessionError, match="closed"):
        engine.submit(rig.request())
    assert engine.ledger().idle


def test_a_reader_who_takes_nothing_stops_the_writing() -> None:
    engine = Engine(MODELS, Limits(unread=2))
    answer = engine.submit(rig.request("slow"))
    for _ in range(200):
        engine.worker.step()
    waiting = answer.events.qsize()
    assert 2 < waiting < 8 and len(engine.worker.slots) == 1
    given = taken(answer)
    while not answer.record.over:
        engine.worker.step()
        given += taken(answer)
    same(given, rig.request("slow"))
