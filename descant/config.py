"""Shapes and ids of every part, as frozen dataclasses. No default stands for a size: sizes come from config.json.

Defaults are given only where the official files leave a value out (see DESIGN.md, "Config").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderConfig:
    """A Qwen2-type decoder: GQA, SwiGLU, RMSNorm, TMRoPE. Body of the Thinker and of the Talker."""

    vocab_size: int
    embedding_size: int  # width of the embedding table (Talker: the Thinker's width; Thinker: hidden_size)
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    mrope_section: tuple[int, int, int]  # sums to head_dim / 2; axes T, H, W
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32768
    tie_word_embeddings: bool = False


@dataclass(frozen=True)
class AudioConfig:
    """The audio encoder (Whisper shape, 2 s blocks)."""

    num_mel_bins: int
    encoder_layers: int
    encoder_attention_heads: int
    d_model: int
    encoder_ffn_dim: int
    output_dim: int
    n_window: int = 100  # half a block in mel frames: blocks of 2 * 100 frames = 2 s
    max_source_positions: int = 1500

    @property
    def block_frames(self) -> int:
        """Mel frames that the encoder reads together."""
        return 2 * self.n_window


OUTPUT_RATE_HZ = 24_000  # the sound of every vocoder of this family


def audio_tokens(frames: int) -> int:
    """Tokens of ``frames`` mel frames: a stride-2 convolution, then a stride-2 pooling. 100 frames (1 s) -> 25 tokens.

    An odd last frame of 20 ms is dropped; fewer than 3 mel frames make none.
    """
    return (frames + 1) // 4


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder (Qwen2.5-VL ViT with window attention)."""

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    fullatt_block_indexes: tuple[int, ...]
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    window_size: int = 112  # pixels
    in_channels: int = 3


@dataclass(frozen=True)
class MediaIds:
    """Placeholder and delimiter ids, and the clock of TMRoPE."""

    audio: int
    image: int
    video: int
    audio_start: int
    audio_end: int
    vision_start: int
    vision_end: int
    position_id_per_seconds: int = 25  # 40 ms per id
    seconds_per_chunk: int = 2  # audio-in-video interleaves in chunks of 2 s


@dataclass(frozen=True)
class ThinkerConfig:
    text: DecoderConfig
    audio: AudioConfig
    vision: VisionConfig
    ids: MediaIds
    pad_id: int
    eos_id: int


@dataclass(frozen=True)
class TalkerConfig:
    decoder: DecoderConfig  # vocab_size: codes and their specials; embedding_size: the Thinker's hidden size
    ids: MediaIds
    text_end_id: int  # rows of the Thinker's embedding table
    text_pad_id: int
    codec_start_id: int  # rows of the Talker's embedding table
    codec_end_id: int
    codec_pad_id: int
    codec_mask_id: int


@dataclass(frozen=True)
class EcapaConfig:
    """The speaker encoder inside the DiT (ECAPA-TDNN, arXiv 2005.07143)."""

    mel_dim: int
    enc_dim: int
    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    attention_channels: int = 64
    res2net_scale: int = 2
    se_channels: int = 64


@dataclass(frozen=True)
class DiTConfig:
    """The flow-matching transformer, codes -> mel."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    ff_mult: int
    emb_dim: int  # width of a code embedding
    num_embeds: int  # the table has num_embeds + 1 rows; row 0 is also the null code of guidance
    mel_dim: int
    repeats: int  # mel frames per code
    enc_emb_dim: int  # width of the speaker vector
    ecapa: EcapaConfig
    block_size: int = 24  # mel frames: 240 ms
    look_ahead_layers: tuple[int, ...] = (10,)
    look_backward_layers: tuple[int, ...] = (0, 20)
    rope_theta: float = 10000.0
    max_position_embeddings: int = 32768


@dataclass(frozen=True)
class BigVGANConfig:
    """The official vocoder (arXiv 2206.04658), mel -> wave at 24 kHz, 240 samples per frame."""

    mel_dim: int
    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class VocosConfig:
    """A small iSTFT vocoder (Vocos, arXiv 2306.00814) with BigVGAN's interface; the embedded model ships this one.

    Its mel is (ln(magnitude mel) - mel_mean) / mel_std, frame t centred on sample hop_length * (t + 1/2) of 24 kHz
    sound (Hann n_fft, Slaney mel bands). The vocoder takes that mel as it is; the constants tell how to make it.
    """

    mel_dim: int
    hidden_size: int
    num_layers: int
    intermediate_size: int
    kernel_size: int = 7
    n_fft: int = 1024  # samples at 24 kHz
    hop_length: int = 240  # samples: 100 mel frames a second
    mel_mean: float = 0.0
    mel_std: float = 1.0


@dataclass(frozen=True)
class Token2WavConfig:
    dit: DiTConfig
    vocoder: BigVGANConfig | VocosConfig


@dataclass(frozen=True)
class OmniConfig:
    thinker: ThinkerConfig
    talker: TalkerConfig | None
    token2wav: Token2WavConfig | None


@dataclass(frozen=True)
class InputsConfig:
    """Numbers by which media become tensors: of the official processors (preprocessor_config.json) and utilities."""

    sampling_rate: int = 16000  # Hz
    n_fft: int = 400  # 25 ms at 16 kHz
    hop_length: int = 160  # 10 ms at 16 kHz: 100 mel frames a second
    feature_size: int = 128  # mel bins
    max_audio_s: float = 300.0
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 3136  # 4 * 28 * 28
    max_pixels: int = 12845056  # 16384 * 28 * 28
    video_min_pixels: int = 100352  # 128 * 28 * 28, per frame
    video_max_pixels: int = 602112  # 768 * 28 * 28, per frame
    video_total_pixels: int = 90316800  # 128000 * 28 * 28 * 0.9
    fps: float = 2.0  # sampled frames a second
    min_frames: int = 4
    max_frames: int = 768
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    default_system: str | None = "You are a helpful assistant."  # prepended when no system turn is given; None: no turn
    speech_system: str | None = (  # prepended instead when speech is asked for
        "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving "
        "auditory and visual inputs, as well as generating text and speech."
    )
