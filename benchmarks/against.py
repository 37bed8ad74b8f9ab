"""Is this checkout as fast as another one? The bench of both, row by row and in turns, and the ratio of their medians.

    git worktree add ../before COMMIT
    python benchmarks/against.py ../before [--rows A,B] [--turns 3] [--threads N] [--json FILE]

Each turn runs ``descant bench`` once in either checkout, in a process of its own, the first of them the other way round
in every second turn, so that a slow minute of the machine is both sides'. The ratio says how many times better this
checkout is than the other; the exit code is 1 where a line is below FLOOR_RATIO.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
FLOOR_RATIO = 0.97
ROWS = ("first-audio", "whole-answer", "decode", "together", "live-turn", "tenth-turn", "idle", "nano", "voices")


def measured(tree: Path, row: str, threads: int | None) -> list[dict[str, Any]]:
    """The lines of one row of the bench in ``tree``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lines.json"
        command = [sys.executable, "-m", "descant", "bench", "--rows", row, "--repeats", "1", "--json", str(out)]
        command += [] if threads is None else ["--threads", str(threads)]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the bench of {tree} failed:\n{done.stderr[-2000:]}")
        lines: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
        return lines


def better(name: str, unit: str, ours: float, theirs: float) -> float:
    """The ratio by which ours is better: of seconds, and of seconds a second, less is better; of all else more."""
    if not ours or not theirs:
        return 1.0 if ours == theirs else float("inf" if ours > theirs else 0)
    return theirs / ours if unit == "s" or "real-time factor" in name else ours / theirs


def compare(other: Path, rows: list[str], turns: int, threads: int | None) -> list[dict[str, Any]]:
    """For each line of the rows: the medians of both checkouts and their ratio."""
    compared = []
    for row in rows:
        values: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"ours": [], "theirs": []})
        units: dict[str, str] = {}
        for turn in range(turns):
            sides = [("ours", HERE), ("theirs", other)]
            for side, tree in sides if turn % 2 else sides[::-1]:
                for line in measured(tree, row, threads):
                    if line["value"] is not None:
                        values[line["name"]][side].append(line["value"])
                        units[line["name"]] = line["unit"]
        for name, found in values.items():
            if found["ours"] and found["theirs"]:
                ours, theirs = statistics.median(found["ours"]), statistics.median(found["theirs"])
                ratio = better(name, units[name], ours, theirs)
                compared.append({"row": name, "unit": units[name], "ours": ours, "theirs": theirs, "ratio": ratio})
                print(f"{name:58} {ours:10.4g} {theirs:10.4g} {units[name]:4} {ratio:6.3f}", flush=True)
    return compared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows of the bench")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=None, help="as for descant bench")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the figures here")
    given = parser.parse_args()
    print(f"{'line':58} {'ours':>10} {'theirs':>10} unit  ratio")
    compared = compare(given.other.resolve(), given.rows.split(","), given.turns, given.threads)
    if given.json is not None:
        given.json.write_text(json.dumps({"turns": given.turns, "lines": compared}, indent=1) + "\n")
    return int(any(line["ratio"] < FLOOR_RATIO for line in compared))


if __name__ == "__main__":
    sys.exit(main())
