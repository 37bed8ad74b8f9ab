"""Whole solves: codes and noise to mel and wave, against the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from descant.bench.streams import finish, push
from descant.model import codec, ode, windows
from descant.types import Decoding, Voice
from tests.parity.token2wav import BROKEN, TOLERANCE, WAVE_TOLERANCE, pair, relative
from tests.tiny_speech import DIT, MELS, codes, voice

SEED = 11
CASES = {
    "official (RK4, 10 points)": Decoding(),
    "no guidance": Decoding(guidance=0.0),
    "no sway, 5 points": Decoding(sway=0.0, points=5),
    "strong guidance": Decoding(guidance=2.0),
}


def reference_mel_and_wave(reference: object, ids: Tensor, speaker: Voice, d: Decoding) -> tuple[Tensor, Tensor]:
    torch.manual_seed(SEED)
    mel = reference.code2wav_dit_model.sample(  # type: ignore[attr-defined]
        speaker.vector[None], speaker.ref_mel[None], ids[None], d.points, d.guidance, d.sway
    )
    return mel, reference.code2wav_bigvgan_model(mel)  # type: ignore[attr-defined]


def start_noise(count: int) -> Tensor:
    torch.manual_seed(SEED)
    return torch.randn([1, count * DIT.repeats, MELS])[0]


def differences(d: Decoding, count: int = 41) -> tuple[float, float]:
    reference, ours = pair()
    ids, speaker = codes(count), voice()
    with torch.no_grad():
        mel, wave = reference_mel_and_wave(reference, ids, speaker, d)
        our_mel = ours.mel_whole(ids, ours.prepare_voice(speaker), start_noise(count), d)
        our_wave = ours.vocoder(our_mel[None])[0]
    return relative(our_mel, mel[0]), relative(our_wave, wave)


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str, record: Callable[[str, str, float], None]) -> None:
    mel, wave = differences(CASES[name])
    record("mel of a whole solve", name, mel)
    record("wave of a whole solve", name, wave)
    assert mel < TOLERANCE
    assert wave < WAVE_TOLERANCE


def test_euler_parity(record: Callable[[str, str, float], None]) -> None:
    """The reference has no Euler solver: its velocity is stepped by hand, as the authors' low-memory decoder does."""
    reference, ours = pair()
    ids, speaker, d = codes(41), voice(), Decoding(solver="euler")
    x = start_noise(41)[None]
    t = torch.linspace(0, 1, d.points)
    t = t + d.sway * (torch.cos(torch.pi / 2 * t) - 1 + t)
    with torch.no_grad():
        for start, end in pairwise(t):
            speakers = speaker.vector[None, None].expand(1, x.shape[1], -1)
            out = reference.code2wav_dit_model(x, speaker.ref_mel[None], speakers, ids[None], start)
            x = x + (end - start) * (out[:1] + d.guidance * (out[:1] - out[1:]))
        worst = relative(ours.mel_whole(ids, ours.prepare_voice(speaker), start_noise(41), d), x[0].mT)
    record("mel of a whole solve", "Euler, 10 points", worst)
    assert worst < TOLERANCE


def test_one_window_is_the_whole_solve() -> None:
    """A stream whose first window spans all codes is the reference's solve: same noise, same mel, same wave."""
    reference, ours = pair()
    ids, speaker, d = codes(41), voice(), replace(Decoding(), first=10)
    x0 = codec.block_noise(5, 0, 41 * DIT.repeats, DIT.block_size, MELS)
    with torch.no_grad():
        expected = reference.code2wav_bigvgan_model(ours.mel_whole(ids, ours.prepare_voice(speaker), x0, d)[None])
    none, state = push(ours, ours.start(ours.prepare_voice(speaker), 5, d), ids)
    rest, _ = finish(ours, state)
    assert len(none) == 0
    assert relative(rest, expected) < WAVE_TOLERANCE


def unguided(spoken: Tensor, lead: Tensor, guidance: Tensor) -> Tensor:
    return REAL_GUIDED(spoken, lead, 0 * guidance)


def interpolated(spoken: Tensor, lead: Tensor, guidance: Tensor) -> Tensor:
    return REAL_GUIDED(spoken, lead, guidance - 1)


REAL_GUIDED = windows.guided
BREAKS: dict[str, tuple[str, object]] = {
    "guidance left out": ("guided", unguided),
    "guidance as n + g (c - n)": ("guided", interpolated),
    "even schedule": ("schedule", lambda points, sway: torch.linspace(0, 1, points)),
    "times of another solver": ("moments", lambda times, solver: ode.moments(times, "euler").repeat_interleave(4)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, replacement = BREAKS[name]
    monkeypatch.setattr(windows, attribute, replacement)
    mel, _ = differences(Decoding(points=4))
    assert mel > BROKEN
