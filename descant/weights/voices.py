"""Voices of a model: the official ``spk_dict.pt``, read safely once, and ``voices.safetensors`` from then on.

``spk_dict.pt`` is a pickle: {name: {"bos_token": int, "cond": (1, D), "ref_mel": (1, T, M)}}. It is opened with torch's
weights-only reader, which builds tensors and plain containers and runs nothing, and every value is checked.
``voices.safetensors`` holds ``NAME.vector`` (D,), ``NAME.ref_mel`` (T, M), both float32, and as metadata the bos tokens
in order and the SHA-256 of the pickle that they came from.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from descant.config import OmniConfig
from descant.errors import WeightsError, shortened
from descant.files import Fault, is_there, read_file
from descant.types import Voice

PICKLE = "spk_dict.pt"
VOICES_FILE = "voices.safetensors"
FIELDS = {"bos_token", "cond", "ref_mel"}
MAX_VOICES_BYTES = 64 * 2**20  # the official file, two voices, has 0.26 MB
MAX_VOICE_NUMBERS = 2**20  # of a vector or a reference mel: over a minute of sound
MAX_NAME_CHARACTERS = 100
DEFAULT = "Chelsie"  # the reference's default speaker comes first where it exists


def read_voices(folder: str | Path) -> dict[str, Voice]:
    """Voices by name, the default first; empty where the folder has none. Raises WeightsError.

    The first read of a ``spk_dict.pt`` writes ``voices.safetensors`` beside it where that is possible.
    """
    folder = Path(folder)
    pickled = folder / PICKLE
    path = folder / VOICES_FILE
    if not is_there(pickled):
        return _read_safe(path)[0] if is_there(path) else {}
    data = read_file(pickled, MAX_VOICES_BYTES, refused_voices)
    digest = hashlib.sha256(data).hexdigest()
    if is_there(path):
        voices, source = _read_safe(path)
        if source == digest:
            return voices
    voices = _read_pickle(pickled, data)
    with contextlib.suppress(OSError):  # a folder that cannot be written to: the voices are in memory all the same
        write_voices(voices, folder, source=digest)
    return voices


def refused_voices(_: Fault, why: str) -> WeightsError:
    """The error for a voices file that cannot be read."""
    return WeightsError(why)


def _read_pickle(path: Path, content: bytes) -> dict[str, Voice]:
    if is_zipfile(io.BytesIO(content)):
        inflated = sum(entry.file_size for entry in ZipFile(io.BytesIO(content)).infolist())
        if inflated > MAX_VOICES_BYTES:
            raise _bad(path, "", f"unpacks to {inflated:,} bytes; expected at most {MAX_VOICES_BYTES:,}")
    data: object
    try:
        data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path} is not a plain dictionary of tensors, and nothing else is ever unpickled ({first}). "
            "Fetch the official file again; do not load this one elsewhere."
        ) from None
    if not isinstance(data, dict) or not data:
        raise _bad(path, "", f"holds {type(data).__name__}; expected a dictionary of voices")
    found = {}
    for name, row in data.items():
        found[name] = _voice(path, name, row)
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT))


def _voice(path: Path, name: object, row: object) -> Voice:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
        raise _bad(path, "", f"has a voice called {shortened(name)}; expected a printable name")
    if not isinstance(row, dict) or set(row) != FIELDS:
        given = sorted(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise _bad(path, name, f"has {given}; expected exactly {sorted(FIELDS)}")
    token = row["bos_token"]
    if not isinstance(token, int) or isinstance(token, bool) or token < 0:
        raise _bad(path, name, f"has bos_token {token!r}; expected an integer >= 0")
    vector = row["cond"]
    ref_mel = row["ref_mel"]
    for field, value, shape in (("cond", vector, "(1, D)"), ("ref_mel", ref_mel, "(1, T, M)")):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise _bad(path, name, f"has a {field} that is no float tensor; expected shape {shape}")
        if value.ndim != shape.count(",") + 1 or value.shape[0] != 1 or value.numel() == 0:
            raise _bad(path, name, f"has {field} of shape {tuple(value.shape)}; expected {shape}")
        if value.numel() > MAX_VOICE_NUMBERS:
            raise _bad(
                path, name, f"has a {field} of {value.numel():,} numbers; expected at most {MAX_VOICE_NUMBERS:,}"
            )
    return _checked(path, Voice(name, token, vector[0].float().contiguous(), ref_mel[0].float().contiguous()))


def _checked(path: Path, voice: Voice) -> Voice:
    for field, value in (("vector", voice.vector), ("ref_mel", voice.ref_mel)):
        if not bool(value.isfinite().all()):
            raise _bad(path, voice.name, f"has a {field} with NaN or infinity; expected finite numbers")
    return voice


def _bad(path: Path, voice: str, problem: str) -> WeightsError:
    subject = f"{path}: voice {voice!r}" if voice else f"{path}"
    return WeightsError(f"{subject} {problem}. Fetch the official file again.")


def _read_safe(path: Path) -> tuple[dict[str, Voice], str]:
    """(voices, SHA-256 of the pickle they came from or "")."""
    content = read_file(path, MAX_VOICES_BYTES, refused_voices)
    try:
        tensors = load(content)
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
        tokens: object = json.loads(metadata.get("bos_tokens", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}). Delete it if spk_dict.pt is there; else fetch it."
        ) from None
    if not isinstance(tokens, dict):
        raise WeightsError(
            f"{path} has no bos_tokens in its metadata. Make it with descant.weights.voices.write_voices."
        )
    if set(tensors) != {f"{name}.{field}" for name in tokens for field in ("vector", "ref_mel")}:
        raise WeightsError(f"{path} holds {sorted(tensors)}; expected vector and ref_mel for each of {sorted(tokens)}.")
    voices = {}
    for name, token in tokens.items():
        row = {"bos_token": token, "cond": tensors[f"{name}.vector"][None], "ref_mel": tensors[f"{name}.ref_mel"][None]}
        voices[name] = _voice(path, name, row)
    return voices, metadata.get("source_sha256", "")


def write_voices(voices: Mapping[str, Voice], folder: str | Path, source: str = "") -> None:
    """Write ``folder``/voices.safetensors in one step. ``source``: SHA-256 of the file that they were read from."""
    folder = Path(folder)
    tensors = {}
    tokens = {}
    for name, voice in voices.items():
        tokens[name] = voice.bos_token
        tensors[f"{name}.vector"] = voice.vector.float().cpu().contiguous()
        tensors[f"{name}.ref_mel"] = voice.ref_mel.float().cpu().contiguous()
    metadata = {"bos_tokens": json.dumps(tokens), "source_sha256": source}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".voices-") as work:
        save_file(tensors, Path(work) / VOICES_FILE, metadata=metadata)
        (Path(work) / VOICES_FILE).replace(folder / VOICES_FILE)


def check_voices(voices: Mapping[str, Voice], config: OmniConfig) -> None:
    """Voices fit the model: bos token in the Thinker's table, vector and mel as wide as the DiT reads them."""
    if config.token2wav is None:
        return
    dit = config.token2wav.dit
    vocab = config.thinker.text.vocab_size
    for voice in voices.values():
        if voice.bos_token >= vocab:
            raise WeightsError(f"voice {voice.name!r} has bos token {voice.bos_token}; the model has {vocab} ids.")
        sizes = (voice.vector.shape[-1], voice.ref_mel.shape[-1])
        if sizes != (dit.enc_emb_dim, dit.mel_dim):
            raise WeightsError(
                f"voice {voice.name!r} has a vector of {sizes[0]} and {sizes[1]} mel bins; this model reads "
                f"{dit.enc_emb_dim} and {dit.mel_dim}. Take the voices that belong to this checkpoint."
            )
