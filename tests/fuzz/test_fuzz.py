"""The fuzzing of ``make fuzz``, short."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import door, schema, talk


def test_damaged_media_are_refused_and_nothing_else_happens() -> None:
    outcomes, faults = door.run(800, seed=1)
    assert not faults, faults
    assert outcomes["read"] > 50 and len(outcomes) > 8


def test_files_are_damaged_in_many_ways() -> None:
    data = bytes(range(200))
    made = {door.damaged(data, random.Random(n)) for n in range(200)}
    assert len(made) > 170 and all(made) and any(len(one) > len(data) for one in made)


@pytest.mark.slow
def test_requests_by_the_schema_are_answered_or_refused() -> None:
    statuses, faults = schema.run(250, seed=1)
    assert not faults, faults
    assert statuses[200] > 5 and statuses[400] > 20


@pytest.mark.slow
def test_talks_are_as_their_model_says() -> None:
    talk.run(10, 15, first=1)
