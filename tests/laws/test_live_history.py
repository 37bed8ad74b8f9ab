"""Messages can be put in anywhere, taken out and cut at any time: the answers are those of what then stands there."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from descant.engine.engine import Engine
from descant.engine.live import LiveSession
from descant.engine.session import Request
from descant.errors import OptionError, SessionError
from descant.tokens import PromptTokens, concatenate, text_tokens
from descant.types import Finished, Message, assistant, system, user
from tests.engine.alone import run, stages_for
from tests.inputs import media
from tests.laws.test_live import FORMATTER, MODELS, same_answer, same_pasts, served, terms

SCHEDULES = 30


@dataclass
class Written:
    """What must stand in the conversation: (key, tokens) in order."""

    system: PromptTokens = field(default_factory=lambda: FORMATTER.system("be kind", speech=True))
    said: list[tuple[int, PromptTokens]] = field(default_factory=list)

    def chain(self) -> list[PromptTokens]:
        return [self.system, *(tokens for _, tokens in self.said)]

    def reply(self, key: int, ids: list[int]) -> None:
        self.said.append((key, concatenate([FORMATTER.opening(), text_tokens(ids), FORMATTER.closing()])))


def drawn_message(rng: random.Random) -> Message:
    words = rng.choice(["hello", "what is it?", "and \n so", "<|im_end|>"])
    made = rng.choice([user, assistant, system])
    return made(words)


def change(rng: random.Random, live: LiveSession, written: Written) -> None:
    """One change, in the session and on paper."""
    keys = [key for key, _ in written.said]
    match rng.choice(["insert", "insert", "commit", "remove", "instruct", "step"]):
        case "insert":
            message = drawn_message(rng)
            after = rng.choice([None, 0, *keys])
            place = len(keys) if after is None else 0 if after == 0 else keys.index(after) + 1
            key = live.insert(message, after)
            written.said.insert(place, (key, FORMATTER.message(message.role, message.content)))
        case "commit":
            turn = FORMATTER.turn()
            sound = media.noise(rng.randrange(2000, 40000), seed=rng.randrange(99))
            for to in (live, turn):
                to.push_audio(sound, 16000)
            written.said.append((live.commit(), turn.finish(generate=False)))
        case "remove" if keys:
            key = rng.choice(keys)
            live.remove(key)
            written.said = [entry for entry in written.said if entry[0] != key]
        case "instruct":
            words = rng.choice(["be brief", "sing"])
            live.instruct(words)
            written.system = FORMATTER.system(words, speech=True)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_is_changed_and_when_the_answers_are_those_of_what_stands_there(seed: int) -> None:
    """Changes come while an answer is made, too: they wait until it has ended."""
    rng = random.Random(seed)
    engine, how, written = Engine(MODELS), terms(), Written()
    live = LiveSession(engine, FORMATTER, how)
    for turn in range(3):
        for _ in range(rng.randrange(4)):
            change(rng, live, written)
            for _ in range(rng.randrange(3)):
                engine.worker.step()
        once = rng.choice([None, "once only"])
        spoken = rng.random() < 0.7
        answer = live.respond(go_on=True, instructions=once, speech=spoken)
        before = written.system if once is None else FORMATTER.system(once, speech=True)
        prompt = concatenate([before, *written.chain()[1:], FORMATTER.opening()])
        settings = live._settings(None, None, None, speech=spoken)
        settings = type(settings)(**{**vars(settings), "seed": turn})
        stages = stages_for(MODELS)
        alone = stages.open(Request(prompt, settings))
        events = list(run(stages, alone))
        later = Written(written.system, list(written.said))
        later.reply(answer.number, alone.text.ids)
        for _ in range(rng.randrange(3)):  # of changes that come meanwhile
            engine.worker.step()
            change(rng, live, later)
        same_answer(served(engine, answer), (alone, events))
        written = later
    while engine.worker.step():
        pass
    same_pasts(engine.worker.slots[1].session.context, concatenate(written.chain()))
    engine.worker.slots.check_pages()
    live.close()
    while engine.worker.step() or engine.worker.slots:
        pass
    assert engine.ledger().idle and not engine.worker.idle_faults


def test_an_answer_beside_the_conversation_leaves_it_as_it_is() -> None:
    engine = Engine(MODELS)
    live = LiveSession(engine, FORMATTER, terms())
    key = live.insert(user("hello"))
    first = served(engine, live.respond(go_on=True))
    beside = [live.respond_beside([key, user("and now?")], instructions="be brief"), live.respond_beside([])]
    prompt = [FORMATTER.message("user", user(words).content) for words in ("hello", "and now?")]
    chain = [FORMATTER.system("be brief", speech=True), *prompt, FORMATTER.opening()]
    stages = stages_for(MODELS)
    alone = stages.open(Request(concatenate(chain), live._settings(None, None, None, speech=True)))
    events = list(run(stages, alone))
    same_answer(served(engine, beside[0]), (alone, events))
    assert isinstance(served(engine, beside[1])[1][-1], Finished)
    while engine.worker.step():
        pass
    assert first[0] is not None
    stays = Written()
    stays.said = [(key, prompt[0])]
    stays.reply(1, first[0].text.ids)
    same_pasts(engine.worker.slots[1].session.context, concatenate(stays.chain()))


def test_what_is_taken_back_was_never_said() -> None:
    engine = Engine(MODELS)
    live = LiveSession(engine, FORMATTER, terms())
    stays = Written()
    said = iter(["hello", "never mind", "and now?"])
    for undone in (False, True, False):
        before = live.keys
        live.add(words := next(said))
        made, _ = served(engine, live.respond())
        assert made is not None and live.keys[: len(before)] == before and len(live.keys) == len(before) + 2
        if undone:
            for key in reversed(live.keys[len(before) :]):
                live.remove(key)
        else:
            stays.said.append((live.keys[-2], FORMATTER.message("user", user(words).content)))
            stays.reply(live.keys[-1], made.text.ids)
    while engine.worker.step():
        pass
    (slot,) = engine.worker.slots.values()
    same_pasts(slot.session.context, concatenate(stays.chain()))
    assert list(live.keys) == [key for key, _ in stays.said]


def test_any_answer_can_be_cut_to_what_was_heard() -> None:
    engine = Engine(MODELS)
    live = LiveSession(engine, FORMATTER, terms())
    keys = []
    for words in ("one", "two"):
        live.insert(user(words))
        answer = live.respond(go_on=True)
        served(engine, answer)
        keys.append(answer.number)
    assert live.truncate(0.0, keys[0]) == ""
    while engine.worker.step():
        pass
    conversation = engine.worker.slots[1].conversation
    assert conversation is not None
    assert [len(entry.ids) > 0 for entry in conversation.settled if entry.ids is not None] == [False, True]


def test_what_is_not_there_is_told() -> None:
    engine = Engine(MODELS)
    live = LiveSession(engine, FORMATTER, terms())
    for act in (
        lambda: live.remove(7),
        lambda: live.remove(0),
        lambda: live.insert(user("x"), 7),
        lambda: live.truncate(1.0, 7),
        lambda: live.instruct("x" * 40_000),
    ):
        with pytest.raises((OptionError, SessionError)):
            act()
    with pytest.raises(SessionError, match="not held any more"):
        live.respond_beside([7])
    assert live.insert(user("still here"))


def test_a_session_begins_with_all_that_was_said_in_another() -> None:
    engine = Engine(MODELS)
    before = LiveSession(engine, FORMATTER, terms(spoken=False))
    first = before.insert(user("hello"))
    made, _ = served(engine, before.respond(go_on=True))
    before.push_audio(media.noise(20000), 16000)
    before.commit()
    gone = before.insert(user("never mind"))
    before.remove(gone)
    after = LiveSession(engine, FORMATTER, terms())
    after.begin_with(before)
    before.close()
    after.remove(first)
    while engine.worker.step():
        pass
    turn = FORMATTER.turn()
    turn.push_audio(media.noise(20000), 16000)
    assert made is not None
    said = assistant(MODELS.tokenizer.decode(made.text.ids))
    chain = [Written().system, FORMATTER.message("assistant", said.content), turn.finish(generate=False)]
    (slot,) = engine.worker.slots.values()
    same_pasts(slot.session.context, concatenate(chain))
    with pytest.raises(SessionError):
        after.begin_with(before)
