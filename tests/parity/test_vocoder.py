"""BigVGAN against the reference; sizes and reach of both vocoders."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import kaiser_sinc_filter1d

from descant.config import BigVGANConfig, DiTConfig, EcapaConfig
from descant.model import vocoder
from descant.model.dit import DiT
from descant.model.vocoder import BigVGAN
from tests.parity.token2wav import BROKEN, TOLERANCE, draw, pair, relative
from tests.tiny_speech import MELS


def loud(frames: int) -> Tensor:
    """A log-mel from far below the floor to above the ceiling, so that every clamp acts."""
    return draw(1, MELS, frames, seed=1) * 6 - 4


def difference(mel: Tensor) -> float:
    reference, ours = pair()
    with torch.no_grad():
        return relative(ours.vocoder(mel)[0], reference.code2wav_bigvgan_model(mel))


@pytest.mark.parametrize("frames", [1, 3, 50])
def test_parity(frames: int, record: Callable[[str, str, float], None]) -> None:
    worst = difference(loud(frames))
    record("BigVGAN", f"{frames} frames", worst)
    assert worst < TOLERANCE


def test_output_clamp(record: Callable[[str, str, float], None]) -> None:
    reference, ours = pair()
    with torch.no_grad():
        reference.code2wav_bigvgan_model.conv_post.weight.mul_(40)
        ours.vocoder.conv_post.weight.mul_(40)
        wave = ours.vocoder(loud(20))[0]
        assert wave.abs().max() == 1.0
        assert relative(wave, reference.code2wav_bigvgan_model(loud(20))) < TOLERANCE


def test_kaiser_taps() -> None:
    ours = vocoder.kaiser_taps(torch.device("cpu"), torch.float32)
    assert torch.equal(ours, kaiser_sinc_filter1d(0.25, 0.3, 12).flatten())


def hard_decibels(mel: Tensor) -> Tensor:
    return 2 * (20 * torch.log10(mel.exp()) - 20 + 115) / 115 - 1


def zero_padded(x: Tensor, taps: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (5, 6)), taps, stride=(1, 2), groups=x.shape[1])


BREAKS: dict[str, tuple[object, str, object]] = {
    "no clamps before the network": (vocoder, "decibels", hard_decibels),
    "mel as it is": (vocoder, "decibels", lambda mel: mel),
    "aliased activation": (vocoder.Activation, "forward", lambda self, x: vocoder.snaked(x, *self.act.constants())),
    "zeros at the edges": (vocoder, "downsample", zero_padded),
    "linear height": (vocoder, "snaked", lambda x, frequency, _: x + torch.sin(x * frequency) ** 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, replacement = BREAKS[name]
    monkeypatch.setattr(owner, attribute, replacement)
    assert difference(loud(20)) > BROKEN


def test_official_sizes() -> None:
    """model-facts A.6, on the meta device; the DiT's count includes the stored inv_freq."""
    ecapa = EcapaConfig(mel_dim=80, enc_dim=128, channels=(256, 256, 256, 256, 768))
    dit = DiTConfig(
        hidden_size=1024, num_hidden_layers=22, num_attention_heads=16, head_dim=64, ff_mult=2, emb_dim=512,
        num_embeds=8193, mel_dim=80, repeats=2, enc_emb_dim=192, ecapa=ecapa,
    )  # fmt: skip
    bigvgan = BigVGANConfig(80, 1536, (5, 3, 2, 2, 2, 2), (11, 7, 4, 4, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3)
    with torch.device("meta"):
        counts = [sum(v.numel() for v in m.state_dict().values()) for m in (DiT(dit), BigVGAN(bigvgan))]
    assert counts == [333_607_792, 115_443_504]
