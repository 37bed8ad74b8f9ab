"""A model folder <-> modules: strict, shard by shard, without a second copy of the weights in memory.

Nothing of a folder is trusted: files are JSON, safetensors and one pickle that is read weights-only (see voices.py).
Headers of all shards are compared with the config before the first byte of a weight is read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from descant.config import InputsConfig, OmniConfig
from descant.errors import ConfigError, OptionError, WeightsError
from descant.model.codec import Token2Wav
from descant.model.dit import rotary_frequencies
from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.types import Voice
from descant.weights import shards
from descant.weights.configfile import (
    read_config,
    read_generation,
    read_inputs,
    write_config,
    write_generation,
    write_inputs,
)
from descant.weights.fetch import resolve
from descant.weights.generation import GenerationDefaults
from descant.weights.names import OPTIONAL, to_official, to_ours
from descant.weights.parts import Parts, build_on_meta
from descant.weights.shards import Stored
from descant.weights.voices import check_voices, read_voices, write_voices

SHARD_BYTES = 4 * 10**9  # like the official shards
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model: its shapes, its habits and its weights. talker and token2wav are None where it cannot speak."""

    config: OmniConfig
    inputs: InputsConfig
    generation: GenerationDefaults
    thinker: Thinker
    talker: Talker | None
    token2wav: Token2Wav | None
    voices: Mapping[str, Voice]
    folder: Path

    @property
    def parts(self) -> Parts:
        return Parts(self.thinker, self.talker, self.token2wav)


def load_checkpoint(
    name: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Checkpoint:
    """Load an embedded model, a folder or a hub repository; the modules come in eval mode.

    dtype: of the Thinker and the Talker; None: float32 on a CPU, elsewhere what the files hold. Token2Wav is always
    float32, as it was trained. device None: the CPU. ``progress`` draws a bar on stderr.
    Raises OptionError (unknown name), ConfigError, WeightsError.
    """
    folder, target = resolve(name), as_device(device)
    config, inputs = read_config(folder), read_inputs(folder)
    check_inputs(config, inputs)
    generation, voices = read_generation(folder, config), read_voices(folder)
    check_voices(voices, config)
    parts = build_on_meta(config)
    stored = compare(parts, shards.read_headers(folder))
    if dtype is None:
        dtype = torch.float32 if target.type == "cpu" else native_dtype(stored)
    fill(parts, stored, dtype, target, progress)
    fill_computed(config, parts, target)
    for part in parts.named().values():
        part.eval()
    return Checkpoint(config, inputs, generation, parts.thinker, parts.talker, parts.token2wav, voices, folder)


def as_device(device: str | torch.device | None) -> torch.device:
    """The device by name; None: the CPU. Raises OptionError for one that is not there."""
    try:
        found = torch.device(device or "cpu")
    except RuntimeError:
        raise OptionError(f"unknown device {device!r}; expected for example cpu, cuda or cuda:1.") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"device {device!r}: torch sees no CUDA device here. Leave the option out to use the CPU.")
    return found


def check_inputs(config: OmniConfig, inputs: InputsConfig) -> None:
    """The media tensors that preprocessor_config.json describes are the ones that the encoders read."""
    vision, audio = config.thinker.vision, config.thinker.audio
    for name, given, expected in (
        ("patch_size", inputs.patch_size, vision.patch_size),
        ("temporal_patch_size", inputs.temporal_patch_size, vision.temporal_patch_size),
        ("merge_size", inputs.merge_size, vision.spatial_merge_size),
        ("feature_size", inputs.feature_size, audio.num_mel_bins),
    ):
        if given != expected:
            raise ConfigError(
                f"preprocessor_config.json: {name} is {given} (or left out); expected {expected} as in config.json. "
                "Take the two files from one checkpoint."
            )


def compare(parts: Parts, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Match what is stored with what the modules want: our name -> where it is. Raises WeightsError on any difference.

    A model that does not speak leaves the Talker and Token2Wav of its files unread.
    """
    wanted, present = parts.tensors(), set(parts.named())
    found: dict[str, Stored] = {}
    unexpected = []
    for official, entry in stored.items():
        ours = to_ours(official)
        if ours is not None and ours in wanted:
            found[ours] = entry
        elif ours is None or ours.split(".")[0] in present:
            unexpected.append(official)
    missing = [to_official(n) or n for n in wanted if n not in found and not OPTIONAL.fullmatch(n)]
    wrong = [
        f"{to_official(n)} is {list(e.shape)}, the config says {list(wanted[n].shape)}"
        for n, e in found.items()
        if tuple(wanted[n].shape) != e.shape
    ]
    wrong += [f"{to_official(n)} is stored as {e.dtype}" for n, e in found.items() if e.dtype not in DTYPES]
    problems = [
        f"{len(names)} {what}: {'; '.join(names[:4])}{'; ...' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another form", wrong))
        if names
    ]
    if problems:
        raise WeightsError(
            f"the tensors do not fit config.json. {'. '.join(problems)}. Take weights and config from one checkpoint."
        )
    return found


def native_dtype(stored: Mapping[str, Stored]) -> torch.dtype:
    """What the Thinker's embedding table is stored as."""
    return DTYPES[stored["thinker.decoder.embed_tokens.weight"].dtype]


def fill(
    parts: Parts, stored: Mapping[str, Stored], dtype: torch.dtype, device: torch.device, progress: bool = False
) -> None:
    """Replace meta tensors by stored ones, one at a time; one shard is open at a time."""
    by_file: dict[Path, list[str]] = {}
    for name, entry in stored.items():
        by_file.setdefault(entry.file, []).append(name)
    with _bar(progress, sum(entry.nbytes for entry in stored.values())) as advance:
        for path, names in sorted(by_file.items()):
            try:
                with safe_open(str(path), framework="pt") as file:
                    for name in names:
                        kind = torch.float32 if name.startswith("token2wav.") else dtype
                        value = torch.empty(stored[name].shape, dtype=kind, device=device)
                        value.copy_(file.get_tensor(to_official(name)))  # a view of the mapped file: no second copy
                        _assign(parts, name, value)
                        advance(stored[name].nbytes)
            except (SafetensorError, OSError) as error:
                raise WeightsError(f"{path} cannot be read ({error}). Fetch it again.") from None


def _assign(parts: Parts, name: str, value: Tensor) -> None:
    part, path = name.split(".", 1)
    owner_path, _, leaf = path.rpartition(".")
    owner = parts.named()[part].get_submodule(owner_path)
    old = owner.get_parameter(leaf) if leaf in dict(owner.named_parameters(recurse=False)) else None
    if old is not None:
        owner.register_parameter(leaf, nn.Parameter(value, requires_grad=old.requires_grad))
    else:
        owner.register_buffer(leaf, value)  # stored buffers are persistent


def fill_computed(config: OmniConfig, parts: Parts, device: torch.device) -> None:
    """Values that a checkpoint may leave out because they follow from the config."""
    if config.token2wav is not None and parts.token2wav is not None:
        name = "token2wav.dit.rotary_embed.inv_freq"
        if parts.tensors()[name].is_meta:
            dit = config.token2wav.dit
            _assign(parts, name, rotary_frequencies(dit.head_dim, dit.rope_theta, device))
    for part_name, part in parts.named().items():
        for key, tensor in (*part.named_parameters(), *part.named_buffers()):
            if tensor.is_meta:
                raise WeightsError(f"{part_name}.{key} has no value: it is not among the tensors of a checkpoint.")


class _Advance:
    """Counts bytes; draws nothing."""

    def __call__(self, nbytes: int) -> None:
        pass


class _Draw(_Advance):
    def __init__(self, bar: Progress, total: int):
        self.bar, self.task = bar, bar.add_task("weights", total=total)

    def __call__(self, nbytes: int) -> None:
        self.bar.advance(self.task, nbytes)


@contextmanager
def _bar(show: bool, total: int) -> Iterator[_Advance]:
    if not show:
        yield _Advance()
        return
    columns = (TextColumn("loading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Draw(bar, total)


# ---------------------------------------------------------------- saving


def save_checkpoint(
    checkpoint: Checkpoint, folder: str | Path, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a folder in the official layout and names: weights, index, configs, voices, tokenizer files.

    dtype: what parameters are stored as (None: as they are). At most one shard is copied in memory.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(checkpoint.config, folder)
    write_inputs(checkpoint.inputs, folder)
    write_generation(checkpoint.generation, folder)
    if checkpoint.voices:
        write_voices(checkpoint.voices, folder)
    for name in TOKENIZER_FILES:
        source = checkpoint.folder / name
        if source.is_file() and source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    save_weights(checkpoint.parts, folder, dtype, shard_bytes)


def save_weights(parts: Parts, folder: Path, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the tensors of ``parts``, sharded, with an index where there are several shards; older ones are removed."""
    groups: list[dict[str, Tensor]] = [{}]
    total = used = 0
    for ours, tensor in parts.tensors().items():
        official = to_official(ours)
        if official is None:
            raise WeightsError(f"{ours} has no official name. Add it to descant/weights/names.py.")
        kind = dtype if dtype is not None and isinstance(tensor, nn.Parameter) else tensor.dtype
        size = tensor.numel() * kind.itemsize
        if groups[-1] and used + size > shard_bytes:
            groups.append({})
            used = 0
        groups[-1][official] = tensor
        used, total = used + size, total + size
    weight_map, written = {}, set()
    for number, group in enumerate(groups, 1):
        name = shards.SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        _save_shard(group, folder / name, dtype)
        weight_map.update(dict.fromkeys(group, name))
        written.add(name)
    for old in [folder / shards.SINGLE, folder / shards.INDEX, *folder.glob("model-*-of-*.safetensors")]:
        if old.name not in written:
            old.unlink(missing_ok=True)
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / shards.INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_shard(group: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None) -> None:
    tensors = {}
    for name, tensor in group.items():
        kind = dtype if dtype is not None and isinstance(tensor, nn.Parameter) else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", kind).contiguous()
    part = path.with_suffix(".part")  # a reader never sees half a file under the final name
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(path)
