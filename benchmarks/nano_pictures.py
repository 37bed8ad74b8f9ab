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
from textwrap import wrap

from descant.bench.svg import FAINT, GOOD, INK, PLAIN, SHORT, document, path, text, upright

PANEL_WIDTH, PANEL_HEIGHT, PANELS_A_ROW = 240, 150, 3
CELL_WIDTH, CELL_HEIGHT, LEFT = 86, 34, 150
PREFIX = "grid: voices "


Points = list[tuple[float, float]]


def loss_curves(runs: Path) -> dict[str, tuple[Points, Points]]:
    """Stage -> (minutes of its process, loss) of training and of held-out examples, for each stage that learnt."""
    curves = {}
    for log in sorted(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        both = [
            [(row["seconds"] / 60, row[key]) for row in rows if row.get(key, 0) > 0] for key in ("loss", "held_out")
        ]
        if both[0]:
            curves[log.parent.name] = (both[0], both[1])
    return curves


def panel(x: float, y: float, name: str, learnt: Points, held_out: Points) -> list[str]:
    """One stage: its losses on a logarithmic scale over its minutes; held-out ones dashed."""
    last = max(minute for minute, _ in learnt) or 1.0
    logs = [math.log(loss) for _, loss in (*learnt, *held_out)]
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    wide, high = PANEL_WIDTH - 60, PANEL_HEIGHT - 60

    def places(points: Points) -> Points:
        return [
            (x + 40 + wide * minute / last, y + 30 + high * (1 - (math.log(loss) - low) / span))
            for minute, loss in points
        ]

    return [
        text(x + 40, y + 18, name, size=13),
        path(places(learnt), GOOD),
        *([path(places(held_out), SHORT, dashed=True)] if held_out else []),
        upright(x + 40, y + 30, y + 30 + high, colour=FAINT),
        text(x + 36, y + 38, f"{math.exp(low + span):.2g}", anchor="end", colour=PLAIN, size=10),
        text(x + 36, y + 30 + high, f"{math.exp(low):.2g}", anchor="end", colour=PLAIN, size=10),
        text(x + 40 + wide, y + 46 + high, f"{last:.0f} min", anchor="end", colour=PLAIN, size=10),
    ]


def curves_picture(curves: Mapping[str, tuple[Points, Points]]) -> str:
    parts = []
    for place, (name, (learnt, held_out)) in enumerate(curves.items()):
        row, column = divmod(place, PANELS_A_ROW)
        parts += panel(column * PANEL_WIDTH, row * PANEL_HEIGHT, name, learnt, held_out)
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
        for line, words in enumerate(wrap(condition, 12)):
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
