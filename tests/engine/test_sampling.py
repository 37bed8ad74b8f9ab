"""Impossible values of sampling are refused by name; see test_draws.py for what the possible ones do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from descant.engine.sampling import check_sampling, check_seed
from descant.errors import OptionError
from descant.types import Sampling


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("temperature", -0.1, "0 (greedy) or any positive number"),
        ("temperature", math.nan, "0 (greedy)"),
        ("temperature", math.inf, "0 (greedy)"),
        ("top_k", -1, "0 (off) or a positive whole number"),
        ("top_p", 0, "more than 0, at most 1"),
        ("top_p", 1.01, "more than 0"),
        ("top_p", math.nan, "more than 0"),
        ("repetition_penalty", 0, "any positive number"),
        ("repetition_penalty", -1.0, "any positive number"),
        ("max_tokens", 0, "1 or more"),
        ("max_tokens", -3, "1 or more"),
    ],
)
def test_impossible_values_are_named_with_what_is_allowed(field: str, value: float, allowed: str) -> None:
    with pytest.raises(OptionError) as error:
        check_sampling(replace(Sampling(), **{field: value}), "speech")
    assert f"speech sampling: {field}={value!r}" in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("top_k", 2.5), ("max_tokens", True), ("max_tokens", "many")])
def test_a_value_of_another_type_is_refused_where_it_is_made(field: str, value: object) -> None:
    with pytest.raises(OptionError) as error:
        replace(Sampling(), **{field: value})
    assert f"Sampling: {field}={value!r}" in str(error.value)
    assert "write a whole number" in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, True])
def test_impossible_seeds_are_refused(seed: int) -> None:
    with pytest.raises(OptionError, match="seed"):
        check_seed(seed)


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", [-2.01, 2.01, float("nan"), float("inf")])
def test_penalties_are_bounded(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        check_sampling(Sampling(**{name: value}), "text")  # type: ignore[arg-type]
