"""Muon: near-orthogonal steps for matrices, AdamW's own for everything else, and a state that survives a restart."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from descant.train.muon import Muon, matrices_of, orthogonalise


@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (48, 16)])
def test_steps_are_about_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3 and values.min() > 0.3


def test_only_linear_weights_are_matrices() -> None:
    net = nn.ModuleList([nn.Embedding(4, 4), nn.Linear(4, 4), nn.Conv1d(4, 4, 3), nn.LayerNorm(4)])
    assert matrices_of([net]) == {net[1].weight}


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for i in range(first, last):
        data = torch.randn(8, 6, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        net(data).square().mean().backward()
        optimizer.step()


def test_other_parameters_take_adamw_steps() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 6)
    twin = copy.deepcopy(net)
    steps(net, Muon([{"params": list(net.parameters()), "weight_decay": 0.1}], lr=1e-2), 0, 5)
    steps(twin, torch.optim.AdamW(twin.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1), 0, 5)
    torch.testing.assert_close(net.weight, twin.weight, atol=1e-6, rtol=1e-5)


def test_a_restart_changes_nothing() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
    cut = copy.deepcopy(whole)

    def optimizer(net: nn.Module) -> Muon:
        matrices = list(matrices_of([net]))
        plain = [p for p in net.parameters() if p.ndim == 1]
        ordered = [p for p in net.parameters() if any(p is m for m in matrices)]
        return Muon([{"params": plain}, {"params": ordered, "matrices": True, "scale": 8.0}], lr=1e-3)

    steps(whole, optimizer(whole), 0, 6)
    first = optimizer(cut)
    steps(cut, first, 0, 3)
    second = optimizer(cut)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(cut, second, 3, 6)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b)
