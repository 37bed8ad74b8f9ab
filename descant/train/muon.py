"""Muon: steps of equal size in every direction of a weight matrix (Jordan et al., 2024; kellerjordan.github.io).

The momentum of each matrix is replaced by the nearest orthogonal one, found by five Newton-Schulz steps. Vectors,
embeddings and convolutions, which are no linear maps between hidden spaces, take AdamW steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A = 3.4445
_B = -4.7750
_C = 2.0315  # coefficients of the quintic, tuned by the authors for a steep slope at zero


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """(R, C) -> (R, C) with about the same singular vectors and singular values between 0.7 and 1.2."""
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = _A * x + torch.addmm(square, square, square, beta=_B, alpha=_C) @ x
    return x.mT if tall else x


def matrices_of(modules: Iterable[nn.Module]) -> set[nn.Parameter]:
    """The weights of linear layers."""
    linear = [part for module in modules for part in module.modules() if isinstance(part, nn.Linear)]
    return {weight for part in linear for weight in part.parameters() if weight.ndim == 2}


class Muon(torch.optim.Optimizer):
    """Groups with ``matrices`` True take Muon's steps of ``scale`` times the rate; all others AdamW's."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.95)):
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0, "matrices": False, "scale": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            update = _muon_step if group["matrices"] else _adamw_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, parameter.grad, self.state[parameter], group)


def _muon_step(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    momentum: Tensor = state["momentum"]
    momentum.lerp_(gradient, 0.05)
    step = orthogonalise(gradient.lerp(momentum, 0.95))  # Nesterov's look ahead
    size = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
    parameter.add_(step, alpha=-group["lr"] * group["scale"] * size)


def _adamw_step(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
    first, second = group["betas"]
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - first)
    state["square"].lerp_(gradient.square(), 1 - second)
    root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(1e-8)
    parameter.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - first ** state["step"]))
