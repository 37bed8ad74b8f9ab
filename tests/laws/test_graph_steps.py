"""What is captured can be captured: a step's replay is the step, nothing enters or leaves it, and it stays cheap."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import descant
from descant.config import BigVGANConfig, OmniConfig
from descant.engine import graphs, regions, worker
from descant.engine.engine import Engine
from descant.engine.graphs import Bucket, DecodeStep, DecodeSteps, StepBuffers, StepMode, StepRow
from descant.engine.limits import Limits
from descant.engine.models import new_stores
from descant.engine.sampling import Sampler
from descant.engine.session import Phase
from descant.model import decoder
from descant.model.decoder import Decoder
from descant.model.dit import DiT
from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.model.vocoder import BigVGAN
from descant.nn import linear
from descant.nn.init import shapes_only
from descant.nn.kernels import Operation
from descant.nn.norm import RMSNorm, scalar, weighted
from descant.nn.pages import PageStore, PageTable
from descant.nn.prepare import prepare
from descant.nn.rope import followed_frequencies
from descant.types import Sampling
from descant.weights.configfile import read_config
from tests.engine import rig
from tests.graph import POISON, Count, Crossings, Run, Sealed, recorded
from tests.laws.test_engine import a_request, finish, same, taken
from tests.laws.test_graphs import Made, stepper, walk
from tests.laws.test_pages import body

__all__ = ["body"]
DATA = Path(__file__).parents[1] / "data"
# The kernels of one step at the official shapes. Whoever needs another number of them writes it here, and says why.
BUDGETS = {
    ("7b", "thinker"): 368,
    ("3b", "thinker"): 448,
    ("7b", "talker"): 305,
    ("7b", "dit"): 296,
    ("7b", "vocoder"): 309,
}


def as_graphs(monkeypatch: pytest.MonkeyPatch, make: Callable[[Run], Run] = recorded) -> None:
    """Steps of every bucket are captured at once, by ``make``."""
    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"graphs": make})
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 0)


# ------------------------------------------------------------ what is replayed is the step


@pytest.fixture(params=["gathered", "in place"])
def in_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once as without kernels, and once as with them: each is one operation then, whose twin works on the CPU."""
    if request.param == "in place":
        monkeypatch.setattr(Operation, "fits", lambda self, x: not torch.is_grad_enabled())
    return request.param == "in place"


@pytest.mark.parametrize("seed", range(20))
@torch.no_grad()
def test_a_replayed_step_is_the_step(body: Decoder, monkeypatch: pytest.MonkeyPatch, in_place: bool, seed: int) -> None:
    as_graphs(monkeypatch)
    walk(run := stepper(body, "graphs"), body, seed, 25)
    assert not run.eager_buckets
    if in_place:  # rows alone tell the buckets of a store apart, which may have grown
        assert all(bucket.pages == 400 for bucket in run._made)


@torch.no_grad()
def test_a_step_that_remembers_python_is_told_apart(body: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law can fail: a run whose numbers Python chose while it was captured gives them again for ever."""
    real, calls = StepBuffers.run, iter(range(1000))

    def forgets(self: StepBuffers) -> tuple[Tensor, ...]:
        return tuple(out + (next(calls) > 0) for out in real(self))

    as_graphs(monkeypatch)
    monkeypatch.setattr(StepBuffers, "run", forgets)
    with pytest.raises(AssertionError):
        walk(stepper(body, "graphs"), body, 0, 25)


def own_key_by_scalar(x: Tensor) -> Tensor:
    x[-1] = 1.0
    return x


BROKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a host scalar at an index": own_key_by_scalar,
    "a tensor made on the host": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "a value that is read": lambda x: x * float(x.sum()),
    "a branch on a value": lambda x: x if bool(x.any()) else -x,
    "a shape that follows a value": lambda x: x.nonzero().float(),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_capture_refuses_what_waits_for_the_host(fault: str) -> None:
    buffer = torch.arange(3.0)
    with pytest.raises(RuntimeError, match="not permitted"):
        recorded(lambda: (BROKEN[fault](buffer),))
    with Sealed([buffer]) as sealed:
        BROKEN[fault](buffer)
    assert sealed.found


def test_the_seal_finds_what_comes_from_outside() -> None:
    buffer, stranger = torch.arange(3.0), torch.ones(3)
    with Sealed([buffer]) as sealed:
        (buffer.mul(2) + 1).sum()
    assert sealed.found == []
    with Sealed([buffer]) as sealed:
        buffer + stranger
    assert "from outside" in sealed.found[0]


def test_outputs_are_poisoned_between_replays() -> None:
    out, source = torch.zeros(2), torch.ones(2)
    replay = recorded(lambda: (out.add_(source),))  # reads its own last output, which nobody keeps for it
    assert replay()[0].tolist() == [POISON + 1] * 2


# ------------------------------------------------------------ nothing enters a step, and nothing leaves it


@pytest.mark.parametrize("where", ["thinker", "talker"])
@torch.inference_mode()
def test_a_step_is_sealed(where: str, in_place: bool) -> None:
    models = rig.models()
    assert models.talker is not None
    steps = DecodeSteps(models.thinker, models.talker, "off")
    body = models.thinker.decoder if where == "thinker" else models.talker.decoder
    table = PageTable(page_store(body))
    table.reserve(5)
    table.advance(4)
    step = steps.thinker if where == "thinker" else steps.talker
    state = torch.randn(16) if where == "talker" else None
    sampler = Sampler(Sampling(0.9, 5, 0.8, 1.1), prompt=torch.tensor([1, 2]), banned=(3,))
    row = StepRow(table, 7, 4, sampler, state)
    step.draws.row(sampler)
    buffers = StepBuffers(step, table.store, Bucket(4, 8), state)
    with Crossings() as crossed:
        buffers.fill([row], step.draws)
    assert crossed.sent.total() == 1 and not crossed.fetched
    buffers.run()  # what is made once and kept is there now
    weights = [*models.thinker.parameters(), *models.talker.parameters()]
    ours = [buffers.given, buffers.seen, buffers.banned, *buffers.layers]
    ours += [] if buffers.states is None else [buffers.states]
    with Sealed([*weights, *ours, *kept_constants(body)]) as sealed:
        buffers.run()
    assert sealed.found == []


def page_store(decoder: Decoder, like: Tensor | None = None) -> PageStore:
    cfg = decoder.cfg
    like = torch.ones(1) if like is None else like
    return PageStore(cfg.num_hidden_layers, cfg.num_key_value_heads, cfg.head_dim, size=16, limit=40, like=like)


def kept_constants(body: Decoder) -> list[Tensor]:
    """The constants that norms and positions keep."""
    cfg, cpu = body.cfg, torch.device("cpu")
    norms = [scalar(norm.eps, device=cpu) for norm in body.modules() if isinstance(norm, RMSNorm)]
    return norms + [*followed_frequencies(cfg.head_dim, cfg.rope_theta, cfg.mrope_section, cpu)]


# ------------------------------------------------------------ what a step costs


@cache
def official(shape: str) -> OmniConfig:
    return read_config(DATA / shape)


def one_kernel(q: Tensor, *_: object, **__: object) -> Tensor:
    """Attention, as one kernel: on the meta device torch would take it apart."""
    return torch.empty_like(q).copy_(q)


def step_kernels(step: DecodeStep, decoder: Decoder, state: Tensor | None) -> Count:
    like = torch.empty(1, dtype=torch.bfloat16, device="meta")
    buffers = StepBuffers(step, page_store(decoder, like), Bucket(1, 8), state)
    buffers.run()  # what is made once and kept is there now
    with Count() as count:
        buffers.run()
    return count


def thinker_kernels(shape: str) -> Count:
    cfg = official(shape).thinker
    with shapes_only():
        thinker = Thinker(cfg).to(torch.bfloat16)
    prepare(thinker)
    return step_kernels(DecodeSteps(thinker, None, "off").thinker, thinker.decoder, None)


def talker_kernels(shape: str) -> Count:
    cfg = official(shape).talker
    with shapes_only():
        talker = Talker(cfg).to(torch.bfloat16)
    prepare(talker)
    with shapes_only():
        thinker = Thinker(rig.thinker_config())
    state = torch.empty(cfg.decoder.embedding_size, dtype=torch.bfloat16, device="meta")
    return step_kernels(DecodeSteps(thinker, talker, "off").talker, talker.decoder, state)


def dit_kernels(shape: str) -> Count:
    """One evaluation of a window of two blocks, with one before it."""
    cfg = official(shape).token2wav.dit
    with shapes_only():
        dit = DiT(cfg)
    prepare(dit)
    frames = 2 * cfg.block_size
    with torch.device("meta"):
        x, condition = torch.empty(2, frames, cfg.mel_dim), torch.empty(2, frames, cfg.hidden_size)
        times = dit.times(torch.empty(1))
        width = cfg.num_attention_heads * cfg.head_dim
        angles = dit.window_angles(frames, x.device, follows=True)
        past = torch.empty(len(cfg.look_backward_layers), 2, cfg.block_size, 2, width)
    with Count() as count:
        dit.window(x, times, condition, angles, past, 0)
    return count


def vocoder_kernels(shape: str) -> Count:
    cfg = official(shape).token2wav.vocoder
    assert isinstance(cfg, BigVGANConfig)
    with shapes_only():
        vocoder = BigVGAN(cfg)
    prepare(vocoder)
    vocoder(torch.empty(1, cfg.mel_dim, 58, device="meta"), 34, 58)  # what is made once and kept is there now
    with Count() as count:
        vocoder(torch.empty(1, cfg.mel_dim, 58, device="meta"), 34, 58)
    return count


COUNTS: dict[str, Callable[[str], Count]] = {
    "thinker": thinker_kernels,
    "talker": talker_kernels,
    "dit": dit_kernels,
    "vocoder": vocoder_kernels,
}


@pytest.mark.parametrize(("shape", "part"), BUDGETS)
@torch.inference_mode()
def test_the_kernels_of_a_step_are_within_their_budget(shape: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", one_kernel)
    count = COUNTS[part](shape)
    assert count.total == BUDGETS[shape, part], count.kernels.most_common()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_one_kernel_is_the_norm(dtype: torch.dtype) -> None:
    """On a GPU without Triton the norm is torch's own kernel; here both are compared on the CPU."""
    norm = RMSNorm(64, 1e-6).to(dtype)
    x = (3 * torch.randn(5, 64)).to(dtype)
    torch.testing.assert_close(weighted(x, norm.weight, norm.eps), norm(x))


@torch.no_grad()
def test_sums_that_are_written_over_themselves_are_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the residual is added by the product's own kernel; what the caller gave stays as it is."""
    thinker = Thinker(rig.thinker_config()).eval()
    rig.randomise(thinker, 1)
    x, at = torch.randn(2, 5, 16), torch.arange(5).expand(3, 2, -1)
    given, wanted = x.clone(), thinker(x, at)
    for module in (linear, decoder):
        monkeypatch.setattr(module, "adds_in_place", lambda x: True)
    torch.testing.assert_close(thinker(x, at), wanted)
    assert torch.equal(x, given)


# ------------------------------------------------------------ what passes between the host and the device


def crossings(sessions: int, mode: StepMode, steps: int = 4) -> Crossings:
    """Calls of ``steps`` steps of the Thinker and of the Talker of so many sessions, all drawn and spoken."""
    how = Sampling(0.9, 5, 0.8, 1.05, max_tokens=60)
    engine = Engine(rig.models(), step_mode=mode)
    requests = [rig.request(f"user: {'hello ' * n}", text=how, speech=how, seed=n) for n in range(sessions)]
    answers = [engine.submit(request) for request in requests]
    stages, slots = engine.worker.stages, engine.worker.slots
    for _ in range(3):
        engine.worker.step()
    asked = [slots[answer.number].session for answer in answers]
    assert all(session.phase is Phase.THINKING and session.speech.codes for session in asked)
    with torch.inference_mode(), Crossings() as crossed:
        for _ in range(steps):
            stages.think(asked)
            stages.talk(asked)
            stages.settle(asked)
    for answer in answers:
        answer.cancel()
    engine.worker.step()
    return crossed


def test_what_a_step_sends_and_fetches_does_not_grow_with_its_sessions() -> None:
    few, many = crossings(2, "off"), crossings(6, "off")
    assert few.sent.total() == many.sent.total()
    assert few.fetched.total() == many.fetched.total() == 4  # what both decoders have drawn comes in one copy


def test_a_static_step_sends_one_copy_and_fetches_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    as_graphs(monkeypatch, lambda run: run)
    for sessions in (1, 5):
        crossed = crossings(sessions, "graphs")
        assert (crossed.sent.total(), crossed.fetched.total()) == (2 * 4, 4), (crossed.sent, crossed.fetched)


# ------------------------------------------------------------ after the warm-up nothing is captured


@pytest.mark.parametrize("seed", range(3))
def test_after_the_warm_up_nothing_is_captured(monkeypatch: pytest.MonkeyPatch, in_place: bool, seed: int) -> None:
    """A random run of any answers, drawn in any way, meets no step and no window that was not made, and gives what it
    gives alone."""
    made = Made()
    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"graphs": made})
    monkeypatch.setattr(worker, "new_stores", partial(new_stores, whole=True))
    monkeypatch.setattr(regions, "CAPTURE_AFTER", 0)  # a window that was forgotten is captured when it is met
    rng = random.Random(seed)
    engine = Engine(rig.models(), Limits(2000, 2000, sessions=4), step_mode="graphs")
    left = list(engine.warm_up(rig.settings()))
    assert left == list(reversed(range(len(left))))
    warm, ran = made.count, made.runs
    assert warm > len(left) > 2 * 3 * (1 if in_place else 4)  # a window is up to two regions
    asked = []
    for _ in range(60):
        if len(asked) < 8 and rng.random() < 0.3:
            asked.append((request := a_request(rng), engine.submit(request)))
        engine.worker.step()
    finish(engine)
    assert made.count == warm and made.runs > ran and not engine.step_faults
    for request, answer in asked:
        same(taken(answer), request)


def test_without_graphs_there_is_nothing_to_warm_up() -> None:
    engine = Engine(rig.models())
    assert list(engine.warm_up()) == []
    engine.start()
    with pytest.raises(RuntimeError, match="has started"):
        list(engine.warm_up())
    engine.close()


def test_a_model_whose_steps_are_graphs_is_loaded_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made()
    monkeypatch.setattr(graphs, "STEP_COMPILERS", {"graphs": made})
    omni = descant.load("nano", step_mode="graphs", limits=Limits(2000, 2000, sessions=1))
    assert made.count >= 2 * 4 and omni.engine.step_faults == ()  # the steps, and of the silent answer the windows
    assert list(omni.chat("What is seven plus five?", seed=1))[-1].text
    omni.close()
