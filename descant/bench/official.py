"""The shapes of the official checkpoints, with random weights that are drawn on the device itself."""

from __future__ import annotations

from dataclasses import replace

import torch

from descant.bench import OfficialShape
from descant.bench.shapes import CODE_IDS, IDS, codec
from descant.bench.shapes import omni as small_omni
from descant.config import (
    AudioConfig,
    DecoderConfig,
    OmniConfig,
    TalkerConfig,
    ThinkerConfig,
    VisionConfig,
)
from descant.weights.checkpoint import assign_tensor, fill_computed, kept_dtype
from descant.weights.parts import Parts, build_on_meta

OFFICIAL_CODES = 8193

TEXT: dict[OfficialShape, DecoderConfig] = {
    "7b": DecoderConfig(152064, 3584, 3584, 18944, 28, 28, 4, 128, (16, 24, 24)),
    "3b": DecoderConfig(151936, 2048, 2048, 11008, 36, 16, 2, 128, (16, 24, 24)),
}
TALKER: dict[OfficialShape, DecoderConfig] = {
    "7b": DecoderConfig(CODE_IDS, 3584, 896, 18944, 24, 12, 4, 128, (16, 24, 24)),
    "3b": DecoderConfig(CODE_IDS, 2048, 896, 4864, 24, 14, 2, 64, (16, 16, 0)),
}


def official_config(shape: OfficialShape, *, code_rows: int = CODE_IDS) -> OmniConfig:
    """The config of an official checkpoint; code_rows: of the DiT's table, less its null."""
    text = TEXT[shape]
    made = small_omni(text, TALKER[shape], codec(1024, 22, 1536))
    assert made.talker is not None and made.token2wav is not None
    audio = AudioConfig(128, 32, 20, 1280, 5120, text.hidden_size)
    vision = VisionConfig(32, 1280, 16, 3420, text.hidden_size, (7, 15, 23, 31))
    thinker = ThinkerConfig(text, audio, vision, IDS, made.thinker.pad_id, made.thinker.eos_id)
    dit = replace(made.token2wav.dit, num_embeds=code_rows, look_ahead_layers=(10,), look_backward_layers=(0, 20))
    talker = TalkerConfig(**{**vars(made.talker), "decoder": TALKER[shape]})
    return OmniConfig(thinker, talker, replace(made.token2wav, dit=dit))


def random_on(config: OmniConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Parts:
    """Weights of about unit gain, drawn on the device; Thinker and Talker in ``dtype``."""
    parts = build_on_meta(config)
    generator = torch.Generator(device).manual_seed(seed)
    for name, shape in parts.tensors().items():
        value = torch.zeros(shape.shape, dtype=kept_dtype(name, dtype), device=device)
        if value.ndim > 1:
            value.normal_(0.0, 0.8 / value[0].numel() ** 0.5, generator=generator)
        elif name.endswith(".weight"):  # of a norm
            value.fill_(1.0)
        assign_tensor(parts, name, value)
    fill_computed(config, parts, device)
    for part in parts.named().values():
        part.eval().requires_grad_(False)
    return parts
