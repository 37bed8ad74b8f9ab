"""Windows of many streams in one forward: those of one geometry are the rows of one batch.

Nothing here remembers a stream, and no row reads another, so a row of NaN stays one row. A stream in company differs
from itself alone by the rounding of a larger matrix product, and by nothing else.

Axes: B windows, G branches of guidance (condition, null), C codes, T mel frames, M mel bins, D width, W samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from descant.model.dit import DiT
from descant.model.ode import GUIDED, Solver, moments, schedule, solve
from descant.nn.regions import EAGER, Company, Regions, runner
from descant.types import Decoding, Precision

GroupItem = TypeVar("GroupItem")
GroupResult = TypeVar("GroupResult")


@dataclass(frozen=True)
class SolverWindow:
    """One solve of the DiT: codes (C,) int64, voice (G, D) as ``Token2Wav.voice_rows`` gives it, unscaled noise
    x0 (T, M), T = C * repeats. past: what ``Solved.past`` of the window before was; None: the utterance starts here.
    keep: the block whose past is wanted. frames: of T those that are real; the rest fills the last block, so that the
    ends of utterances have few shapes (None: all, T whatever it is). company: see ``nn.regions``. codes and x0 are on
    the CPU."""

    codes: Tensor
    voice: Tensor
    x0: Tensor
    decoding: Decoding
    past: Sequence[Tensor] | None = None
    keep: int = 0
    frames: int | None = None
    company: Company = "any"

    @property
    def geometry(self) -> Hashable:
        """Windows of equal geometry can be rows of one batch. Guidance and noise scale may differ from row to row."""
        d = self.decoding
        how = d.solver, d.points, d.sway, d.precision
        return len(self.codes), len(self.voice), how, self.past is None, self.keep, self.frames is None


@dataclass(frozen=True)
class SolvedWindow:
    """mel (M, T) of one window; past: for each evaluation of the solve (L, G, K, 2, D), at each of the L layers that
    look back the keys and values of the block to ``keep``, in the branches that were computed. The window after it
    goes on from them, so nothing that was solved is solved again."""

    mel: Tensor
    past: tuple[Tensor, ...]


def solve_windows(dit: DiT, windows: Sequence[SolverWindow], regions: Regions = EAGER) -> list[SolvedWindow]:
    """Solve each window, in order: one solve for each geometry."""
    return in_groups(windows, [w.geometry for w in windows], lambda group: solve_together(dit, group, regions))


def solve_together(dit: DiT, group: Sequence[SolverWindow], regions: Regions = EAGER) -> list[SolvedWindow]:
    """Windows of one geometry: their inputs are laid out, and the solve is a region."""
    first, device = group[0], group[0].voice.device
    run_by = runner(regions, [w.company for w in group])
    rows = [*group, *[first] * (run_by.rows(len(group)) - len(group))]
    d, times = first.decoding, schedule(first.decoding.points, first.decoding.sway)
    inputs = [
        torch.stack([w.codes for w in rows]).to(device),
        torch.stack([w.x0 * w.decoding.noise_scale for w in rows]).to(device),
        torch.stack([w.voice for w in rows], dim=1),  # (G, B, D)
        torch.tensor([w.decoding.guidance for w in rows]).to(device)[:, None, None],
    ]
    if first.frames is not None:
        inputs.append(torch.tensor([w.frames for w in rows]).to(device))
    pasts = [w.past for w in rows if w.past is not None]
    inputs += [torch.stack(own, dim=2) for own in zip(*pasts, strict=True)]
    solve = SolveRegion(
        dit,
        times.tolist(),
        dit.schedule_times((d.points, d.sway, d.solver), moments(times, d.solver)),
        d.solver,
        first.keep,
        whole=first.frames is None,
    )
    with precision(d.precision):
        mels, *past = run_by.run(("solve", first.geometry), solve, inputs)
    # copies: a view would keep the past of the whole batch in memory
    return [
        SolvedWindow(mel[:, : w.frames], tuple(known[:, :, i].clone() for known in past))
        for i, (w, mel) in enumerate(zip(group, mels.mT, strict=False))
    ]


@dataclass(frozen=True)
class SolveRegion:
    """The solve of a batch of windows as a pure function of tensors: see ``nn.regions``.

    times: of the schedule; modulations: ``DiT.times`` of all evaluations; whole: no frame only fills a block.
    """

    dit: DiT
    times: Sequence[float]
    modulations: Sequence[Tensor]
    solver: Solver
    keep: int
    whole: bool

    def __call__(
        self, codes: Tensor, x0: Tensor, voices: Tensor, guidance: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """codes (B, C), x0 (B, T, M), voices (G, B, D), guidance (B, 1, 1); then frames (B,) unless whole, and the past
        of each evaluation (L, G, B, K, 2, D) where there is one -> (mel (B, T, M), the past of each evaluation)."""
        lengths, past = (None, rest) if self.whole else (rest[0], rest[1:])
        field = VelocityField(
            self.dit, condition(self.dit, codes, voices), guidance, self.modulations, past or None, self.keep, lengths
        )
        mels, kept = field.follow(x0, self.times, self.solver)
        return mels, *kept


@contextmanager
def precision(name: Precision) -> Iterator[None]:
    """The products of a GPU inside: in float32, or with operands rounded to TF32 (10 bits of mantissa). torch would
    round those of convolutions and not those of matrices. On a CPU nothing changes."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


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


def guided(spoken: Tensor, lead: Tensor, guidance: Tensor) -> Tensor:
    """The guided velocity (B, T, M): what is spoken, and ``guidance`` (B, 1, 1) times its lead over the null branch."""
    return spoken + guidance * lead


@dataclass(frozen=True)
class VelocityField:
    """The velocity of all branches of all windows, in one batch.

    condition (G, B, T, D), guidance (B, 1, 1); times: ``DiT.times`` of all evaluations, which do not depend on x;
    past: for each evaluation (L, G, B, K, 2, D), or None. lengths (B,): frames that are real (None: all).
    """

    dit: DiT
    condition: Tensor
    guidance: Tensor
    times: Sequence[Tensor]
    past: Sequence[Tensor] | None
    keep: int
    lengths: Tensor | None = None

    def follow(self, x0: Tensor, times: Sequence[float], solver: Solver) -> tuple[Tensor, list[Tensor]]:
        """x0 (B, T, M) -> where the field leads (B, T, M), and the past of the windows that come next.

        The null branch is computed where the solver asks for guidance; between, the last lead serves.
        """
        lead, asks = torch.zeros_like(x0), GUIDED[solver]
        angles = self.dit.window_angles(x0.shape[1], x0.device, follows=self.past is not None)
        kept: list[Tensor] = []  # one for each evaluation so far

        def velocity(_: float, x: Tensor) -> Tensor:
            nonlocal lead
            k = len(kept)
            condition = self.condition if asks[k % len(asks)] else self.condition[:1]
            past = None if self.past is None else self.past[k].flatten(1, 2)
            now = [rows_of_all[k : k + 1] for rows_of_all in self.times]
            lengths = None if self.lengths is None else self.lengths.repeat(len(condition))
            branches = x.repeat(len(condition), 1, 1)
            out, own = self.dit.window(branches, now, condition.flatten(0, 1), angles, past, self.keep, lengths)
            kept.append(own.view(len(own), len(condition), len(x), *own.shape[2:]))
            spoken, *null = out.chunk(len(condition))
            if null:
                lead = spoken - null[0]
            return guided(spoken, lead, self.guidance)

        return solve(velocity, x0, times, solver), kept
