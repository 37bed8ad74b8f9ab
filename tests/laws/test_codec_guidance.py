"""Guidance along a solve: where the null branch is left out, the order of the solver stays what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import pytest
import torch
from torch import Tensor

from descant.model import ode, windows
from descant.model.dit import DiT

SPOKEN, NULL, GUIDANCE = (
    1.0,
    -0.6,
    0.5,
)  # dx/dt = SPOKEN x, or NULL x; the guided field is x (SPOKEN + g (SPOKEN - NULL))


class Growth:
    """In place of a DiT: what grows at the rate of its condition. rows: those of each evaluation."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def window_angles(self, frames: int, device: torch.device, follows: bool) -> None:
        pass

    def window(self, x: Tensor, times: Sequence[Tensor], condition: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        self.rows.append(len(x))
        return x * condition, x.new_zeros(0, len(x), 0, 2, 0)


def followed(points: int, solver: ode.Solver) -> tuple[float, list[int]]:
    """The error of the solve of two windows in one batch, and the rows of each evaluation."""
    growth = Growth()
    rates = torch.tensor([SPOKEN, NULL], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 2, 1, 1)
    field = windows.VelocityField(cast(DiT, growth), rates, torch.full((2, 1, 1), GUIDANCE), [], None, 0)
    x0 = torch.ones(2, 1, 1, dtype=torch.float64)
    mel, _ = field.follow(x0, torch.linspace(0, 1, points, dtype=torch.float64), solver)
    return float((mel - math.exp(SPOKEN + GUIDANCE * (SPOKEN - NULL))).abs().max()), growth.rows


@pytest.mark.parametrize("solver,order", [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_the_order_stays(solver: ode.Solver, order: int) -> None:
    """Halving the step divides the error by about 2 ** order, with guidance as without."""
    coarse, fine = (followed(points, solver)[0] for points in (17, 33))
    assert coarse / fine == pytest.approx(2**order, rel=0.2)


@pytest.mark.parametrize("solver,rows", [("euler", [4]), ("midpoint", [2, 4]), ("rk4", [4, 4, 4, 4])])
def test_the_null_branch_is_computed_where_it_counts(solver: ode.Solver, rows: list[int]) -> None:
    assert followed(4, solver)[1] == 3 * rows


def test_a_lead_taken_at_the_wrong_place_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guidance from the first slope of a midpoint step costs an order."""
    monkeypatch.setitem(ode.GUIDED, "midpoint", (True, False))
    coarse, fine = (followed(points, "midpoint")[0] for points in (17, 33))
    assert coarse / fine < 2.5
