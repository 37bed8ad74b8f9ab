"""The record of a run, and the table that is shown."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.table import Table

from descant.bench.harness import Bench, BenchLine

BENCH_COLUMNS = ("what", "descant", "peer", "ratio", "target", "met")


def record(lines: Sequence[BenchLine], bench: Bench, threads: int) -> dict[str, object]:
    """The JSON object of a run. A row's ``target`` is a number; ``promise`` says of which figure and in which sense."""
    return {
        "machine": machine(threads),
        "versions": versions(bench),
        "commit": commit(),
        "rows": [row(line) for line in lines],
    }


def row(line: BenchLine) -> dict[str, object]:
    return {
        "name": line.name,
        "value": rounded(line.value),
        "peer": rounded(line.peer),
        "ratio": rounded(line.ratio),
        "target": None if line.target is None else line.target.bound,
        "met": line.met,
        "unit": line.unit,
        "promise": None if line.target is None else f"{line.target.sense} {line.target.bound:g}",
        "note": line.note,
    }


def rounded(value: float | None) -> float | None:
    """Four digits: more would be noise."""
    return None if value is None else float(f"{value:.4g}")


def machine(threads: int) -> dict[str, object]:
    """The processor, how many of it, and how many threads computed."""
    return {"cpu": processor(), "cpus": os.cpu_count(), "threads": threads, "system": platform.platform(terse=True)}


def processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(bench: Bench) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("descant", *([bench.compare] if bench.compare else [])):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            found[name] = "not installed"
    return found


def commit() -> str:
    """The commit of the source tree, with a plus sign where tracked files differ from it; unknown outside of one."""
    here = Path(__file__).resolve().parent
    told = [run_command("git", "-C", str(here), *words) for words in (("rev-parse", "--short=12", "HEAD"), CHANGED)]
    return f"{told[0]}{'+' if told[1] else ''}" if told[0] else "unknown"


CHANGED = ("status", "--porcelain", "--untracked-files=no")


def run_command(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git
        return ""


def write_bench(path: Path, kept: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def bench_table(lines: Sequence[BenchLine], threads: int) -> Table:
    table = Table(*BENCH_COLUMNS, title=f"{processor()}, {threads} threads")
    for line in lines:
        table.add_row(*cells(line))
    return table


def cells(line: BenchLine) -> tuple[str, ...]:
    if line.value is None:
        return f"{line.name}\n  {line.note}", "", "", "", "", ""
    figures = ["" if f is None else f"{f:.3g} {line.unit}".strip() for f in (line.value, line.peer)]
    ratio = "" if line.ratio is None else f"{line.ratio:.2f} x"
    target = "" if line.target is None else f"{line.target.sense} {line.target.bound:g}"
    verdict = {True: "yes", False: "NO", None: ""}[line.met]
    return f"{line.name}\n  {line.note}", *figures, ratio, target, verdict
