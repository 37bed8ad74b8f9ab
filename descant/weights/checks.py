"""Values that are fine one by one and impossible together. Each raises ConfigError at the key to look at."""

from __future__ import annotations

import dataclasses

from descant.config import (
    AudioConfig,
    BigVGANConfig,
    DecoderConfig,
    DiTConfig,
    EcapaConfig,
    MediaIds,
    TalkerConfig,
    ThinkerConfig,
    Token2WavConfig,
    VisionConfig,
)
from descant.weights.strict import ConfigTable


def _multiple(table: ConfigTable, name: str, value: int, of: int, what: str) -> None:
    if value % of:
        raise table.error(name, f"is {value}; expected a multiple of {of} ({what})")


def _below(table: ConfigTable, name: str, value: int, limit: int, what: str) -> None:
    if value >= limit:
        raise table.error(name, f"is {value}; expected an id below {limit} ({what})")


def check_decoder(table: ConfigTable, c: DecoderConfig) -> None:
    _multiple(table, "num_attention_heads", c.num_attention_heads, c.num_key_value_heads, "num_key_value_heads")
    _multiple(table, "head_dim", c.head_dim, 2, "rotary pairs")
    if sum(c.mrope_section) * 2 != c.head_dim:
        raise table.error(
            "rope_scaling.mrope_section",
            f"is {list(c.mrope_section)} with sum {sum(c.mrope_section)}; expected head_dim / 2 = {c.head_dim // 2}",
        )


def check_audio(table: ConfigTable, c: AudioConfig) -> None:
    _multiple(table, "d_model", c.d_model, c.encoder_attention_heads, "encoder_attention_heads")
    _multiple(table, "d_model", c.d_model, 2, "sine and cosine halves of the positions")
    if c.n_window > c.max_source_positions:
        raise table.error(
            "max_source_positions", f"is {c.max_source_positions}; expected at least n_window = {c.n_window} positions"
        )


def check_vision(table: ConfigTable, c: VisionConfig) -> None:
    _multiple(table, "hidden_size", c.hidden_size, c.num_heads, "num_heads")
    _multiple(table, "hidden_size", c.hidden_size, 4 * c.num_heads, "row and column rotary pairs of every head")
    unit = c.patch_size * c.spatial_merge_size
    _multiple(table, "window_size", c.window_size, unit, "patch_size * spatial_merge_size")
    for index in c.fullatt_block_indexes:
        if index >= c.depth:
            raise table.error("fullatt_block_indexes", f"has {index}; expected indexes below depth = {c.depth}")


def check_thinker(table: ConfigTable, c: ThinkerConfig) -> None:
    for part, name, width in (
        ("audio_config", "output_dim", c.audio.output_dim),
        ("vision_config", "out_hidden_size", c.vision.out_hidden_size),
    ):
        if width != c.text.hidden_size:
            raise table.error(f"{part}.{name}", f"is {width}; expected text_config.hidden_size = {c.text.hidden_size}")
    vocab = c.text.vocab_size
    _media_ids(table, c.ids, vocab)
    for name, value in (("text_config.pad_token_id", c.pad_id), ("text_config.eos_token_id", c.eos_id)):
        _below(table, name, value, vocab, "text_config.vocab_size; left out, the official id stands for it")


def _media_ids(table: ConfigTable, ids: MediaIds, vocab: int) -> None:
    names = {
        "audio_token_index": ids.audio,
        "image_token_index": ids.image,
        "video_token_index": ids.video,
        "audio_start_token_id": ids.audio_start,
        "audio_end_token_id": ids.audio_end,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    seen: dict[int, str] = {}
    for name, value in names.items():
        _below(table, name, value, vocab, "the Thinker's vocab_size")
        if value in seen:
            raise table.error(name, f"is {value}, the same as {seen[value]}; expected seven different ids")
        seen[value] = name


def check_talker(table: ConfigTable, c: TalkerConfig, thinker: ThinkerConfig) -> None:
    hidden = thinker.text.hidden_size
    if c.decoder.embedding_size != hidden:
        raise table.error(
            "embedding_size", f"is {c.decoder.embedding_size}; expected the Thinker's hidden_size = {hidden}"
        )
    if c.ids != thinker.ids:
        ours = dataclasses.asdict(c.ids)
        theirs = dataclasses.asdict(thinker.ids)
        name = next(n for n in ours if ours[n] != theirs[n])
        raise table.error(
            _OFFICIAL_ID.get(name, name), f"is {ours[name]}; expected {theirs[name]} as in thinker_config (one prompt)"
        )
    for name, value in (("tts_text_end_token_id", c.text_end_id), ("tts_text_pad_token_id", c.text_pad_id)):
        _below(table, name, value, thinker.text.vocab_size, "a row of the Thinker's embedding table")
    for name, value in (
        ("tts_codec_start_token_id", c.codec_start_id),
        ("tts_codec_end_token_id", c.codec_end_id),
        ("tts_codec_pad_token_id", c.codec_pad_id),
        ("tts_codec_mask_token_id", c.codec_mask_id),
    ):
        _below(table, name, value, c.decoder.vocab_size, "the Talker's vocab_size")


_OFFICIAL_ID = {
    "audio": "audio_token_index",
    "image": "image_token_index",
    "video": "video_token_index",
    "audio_start": "audio_start_token_id",
    "audio_end": "audio_end_token_id",
    "vision_start": "vision_start_token_id",
    "vision_end": "vision_end_token_id",
}


def check_dit(table: ConfigTable, c: DiTConfig) -> None:
    _multiple(table, "head_dim", c.head_dim, 2, "rotary pairs")
    _multiple(table, "hidden_size", c.hidden_size, 2, "sine and cosine halves")
    _multiple(table, "block_size", c.block_size, c.repeats, "repeats: a block is a whole number of codes")
    check_ecapa(table, c.ecapa)


def check_ecapa(table: ConfigTable, c: EcapaConfig) -> None:
    for name, values in (("enc_kernel_sizes", c.kernel_sizes), ("enc_dilations", c.dilations)):
        if len(values) != len(c.channels):
            raise table.error(name, f"has {len(values)} entries; expected {len(c.channels)} as in enc_channels")
    if len(c.channels) < 3:
        raise table.error("enc_channels", f"has {len(c.channels)} entries; expected at least 3")
    for channels in c.channels[1:-1]:
        _multiple(table, "enc_channels", channels, c.res2net_scale, "enc_res2net_scale")
    if c.channels[-1] != sum(c.channels[1:-1]):
        raise table.error(
            "enc_channels",
            f"ends with {c.channels[-1]}; expected {sum(c.channels[1:-1])}, the sum of the blocks that it joins",
        )


def check_bigvgan(table: ConfigTable, c: BigVGANConfig) -> None:
    for name, values, other, size in (
        ("upsample_kernel_sizes", c.upsample_kernel_sizes, "upsample_rates", len(c.upsample_rates)),
        ("resblock_dilation_sizes", c.resblock_dilation_sizes, "resblock_kernel_sizes", len(c.resblock_kernel_sizes)),
    ):
        if len(values) != size:
            raise table.error(name, f"has {len(values)} entries; expected {size} as in {other}")
    for rate, kernel in zip(c.upsample_rates, c.upsample_kernel_sizes, strict=True):
        if kernel < rate or (kernel - rate) % 2:
            raise table.error(
                "upsample_kernel_sizes",
                f"has {kernel} for a rate of {rate}; expected the rate, or more by an even number",
            )
    halvings = 2 ** len(c.upsample_rates)
    _multiple(table, "upsample_initial_channel", c.upsample_initial_channel, halvings, "halved at every upsample")


def check_token2wav(table: ConfigTable, c: Token2WavConfig) -> None:
    if c.vocoder.mel_dim != c.dit.mel_dim:
        raise table.error(
            "dit_config.mel_dim", f"is {c.dit.mel_dim}; expected {c.vocoder.mel_dim}, the mel_dim of the vocoder"
        )
