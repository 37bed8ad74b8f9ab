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
from descant.model.ode import GUIDED, Solver, moments, schedule, solve
from descant.types import Decoding

GroupItem = TypeVar("GroupItem")
GroupResult = TypeVar("GroupResult")


@dataclass(frozen=True)
class SolverWindow:
    """One solve of the DiT: codes (C,) int64, voice (G, D) as ``Token2Wav.voice_rows`` gives it, unscaled noise
    x0 (T, M), T = C * repeats. past: what ``Solved.past`` of the window before was; None: the utterance starts here.
    keep: the block whose past is wanted."""

    codes: Tensor
    voice: Tensor
    x0: Tensor
    decoding: Decoding
    past: Sequence[Tensor] | None = None
    keep: int = 0

    @property
    def geometry(self) -> Hashable:
        """Windows of equal geometry can be rows of one batch. Guidance and noise scale may differ from row to row."""
        d = self.decoding
        return len(self.codes), len(self.voice), d.solver, d.points, d.sway, self.past is None, self.keep


@dataclass(frozen=True)
class SolvedWindow:
    """mel (M, T) of one window; past: for each evaluation of the solve (L, G, K, 2, D), at each of the L layers that
    look back the keys and values of the block to ``keep``, in the branches that were computed. The window after it
    goes on from them, so nothing that was solved is solved again."""

    mel: Tensor
    past: tuple[Tensor, ...]


def solve_windows(dit: DiT, windows: Sequence[SolverWindow]) -> list[SolvedWindow]:
    """Solve each window, in order: one solve for each geometry."""
    return in_groups(windows, [w.geometry for w in windows], lambda group: solve_together(dit, group))


def solve_together(dit: DiT, group: Sequence[SolverWindow]) -> list[SolvedWindow]:
    """Windows of one geometry."""
    d, device = group[0].decoding, group[0].voice.device
    times = schedule(d.points, d.sway).to(device)
    voices = torch.stack([w.voice for w in group], dim=1)  # (G, B, D)
    pasts = [w.past for w in group if w.past is not None]
    field = VelocityField(
        dit,
        condition(dit, torch.stack([w.codes for w in group]), voices),
        strength(group, device),
        dit.schedule_times((d.points, d.sway, d.solver), moments(times, d.solver)),
        None if group[0].past is None else [torch.stack(own, dim=2) for own in zip(*pasts, strict=True)],
        group[0].keep,
    )
    x0 = torch.stack([w.x0.to(device) * w.decoding.noise_scale for w in group])
    mels, past = field.follow(x0, times, d.solver)
    # copies: a view would keep the past of the whole batch in memory
    return [SolvedWindow(mel, tuple(known[:, :, i].clone() for known in past)) for i, mel in enumerate(mels.mT)]


def in_groups(
    items: Sequence[GroupItem],
    keys: Sequence[Hashable],
    together: Callable[[Sequence[GroupItem]], Sequence[GroupResult]],
) -> list[GroupResult]:
    """``together`` for the items of each key; its results in the order of ``items``."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    results: dict[int, GroupResult] = {}
    for group in places.values():
        results.update(zip(group, together([items[place] for place in group]), strict=True))
    return [results[place] for place in range(len(items))]


# ---------------------------------------------------------------- the field that the solver follows


def condition(dit: DiT, codes: Tensor, voices: Tensor) -> Tensor:
    """codes (B, C), voices (G, B, D) -> (G, B, T, D). The null branch hears its voice row alone: code 0 is in it."""
    spoken = voices[0, :, None] + dit.code_rows(codes)
    return torch.stack([spoken, *(null[:, None].expand_as(spoken) for null in voices[1:])])


def strength(windows: Sequence[SolverWindow], device: torch.device) -> Tensor:
    """(B, 1, 1): the guidance of each window."""
    return torch.tensor([w.decoding.guidance for w in windows], device=device)[:, None, None]


def guided(spoken: Tensor, lead: Tensor, guidance: Tensor) -> Tensor:
    """The guided velocity (B, T, M): what is spoken, and ``guidance`` (B, 1, 1) times its lead over the null branch."""
    return spoken + guidance * lead


@dataclass(frozen=True)
class VelocityField:
    """The velocity of all branches of all windows, in one batch.

    condition (G, B, T, D), guidance (B, 1, 1); times: ``DiT.times`` of all evaluations, which do not depend on x;
    past: for each evaluation (L, G, B, K, 2, D), or None.
    """

    dit: DiT
    condition: Tensor
    guidance: Tensor
    times: Sequence[Tensor]
    past: Sequence[Tensor] | None
    keep: int

    def follow(self, x0: Tensor, times: Tensor, solver: Solver) -> tuple[Tensor, list[Tensor]]:
        """x0 (B, T, M) -> where the field leads (B, T, M), and the past of the windows that come next.

        The null branch is computed where the solver asks for guidance; between, the last lead serves.
        """
        lead, asks = torch.zeros_like(x0), GUIDED[solver]
        kept: list[Tensor] = []  # one for each evaluation so far

        def velocity(_: Tensor, x: Tensor) -> Tensor:
            nonlocal lead
            k = len(kept)
            condition = self.condition if asks[k % len(asks)] else self.condition[:1]
            past = None if self.past is None else self.past[k].flatten(1, 2)
            now = [rows_of_all[k : k + 1] for rows_of_all in self.times]
            out, own = self.dit.window(x.repeat(len(condition), 1, 1), now, condition.flatten(0, 1), past, self.keep)
            kept.append(own.view(len(own), len(condition), len(x), *own.shape[2:]))
            spoken, *null = out.chunk(len(condition))
            if null:
                lead = spoken - null[0]
            return guided(spoken, lead, self.guidance)

        return solve(velocity, x0, times, solver), kept
