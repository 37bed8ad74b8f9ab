"""Training the Thinker: first on text alone, then on everything that it hears, sees and reads, in one mixture."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from descant.errors import ConfigError, WeightsError
from descant.model.thinker import Thinker
from descant.nn.layers import init_normal
from descant.train import domain
from descant.train.examples import NANO_INPUTS, Desk, Lesson, answers, lesson, nano_tokenizer, reply_loss
from descant.train.loop import Context, Metrics, Task, load_weights
from descant.train.mixture import Source, draw, make
from descant.train.questions import Clips
from descant.train.recipe import build


@dataclass(frozen=True)
class ThinkerOptions:
    """shares: task -> weight in the mixture (see mixture.make). start: parts that begin with the weights of a needed
    stage, as {"decoder": "text", ...}. thaw: parts that learn only from this step on. sort: batches that are drawn
    at once and dealt out by length, so that little is padding. evaluated: examples a task in the held-out figures.
    shuffled: the control whose answers have nothing to do with the media."""

    shares: Mapping[str, float]
    start: Mapping[str, str] = field(default_factory=dict)
    thaw: Mapping[str, int] = field(default_factory=dict)
    sort: int = 8
    evaluated: int = 40
    shuffled: bool = False


PARTS = ("audio", "vision", "decoder")


def new_thinker(context: Context) -> Thinker:
    """The recipe's Thinker with fresh weights, the same for every stage and seed."""
    torch.manual_seed(0)
    thinker = Thinker(context.recipe.model.thinker)
    init_normal(thinker)
    return thinker


def begin_with(context: Context, thinker: Thinker, start: Mapping[str, str]) -> None:
    """Load parts from finished stages; ``start`` maps a part to the name of its stage."""
    for part, stage in start.items():
        if part not in PARTS or stage not in context.stage.needs:
            raise ConfigError(
                f"stage {context.stage.name!r}: start has {part}: {stage}; expected one of {', '.join(PARTS)} "
                "and the name of a stage in needs"
            )
        weights = load_weights(context.runs / stage, "thinker")
        own = {key[len(part) + 1 :]: value for key, value in weights.items() if key.startswith(part + ".")}
        if not own:
            raise WeightsError(f"stage {stage!r} trained no part {part!r}")
        thinker.get_submodule(part).load_state_dict(own)


def desk_of(context: Context) -> Desk:
    return Desk(nano_tokenizer(), NANO_INPUTS, context.recipe.model.thinker.ids)


def clips_of(context: Context, name: str) -> Clips | None:
    """The spoken questions that a needed stage made, or None where no such stage is needed."""
    for need in context.stage.needs:
        if context.recipe.stage(need).task == "questions":
            return Clips(context.runs / need / name)
    return None


class ThinkerTask(Task[list[Lesson]]):
    """Cross entropy of the replies in a mixture of tasks; batches of about equal length."""

    def __init__(self, context: Context):
        self.stage = context.stage
        self.options = build(ThinkerOptions, self.stage.options, f"stages.{self.stage.name}.options")
        self.thinker = new_thinker(context)
        begin_with(context, self.thinker, self.options.start)
        self.modules = {"thinker": self.thinker}
        self.desk = desk_of(context)
        self.source = Source("train", clips_of(context, "train"), shuffled=self.options.shuffled)
        self.held_out = Source("test", clips_of(context, "test"), distorted=False)
        self._group: tuple[int, list[list[Lesson]]] = (-1, [])

    def prepare(self, step: int) -> None:
        for part, first in self.options.thaw.items():
            self.thinker.get_submodule(part).requires_grad_(step >= first)

    def batch(self, step: int) -> list[Lesson]:
        """Step ``step`` of its group: ``sort`` batches are drawn at once and dealt out by length."""
        group, place = divmod(step, self.options.sort)
        if self._group[0] != group:
            self._group = (group, self._deal(group))
        return self._group[1][place]

    def _deal(self, group: int) -> list[list[Lesson]]:
        size = self.stage.batch
        total = size * self.options.sort
        numbers = range(group * total, (group + 1) * total)
        drawn = [lesson(self.desk, draw(self.source, self.options.shares, self.stage.seed, n)) for n in numbers]
        drawn.sort(key=len)
        batches = [drawn[i : i + size] for i in range(0, total, size)]
        random.Random(f"deal/{self.stage.seed}/{group}").shuffle(batches)
        return batches

    def loss(self, batch: list[Lesson], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        loss, _, _ = reply_loss(self.thinker, batch)
        return loss, {"units": float(sum(map(len, batch)))}

    def evaluate(self) -> Metrics:
        """Right answers to held-out questions, a share for each task."""
        figures: Metrics = {}
        for task in self.options.shares:
            rng = random.Random(f"evaluate/{task}")
            examples = [make(self.held_out, task, rng) for _ in range(self.options.evaluated)]
            said = answers(self.thinker, self.desk, examples)
            right = sum(domain.correct(task, s, e.reply) for s, e in zip(said, examples, strict=True))
            figures[task] = right / len(examples)
        return figures
