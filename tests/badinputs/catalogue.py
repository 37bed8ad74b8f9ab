"""The catalogue: all cases by section."""

from __future__ import annotations

from collections import Counter

from tests.badinputs import doors, framing, parameters, pictures, sounds, videos
from tests.badinputs.case import Case

CASES: list[Case] = [
    *framing.CASES, *parameters.CASES, *pictures.CASES, *sounds.CASES, *videos.CASES, *videos.ADDRESS_CASES, *doors.CASES,
    *doors.TALKS, *doors.LOAD,
]  # fmt: skip


def by_section() -> dict[str, int]:
    """How many cases each section has."""
    return dict(Counter(case.id[0] for case in CASES))
