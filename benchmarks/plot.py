"""Draw the figures of a bench: python benchmarks/plot.py FILE.json [FILE.svg]; and their table beside it, FILE.md.

Two tables in one picture: what was measured beside a peer, and what was measured alone. A bar says how far a line is
towards its promise, which is the tick: what is as good as promised ends there or beyond.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from descant.bench.svg import FAINT, GOOD, INK, PLAIN, SHORT, document, text, upright
from descant.bench.svg import bar as rectangle

Row = dict[str, Any]

WIDTH, LEFT, RIGHT, LINE, TOP = 960, 350, 330, 26, 62  # pixels


def reach(row: Row) -> float | None:
    """How far a line is towards its promise (1: just met). Without a promise: its ratio to the peer, or nothing."""
    if row["value"] is None:
        return None
    target, promise = row["target"], row["promise"] or ""
    if promise.startswith("value <="):
        return float(target / row["value"])
    if promise.startswith("growth <="):
        return float(target / row["ratio"])
    figure = row["ratio"] if row["ratio"] is not None else row["value"]
    if target is None:
        return None if row["ratio"] is None else float(figure)
    if promise.startswith("ratio") and row["ratio"] is None:
        return None
    return float(figure / target)


def told(row: Row) -> str:
    """The figures of a line, in words."""
    if row["value"] is None:
        return str(row["note"])
    parts = [f"{row['value']:.3g} {row['unit']}".strip()]
    if row["ratio"] is not None:
        parts.append(f"peer {row['peer']:.3g}: {row['ratio']:.2f}x")
    if row["target"] is not None:
        parts.append(f"promised {row['promise'].split()[1]} {row['target']:g}")
    return ", ".join(parts)


def bar(row: Row, y: int) -> list[str]:
    """One line of the picture: name, bar, figures. The bar ends at three times the promise."""
    full, value = WIDTH - LEFT - RIGHT, reach(row)
    out = [text(LEFT - 10, y + 14, row["name"], anchor="end")]
    if value is not None:
        length = full * min(value, 3.0) / 3.0
        colour = {True: GOOD, False: SHORT, None: PLAIN}[row["met"]]
        out.append(rectangle(LEFT, y + 3, length, 15, colour))
    if row["target"] is not None:
        out.append(upright(LEFT + full / 3.0, y, y + 21))
    out.append(text(WIDTH - RIGHT + 10, y + 14, told(row), colour=FAINT if value is None else INK))
    return out


def draw(kept: dict[str, Any]) -> str:
    """The whole picture."""
    machine, versions = kept["machine"], kept["versions"]
    under = ", ".join([f"{machine['cpu']}, {machine['threads']} threads"] + [f"{k} {v}" for k, v in versions.items()])
    out = [text(10, 22, "descant bench", size=16), text(10, 40, f"{under}, commit {kept['commit']}", colour=FAINT)]
    y = TOP
    for title, beside in (("beside a peer; the tick is the promise", True), ("alone", False)):
        rows = [row for row in kept["rows"] if (row["peer"] is not None) == beside]
        if rows:
            out.append(text(10, y + 14, title, colour=FAINT))
            y += LINE
        for row in rows:
            out += bar(row, y)
            y += LINE
    return document(WIDTH, y + 6, out)


def table(kept: dict[str, Any]) -> str:
    """What was promised or has a peer, as Markdown."""
    lines = ["| what | descant | peer | ratio | promised | met |", "|---|--:|--:|--:|--:|---|"]
    for row in kept["rows"]:
        if row["value"] is not None and (row["peer"] is not None or row["target"] is not None):
            figures = [figure(row["value"], row["unit"]), figure(row["peer"], row["unit"])]
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
            promise = "" if row["target"] is None else f"{row['promise'].split()[1]} {row['target']:g}"
            verdict = {True: "yes", False: "**no**", None: ""}[row["met"]]
            lines.append(f"| {' | '.join([row['name'], *figures, ratio, promise, verdict])} |")
    return "\n".join(lines) + "\n"


def figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", help="left out: beside the figures")
    given = parser.parse_args()
    picture = given.picture or given.figures.with_suffix(".svg")
    kept = json.loads(given.figures.read_text(encoding="utf-8"))
    picture.write_text(draw(kept), encoding="utf-8")
    picture.with_suffix(".md").write_text(table(kept), encoding="utf-8")
    print(f"picture: {picture}; table: {picture.with_suffix('.md')}")


if __name__ == "__main__":
    main()
