"""Laws of the codec: arrival invariance, windows that go on from each other, block attention == dense mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from descant.bench.streams import finish, mel_windowed, push
from descant.errors import OptionError, SessionError
from descant.model import block_attention, codec, dit, vocoding
from descant.model.codec import CodecState, Token2Wav, decoding_for
from descant.model.dit import Condition
from descant.model.ode import Solver
from descant.types import Decoding, Latency
from tests import tiny_speech

QUICK = Decoding(solver="euler", points=3)
WINDOWS = {
    "low": replace(decoding_for("low"), points=3),
    "balanced": replace(decoding_for("balanced"), points=3),
    "quality": replace(decoding_for("quality"), points=3),
    "no context, no guidance": replace(QUICK, ahead=0, guidance=0.0),
    "wide": replace(QUICK, first=2, now=3, ahead=2),
    "early, wide": replace(QUICK, first=1, now=2, ahead=2, early=True),
    "first block alone": replace(QUICK, first_ahead=0, now=1, early=True),
    "early, blind": replace(QUICK, first=2, first_ahead=0, ahead=0, early=True),
}
PER_BLOCK = 12  # codes: 24 mel frames, 2 a code


@cache
def model(vocoder: str = "vocos") -> Token2Wav:
    return tiny_speech.token2wav("vocos" if vocoder == "vocos" else "bigvgan")


def begin(decoding: Decoding, seed: int = 3, vocoder: str = "vocos") -> CodecState:
    net = model(vocoder)
    return net.start(tiny_speech.prepared(net), seed, decoding)


def cut(ids: Tensor, places: Sequence[int]) -> list[Tensor]:
    inside = sorted(p for p in places if 0 <= p <= len(ids))
    return list(torch.tensor_split(ids, inside))


def decode(pieces: Sequence[Tensor], decoding: Decoding, seed: int = 3, vocoder: str = "vocos") -> Tensor:
    net, state, out = model(vocoder), begin(decoding, seed, vocoder), []
    for piece in pieces:
        samples, state = push(net, state, piece)
        out.append(samples)
    return torch.cat([*out, finish(net, state)[0]])


# ---------------------------------------------------------------- arrival invariance


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 75),
    places=st.lists(st.integers(0, 75), max_size=6),
    name=st.sampled_from(sorted(WINDOWS)),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_cut_gives_the_same_samples(count: int, places: list[int], name: str, seed: int) -> None:
    ids = tiny_speech.codes(count, seed=count)
    whole = decode([ids], WINDOWS[name], seed)
    assert torch.equal(decode(cut(ids, places), WINDOWS[name], seed), whole)
    assert whole.shape == (count * 2 * model().vocoder.hop,)
    assert whole.dtype == torch.float32
    assert count == 0 or whole.abs().max() <= 1.0


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("vocoder", ["vocos", "bigvgan"])
def test_one_code_at_a_time(name: str, vocoder: str) -> None:
    ids = tiny_speech.codes(5 * PER_BLOCK + 5)
    whole = decode([ids], WINDOWS[name], vocoder=vocoder)
    assert torch.equal(decode(list(ids.split(1)), WINDOWS[name], vocoder=vocoder), whole)


def test_the_law_sees_noise_that_follows_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: noise drawn in the order of windows instead of by absolute block."""
    draws = torch.Generator().manual_seed(0)
    monkeypatch.setattr(codec, "mix64", lambda seed, block: int(torch.randint(1 << 30, (1,), generator=draws)))
    ids = tiny_speech.codes(40)
    assert not torch.equal(decode([ids], QUICK), decode([ids], QUICK))


def test_sessions_do_not_disturb_each_other() -> None:
    net, first, second = model(), tiny_speech.codes(50, 1), tiny_speech.codes(50, 2)
    alone = [decode([first], QUICK, 7), decode([second], QUICK, 8)]
    states = [begin(QUICK, 7), begin(QUICK, 8)]
    out: list[list[Tensor]] = [[], []]
    for pair in zip(first.split(3), second.split(3), strict=True):
        for i, piece in enumerate(pair):
            samples, states[i] = push(net, states[i], piece)
            out[i].append(samples)
    together = [torch.cat([*o, finish(net, s)[0]]) for o, s in zip(out, states, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_old_state_stays_good() -> None:
    """Two futures from one state: the stream can be forked, and a push can be repeated."""
    net, ids = model(), tiny_speech.codes(30)
    _, middle = push(net, begin(QUICK), ids)
    once, _ = finish(net, push(net, middle, ids[:9])[1])
    push(net, middle, tiny_speech.codes(20, 9))
    again, _ = finish(net, push(net, middle, ids[:9])[1])
    assert torch.equal(once, again)


def test_seed_and_voice_matter() -> None:
    ids = tiny_speech.codes(30)
    base = decode([ids], QUICK, 1)
    assert not torch.equal(decode([ids], QUICK, 2), base)
    state = model().start(tiny_speech.prepared(model(), 5), 1, QUICK)
    samples, state = push(model(), state, ids)
    assert not torch.equal(torch.cat([samples, finish(model(), state)[0]]), base)


# ---------------------------------------------------------------- nothing that was solved is solved again


def blind(back: tuple[int, ...] = (0, 3)) -> Token2Wav:
    """A codec whose DiT never looks ahead: then windows are the whole solve, cut."""
    cfg = model().cfg
    net = Token2Wav(replace(cfg, dit=replace(cfg.dit, look_ahead_layers=(), look_backward_layers=back))).eval()
    tiny_speech.randomise(net)
    return net


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 80),
    first=st.integers(1, 3),
    now=st.integers(1, 3),
    ahead=st.integers(0, 2),
    solver=st.sampled_from(["euler", "midpoint", "rk4"]),
)
def test_windows_go_on_where_the_last_one_ended(count: int, first: int, now: int, ahead: int, solver: Solver) -> None:
    """With no layer that looks ahead the past is all that a window lacks: it must be there to the last frame."""
    decoding = Decoding(first=first, now=now, ahead=ahead, solver=solver, points=3)
    assert window_difference(blind(), count, decoding) < 1e-5


def window_difference(net: Token2Wav, count: int, decoding: Decoding) -> float:
    ids, voice = tiny_speech.codes(count), tiny_speech.prepared(net)
    whole = net.mel_whole(ids, voice, codec.block_noise(3, 0, 2 * count, 24, tiny_speech.MELS), decoding)
    return float((mel_windowed(net, ids, voice, 3, decoding) - whole).abs().max() / whole.abs().max())


def test_a_forgotten_past_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net, count = blind(), 5 * PER_BLOCK
    assert window_difference(net, count, QUICK) < 1e-5
    assert window_difference(blind(back=()), count, QUICK) < 1e-5
    monkeypatch.setattr(dit.DiT, "window", lambda self, *rest: WINDOW(self, *rest[:4], None, *rest[5:]))
    assert window_difference(net, count, QUICK) > 1e-3


WINDOW = dit.DiT.window


# ---------------------------------------------------------------- when sound comes


@pytest.mark.parametrize("latency,blocks", [("low", 1), ("balanced", 2), ("quality", 4)])
@pytest.mark.parametrize("vocoder", ["vocos", "bigvgan"])
def test_first_sound(latency: Latency, blocks: int, vocoder: str) -> None:
    """The code that completes the first window and its look-ahead gives sound, and none before it does.

    Without a look-ahead the last frames wait for those after them."""
    net, decoding = model(vocoder), replace(decoding_for(latency), points=3)
    ids = tiny_speech.codes(blocks * PER_BLOCK)
    silence, state = push(net, begin(decoding, vocoder=vocoder), ids[:-1])
    assert len(silence) == 0
    sound, _ = push(net, state, ids[-1:])
    held = net.vocoder.context if not decoding.early else 0 if decoding.first_ahead else vocoding.STAND_IN_FRAMES
    assert len(sound) == (decoding.first * 24 - held) * net.vocoder.hop > 0


@pytest.mark.parametrize("count", [0, 1, 5, 11, 12, 13])
def test_short_answers(count: int) -> None:
    assert len(decode([tiny_speech.codes(count)], QUICK)) == count * 2 * 240


def test_codes_past_the_table_are_read_as_code_0() -> None:
    ids = torch.tensor([3, 8447, 1])
    assert torch.equal(decode([ids], QUICK), decode([torch.tensor([3, 0, 1])], QUICK))


def test_noise_belongs_to_the_frame() -> None:
    whole = codec.block_noise(1, 0, 100, 24, 8)
    assert torch.equal(codec.block_noise(1, 2, 30, 24, 8), whole[48:78])
    assert not torch.equal(codec.block_noise(2, 0, 24, 24, 8), whole[:24])
    long = codec.block_noise(9, 0, 24 * 500, 24, 80)
    assert abs(float(long.mean())) < 0.01
    assert abs(float(long.std()) - 1) < 0.01
    assert float((long[:-24] * long[24:]).mean().abs()) < 0.01  # neighbours share nothing


@pytest.mark.parametrize("name", ["no context, no guidance", "quality", "wide"])
def test_a_window_starts_from_the_noise_of_its_own_frames(name: str) -> None:
    """A fresh DiT moves nothing (adaLN-zero): the mel is the noise, so the sound must be that of the whole noise."""
    net = Token2Wav(model().cfg).eval()
    ids, decoding = tiny_speech.codes(7 * PER_BLOCK), WINDOWS[name]
    samples, state = push(net, net.start(tiny_speech.prepared(net), 3, decoding), ids)
    with torch.no_grad():
        whole = net.vocoder(codec.block_noise(3, 0, 168, 24, tiny_speech.MELS).mT[None])[0].clamp(-1, 1)
    assert torch.allclose(torch.cat([samples, finish(net, state)[0]]), whole, atol=1e-5)


# ---------------------------------------------------------------- block attention


def dense(back: int, ahead: int, frames: int, block: int) -> Tensor:
    blocks = torch.arange(frames) // block
    difference = blocks[None] - blocks[:, None]
    return (difference >= -back) & (difference <= ahead)


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 60), back=st.integers(0, 2), ahead=st.integers(0, 2), block=st.sampled_from([4, 7]))
def test_block_attention_is_the_dense_mask(frames: int, back: int, ahead: int, block: int) -> None:
    generator = torch.Generator().manual_seed(frames)
    cfg = replace(tiny_speech.DIT, block_size=block)
    attention, padded = block_attention.BlockAttention(cfg, back, ahead), frames + -frames % block
    x = torch.randn(2, padded, cfg.hidden_size, generator=generator)
    x[:, frames:] = 1e4  # padding must not be heard
    real = None if padded == frames else (torch.arange(padded) < frames).view(1, -1, block)
    angles = block_attention.Rotary(cfg)(padded, x.device)
    got = attention(x, angles, block_attention.WindowLayout(block, real, "blocks"))[0][:, :frames]
    shape = (2, frames, cfg.num_attention_heads, cfg.head_dim)
    q, k, v = (layer(x[:, :frames]).view(shape) for layer in (attention.to_q, attention.to_k, attention.to_v))
    cos, sin = (angle[:frames] for angle in angles)
    turned = (block_attention.rotate_first_head(y, cos, sin).transpose(1, 2) for y in (q, k))
    mask = dense(back, ahead, frames, block)
    expected = F.scaled_dot_product_attention(*turned, v.transpose(1, 2), attn_mask=mask).transpose(1, 2)
    assert torch.allclose(got, attention.to_out[0](expected.flatten(2)), atol=1e-5)


@pytest.mark.parametrize("attend", ["blocks", "full"])
def test_a_padded_batch_is_its_examples_alone(attend: block_attention.Attend) -> None:
    net = model().dit
    lengths = torch.tensor([96, 48, 50, 2])
    ids = torch.stack([tiny_speech.codes(48, i) for i in range(4)])
    cond = Condition(ids, torch.randn(4, tiny_speech.SPEAKER), torch.randn(4, 30, tiny_speech.MELS))
    x, t = torch.randn(4, 96, tiny_speech.MELS), torch.rand(4)
    with torch.no_grad():
        batch = net(x, t, cond, attend=attend, lengths=lengths)
        for i, n in enumerate(lengths.tolist()):
            one = Condition(ids[i : i + 1, : n // 2], cond.speaker[i : i + 1], cond.ref_mel[i : i + 1])
            alone = net(x[i : i + 1, :n], t[i : i + 1], one, attend=attend)
            assert torch.allclose(batch[i : i + 1, :n], alone, atol=1e-5)
    assert batch.isfinite().all()


def test_a_padded_batch_trains() -> None:
    net = tiny_speech.token2wav().dit.train()
    cond = Condition(torch.zeros(2, 24, dtype=torch.int64), torch.randn(2, 6), torch.randn(2, 30, 8))
    out = net(torch.randn(2, 48, 8), torch.rand(2), cond, lengths=torch.tensor([48, 3]))
    (out[0].square().mean() + out[1, :3].square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# ---------------------------------------------------------------- errors


BAD: dict[str, Callable[[], object]] = {
    "latency": lambda: decoding_for("fast"),  # type: ignore[arg-type]
    "first=0": lambda: begin(replace(QUICK, first=0)),
    "points": lambda: begin(replace(QUICK, points=1)),
    "first_ahead=-1": lambda: begin(replace(QUICK, first_ahead=-1)),
    "ref_mel": lambda: tiny_speech.prepared(model(), frames=4),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals_name_the_culprit(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        BAD[name]()


def test_a_finished_stream_is_over() -> None:
    _, state = finish(model(), begin(QUICK))
    with pytest.raises(SessionError):
        push(model(), state, [1])
    with pytest.raises(SessionError):
        finish(model(), state)
