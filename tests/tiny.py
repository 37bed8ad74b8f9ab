"""Tiny model folders for everyone's tests, in the official layout, written to disk.

``write_reference`` goes through transformers (``save_pretrained``: several shards and an index), so its files are
what an official checkpoint has. ``write_descant`` makes the same shapes with our own modules and writer.
Both come in the proportions of the 7B ("7b": query width != hidden) and of the 3B ("3b": a section of 0).
"""

# ruff: noqa: C408 - keywords read like the JSON they become

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

from descant.config import (
    AudioConfig,
    BigVGANConfig,
    DecoderConfig,
    DiTConfig,
    EcapaConfig,
    InputsConfig,
    MediaIds,
    OmniConfig,
    TalkerConfig,
    ThinkerConfig,
    Token2WavConfig,
    VisionConfig,
    VocosConfig,
)
from descant.types import Voice

Shape = Literal["7b", "3b"]

# ---------------------------------------------------------------- ids: bytes, merges, 22 specials, rows without text

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>",
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
WORDS = ("system", "user", "assistant")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in WORDS:
        left = word[0]
        for char in word[1:]:
            if left + char not in vocab:
                merges.append((left, char))
                vocab[left + char] = len(vocab)
            left += char
    return vocab, merges


_VOCAB, _MERGES = _vocabulary()
ID = {name: len(_VOCAB) + i for i, name in enumerate(SPECIALS)}
TEXT_PAD, TEXT_START, TEXT_END, CHELSIE, ETHAN = (len(_VOCAB) + len(SPECIALS) + i for i in range(5))
VOCAB = 320  # a few rows more than there are ids, as in the official files
CODEC = dict(pad=92, start=93, end=94, mask=96)
CODES = 100  # the Talker's vocabulary; the DiT's table has as many rows, so that no drawn code is out of range
MELS, ENC_EMB, REF_FRAMES = 20, 12, 16
IDS = MediaIds(
    audio=ID["<|AUDIO|>"],
    image=ID["<|IMAGE|>"],
    video=ID["<|VIDEO|>"],
    audio_start=ID["<|audio_bos|>"],
    audio_end=ID["<|audio_eos|>"],
    vision_start=ID["<|vision_bos|>"],
    vision_end=ID["<|vision_eos|>"],
)
MAX_PIXELS = 16 * 28 * 28


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer.json with the official special tokens; nearly every character is a token."""
    tokenizer = Tokenizer(models.BPE(vocab=dict(_VOCAB), merges=list(_MERGES)))
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    assert {name: tokenizer.token_to_id(name) for name in SPECIALS} == ID
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = dict(
        tokenizer_class="Qwen2Tokenizer", model_max_length=32768, padding_side="left", eos_token="<|im_end|>",
        pad_token="<|endoftext|>", bos_token=None,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_side_files(folder: Path, own: dict[str, object] | None = None, seed: int = 0) -> None:
    """Tokenizer, preprocessor_config.json, generation_config.json and spk_dict.pt in the official forms.

    ``own``: the object ``descant`` of preprocessor_config.json, for tests that want small videos or other turns.
    """
    write_tokenizer(folder)
    mean, std = InputsConfig().image_mean, InputsConfig().image_std
    preprocessor: dict[str, object] = dict(
        chunk_length=300, dither=0.0, feature_extractor_type="WhisperFeatureExtractor", feature_size=128,
        hop_length=160, image_mean=list(mean), image_processor_type="Qwen2VLImageProcessor", image_std=list(std),
        max_pixels=MAX_PIXELS, merge_size=2, min_pixels=3136, n_fft=400, n_samples=4800000, nb_max_frames=30000,
        padding_side="left", padding_value=0.0, patch_size=14, processor_class="Qwen2_5OmniProcessor",
        return_attention_mask=True, sampling_rate=16000, temporal_patch_size=2,
    )  # fmt: skip
    if own is not None:
        preprocessor["descant"] = own
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    generation = dict(
        eos_token_id=[ID["<|im_end|>"], ID["<|endoftext|>"]], pad_token_id=ID["<|endoftext|>"], use_cache=True,
        transformers_version="5.23.0",
    )  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(generation))
    torch.save(speakers(seed), folder / "spk_dict.pt")


def speakers(seed: int = 0) -> dict[str, dict[str, Any]]:
    """What spk_dict.pt holds: name -> bos_token, cond (1, D), ref_mel (1, T, M)."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: {
            "bos_token": token,
            "cond": torch.randn(1, ENC_EMB, generator=random),
            "ref_mel": torch.randn(1, frames, MELS, generator=random),
        }
        for name, token, frames in (("Ethan", ETHAN, REF_FRAMES + 4), ("Chelsie", CHELSIE, REF_FRAMES))
    }


def enliven(model: nn.Module, seed: int = 0) -> None:
    """Random weights large enough that every formula matters; the same seed gives the same weights in both writers
    only if parameter order agrees, so compare through files, not through seeds."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.ndim == 1:
                parameter.copy_(parameter.round().clamp(0, 1) + 0.1 * noise)
            elif "embed" in name and "proj" not in name and "mlp" not in name:
                parameter.copy_(noise)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * 1.2 / fan_in**0.5)


# ---------------------------------------------------------------- through transformers


def reference_config(shape: Shape = "7b", *, tied: bool = False) -> Any:
    """The transformers config of a tiny whole model."""
    from transformers import Qwen2_5OmniConfig

    ids = dict(
        audio_token_index=IDS.audio, image_token_index=IDS.image, video_token_index=IDS.video,
        audio_start_token_id=IDS.audio_start, audio_end_token_id=IDS.audio_end,
        vision_start_token_id=IDS.vision_start, vision_end_token_id=IDS.vision_end,
    )  # fmt: skip
    text = dict(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2 if shape == "7b" else 1, tie_word_embeddings=tied, max_position_embeddings=4096,
        rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3]),
        pad_token_id=ID["<|endoftext|>"], eos_token_id=ID["<|im_end|>"], bos_token_id=ID["<|im_start|>"],
    )  # fmt: skip
    audio = dict(
        num_mel_bins=128, encoder_layers=2, encoder_attention_heads=4, d_model=32, encoder_ffn_dim=64, output_dim=64
    )
    vision = dict(
        depth=4, hidden_size=32, num_heads=4, intermediate_size=48, out_hidden_size=64, fullatt_block_indexes=[1, 3]
    )
    body: dict[str, Any] = dict(hidden_size=32, num_attention_heads=3, num_key_value_heads=1, head_dim=16)
    section = [2, 3, 3]
    if shape == "3b":
        body = dict(hidden_size=56, num_attention_heads=7, num_key_value_heads=1, head_dim=8)
        section = [2, 2, 0]
    talker = dict(
        vocab_size=CODES, embedding_size=64, intermediate_size=72, num_hidden_layers=2, max_position_embeddings=4096,
        rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=section), **body, **ids,
        tts_text_start_token_id=TEXT_START, tts_text_end_token_id=TEXT_END, tts_text_pad_token_id=TEXT_PAD,
        tts_codec_start_token_id=CODEC["start"], tts_codec_end_token_id=CODEC["end"],
        tts_codec_pad_token_id=CODEC["pad"], tts_codec_mask_token_id=CODEC["mask"],
    )  # fmt: skip
    dit = dict(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, head_dim=16, ff_mult=2, emb_dim=16,
        num_embeds=CODES - 1, mel_dim=MELS, repeats=2, look_ahead_layers=[1], look_backward_layers=[0, 3],
        enc_emb_dim=ENC_EMB, enc_dim=8, enc_channels=[16, 16, 16, 16, 48], enc_attention_channels=8, enc_se_channels=8,
    )  # fmt: skip
    thinker = dict(
        text_config=text, audio_config=audio, vision_config=vision, tie_word_embeddings=tied,
        pad_token_id=ID["<|endoftext|>"], **ids,
    )  # fmt: skip
    token2wav = dict(dit_config=dit, bigvgan_config=dict(mel_dim=MELS, upsample_initial_channel=64))
    return Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, token2wav_config=token2wav)


def write_reference(
    folder: Path, shape: Shape = "7b", *, tied: bool = False, seed: int = 0, own: dict[str, object] | None = None
) -> Path:
    """A whole official-layout folder made by transformers, in several shards. Returns ``folder``."""
    from transformers import Qwen2_5OmniForConditionalGeneration

    model = Qwen2_5OmniForConditionalGeneration(reference_config(shape, tied=tied))
    enliven(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size="400KB")
    write_side_files(folder, own, seed)
    return folder


# ---------------------------------------------------------------- through our own modules


def descant_config(
    shape: Shape = "7b", *, tied: bool = False, vocoder: Literal["bigvgan", "vocos"] = "bigvgan"
) -> OmniConfig:
    """The same shapes as ``reference_config``; with "vocos" the other vocoder."""
    text = DecoderConfig(
        vocab_size=VOCAB, embedding_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2 if shape == "7b" else 1, head_dim=16, mrope_section=(2, 3, 3),
        rope_theta=1e4, max_position_embeddings=4096, tie_word_embeddings=tied,
    )  # fmt: skip
    seven = shape == "7b"
    body = DecoderConfig(
        vocab_size=CODES, embedding_size=64, hidden_size=32 if seven else 56, intermediate_size=72,
        num_hidden_layers=2, num_attention_heads=3 if seven else 7, num_key_value_heads=1,
        head_dim=16 if seven else 8, mrope_section=(2, 3, 3) if seven else (2, 2, 0), rope_theta=1e4,
        max_position_embeddings=4096,
    )  # fmt: skip
    thinker = ThinkerConfig(
        text=text,
        audio=AudioConfig(128, 2, 4, 32, 64, 64),
        vision=VisionConfig(4, 32, 4, 48, 64, (1, 3)),
        ids=IDS,
        pad_id=ID["<|endoftext|>"],
        eos_id=ID["<|im_end|>"],
    )
    talker = TalkerConfig(
        decoder=body, ids=IDS, text_end_id=TEXT_END, text_pad_id=TEXT_PAD, codec_start_id=CODEC["start"],
        codec_end_id=CODEC["end"], codec_pad_id=CODEC["pad"], codec_mask_id=CODEC["mask"],
    )  # fmt: skip
    dit = DiTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, head_dim=16, ff_mult=2, emb_dim=16,
        num_embeds=CODES - 1, mel_dim=MELS, repeats=2, enc_emb_dim=ENC_EMB,
        ecapa=EcapaConfig(MELS, 8, (16, 16, 16, 16, 48), attention_channels=8, se_channels=8),
        look_ahead_layers=(1,), look_backward_layers=(0, 3),
    )  # fmt: skip
    sound: BigVGANConfig | VocosConfig = VocosConfig(MELS, 16, 2, 24)
    if vocoder == "bigvgan":
        sound = BigVGANConfig(MELS, 64, (5, 3, 2, 2, 2, 2), (11, 7, 4, 4, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3)
    return OmniConfig(thinker, talker, Token2WavConfig(dit, sound))


def write_descant(
    folder: Path,
    shape: Shape = "7b",
    *,
    tied: bool = False,
    vocoder: Literal["bigvgan", "vocos"] = "vocos",
    seed: int = 0,
    own: dict[str, object] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """A whole folder made by our own modules and writer, in one file. Returns ``folder``."""
    from descant.export.checkpoint import save_weights
    from descant.export.config import write_config
    from descant.weights.parts import build_parts

    config = descant_config(shape, tied=tied, vocoder=vocoder)
    parts = build_parts(config)
    for part in parts.named().values():
        enliven(part, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(config, folder)
    write_side_files(folder, own, seed)
    save_weights(parts, folder, dtype)
    return folder


def voices(seed: int = 0) -> dict[str, Voice]:
    """The voices of ``spk_dict.pt`` as the package knows them, the default first."""
    rows = speakers(seed)
    tensors: dict[str, tuple[int, Tensor, Tensor]] = {
        name: (rows[name]["bos_token"], rows[name]["cond"][0], rows[name]["ref_mel"][0])
        for name in ("Chelsie", "Ethan")
    }
    return {name: Voice(name, *row) for name, row in tensors.items()}
