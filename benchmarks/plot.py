"""Draw the figures of a bench: python benchmarks/plot.py FILE.json [FILE.svg]

Two tables in one picture: what was measured beside a peer (how many times better, the promise as a tick), and what was
measured alone. The SVG is written by hand: a plotting library would be a large dependency for a dozen bars.
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path
from typing import Any

Row = dict[str, Any]

WIDTH, LEFT, RIGHT, LINE, TOP = 860, 330, 250, 30, 62  # pixels
GOOD, SHORT, PLAIN, INK, FAINT = "#2f7d5b", "#b3541e", "#6b7a8f", "#1c2430", "#8a93a0"


def reach(row: Row) -> float | None:
    """How far a line is towards its promise (1: just met). Without a promise: its ratio to the peer, or nothing."""
    if row["value"] is None:
        return None
    target, promise = row["target"], row["promise"] or ""
    if promise.startswith("value <="):
        return float(target / row["value"])
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
        out.append(f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="15" rx="2" fill="{colour}"/>')
    if row["target"] is not None:
        x = LEFT + full / 3.0
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 21}" stroke="{INK}" stroke-width="1.5"/>')
    out.append(text(WIDTH - RIGHT + 10, y + 14, told(row), colour=FAINT if value is None else INK))
    return out


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, size: int = 12) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"'
    return f"<text {place}>{escape(words)}</text>"


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
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *out, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", help="left out: beside the figures")
    given = parser.parse_args()
    picture = given.picture or given.figures.with_suffix(".svg")
    picture.write_text(draw(json.loads(given.figures.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
