"""A tiny Token2Wav with random weights, its voices, and the formulas of the official proportions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from descant.config import BigVGANConfig, DiTConfig, EcapaConfig, Token2WavConfig, VocosConfig
from descant.model.codec import PreparedVoice, Token2Wav
from descant.types import Voice

MELS, CODES, SPEAKER = 8, 20, 6
ECAPA = EcapaConfig(mel_dim=MELS, enc_dim=5, channels=(8, 8, 8, 8, 24), attention_channels=4, se_channels=4)
DIT = DiTConfig(
    hidden_size=16,
    num_hidden_layers=4,
    num_attention_heads=2,
    head_dim=8,
    ff_mult=2,
    emb_dim=6,
    num_embeds=CODES,
    mel_dim=MELS,
    repeats=2,
    enc_emb_dim=SPEAKER,
    ecapa=ECAPA,
    look_ahead_layers=(1,),
    look_backward_layers=(0, 3),
)
BIGVGAN = BigVGANConfig(
    mel_dim=MELS,
    upsample_initial_channel=8,
    upsample_rates=(5, 2),
    upsample_kernel_sizes=(11, 4),
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3, 5), (1, 3, 5)),
)
VOCOS = VocosConfig(mel_dim=MELS, hidden_size=12, num_layers=2, intermediate_size=16)


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights of about unit gain; nothing stays at a zero or one that would hide a formula."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.copy_(values * 0.8 / fan_in**0.5)


def token2wav(vocoder: Literal["vocos", "bigvgan"] = "vocos", seed: int = 0) -> Token2Wav:
    model = Token2Wav(Token2WavConfig(DIT, VOCOS if vocoder == "vocos" else BIGVGAN)).eval()
    randomise(model, seed)
    return model


def voice(seed: int = 0, frames: int = 30) -> Voice:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(SPEAKER, generator=generator)
    return Voice("tiny", 0, vector, torch.randn(frames, MELS, generator=generator))


def prepared(net: Token2Wav, seed: int = 0, frames: int = 30) -> PreparedVoice:
    return net.prepare_voice(voice(seed, frames))


def codes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, CODES + 1, (count,), generator=torch.Generator().manual_seed(seed))


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
