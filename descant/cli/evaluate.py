"""The table of what a model can do, measured on fresh held-out samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from descant.cli import common


def evaluate(
    model: common.ModelArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="For the table.")] = Path("out/eval"),
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Per row of the table.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the fresh samples.")] = 0,
) -> None:
    """Measure a model in nano's closed domain: answers, sight, hearing, and its own speech by an independent ear."""
    from descant.evals.report import run_evaluation

    run_evaluation(model, out, samples=samples, seed=seed)
