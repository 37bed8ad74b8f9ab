"""The schedule and the solvers against the reference's solver and against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import RungeKutta4ODESolver

from descant.model import ode

# model-facts D.7: 1 - cos(pi t / 2) at ten even points
SWAYED = [0, 0.015192, 0.060307, 0.133975, 0.233956, 0.357212, 0.5, 0.65798, 0.826352, 1]


def field(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(3 * x) * (1 + t) - x * t.square()


def test_sway_schedule() -> None:
    assert torch.allclose(ode.schedule(10, -1.0), torch.tensor(SWAYED), atol=1e-6)
    assert torch.equal(ode.schedule(10, 0.0), torch.linspace(0, 1, 10))


def test_runge_kutta_parity(record: Callable[[str, str, float], None]) -> None:
    x0 = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    times = ode.schedule(10, -1.0)
    expected = RungeKutta4ODESolver(function=field, initial_value=x0).integrate(times)[-1]
    worst = float((ode.solve(field, x0, times, "rk4") - expected).abs().max() / expected.abs().max())
    record("ODE solver", "RK4 3/8, sway", worst)
    assert worst < 1e-6


def test_euler_is_the_sum_of_its_steps() -> None:
    times = torch.tensor([0.0, 0.25, 1.0])
    x0 = torch.tensor([0.5])
    middle = x0 + 0.25 * field(times[0], x0)
    assert torch.equal(ode.solve(field, x0, times, "euler"), middle + 0.75 * field(times[1], middle))


@pytest.mark.parametrize("method,order", [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_convergence(method: ode.Solver, order: int) -> None:
    """Halving the step divides the error of dx/dt = x by about 2 ** order."""
    x0 = torch.ones(1, dtype=torch.float64)
    errors = [
        float((ode.solve(lambda t, x: x, x0, torch.linspace(0, 1, n, dtype=torch.float64), method) - torch.e).abs())
        for n in (9, 17)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize("method,evaluations", [("euler", 9), ("midpoint", 18), ("rk4", 36)])
def test_evaluations(method: ode.Solver, evaluations: int) -> None:
    seen: list[float] = []

    def count(t: Tensor, x: Tensor) -> Tensor:
        seen.append(float(t))
        return x

    times = ode.schedule(10, -1.0)
    ode.solve(count, torch.ones(1), times, method)
    assert len(seen) == evaluations
    assert torch.allclose(torch.tensor(seen), ode.moments(times, method), atol=1e-6)  # all known before the start


def classic(velocity: ode.Velocity, start: Tensor, end: Tensor, x: Tensor) -> Tensor:
    """The other fourth-order rule (weights 1, 2, 2, 1 over 6): right in the limit, but not the reference's."""
    h = end - start
    k1 = velocity(start, x)
    k2 = velocity(start + h / 2, x + h * k1 / 2)
    k3 = velocity(start + h / 2, x + h * k2 / 2)
    return x + h * (k1 + 2 * k2 + 2 * k3 + velocity(end, x + h * k3)) / 6


def test_another_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ode, "rk4_step", classic)
    x0 = torch.randn(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = ode.schedule(4, -1.0).double()
    expected = RungeKutta4ODESolver(function=field, initial_value=x0).integrate(times)[-1]
    assert float((ode.solve(field, x0, times, "rk4") - expected).abs().max()) > 1e-5
