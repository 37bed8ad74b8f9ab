"""OmniConfig -> config.json in the official layout, with names that transformers 4.x and 5 both read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from descant.config import (
    AudioConfig,
    BigVGANConfig,
    DecoderConfig,
    DiTConfig,
    MediaIds,
    OmniConfig,
    TalkerConfig,
    ThinkerConfig,
    Token2WavConfig,
    VisionConfig,
    VocosConfig,
)
from descant.export.sidefiles import write_json

Json = dict[str, object]


def write_config(cfg: OmniConfig, folder: str | Path) -> None:
    """Write ``folder``/config.json, so that ``read_config(folder) == cfg``."""
    write_json(Path(folder) / "config.json", config_json(cfg))


def config_json(cfg: OmniConfig) -> Json:
    """The JSON object of the official layout."""
    top: Json = {
        "architectures": ["Qwen2_5OmniForConditionalGeneration"],
        "model_type": "qwen2_5_omni",
        "enable_audio_output": cfg.talker is not None,
        "thinker_config": _thinker(cfg.thinker),
    }
    if cfg.talker is not None:
        top["talker_config"] = _talker(cfg.talker, cfg.thinker)
    if cfg.token2wav is not None:
        top["token2wav_config"] = _token2wav(cfg.token2wav)
    return top


def _decoder(c: DecoderConfig) -> Json:
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": {"mrope_section": list(c.mrope_section), "rope_type": "default", "type": "default"},
        "tie_word_embeddings": c.tie_word_embeddings,
        "use_sliding_window": False,
    }


def _ids(c: MediaIds) -> Json:
    return {
        "audio_token_index": c.audio,
        "image_token_index": c.image,
        "video_token_index": c.video,
        "audio_start_token_id": c.audio_start,
        "audio_end_token_id": c.audio_end,
        "vision_start_token_id": c.vision_start,
        "vision_end_token_id": c.vision_end,
        "position_id_per_seconds": c.position_id_per_seconds,
        "seconds_per_chunk": c.seconds_per_chunk,
    }


def _thinker(c: ThinkerConfig) -> Json:
    return {
        "model_type": "qwen2_5_omni_thinker",
        **_ids(c.ids),
        "tie_word_embeddings": c.text.tie_word_embeddings,
        "text_config": {
            "model_type": "qwen2_5_omni_text",
            **_decoder(c.text),
            "pad_token_id": c.pad_id,
            "eos_token_id": c.eos_id,
        },
        "audio_config": _audio(c.audio),
        "vision_config": _vision(c.vision),
    }


def _audio(c: AudioConfig) -> Json:
    return {
        "model_type": "qwen2_5_omni_audio_encoder",
        **_plain(c),
        "activation_function": "gelu",
        "scale_embedding": False,
    }


def _vision(c: VisionConfig) -> Json:
    return {"model_type": "qwen2_5_omni_vision_encoder", **_plain(c), "hidden_act": "silu"}


def _talker(c: TalkerConfig, thinker: ThinkerConfig) -> Json:
    return {
        "model_type": "qwen2_5_omni_talker",
        "embedding_size": c.decoder.embedding_size,
        **_decoder(c.decoder),
        **_ids(c.ids),
        "spatial_merge_size": thinker.vision.spatial_merge_size,
        "tts_text_end_token_id": c.text_end_id,
        "tts_text_pad_token_id": c.text_pad_id,
        "tts_codec_start_token_id": c.codec_start_id,
        "tts_codec_end_token_id": c.codec_end_id,
        "tts_codec_pad_token_id": c.codec_pad_id,
        "tts_codec_mask_token_id": c.codec_mask_id,
    }


def _token2wav(c: Token2WavConfig) -> Json:
    out: Json = {"model_type": "qwen2_5_omni_token2wav", "dit_config": _dit(c.dit)}
    if isinstance(c.vocoder, VocosConfig):
        out["vocos_config"] = _plain(c.vocoder)
    else:
        out["bigvgan_config"] = _bigvgan(c.vocoder)
    return out


def _dit(c: DiTConfig) -> Json:
    return {
        "model_type": "qwen2_5_omni_dit",
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "head_dim": c.head_dim,
        "ff_mult": c.ff_mult,
        "emb_dim": c.emb_dim,
        "num_embeds": c.num_embeds,
        "mel_dim": c.mel_dim,
        "repeats": c.repeats,
        "block_size": c.block_size,
        "look_ahead_layers": list(c.look_ahead_layers),
        "look_backward_layers": list(c.look_backward_layers),
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.max_position_embeddings,
        "enc_emb_dim": c.enc_emb_dim,
        "enc_dim": c.ecapa.enc_dim,
        "enc_channels": list(c.ecapa.channels),
        "enc_kernel_sizes": list(c.ecapa.kernel_sizes),
        "enc_dilations": list(c.ecapa.dilations),
        "enc_attention_channels": c.ecapa.attention_channels,
        "enc_res2net_scale": c.ecapa.res2net_scale,
        "enc_se_channels": c.ecapa.se_channels,
    }


def _bigvgan(c: BigVGANConfig) -> Json:
    return {
        "model_type": "qwen2_5_omni_bigvgan",
        "mel_dim": c.mel_dim,
        "upsample_initial_channel": c.upsample_initial_channel,
        "upsample_rates": list(c.upsample_rates),
        "upsample_kernel_sizes": list(c.upsample_kernel_sizes),
        "resblock_kernel_sizes": list(c.resblock_kernel_sizes),
        "resblock_dilation_sizes": [list(row) for row in c.resblock_dilation_sizes],
    }


def _plain(value: object) -> dict[str, object]:
    """Our own dataclass as an object: its field names are keys."""
    out: dict[str, object] = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        item: object = vars(value)[field.name]
        out[field.name] = list(item) if isinstance(item, tuple) else item
    return out
