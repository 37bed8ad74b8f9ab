"""Ears that do not learn: their features are computed once, kept in half precision, and read in place of the encoder.

A store is a folder: ``features.f16`` (rows of d_model numbers, clip after clip), ``index.jsonl`` (a line a clip: its
first row, its rows, what it is) and ``plan.json`` (the fingerprint of all that the features depend on). Making goes on
where a kill stopped it. Clips are encoded in groups that depend on their numbers alone, so the bytes of an interrupted
run are those of a whole one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descant.errors import ConfigError, OptionError, WeightsError
from descant.inputs.layout import AudioSeg, AudioVideoSeg, lay_out
from descant.inputs.prompt import PromptBuilder, encoder_input, temporal_grids
from descant.inputs.video import sample_clip, seconds_per_grid, video_grid
from descant.model.audio import AudioEncoder
from descant.tokens import EncoderInput, PromptTokens
from descant.types import Audio, Clip, Video

GROUP_CLIPS = 8  # encoded together


@dataclass(frozen=True)
class CachedAudio(Audio):
    """A sound whose features (T, d_model) are known; there are no samples."""

    features: Tensor | None = None


@dataclass(frozen=True)
class CachedVideo(Video):
    """A video with sound; the features (T, d_model) of its sound are known."""

    features: Tensor | None = None


@dataclass(frozen=True)
class CachedPrompts(PromptBuilder):
    """Lays out cached sounds: one span each, filled by their features. Samples are refused, having no encoder here."""

    def _audio(self, part: Audio) -> PromptTokens:
        sound = self._cached(part)
        return lay_out(AudioSeg(sound.tokens), self.cfg.ids, self.inputs.merge_size, [sound])

    def _video(self, part: Video) -> PromptTokens:
        if not part.use_audio:
            return super()._video(part)
        if not isinstance(part.source, Clip):
            raise OptionError("a cached sound belongs to a decoded Clip; give its frames")
        sound = self._cached(part)
        grid = video_grid(sample_clip(part.source.frames, part.source.fps, self.inputs), self.inputs)
        merge = self.inputs.merge_size
        pictures = [encoder_input("video", one, merge) for one in temporal_grids(grid)]
        segment = AudioVideoSeg(*grid.grid, seconds_per_grid(self.inputs), sound.tokens)
        return lay_out(segment, self.cfg.ids, merge, [*pictures, sound])

    def _cached(self, part: Audio | Video) -> EncoderInput:
        if not isinstance(part, CachedAudio | CachedVideo) or part.features is None:
            raise OptionError("this stage hears cached sounds only; draw them from the stage that computed features")
        return EncoderInput("audio", part.features, len(part.features))


class CachedEars(AudioEncoder):
    """The encoder where features are given: only its projection works, and only that learns."""

    def forward(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Features (T, d_model) of each clip, in the place of log-mels -> (T, output_dim) of each."""
        return self.project([rows.to(self.proj.weight.dtype) for rows in mels])


def with_cached_ears(thinker: torch.nn.Module) -> CachedEars:
    """Replace a Thinker's ears by cached ones with the same weights; all but the projection is frozen."""
    ears = thinker.get_submodule("audio")
    assert isinstance(ears, AudioEncoder)
    cached = CachedEars(ears.cfg)
    cached.load_state_dict(ears.state_dict())
    cached.requires_grad_(False)
    cached.proj.requires_grad_(True)
    thinker.add_module("audio", cached)
    return cached


# ---------------------------------------------------------------- the store


@dataclass(frozen=True)
class StoredClip:
    """A line of the index: the rows of a clip, and what it is, as its maker describes it."""

    start: int
    rows: int
    about: Mapping[str, Any]


def fingerprint(parts: Mapping[str, object]) -> str:
    """One digest of all that features depend on; tensors count by their bytes."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        value = parts[name]
        digest.update(name.encode() + b"\0")
        if isinstance(value, Tensor):
            digest.update(repr(tuple(value.shape)).encode() + value.contiguous().numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def ears_fingerprint(ears: AudioEncoder) -> str:
    """The weights that features depend on, and the sizes; the projection apart."""
    state = {k: v for k, v in ears.state_dict().items() if not k.startswith(("proj.", "audio_bos_eos_token."))}
    return fingerprint({**state, "config": ears.cfg})


class FeatureStore:
    """Features of clips, read as a memory map."""

    def __init__(self, folder: Path, width: int):
        index = folder / "index.jsonl"
        if not index.exists():
            raise WeightsError(f"there are no features in {folder}; run the stage that computes them")
        rows = [json.loads(line) for line in index.read_text().splitlines(keepends=True) if line.endswith("\n")]
        self.clips = [StoredClip(row["start"], row["rows"], row["about"]) for row in rows]
        self._features = np.memmap(folder / "features.f16", dtype="<f2", mode="r").reshape(-1, width)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> Tensor:
        """Features (T, d_model) float32 of clip ``number``."""
        clip = self.clips[number]
        rows = np.asarray(self._features[clip.start : clip.start + clip.rows], dtype=np.float32)
        return torch.from_numpy(rows)


@dataclass(frozen=True)
class FeaturePlan:
    """Clips to be encoded. mel, about: the log-mel (M, F) of a clip, and what the index says of it, by its number."""

    count: int
    digest: str  # the fingerprint of all that mel and about depend on
    mel: Callable[[int], Tensor]
    about: Callable[[int], Mapping[str, Any]]


@torch.inference_mode()
def compute_features(folder: Path, ears: AudioEncoder, plan: FeaturePlan, stop_after: int | None = None) -> bool:
    """Encode what the store lacks, group by group. Returns whether it is whole; stop_after: groups in this call.

    ConfigError: the folder holds features of other ears or other clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"digest": fingerprint({"ears": ears_fingerprint(ears), "clips": plan.digest}), "clips": plan.count}
    told = folder / "plan.json"
    if told.exists() and json.loads(told.read_text()) != wanted:
        raise ConfigError(f"{folder} holds features of other ears or other clips; remove it, and they are made anew")
    told.write_text(json.dumps(wanted))
    done, rows = _whole_groups(folder, ears.cfg.d_model, plan.count)
    budget = stop_after
    with (folder / "features.f16").open("ab") as features, (folder / "index.jsonl").open("a") as index:
        for first in range(done, plan.count, GROUP_CLIPS):
            if budget == 0:
                return False
            numbers = range(first, min(first + GROUP_CLIPS, plan.count))
            lines = []
            for number, encoded in zip(numbers, ears.features([plan.mel(n) for n in numbers]), strict=True):
                features.write(encoded.numpy().astype("<f2").tobytes())
                line = {"start": rows, "rows": len(encoded), "about": dict(plan.about(number))}
                lines.append(json.dumps(line) + "\n")
                rows += len(encoded)
            features.flush()
            index.write("".join(lines))
            index.flush()
            budget = None if budget is None else budget - 1
    return True


def _whole_groups(folder: Path, width: int, count: int) -> tuple[int, int]:
    """Cut both files to the groups that are complete: (clips, rows) that are there."""
    index = folder / "index.jsonl"
    features = folder / "features.f16"
    index.touch()
    features.touch()
    lines = [line for line in index.read_text().splitlines(keepends=True) if line.endswith("\n")]
    whole = len(lines) if len(lines) == count else len(lines) // GROUP_CLIPS * GROUP_CLIPS
    last = json.loads(lines[whole - 1]) if whole else {"start": 0, "rows": 0}
    rows = last["start"] + last["rows"]
    index.write_text("".join(lines[:whole]))
    with features.open("r+b") as file:
        file.truncate(rows * width * 2)
    return whole, rows
