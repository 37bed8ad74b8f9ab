"""Training the Thinker: first on text alone, then on everything that it hears, sees and reads, in one mixture."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from descant.errors import ConfigError, WeightsError
from descant.model.thinker import Thinker
from descant.train.ears import with_cached_ears
from descant.train.examples import TrainExample, encode_example, greedy_replies, reply_losses
from descant.train.loop import Metrics, StageContext, Task, load_module
from descant.train.nano import domain
from descant.train.nano.mixture import draw_example, make_example
from descant.train.recipe import read_dataclass
from descant.train.tasks.encoders import LETTERS, ctc_loss, spell
from descant.train.tasks.setting import encoder_of, examples_of, new_thinker
from descant.weights.checkpoint import load_checkpoint


@dataclass(frozen=True)
class ThinkerOptions:
    """shares: task -> weight in the mixture (see mixture.make_example). start: parts that begin with the weights of a
    needed stage, or of a model folder, as {"decoder": "text", ...}. slow: parts that learn at a share of the rate.
    letters: the stage whose CTC head keeps the ears spelling while they learn with the Thinker ("": none), and its
    weight ctc. evaluated: examples a task in the held-out figures. shuffled: the control whose answers have nothing to
    do with the media. wide: draw from the whole domain (`nano.wide`), whose sounds have known features: the ears are
    frozen but for their projection."""

    shares: Mapping[str, float]
    start: Mapping[str, str] = field(default_factory=dict)
    slow: Mapping[str, float] = field(default_factory=dict)
    letters: str = ""
    ctc: float = 0.2
    evaluated: int = 40
    shuffled: bool = False
    wide: bool = False


PARTS = ("audio", "vision", "decoder")


def begin_with(context: StageContext, thinker: Thinker, start: Mapping[str, str]) -> None:
    """Load parts that were trained before; ``start`` maps a part to the name of a finished stage, or a model folder.

    ConfigError: an unknown part, a stage that is not needed, or a folder with another Thinker. WeightsError: the stage
    trained no such part.
    """
    for part, source in start.items():
        if part not in PARTS or not (source in context.stage.needs or Path(source).is_dir()):
            raise ConfigError(
                f"stage {context.stage.name!r}: start has {part}: {source}; expected one of {', '.join(PARTS)} "
                "and the name of a stage in needs, or a model folder"
            )
        if source in context.stage.needs:
            weights = load_module(context.runs / source, "thinker")
        else:
            weights = weights_of_folder(Path(source), thinker)
        own = {key[len(part) + 1 :]: value for key, value in weights.items() if key.startswith(part + ".")}
        if not own:
            raise WeightsError(f"stage {source!r} trained no part {part!r}")
        thinker.get_submodule(part).load_state_dict(own)


def weights_of_folder(folder: Path, like: Thinker) -> dict[str, Tensor]:
    """The Thinker's weights in a model folder, float32; its sizes must be those of ``like``."""
    checkpoint = load_checkpoint(folder, torch.float32)
    if checkpoint.config.thinker != like.cfg:
        raise ConfigError(f"start: the Thinker in {folder} has other sizes than the recipe's model; make them equal")
    return dict(checkpoint.thinker.state_dict())


class ThinkerTask(Task[list[TrainExample]]):
    """Cross entropy of the replies in a mixture of tasks; every batch holds all kinds."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.options = read_dataclass(ThinkerOptions, self.stage.options, f"stages.{self.stage.name}.options")
        self.thinker = new_thinker(context)
        begin_with(context, self.thinker, self.options.start)
        if self.options.wide:
            with_cached_ears(self.thinker)
        self.modules: dict[str, nn.Module] = {"thinker": self.thinker}
        self.letters: nn.Linear | None = None
        if self.options.letters:
            self.letters = nn.Linear(self.thinker.cfg.audio.output_dim, len(LETTERS) + 1)
            self.letters.load_state_dict(load_module(context.runs / self.options.letters, "letters"))
            self.modules["letters"] = self.letters
        self.desk = encoder_of(context, cached=self.options.wide)
        self.source = examples_of(context, "train", self.options.wide, self.options.shuffled)
        self.held_out = examples_of(context, "test", self.options.wide)

    def slowed(self) -> Mapping[nn.Module, float]:
        return {self.thinker.get_submodule(part): factor for part, factor in self.options.slow.items()}

    def batch(self, step: int) -> list[TrainExample]:
        size = self.stage.batch
        options = self.options
        numbers = range(step * size, (step + 1) * size)
        return [
            encode_example(self.desk, draw_example(self.source, options.shares, self.stage.seed, n)) for n in numbers
        ]

    def held_out_batch(self) -> list[TrainExample]:
        shares = self.options.shares
        numbers = range(self.stage.batch)
        return [encode_example(self.desk, draw_example(self.held_out, shares, self.stage.seed, n)) for n in numbers]

    def loss(self, batch: list[TrainExample], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        rows = self.thinker.embed([one.prompt for one in batch])
        losses, _ = reply_losses(self.thinker, rows, batch)
        loss = losses.mean()
        metrics = {"reply": float(loss.detach()), "units": float(sum(map(len, batch)))}
        spoken = [i for i, one in enumerate(batch) if one.heard]
        if self.letters is None or not spoken:
            return loss, metrics
        spelt = self._spelling([rows[i] for i in spoken], [batch[i] for i in spoken])
        return loss + self.options.ctc * spelt, {**metrics, "ctc": float(spelt.detach())}

    def _spelling(self, rows: Sequence[Tensor], spoken: Sequence[TrainExample]) -> Tensor:
        """CTC of what was said, on the rows that the ears gave for it."""
        assert self.letters is not None
        clips = [r[one.prompt.indices("audio")] for r, one in zip(rows, spoken, strict=True)]
        return ctc_loss(self.letters, clips, [spell(one.heard) for one in spoken])

    def evaluate(self) -> Metrics:
        """Right answers to held-out questions, a share for each task."""
        figures: Metrics = {}
        for task in self.options.shares:
            rng = random.Random(f"evaluate/{task}")
            examples = [make_example(self.held_out, task, rng) for _ in range(self.options.evaluated)]
            said = greedy_replies(self.thinker, self.desk, examples)
            right = sum(domain.correct(task, s, e.reply) for s, e in zip(said, examples, strict=True))
            figures[task] = right / len(examples)
        return figures
