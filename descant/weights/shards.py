"""The safetensors files of a checkpoint, seen by their headers: what is stored, where, in which shape and dtype."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from descant.errors import WeightsError
from descant.files import check_file, is_there
from descant.weights.strict import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"[\w.-]+\.safetensors")  # a plain file name: no folder, no way out of this one
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WHOLE_MODEL_PREFIXES = ("thinker.", "talker.", "token2wav.")
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes; a weight is one of these
OTHER_WIDTHS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. name: as it is written there; dtype: the safetensors code, e.g. "BF16"."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * (WIDTHS.get(self.dtype) or OTHER_WIDTHS.get(self.dtype, 1))


def has_weights(folder: Path) -> bool:
    """True if there are safetensors to read."""
    return is_there(folder / INDEX) or is_there(folder / SINGLE)


def find_shards(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """(files, index): the shards of a checkpoint and, where there is an index, official name -> file name."""
    if is_there(folder / INDEX):
        index = _read_index(folder / INDEX)
        files = [folder / name for name in sorted(set(index.values()))]
        missing = [path.name for path in files if not is_there(path)]
        if missing:
            raise WeightsError(
                f"{folder} lacks {len(missing)} of {len(files)} shards: {_few(missing)}. Fetch the model again; "
                "what is there already is not fetched twice."
            )
        return files, index
    if is_there(folder / SINGLE):
        return [folder / SINGLE], None
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern) if p.name != "spk_dict.pt")
    if pickles:
        raise WeightsError(
            f"{folder} has only pickles ({_few(pickles)}), which can run code and are never opened. "
            "Expected safetensors: convert them where you trust them, or take a release with safetensors."
        )
    raise WeightsError(f"{folder} has no {INDEX} and no {SINGLE}. Fetch the weights, or give another folder.")


def _read_index(path: Path) -> dict[str, str]:
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise WeightsError(f"{path} has no weight_map; expected tensor names -> file names. Fetch it again.")
    for key, name in table.items():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise WeightsError(
                f"{path} says that {key} is in {name!r}; expected the plain name of a .safetensors file beside it. "
                "This index is damaged or hostile: do not use it."
            )
    return table


def read_headers(folder: Path) -> dict[str, Stored]:
    """Official name -> what is stored, over all shards; the files' lengths are checked, no weight is read.

    A Thinker that was saved alone gets the names that it has in the whole model.
    """
    files, index = find_shards(folder)
    stored: dict[str, Stored] = {}
    for path in files:
        for name, entry in _header(path).items():
            if name in stored:
                raise WeightsError(f"{name} is in {stored[name].file.name} and again in {path.name}. Fetch them again.")
            if index is not None and index.get(name) != path.name:
                raise WeightsError(
                    f"{name} is in {path.name}, but {INDEX} puts it in {index.get(name, 'no file')}. "
                    "The index and the shards are from different checkpoints: fetch both again."
                )
            stored[name] = entry
    lost = sorted(set(index or ()) - set(stored))
    if lost:
        raise WeightsError(
            f"{INDEX} names {len(lost)} tensors that no shard holds: {_few(lost)}. Fetch the shards again."
        )
    if not any(name.startswith(WHOLE_MODEL_PREFIXES) for name in stored):
        return {f"thinker.{name}": entry for name, entry in stored.items()}
    return stored


def _header(path: Path) -> dict[str, Stored]:
    check_file(path, lambda _, why: WeightsError(why))
    try:
        with safe_open(str(path), framework="pt") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118 - not a dict
                part = file.get_slice(name)
                found[name] = Stored(path, name, tuple(part.get_shape()), str(part.get_dtype()))
            return found
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or no safetensors file ({error}; it has {path.stat().st_size} bytes). Fetch it again."
        ) from None


def _few(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
