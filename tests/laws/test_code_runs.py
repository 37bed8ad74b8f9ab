"""Several codes for one decision of the host: the same codes and the same books as one at a time, and fewer waits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from descant.engine import following, graphs
from descant.engine import stages as stages_module
from descant.engine.answer import Answer
from descant.engine.draws import DrawTable
from descant.engine.engine import Engine
from descant.engine.following import step_on
from descant.engine.graphs import DecodeStep, StepMode, Stepped, StepRow
from descant.engine.limits import Limits
from descant.engine.sampling import Sampler
from descant.engine.scheduler import SchedulerConfig, SlotView, plan_step
from descant.engine.session import Request, Session, SpeechPhase
from descant.engine.slot import Slot
from descant.engine.stages import Stages
from descant.model.decoder import Decoder
from descant.nn.cache import Cache
from descant.nn.pages import PageTable
from descant.types import Event, Sampling, TextDelta
from tests.engine import rig
from tests.engine.alone import stages_for
from tests.graph import Crossings, recorded
from tests.laws.test_engine import MODELS, a_request, finish, same, taken
from tests.laws.test_faults import heard, run
from tests.laws.test_pages import CFG, body, store

__all__ = ["body"]
STOPPING = replace(MODELS, stop_codes=MODELS.stop_codes | {34})  # voices end in the middle of a run
DRAWN = Sampling(1.0, 6, 0.9, 1.3, max_tokens=40)  # what was sung before matters: no two draws of a seed are alike


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes of each run."""
    lengths: list[int] = []

    def noted(step: DecodeStep, rows: Sequence[StepRow], states: Sequence[Sequence[Tensor]]) -> list[Stepped]:
        lengths.append(1 + len(states))
        return step_on(step, rows, states)

    monkeypatch.setattr(stages_module, "step_on", noted)
    return lengths


@pytest.mark.parametrize("seed", range(12))
def test_any_run_of_codes_gives_every_answer_as_if_sung_one_by_one(seed: int, runs: list[int]) -> None:
    rng = random.Random(seed)
    config = SchedulerConfig(code_run=rng.choice([2, 5, 30]), hold_codes=rng.choice([0, 4]))
    engine = Engine(MODELS, Limits(2000, 2000, sessions=3, page=rng.choice([1, 4, 16]), scheduler=config))
    asked: list[tuple[Request, Answer]] = []
    for _ in range(80):
        if len(asked) < 5 and rng.random() < 0.2:
            asked.append((request := a_request(rng), engine.submit(request)))
        engine.worker.step()
        engine.worker.slots.check_pages()
    finish(engine)
    assert max(runs) > 1 and engine.ledger().idle
    for request, answer in asked:
        same(taken(answer), request)


def opened(stages: Stages, count: int, codes: int = 40) -> list[Session]:
    speech = replace(DRAWN, max_tokens=codes)
    return [stages.open(rig.request(f"number {n}", seed=n, speech=speech)) for n in range(count)]


def books(session: Session) -> tuple[list[int], bool, *tuple[object, ...]]:
    """All that is counted of a voice that has sung its last code."""
    speech = session.speech
    assert speech is not None and not speech.singing
    kv, sampler = speech.kv, speech.sampler
    return speech.codes, speech.cut, kv.length, len(kv.pages), sampler.step, sampler.last, speech.phase


@pytest.mark.parametrize("limit", [40, 17])
@pytest.mark.parametrize("codes", [2, 7, 40])
@torch.inference_mode()
def test_what_is_sung_behind_the_end_leaves_no_trace(codes: int, limit: int, runs: list[int]) -> None:
    found = []
    for most in (1, codes):
        stages = stages_for(STOPPING)
        sessions = opened(stages, 4, limit)
        stages.read({session: session.context.unread for session in sessions})
        booked = {}
        for _ in range(200):
            stages.think(sessions)
            stages.talk(sessions, most)
            stages.settle(sessions)
            for number, session in enumerate(sessions):
                if number not in booked and session.speech is not None and not session.speech.singing:
                    booked[number] = books(session)
        found.append([booked[number] for number in range(4)])
        stages.stores.talker.check([session.context.talker_kv for session in sessions])  # type: ignore[union-attr, misc]
    assert found[0] == found[1] and max(runs) > 1
    ends = [(len(codes), cut) for codes, cut, *_ in found[0]]
    assert len(set(ends)) > 1, "all end in one step, as if they were one"


class Talk:
    """Three streams of one decoder, at their beginning."""

    def __init__(self, body: Decoder, mode: StepMode, seed: int = 0):
        draw = torch.Generator().manual_seed(seed)
        embeds = torch.randn(CFG.hidden_size, CFG.hidden_size, generator=draw)
        self.states = torch.randn(7, 3, CFG.hidden_size, generator=draw)
        pages = store(size=4)
        self.tables = [PageTable(pages) for _ in range(3)]
        self.samplers = [Sampler(DRAWN, seed=seed, prompt=torch.tensor([1])) for seed in range(3)]

        def forward(tokens: Tensor, states: Tensor | None, positions: Tensor, past: Cache) -> tuple[Tensor, ...]:
            assert states is not None
            hidden = body(states + F.embedding(tokens, embeds), positions, past)
            return hidden, hidden[:, -1]

        self.step = DecodeStep(forward, DrawTable(CFG.hidden_size, torch.device("cpu")), mode)

    def rows(self, n: int) -> list[StepRow]:
        parts = zip(self.tables, self.samplers, self.states[n], strict=True)
        return [StepRow(table, one.last or 0, n, one, state) for table, one, state in parts]

    def one_by_one(self) -> list[Stepped]:
        made = []
        for n in range(7):
            made.append(self.step(self.rows(n)))
            for table, sampler, index in zip(self.tables, self.samplers, made[-1].ids.tolist(), strict=True):
                table.advance(1)
                sampler.keep(index)
        return made


@torch.no_grad()
@pytest.mark.parametrize("mode", ["off", "graphs"])
def test_steps_that_follow_each_other_are_the_steps(
    mode: StepMode, body: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And made twice they are the same: nothing of the first time is left."""
    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"graphs": recorded})
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)
    wanted, talk = Talk(body, mode).one_by_one(), Talk(body, mode)
    for _ in range(2):
        made = step_on(talk.step, talk.rows(0), list(talk.states[1:]))
        assert [one.ids.tolist() for one in made] == [one.ids.tolist() for one in wanted]
        for one, alone in zip(made, wanted, strict=True):
            torch.testing.assert_close(one.logits, alone.logits, rtol=1e-4, atol=1e-4)
        assert bool(talk.step._made) is (mode == "graphs") and not talk.step.eager_buckets
        assert not any(table.length for table in talk.tables) and not any(one.step for one in talk.samplers)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_run_that_fails_half_way_is_made_again(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is harmed where each alone fits: not by what was drawn before the fault, nor by what was written."""
    stages = stages_for(MODELS)
    wanted = [heard(events) for events in run(stages, opened(stages, size))]
    stages = stages_for(MODELS)
    sessions = opened(stages, size)
    real = DecodeStep.__call__
    later = 0

    def full(self: DecodeStep, rows: Sequence[StepRow], drawn: Tensor | None = None) -> Stepped:
        nonlocal later
        later += drawn is not None
        if drawn is not None and later % 3 == 0 and len(rows) == size > 1:
            raise torch.OutOfMemoryError("no room for so many")
        return real(self, rows, drawn)

    monkeypatch.setattr(DecodeStep, "__call__", full)
    events = run(stages, sessions, codes=5)
    assert later > 3
    for session, got, want in zip(sessions, events, wanted, strict=True):
        assert session.error is None
        assert heard(got)[0] == want[0]
        torch.testing.assert_close(torch.tensor(heard(got)[1]), torch.tensor(want[1]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_scores_that_are_no_numbers_in_the_middle_of_a_run_end_one_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = stages_for(MODELS)
    sick, well = opened(stages, 2)
    real = following.step_on

    def broken(step: DecodeStep, rows: Sequence[StepRow], states: Sequence[Sequence[Tensor]]) -> list[Stepped]:
        spoiled = [[row.sampler is sick.speech.sampler for row in rows]]  # type: ignore[union-attr]
        nan = [[x * float("nan") if bad and n == 1 else x for x, bad in zip(more, spoiled[0], strict=True)]
               for n, more in enumerate(states)]  # fmt: skip
        return real(step, rows, nan)

    monkeypatch.setattr(stages_module, "step_on", broken)
    _, events = run(stages, [sick, well], codes=5)
    assert "not numbers" in str(sick.error) and well.error is None
    fresh = stages_for(MODELS)
    monkeypatch.setattr(stages_module, "step_on", real)
    wanted = run(fresh, opened(fresh, 2))[1]
    assert heard(events)[0] == heard(wanted)[0]
    torch.testing.assert_close(torch.tensor(heard(events)[1]), torch.tensor(heard(wanted)[1]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_host_waits_once_for_a_run() -> None:
    for codes in (1, 6):
        stages = stages_for(MODELS)
        sessions = opened(stages, 3)
        stages.read({session: session.context.unread for session in sessions})
        while any(s.speech is None or s.speech.phase is not SpeechPhase.PADDING or s.speech.states for s in sessions):
            stages.think(sessions)
            stages.talk(sessions)
            stages.settle(sessions)
        before = [len(session.speech.codes) for session in sessions if session.speech is not None]
        with Crossings() as crossed:
            stages.talk(sessions, codes)
            assert not crossed.fetched
            stages.settle(sessions)
        after = [len(session.speech.codes) for session in sessions if session.speech is not None]
        assert crossed.fetched.total() == 1
        assert max(after) - max(before) == codes or any(not s.speech.singing for s in sessions if s.speech)


def voice(number: int, missing: int | None, **more: object) -> SlotView:
    return SlotView(number, (False, number), 0, talks=True, missing_codes=missing, unplayed_s=0.5, **more)  # type: ignore[arg-type]


def test_codes_are_run_where_nobody_waits() -> None:
    config = SchedulerConfig(code_run=8)
    assert plan_step([voice(1, 12), voice(2, 20)], config).codes == 8
    assert plan_step([voice(1, 3), voice(2, 20)], config).codes == 3  # a window is complete then, and is decoded
    assert plan_step([voice(1, 12), voice(2, 0, decodes=True)], config).codes == 1  # a window is due
    assert plan_step([voice(1, 12), SlotView(2, (False, 2), 0, decodes=True)], config).codes == 1  # the end of a voice
    assert plan_step([voice(1, 12, decodes=True)], config).codes == 8  # only told of its codes
    assert plan_step([voice(1, 12), SlotView(2, (False, 2), 0, thinks=True)], config).codes == 1
    assert plan_step([voice(1, 12), SlotView(2, (True, 2), 5)], config).codes == 1
    assert plan_step([voice(1, 12)], SchedulerConfig()).codes == 1
    assert plan_step([], config).codes == 1


def test_a_step_launches_then_tells_then_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word leaves while both decoders are at work; then the host waits for what they draw, once."""
    order: list[str] = []
    real_step, real_hand, real_ids = DecodeStep.__call__, Slot.hand, stages_module.drawn_ids

    def launch(self: DecodeStep, *arguments: Any) -> Stepped:
        order.append("launch")
        return real_step(self, *arguments)

    def hand(self: Slot, event: Event) -> None:
        order.extend(["tell"] * isinstance(event, TextDelta))
        real_hand(self, event)

    def wait(sessions: Sequence[Session]) -> list[list[list[int]]]:
        order.append("wait")
        return real_ids(sessions)

    monkeypatch.setattr(DecodeStep, "__call__", launch)
    monkeypatch.setattr(Slot, "hand", hand)
    monkeypatch.setattr(stages_module, "drawn_ids", wait)
    engine = Engine(MODELS)
    answers = [engine.submit(rig.request("go")) for _ in range(2)]
    steps = []
    for _ in range(60):
        order.clear()
        engine.worker.step()
        steps.append(tuple(order))
    assert ("launch", "launch", "tell", "tell", "wait") in steps
    assert not any("launch" in step[step.index("tell") :] for step in steps if "tell" in step)
    assert all(step.count("wait") <= 1 for step in steps)
    finish(engine)
    for answer in answers:
        same(taken(answer), rig.request("go"))
