"""The inputs of nano: its tokenizer and the sizes of its pictures."""

from __future__ import annotations

from dataclasses import replace

from descant.config import AudioConfig, InputsConfig
from descant.export.tokenizer import byte_tokenizer
from descant.inputs.tokenizer import Tokenizer

NANO_WORDS = ("system", "user", "assistant")  # the only tokens of nano that are longer than a byte
NANO_INPUTS = InputsConfig(
    min_pixels=112 * 112,
    max_pixels=112 * 112,
    video_min_pixels=56 * 56,
    video_max_pixels=56 * 56,
    video_total_pixels=768 * 56 * 56,
    default_system=None,
    speech_system=None,
)


def nano_tokenizer() -> Tokenizer:
    """Characters as tokens: what a model this small learns to spell, and to speak, best."""
    return Tokenizer(byte_tokenizer(NANO_WORDS))


def inputs_for(audio: AudioConfig) -> InputsConfig:
    """nano's inputs with as many mel bins as the ears of a recipe read."""
    return replace(NANO_INPUTS, feature_size=audio.num_mel_bins)
