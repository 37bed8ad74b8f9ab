"""What a model is made of: parameters, dtype and bytes of every part, from its config and the headers of its files."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from descant.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

    from descant.config import OmniConfig

# our names, in the order of the system -> what a person calls them
NAMES = {
    "thinker.audio": "audio encoder",
    "thinker.vision": "vision encoder",
    "thinker.decoder": "Thinker",
    "thinker.lm_head": "Thinker's text head",
    "talker.proj": "Thinker to Talker",
    "talker.decoder": "Talker",
    "talker.codec_head": "Talker's code head",
    "token2wav.dit": "DiT, codes to mel",
    "token2wav.vocoder": "vocoder, mel to sound",
}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
SPELT = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


@dataclass(frozen=True)
class Part:
    """One part of a model. ``parameters`` counts every tensor of a checkpoint; bytes are those of its files."""

    name: str
    what: str
    parameters: int
    dtype: str
    bytes: int

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def part_of(name: str) -> str:
    """``talker.decoder.layers.0...`` -> ``talker.decoder``."""
    return ".".join(name.split(".")[:2])


def shapes(config: OmniConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by our names; nothing is allocated."""
    import torch

    from descant.model.codec import Token2Wav
    from descant.model.talker import Talker
    from descant.model.thinker import Thinker

    with torch.device("meta"):
        modules: dict[str, nn.Module] = {"thinker": Thinker(config.thinker)}
        if config.talker is not None:
            modules["talker"] = Talker(config.talker)
        if config.token2wav is not None:
            modules["token2wav"] = Token2Wav(config.token2wav)
    return {f"{top}.{k}": tuple(v.shape) for top, m in modules.items() for k, v in m.state_dict().items()}


def declared_dtypes(folder: Path) -> dict[str, str]:
    """Dtypes that config.json announces, for a folder without weights; the codec decoder runs in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return {"thinker": CODES.get(name, "F32"), "talker": CODES.get(name, "F32"), "token2wav": "F32"}


def stored_dtypes(folder: Path) -> dict[str, str]:
    """The dtype of every stored tensor, by our names, read from the headers of the safetensors files."""
    from safetensors import SafetensorError, safe_open

    from descant.weights.names import to_ours

    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    if (ours := to_ours(key)) is not None:
                        found[ours] = file.get_slice(key).get_dtype()
        except SafetensorError as error:
            raise WeightsError(f"{path} cannot be read ({error}); fetch it again") from error
    return found


def parts(config: OmniConfig, folder: Path) -> list[Part]:
    """Every part of the model in ``folder``, in the order of the system."""
    stored, declared = stored_dtypes(folder), declared_dtypes(folder)
    parameters: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    dtypes: dict[str, Counter[str]] = {}
    for name, shape in shapes(config).items():
        part, count = part_of(name), math.prod(shape)
        dtype = stored.get(name, declared[name.split(".")[0]])
        parameters[part] += count
        sizes[part] += count * BYTES[dtype]
        dtypes.setdefault(part, Counter())[dtype] += count
    main = {part: counts.most_common(1)[0][0] for part, counts in dtypes.items()}
    return [
        Part(name, what, parameters[name], SPELT.get(main[name], main[name]), sizes[name])
        for name, what in NAMES.items()
        if name in parameters
    ]
