"""A whole system of a few thousand random weights: enough to run every step of an answer in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from descant.config import (
    AudioConfig,
    DecoderConfig,
    DiTConfig,
    EcapaConfig,
    MediaIds,
    TalkerConfig,
    ThinkerConfig,
    Token2WavConfig,
    VisionConfig,
    VocosConfig,
)
from descant.engine.models import Models, codes_beyond_table
from descant.engine.session import AnswerSettings, Request
from descant.export.tokenizer import byte_tokenizer
from descant.inputs.tokenizer import (
    AUDIO,
    AUDIO_BOS,
    AUDIO_EOS,
    IM_END,
    IMAGE,
    VIDEO,
    VISION_BOS,
    VISION_EOS,
    Tokenizer,
)
from descant.model.codec import PreparedVoice, Token2Wav
from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.tokens import PromptTokens, text_tokens
from descant.types import Decoding, Sampling, Voice

CODEC_PAD, CODEC_START, CODEC_END, CODEC_MASK, CODE_IDS = 50, 51, 52, 53, 56  # the DiT's table has 44 rows
TOKENIZER = Tokenizer(byte_tokenizer(["system", "user", "assistant"]))
TEXT_PAD, TEXT_END, BOS = (TOKENIZER.vocab_size + i for i in range(3))
STOP = TOKENIZER.special(IM_END)
FAST = Decoding(first=1, now=1, ahead=1, solver="euler", points=3, early=True)
GREEDY = Sampling(max_tokens=12)


def body(vocab: int, embedding: int, hidden: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=vocab, embedding_size=embedding, hidden_size=hidden, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, mrope_section=(2, 1, 1), rope_theta=1e4,
    )  # fmt: skip


def media_ids() -> MediaIds:
    names = AUDIO, IMAGE, VIDEO, AUDIO_BOS, AUDIO_EOS, VISION_BOS, VISION_EOS
    return MediaIds(*(TOKENIZER.special(name) for name in names))


def thinker_config() -> ThinkerConfig:
    return ThinkerConfig(
        text=body(TOKENIZER.vocab_size + 3, 16, 16),
        audio=AudioConfig(8, 1, 2, 16, 16, 16),
        vision=VisionConfig(1, 16, 2, 16, 16, (0,), window_size=56),
        ids=media_ids(),
        pad_id=0,
        eos_id=STOP,
    )


def talker_config() -> TalkerConfig:
    return TalkerConfig(
        body(CODE_IDS, 16, 16), media_ids(), TEXT_END, TEXT_PAD, CODEC_START, CODEC_END, CODEC_PAD, CODEC_MASK
    )


def token2wav_config() -> Token2WavConfig:
    ecapa = EcapaConfig(8, 4, (8, 8, 8, 8, 24), attention_channels=4, se_channels=4)
    dit = DiTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8, ff_mult=1, emb_dim=8, num_embeds=43,
        mel_dim=8, repeats=4, enc_emb_dim=6, ecapa=ecapa, look_ahead_layers=(0,), look_backward_layers=(1,),
    )  # fmt: skip
    return Token2WavConfig(dit, VocosConfig(8, 16, 1, 16))


def randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 25.0
            weight.copy_(torch.randn(weight.shape, generator=generator) * 1.5 / fan_in**0.5)


@lru_cache
def models(seed: int = 0) -> Models:
    """A fresh system; the same object for the same seed."""
    thinker, talker = Thinker(thinker_config()).eval(), Talker(talker_config()).eval()
    token2wav = Token2Wav(token2wav_config()).eval()
    for offset, module in enumerate((thinker, talker, token2wav)):
        randomise(module, 10 * seed + offset)
    stops = frozenset({CODEC_PAD, CODEC_END})
    banned = codes_beyond_table(talker, token2wav, stops) | {CODEC_START}
    return Models(thinker, talker, token2wav, TOKENIZER, frozenset({STOP}), stops, banned)


@lru_cache
def voice(seed: int = 0) -> PreparedVoice:
    draw = torch.Generator().manual_seed(seed)
    made = Voice("Test", BOS, torch.randn(6, generator=draw), torch.randn(30, 8, generator=draw))
    token2wav = models().token2wav
    assert token2wav is not None
    return token2wav.prepare_voice(made)


def prompt(text: str = "user: hello there") -> PromptTokens:
    return text_tokens(TOKENIZER.encode(text))


def request(question: str = "user: hello there", **changes: object) -> Request:
    """A spoken, greedy answer of at most 12 tokens and 40 codes."""
    given = {"prompt": prompt(question)}
    given |= {name: changes.pop(name) for name in ("prompt", "clock") if name in changes}
    return Request(settings=settings(**changes), **given)  # type: ignore[arg-type]


def settings(**changes: object) -> AnswerSettings:
    """Greedy, with a voice: at most 12 tokens and 40 codes."""
    base = AnswerSettings(GREEDY, Sampling(repetition_penalty=1.05, max_tokens=40), FAST, 0, voice())
    return replace(base, **changes)  # type: ignore[arg-type]


def rows_of(ids: list[int], text: str = "user: hello there") -> Tensor:
    """h + e of each reply token, (G, E), computed in one pass over prompt and reply together."""
    thinker, start = models().thinker, len(prompt(text).ids)
    both = torch.cat([prompt(text).ids, torch.tensor(ids)])
    with torch.no_grad():
        embeds = thinker.embed_tokens(both)[None]
        hidden = thinker(embeds, torch.arange(len(both)).expand(3, 1, -1))
    return (hidden + embeds)[0, start:]
