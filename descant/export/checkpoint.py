"""Modules -> a model folder in the official layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from descant.errors import WeightsError
from descant.export.config import write_config
from descant.export.sidefiles import write_generation, write_inputs
from descant.weights import shards
from descant.weights.checkpoint import Checkpoint
from descant.weights.names import to_official
from descant.weights.parts import Parts
from descant.weights.voices import write_voices

SHARD_BYTES = 4 * 10**9  # like the official shards
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
        used = used + size
        total = total + size
    weight_map = {}
    written = set()
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
