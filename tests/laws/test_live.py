"""A live session's answers are those of the whole conversation given at once, however it came in."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from descant.config import InputsConfig
from descant.engine.answer import Answer
from descant.engine.context import Context
from descant.engine.conversation import tokens_within
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.live import LiveSession
from descant.engine.scheduler import SchedulerConfig
from descant.engine.session import Request, Session, SessionTerms
from descant.engine.spoken_prefix import spoken_prefix
from descant.errors import SessionError
from descant.inputs.prompt import PromptBuilder
from descant.inputs.turn import LiveTurn, TurnFormatter
from descant.tokens import PromptTokens, concatenate, text_tokens
from descant.types import AudioChunk, Event, Finished, Progress, Sampling, Text
from tests.engine import rig
from tests.engine.alone import run, stages_for
from tests.inputs import media

Array = npt.NDArray[Any]
MODELS = rig.models()
INPUTS = InputsConfig(feature_size=8, video_min_pixels=3136, video_max_pixels=3136)
FORMATTER = TurnFormatter(PromptBuilder(rig.TOKENIZER, INPUTS, MODELS.thinker.cfg))
SPEECH = Sampling(repetition_penalty=1.05, max_tokens=16)
SCHEDULES = 40


def terms(*, spoken: bool = True, context: int = 32768, drop: bool = True) -> SessionTerms:
    """A session of greedy answers of at most 12 tokens and 16 codes."""
    settings = rig.settings(speech=SPEECH, **({} if spoken else {"voice": None}))
    return SessionTerms(settings, "be kind", context, drop)


@dataclass
class Turn:
    """What a user says in one turn. order: the pushes, as they come: "sound", "frame", "text"."""

    order: list[str]
    sound: list[Array]
    frames: list[Array]
    words: list[str]

    @classmethod
    def drawn(cls, rng: random.Random) -> Turn:
        noise = media.noise(rng.randrange(2000, 90000), seed=rng.randrange(99))
        noise[: len(noise) // 2] *= np.float32(rng.choice([1, 1, 1e-3]))  # sometimes it grows loud late
        ends = sorted(rng.sample(range(1, len(noise)), rng.randrange(1, 9)))
        sound = np.split(noise, ends) if rng.random() < 0.8 else []
        frames = [media.picture(56, 56, seed=rng.randrange(99)) for _ in range(rng.choice([0, 0, 1, 4, 7]))]
        words = [rng.choice(["hello", "what is it?", " ", "and"]) for _ in range(rng.randrange(1 + (not sound), 4))]
        order = ["sound"] * len(sound) + ["frame"] * len(frames) + ["text"] * len(words)
        rng.shuffle(order)
        return cls(order, sound, frames, words)

    def pushes(self, to: LiveSession | LiveTurn) -> list[Callable[[], None]]:
        """The pushes in order, to be called one by one."""
        sound, frames, words = iter(self.sound), iter(enumerate(self.frames)), iter(self.words)

        def push(kind: str) -> Callable[[], None]:
            if kind == "sound":
                return partial(to.push_audio, next(sound), 16000)
            if kind == "frame":
                at, frame = next(frames)
                return partial(to.push_frame, frame, at / 2)
            return partial(to.add, next(words)) if isinstance(to, LiveSession) else partial(to.add, [Text(next(words))])

        return [push(kind) for kind in self.order]

    def rows(self) -> PromptTokens:
        """The turn as one message, given at once: what is said in one piece."""
        turn = FORMATTER.turn()
        for push in self.pushes(turn):
            push()
        return turn.finish()


@dataclass
class Told:
    """The conversation so far, as rows, and what a fresh context answers to it."""

    chain: list[PromptTokens] = field(default_factory=lambda: [FORMATTER.system("be kind", speech=True)])
    turns: int = 0

    def answer(self, turn: PromptTokens, how: SessionTerms) -> tuple[Session, list[Event]]:
        """The whole conversation, read at once by a context of its own."""
        self.chain.append(turn)
        settings = replace(how.settings, seed=self.turns)
        self.turns += 1
        stages = stages_for(MODELS)
        alone = stages.open(Request(concatenate(self.chain), settings))
        return alone, list(run(stages, alone))

    def replied(self, ids: list[int]) -> None:
        self.chain.append(concatenate([text_tokens(ids), FORMATTER.closing()]))


def typed(words: str) -> PromptTokens:
    turn = FORMATTER.turn()
    turn.add([Text(words)])
    return turn.finish()


def sound_of(events: list[Event]) -> Array:
    chunks = [event.samples for event in events if isinstance(event, AudioChunk)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def served(engine: Engine, answer: Answer, steps: int = 10**6) -> tuple[Session | None, list[Event]]:
    """Steps until the answer is over, or so many; the session that made it, and its events."""
    session = None
    while not answer.record.over and steps:
        engine.worker.step()
        slots = engine.worker.slots.values()
        session = next((slot.session for slot in slots if slot.answer_number == answer.number), session)
        steps -= 1
    events = []
    while not answer.events.empty():
        if isinstance(item := answer.events.get(), Exception):
            raise item
        if item is not None:
            events.append(item)
    return session, events


def same_rows(ours: PromptTokens, theirs: PromptTokens) -> None:
    assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.positions, theirs.positions)
    assert [s.source.digest for s in ours.spans] == [s.source.digest for s in theirs.spans]


def same_pasts(ours: Context, rows: PromptTokens) -> None:
    """What is in the caches is what a fresh context has that reads these rows at once."""
    same_rows(ours.tokens, rows)
    stages = stages_for(MODELS)
    fresh = stages.new_context(speech=ours.talker_kv is not None)
    fresh.set_tokens(rows)
    with torch.inference_mode():
        stages.read({stages.listen_in(fresh): len(rows)})
    for table, other in zip(ours.tables, fresh.tables, strict=True):
        assert table.length == other.length == len(rows)
        for store, wanted in zip(table.store.layers, other.store.layers, strict=True):
            past, whole = store[table.slots(0, len(rows))], wanted[other.slots(0, len(rows))]
            torch.testing.assert_close(past, whole, atol=1e-4, rtol=1e-4)


def same_answer(made: tuple[Session | None, list[Event]], alone: tuple[Session, list[Event]]) -> None:
    (session, events), (wanted, theirs) = made, alone
    assert session is not None
    assert session.text.ids == wanted.text.ids and session.reason == wanted.reason
    assert (session.speech.codes if session.speech else []) == (wanted.speech.codes if wanted.speech else [])
    np.testing.assert_allclose(sound_of(events), sound_of(theirs), atol=1e-4)


def limits(rng: random.Random) -> Limits:
    pace = SchedulerConfig(rng.choice([7, 64, 512]), rng.choice([3, 64]), *(rng.randrange(1, 6) for _ in range(3)))
    return Limits(4000, 4000, page=rng.choice([1, 4, 16]), scheduler=pace)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_any_cuts_and_any_schedule_give_the_answers_of_the_whole(seed: int) -> None:
    """Turns of sound, frames and text in random cuts; some answers are cut off, some truncated; others run beside."""
    rng = random.Random(seed)
    engine, how = Engine(MODELS, limits(rng)), terms(spoken=rng.random() < 0.8)
    session, told = LiveSession(engine, FORMATTER, how), Told()
    beside = [engine.submit(rig.request("beside", speech=SPEECH)) for _ in range(rng.randrange(3))]
    turns = [Turn.drawn(rng) for _ in range(rng.randrange(1, 4))]
    pushes = [push for turn in turns for push in [*turn.pushes(session), None]]
    for turn in turns:
        while (push := pushes.pop(0)) is not None:
            push()
            for _ in range(rng.randrange(4)):
                engine.worker.step()
        answer = session.respond()
        while pushes and pushes[0] is not None and rng.random() < 0.5:  # somebody goes on talking meanwhile
            pushes.pop(0)()
            engine.worker.step()
        alone = told.answer(turn.rows(), how)
        if rng.random() < 0.3:
            told.replied(interrupted(engine, session, answer, rng))
            continue
        same_answer(served(engine, answer), alone)
        told.replied(alone[0].text.ids)
    while engine.worker.step():
        pass
    same_pasts(engine.worker.slots[1].session.context, concatenate(told.chain))
    engine.worker.slots.check_pages()
    session.close()
    del beside
    while engine.worker.step() or engine.worker.slots:
        pass
    assert engine.ledger().idle and not engine.worker.idle_faults


def interrupted(engine: Engine, session: LiveSession, answer: Answer, rng: random.Random) -> list[int]:
    """Cancel after some steps, and perhaps keep only what was heard; returns the ids that stay in the conversation."""
    made, _ = served(engine, answer, rng.randrange(30))
    session.cancel()
    engine.worker.step()
    ids = list(made.text.ids) if made is not None else []
    if session._terms.settings.voice is None or rng.random() < 0.5:
        return ids
    kept = session.truncate(rng.random() * answer.record.samples / 24000)
    engine.worker.step()
    assert answer.record.text.startswith(kept)
    return ids[: tokens_within(MODELS.tokenizer, ids, len(kept))]


def test_nothing_that_was_heard_is_read_again() -> None:
    """Only the last block is left at the end of a turn, and of earlier turns nothing, whatever their media."""
    engine = Engine(MODELS)
    session, read = LiveSession(engine, FORMATTER, terms()), []
    for turn in range(4):
        for place in range(100):
            session.push_audio(media.noise(1600, seed=turn), 16000)
            if turn % 2:
                session.push_frame(media.picture(56, 56, seed=turn), at=place / 10)
            engine.worker.step()
        _, events = served(engine, session.respond())
        end = events[-1]
        assert isinstance(end, Finished)
        read.append(end.usage.prefilled_tokens)
        assert end.usage.prompt_tokens > 250 * (turn + 1)
    assert max(read) <= 50 + 25, read  # a block, and the texts behind it


def test_a_louder_moment_is_heard_before_the_answer() -> None:
    """The floor of the features hangs on the loudest moment: what it changes is read again, and only that."""
    engine, told = Engine(MODELS), Told()
    session = LiveSession(engine, FORMATTER, terms())
    faint, loud = 1e-4 * media.noise(96000), media.noise(8000, seed=1)
    turn = Turn(["sound", "sound"], [faint, loud], [], [])
    for push in turn.pushes(session):
        push()
        for _ in range(30):
            engine.worker.step()
    answer = session.respond()
    made = served(engine, answer)
    same_answer(made, told.answer(turn.rows(), terms()))
    assert made[0] is not None
    assert made[0].context.tokens.spans[0].source.digest == told.chain[-1].spans[0].source.digest


def test_the_oldest_turns_make_room() -> None:
    """The rest is as if they had never been, positions included; an event says how many."""
    engine, how, told = Engine(MODELS), terms(context=150), Told()
    session, dropped = LiveSession(engine, FORMATTER, how), 0
    for number in range(6):
        words = f"turn {number} " + "x" * 20
        session.add(words)
        made = served(engine, session.respond())
        for event in made[1]:
            if isinstance(event, Progress) and event.stage == "dropped":
                del told.chain[1 : 1 + 2 * event.done]
                dropped += event.done
        alone = told.answer(typed(words), how)
        same_answer(made, alone)
        told.replied(alone[0].text.ids)
        assert made[0] is not None and len(made[0].context.tokens) <= 150
    assert dropped


def test_a_full_context_may_refuse_and_goes_on() -> None:
    engine, how, told = Engine(MODELS), terms(context=150, drop=False), Told()
    session = LiveSession(engine, FORMATTER, how)
    for number, count in enumerate((60, 60, 1)):
        session.add("x" * count)
        answer = session.respond()
        if number == 1:
            with pytest.raises(SessionError, match="fit a context of 150 tokens after 1 turns"):
                served(engine, answer)
            told.turns += 1
            continue
        alone = told.answer(typed("x" * count), how)
        same_answer(served(engine, answer), alone)
        told.replied(alone[0].text.ids)


def test_who_listens_gives_way_to_who_is_answered_and_is_read_again() -> None:
    engine, how, told = Engine(MODELS, Limits(tokens=200, talker_tokens=200)), terms(), Told()
    session = LiveSession(engine, FORMATTER, how)
    session.add("x" * 90)
    while engine.worker.step():
        pass
    assert engine.ledger().thinker_pages >= 6
    visitor = engine.submit(rig.request("y" * 130, speech=SPEECH))
    engine.worker.step()
    assert engine.ledger().thinker_pages < 10 and not engine.worker.slots[1].can_read
    answer = session.respond()
    served(engine, visitor)
    same_answer(served(engine, answer), told.answer(typed("x" * 90), how))


def test_the_same_beginning_is_read_once() -> None:
    """By another session of the same tenant; not by one of another tenant."""
    engine, long = Engine(MODELS), "a question with a long beginning, "
    first = served(engine, engine.submit(rig.request(long + "one", speech=SPEECH)))
    for tenant, most in (("", 20), ("other", 10**6)):
        request = rig.request(long + "two", speech=SPEECH, tenant=tenant)
        made = served(engine, engine.submit(request))
        alone = Engine(MODELS)
        same_answer(made, served(alone, alone.submit(request)))  # type: ignore[arg-type]
        assert made[0] is not None and (made[0].prefilled <= most) and (tenant == "" or made[0].prefilled > 30)
    assert first[0] is not None and engine.worker.stages.stores.thinker.remembered > 0 and engine.ledger().idle


def test_what_was_heard_is_what_stays() -> None:
    engine, told = Engine(MODELS), Told()
    session = LiveSession(engine, FORMATTER, terms())
    session.add("sing")
    answer = session.respond()
    made, _ = served(engine, answer)
    record = answer.record
    assert made is not None and record.complete
    kept = session.truncate(0.6 * record.samples / 24000)
    assert kept == record.text[: spoken_prefix(record.text, 0.6, spoken=1.0)]
    engine.worker.step()
    told.answer(typed("sing"), terms())
    told.replied(made.text.ids[: tokens_within(MODELS.tokenizer, made.text.ids, len(kept))])
    while engine.worker.step():
        pass
    same_pasts(engine.worker.slots[1].session.context, concatenate(told.chain))
