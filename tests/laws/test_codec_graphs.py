"""The codec in graphs: what is replayed is what is computed, from inputs alone, in a finite set of shapes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descant.engine import graphs as graphs_module
from descant.engine import regions as regions_module
from descant.engine.regions import GraphRegions, NotedRegions, stream_windows, window_batches
from descant.model import windows
from descant.model.codec import Token2Wav, decoding_for
from descant.model.windows import SolverWindow, solve_windows
from descant.nn.prepare import prepare
from descant.nn.regions import EagerRegions, Region
from descant.types import Decoding
from tests import tiny_speech
from tests.graph import Run, Sealed, recorded
from tests.laws.test_codec_stream import model

DIALS = {name: decoding_for(name, Decoding(points=4)) for name in ("low", "balanced", "quality")}


@pytest.fixture(scope="module")
def net() -> Token2Wav:
    made = copy.deepcopy(model("bigvgan"))
    prepare(made)
    return made


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs_module, "STEP_COMPILERS", {"graphs": recorded})
    monkeypatch.setattr(regions_module, "CAPTURE_AFTER", 1)


def codes(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(20), k=count)


def sung(net: Token2Wav, lengths: list[int], dial: Decoding, regions: GraphRegions | EagerRegions) -> list[Tensor]:
    """The sound of streams of so many codes, which come a few at a time, decoded in company."""
    speaker, rng = tiny_speech.prepared(net), random.Random(0)
    streams = [net.start(speaker, seed, dial) for seed in range(len(lengths))]
    left = [codes(count, seed) for seed, count in enumerate(lengths)]
    heard: list[list[Tensor]] = [[] for _ in lengths]
    for _ in range(400):
        for i, stream in enumerate(streams):
            now, left[i] = left[i][: (n := rng.randrange(1, 9))], left[i][n:]
            streams[i] = net.feed(stream, now) if now else stream
            if not left[i] and not streams[i].finished:
                streams[i] = net.close(streams[i])
        for i, (samples, stream) in enumerate(net.step(streams, regions)):
            heard[i].append(samples)
            streams[i] = stream
        if all(stream.finished and not net.due(stream) for stream in streams):
            return [torch.cat(parts) for parts in heard]
    raise AssertionError("a stream hangs")


@pytest.mark.parametrize("dial", DIALS)
@pytest.mark.usefixtures("taped")
def test_sound_of_graphs_is_the_sound(net: Token2Wav, dial: str) -> None:
    lengths = [61, 61, 40, 12, 1, 55]
    graphs = GraphRegions("graphs")
    for got, wanted in zip(
        sung(net, lengths, DIALS[dial], graphs), sung(net, lengths, DIALS[dial], EagerRegions()), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert graphs._made and not graphs.eager


@pytest.mark.usefixtures("taped")
def test_what_cannot_be_captured_is_eager_alone(net: Token2Wav, monkeypatch: pytest.MonkeyPatch) -> None:
    real = recorded

    def picky(run: Run) -> Run:
        made = real(run)
        if len(made()) > 1:  # a solve: it gives its past too
            raise RuntimeError("not on this card")
        return made

    monkeypatch.setattr(graphs_module, "STEP_COMPILERS", {"graphs": picky})
    graphs = GraphRegions("graphs")
    got = sung(net, [140], DIALS["low"], graphs)
    torch.testing.assert_close(got, sung(net, [140], DIALS["low"], EagerRegions()), rtol=1e-4, atol=1e-4)
    assert graphs.eager and graphs._made
    assert set(graphs.eager.values()) == {"RuntimeError: not on this card"}


class SealedRegions(EagerRegions):
    """Runs every region under a seal. known: weights and what was kept of them."""

    def __init__(self, known: list[Tensor]):
        self.known = known
        self.found: list[str] = []

    def run(self, key: object, region: Region, inputs: object) -> tuple[Tensor, ...]:
        kept = list(region.modulations) if isinstance(region, windows.SolveRegion) else []
        region(*inputs)  # type: ignore[misc]
        with Sealed([*self.known, *kept, *inputs]) as sealed:  # type: ignore[misc]
            out = region(*inputs)  # type: ignore[misc]
        self.found += sealed.found
        return out


def test_a_window_is_sealed(net: Token2Wav) -> None:
    kept = [x for part in net.modules() for x in vars(part).get("_kept") or ()]
    sealed = SealedRegions([*net.parameters(), *net.buffers(), *kept])
    sung(net, [30, 17], DIALS["balanced"], sealed)
    assert sealed.found == []


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    count=st.integers(1, 150),
    first=st.integers(1, 3),
    first_ahead=st.integers(0, 2),
    now=st.integers(1, 5),
    ahead=st.integers(0, 2),
    early=st.booleans(),
    pushes=st.integers(0, 2**16),
)
def test_every_window_is_one_of_few(
    count: int, first: int, first_ahead: int, now: int, ahead: int, early: bool, pushes: int
) -> None:
    """Whatever a stream comes to ask for, the list of windows that are captured at load has it."""
    net = model()
    dial = Decoding(first, first_ahead, now, ahead, solver="euler", points=2, early=early)
    known, asked = NotedRegions(), NotedRegions()
    windows = stream_windows(net, tiny_speech.prepared(net), dial)
    for window in windows:
        net.step_windows([window], known)
    assert len(windows) <= len(known.asked) <= 5 * (first + first_ahead + now + ahead) ** 2
    rng, left = random.Random(pushes), codes(count, 0)
    stream = net.start(tiny_speech.prepared(net), 0, dial)
    while left or not stream.finished or net.due(stream):
        if net.due(stream):
            [(_, stream)] = net.step([stream], asked)
            continue
        n = rng.randrange(1, 30)
        stream, left = (net.feed(stream, left[:n]), left[n:]) if left else (net.close(stream), left)
    assert asked.asked <= known.asked


@pytest.mark.parametrize("count", [1, 5, 6, 11, 17])
def test_a_block_that_is_filled_up_is_the_block_alone(net: Token2Wav, count: int) -> None:
    cfg, speaker = net.cfg.dit, tiny_speech.prepared(net)
    filled = -(-count // net.codes_per_block) * net.codes_per_block
    given = torch.tensor(codes(filled, 3))
    x0 = torch.randn(filled * cfg.repeats, cfg.mel_dim, generator=torch.Generator().manual_seed(1))
    frames = count * cfg.repeats
    alone = SolverWindow(given[:count], speaker.rows, x0[:frames], DIALS["low"])
    whole = SolverWindow(given, speaker.rows, x0, DIALS["low"], frames=frames)
    other = SolverWindow(given.roll(1), speaker.rows, x0, DIALS["low"], frames=filled * cfg.repeats - 1)
    [wanted] = solve_windows(net.dit, [alone])
    got, _ = solve_windows(net.dit, [whole, other])  # rows of one batch, of unequal length
    assert got.mel.shape == wanted.mel.shape
    torch.testing.assert_close(got.mel, wanted.mel, rtol=1e-4, atol=1e-4)


def test_precision_is_that_of_a_setting_and_nobody_else_s() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for name, allowed in (("tf32", True), ("float32", False)):
        with windows.precision(name):  # type: ignore[arg-type]
            assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert [DIALS[name].precision for name in ("low", "balanced", "quality")] == ["tf32", "tf32", "float32"]


def test_what_is_captured_at_load_fits_its_memory(net: Token2Wav, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = stream_windows(net, tiny_speech.prepared(net), DIALS["balanced"])
    every = window_batches(windows, 5)
    assert [count for _, count in every] == sorted((count for _, count in every), reverse=True)
    assert {count for due, count in every if due[1].company == "any"} == {1, 2, 4, 8}
    assert {count for due, count in every if due[1].company == "alone"} == {1}
    largest = max(regions_module.all_bytes(state.past or ()) for state, _ in windows)
    monkeypatch.setattr(regions_module, "REGION_BYTES", 2 * 12 * largest)
    few = window_batches(windows, 5)
    assert len(few) == 12 and few == every[-12:]  # the largest are left out
    graphs = GraphRegions("graphs")
    monkeypatch.setattr(graphs_module, "STEP_COMPILERS", {"graphs": lambda run: run})
    monkeypatch.setattr(regions_module, "CAPTURE_AFTER", 0)
    sung(net, [140, 140, 140, 140], DIALS["balanced"], graphs)
    used = sum(2 * regions_module.all_bytes(made.buffers) for made in graphs._made.values())
    assert graphs._made and graphs._bytes == used <= 2 * 12 * largest
