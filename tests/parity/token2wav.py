"""The reference's Token2Wav with tiny random weights, and ours with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_5_omni import configuration_qwen2_5_omni as hf_config
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as hf

from descant.config import DiTConfig, Token2WavConfig
from descant.model.codec import Token2Wav
from tests.tiny_speech import BIGVGAN, DIT, randomise

TOLERANCE = 1e-4  # relative: mel, velocity and vectors
WAVE_TOLERANCE = 1e-3  # of a whole solve
BROKEN = 1e-3  # a formula broken on purpose is at least this far off


def relative(ours: Tensor, reference: Tensor) -> float:
    """The largest difference over the largest magnitude."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float((ours - reference).abs().max() / reference.abs().max())


def reference_dit_config(cfg: DiTConfig) -> Any:
    e = cfg.ecapa
    return hf_config.Qwen2_5OmniDiTConfig(
        hidden_size=cfg.hidden_size,
        num_hidden_layers=cfg.num_hidden_layers,
        num_attention_heads=cfg.num_attention_heads,
        head_dim=cfg.head_dim,
        ff_mult=cfg.ff_mult,
        emb_dim=cfg.emb_dim,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_theta},
        block_size=cfg.block_size,
        look_ahead_layers=list(cfg.look_ahead_layers),
        look_backward_layers=list(cfg.look_backward_layers),
        repeats=cfg.repeats,
        num_embeds=cfg.num_embeds,
        mel_dim=cfg.mel_dim,
        enc_emb_dim=cfg.enc_emb_dim,
        enc_dim=e.enc_dim,
        enc_channels=list(e.channels),
        enc_kernel_sizes=list(e.kernel_sizes),
        enc_dilations=list(e.dilations),
        enc_attention_channels=e.attention_channels,
        enc_res2net_scale=e.res2net_scale,
        enc_se_channels=e.se_channels,
    )


def reference_token2wav(cfg: DiTConfig = DIT) -> Any:
    vocoder = hf_config.Qwen2_5OmniBigVGANConfig(
        mel_dim=BIGVGAN.mel_dim,
        upsample_initial_channel=BIGVGAN.upsample_initial_channel,
        upsample_rates=list(BIGVGAN.upsample_rates),
        upsample_kernel_sizes=list(BIGVGAN.upsample_kernel_sizes),
        resblock_kernel_sizes=list(BIGVGAN.resblock_kernel_sizes),
        resblock_dilation_sizes=[list(d) for d in BIGVGAN.resblock_dilation_sizes],
    )
    dit = reference_dit_config(cfg)
    config = hf_config.Qwen2_5OmniToken2WavConfig(dit_config=dit.to_dict(), bigvgan_config=vocoder.to_dict())
    return hf.Qwen2_5OmniToken2WavModel(config).eval()


def pair(cfg: DiTConfig = DIT, seed: int = 0) -> tuple[Any, Token2Wav]:
    """(reference, ours). Their keys differ in the names of the two parts alone, and in the stored inv_freq."""
    reference = reference_token2wav(cfg)
    randomise(reference, seed)
    ours = Token2Wav(Token2WavConfig(cfg, BIGVGAN)).eval()
    state = {
        key.replace("code2wav_dit_model.", "dit.").replace("code2wav_bigvgan_model.", "vocoder."): value
        for key, value in reference.state_dict().items()
    }
    state["dit.rotary_embed.inv_freq"] = reference.code2wav_dit_model.rotary_embed.inv_freq
    ours.load_state_dict(state)
    return reference, ours


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
