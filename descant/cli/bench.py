"""The speed of descant on this machine, alone or beside another implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from descant.bench import Peer, Shape
from descant.cli import common
from descant.files import check_output


def bench(
    model: Annotated[Shape | None, typer.Option("--model", "-m", help="Only the rows that measure this one.")] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="A,B", help="Only these rows.")] = None,
    compare: Annotated[Peer | None, typer.Option("--compare", help="A peer, measured in turn with descant.")] = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each side; medians are shown.")] = 5,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Else OMP_NUM_THREADS, or all cores.")] = None,
) -> None:
    """Time first sound, whole answers and decoding, with random weights of fixed shapes: nothing is downloaded."""
    from rich.console import Console

    from descant.bench import harness, reference, report
    from descant.bench.rows import choose, measure

    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_output(out, "--json")
    names = choose(None if rows is None else [name.strip() for name in rows.split(",")], model)
    if compare is not None:
        reference.check_installed()
    asked = harness.Bench(repeats, compare, say=common.note)
    with harness.threads(threads) as count:
        lines = measure(asked, names)
    Console().print(report.bench_table(lines, count))
    if out is not None:
        report.write_bench(out, report.record(lines, asked, count))
        common.note(f"figures: {out}")
