"""Solving dx/dt = v(t, x) from t = 0 (noise) to t = 1 (mel): the schedule and three fixed-step methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Velocity = Callable[[float, Tensor], Tensor]  # (t, x) -> dx/dt, shaped like x
Solver = Literal["euler", "midpoint", "rk4"]
OFFSETS: dict[Solver, tuple[float, ...]] = {  # where in a step the field is evaluated, in order
    "euler": (0.0,),
    "midpoint": (0.0, 1 / 2),
    "rk4": (0.0, 1 / 3, 2 / 3, 1.0),
}
GUIDED: dict[Solver, tuple[bool, ...]] = {  # where in a step the guidance is computed; elsewhere the last one serves
    "euler": (True,),
    "midpoint": (False, True),  # the first slope only finds the place of the second, which alone makes the step
    "rk4": (True, True, True, True),
}


def schedule(points: int, sway: float) -> Tensor:
    """Time points (points,) float32 from 0 to 1. ``sway`` -1 gathers them near 0, where the speech takes shape
    (t + sway * (cos(pi t / 2) - 1 + t), F5-TTS, arXiv 2410.06885); 0 leaves them even."""
    t = torch.linspace(0.0, 1.0, points, dtype=torch.float32)
    return t + sway * (torch.cos(torch.pi / 2 * t) - 1 + t)


def evaluations(points: int, method: Solver) -> int:
    """The evaluations that ``solve`` makes over ``points`` times."""
    return (points - 1) * len(OFFSETS[method])


def moments(times: Tensor, method: Solver) -> Tensor:
    """The time of every evaluation that ``solve`` makes (E,), in order: known before it starts, whatever x becomes."""
    offsets = torch.tensor(OFFSETS[method], dtype=times.dtype, device=times.device)
    return (times[:-1, None] + times.diff()[:, None] * offsets).flatten()


def solve(velocity: Velocity, x0: Tensor, times: Sequence[float], method: Solver) -> Tensor:
    """Integrates ``velocity`` over ``times`` (P,) from ``x0``; P - 1 steps of 1 (euler), 2 (midpoint) or 4 (rk4)
    evaluations."""
    step = {"euler": euler_step, "midpoint": midpoint_step, "rk4": rk4_step}[method]
    x = x0
    for start, end in pairwise(times):
        x = step(velocity, start, end, x)
    return x


def euler_step(velocity: Velocity, start: float, end: float, x: Tensor) -> Tensor:
    return x + (end - start) * velocity(start, x)


def midpoint_step(velocity: Velocity, start: float, end: float, x: Tensor) -> Tensor:
    half = (end - start) / 2
    return x + 2 * half * velocity(start + half, x + half * velocity(start, x))


def rk4_step(velocity: Velocity, start: float, end: float, x: Tensor) -> Tensor:
    """Kutta's 3/8 rule: slopes at 0, 1/3, 2/3 and 1 of the step, weighted 1, 3, 3, 1 over 8."""
    h = end - start
    k1 = velocity(start, x)
    k2 = velocity(start + h / 3, x + h * k1 / 3)
    k3 = velocity(start + h * 2 / 3, x + h * (k2 - k1 / 3))
    k4 = velocity(end, x + h * (k1 - k2 + k3))
    return x + h * (k1 + 3 * (k2 + k3) + k4) / 8
