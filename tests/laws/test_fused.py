"""Fused and packed == apart: a prepared model gives the same outputs, keeps its names and holds nothing twice."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from descant.model.decoder import Decoder
from descant.model.dit import MAX_SCHEDULES
from descant.nn import linear as linear_module
from descant.nn.fusion import Fusable
from descant.nn.linear import HAS_ONEDNN, GeluLinear, Linear, linear
from descant.nn.prepare import prepare
from tests import tiny_speech
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
    prepare(body)
    return body


def parts_of(body: Decoder) -> list[Fusable]:
    return [part for part in body.modules() if isinstance(part, Fusable)]


def fusions(body: Decoder) -> list[object]:
    with torch.no_grad():
        return [part.fused for part in parts_of(body)]


@LAW
@given(cuts=st.lists(st.integers(1, T - 1), max_size=6), pad=st.integers(0, 30))
@torch.no_grad()
def test_fused_is_apart(apart: Decoder, cuts: list[int], pad: int) -> None:
    body = copy.deepcopy(apart)
    prepare(body)
    assert all(fusions(body))
    mask = torch.arange(T) >= torch.tensor([[pad], [0]])
    found, expected = (in_pieces(one, rows(2), ids(2), cuts, mask) for one in (body, apart))
    close(found[0, pad:], expected[0, pad:])
    close(found[1], expected[1])


def test_names_and_values_stay_and_nothing_is_held_twice(apart: Decoder, fused: Decoder) -> None:
    before, after = apart.state_dict(), fused.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for part in parts_of(fused):
        fused_layer = part._fused
        assert fused_layer is not None
        homes = {layer.weight.untyped_storage().data_ptr() for layer in part.fused_layers()}
        assert homes == {fused_layer.weight.untyped_storage().data_ptr()}
        assert sum(layer.weight.numel() for layer in part.fused_layers()) == fused_layer.weight.numel()


def test_a_fused_decoder_learns_as_one_apart(apart: Decoder, fused: Decoder) -> None:
    grads = []
    for body in (apart, fused):
        body.zero_grad()
        body(rows(2), ids(2)).square().sum().backward()
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
    assert all(fusions(fused))
    close(fused(rows(1), ids(1))[0], other(rows(1), ids(1))[0])


@torch.no_grad()
def test_another_dtype_is_taken_apart_again(apart: Decoder, fused: Decoder) -> None:
    fused.to(torch.float64)
    assert not any(fusions(fused))
    wide = fused(rows(1).double(), ids(1))[0]
    close(wide.float(), apart(rows(1), ids(1))[0])


packing = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch is built without oneDNN")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights are packed too."""
    monkeypatch.setattr(linear_module, "PACK_MIN_WEIGHTS", 1)


@packing
@LAW
@given(cuts=st.lists(st.integers(1, T - 1), max_size=6))
@torch.no_grad()
def test_packed_is_plain(apart: Decoder, cuts: list[int]) -> None:
    body = copy.deepcopy(apart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_module, "PACK_MIN_WEIGHTS", 1)
        prepare(body)
    assert all(p.is_meta for name, p in body.named_parameters() if name.endswith("proj.weight"))
    found, expected = (in_pieces(one, rows(2), ids(2), cuts) for one in (body, apart))
    close(found, expected)


@packing
def test_a_packed_layer_has_its_gelu(small: None) -> None:
    layer, x = GeluLinear(40, 7), torch.randn(2, 9, 40)
    with torch.inference_mode():
        plain = torch.nn.functional.gelu(torch.nn.functional.linear(x, layer.weight, layer.bias), approximate="tanh")
        apart = layer(x)
        layer.prepare()
        close(layer(x), plain)
        close(apart, plain)


@packing
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (1, 1, 40), (2, 40), (3, 1, 40), (2, 9, 40), (0, 40)])
def test_a_packed_layer_is_the_plain_one(small: None, shape: tuple[int, ...], bias: bool) -> None:
    layer, x = Linear(40, 7, bias=bias), torch.randn(shape)
    with torch.no_grad():
        plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
        kept = linear(x, layer.weight) + (layer.bias if layer.bias is not None else 0)
    layer.prepare()
    with torch.inference_mode():
        found = layer(x)
    for one in (found, kept):
        assert one.shape == plain.shape
        close(one, plain)


@packing
def test_a_packed_layer_says_that_it_is_one(small: None) -> None:
    """Its weight is gone: whoever saves, moves or casts it must hear of it, not get numbers that mean nothing."""
    layer = Linear(40, 7)
    layer.prepare()
    assert layer.weight.shape == (7, 40)
    with pytest.raises(RuntimeError, match="load it as it is wanted"):
        layer.to(torch.float64)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        layer.weight.numpy(force=True)


@packing
def test_fused_layers_are_packed_together(small: None, apart: Decoder) -> None:
    body = copy.deepcopy(apart)
    prepare(body)
    assert all(part._fused and part._fused.kernel is not None for part in parts_of(body))
    with pytest.raises(RuntimeError, match="load it as it is wanted"):
        body.to(torch.float64)


@torch.no_grad()
def test_a_compiler_is_given_the_plain_product() -> None:
    """What oneDNN does to weights that lie plainly, inductor cannot lower."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(linear, backend=backend)(torch.randn(3, 8), torch.randn(4, 8))
    assert seen and not any("mkldnn" in name for name in seen)


def test_a_weight_that_stays_still_learns() -> None:
    weight, x = torch.randn(4, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None and x.grad is not None


# ---------------------------------------------------------------- what never changes is computed once


def test_a_prepared_dit_computes_the_times_of_a_schedule_once() -> None:
    net, made = tiny_speech.token2wav().dit, list[int]()
    hook = net.time_embed.register_forward_hook(lambda *_: made.append(1))

    def ask(schedule: int) -> Tensor:
        return net.schedule_times(schedule, torch.linspace(0, 1, schedule))[0]

    with torch.no_grad():
        plain = ask(3)
        assert torch.equal(ask(3), plain) and len(made) == 2  # not prepared yet
        prepare(net)
        for _ in range(3):
            close(ask(3), plain)
        ask(4)
        assert len(made) == 4
        for schedule in range(5, 5 + MAX_SCHEDULES):
            ask(schedule)
        made.clear()
        ask(4 + MAX_SCHEDULES)
        assert not made
        ask(3)
        assert made == [1]  # the oldest had gone
    ask(3)
    assert made == [1, 1]  # a gradient might be wanted
    hook.remove()
