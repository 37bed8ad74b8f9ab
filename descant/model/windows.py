"""Windows of many streams in one forward: those of one geometry are the rows of one batch.

Nothing here remembers a stream, and no row reads another, so a row of NaN stays one row. A stream in company differs
from itself alone by the rounding of a larger matrix product, and by nothing else.

Axes: B windows, G branches of guidance (condition, null), C codes, T mel frames, M mel bins, D width, W samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from descant.model.dit import DiT
from descant.model.ode import Velocity, schedule, solve
from descant.model.vocoder import BigVGAN
from descant.model.vocos import Vocos
from descant.types import Decoding

Item = TypeVar("Item")


@dataclass(frozen=True)
class Window:
    """One solve of the DiT: codes (C,) int64, voice (G, D) as ``Token2Wav.voice_rows`` gives it, unscaled noise
    x0 (T, M), T = C * repeats."""

    codes: Tensor
    voice: Tensor
    x0: Tensor
    decoding: Decoding

    @property
    def geometry(self) -> Hashable:
        """Windows of equal geometry can be rows of one batch. Guidance and noise scale may differ from row to row."""
        d = self.decoding
        return len(self.codes), len(self.voice), d.solver, d.points, d.sway


def solve_windows(dit: DiT, windows: Sequence[Window]) -> list[Tensor]:
    """The mel (M, T) of each window, in order: one solve for each geometry."""

    def together(group: Sequence[Window]) -> Sequence[Tensor]:
        d, device = group[0].decoding, dit.proj_out.weight.device
        voices = torch.stack([w.voice for w in group], dim=1)  # (G, B, D)
        velocity = guided(dit, condition(dit, torch.stack([w.codes for w in group]), voices), strength(group, device))
        x0 = torch.stack([w.x0.to(device) * w.decoding.noise_scale for w in group])
        return solve(velocity, x0, schedule(d.points, d.sway).to(device), d.solver).mT.unbind()

    return in_groups(windows, [w.geometry for w in windows], together)


def sing_windows(vocoder: BigVGAN | Vocos, mels: Sequence[Tensor]) -> list[Tensor]:
    """Samples (W,) in [-1, 1] of each mel (M, T), in order: one call for each length."""

    def together(group: Sequence[Tensor]) -> Sequence[Tensor]:
        wave: Tensor = vocoder(torch.stack([*group]))
        return wave.clamp(-1.0, 1.0).unbind()

    return in_groups(mels, [mel.shape[1] for mel in mels], together)


def in_groups(
    items: Sequence[Item], keys: Sequence[Hashable], together: Callable[[Sequence[Item]], Sequence[Tensor]]
) -> list[Tensor]:
    """``together`` for the items of each key; its results in the order of ``items``."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    results: dict[int, Tensor] = {}
    for group in places.values():
        results.update(zip(group, together([items[place] for place in group]), strict=True))
    return [results[place] for place in range(len(items))]


# ---------------------------------------------------------------- the field that the solver follows


def condition(dit: DiT, codes: Tensor, voices: Tensor) -> Tensor:
    """codes (B, C), voices (G, B, D) -> (G, B, T, D). The null branch hears its voice row alone: code 0 is in it."""
    spoken = voices[0, :, None] + dit.code_rows(codes)
    return torch.stack([spoken, *(null[:, None].expand_as(spoken) for null in voices[1:])])


def strength(windows: Sequence[Window], device: torch.device) -> Tensor:
    """(B, 1, 1): the guidance of each window."""
    return torch.tensor([w.decoding.guidance for w in windows], device=device)[:, None, None]


def guided(dit: DiT, condition: Tensor, guidance: Tensor) -> Velocity:
    """c + guidance * (c - n), all branches of all windows in one batch. condition (G, B, T, D), guidance (B, 1, 1)."""
    branches, rows = len(condition), condition.flatten(0, 1)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        out = dit.velocity(x.repeat(branches, 1, 1), t[None], rows)
        if branches == 1:
            return out
        spoken, null = out.chunk(2)
        return spoken + guidance * (spoken - null)

    return velocity
