"""The model card and the data card, made from the records that the stages of a run left behind."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from descant.train.recipe import Recipe
from descant.weights.checkpoint import Checkpoint

Record = Mapping[str, Any]


def model_card(recipe: Recipe, checkpoint: Checkpoint, records: Mapping[str, Record], notes: str = "") -> str:
    """The model card: stages, their steps and seconds, and training's own held-out figures.

    notes: Markdown on what was done by hand in this run, so that nobody takes it for what the recipe alone gives.
    """
    parts = checkpoint.parts.counts()
    lines = [
        f"# Model card: {recipe.name}",
        "",
        "The architecture of Qwen2.5-Omni (arXiv 2503.20215) at a small size, trained from nothing by this repository:",
        f"`python -m descant.train recipes/{recipe.name}.yaml --all --lanes 2`. Licence: Apache-2.0.",
        "",
        "It understands and speaks a small closed domain of English (`descant/train/nano/domain.py`), in one synthetic",
        "voice. It is made to try, test and teach the system; it is not a general assistant.",
        "",
        "| part | parameters |",
        "|---|--:|",
        *(f"| {name} | {count:,} |" for name, count in parts.items()),
        f"| **total** | **{sum(parts.values()):,}** |",
        "",
        "Stages, from the run's own records (figures are the trainer's, on held-out data, and not the table of the",
        "benchmarks/README.md, which an independent recogniser judges):",
        "",
        "| stage | steps | minutes of one core | held-out figures |",
        "|---|--:|--:|---|",
        *(_stage_row(name, record) for name, record in records.items() if "steps" in record),
        "",
        *([notes.strip(), ""] if notes.strip() else []),
        f"Software: Python {platform.python_version()}, torch {torch.__version__}; {platform.machine()}, float32.",
        "",
    ]
    return "\n".join(lines)


def _stage_row(name: str, record: Record) -> str:
    figures = ", ".join(f"{key} {value:.3g}" for key, value in record.get("metrics", {}).items())
    return f"| {name} | {record['steps']:,} | {record.get('seconds', 0) / 60:.0f} | {figures} |"


def data_card(runs: Path, records: Mapping[str, Record]) -> str:
    """Where every kind of training data came from, under which licence."""
    lines = [
        "# Data card",
        "",
        "No recording of a person, no picture and no text from elsewhere was used to train this model.",
        "",
        "| data | source | licence |",
        "|---|---|---|",
        "| questions and answers | this project's grammar (`descant/train/nano/domain.py`, `phrases.py`) | CC0 |",
        "| pictures, sounds, videos | this project's generators (`pictures.py`, `sounds.py`, `videos.py`) | CC0 |",
        "| word lists | this project (`descant/train/nano/words.txt`) | CC0 |",
        "| the voice that the model speaks with | flite, voice cmu_us_slt | BSD-style, Carnegie Mellon University |",
        "| spoken questions | flite, voices slt, rms, kal16, kal; espeak-ng, many variants | flite: BSD-style;"
        " espeak-ng is a GPL-3 program, whose output is not a work derived from it |",
        "",
        "The voices are synthetic: a microphone and a real speaker are outside of what the model has heard.",
        "flite's voice awb and the held-out variants of espeak-ng never enter training; the evaluation uses them.",
        "",
    ]
    for name in records:
        path = runs / name / "provenance.json"
        told = json.loads(path.read_text()) if path.exists() else []
        for record in told if isinstance(told, list) else [told]:
            lines += [
                f"Record of `{name}`: " + ", ".join(f"{key} {_plain(value)}" for key, value in record.items()) + "."
            ]
    return "\n".join([*lines, ""])


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
