"""The positions of laid-out tokens as runs, few of them however long a turn is: for whoever shows what the model sees.

    text, audio     one further at each token, t = h = w
    image, video    one grid: t stays, rows of ``columns`` tokens go through h and w

Read from the tokens that the walk (`inputs/layout.py`) made, in the order in which the Thinker reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from descant.tokens import PromptTokens

RunKind = Literal["text", "audio", "image", "video"]
RUN_KINDS: tuple[RunKind, ...] = ("text", "audio", "image", "video")
FIRST_GRID = RUN_KINDS.index("image")


@dataclass(frozen=True)
class PositionRun:
    """Tokens of one kind in a row. start: (t, h, w) of the first; columns: of a grid (None: a line)."""

    kind: RunKind
    count: int
    start: tuple[int, int, int]
    columns: int | None = None


def runs_of(tokens: PromptTokens) -> list[PositionRun]:
    """All tokens, as runs: no position is left out, and none is told twice."""
    if not len(tokens):
        return []
    kinds = torch.zeros(len(tokens), dtype=torch.int64)
    for span in tokens.spans:
        kinds[span.indices] = RUN_KINDS.index(span.source.kind)
    time, height, width = tokens.positions.diff(dim=1)
    line_ends = (time != 1) | (height != 1) | (width != 1)
    grid_ends = (time != 0) | (height < 0) | ((height == 0) & (width <= 0))
    ends = (kinds.diff() != 0) | torch.where(kinds[1:] >= FIRST_GRID, grid_ends, line_ends)
    edges = [0, *(ends.nonzero()[:, 0] + 1).tolist(), len(tokens)]
    return [_run(tokens, int(kinds[first]), first, last) for first, last in pairwise(edges)]


def _run(tokens: PromptTokens, kind: int, first: int, last: int) -> PositionRun:
    t, h, w = tokens.positions[:, first].tolist()
    columns = int((tokens.positions[1, first:last] == h).sum()) if kind >= FIRST_GRID else None
    return PositionRun(RUN_KINDS[kind], last - first, (t, h, w), columns)
