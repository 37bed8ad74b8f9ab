"""Recipes: a YAML file that names the model's sizes and the stages that train it, read strictly into dataclasses."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from descant.config import OmniConfig
from descant.errors import ConfigError

RecipeType = TypeVar("RecipeType")


@dataclass(frozen=True)
class Stage:
    """One step of a recipe. Budgets are optimiser steps, never seconds, so that a resumed run equals a whole one.

    task: what is done (see ``stages.TASKS``); needs: stages that must be finished; lane: stages of one lane run one
    after the other. options: read by the task into its own dataclass.
    """

    task: str
    lane: str
    needs: tuple[str, ...] = ()
    steps: int = 0  # 0: a task that is not trained, such as making data
    batch: int = 1
    lr: float = 1e-3
    warmup: float = 0.02  # share of the steps
    floor: float = 0.05  # of the learning rate, at the end of the cosine
    weight_decay: float = 0.01
    muon: float = 0.0  # the rate of matrices as a multiple of lr, with Muon's steps; 0: AdamW for everything
    ema: float = 0.0  # decay of the averaged weights; 0: none
    seed: int = 1
    threads: int = 1  # of its process, for a stage that runs when the other lanes are done
    save_every: int = 200
    log_every: int = 20
    held_out_every: int = 0  # steps between losses of held-out examples; a multiple of log_every; 0: none
    options: Mapping[str, Any] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.held_out_every % self.log_every:
            raise ConfigError(
                f"stage {self.name!r}: held_out_every is {self.held_out_every}; "
                f"expected a multiple of log_every, which is {self.log_every}"
            )


@dataclass(frozen=True)
class Recipe:
    name: str
    model: OmniConfig
    stages: Mapping[str, Stage]

    def stage(self, name: str) -> Stage:
        if name not in self.stages:
            raise ConfigError(f"recipe {self.name}: no stage {name!r}; it has {', '.join(self.stages)}")
        return self.stages[name]

    def order(self) -> list[str]:
        """Stage names with every stage after those it needs. Raises ConfigError on a cycle or an unknown name."""
        done: list[str] = []
        visiting: set[str] = set()

        def visit(name: str) -> None:
            if name in done:
                return
            if name in visiting:
                raise ConfigError(
                    f"recipe {self.name}: stage {name!r} needs itself, through {', '.join(sorted(visiting))}"
                )
            visiting.add(name)
            for need in self.stage(name).needs:
                visit(need)
            visiting.remove(name)
            done.append(name)

        for name in self.stages:
            visit(name)
        return done


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Unknown, missing and mistyped keys are ConfigErrors that name the key."""
    if not path.is_file():
        raise ConfigError(f"there is no recipe {path}; recipes are YAML files such as recipes/nano.yaml")
    data = yaml.safe_load(path.read_text())
    if not isinstance(data, dict) or set(data) != {"name", "model", "stages"}:
        raise ConfigError(f"{path}: expected exactly the keys name, model and stages")
    stages = {
        name: read_dataclass(Stage, {**body, "name": name}, f"{path.name}: stages.{name}")
        for name, body in data["stages"].items()
    }
    recipe = Recipe(data["name"], read_dataclass(OmniConfig, data["model"], f"{path.name}: model"), stages)
    recipe.order()
    return recipe


def read_dataclass(kind: type[RecipeType], data: object, where: str) -> RecipeType:
    """A dataclass from a mapping, nested ones included; every problem names the key under ``where``."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping with the keys of {kind.__name__}, got {data!r}")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; expected some of {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    for key, field in known.items():
        if key not in data and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{where}: missing key {key!r}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _value(kind: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(kind)
    args = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _member(args, value, where)
    if origin is tuple:
        return _items(args, value, where)
    if is_dataclass(kind):
        return read_dataclass(typing.cast("type[Any]", kind), value, where)
    if origin is not None or kind is Any:  # Mapping[str, Any]: a task reads it later
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r} (numbers like 1e-3 are written 1.0e-3)")
    return value


def _items(args: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list, got {value!r}")
    kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(kinds) != len(value):
        raise ConfigError(f"{where}: expected {len(kinds)} items, got {len(value)}")
    return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


def _member(args: tuple[Any, ...], value: object, where: str) -> Any:
    """A union: None, or the one dataclass of the union that has all the given keys, or the only plain type."""
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    if isinstance(value, Mapping) and len(choices) > 1:
        fitting = [a for a in choices if is_dataclass(a) and set(value) <= {f.name for f in fields(a)}]
        if not fitting:
            raise ConfigError(f"{where}: these keys fit none of {', '.join(a.__name__ for a in choices)}")
        return read_dataclass(typing.cast("type[Any]", fitting[0]), value, where)
    return _value(choices[0], value, where)
