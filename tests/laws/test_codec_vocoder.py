"""Laws of the vocoders: streamed == whole, a part is cut from the whole, early sound joins without a click."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from descant.bench.streams import finish, push
from descant.model import vocoding, vocos
from descant.model.codec import Token2Wav
from descant.model.vocoding import VocoderState, vocode, vocoder_input
from descant.types import Decoding
from tests import tiny_speech

QUICK = Decoding(solver="euler", points=3)


@cache
def model(vocoder: str = "vocos") -> Token2Wav:
    return tiny_speech.token2wav("vocos" if vocoder == "vocos" else "bigvgan")


@settings(max_examples=20, deadline=None)
@given(
    frames=st.integers(1, 130),
    places=st.lists(st.integers(0, 130), max_size=5),
    vocoder=st.sampled_from(["vocos", "bigvgan"]),
)
def test_streamed_vocoder_is_the_whole_vocoder(frames: int, places: list[int], vocoder: str) -> None:
    assert vocoder_difference(frames, places, vocoder) < 1e-5


def sing(
    net: Token2Wav, state: VocoderState, final: Tensor, ahead: Tensor, *, early: bool, last: bool
) -> tuple[Tensor, VocoderState]:
    return vocode(net.vocoder, [vocoder_input(net.vocoder, state, final, ahead, early=early, last=last)])[0]


def vocoder_difference(frames: int, places: list[int], vocoder: str) -> float:
    net = model(vocoder)
    mel = torch.randn(tiny_speech.MELS, frames, generator=torch.Generator().manual_seed(frames))
    pieces = torch.tensor_split(mel, sorted(p for p in places if p <= frames), dim=1)
    state, out, none = VocoderState(mel[:, :0]), [], mel[:, :0]
    with torch.no_grad():
        for i, piece in enumerate(pieces):
            samples, state = sing(net, state, piece, none, early=False, last=i == len(pieces) - 1)
            out.append(samples)
        whole = net.vocoder(mel[None])[0].clamp(-1, 1)
    return float((torch.cat(out) - whole).abs().max() / whole.abs().max())


@settings(max_examples=20, deadline=None)
@given(
    frames=st.integers(1, 130),
    begin=st.integers(0, 129),
    count=st.integers(1, 60),
    vocoder=st.sampled_from(["vocos", "bigvgan"]),
)
def test_a_part_is_cut_from_the_whole(frames: int, begin: int, count: int, vocoder: str) -> None:
    """Each layer computes no more than the wanted frames need, and no less."""
    begin, end = min(begin, frames - 1), min(begin + count, frames)
    net = model(vocoder).vocoder
    mel = torch.randn(1, tiny_speech.MELS, frames, generator=torch.Generator().manual_seed(frames))
    with torch.no_grad():
        whole, part = net(mel), net(mel, begin, end)
    assert part.shape[1] == (end - begin) * net.hop
    assert float((part - whole[:, begin * net.hop : end * net.hop]).abs().max() / whole.abs().max()) < 1e-5


@pytest.mark.parametrize("vocoder", ["vocos", "bigvgan"])
def test_less_context_is_seen(vocoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vocoder_difference(130, [50], vocoder) < 1e-5
    monkeypatch.setattr(type(model(vocoder).vocoder), "context", 2)
    assert vocoder_difference(130, [50], vocoder) > 1e-3


@pytest.mark.parametrize("vocoder", ["vocos", "bigvgan"])
def test_context_is_the_reach_of_the_network(vocoder: str) -> None:
    """By the gradient of one frame's samples, in float64: nothing outside the context, something at its edge."""
    net = tiny_speech.token2wav("vocos" if vocoder == "vocos" else "bigvgan").vocoder.double()
    middle, hop, context = net.context + 5, net.hop, net.context
    mel = torch.randn(1, tiny_speech.MELS, 2 * middle + 1, dtype=torch.float64).mul(0.1).sub(3).requires_grad_()
    samples = net(mel)[0, middle * hop : (middle + 1) * hop]
    (gradient,) = torch.autograd.grad(samples.square().sum(), mel)
    read = gradient.abs().sum(dim=(0, 1)).nonzero().flatten() - middle
    assert -context <= int(read.min()) <= -context + 1
    assert context - 1 <= int(read.max()) <= context


def test_early_sound_joins_without_a_click() -> None:
    """Where two decodes meet, the sound goes over from the one to the other within one frame."""
    net, hop = model(), model().vocoder.hop
    mel, wrong = tiny_speech.draw(tiny_speech.MELS, 48, seed=1), tiny_speech.draw(tiny_speech.MELS, 24, seed=2)
    with torch.no_grad():
        first, state = sing(net, VocoderState(mel[:, :0]), mel[:, :24], wrong, early=True, last=False)
        second, _ = sing(net, state, mel[:, 24:], wrong[:, :0], early=True, last=True)
        imagined = net.vocoder(torch.cat([mel[:, :24], wrong], dim=1)[None])[0].clamp(-1, 1)
        true = net.vocoder(mel[None])[0].clamp(-1, 1)
    seam = 24 * hop
    assert torch.allclose(first, imagined[:seam], atol=1e-5)
    assert torch.allclose(second[0], imagined[seam], atol=1e-5)  # carries on where the listener is
    assert torch.allclose(second[hop - 1 :], true[seam + hop - 1 :], atol=1e-5)
    assert not torch.allclose(imagined[seam], true[seam], atol=1e-3)


def test_sound_without_a_look_ahead_holds_its_edge() -> None:
    """No mel to look at: the last frames wait, with the last of all held on after them, and nothing is lost."""
    net, hop, edge = model(), model().vocoder.hop, vocoding.STAND_IN_FRAMES
    mel, none = tiny_speech.draw(tiny_speech.MELS, 48, seed=1), torch.zeros(tiny_speech.MELS, 0)
    with torch.no_grad():
        first, state = sing(net, VocoderState(mel[:, :0]), mel[:, :24], none, early=True, last=False)
        second, _ = sing(net, state, mel[:, 24:], none, early=True, last=True)
        held = torch.cat([mel[:, :24], mel[:, 23:24].expand(-1, edge)], dim=1)
        imagined, true = (net.vocoder(m[None])[0].clamp(-1, 1) for m in (held, mel))
    seam = (24 - edge) * hop
    assert len(first) == seam and len(second) == 48 * hop - seam
    assert torch.allclose(first, imagined[:seam], atol=1e-5)
    assert torch.allclose(second[0], imagined[seam], atol=1e-5)  # carries on where the listener is
    assert torch.allclose(second[hop - 1 :], true[seam + hop - 1 :], atol=1e-5)


def test_samples_stay_in_range() -> None:
    net = tiny_speech.token2wav()
    with torch.no_grad():
        net.vocoder.head.bias.fill_(4.0)  # type: ignore[union-attr]
    samples, _ = finish(net, push(net, net.start(tiny_speech.prepared(net), 0, QUICK), tiny_speech.codes(8))[1])
    assert samples.abs().max() == 1.0


def test_inverse_stft_undoes_the_stft() -> None:
    """Frames as the codec cuts them, centred on their hop: any signal comes back, its ends included."""
    n_fft, hop = 1024, 240
    signal = tiny_speech.draw(1, 40 * hop, seed=0)
    padded = F.pad(signal, ((n_fft - hop) // 2,) * 2)
    spectrum = torch.stft(padded, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True)
    assert spectrum.shape[2] == 40
    assert torch.allclose(vocos.inverse_stft(spectrum.mT, n_fft, hop), signal, atol=1e-5)
