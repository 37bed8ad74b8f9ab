"""Fused == apart: one product for several layers gives their outputs, keeps their names and holds nothing twice."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from descant.model.decoder import Decoder
from descant.nn import layers
from descant.nn.layers import Linear
from tests.laws.test_decoder import CFG, LAW, T, close, ids, in_pieces, rows


@pytest.fixture(scope="module")
def apart() -> Decoder:
    torch.manual_seed(0)
    body = Decoder(CFG).eval()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms that matter
    return body


@pytest.fixture
def fused(apart: Decoder) -> Decoder:
    body = copy.deepcopy(apart)
    body.fuse()
    return body


def joints(body: Decoder) -> list[object]:
    with torch.no_grad():
        return [part.joint for part in body.modules() if isinstance(part, layers.Fusible)]


@LAW
@given(cuts=st.lists(st.integers(1, T - 1), max_size=6), pad=st.integers(0, 30))
@torch.no_grad()
def test_fused_is_apart(apart: Decoder, cuts: list[int], pad: int) -> None:
    body = copy.deepcopy(apart)
    body.fuse()
    assert all(joints(body))
    mask = torch.arange(T) >= torch.tensor([[pad], [0]])
    found, expected = (in_pieces(one, rows(2), ids(2), cuts, mask) for one in (body, apart))
    close(found[0, pad:], expected[0, pad:])
    close(found[1], expected[1])


def test_names_and_values_stay_and_nothing_is_held_twice(apart: Decoder, fused: Decoder) -> None:
    before, after = apart.state_dict(), fused.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    parts = [part for part in fused.modules() if isinstance(part, layers.Fusible)]
    for part in parts:
        joint = part._joint
        assert joint is not None
        homes = {layer.weight.untyped_storage().data_ptr() for layer in part.siblings()}
        assert homes == {joint.weight.untyped_storage().data_ptr()}
        assert sum(layer.weight.numel() for layer in part.siblings()) == joint.weight.numel()


def test_a_fused_decoder_learns_as_one_apart(apart: Decoder, fused: Decoder) -> None:
    grads = []
    for body in (apart, fused):
        body.zero_grad()
        body(rows(2), ids(2))[0].square().sum().backward()
        grads.append({name: parameter.grad for name, parameter in body.named_parameters()})
    for name, grad in grads[0].items():
        other = grads[1][name]
        assert (grad is None) == (other is None) == (name == "embed_tokens.weight"), name
        if grad is not None and other is not None:
            close(other, grad)


@torch.no_grad()
def test_what_is_written_into_a_layer_is_seen(apart: Decoder, fused: Decoder) -> None:
    changed = {name: 0.9 * value for name, value in apart.state_dict().items()}
    other = copy.deepcopy(apart)
    for body in (other, fused):
        body.load_state_dict(changed)
    assert all(joints(fused))
    close(fused(rows(1), ids(1))[0], other(rows(1), ids(1))[0])


@torch.no_grad()
def test_another_dtype_is_taken_apart_again(apart: Decoder, fused: Decoder) -> None:
    fused.to(torch.float64)
    assert not any(joints(fused))
    wide = fused(rows(1).double(), ids(1))[0]
    close(wide.float(), apart(rows(1), ids(1))[0])


@pytest.mark.skipif(not layers.ONEDNN, reason="this torch is built without oneDNN")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (1, 1, 40), (3, 1, 40), (2, 9, 40), (0, 40)])
def test_onednn_is_the_plain_product(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], bias: bool) -> None:
    monkeypatch.setattr(layers, "LARGE", 0)
    layer, x = Linear(40, 7, bias=bias), torch.randn(shape)
    with torch.no_grad():
        plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with torch.inference_mode():
        found = layer(x)
    assert found.shape == plain.shape
    close(found, plain)


@torch.no_grad()
def test_a_compiler_is_given_the_plain_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oneDNN does to weights that lie plainly, inductor cannot lower."""
    monkeypatch.setattr(layers, "LARGE", 0)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(Linear(8, 4), backend=backend)(torch.randn(3, 8))
    assert seen and not any("mkldnn" in name for name in seen)


def test_a_large_layer_still_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "LARGE", 0)
    layer, x = Linear(8, 4), torch.randn(3, 8, requires_grad=True)
    out: Tensor = layer(x)
    out.sum().backward()
    assert layer.weight.grad is not None and x.grad is not None
