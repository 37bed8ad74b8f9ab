"""Scores of sequences: letters that were heard, phones that were said."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def collapse(labels: Sequence[int]) -> list[int]:
    """Labels of frames -> what they say, in order: repeats are one, and label 0 (the blank, the pause) is nothing."""
    return [label for i, label in enumerate(labels) if label and (i == 0 or label != labels[i - 1])]


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner = row[0]
        row[0] = i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]
