"""The plan of a device's memory: its arithmetic, its order of giving way, and the weights that wait on the host."""

from __future__ import annotations

import copy
import json
import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from descant import OptionError
from descant.cli import model
from descant.cli.inspect import inspect_folder
from descant.engine.boundary import as_session_error
from descant.engine.models import offloaded_encoders
from descant.nn.offload import OffloadedModule
from descant.plan import ENCODERS, Plan, make_plan, peak_bytes, plan_table, token_bytes, verdict
from descant.weights.checkpoint import load_checkpoint
from tests import tiny
from tests.engine import rig
from tests.engine.alone import stream
from tests.laws.test_engine import sound
from tests.laws.test_tokens import PROMPT

DATA = Path(__file__).parent / "data"
CARDS = {f"{gb}GB": gb * 2**30 for gb in (8, 16, 24, 48, 80, 141)}
SESSIONS = {"3b": [0, 13, 53, 64, 64, 64], "7b": [0, 0, 4, 58, 64, 64]}


@pytest.fixture(scope="module", params=SESSIONS)
def plans(request: pytest.FixtureRequest) -> tuple[str, dict[str, Plan]]:
    found = inspect_folder(DATA / request.param)
    weights = {part.name: part.nbytes for part in found.parts}
    return request.param, {name: make_plan(found.config, weights, size) for name, size in CARDS.items()}


def test_what_fits_on_six_cards(plans: tuple[str, dict[str, Plan]]) -> None:
    size, made = plans
    assert [plan.sessions for plan in made.values()] == SESSIONS[size]
    table = plan_table(made)
    assert len(table.splitlines()) == 1 + len(CARDS)
    small = made["8GB"]
    assert not small.fits and "short" in verdict(small) and verdict(small) in table


def test_what_is_planned_fits(plans: tuple[str, dict[str, Plan]]) -> None:
    for plan in plans[1].values():
        if plan.fits:
            spoken = plan.tokens * plan.token_bytes + plan.sessions * plan.codec_bytes
            assert plan.resident + plan.pass_bytes + spoken < 0.97 * plan.memory - 2**30
            assert plan.limits.tokens == plan.tokens >= plan.sessions * 4096
            assert plan.missing == 0
        else:
            again = make_plan_with(plan, plan.memory + int(plan.missing / 0.97) + 2**20)
            assert again.fits


def make_plan_with(plan: Plan, memory: int) -> Plan:
    size = "7b" if plan.weights["thinker.decoder"] > 8e9 else "3b"
    found = inspect_folder(DATA / size)
    return make_plan(found.config, {part.name: part.nbytes for part in found.parts}, memory)


def test_the_encoders_give_way_first(plans: tuple[str, dict[str, Plan]]) -> None:
    _, made = plans
    for plan in made.values():
        assert set(plan.idle) <= set(ENCODERS)
        if plan.idle and plan.fits:
            assert make_plan_with(plan, plan.memory + 2 * 2**30).idle == {}


def test_the_caches_cost_what_the_stores_hold() -> None:
    cfg = inspect_folder(DATA / "7b").config
    assert token_bytes(cfg) == 2 * (28 * 2 * 4 * 128 + 24 * 2 * 4 * 128)


def test_the_peak_counts_what_is_alive_at_once() -> None:
    before = torch.empty(9000, device="meta")

    def run() -> object:
        x = torch.empty(1000, device="meta")  # 4,000 bytes
        x.add_(before[:1000])  # a view of what was there
        for _ in range(5):
            x = x + 1  # two alive at once
        return x[:10]  # a view

    assert peak_bytes(run) == 8000


def test_the_command_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    model.inspect(str(DATA / "3b"), as_json=True, plan=True, device_memory="16GB")
    made = json.loads(capsys.readouterr().out)
    assert made["16GB"]["fits"] and made["16GB"]["memory"] == 16 * 2**30
    model.inspect(str(DATA / "3b"), as_json=False, plan=True, device_memory=None)
    assert "141GB" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["lots", "-3GB", "24", "0GB", "1e3GB", "24TB"])
def test_a_size_that_is_none(size: str) -> None:
    with pytest.raises(OptionError, match="24GB"):
        model.inspect("nano", plan=True, device_memory=size)
    with pytest.raises(OptionError, match="--plan"):
        model.inspect("nano", device_memory="24GB")


def test_a_checkpoint_asks_where_its_parts_go(tmp_path: Path) -> None:
    tiny.write_descant(tmp_path)
    asked = dict[str, int]()

    def place(_: object, weights: dict[str, int]) -> tuple[str, ...]:
        asked.update(weights)
        return ENCODERS

    checkpoint = load_checkpoint(tmp_path, torch.bfloat16, place=place)  # type: ignore[arg-type]
    held = {name: sum(t.nbytes for t in part.state_dict().values()) for name, part in checkpoint.parts.named().items()}
    for part, size in held.items():
        assert sum(count for name, count in asked.items() if name.startswith(part)) == size


def test_weights_are_on_the_device_only_inside() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    wanted = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}

    def use() -> None:
        with OffloadedModule(module, torch.device("cpu")).on_device():
            assert not set(places.values()) & {tensor.data_ptr() for tensor in module.state_dict().values()}
            raise KeyError("whatever happens")

    with pytest.raises(KeyError):
        use()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, wanted[name]) and tensor.data_ptr() == places[name]


def test_answers_with_encoders_that_wait_are_the_answers() -> None:
    """Both encoders are fetched for the passes that they make, and for no other."""
    whole = rig.models()
    fetched = list[str]()

    class Counted(OffloadedModule):
        def on_device(self) -> AbstractContextManager[None]:
            fetched.append("once")
            return super().on_device()

    ears, eyes = (Counted(part, torch.device("cpu")) for part in (whole.thinker.audio, whole.thinker.vision))
    waiting = replace(whole, offloaded={"audio": ears, "image": eyes, "video": eyes})
    request = rig.request(prompt=PROMPT)
    assert (sound(list(stream(waiting, request))) == sound(list(stream(whole, request)))).all()
    assert fetched == ["once", "once"]
    list(stream(waiting, rig.request()))
    assert len(fetched) == 2


def test_encoders_that_are_elsewhere_are_fetched() -> None:
    thinker = rig.models().thinker
    assert offloaded_encoders(thinker) == {}
    with torch.device("meta"):
        other = type(thinker)(thinker.cfg)
    other.audio = copy.deepcopy(thinker.audio)
    assert set(offloaded_encoders(other)) == {"audio"}


def test_memory_that_runs_out_is_said_plainly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        told = as_session_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "prefill", "x")
    assert "ran out of memory while prefill" in str(told) and "--plan" in str(told)
    assert "2 GiB" in caplog.text
