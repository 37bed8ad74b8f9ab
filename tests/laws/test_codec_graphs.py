"""The codec in graphs: what is replayed is what is computed, from inputs alone, in a finite set of shapes."""

from __future__ import annotations

import copy
import random
from collections.abc import Hashable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descant.engine import graphs as graphs_module
from descant.engine import regions as regions_module
from descant.engine.regions import GraphRegions
from descant.model import windows
from descant.model.codec import CodecState, PreparedVoice, Token2Wav, WindowPlan, decoding_for
from descant.model.vocoding import VocoderState
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
    sung(net, [30, 17], DIALS["balanced"], sealed)  # type: ignore[arg-type]
    assert sealed.found == []


def window_geometries(codec: Token2Wav, decoding: Decoding) -> frozenset[Hashable]:
    """The geometries of all windows that a stream of any length can come to have with one setting: those of a stream
    that goes on, until nothing changes any more, and at each of them those of its end."""
    per_block, steady = codec.codes_per_block, decoding.now + decoding.first
    state = CodecState(codec_rows(codec, decoding), 0, decoding, VocoderState(torch.zeros(0, 0)), torch.zeros(0).long())
    found: set[Hashable] = set()
    while state.blocks <= steady:
        upcoming = codec.upcoming_window(state)
        most = upcoming.count + upcoming.ahead
        ends = [(blocks, spare) for blocks in range(1, most + 1) for spare in (0, 1) if (blocks, spare) != (most, 0)]
        plans = [(upcoming, most * per_block)]
        plans += [(WindowPlan(blocks, 0, last=True), blocks * per_block - spare) for blocks, spare in ends]
        for plan, count in plans:
            found.add(codec.solver_window(replace(state, codes=torch.zeros(count).long()), plan).geometry)
        state = replace(state, blocks=state.blocks + upcoming.count, past=())
    return frozenset(found)


def codec_rows(codec: Token2Wav, decoding: Decoding) -> Tensor:
    """Rows like those of a prepared voice (G, D), of zeros."""
    rows = torch.zeros(2, codec.cfg.dit.hidden_size)
    return PreparedVoice("", 0, rows).for_decoding(decoding)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    count=st.integers(1, 150),
    first=st.integers(1, 3),
    first_ahead=st.integers(0, 2),
    now=st.integers(1, 5),
    ahead=st.integers(0, 2),
    pushes=st.integers(0, 2**16),
)
def test_every_window_is_one_of_few(
    count: int, first: int, first_ahead: int, now: int, ahead: int, pushes: int
) -> None:
    net = model()
    dial = Decoding(first=first, first_ahead=first_ahead, now=now, ahead=ahead)
    known = window_geometries(net, dial)
    assert len(known) <= 4 * (first + first_ahead + now + ahead) ** 2
    rng, left = random.Random(pushes), codes(count, 0)
    stream = net.start(tiny_speech.prepared(net), 0, dial)
    while left or not stream.finished or net.next_window(stream):
        plan = net.next_window(stream)
        if plan is None:
            n = rng.randrange(1, 30)
            stream, left = (net.feed(stream, left[:n]), left[n:]) if left else (net.close(stream), left)
            continue
        if plan.count:
            assert net.solver_window(stream, plan).geometry in known
        stream = moved(net, stream, plan.count, last=plan.last)


def moved(net: Token2Wav, stream: CodecState, count: int, *, last: bool) -> CodecState:
    """The stream after a window, as if it had been solved and vocoded."""
    end = (stream.blocks + count) * net.cfg.dit.block_size
    done = replace(stream.vocoder, emitted=stream.vocoder.end) if last else stream.vocoder
    some = replace(stream, codes=stream.codes[count * net.codes_per_block :], blocks=stream.blocks + count)
    assert end >= 0
    return replace(some, past=(torch.zeros(1),), vocoder=done)


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
