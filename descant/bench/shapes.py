"""The shapes that are measured, with random weights made here: nothing is downloaded, and what they say means nothing.

Whatever is not named by a shape (ids, encoders that hear and see nothing here, the speaker encoder) is the official
model's or as small as it may be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from descant.config import (
    AudioConfig,
    BigVGANConfig,
    DecoderConfig,
    DiTConfig,
    EcapaConfig,
    MediaIds,
    OmniConfig,
    TalkerConfig,
    ThinkerConfig,
    Token2WavConfig,
    VisionConfig,
)
from descant.engine.models import Models, codes_beyond_table
from descant.engine.session import AnswerSettings, Request
from descant.export.tokenizer import byte_tokenizer
from descant.inputs.tokenizer import SPECIAL_TOKENS, Tokenizer
from descant.model.codec import PreparedVoice, decoding_for
from descant.tokens import PromptTokens, text_tokens
from descant.types import Decoding, Sampling, Voice
from descant.weights.parts import Parts, build_parts

IDS = MediaIds(151646, 151655, 151656, audio_start=151647, audio_end=151648, vision_start=151652, vision_end=151653)
TEXT_PAD_ID = 151859
TEXT_END_ID = 151861
VOICE_BOS_ID = 151872
STOP_ID = 151645
CODEC_PAD_ID = 8292
CODEC_START_ID = 8293
CODEC_END_ID = 8294
CODEC_MASK_ID = 8296
CODE_IDS = 8448
ORDINARY_IDS = 151643  # text ids below this one are neither special nor a placeholder
TALKER_PENALTY = 1.05  # transformers' default
REF_FRAMES = 200  # 2 s of the voice
HEARD_RATE_HZ = 16000  # Hz, what a microphone gives here


@dataclass(frozen=True)
class Scale:
    """The amount that is measured, on which shapes (answer: whole answers, decode: decode steps, live: live sessions).

    steps: decode steps a turn; probe: float32 values read to measure the memory. crowd: answers at once. spoken,
    turn: seconds of a long turn and of each of ``turns`` in a conversation. idle: how many sessions do nothing;
    held: tokens of each. voices: how many speak at once.
    """

    answer: OmniConfig
    decode: OmniConfig
    live: OmniConfig
    prompt: int = 64
    words: int = 32
    codes: int = 100
    steps: int = 10
    probe: int = 2**28
    crowd: int = 8
    spoken: float = 20.0
    turn: float = 3.0
    turns: int = 10
    idle: tuple[int, ...] = (1, 8, 32)
    held: int = 200
    voices: tuple[int, ...] = (1, 2, 4, 6, 8)


def decoder(hidden: int, layers: int, heads: int, inner: int, vocab: int, *, tied: bool = False) -> DecoderConfig:
    """A decoder with 2 key-value heads and the official rotary split of its head width."""
    width = hidden // heads
    height = 3 * width // 16  # of width / 2 frequencies: [16, 24, 24] at 128, [8, 12, 12] at 64
    return DecoderConfig(
        vocab_size=vocab,
        embedding_size=hidden,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        head_dim=width,
        mrope_section=(width // 2 - 2 * height, height, height),
        tie_word_embeddings=tied,
    )


def ears(width: int, layers: int, hidden: int) -> AudioConfig:
    """The official audio encoder with another width and depth. hidden: the Thinker's width."""
    return AudioConfig(128, layers, width // 64, width, 4 * width, hidden)


def omni(
    text: DecoderConfig, talker: DecoderConfig, sound: Token2WavConfig, audio: AudioConfig | None = None
) -> OmniConfig:
    """A whole model around two decoders and a codec; audio None: an encoder for where nothing is heard."""
    hidden = text.hidden_size
    audio = audio or ears(64, 1, hidden)
    vision = VisionConfig(1, 64, 4, 128, hidden, (0,))
    thinker = ThinkerConfig(text, audio, vision, IDS, pad_id=ORDINARY_IDS, eos_id=STOP_ID)
    specials = TEXT_END_ID, TEXT_PAD_ID, CODEC_START_ID, CODEC_END_ID, CODEC_PAD_ID, CODEC_MASK_ID
    return OmniConfig(thinker, TalkerConfig(replace(talker, embedding_size=hidden), IDS, *specials), sound)


def codec(width: int, layers: int, first: int, *, channels: int = 256) -> Token2WavConfig:
    """The official DiT and BigVGAN with another width, depth and first width. Every code has a row: random Talkers
    draw codes that the official table lacks."""
    ecapa = EcapaConfig(80, 128, (channels,) * 4 + (3 * channels,))
    dit = DiTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        head_dim=64,
        ff_mult=2,
        emb_dim=512,
        num_embeds=CODE_IDS + 1,
        mel_dim=80,
        repeats=2,
        enc_emb_dim=192,
        ecapa=ecapa,
        look_ahead_layers=(layers // 2,),
        look_backward_layers=(0, layers - 1),
    )
    return Token2WavConfig(
        dit, BigVGANConfig(80, first, (5, 3, 2, 2, 2, 2), (11, 7, 4, 4, 4, 4), (3, 7, 11), DILATIONS)
    )


DILATIONS = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
VOCAB_SIZE = 151936
BENCH_TINY = omni(decoder(512, 8, 8, 1408, VOCAB_SIZE), decoder(512, 8, 8, 1408, CODE_IDS), codec(512, 8, 512))
HALF_B = omni(
    decoder(896, 24, 14, 4864, VOCAB_SIZE, tied=True),
    decoder(896, 24, 14, 4864, CODE_IDS),
    codec(64, 2, 64, channels=16),  # not measured there: only the decoders are
)
LIVE = omni(
    decoder(512, 8, 8, 1408, VOCAB_SIZE),
    decoder(512, 8, 8, 1408, CODE_IDS),
    codec(64, 2, 64, channels=16),  # no row asks when the sound of a live answer comes
    ears(512, 8, 512),
)
FULL = Scale(BENCH_TINY, HALF_B, LIVE)


def random_parts(config: OmniConfig, seed: int = 0) -> Parts:
    """Weights of about unit gain; norms, biases and the like stay as they begin."""
    parts = build_parts(config)
    generator = torch.Generator().manual_seed(seed)
    for part in parts.named().values():
        randomise(part.eval().requires_grad_(False), generator)
    return parts


def randomise(part: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for weight in part.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.8 / weight[0].numel() ** 0.5, generator=generator)


class CodepointTokenizer(Tokenizer):
    """Special tokens where the official vocabulary has them; and every id, whatever random weights draw, is written
    as one character of its own: the first token shows as the first text, and ids can be read back from text."""

    FIRST = 0x20000  # the plane whose characters all stand for themselves

    def __init__(self) -> None:
        super().__init__(byte_tokenizer(["system", "user", "assistant"]))

    def special(self, name: str) -> int:
        return ORDINARY_IDS + SPECIAL_TOKENS.index(name)

    def token_bytes(self, index: int) -> bytes:
        return chr(self.FIRST + index).encode()

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(ord(sign) - self.FIRST for sign in text)


CODEPOINTS = CodepointTokenizer()


def bench_models(parts: Parts) -> Models:
    """The engine's models. A peer that is to hold the same weights takes them first: here they are laid out anew."""
    parts.prepare()
    assert parts.talker is not None and parts.token2wav is not None
    stops = frozenset({CODEC_PAD_ID, CODEC_END_ID})
    banned = codes_beyond_table(parts.talker, parts.token2wav, stops) | {CODEC_START_ID}
    return Models(parts.thinker, parts.talker, parts.token2wav, CODEPOINTS, frozenset({STOP_ID}), stops, banned)


def endless(models: Models) -> Models:
    """The same, but no code ends the sound: its length is what was asked for, whatever random weights draw."""
    return replace(models, stop_codes=frozenset(), banned_codes=models.banned_codes | models.stop_codes)


def random_voice(config: OmniConfig, seed: int = 1) -> Voice:
    assert config.token2wav is not None
    dit = config.token2wav.dit
    draw = torch.Generator().manual_seed(seed)
    vector = torch.randn(dit.enc_emb_dim, generator=draw)
    return Voice("Bench", VOICE_BOS_ID, vector, torch.randn(REF_FRAMES, dit.mel_dim, generator=draw))


def prepared_voice(models: Models, config: OmniConfig) -> PreparedVoice:
    """``random_voice`` as the models use it."""
    assert models.token2wav is not None
    return models.token2wav.prepare_voice(random_voice(config))


def random_sound(seconds: float, seed: int = 3) -> npt.NDArray[np.float32]:
    """Noise at 16 kHz (W,)."""
    drawn = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * HEARD_RATE_HZ))
    return drawn.astype(np.float32)


def random_prompt(length: int, seed: int = 2) -> PromptTokens:
    ids = torch.randint(0, ORDINARY_IDS, (length,), generator=torch.Generator().manual_seed(seed))
    return text_tokens(ids)


def request(
    prompt: PromptTokens, voice: PreparedVoice, words: int, codes: int, decoding: Decoding | None = None
) -> Request:
    """A spoken, greedy answer. Its clock starts now."""
    speech = Sampling(repetition_penalty=TALKER_PENALTY, max_tokens=codes)
    text = Sampling(max_tokens=words)
    decoding = decoding or decoding_for("balanced")
    return Request(prompt, AnswerSettings(text, speech, decoding, 0, voice))
