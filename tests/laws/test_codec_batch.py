"""Laws of the codec in company: a stream that shares its windows with others sounds as it does alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descant.bench.streams import drain, finish, push
from descant.errors import SessionError
from descant.model import codec, vocoding, windows
from descant.model.codec import CodecState, Token2Wav, decoding_for
from descant.nn.prepare import prepare
from descant.types import Decoding, Voice
from tests import tiny_speech

TOLERANCE = 1e-4  # of samples in [-1, 1]; measured over random mixtures: 2e-6
BASE = Decoding(solver="euler", points=3)
DECODINGS = (
    BASE,
    replace(BASE, guidance=2.0, noise_scale=0.5),  # shares every batch with the one before
    replace(BASE, guidance=0.0),
    replace(BASE, now=2, ahead=0),
    replace(decoding_for("low"), points=3),
    replace(decoding_for("balanced"), points=4),
    replace(decoding_for("quality"), points=3),
)


@dataclass(frozen=True)
class Plan:
    """One stream of a mixture: it opens at turn ``joins`` and is fed ``pieces`` codes, one piece a turn; then it
    closes, or, when it ``leaves``, is forgotten in the middle."""

    voice: int
    seed: int
    decoding: Decoding
    joins: int
    pieces: tuple[int, ...]
    leaves: bool = False

    @property
    def codes(self) -> Tensor:
        return tiny_speech.codes(sum(self.pieces), self.seed % 1000)

    def open(self, net: Token2Wav) -> CodecState:
        return net.start(tiny_speech.prepared(net, self.voice), self.seed, self.decoding)


def plans_of(decodings: Sequence[Decoding]) -> st.SearchStrategy[list[Plan]]:
    plan = st.builds(
        Plan,
        voice=st.integers(0, 3),
        seed=st.integers(0, 2**40),
        decoding=st.sampled_from(decodings),
        joins=st.sampled_from([0, 0, 1, 2]),
        pieces=st.lists(st.sampled_from([24, 36, 24, 1, 30, 0]), min_size=2, max_size=4).map(tuple),
        leaves=st.sampled_from([False, False, True]),
    )
    return st.lists(plan, min_size=3, max_size=5)


# few decodings in one mixture: else the streams would seldom share a batch
MIXTURES = st.lists(st.sampled_from(DECODINGS), min_size=1, max_size=2).flatmap(plans_of)


@cache
def model(vocoder: str = "vocos") -> Token2Wav:
    return tiny_speech.token2wav("vocos" if vocoder == "vocos" else "bigvgan")


def alone(net: Token2Wav, plan: Plan) -> Tensor:
    samples, state = push(net, plan.open(net), plan.codes)
    return torch.cat([samples, finish(net, state)[0]])


def together(net: Token2Wav, plans: Sequence[Plan]) -> list[Tensor]:
    """What each stream got: a turn feeds, closes or drops every stream that is there, then takes one step for all."""
    states: dict[int, CodecState] = {}
    sound: list[list[Tensor]] = [[torch.zeros(0)] for _ in plans]
    turn, pending = 0, True
    while pending:
        for i, plan in enumerate(plans):
            states |= {i: plan.open(net)} if turn == plan.joins else {}
            at = turn - plan.joins
            if 0 <= at < len(plan.pieces):
                states[i] = net.feed(states[i], plan.codes.split(plan.pieces)[at])
            elif at == len(plan.pieces) and plan.leaves:
                del states[i]
            elif at == len(plan.pieces):
                states[i] = net.close(states[i])
        for i, (samples, state) in zip(list(states), net.step([*states.values()]), strict=True):
            sound[i].append(samples)
            states[i] = state
        turn += 1
        pending = any(map(net.due, states.values())) or any(turn <= p.joins + len(p.pieces) for p in plans)
    return [torch.cat(pieces) for pieces in sound]


def difference(net: Token2Wav, plans: Sequence[Plan]) -> float:
    """The largest difference of a sample; infinite where a stream that stayed got another number of samples."""
    worst = 0.0
    for plan, got in zip(plans, together(net, plans), strict=True):
        expected = alone(net, plan)
        if not plan.leaves and len(got) != len(expected):
            return float("inf")
        expected = expected[: len(got)]
        worst = max([worst, *(got - expected).abs().tolist()])
    return worst


# ---------------------------------------------------------------- batched == alone


@settings(max_examples=25, deadline=None)
@given(plans=MIXTURES, vocoder=st.sampled_from(["vocos", "bigvgan"]))
def test_a_stream_in_company_is_the_stream_alone(plans: list[Plan], vocoder: str) -> None:
    assert difference(model(vocoder), plans) < TOLERANCE


CROWD = [Plan(i % 3, i, DECODINGS[i % 2], 0, (30, 30)) for i in range(4)]


def rolled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each row of ``name`` the result of its neighbour."""
    home = codec if name == "solve_windows" else vocoding
    real = getattr(home, name)
    monkeypatch.setattr(home, name, lambda *given: [*real(*given)[1:], *real(*given)[:1]])


@pytest.mark.parametrize("name", ["solve_windows", "call_vocoder"])
def test_the_law_sees_exchanged_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert difference(model(), CROWD) < TOLERANCE
    rolled(name, monkeypatch)
    assert difference(model(), CROWD) > 50 * TOLERANCE  # a stream alone has no neighbour


def test_the_law_sees_one_guidance_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    real = windows.guided
    monkeypatch.setattr(windows, "guided", lambda out, branches, strength: real(out, branches, strength[:1]))
    assert difference(model(), CROWD) > 50 * TOLERANCE


# ---------------------------------------------------------------- how much is shared


def calls(monkeypatch: pytest.MonkeyPatch, states: Sequence[CodecState]) -> tuple[list[int], list[int]]:
    """Rows of each evaluation of the DiT and of each call of the vocoder, in one step."""
    net, dit_rows, vocoder_rows = model(), [], []
    window, forward = net.dit.window, net.vocoder.forward
    with monkeypatch.context() as patch:
        patch.setattr(net.dit, "window", lambda x, *rest: (dit_rows.append(len(x)), window(x, *rest))[1])
        patch.setattr(
            net.vocoder, "forward", lambda mel, *part: (vocoder_rows.append(len(mel)), forward(mel, *part))[1]
        )
        net.step(states)
    return dit_rows, vocoder_rows


def opened(decoding: Decoding, count: int = 24, voice: int = 0, seed: int = 0) -> CodecState:
    return model().feed(Plan(voice, seed, decoding, 0, ()).open(model()), tiny_speech.codes(count, seed))


def test_one_geometry_is_one_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [opened(DECODINGS[i % 2], voice=i, seed=i) for i in range(4)]
    assert calls(monkeypatch, states)[0] == [8, 8]  # 4 windows of 2 branches; 2 evaluations


def test_other_geometries_are_batches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    unguided, low = replace(BASE, guidance=0.0, early=True, points=2), replace(BASE, early=True, points=2)
    states = [opened(unguided), opened(low, seed=1), opened(low, seed=2), opened(replace(low, solver="rk4"), seed=3)]
    dit_rows, vocoder_rows = calls(monkeypatch, states)
    assert sorted(dit_rows) == [1, 2, 2, 2, 2, 4]
    assert vocoder_rows == [4]  # the mels are of one length whatever solved them


def test_a_step_without_a_window_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = opened(BASE, count=23)
    assert calls(monkeypatch, [waiting]) == ([], [])
    [(samples, state)] = model().step([waiting])
    assert len(samples) == 0 and state is waiting
    assert model().step([]) == []


def test_a_step_makes_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many codes at once are worked off a window a step, and the last step is the one after which nothing is due."""
    net, state, steps = model(), model().close(opened(BASE, count=60)), 0
    while net.due(state):
        [(_, state)] = net.step([state])
        steps += 1
    assert steps == 5  # four windows with a block to look at, and the last


# ---------------------------------------------------------------- what goes wrong stays where it is


def test_a_voice_of_nan_is_heard_by_nobody_else() -> None:
    net, good = model(), tiny_speech.voice(1)
    broken = Voice("broken", 0, torch.full_like(good.vector, torch.nan), torch.full_like(good.ref_mel, torch.nan))
    streams = [opened(BASE, count=40, voice=1, seed=i) for i in range(3)]
    expected = [drain(net, net.close(state))[0] for state in streams]
    poisoned = net.feed(net.start(net.prepare_voice(broken), 5, BASE), tiny_speech.codes(40))
    states = [net.close(state) for state in (streams[0], poisoned, *streams[1:])]
    sound = [torch.zeros(0)] * 4
    while any(map(net.due, states)):
        samples, states = map(list, zip(*net.step(states), strict=True))
        sound = [torch.cat(pair) for pair in zip(sound, samples, strict=True)]
    assert sound[1].isnan().all() and len(sound[1]) == len(expected[0])
    for got, want in zip([sound[0], *sound[2:]], expected, strict=True):
        assert float((got - want).abs().max()) < TOLERANCE


def test_a_finished_stream_refuses_and_harms_nobody() -> None:
    net, other = model(), opened(BASE, count=40, seed=1)
    expected = finish(net, push(net, other, [])[1])[0]
    over = net.close(opened(BASE, count=30))
    for refused in (lambda: net.feed(over, [1]), lambda: push(net, over, [1]), lambda: net.close(over)):
        with pytest.raises(SessionError):
            refused()
    _, over = drain(net, over)
    states = [over, net.close(other)]
    sound = []
    while any(map(net.due, states)):
        (none, over), (samples, other) = net.step(states)
        assert len(none) == 0 and over is states[0]
        sound.append(samples)
        states = [over, other]
    whole = torch.cat(sound)
    assert torch.equal(whole[-len(expected) :], expected)


def test_a_stream_keeps_no_sound_of_its_neighbours() -> None:
    """What a state or a chunk holds on to is its own: a view into a batch would keep all of the batch in memory."""
    early = replace(BASE, early=True)
    for samples, state in model().step([opened(early, seed=i) for i in range(3)]):
        assert state.past is not None
        assert all(known.untyped_storage().nbytes() == known.nbytes for known in state.past)
        assert samples.untyped_storage().nbytes() == samples.nbytes
        assert state.vocoder.fade is not None
        assert state.vocoder.fade.untyped_storage().nbytes() == state.vocoder.fade.nbytes
        assert state.vocoder.mel.untyped_storage().nbytes() <= 4 * tiny_speech.MELS * 24


def test_a_voice_is_read_when_it_is_prepared_and_at_no_stream() -> None:
    plain, net = model(), copy.deepcopy(model())
    heard: list[int] = []
    prepare(net)
    net.dit.input_embed.spk_encoder.register_forward_hook(lambda *_: heard.append(1))
    voices = [tiny_speech.voice(), replace(tiny_speech.voice(), name="other", vector=-tiny_speech.voice().vector)]
    known = {(one, voice.name): one.prepare_voice(voice) for one in (plain, net) for voice in voices}
    assert len(heard) == 2 * 2  # each voice, and the null reference of its length
    guided, free = replace(BASE, guidance=0.5), replace(BASE, guidance=0.0)

    def sung(one: Token2Wav, voice: Voice, decoding: Decoding) -> Tensor:
        samples, state = push(one, one.start(known[one, voice.name], 0, decoding), tiny_speech.codes(30))
        return torch.cat([samples, finish(one, state)[0]])

    for voice, decoding in 3 * list(itertools.product(voices, (guided, free))):
        found, expected = (sung(one, voice, decoding) for one in (net, plain))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert len(heard) == 2 * 2
