"""config.json <-> OmniConfig, strictly: every key is known by name, every size comes from the file.

Read: the official layout (transformers 4.x: ``rope_theta`` + ``rope_scaling``; DiT ``dim``/``depth``/``heads``) and the
layout that transformers 5 writes (``rope_parameters``; ``hidden_size``...). Written: names that both of them read.
One key is our own: ``token2wav_config.vocos_config`` stands in place of ``bigvgan_config`` in models with that vocoder.
"""

from __future__ import annotations

from pathlib import Path

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
    VocosConfig,
)
from descant.weights import checks, inert
from descant.weights.plain import read_plain
from descant.weights.strict import MAX_LAYERS, ConfigTable, read_json

# the ids of the official vocabulary, for files that leave them out (transformers 5 drops them on saving)
OFFICIAL_VISION_START = 151652
OFFICIAL_VISION_END = 151653
OFFICIAL_PAD = 151643
OFFICIAL_EOS = 151645
MODEL_TYPE = "qwen2_5_omni"
THINKER_TYPE = "qwen2_5_omni_thinker"
MAX_BLOCK_FRAMES = 2400  # mel frames: 24 s, a hundred times the official block


def read_config(folder: str | Path) -> OmniConfig:
    """Read ``folder``/config.json, of a whole model or of a Thinker that was saved alone.

    Raises ConfigError naming the full dotted key of whatever is wrong.
    """
    data = read_json(Path(folder) / "config.json")
    if data.get("model_type") == THINKER_TYPE:
        data = {"model_type": MODEL_TYPE, "thinker_config": data}
    return parse_config(ConfigTable(data, "config.json"))


def parse_config(top: ConfigTable) -> OmniConfig:
    """The whole file as an OmniConfig. talker and token2wav are None where sound is off or the Talker is absent."""
    _known(top, inert.TOP_KEYS)
    top.expect("model_type", MODEL_TYPE)
    _refuse_quantised(top)
    talker_table = top.maybe_table("talker_config")
    wav_table = top.maybe_table("token2wav_config")
    speaks = top.flag("enable_audio_output", True) and talker_table is not None
    thinker = _thinker(top.table("thinker_config"), talker_table)
    talker = None
    token2wav = None
    if speaks and talker_table is not None:
        talker = _talker(talker_table, thinker)
        token2wav = _token2wav(wav_table if wav_table is not None else top.table("token2wav_config"))
    top.close()
    return OmniConfig(thinker, talker, token2wav)


def _known(table: ConfigTable, names: tuple[str, ...]) -> None:
    """The keys that change nothing; and the base class's switches that would, if they were on."""
    table.ignore(*inert.BASE_KEYS, *names)
    for switch in ("add_cross_attention", "is_decoder", "is_encoder_decoder", "tie_encoder_decoder"):
        table.expect(switch, False)
    table.expect("pruned_heads", {})


def _refuse_quantised(top: ConfigTable) -> None:
    top.known.add("quantization_config")
    if top.has("quantization_config"):
        raise top.error(
            "quantization_config", "is present; expected a float checkpoint", "Use the release without -AWQ or -GPTQ."
        )


def _rope(table: ConfigTable, axes: bool) -> tuple[float, tuple[int, ...]]:
    """(theta, mrope_section) from the old pair of keys or from the new object; () where ``axes`` is off."""
    new = table.maybe_table("rope_parameters")
    old = table.maybe_table("rope_scaling")
    found: list[tuple[float | None, tuple[int, ...] | None]] = []
    for part in (new, old):
        if part is None:
            continue
        for kind in ("rope_type", "type"):
            part.expect(kind, "default", "mrope")  # "mrope" is the older spelling of the same thing
        theta = part.number("rope_theta", low=1.0) if part.has("rope_theta") else None
        part.ignore("rope_theta")
        section = part.integers("mrope_section", minimum=0) if axes else None
        part.close()
        found.append((theta, section))
    if table.has("rope_theta"):
        found.append((table.number("rope_theta", low=1.0), None))
    table.ignore("rope_theta")
    thetas = {theta for theta, _ in found if theta is not None}
    sections = {section for _, section in found if section is not None}
    if len(thetas) > 1 or len(sections) > 1:
        raise table.error("rope_parameters", "and rope_scaling/rope_theta disagree; expected one set of values")
    if axes and not sections:
        raise table.error("rope_scaling.mrope_section", "is missing; expected a list of three integers")
    if axes and not thetas:
        raise table.error("rope_theta", "is missing; expected a number >= 1")
    return (thetas.pop() if thetas else 10000.0), (sections.pop() if sections else ())


def _decoder(table: ConfigTable, embedding_size: int, tie: bool) -> DecoderConfig:
    """The keys that the Thinker's text body and the Talker share."""
    theta, section = _rope(table, axes=True)
    if len(section) != 3:
        raise table.error("rope_scaling.mrope_section", f"is {list(section)}; expected three integers (T, H, W)")
    hidden = table.integer("hidden_size")
    heads = table.integer("num_attention_heads")
    layers = table.integer("num_hidden_layers", maximum=MAX_LAYERS)
    table.expect("hidden_act", "silu")
    table.expect("use_sliding_window", False)
    table.expect("layer_types", ["full_attention"] * layers)
    config = DecoderConfig(
        vocab_size=table.integer("vocab_size"),
        embedding_size=embedding_size,
        hidden_size=hidden,
        intermediate_size=table.integer("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=table.integer("num_key_value_heads"),
        head_dim=table.integer("head_dim", hidden // heads),
        mrope_section=(section[0], section[1], section[2]),
        rope_theta=theta,
        rms_norm_eps=table.number("rms_norm_eps"),
        max_position_embeddings=table.integer("max_position_embeddings"),
        tie_word_embeddings=tie,
    )
    checks.check_decoder(table, config)
    return config


def _ids(table: ConfigTable, vision: tuple[int, int]) -> MediaIds:
    return MediaIds(
        audio=table.integer("audio_token_index", minimum=0, aliases=("audio_token_id",)),
        image=table.integer("image_token_index", minimum=0, aliases=("image_token_id",)),
        video=table.integer("video_token_index", minimum=0, aliases=("video_token_id",)),
        audio_start=table.integer("audio_start_token_id", minimum=0),
        audio_end=table.integer("audio_end_token_id", minimum=0),
        vision_start=table.integer("vision_start_token_id", vision[0], minimum=0),
        vision_end=table.integer("vision_end_token_id", vision[1], minimum=0),
        position_id_per_seconds=table.integer("position_id_per_seconds", MediaIds.position_id_per_seconds),
        seconds_per_chunk=table.integer("seconds_per_chunk", MediaIds.seconds_per_chunk),
    )


def _special(text: ConfigTable, thinker: ConfigTable, name: str, official: int) -> int:
    """A token id that the files give at either level, or leave out; where it is a list the first is the model's own."""
    for table in (text, thinker):
        if table.has(name):
            ids = table.integers(name, minimum=0, scalar=True)
            if not ids:
                raise table.error(name, "is an empty list; expected a token id")
            text.ignore(name)
            thinker.ignore(name)
            return ids[0]
    text.ignore(name)
    thinker.ignore(name)
    return official


def _thinker(table: ConfigTable, talker: ConfigTable | None) -> ThinkerConfig:
    _known(table, inert.THINKER_KEYS)
    table.expect("model_type", THINKER_TYPE)
    text_table = table.table("text_config")
    _known(text_table, inert.TEXT_KEYS)
    text_table.expect("model_type", "qwen2_5_omni_text", "qwen2")
    # the Thinker's own flag decides; older files have only the text body's. A head that is stored is not tied all the
    # same (checkpoint.as_stored): in some files the flag is the base class's, and was never set.
    tie = table.flag("tie_word_embeddings", text_table.flag("tie_word_embeddings", False))
    text = _decoder(text_table, text_table.integer("hidden_size"), tie)
    pad_id = _special(text_table, table, "pad_token_id", OFFICIAL_PAD)
    eos_id = _special(text_table, table, "eos_token_id", OFFICIAL_EOS)
    text_table.close()
    vision = (OFFICIAL_VISION_START, OFFICIAL_VISION_END)
    if talker is not None:
        names = ("vision_start_token_id", "vision_end_token_id")
        vision = (talker.integer(names[0], vision[0], minimum=0), talker.integer(names[1], vision[1], minimum=0))
    config = ThinkerConfig(
        text=text,
        audio=_audio(table.table("audio_config")),
        vision=_vision(table.table("vision_config"), table),
        ids=_ids(table, vision),
        pad_id=pad_id,
        eos_id=eos_id,
    )
    checks.check_thinker(table, config)
    table.close()
    return config


def _audio(table: ConfigTable) -> AudioConfig:
    _known(table, inert.AUDIO_KEYS)
    table.expect("model_type", "qwen2_5_omni_audio_encoder")
    table.expect("activation_function", "gelu")
    table.expect("scale_embedding", False)
    config = AudioConfig(
        num_mel_bins=table.integer("num_mel_bins"),
        encoder_layers=table.integer("encoder_layers", aliases=("num_hidden_layers",), maximum=MAX_LAYERS),
        encoder_attention_heads=table.integer("encoder_attention_heads", aliases=("num_attention_heads",)),
        d_model=table.integer("d_model", aliases=("hidden_size",)),
        encoder_ffn_dim=table.integer("encoder_ffn_dim", aliases=("intermediate_size",)),
        output_dim=table.integer("output_dim"),
        n_window=table.integer("n_window", AudioConfig.n_window),
        max_source_positions=table.integer("max_source_positions", AudioConfig.max_source_positions),
    )
    checks.check_audio(table, config)
    table.close()
    return config


def _vision(table: ConfigTable, thinker: ConfigTable) -> VisionConfig:
    _known(table, inert.VISION_KEYS)
    table.expect("model_type", "qwen2_5_omni_vision_encoder")
    table.expect("hidden_act", "silu")
    clock = thinker.integer("position_id_per_seconds", MediaIds.position_id_per_seconds)
    table.expect("tokens_per_second", clock)
    rope = table.maybe_table("rope_parameters")
    if rope is not None:
        rope.expect("rope_type", "axial", "default")
        rope.expect("rope_theta", 10000.0)
        rope.close()
    config = VisionConfig(
        depth=table.integer("depth", aliases=("num_hidden_layers",), maximum=MAX_LAYERS),
        hidden_size=table.integer("hidden_size", aliases=("embed_dim",)),
        num_heads=table.integer("num_heads", aliases=("num_attention_heads",)),
        intermediate_size=table.integer("intermediate_size"),
        out_hidden_size=table.integer("out_hidden_size"),
        fullatt_block_indexes=table.integers("fullatt_block_indexes", minimum=0),
        patch_size=table.integer("patch_size", VisionConfig.patch_size, aliases=("spatial_patch_size",)),
        temporal_patch_size=table.integer("temporal_patch_size", VisionConfig.temporal_patch_size),
        spatial_merge_size=table.integer("spatial_merge_size", VisionConfig.spatial_merge_size),
        window_size=table.integer("window_size", VisionConfig.window_size),
        in_channels=table.integer("in_channels", VisionConfig.in_channels, aliases=("in_chans",)),
    )
    checks.check_vision(table, config)
    table.close()
    return config


def _talker(table: ConfigTable, thinker: ThinkerConfig) -> TalkerConfig:
    _known(table, inert.TALKER_KEYS)
    table.expect("model_type", "qwen2_5_omni_talker")
    table.expect("spatial_merge_size", thinker.vision.spatial_merge_size)
    table.expect("tie_word_embeddings", False)
    config = TalkerConfig(
        decoder=_decoder(table, table.integer("embedding_size"), tie=False),
        ids=_ids(table, (thinker.ids.vision_start, thinker.ids.vision_end)),
        text_end_id=table.integer("tts_text_end_token_id", minimum=0),
        text_pad_id=table.integer("tts_text_pad_token_id", minimum=0),
        codec_start_id=table.integer("tts_codec_start_token_id", minimum=0),
        codec_end_id=table.integer("tts_codec_end_token_id", minimum=0),
        codec_pad_id=table.integer("tts_codec_pad_token_id", minimum=0),
        codec_mask_id=table.integer("tts_codec_mask_token_id", minimum=0),
    )
    checks.check_talker(table, config, thinker)
    table.close()
    return config


def _token2wav(table: ConfigTable) -> Token2WavConfig:
    _known(table, inert.TOKEN2WAV_KEYS)
    table.expect("model_type", "qwen2_5_omni_token2wav")
    dit = _dit(table.table("dit_config"))
    vocos = table.maybe_table("vocos_config")
    vocoder: BigVGANConfig | VocosConfig
    if vocos is not None:
        table.expect("bigvgan_config", None)  # one vocoder
        vocoder = read_plain(VocosConfig, vocos)
    else:
        vocoder = _bigvgan(table.table("bigvgan_config"))
    config = Token2WavConfig(dit, vocoder)
    checks.check_token2wav(table, config)
    table.close()
    return config


def _dit(table: ConfigTable) -> DiTConfig:
    _known(table, inert.DIT_KEYS)
    table.expect("model_type", "qwen2_5_omni_dit")
    hidden = table.integer("hidden_size", aliases=("dim",))
    heads = table.integer("num_attention_heads", aliases=("heads",))
    theta, _ = _rope(table, axes=False)
    config = DiTConfig(
        hidden_size=hidden,
        num_hidden_layers=table.integer("num_hidden_layers", aliases=("depth",), maximum=MAX_LAYERS),
        num_attention_heads=heads,
        head_dim=table.integer("head_dim", hidden // heads),
        ff_mult=table.integer("ff_mult"),
        emb_dim=table.integer("emb_dim"),
        num_embeds=table.integer("num_embeds"),
        mel_dim=table.integer("mel_dim"),
        repeats=table.integer("repeats"),
        enc_emb_dim=table.integer("enc_emb_dim"),
        ecapa=EcapaConfig(
            mel_dim=table.integer("mel_dim"),
            enc_dim=table.integer("enc_dim"),
            channels=table.integers("enc_channels"),
            kernel_sizes=table.integers("enc_kernel_sizes", EcapaConfig.kernel_sizes),
            dilations=table.integers("enc_dilations", EcapaConfig.dilations),
            attention_channels=table.integer("enc_attention_channels", EcapaConfig.attention_channels),
            res2net_scale=table.integer("enc_res2net_scale", EcapaConfig.res2net_scale),
            se_channels=table.integer("enc_se_channels", EcapaConfig.se_channels),
        ),
        # the official files leave these three out, and the weights were trained with exactly these values
        block_size=table.integer("block_size", DiTConfig.block_size, maximum=MAX_BLOCK_FRAMES),
        look_ahead_layers=table.integers("look_ahead_layers", DiTConfig.look_ahead_layers, minimum=0),
        look_backward_layers=table.integers("look_backward_layers", DiTConfig.look_backward_layers, minimum=0),
        rope_theta=theta,
        max_position_embeddings=table.integer("max_position_embeddings", DiTConfig.max_position_embeddings),
    )
    checks.check_dit(table, config)
    table.close()
    return config


def _bigvgan(table: ConfigTable) -> BigVGANConfig:
    _known(table, inert.BIGVGAN_KEYS)
    table.expect("model_type", "qwen2_5_omni_bigvgan")
    table.expect("use_bias_at_final", False)
    dilations: object = table.data.get("resblock_dilation_sizes")
    table.known.add("resblock_dilation_sizes")
    if not isinstance(dilations, list) or not dilations:
        raise table.error("resblock_dilation_sizes", "is missing or no list; expected a list of lists of integers")
    rows = ConfigTable(
        {str(i): row for i, row in enumerate(dilations)}, table.file, table.key("resblock_dilation_sizes")
    )
    config = BigVGANConfig(
        mel_dim=table.integer("mel_dim"),
        upsample_initial_channel=table.integer("upsample_initial_channel"),
        upsample_rates=table.integers("upsample_rates"),
        upsample_kernel_sizes=table.integers("upsample_kernel_sizes"),
        resblock_kernel_sizes=table.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=tuple(rows.integers(str(i)) for i in range(len(dilations))),
    )
    checks.check_bigvgan(table, config)
    table.close()
    return config
