"""The arithmetic of docs/scaling.md, done again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from descant.cli.inspect import inspect_folder
from descant.config import OmniConfig
from descant.plan import SESSION_TOKENS, make_plan
from descant.scale.policy import FULL_SHARE, UNDERRUNS_PER_ANSWER

TESTS = Path(__file__).resolve().parents[1]
DOC = (TESTS.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
SPEAKING = 0.4
CARD_BYTES = 80 << 30


def official(size: str) -> tuple[OmniConfig, dict[str, int]]:
    """The config of an official checkpoint, and the bytes of its parts."""
    found = inspect_folder(TESTS / "data" / size)
    return found.config, {part.name: part.nbytes for part in found.parts}


def rows(heading: str) -> list[list[str]]:
    """The rows of the table whose first line begins with ``heading``."""
    lines = DOC[DOC.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


def test_users_and_replicas() -> None:
    busiest = math.ceil(1_000_000 * 10 / 1440 * 3)
    assert f"{busiest:,} talks at once" in DOC
    found = rows("| voices at once |")
    assert len(found) == 3
    for voices, talks, *gpus in found:
        carried = FULL_SHARE * int(voices) / SPEAKING
        assert int(talks) == round(carried)
        for users, told in zip((1000, 1_000_000, busiest), gpus, strict=True):
            assert told == f"{math.ceil(round(users / carried, 6)):,}"
    assert (
        str(SPEAKING) in DOC
        and str(FULL_SHARE) in DOC
        and f"{100 * UNDERRUNS_PER_ANSWER:.0f} under-runs in 100 answers" in " ".join(DOC.split())
    )


@pytest.mark.parametrize("place, size", [(1, "3b"), (2, "7b")])
def test_memory(place: int, size: str) -> None:
    plan = make_plan(*official(size), CARD_BYTES)
    weights, token, tokens, talks = (row[place] for row in rows("| | 3B | 7B | |"))
    assert weights == f"{plan.resident / 2**30:.1f} GiB"
    assert token == f"{plan.token_bytes:,} bytes"
    about = pytest.approx(int(tokens.replace(",", "")), rel=0.02)  # the peak of a pass moves a little with the code
    assert plan.tokens == about
    assert int(talks) == int(tokens.replace(",", "")) // SESSION_TOKENS


def test_places_of_the_3b_on_smaller_cards() -> None:
    small, middle = (make_plan(*official("3b"), memory << 30).sessions for memory in (24, 48))
    assert f"({small} places in 24 GB, {middle} in 48 GB; counted)" in DOC
