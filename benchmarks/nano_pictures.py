"""Pictures for nano's cards: how its stages learnt, and which voices it understands through which microphones.

python benchmarks/nano_pictures.py --runs runs/nano --out descant/assets/nano          curves.svg
python benchmarks/nano_pictures.py --results out/eval/results.json --out ...           grid.svg
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from svg import FAINT, GOOD, INK, PLAIN, SHORT, document, text, upright

PANEL_WIDTH, PANEL_HEIGHT, PANELS_A_ROW = 240, 150, 3
CELL_WIDTH, CELL_HEIGHT, LEFT = 86, 34, 150
PREFIX = "grid: voices "


def loss_curves(runs: Path) -> dict[str, list[tuple[float, float]]]:
    """Stage -> (minutes of its process, training loss), for each stage that learnt."""
    curves = {}
    for log in sorted(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        if rows:
            curves[log.parent.name] = [(row["seconds"] / 60, row["loss"]) for row in rows if row["loss"] > 0]
    return curves


def panel(x: float, y: float, name: str, points: Sequence[tuple[float, float]]) -> list[str]:
    """One stage: its loss on a logarithmic scale over its minutes."""
    last = max(minute for minute, _ in points) or 1.0
    logs = [math.log(loss) for _, loss in points]
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    wide, high = PANEL_WIDTH - 60, PANEL_HEIGHT - 60
    places = [
        (x + 40 + wide * minute / last, y + 30 + high * (1 - (log - low) / span))
        for (minute, _), log in zip(points, logs, strict=True)
    ]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    return [
        text(x + 40, y + 18, name, size=13),
        f'<polyline points="{line}" fill="none" stroke="{GOOD}" stroke-width="1.5"/>',
        upright(x + 40, y + 30, y + 30 + high, colour=FAINT),
        text(x + 36, y + 38, f"{math.exp(low + span):.2g}", anchor="end", colour=PLAIN, size=10),
        text(x + 36, y + 30 + high, f"{math.exp(low):.2g}", anchor="end", colour=PLAIN, size=10),
        text(x + 40 + wide, y + 46 + high, f"{last:.0f} min", anchor="end", colour=PLAIN, size=10),
    ]


def curves_picture(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    parts = []
    for place, (name, points) in enumerate(curves.items()):
        row, column = divmod(place, PANELS_A_ROW)
        parts += panel(column * PANEL_WIDTH, row * PANEL_HEIGHT, name, points)
    height = PANEL_HEIGHT * -(-len(curves) // PANELS_A_ROW)
    return document(PANEL_WIDTH * PANELS_A_ROW, height, parts)


def grid_picture(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Percent of questions answered rightly, a row a kind of voice, a column a condition; the greener the better."""
    cells = {}
    for row in rows:
        if str(row["name"]).startswith(PREFIX):
            told = str(row["name"]).removeprefix(PREFIX)
            voice = next(v for v in ("of training", "other synthetic", "natural, never met") if told.startswith(v))
            cells[voice, told.removeprefix(voice + ", ")] = float(row["value"])
    voices, conditions = list(dict.fromkeys(v for v, _ in cells)), list(dict.fromkeys(c for _, c in cells))
    parts = []
    for column, condition in enumerate(conditions):
        for line, words in enumerate(condition.split(" ", 2)):
            parts.append(text(LEFT + (column + 0.5) * CELL_WIDTH, 16 + 13 * line, words, anchor="middle", size=11))
    for line, voice in enumerate(voices):
        y = 60 + line * CELL_HEIGHT
        parts.append(text(LEFT - 8, y + 22, voice, anchor="end", size=12))
        for column, condition in enumerate(conditions):
            share, x = cells[voice, condition], LEFT + column * CELL_WIDTH
            colour = GOOD if share >= 80 else PLAIN if share >= 50 else SHORT
            shade = f'fill="{colour}" fill-opacity="{0.25 + 0.6 * share / 100:.2f}"'
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL_WIDTH - 3}" height="{CELL_HEIGHT - 3}" {shade}/>')
            parts.append(text(x + CELL_WIDTH / 2, y + 21, f"{share:.0f}", anchor="middle", colour=INK))
    return document(LEFT + CELL_WIDTH * len(conditions), 66 + CELL_HEIGHT * len(voices), parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/pictures"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.runs:
        (given.out / "curves.svg").write_text(curves_picture(loss_curves(given.runs)))
    if given.results:
        (given.out / "grid.svg").write_text(grid_picture(json.loads(given.results.read_text())["rows"]))


if __name__ == "__main__":
    main()
