"""Tiny random models of the reference implementation (transformers), and ours with the same weights.

Two shapes of the Talker: "7b" (query width 48 != hidden 32, all three sections) and "3b" (other head counts, a section
of 0); the Thinker has both head counts, tied and untied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Qwen2_5OmniTalkerConfig, Qwen2_5OmniThinkerConfig
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as hf

from descant.config import AudioConfig, DecoderConfig, MediaIds, TalkerConfig, ThinkerConfig, VisionConfig
from descant.model.talker import Talker
from descant.model.thinker import Thinker

Shape = Literal["7b", "3b"]
PROMISE = 1e-4  # relative, float32
TOLERANCE = 3e-5  # what we hold ourselves to: measured 8e-6 at most, other processors add in other orders
BROKEN = 1e-3  # what a formula broken on purpose must exceed

MELS = 16
VOCAB = 160
PAD, EOS = 140, 141
IDS = MediaIds(
    audio=150, image=151, video=152, audio_start=153, audio_end=154, vision_start=155, vision_end=156
)  # the clock (25 ids a second, chunks of 2 s) stays official
TEXT_PAD, TEXT_START, TEXT_END, SPEAKER = 157, 158, 159, 145
CODES = {"pad": 92, "start": 93, "end": 94, "mask": 96}


def relative(ours: Tensor, reference: Tensor) -> float:
    """The largest difference over the largest magnitude."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    if reference.numel() == 0:
        return 0.0
    return float((ours - reference).abs().max() / reference.abs().max())


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights large enough that every formula matters: N(0, 1/fan_in), norms near 1, biases near 0, none exactly so."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(1.2 * noise / fan_in**0.5)
            else:
                parameter.copy_(parameter.round().clamp(0, 1) + 0.2 * noise)


def thinker_config(shape: Shape = "7b", *, tied: bool = False) -> Any:
    """The reference's config of a tiny Thinker."""
    heads, kv = (4, 2) if shape == "7b" else (4, 1)
    text = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "tie_word_embeddings": tied,
        "pad_token_id": PAD,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }
    audio = {
        "num_mel_bins": MELS,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "d_model": 32,
        "encoder_ffn_dim": 64,
        "output_dim": 64,
    }
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "num_heads": 4,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1, 3],
    }
    config = Qwen2_5OmniThinkerConfig(
        text_config=text,
        audio_config=audio,
        vision_config=vision,
        tie_word_embeddings=tied,
        audio_token_index=IDS.audio,
        image_token_index=IDS.image,
        video_token_index=IDS.video,
        audio_start_token_id=IDS.audio_start,
        audio_end_token_id=IDS.audio_end,
        pad_token_id=PAD,
    )
    config.vision_start_token_id = IDS.vision_start
    config.vision_end_token_id = IDS.vision_end
    return config


def talker_config(shape: Shape = "7b") -> Any:
    """The reference's config of a tiny Talker, in the proportions of the official 7B or 3B."""
    body = (
        {"hidden_size": 32, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16}
        if shape == "7b"
        else {"hidden_size": 56, "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 8}
    )
    section = [2, 3, 3] if shape == "7b" else [2, 2, 0]
    return Qwen2_5OmniTalkerConfig(
        vocab_size=100,
        embedding_size=64,
        intermediate_size=72,
        num_hidden_layers=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": section},
        **body,
        audio_token_index=IDS.audio,
        image_token_index=IDS.image,
        video_token_index=IDS.video,
        audio_start_token_id=IDS.audio_start,
        audio_end_token_id=IDS.audio_end,
        vision_start_token_id=IDS.vision_start,
        vision_end_token_id=IDS.vision_end,
        tts_text_start_token_id=TEXT_START,
        tts_text_end_token_id=TEXT_END,
        tts_text_pad_token_id=TEXT_PAD,
        tts_codec_start_token_id=CODES["start"],
        tts_codec_end_token_id=CODES["end"],
        tts_codec_pad_token_id=CODES["pad"],
        tts_codec_mask_token_id=CODES["mask"],
    )


def _decoder(c: Any, head_dim: int, embedding: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=c.vocab_size,
        embedding_size=embedding,
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads,
        head_dim=head_dim,
        mrope_section=tuple(c.rope_parameters["mrope_section"]),
        rope_theta=c.rope_parameters["rope_theta"],
        rms_norm_eps=c.rms_norm_eps,
        tie_word_embeddings=c.tie_word_embeddings,
    )


def our_thinker_config(c: Any) -> ThinkerConfig:
    """The reference's Thinker config in our words."""
    text, audio, vision = c.text_config, c.audio_config, c.vision_config
    return ThinkerConfig(
        text=_decoder(text, text.hidden_size // text.num_attention_heads, text.hidden_size),
        audio=AudioConfig(
            num_mel_bins=audio.num_mel_bins,
            encoder_layers=audio.encoder_layers,
            encoder_attention_heads=audio.encoder_attention_heads,
            d_model=audio.d_model,
            encoder_ffn_dim=audio.encoder_ffn_dim,
            output_dim=audio.output_dim,
        ),
        vision=VisionConfig(
            depth=vision.depth,
            hidden_size=vision.hidden_size,
            num_heads=vision.num_heads,
            intermediate_size=vision.intermediate_size,
            out_hidden_size=vision.out_hidden_size,
            fullatt_block_indexes=tuple(vision.fullatt_block_indexes),
        ),
        ids=IDS,
        pad_id=PAD,
        eos_id=EOS,
    )


def our_talker_config(c: Any) -> TalkerConfig:
    """The reference's Talker config in our words."""
    return TalkerConfig(
        decoder=_decoder(c, c.head_dim, c.embedding_size),
        ids=IDS,
        text_end_id=TEXT_END,
        text_pad_id=TEXT_PAD,
        codec_start_id=CODES["start"],
        codec_end_id=CODES["end"],
        codec_pad_id=CODES["pad"],
        codec_mask_id=CODES["mask"],
    )


@dataclass(frozen=True)
class Pair:
    """The reference and ours, with the same weights."""

    reference: Any
    ours: Any


def thinker_pair(shape: Shape = "7b", *, tied: bool = False, seed: int = 0) -> Pair:
    """A reference Thinker and our Thinker."""
    config = thinker_config(shape, tied=tied)
    reference = hf.Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    randomise(reference, seed)
    ours = Thinker(our_thinker_config(config)).eval()
    ours.load_state_dict(our_keys(reference.state_dict(), tied=tied))
    return Pair(reference, ours)


def talker_pair(shape: Shape = "7b", *, seed: int = 1) -> Pair:
    """A reference Talker and our Talker."""
    config = talker_config(shape)
    reference = hf.Qwen2_5OmniTalkerForConditionalGeneration(config).eval()
    randomise(reference, seed)
    ours = Talker(our_talker_config(config)).eval()
    ours.load_state_dict(our_keys(reference.state_dict(), tied=False))
    return Pair(reference, ours)


_NAMES = (
    ("model.audio_tower.", "audio."),
    ("model.visual.", "vision."),
    ("model.language_model.", "decoder."),
    ("thinker_to_talker_proj.", "proj."),
    ("model.", "decoder."),
)


def our_keys(state: dict[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """A state dict of the reference's classes (its 5.x layout) under our names."""
    renamed = {}
    for key, value in state.items():
        if tied and key == "lm_head.weight":
            continue
        prefix, ours = next(((a, b) for a, b in _NAMES if key.startswith(a)), ("", ""))
        renamed[ours + key.removeprefix(prefix)] = value
    return renamed


def noise(*shape: int, seed: int) -> Tensor:
    """N(0, 1), the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patches(grid: tuple[int, int, int], seed: int) -> Tensor:
    """Random patches (t * h * w, 1176) of one picture."""
    t, h, w = grid
    return noise(t * h * w, 3 * 2 * 14 * 14, seed=seed)
