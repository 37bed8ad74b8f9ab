"""Parameter counts of the official sizes, on the meta device: the numbers of the released checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from descant.config import AudioConfig, DecoderConfig, MediaIds, TalkerConfig, ThinkerConfig, VisionConfig
from descant.model.talker import Talker
from descant.model.thinker import Thinker

IDS = MediaIds(151646, 151655, 151656, 151647, 151648, 151652, 151653)
SECTION = (16, 24, 24)


def thinker(text: DecoderConfig) -> Thinker:
    audio = AudioConfig(128, 32, 20, 1280, 5120, text.hidden_size)
    vision = VisionConfig(32, 1280, 16, 3420, text.hidden_size, (7, 15, 23, 31))
    with torch.device("meta"):
        return Thinker(ThinkerConfig(text, audio, vision, IDS, pad_id=151643, eos_id=151645))


def talker(decoder: DecoderConfig) -> Talker:
    with torch.device("meta"):
        return Talker(TalkerConfig(decoder, IDS, 151861, 151859, 8293, 8294, 8292, 8296))


THINKERS = {
    "7b": DecoderConfig(152064, 3584, 3584, 18944, 28, 28, 4, 128, SECTION),
    "3b": DecoderConfig(151936, 2048, 2048, 11008, 36, 16, 2, 128, SECTION),
}
TALKERS = {
    "7b": DecoderConfig(8448, 3584, 896, 18944, 24, 12, 4, 128, SECTION),
    "3b": DecoderConfig(8448, 2048, 896, 4864, 24, 14, 2, 64, (16, 16, 0)),
}
COUNTS = {
    "7b": {
        "audio": 639_647_232,
        "vision": 676_550_144,
        "decoder": 7_070_619_136,
        "lm_head": 544_997_376,
        "thinker": 8_931_813_888,
        "proj": 3_212_160,
        "talker.decoder": 1_340_578_688,
        "codec_head": 7_569_408,
        "talker": 1_351_360_256,
    },
    "3b": {
        "audio": 637_676_544,
        "vision": 668_684_288,
        "decoder": 3_085_938_688,
        "lm_head": 311_164_928,
        "thinker": 4_703_464_448,
        "proj": 1_835_904,
        "talker.decoder": 375_199_616,
        "codec_head": 7_569_408,
        "talker": 384_604_928,
    },
}


def count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", COUNTS)
def test_official_sizes(size: str) -> None:
    mind, mouth = thinker(THINKERS[size]), talker(TALKERS[size])
    assert {
        "audio": count(mind.audio),
        "vision": count(mind.vision),
        "decoder": count(mind.decoder),
        "lm_head": count(mind.lm_head),
        "thinker": count(mind),
        "proj": count(mouth.proj),
        "talker.decoder": count(mouth.decoder),
        "codec_head": count(mouth.codec_head),
        "talker": count(mouth),
    } == COUNTS[size]


@pytest.mark.parametrize("size", COUNTS)
def test_nothing_but_weights_is_stored(size: str) -> None:
    """No buffer: what is computed is computed, so a model built on the meta device needs only its checkpoint."""
    for model in (thinker(THINKERS[size]), talker(TALKERS[size])):
        assert not list(model.buffers())
