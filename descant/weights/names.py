"""The two-way table between the names of official checkpoints and those of our modules.

One row says: an official prefix, our prefix, and the pattern of what follows, which is the same on both sides. A name
belongs to exactly one row in each direction, so the table is a bijection on the names that it knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WB = r"(?:weight|bias)"
_N = r"\d+"
# a Qwen2 layer: biases at q, k and v only
_LAYER = (
    rf"(?:(?:input|post_attention)_layernorm\.weight|self_attn\.[qkv]_proj\.{_WB}"
    r"|self_attn\.o_proj\.weight|mlp\.(?:gate|up|down)_proj\.weight)"
)
_BLOCK = rf"(?:(?:tdnn[12]\.)?conv|res2net_block\.blocks\.{_N}\.conv|se_block\.conv[12])"  # of ECAPA
_DECODER = rf"embed_tokens\.weight|norm\.weight|layers\.{_N}\.{_LAYER}"


@dataclass(frozen=True)
class NameRule:
    """official + rest <-> ours + rest, for every rest that matches ``pattern`` in full."""

    official: str
    ours: str
    pattern: str


_AUDIO = ("thinker.audio_tower.", "thinker.audio.")
_VISION = ("thinker.visual.", "thinker.vision.")
_DIT = ("token2wav.code2wav_dit_model.", "token2wav.dit.")
_BIGVGAN = ("token2wav.code2wav_bigvgan_model.", "token2wav.vocoder.")
_VOCOS = ("token2wav.code2wav_vocos_model.", "token2wav.vocoder.")

NAME_RULES = (
    # Thinker: audio encoder (the key projection has no bias)
    NameRule(*_AUDIO, rf"(?:conv1|conv2|ln_post|proj)\.{_WB}|audio_bos_eos_token\.weight"),
    NameRule(*_AUDIO, rf"layers\.{_N}\.self_attn\.(?:k_proj\.weight|(?:q|v|out)_proj\.{_WB})"),
    NameRule(*_AUDIO, rf"layers\.{_N}\.(?:self_attn_layer_norm|final_layer_norm|fc1|fc2)\.{_WB}"),
    # Thinker: vision encoder
    NameRule(*_VISION, r"patch_embed\.proj\.weight"),
    NameRule(*_VISION, rf"blocks\.{_N}\.norm[12]\.weight"),
    NameRule(*_VISION, rf"blocks\.{_N}\.attn\.(?:q|k|v|proj)\.{_WB}"),
    NameRule(*_VISION, rf"blocks\.{_N}\.mlp\.(?:gate|up|down)_proj\.{_WB}"),
    NameRule(*_VISION, rf"merger\.(?:ln_q\.weight|mlp\.[02]\.{_WB})"),
    # Thinker: text decoder and its head (absent where it is tied to the embedding table)
    NameRule("thinker.model.", "thinker.decoder.", _DECODER),
    NameRule("thinker.lm_head.", "thinker.lm_head.", "weight"),
    # Talker
    NameRule("talker.thinker_to_talker_proj.", "talker.proj.", _WB),
    NameRule("talker.model.", "talker.decoder.", _DECODER),
    NameRule("talker.codec_head.", "talker.codec_head.", "weight"),
    # Token2Wav: DiT
    NameRule(*_DIT, rf"(?:proj_out|norm_out\.linear|time_embed\.time_mlp\.[02])\.{_WB}"),
    NameRule(*_DIT, r"text_embed\.codec_embed\.weight|rotary_embed\.inv_freq"),
    NameRule(*_DIT, rf"transformer_blocks\.{_N}\.(?:attn_norm\.linear|ff\.ff\.[03])\.{_WB}"),
    NameRule(*_DIT, rf"transformer_blocks\.{_N}\.attn\.to_(?:q|k|v|out\.0)\.{_WB}"),
    # Token2Wav: the speaker encoder inside the DiT's input
    NameRule(*_DIT, rf"input_embed\.(?:proj|spk_encoder\.(?:fc|mfa\.conv|asp\.(?:tdnn\.)?conv))\.{_WB}"),
    NameRule(*_DIT, rf"input_embed\.spk_encoder\.blocks\.{_N}\.{_BLOCK}\.{_WB}"),
    # Token2Wav: BigVGAN
    NameRule(*_BIGVGAN, rf"conv_pre\.{_WB}|conv_post\.weight|ups\.{_N}\.0\.{_WB}"),
    NameRule(*_BIGVGAN, rf"resblocks\.{_N}\.convs[12]\.{_N}\.{_WB}"),
    NameRule(*_BIGVGAN, rf"(?:resblocks\.{_N}\.activations\.{_N}|activation_post)\.act\.(?:alpha|beta)"),
    # Token2Wav: Vocos, our own vocoder; it has no official name, so the checkpoint says what it is
    NameRule(*_VOCOS, rf"(?:embed|norm|final_norm|head)\.{_WB}|mel_(?:mean|std)"),
    NameRule(*_VOCOS, rf"blocks\.{_N}\.(?:gamma|(?:dwconv|norm|pwconv1|pwconv2)\.{_WB})"),
)  # fmt: skip

# stored in official files, computed by everyone; transformers 5 leaves it out on saving
OPTIONAL = re.compile(r"token2wav\.dit\.rotary_embed\.inv_freq")

_OFFICIAL = [(re.compile(re.escape(row.official) + f"({row.pattern})"), row.ours) for row in NAME_RULES]
_OURS = [(re.compile(re.escape(row.ours) + f"({row.pattern})"), row.official) for row in NAME_RULES]


def to_ours(official: str) -> str | None:
    """``thinker.visual.merger.ln_q.weight`` -> ``thinker.vision.merger.ln_q.weight``; None: unknown."""
    return _translate(official, _OFFICIAL)


def to_official(ours: str) -> str | None:
    """The inverse of ``to_ours``."""
    return _translate(ours, _OURS)


def _translate(name: str, table: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, prefix in table:
        found = pattern.fullmatch(name)
        if found:
            return prefix + found.group(1)
    return None
