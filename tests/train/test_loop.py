"""The loop's law: a run that was stopped, or killed, and resumed is the run that never stopped, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from descant.errors import ConfigError, WeightsError
from descant.train.loop import HELD_OUT_STEP, Metrics, Run, Task, generator, learning_rate, load_module, run_stage
from descant.train.recipe import Stage, read_dataclass

STAGE = Stage(
    task="toy", lane="toy", steps=60, batch=4, lr=1e-2, ema=0.9, save_every=7, log_every=5, name="toy", seed=3
)


class Toy(Task[Tensor]):
    """A small net with a buffer, noise in its loss and a change of state on the way: all that a resume could lose."""

    def __init__(self, pause: float = 0.0) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        self.net.register_buffer("shift", torch.zeros(3))
        self.modules = {"net": self.net}
        self.pause = pause

    def prepare(self, step: int) -> None:
        if step == 31:
            self.net.get_buffer("shift").fill_(0.5)

    def batch(self, step: int) -> Tensor:
        time.sleep(self.pause)
        return torch.randn(4, 6, generator=generator(STAGE.seed, step, 9))

    def loss(self, batch: Tensor, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        noise = torch.randn(4, 3, generator=rng)
        out = self.net(batch) + self.net.get_buffer("shift") + 0.1 * noise
        return (out - batch[:, :3]).square().mean(), {"units": 4.0}


def whole(folder: Path) -> Run[Tensor]:
    run = Run(Toy(), STAGE, folder)
    run.train()
    return run


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("cut", [1, 14, 30, 31, 59])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, cut: int) -> None:
    straight = whole(tmp_path / "whole")
    Run(Toy(), STAGE, tmp_path / "cut").train(stop_after=cut)
    again = Run(Toy(), STAGE, tmp_path / "cut")
    again.resume()
    assert again.step == cut
    again.train()
    assert same(straight.state(), again.state())


class Watched(Toy):
    """With a held-out example, whose loss is noisy too."""

    def held_out_batch(self) -> Tensor:
        return torch.full((4, 6), 0.25)


def test_the_held_out_curve_does_not_disturb_training(tmp_path: Path) -> None:
    run = Run(Watched(), replace(STAGE, held_out_every=10), tmp_path / "watched")
    run.train()
    assert same(whole(tmp_path / "whole").state(), run.state())
    rows = [json.loads(row) for row in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "held_out" in row] == [10, 20, 30, 40, 50, 60]
    noise = torch.randn(4, 3, generator=generator(STAGE.seed, HELD_OUT_STEP))
    out = run.task.modules["net"](torch.full((4, 6), 0.25)) + 0.5 + 0.1 * noise
    assert rows[-1]["held_out"] == pytest.approx(float((out - 0.25).square().mean().detach()), abs=1e-6)


def test_a_held_out_loss_that_would_never_be_logged_is_refused() -> None:
    with pytest.raises(ConfigError, match="held_out_every is 7; expected a multiple of log_every, which is 5"):
        replace(STAGE, held_out_every=7)


def test_other_seed_gives_other_weights(tmp_path: Path) -> None:
    """The comparison above can fail."""
    other = Run(
        Toy(),
        read_dataclass(Stage, {"task": "toy", "lane": "toy", "steps": 60, "lr": 0.01, "ema": 0.9, "seed": 4}, "x"),
        tmp_path,
    )
    other.train()
    assert not same(whole(tmp_path / "whole").state(), other.state())


def _work(folder: Path) -> None:
    torch.set_num_threads(1)
    run_stage(Toy(pause=0.01), STAGE, folder)


def test_killed_at_any_moment_and_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    spawn = multiprocessing.get_context("fork")
    for _ in range(3):
        process = spawn.Process(target=_work, args=(folder,))
        process.start()
        reached = _step(folder)
        while process.is_alive() and _step(folder) < reached + 10:
            time.sleep(0.005)
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert not (folder / "final.safetensors").exists()
    assert run_stage(Toy(), STAGE, folder)
    straight = whole(tmp_path / "whole")
    assert same(straight.state(), torch.load(folder / "latest.pt", weights_only=True))
    steps = [json.loads(row)["step"] for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == STAGE.steps


def _step(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    rows = [row for row in log.read_text().splitlines() if row.endswith("}")] if log.exists() else []
    return int(json.loads(rows[-1])["step"]) if rows else 0


def test_half_written_checkpoint_is_not_the_latest(tmp_path: Path) -> None:
    run = Run(Toy(), STAGE, tmp_path)
    run.train(stop_after=7)
    place = (tmp_path / "latest.pt").stat().st_ino
    run.save()
    assert (tmp_path / "latest.pt").stat().st_ino != place  # renamed over the old one, never written into it
    (tmp_path / "latest.pt.tmp").write_bytes(b"cut off")
    again = Run(Toy(), STAGE, tmp_path)
    again.resume()
    assert again.step == 7


def test_killed_while_finishing_it_finishes_again(tmp_path: Path) -> None:
    run_stage(Toy(), STAGE, tmp_path)
    kept = (tmp_path / "final.safetensors").read_bytes()
    (tmp_path / "final.json").unlink()
    (tmp_path / "final.safetensors").write_bytes(b"")
    assert run_stage(Toy(), STAGE, tmp_path)
    assert (tmp_path / "final.safetensors").read_bytes() == kept


def test_final_weights_are_the_average(tmp_path: Path) -> None:
    run_stage(Toy(), STAGE, tmp_path)
    final = load_module(tmp_path, "net")
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert torch.equal(final["0.weight"], latest["average"][0])
    assert not torch.equal(final["0.weight"], latest["modules"]["net"]["0.weight"])
    assert torch.equal(final["shift"], torch.full((3,), 0.5))
    with pytest.raises(WeightsError, match="no module 'ear'"):
        load_module(tmp_path, "ear")
    with pytest.raises(WeightsError, match="not finished"):
        load_module(tmp_path / "elsewhere", "net")


def test_learning_rate_warms_up_and_ends_at_its_floor() -> None:
    stage = read_dataclass(
        Stage, {"task": "t", "lane": "l", "steps": 100, "lr": 1.0, "warmup": 0.1, "floor": 0.05}, "here"
    )
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.05, abs=1e-3)


def test_stage_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        read_dataclass(Stage, {"task": "t", "lane": "l", "step": 1}, "stages.x")
