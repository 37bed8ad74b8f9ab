"""Static == eager: a step filled up to a bucket reads and writes what the eager step does, on any schedule."""

from __future__ import annotations

import logging
import random
from functools import cache

import pytest
import torch
from torch import Tensor

from descant.engine import graphs
from descant.engine.draws import DrawTable
from descant.engine.engine import Engine
from descant.engine.graphs import DecodeStep, StepMode, StepRow, StepRun
from descant.engine.sampling import Sampler
from descant.model.decoder import Decoder
from descant.nn.cache import Cache
from descant.nn.pages import PageTable
from descant.types import Finished, Sampling
from tests.engine import rig
from tests.engine.alone import stream
from tests.laws.test_engine import counts, finish, same, taken
from tests.laws.test_pages import CFG, Reader, body, feed, fork, rows, store

__all__ = ["body"]


class Made:
    """Makes the plain static step, and counts. As a graph's, its results lie where the next ones will."""

    def __init__(self) -> None:
        self.count = self.runs = 0

    def __call__(self, run: StepRun) -> StepRun:
        self.count += 1

        kept: list[Tensor] = []

        def counted() -> tuple[Tensor, ...]:
            self.runs += 1
            outputs = run()
            kept.extend(out.clone() for out in outputs[len(kept) :])
            return tuple(place.copy_(out) for place, out in zip(kept, outputs, strict=True))

        return counted


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    plain = Made()
    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"compile": plain, "graphs": plain})
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)
    return plain


HOT = (Sampling(), Sampling(1.0), Sampling(0.9, 3, 0.8, 1.3), Sampling(1.2, top_p=0.7))


def stepper(body: Decoder, mode: StepMode = "compile") -> DecodeStep:
    def forward(_: Tensor, states: Tensor | None, positions: Tensor, past: Cache) -> tuple[Tensor, ...]:
        assert states is not None
        hidden = body(states, positions, past)
        return hidden, hidden[:, -1]

    return DecodeStep(forward, DrawTable(CFG.hidden_size, torch.device("cpu"), 16), mode)


def row(table: PageTable, x: Tensor, how: Sampling = HOT[0], seed: int = 0) -> StepRow:
    return StepRow(table, 0, table.length, Sampler(how, seed=seed, prompt=torch.tensor([1, 2]), banned=(3,)), x)


def step(
    run: DecodeStep, body: Decoder, readers: list[Reader], rng: random.Random, how: Sampling | None = None
) -> None:
    x = [rows(1, rng) for _ in readers]
    hows = [(how or rng.choice(HOT), rng.randrange(100)) for _ in readers]
    made = run([row(reader.table, one[0], *how) for reader, one, how in zip(readers, x, hows, strict=True)])
    drawn = DrawTable(CFG.hidden_size, torch.device("cpu"))
    for place, (reader, fresh, drawing) in enumerate(zip(readers, x, hows, strict=True)):
        alone = drawn.draw([row(reader.table, fresh[0], *drawing).sampler], made.logits[place : place + 1])
        assert made.ids[place] == alone
        reader.table.advance(1)
        reader.past = torch.cat((reader.past, fresh))
        reader.check(body, made.outputs[0][place])


def walk(run: DecodeStep, body: Decoder, seed: int, acts: int) -> None:
    rng = random.Random(seed)
    pages, readers = store(size=rng.choice([1, 3, 4, 16])), []
    for _ in range(acts):
        act = rng.choice(["join", "step", "step", "step", "fork", "cut", "leave"])
        if act == "join" or not readers:
            readers.append(Reader(PageTable(pages), torch.empty(0, CFG.hidden_size)))
            feed(body, readers[-1], rows(rng.randrange(1, 12), rng))
        elif act == "step":
            step(run, body, rng.sample(readers, rng.randrange(1, len(readers) + 1)), rng)
        elif act == "fork":
            model = rng.choice(readers)
            readers.append(Reader(fork(model.table), model.past.clone()))
        elif act == "cut":
            reader = rng.choice(readers)
            reader.table.truncate(length := rng.randrange(1, reader.table.length + 1))
            reader.past = reader.past[:length]
        else:
            readers.pop(rng.randrange(len(readers))).table.free()
        pages.check([reader.table for reader in readers])


@pytest.mark.parametrize("seed", range(40))
@torch.no_grad()
def test_any_schedule_is_as_eager(body: Decoder, made: Made, seed: int) -> None:
    walk(run := stepper(body), body, seed, 25)
    assert run.mode == "compile" and made.runs > made.count > 0


@torch.inference_mode()
def test_compiled_is_eager(body: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    compilers = {"compile": lambda run: torch.compile(run, backend="eager", fullgraph=True)}
    monkeypatch.setattr(graphs, "STEP_COMPILERS", compilers)
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)
    walk(run := stepper(body), body, 3, 12)
    assert run.mode == "compile"


@torch.no_grad()
def test_results_outlive_the_next_step(body: Decoder, made: Made) -> None:
    run, table = stepper(body), PageTable(store())
    x = torch.randn(CFG.hidden_size)
    first = run([row(table, x)]).logits
    was = first.clone()
    table.advance(1)
    run([row(table, -x)])
    assert torch.equal(first, was)


@torch.no_grad()
def test_a_bucket_is_made_once_it_was_asked_for_often(
    body: Decoder, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 3)
    rng, pages, run = random.Random(0), store(size=16), stepper(body)
    readers = [Reader(PageTable(pages), torch.empty(0, CFG.hidden_size)) for _ in range(3)]
    for reader in readers:
        feed(body, reader, rows(4, rng))
    for times in range(6):
        assert made.count == (times > 3)
        step(run, body, readers, rng, HOT[2])
    kept = pages.layers[0]
    while pages.layers[0] is kept:  # the store grows: what was made reads the old one
        feed(body, readers[0], rows(16, rng))
    step(run, body, readers, rng, HOT[2])
    assert made.count == 2


@torch.no_grad()
def test_where_nothing_can_be_made_steps_are_eager(
    body: Decoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(run: StepRun) -> StepRun:
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"compile": fails})
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)
    with caplog.at_level(logging.WARNING):
        walk(run := stepper(body), body, 1, 25)
    told = [record.message for record in caplog.records]
    assert told and len(told) == len(run.eager_buckets) and all(line.endswith("no compiler") for line in told)


@torch.no_grad()
def test_what_another_left_in_a_page_poisons_nobody(body: Decoder, made: Made) -> None:
    """A page that was given back may hold what is no number; who has it now has not written all of it."""
    pages, run = store(size=4, limit=3), stepper(body)
    sick = PageTable(pages)
    sick.reserve(12)
    for layer in pages.layers:
        layer[pages.size :] = float("nan")
    sick.free()
    table = PageTable(pages)
    for _ in range(6):
        assert run([row(table, torch.ones(CFG.hidden_size))]).logits.isfinite().all()
        table.advance(1)
    assert made.runs > 0


@torch.no_grad()
def test_a_capture_that_fails_costs_its_bucket_alone(body: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []
    monkeypatch.setattr(graphs, "graph_pool", cache(lambda: pools.append(len(pools)) or pools[-1]))
    plain = Made()

    def fails_for_two(run: StepRun) -> StepRun:
        graphs.graph_pool()
        if len(run()[0]) == 2:
            raise RuntimeError("no graph of two")
        return plain(run)

    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"graphs": fails_for_two})
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)
    rng, pages, run = random.Random(0), store(size=16), stepper(body, "graphs")
    readers = [Reader(PageTable(pages), torch.empty(0, CFG.hidden_size)) for _ in range(4)]
    for reader in readers:
        feed(body, reader, rows(4, rng))
    for count in (1, 2, 2, 4, 2, 1):
        step(run, body, readers[:count], rng, HOT[2])
    assert {bucket.rows for bucket in run.eager_buckets} == {2} and plain.count == 2 and plain.runs == 3 + 2
    assert pools == [0, 1]  # what failed had the first; the others have another


def test_the_engine_says_which_steps_are_eager_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: StepRun) -> StepRun:
        raise RuntimeError("no graph today")

    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"graphs": fails})
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)
    engine = Engine(rig.models(), step_mode="graphs")
    answer = engine.submit(request := rig.request())
    finish(engine)
    same(taken(answer), request)
    assert engine.step_faults[0] == "thinker, 1 rows, 8 pages: RuntimeError: no graph today"
    assert engine.ledger().eager_buckets == len(engine.step_faults) and engine.ledger().idle


def test_an_input_at_fault_does_not_switch_anything_off(body: Decoder, made: Made) -> None:
    run, table = stepper(body), PageTable(store())
    with torch.no_grad(), pytest.raises(RuntimeError):
        run([row(table, torch.ones(CFG.hidden_size + 1))])
    assert not run.eager_buckets and table.length == 0


def test_answers_of_static_steps_are_the_answers(made: Made) -> None:
    plain = rig.models()
    engine = Engine(plain, step_mode="compile")
    requests = [rig.request(f"user: {'hello ' * i}") for i in range(5)]
    answers = [engine.submit(request) for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        finish(engine)
        end, alone = taken(answer)[-1], list(stream(plain, request))[-1]
        assert isinstance(end, Finished) and isinstance(alone, Finished)
        assert (end.text, counts(end)) == (alone.text, counts(alone))
    assert made.count > 2
