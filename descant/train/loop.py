"""The training loop: steps are pure functions of (state, seed, step), so a killed run resumes to the very same bits.

A stage folder holds ``latest.pt`` (everything to go on from; replaced atomically), ``metrics.jsonl`` and, when the
stage is finished, ``final.safetensors`` (averaged weights where the stage keeps an average) and ``final.json``.
"""

from __future__ import annotations

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from descant.errors import WeightsError
from descant.train.muon import Muon, matrices_of
from descant.train.recipe import Recipe, Stage

Batch = TypeVar("Batch")
Metrics = dict[str, float]
HELD_OUT_STEP = 2**40  # in place of a step, for what is random about held-out examples: no training gets so far


@dataclass(frozen=True)
class StageContext:
    """The material of a task: the recipe, its own stage, and the folder of all runs."""

    recipe: Recipe
    stage: Stage
    runs: Path

    @property
    def folder(self) -> Path:
        return self.runs / self.stage.name

    def need(self, task: str) -> Path:
        """The folder of the one needed stage that does ``task``."""
        for name in self.stage.needs:
            if self.recipe.stage(name).task == task:
                return self.runs / name
        raise WeightsError(f"stage {self.stage.name!r} needs a stage with task {task!r}; name it under needs")


class Task(ABC, Generic[Batch]):
    """The training of one stage. ``modules`` are saved, buffers included; ``trained`` get gradients (default: all)."""

    modules: Mapping[str, nn.Module]

    def trained(self) -> list[nn.Parameter]:
        return [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]

    def slowed(self) -> Mapping[nn.Module, float]:
        """Parts that take AdamW steps at this share of the stage's rate: learnt before, and not to be lost."""
        return {}

    def prepare(self, step: int) -> None:
        """Called before each step: for changes of state at a given step (the k-means start of a codebook)."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """The examples of a step: a pure function of the stage's seed and ``step``."""

    @abstractmethod
    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """The loss to descend, and numbers to log; the metric "units" counts audio seconds or tokens."""

    def held_out_batch(self) -> Batch | None:
        """Examples that training never sees, always the same, for the curve of their loss; None: no curve.

        Their loss must leave nothing behind in the task (``torch.is_grad_enabled()`` is false while it is taken).
        """
        return None

    def evaluate(self) -> Metrics:
        """Held-out figures of the current weights."""
        return {}

    def finish(self) -> None:
        """Called once with the final weights: for products of the stage other than weights."""


def generator(seed: int, *keys: int) -> torch.Generator:
    """A torch generator that depends on (seed, keys) alone."""
    state = np.random.SeedSequence([seed, *keys]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def numpy_rng(seed: int, *keys: int) -> np.random.Generator:
    """A numpy generator that depends on (seed, keys) alone."""
    return np.random.default_rng([seed, *keys])


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine down to ``floor`` of the rate."""
    warm = max(1, round(stage.warmup * stage.steps))
    if step < warm:
        return stage.lr * (step + 1) / warm
    progress = (step - warm) / max(1, stage.steps - warm)
    return stage.lr * (stage.floor + (1 - stage.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class Average:
    """An exponential moving average of parameters, with the usual quick start: decay <= (1 + n) / (10 + n)."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters = parameters
        self.decay = decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the parameters with their averages; calling it twice changes nothing."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)


def new_optimizer(task: Task[Any], stage: Stage) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices where the stage asks for it. Norms and biases do not decay.

    A group's ``factor`` multiplies the stage's rate.
    """
    slow = {p: factor for module, factor in task.slowed().items() for p in module.parameters()}
    matrices = matrices_of(task.modules.values()) - slow.keys() if stage.muon else set()
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for parameter in task.trained():
        is_matrix = parameter in matrices
        plain = parameter.ndim <= 1
        factor = slow.get(parameter, 1.0)
        group = {"params": [], "weight_decay": 0.0 if plain else stage.weight_decay, "factor": factor}
        if is_matrix:
            group.update(matrices=True, scale=stage.muon)
        groups.setdefault((is_matrix, plain, factor), group)["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups)]
    if stage.muon:
        return Muon(ordered, lr=stage.lr)
    return torch.optim.AdamW(ordered, lr=stage.lr, betas=(0.9, 0.95), fused=True)


class Run(Generic[Batch]):
    """One stage on its way: the task, its optimiser, its average and the step it has reached."""

    def __init__(self, task: Task[Batch], stage: Stage, folder: Path):
        self.task = task
        self.stage = stage
        self.folder = folder
        self.parameters = task.trained()
        self.optimizer = new_optimizer(task, stage)
        self.average = Average(self.parameters, stage.ema) if stage.ema else None
        self.step = 0
        self.seconds = 0.0  # spent so far, over all resumptions
        folder.mkdir(parents=True, exist_ok=True)

    def train_step(self) -> Metrics:
        """One optimiser step; everything random in it comes from (seed, step)."""
        stage = self.stage
        self.task.prepare(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(stage, self.step) * group.get("factor", 1.0)
        loss, metrics = self.task.loss(self.task.batch(self.step), generator(stage.seed, self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        if self.average:
            self.average.update(self.step)
        self.step += 1
        return {"loss": float(loss.detach()), "grad": float(norm), **metrics}

    @cached_property
    def held_out(self) -> Batch | None:
        """The held-out examples, laid out once for all their losses; None: no curve is wanted."""
        return self.task.held_out_batch() if self.stage.held_out_every else None

    def held_out_loss(self) -> Metrics:
        """The loss of the held-out examples where one is due at this step, else nothing."""
        if self.held_out is None or self.step % self.stage.held_out_every:
            return {}
        with torch.no_grad():
            loss, _ = self.task.loss(self.held_out, generator(self.stage.seed, HELD_OUT_STEP))
        return {"held_out": float(loss)}

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values if self.average else [],
        }

    def save(self) -> None:
        """Writes ``latest.pt`` beside the old one and renames it: a kill leaves one or the other, whole."""
        fresh = self.folder / "latest.pt.tmp"
        with fresh.open("wb") as file:
            torch.save(self.state(), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / "latest.pt")

    def resume(self) -> None:
        """Goes back to ``latest.pt`` where there is one, and forgets metrics logged after it."""
        path = self.folder / "latest.pt"
        log = self.folder / "metrics.jsonl"
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, module in self.task.modules.items():
                module.load_state_dict(state["modules"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.values = [value.clone() for value in state["average"]]
            self.step = state["step"]
            self.seconds = state["seconds"]
        rows = log.read_text().splitlines() if log.exists() else []
        kept = [row for row in rows if row.endswith("}") and json.loads(row)["step"] <= self.step]
        log.write_text("".join(row + "\n" for row in kept))

    def log(self, metrics: Metrics) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 2), **{k: round(v, 6) for k, v in metrics.items()}}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(self.stage.name, " ".join(f"{k}={v:.5g}" for k, v in row.items()), flush=True)

    def train(self, stop_after: int | None = None) -> bool:
        """Trains to the end, or for ``stop_after`` more steps. Returns whether the end was reached."""
        goal = self.stage.steps if stop_after is None else min(self.stage.steps, self.step + stop_after)
        window: list[Metrics] = []
        begun = time.perf_counter()
        while self.step < goal:
            window.append(self.train_step())
            if self.step % self.stage.log_every == 0 or self.step == goal:
                now = time.perf_counter()
                self.seconds += now - begun
                summary = _summary(window, now - begun, learning_rate(self.stage, self.step - 1))
                self.log({**summary, **self.held_out_loss()})
                window = []
                begun = time.perf_counter()
            if self.step % self.stage.save_every == 0 or self.step == goal:
                self.save()
        return self.step >= self.stage.steps

    def finish(self) -> Metrics:
        """Evaluates and writes the final weights (the average, where there is one); ``latest.pt`` stays as it was."""
        if self.average:
            self.average.swap()
        for module in self.task.modules.values():
            module.eval()
        with torch.inference_mode():
            metrics = self.task.evaluate()
            self.task.finish()
        save_modules(self.folder / "final.safetensors", self.task.modules)
        record = {"steps": self.step, "seconds": round(self.seconds, 1), "metrics": metrics}
        (self.folder / "final.json").write_text(json.dumps(record, indent=1))
        print(self.stage.name, "finished", json.dumps(record), flush=True)
        return metrics


def _summary(window: list[Metrics], seconds: float, rate: float) -> Metrics:
    """Means over the steps since the last line; units become a speed."""
    means = {key: sum(m[key] for m in window) / len(window) for key in window[-1] if all(key in m for m in window)}
    units = means.pop("units", 0.0)
    return {**means, "lr": rate, "steps_s": len(window) / seconds, "units_s": units * len(window) / seconds}


def save_modules(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """All parameters and buffers as safetensors with keys "module.key", written atomically."""
    tensors = {f"{n}.{k}": v.contiguous().clone() for n, m in modules.items() for k, v in m.state_dict().items()}
    fresh = path.with_suffix(".tmp")
    save_file(tensors, fresh)
    fresh.replace(path)


def load_module(folder: Path, module: str) -> dict[str, Tensor]:
    """The final weights of one module of a finished stage."""
    path = folder / "final.safetensors"
    if not path.exists():
        raise WeightsError(f"stage {folder.name!r} is not finished: {path} is missing. Run that stage first.")
    found = {k[len(module) + 1 :]: v for k, v in load_file(path).items() if k.startswith(module + ".")}
    if not found:
        raise WeightsError(f"{path} holds no module {module!r}")
    return found


def run_stage(task: Task[Any], stage: Stage, folder: Path, stop_after: int | None = None) -> bool:
    """Trains a stage from wherever it stands. Returns whether it is finished."""
    if (folder / "final.json").exists():  # written last: a kill before it makes the run finish again
        print(f"{stage.name} is finished already: {folder / 'final.safetensors'}", flush=True)
        return True
    run = Run(task, stage, folder)
    run.resume()
    finished = run.train(stop_after)
    if finished:
        run.finish()
    return finished
