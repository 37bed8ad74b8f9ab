"""The parts of a model: parameters, dtype and bytes of every part, and a picture of the system with its sizes.

Shapes come from config.json alone (modules on the meta device); dtypes and bytes from the headers of the safetensors
files where there are any, else from the dtype that config.json announces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from descant.config import OUTPUT_RATE_HZ, BigVGANConfig, DecoderConfig, OmniConfig, Token2WavConfig
from descant.errors import ConfigError
from descant.weights.checkpoint import as_stored, compare
from descant.weights.configfile import read_config
from descant.weights.parts import build_on_meta
from descant.weights.shards import WIDTHS, Stored, has_weights, read_headers
from descant.weights.strict import read_json

# our prefix -> what a person calls it, in the order in which data flows
TITLES = {
    "thinker.audio": "audio encoder",
    "thinker.vision": "vision encoder",
    "thinker.decoder": "Thinker",
    "thinker.lm_head": "text head",
    "talker.proj": "Thinker to Talker",
    "talker.decoder": "Talker",
    "talker.codec_head": "code head",
    "token2wav.dit": "DiT",
    "token2wav.vocoder": "vocoder",
}
SPELT = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
MEL_FRAMES_PER_SECOND = 100
TOKENS_PER_SECOND = 25  # of sound


@dataclass(frozen=True)
class PartReport:
    """One part: its tensors' elements (stored buffers included), the dtype of most of them, and bytes."""

    name: str
    title: str
    parameters: int
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class Report:
    """A model folder at a glance. stored: whether dtypes and bytes come from weight files."""

    folder: str
    config: OmniConfig
    parts: tuple[PartReport, ...]
    stored: bool

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


def inspect_folder(folder: str | Path) -> Report:
    """Look at a model folder; one with nothing but config.json will do. Raises ConfigError, WeightsError."""
    folder = Path(folder)
    config = read_config(folder)
    stored = has_weights(folder)
    headers = read_headers(folder) if stored else {}
    if stored:
        config = as_stored(config, headers)
    parts = build_on_meta(config)
    entries: Mapping[str, Stored] = compare(parts, headers) if stored else {}
    announced = _announced(folder)
    groups: dict[str, list[tuple[Tensor, str]]] = {name: [] for name in TITLES}
    for name, tensor in parts.tensors().items():
        fallback = "F32" if name.startswith("token2wav.") else announced
        dtype = entries[name].dtype if name in entries else fallback
        groups[".".join(name.split(".")[:2])].append((tensor, dtype))
    rows = tuple(_part(name, tensors) for name, tensors in groups.items() if tensors)
    return Report(str(folder), config, rows, stored)


def _part(name: str, tensors: list[tuple[Tensor, str]]) -> PartReport:
    counts: Counter[str] = Counter()
    for tensor, dtype in tensors:
        counts[dtype] += tensor.numel()
    nbytes = sum(count * WIDTHS[dtype] for dtype, count in counts.items())
    return PartReport(name, TITLES[name], counts.total(), SPELT[counts.most_common(1)[0][0]], nbytes)


def _announced(folder: Path) -> str:
    """The dtype that config.json gives for the Thinker and the Talker; Token2Wav is float32 always."""
    data = read_json(folder / "config.json")
    name = data.get("torch_dtype") or data.get("dtype") or "float32"
    codes = {spelt: code for code, spelt in SPELT.items()}
    if not isinstance(name, str) or name not in codes:
        raise ConfigError(f"config.json: torch_dtype is {name!r}; expected one of {', '.join(codes)}. Correct it.")
    return codes[name]


def to_json(found: Report) -> dict[str, object]:
    """The report for programs."""
    return {
        "folder": found.folder,
        "parameters": found.parameters,
        "bytes": found.nbytes,
        "stored": found.stored,
        "parts": [
            {"name": p.name, "title": p.title, "parameters": p.parameters, "dtype": p.dtype, "bytes": p.nbytes}
            for p in found.parts
        ],
    }


def parts_table(found: Report) -> str:
    """The report for people: one row per part and a total."""
    rows = [f"{'part':<20}{'parameters':>16}  {'dtype':<9}{'bytes':>16}"]
    rows += [f"{p.title:<20}{p.parameters:>16,}  {p.dtype:<9}{p.nbytes:>16,}" for p in found.parts]
    rows.append(f"{'total':<20}{found.parameters:>16,}  {'':<9}{found.nbytes:>16,}")
    return "\n".join(rows)


# ---------------------------------------------------------------- the picture

ARROW_COLUMN = 24  # the column of the vertical arrows


def draw_model(found: Report) -> str:
    """The system as a drawing in text, top to bottom; what this model does not have is left out."""
    config = found.config
    size = {part.name: part.parameters for part in found.parts}
    thinker = config.thinker
    audio = thinker.audio
    vision = thinker.vision
    lines = [
        _source("sound", f"audio encoder  {_count(size['thinker.audio'])}", f"{TOKENS_PER_SECOND} tokens a second"),
        _body(f"{audio.encoder_layers} layers x {audio.d_model}, blocks of {audio.n_window * 2 / 100:g} s"),
        _source("sight", f"vision encoder {_count(size['thinker.vision'])}", f"one token per {_cell(config)} pixels"),
        _body(f"{vision.depth} layers x {vision.hidden_size}, windows of {vision.window_size} pixels"),
        _source("text", "embeddings", f"{thinker.text.vocab_size} x {thinker.text.hidden_size}"),
        _flow(),
        _box("Thinker", size["thinker.decoder"] + size.get("thinker.lm_head", 0), "-> text"),
        _body(_decoder(thinker.text)),
    ]
    if config.talker is None:
        return "\n".join([*lines, "", "no Talker: this model answers in text only"])
    lines += [
        _flow("hidden state + embedding of every token, while the text is still being written"),
        _box("Talker", sum(size[n] for n in ("talker.proj", "talker.decoder", "talker.codec_head")), ""),
        _body(_decoder(config.talker.decoder)),
    ]
    if config.token2wav is None:
        return "\n".join([*lines, "", "no Token2Wav: the codes of this model cannot be heard"])
    return "\n".join([*lines, *_sound(config.token2wav, size)])


def _sound(config: Token2WavConfig, size: Mapping[str, int]) -> list[str]:
    dit = config.dit
    frames = MEL_FRAMES_PER_SECOND
    name = "BigVGAN" if isinstance(config.vocoder, BigVGANConfig) else "Vocos"
    block_ms = dit.block_size * 1000 // frames
    return [
        _flow(f"{frames // dit.repeats} codes a second"),
        _box("DiT", size["token2wav.dit"], "<- voice"),
        _body(f"{dit.num_hidden_layers} layers x {dit.hidden_size}, blocks of {block_ms} ms"),
        _flow(f"{frames} mel frames a second, {dit.mel_dim} bins"),
        _box(name, size["token2wav.vocoder"], f"-> sound, {OUTPUT_RATE_HZ} samples a second"),
    ]


def _source(what: str, box: str, rate: str) -> str:
    return f"{what:>6} -> {box:<28} -- {rate}"


def _box(name: str, parameters: int, arrow: str) -> str:
    return f"{'':<10}{name:<15}{_count(parameters):<14}{arrow}".rstrip()


def _body(text: str) -> str:
    return f"{'':<10}  {text}"


def _flow(text: str = "") -> str:
    bar = " " * ARROW_COLUMN + "|"
    return f"{bar} {text}\n{' ' * ARROW_COLUMN}v" if text else f"{bar}\n{' ' * ARROW_COLUMN}v"


def _decoder(c: DecoderConfig) -> str:
    return f"{c.num_hidden_layers} layers x {c.hidden_size}, {c.num_attention_heads} heads, {c.num_key_value_heads} kv"


def _cell(config: OmniConfig) -> str:
    side = config.thinker.vision.patch_size * config.thinker.vision.spatial_merge_size
    return f"{side}x{side}"


def _count(parameters: int) -> str:
    """1,340,578,688 -> "1.34 B"."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g} {name}"
    return str(parameters)
