"""A load test as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from descant.bench.svg import FAINT, GOOD, INK, PLAIN, SHORT, document, path, text, upright

Levels = Sequence[Mapping[str, Any]]
LOAD_COLUMNS = {
    "clients": "{max_concurrency}",
    "failed": "{failed}",
    "req/s": "{request_throughput:.3g}",
    "audio/s": "{audio_throughput:.3g}",
    "ttft": "{p50_ttft_ms:.0f}/{p95_ttft_ms:.0f}",
    "ttfp": "{p50_audio_ttfp_ms:.0f}/{p95_audio_ttfp_ms:.0f}",
    "rtf": "{p50_audio_rtf:.2f}/{p95_audio_rtf:.2f}",
    "e2el": "{p50_e2el_ms:.0f}/{p95_e2el_ms:.0f}",
    "dry": "{underruns}",
}
PANELS = {  # title -> figures, with their colours
    "to the first text and sound, ms": {"ttft_ms": PLAIN, "audio_ttfp_ms": GOOD},
    "audio_rtf": {"audio_rtf": SHORT},
    "sound made, seconds a second": {"audio_throughput": INK},
}
PANEL_WIDTH, PANEL_HEIGHT, PANEL_GAP, LEFT_EDGE, FIRST_ROW = 220, 150, 170, 50, 70  # pixels


def load_table(route: str, levels: Levels) -> Table:
    """One route: a row for each level; times are medians and 95th percentiles."""
    title = f"{route}: p50/p95 in ms; dry: times that a player ran out of sound"
    table = Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)
    for name in LOAD_COLUMNS:
        table.add_column(name, justify="right", overflow="fold")
    for level in levels:
        table.add_row(*(cell(form, level) for form in LOAD_COLUMNS.values()))
    return table


def cell(form: str, level: Mapping[str, Any]) -> str:
    """One cell; a dash where there was no such figure."""
    try:
        return form.format(**level)
    except TypeError:  # a None, which has no format
        return "-"


def load_picture(kept: Mapping[str, Any]) -> str:
    """An SVG: a row of panels for each route, over the number of clients. Lines are p50, dashed ones p95."""
    out = [text(10, 22, f"descant bench --url, model {kept['model']}", size=16)]
    out.append(text(10, 40, f"{kept['turns']} turns of each client; lines are p50, dashed ones p95", colour=FAINT))
    top = FIRST_ROW
    for route, levels in kept["routes"].items():
        out.append(text(10, top, f"{route}, over clients at once", colour=FAINT))
        for place, (title, figures) in enumerate(PANELS.items()):
            out += panel(title, figures, levels, LEFT_EDGE + place * (PANEL_WIDTH + PANEL_GAP), top + 30)
        top += PANEL_HEIGHT + 80
    return document(LEFT_EDGE + len(PANELS) * (PANEL_WIDTH + PANEL_GAP), top, out)


def panel(title: str, figures: Mapping[str, str], levels: Levels, left: float, top: float) -> list[str]:
    """One panel. Levels stand at equal distances, whatever their numbers."""
    lines = [(name, form, colour) for name, colour in figures.items() for form in names_of(name, levels)]
    values = [level[form] for _, form, _ in lines for level in levels if level[form] is not None]
    most = max(values, default=0.0) or 1.0
    bottom = top + PANEL_HEIGHT
    step = PANEL_WIDTH / max(1, len(levels) - 1)
    out = [text(left, top - 8, title), path([(left, bottom), (left + PANEL_WIDTH, bottom)], FAINT)]
    for n, level in enumerate(levels):
        out.append(upright(left + n * step, bottom, bottom + 4, colour=FAINT))
        out.append(text(left + n * step, bottom + 18, str(level["max_concurrency"]), anchor="middle", colour=FAINT))
    for name, form, colour in lines:
        points = [
            (left + n * step, bottom - PANEL_HEIGHT * level[form] / most)
            for n, level in enumerate(levels)
            if level[form] is not None
        ]
        dashed = form.startswith("p95")
        out.append(path(points, colour, dashed=dashed))
        if points and not dashed:
            label = f"{name.removesuffix('_ms')} {levels[-1][form] or 0:.4g}"
            out.append(text(points[-1][0] + 6, points[-1][1] + 4, label, colour=colour))
    out.append(text(left - 5, top + 4, f"{most:.4g}", anchor="end", colour=FAINT))
    return out


def names_of(name: str, levels: Levels) -> list[str]:
    """The keys under which a figure stands: itself, or its percentiles."""
    return [name] if name in levels[0] else [f"p50_{name}", f"p95_{name}"]
