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
    rows: Annotated[str | None, typer.Option("--rows", metavar="GROUP,...", help="Some groups of rows only.")] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Measure a model in nano's closed domain: answers, talks, sight, hearing, and its speech by an independent ear."""
    from descant.evals.report import GROUPS, results_json, run_evaluation

    groups = GROUPS if rows is None else tuple(rows.split(","))
    show = (lambda lines: typer.echo(results_json(str(model), lines, seed))) if as_json else None
    run_evaluation(model, out, samples=samples, seed=seed, groups=groups, show=show)
