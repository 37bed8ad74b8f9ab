"""Live sessions on an engine of random weights, driven step by step; and what must hold of an engine at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from descant.config import InputsConfig
from descant.engine.answer import Answer, AnswerItem
from descant.engine.engine import Engine
from descant.engine.live import LiveSession
from descant.engine.session import Request, SessionTerms
from descant.inputs.prompt import PromptBuilder
from descant.inputs.turn import TurnFormatter
from descant.tokens import concatenate
from descant.types import AudioChunk, Budget, Finished, Sampling
from tests.engine import rig
from tests.engine.alone import stream
from tests.inputs import media

MODELS = rig.models()
INPUTS = InputsConfig(feature_size=8, video_min_pixels=3136, video_max_pixels=3136, max_frames=6)
FORMATTER = TurnFormatter(PromptBuilder(rig.TOKENIZER, INPUTS, MODELS.thinker.cfg))
SPEECH = Sampling(repetition_penalty=1.05, max_tokens=16)
NOISE = media.noise(32000)
GREY = media.grey_frames([9], 56, 56)[0]
PATIENCE = 5000  # steps after which an answer is said to hang


def terms(*, context: int = 4000, drop: bool = True, spoken: bool = True, seed: int = 0) -> SessionTerms:
    """Greedy answers of at most 12 tokens and 16 codes; a turn of at most 2 s of sound."""
    settings = rig.settings(speech=SPEECH, seed=seed, **({} if spoken else {"voice": None}))
    return SessionTerms(settings, "be kind", context, drop, Budget(audio_s=2.0))


def opened(engine: Engine, how: SessionTerms | None = None) -> LiveSession:
    return LiveSession(engine, FORMATTER, how or terms())


@dataclass
class Said:
    """What came of an answer. error: what it ended with, if it failed."""

    text: str
    sound: np.ndarray
    whole: bool
    error: Exception | None


def said(items: list[AnswerItem]) -> Said:
    sound = [item.samples for item in items if isinstance(item, AudioChunk)]
    end = next((item for item in items if isinstance(item, Finished)), None)
    error = next((item for item in items if isinstance(item, Exception)), None)
    whole = np.concatenate([np.zeros(0, np.float32), *sound])
    return Said(end.text if end else "", whole, end is not None, error)


def served(engine: Engine, *answers: Answer) -> list[Said]:
    """Steps until all are over, and what came of each; everybody takes what there is."""
    items: list[list[AnswerItem]] = [[] for _ in answers]
    for _ in range(PATIENCE):
        for answer, taken in zip(answers, items, strict=True):
            while not answer.events.empty():
                taken.append(answer.events.get())
        if all(answer.record.over and answer.events.empty() for answer in answers):
            return [said(taken) for taken in items]
        engine.worker.step()
    raise AssertionError("an answer hangs")


def same(ours: Said, theirs: Said) -> None:
    assert ours.error is None and theirs.error is None and ours.whole and theirs.whole
    assert ours.text == theirs.text
    np.testing.assert_allclose(ours.sound, theirs.sound, atol=1e-4)


def alone(request: Request) -> Said:
    return said(list(stream(MODELS, request)))


def rest(engine: Engine, steps: int = PATIENCE) -> None:
    """Steps until nothing is left to do."""
    for _ in range(steps):
        if not engine.worker.step() and engine.worker.inbox.empty():
            return
    raise AssertionError("the engine does not come to rest")


def sound(engine: Engine) -> None:
    """What must hold between any two steps."""
    engine.worker.slots.check_pages()
    thinker, talker = engine.worker.slots.reserved()
    stores = engine.worker.stages.stores
    assert thinker <= stores.thinker.limit and (stores.talker is None or talker <= stores.talker.limit)
    assert stores.thinker.remembered <= stores.thinker.limit
    for slot in engine.worker.slots.values():
        context = slot.session.context
        assert len(context.thinker_kv.pages) <= slot.reserved[0]
        assert context.talker_kv is None or len(context.talker_kv.pages) <= slot.reserved[1]
        if slot.listens and slot.conversation is not None:
            talk = slot.conversation
            assert context.talker_kv is None or context.behind == len(context.reply_states)
            assert len(talk.settled) % 2 == bool(talk.answering) and talk.replies == len(talk.settled) // 2
            if not talk.answering:
                wanted = concatenate([talk.system, *(entry.tokens for entry in talk.settled), talk.draft])
                assert context.tokens.ids.tolist() == wanted.ids.tolist()


def empty(engine: Engine) -> None:
    """Everybody has gone, and nothing is left of them."""
    rest(engine)
    engine.worker.slots.check_pages()
    assert engine.ledger().idle, engine.ledger()
    assert engine.worker.idle_faults == 0
