"""The picture of the system, drawn with the sizes of one model."""

from __future__ import annotations

from descant.config import BigVGANConfig, OmniConfig, Token2WavConfig

MEL_RATE = 100  # frames a second: 24 kHz / 240 samples


def body(layers: int, width: int) -> str:
    return f"{layers} layers x {width}"


def draw(config: OmniConfig) -> str:
    """A drawing in text; boxes that the model does not have are left out."""
    thinker, talker = config.thinker, config.talker
    audio, vision, text = thinker.audio, thinker.vision, thinker.text
    rows = [
        f"  sound ----> audio encoder   {body(audio.encoder_layers, audio.d_model)} --+",
        f"  sight ----> vision encoder  {body(vision.depth, vision.hidden_size)} --+",
        f"  text  ----> embeddings      {text.vocab_size} x {text.hidden_size} --+",
    ]
    edge = max(len(row) for row in rows)
    rows = [row[:-3] + "-" * (edge - len(row)) + "--+" for row in rows]
    rows += [
        " " * (edge - 1) + "v",
        f"  text  <---- Thinker         {body(text.num_hidden_layers, text.hidden_size)}, "
        f"{text.num_attention_heads} heads, {text.num_key_value_heads} of them kv",
    ]
    if talker is None:
        return "\n".join([*rows, "              (no Talker: this model answers in text only)"])
    decoder = talker.decoder
    rows += [
        "                 | hidden + embedding, row by row, while the text is still written",
        "                 v",
        f"              Talker          {body(decoder.num_hidden_layers, decoder.hidden_size)}, "
        f"{decoder.num_attention_heads} heads, {decoder.num_key_value_heads} of them kv",
    ]
    if config.token2wav is None:
        return "\n".join([*rows, "              (no Token2Wav: its codes cannot be heard)"])
    return "\n".join([*rows, *draw_sound(config.token2wav)])


def draw_sound(token2wav: Token2WavConfig) -> list[str]:
    dit, vocoder = token2wav.dit, token2wav.vocoder
    rate = MEL_RATE // dit.repeats
    block_ms = dit.block_size * 1000 // MEL_RATE
    name = "BigVGAN" if isinstance(vocoder, BigVGANConfig) else "Vocos"
    return [
        f"                 | codes, {rate} a second",
        "                 v",
        f"              DiT             {body(dit.num_hidden_layers, dit.hidden_size)}, blocks of {block_ms} ms",
        f"                 | mel, {MEL_RATE} frames a second",
        "                 v",
        f"  sound <---- {name:15} 24 kHz",
    ]
