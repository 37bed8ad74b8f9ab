"""The processors equal the reference's, in its order; impossible values are refused by name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from descant.engine import sampling as ours
from descant.engine.sampling import BROKEN_ID, Sampler, check_sampling, check_seed, drawn
from descant.errors import OptionError
from descant.types import Sampling

VOCAB = 40
TALKER = Sampling(temperature=0.9, top_k=8, top_p=0.8, repetition_penalty=1.3)
PROMPT = torch.tensor([37, 37, 37, 33, 34])
BANNED = (34, 36)


def reference(how: Sampling) -> LogitsProcessorList:
    steps = [RepetitionPenaltyLogitsProcessor(how.repetition_penalty), SuppressTokensLogitsProcessor(list(BANNED))]
    steps += [TemperatureLogitsWarper(how.temperature), TopKLogitsWarper(how.top_k), TopPLogitsWarper(how.top_p)]
    return LogitsProcessorList(steps)


def sampler(how: Sampling, seed: int = 0) -> Sampler:
    return Sampler(how, vocab_size=VOCAB, seed=seed, prompt=PROMPT, banned=BANNED)


def run_both(how: Sampling, seed: int, steps: int = 12) -> tuple[list[int], list[int], float]:
    """Ids drawn by the reference's processors and by ours from the same logits, and the largest gap in probability."""
    rows = 3 * torch.randn(steps, VOCAB, generator=torch.Generator().manual_seed(seed))
    mine, processors = sampler(how, seed), reference(how)
    draws = torch.Generator().manual_seed(seed)
    ids, theirs, got, gap = PROMPT[None], [], [], 0.0
    for row in rows:
        probabilities = processors(ids, row[None].clone()).softmax(-1)
        gap = max(gap, float((mine.process(row).softmax(-1) - probabilities[0]).abs().max()))
        theirs.append(int(torch.multinomial(probabilities, 1, generator=draws)))
        got.append(int(mine(row)))
        ids = torch.cat([ids, torch.tensor([[theirs[-1]]])], 1)
    return theirs, got, gap


@pytest.mark.parametrize("seed", range(8))
def test_processors_and_draws_equal_the_reference(seed: int) -> None:
    theirs, got, gap = run_both(TALKER, seed)
    assert gap < 1e-6
    assert got == theirs


@pytest.mark.parametrize("name", ["penalise", "keep_top_k", "keep_top_p"])
def test_the_comparison_notices_a_missing_processor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ours, name, lambda scores, *_: scores)
    assert max(run_both(TALKER, seed)[2] for seed in range(4)) > 1e-3


def test_the_order_matters_and_is_the_reference_s(monkeypatch: pytest.MonkeyPatch) -> None:
    top_k, top_p = ours.keep_top_k, ours.keep_top_p
    monkeypatch.setattr(ours, "keep_top_k", lambda scores, k: top_k(top_p(scores, TALKER.top_p), k))
    monkeypatch.setattr(ours, "keep_top_p", lambda scores, p: scores)
    assert max(run_both(TALKER, seed)[2] for seed in range(8)) > 1e-3


def test_greedy_takes_the_largest_score_after_penalty_and_suppression() -> None:
    logits = torch.zeros(VOCAB)
    logits[34], logits[37], logits[5] = 9.0, 5.0, 4.9  # suppressed; seen in the prompt; plain
    draw = sampler(Sampling(temperature=0, repetition_penalty=1.05))
    assert draw(logits) == 5  # 5.0 / 1.05 < 4.9
    assert draw(logits) == 37  # 4.9 / 1.05 < 5.0 / 1.05: its own draws are seen as well


def test_one_seed_one_stream() -> None:
    rows = torch.randn(50, VOCAB, generator=torch.Generator().manual_seed(1))
    how = Sampling(temperature=1.0)
    draws = sampler(how, 3), sampler(how, 3), sampler(how, 4)
    first, second, other = ([int(draw(row)) for row in rows] for draw in draws)
    assert first == second != other


def test_global_draws_do_not_disturb_a_session() -> None:
    rows = torch.randn(20, VOCAB, generator=torch.Generator().manual_seed(1))
    calm, disturbed = sampler(Sampling(temperature=1.0), 3), sampler(Sampling(temperature=1.0), 3)
    expected, got = [int(calm(row)) for row in rows], []
    for row in rows:
        torch.rand(7)
        got.append(int(disturbed(row)))
    assert got == expected


@given(
    st.floats(0.0, 5.0),
    st.integers(0, 60),
    st.floats(0.0, 1.0, exclude_min=True),
    st.floats(0.1, 3.0),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_banned_id_is_never_drawn(heat: float, top_k: int, top_p: float, penalty: float, seed: int) -> None:
    how = Sampling(heat, top_k, top_p, penalty)
    check_sampling(how, "text")
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)).index_fill(0, torch.tensor(BANNED), 50.0)
    draw = sampler(how, seed)
    assert not {int(draw(logits)) for _ in range(5)} & set(BANNED)


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


@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("heat", [0.0, 1.0])
def test_a_score_that_is_no_number_gives_no_id(hole: float, heat: float) -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(2))
    assert int(drawn(sampler(Sampling(heat)), logits)) != BROKEN_ID
    logits[3] = hole
    assert int(drawn(sampler(Sampling(heat)), logits)) == BROKEN_ID


def test_a_tiny_temperature_is_greedy_in_the_limit() -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(2))
    assert sampler(Sampling(temperature=1e-40))(logits) == sampler(Sampling(temperature=0))(logits)


def test_what_was_drawn_before_loses_by_its_counts() -> None:
    """presence once, frequency for each time; the prompt does not count."""
    how = Sampling(max_tokens=5, presence_penalty=0.5, frequency_penalty=0.25)
    sampler = Sampler(how, vocab_size=4, seed=0, prompt=torch.tensor([3, 3, 3]))
    logits = torch.tensor([1.0, 0.5, -8.0, -9.0])
    expected = logits.clone()
    for drawn_id, counts in ((0, (1, 0)), (1, (1, 1)), (0, (2, 1)), (0, (3, 1))):
        torch.testing.assert_close(sampler.process(logits), expected)
        assert int(sampler(logits)) == drawn_id
        for place, count in enumerate(counts):
            expected[place] = logits[place] - (0.5 + 0.25 * count if count else 0)


def test_only_allowed_ids_are_drawn() -> None:
    allowed = torch.tensor([False, True, False, True])
    for temperature in (0.0, 1.0, 50.0):
        how = Sampling(temperature=temperature, top_k=2, top_p=0.9, repetition_penalty=1.5)
        sampler = Sampler(how, vocab_size=4, seed=0, prompt=torch.tensor([1]), allowed=lambda: allowed)
        assert {int(sampler(torch.tensor([9.0, 1.0, 8.0, 1.0]))) for _ in range(60)} <= {1, 3}
    free = Sampler(Sampling(), vocab_size=4, seed=0, prompt=torch.tensor([1]), allowed=lambda: None)
    assert int(free(torch.tensor([9.0, 1.0, 8.0, 1.0]))) == 0


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", [-2.01, 2.01, float("nan"), float("inf")])
def test_penalties_are_bounded(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        check_sampling(Sampling(**{name: value}), "text")  # type: ignore[arg-type]
