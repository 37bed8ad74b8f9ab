"""Draws: the reference's processors, in its order; one seed, one stream, whoever draws beside it; each id as likely as
the scores say."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from descant.engine import draws
from descant.engine.draws import ID_SPREAD, MIXERS, Drawing, DrawTable, Needs, arrivals, draw, hashed, words_of
from descant.engine.sampling import BROKEN_ID, DrawKind, Sampler, check_sampling, kind_of, noise_key, reciting
from descant.types import Sampling
from tests.graph import Sealed, recorded

VOCAB = 100
TALKER = Sampling(temperature=0.9, top_k=8, top_p=0.8, repetition_penalty=1.3)
LARGE_K = Sampling(temperature=1.5, top_k=90, top_p=0.95, repetition_penalty=1.1)
NUCLEUS = Sampling(temperature=1.2, top_p=0.7)
PLAIN = Sampling(temperature=0.7)
HOWS = [Sampling(), Sampling(repetition_penalty=1.3), TALKER, LARGE_K, NUCLEUS, PLAIN, Sampling(1.0, top_k=3)]
PROMPT = torch.tensor([37, 37, 37, 33, 34])
BANNED = (34, 36)
CPU = torch.device("cpu")


def sampler(how: Sampling, seed: int = 0) -> Sampler:
    return Sampler(how, seed=seed, prompt=PROMPT, banned=BANNED)


def table() -> DrawTable:
    return DrawTable(VOCAB, CPU)


def scores(count: int, seed: int) -> Tensor:
    return 3 * torch.randn(count, VOCAB, generator=torch.Generator().manual_seed(seed))


def drawn(stream: Sampler, rows: Tensor, where: DrawTable | None = None) -> list[int]:
    """What a stream draws, one id after another."""
    where = table() if where is None else where
    ids = []
    for row in rows:
        ids.append(int(where.draw([stream], row[None])))
        stream.keep(ids[-1])
    return ids


# ------------------------------------------------------------ the reference's processors


def reference(how: Sampling) -> LogitsProcessorList:
    steps = [RepetitionPenaltyLogitsProcessor(how.repetition_penalty), SuppressTokensLogitsProcessor(list(BANNED))]
    steps += [TemperatureLogitsWarper(how.temperature)]
    steps += [TopKLogitsWarper(how.top_k)] if how.top_k else []
    return LogitsProcessorList([*steps, TopPLogitsWarper(how.top_p)])


def largest_gap(how: Sampling, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int = 12) -> float:
    """The largest gap between the probabilities of our candidates and the reference's, along one stream of draws."""
    found: list[Tensor] = []
    real = draws.candidates

    def spy(scores: Tensor, drawing: Drawing, count: int) -> tuple[Tensor, Tensor]:
        kept, ids = real(scores, drawing, count)
        found.append(torch.zeros(VOCAB).scatter(0, ids[0], kept[0] / kept[0].sum()))
        return kept, ids

    monkeypatch.setattr(draws, "candidates", spy)
    stream, where, processors, ids, gap = sampler(how, seed), table(), reference(how), PROMPT[None], 0.0
    for row in scores(steps, seed):
        chances = processors(ids, row[None].clone()).softmax(-1)[0]
        index = where.draw([stream], row[None])
        stream.keep(int(index))
        gap = max(gap, float((found[-1] - chances).abs().max()))
        gap = max(gap, float(chances[index] == 0))
        ids = torch.cat([ids, index[None]], 1)
    return gap


@pytest.mark.parametrize("how", [TALKER, LARGE_K, NUCLEUS, Sampling(1.0, top_k=3)])
@pytest.mark.parametrize("seed", range(4))
def test_candidates_are_the_reference_s(how: Sampling, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert largest_gap(how, monkeypatch, seed) < 1e-6


@pytest.mark.parametrize("broken", ["penalty", "last", "top_p", "temperature"])
def test_the_comparison_notices_a_missing_processor(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, off = Drawing.of, {"penalty": 1.0, "last": VOCAB - 1, "top_p": 2.0, "temperature": 1.0}

    def without(words: Tensor) -> Drawing:
        drawing = real(words)
        return Drawing(**vars(drawing) | {broken: torch.full_like(vars(drawing)[broken], off[broken])})

    monkeypatch.setattr(Drawing, "of", without)
    assert max(largest_gap(TALKER, monkeypatch, seed) for seed in range(4)) > 1e-3


def test_greedy_takes_the_largest_score_after_penalty_and_suppression() -> None:
    logits = torch.zeros(VOCAB)
    logits[34], logits[37], logits[5] = 9.0, 5.0, 4.9  # suppressed; seen in the prompt; plain
    # 5.0 / 1.05 < 4.9; then 4.9 / 1.05 < 5.0 / 1.05: its own draws are seen as well
    assert drawn(sampler(Sampling(repetition_penalty=1.05)), torch.stack([logits, logits])) == [5, 37]


def test_a_tiny_temperature_is_greedy_in_the_limit() -> None:
    rows = scores(4, 2)
    assert drawn(sampler(Sampling(temperature=1e-40)), rows) == drawn(sampler(Sampling()), rows)


# ------------------------------------------------------------ noise


def keys(seed: int, step: int) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor([[noise_key(seed, step)]]).view(torch.int32)[:, :, None].unbind(1)
    return low, high


def test_the_hash_is_that_of_whole_numbers_of_32_bits() -> None:
    def plain(low: int, high: int, index: int) -> int:
        x = (index * ID_SPREAD + low) % 2**32
        x = (x ^ x >> 16) * MIXERS[0] % 2**32 ^ high % 2**32
        return (x ^ x >> 15) * MIXERS[1] % 2**32

    for seed, step in ((1, 0), (2**62 + 5, 5), (2**63 - 1, 2**40)):
        low, high = keys(seed, step)
        found = hashed((low, high), torch.arange(300, dtype=torch.int32))[0]
        assert [int(x) % 2**32 for x in found] == [plain(int(low), int(high), index) for index in range(300)]


def test_the_noise_is_exponential_and_neighbours_are_strangers() -> None:
    ids = torch.arange(200_000, dtype=torch.int32)
    noise = -arrivals(keys(5, 0), ids)[0]
    assert abs(float(noise.mean()) - 1) < 0.01 and abs(float(noise.var()) - 1) < 0.02 and float(noise.min()) > 0
    others = [noise.roll(1), *(-arrivals(keys(*at), ids)[0] for at in ((5, 1), (6, 0)))]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([noise, other]))[0, 1])) < 0.01


@pytest.mark.parametrize("how", [TALKER, LARGE_K, NUCLEUS, PLAIN])
@pytest.mark.parametrize("over", ["seeds", "steps"])
def test_every_id_is_as_likely_as_the_scores_say(how: Sampling, over: str) -> None:
    """Chi-square against the reference's softmax, over many seeds of one step and over many steps of one seed."""
    count = 20_000
    row = scores(1, 7) / 2
    chances = reference(how)(PROMPT[None], row.clone()).softmax(-1)[0].double()
    one = words_of(sampler(how, 11), 1, VOCAB)
    words = torch.tensor([one]).repeat(count, 1)
    places = ((n, 0) if over == "seeds" else (11, n) for n in range(count))
    words[:, 5] = torch.tensor([noise_key(*place) for place in places])
    seen, banned = torch.zeros(2, VOCAB + 1, dtype=torch.bool), torch.zeros(2, VOCAB, dtype=torch.bool)
    seen[1, PROMPT] = True
    banned[1, list(BANNED)] = True
    found = torch.bincount(draw(row.expand(count, -1), words, seen, banned, Needs.of([sampler(how)])), minlength=VOCAB)
    assert not found[chances == 0].any()
    likely = chances * count >= 5
    rare = chances[~likely].sum() * count
    wanted = torch.cat((chances[likely] * count, rare[None]))
    got = torch.cat((found[likely], found[~likely].sum()[None])).double()
    wanted, got = wanted[wanted > 0], got[wanted > 0]
    chi, degrees = float(((got - wanted) ** 2 / wanted).sum()), len(wanted) - 1
    assert chi < degrees + 5 * math.sqrt(2 * degrees), (chi, degrees)


# ------------------------------------------------------------ one seed, one stream


def test_one_seed_one_stream() -> None:
    rows = scores(50, 1)
    first, second, other = (drawn(sampler(PLAIN, seed), rows) for seed in (3, 3, 4))
    assert first == second != other


def test_global_draws_do_not_disturb_a_stream() -> None:
    rows, calm, disturbed, where = scores(20, 1), sampler(PLAIN, 3), sampler(PLAIN, 3), table()
    got = []
    for row in rows:
        torch.rand(7)
        got += drawn(disturbed, row[None], where)
    assert got == drawn(calm, rows)


@pytest.mark.parametrize("seed", range(20))
def test_alone_and_in_company_a_stream_draws_the_same(seed: int) -> None:
    """Streams of every kind come, go and draw together in any groups."""
    rng = random.Random(seed)
    hows = [rng.choice(HOWS) for _ in range(6)]
    rows = torch.stack([scores(12, 100 * seed + n) for n in range(6)])
    alone = [drawn(sampler(how, n), rows[n]) for n, how in enumerate(hows)]
    together, where = [sampler(how, n) for n, how in enumerate(hows)], table()
    found: list[list[int]] = [[] for _ in hows]
    while pending := [n for n in range(6) if len(found[n]) < 12]:
        group = rng.sample(pending, rng.randrange(1, len(pending) + 1))
        logits = torch.stack([rows[n, len(found[n])] for n in group])
        ids = where.draw([together[n] for n in group], logits).tolist()
        if rng.random() < 0.3:
            continue  # thrown away: the next draw gives the same
        for n, index in zip(group, ids, strict=True):
            together[n].keep(index)
            found[n].append(index)
    assert found == alone


def test_a_draw_that_is_not_kept_is_drawn_again() -> None:
    stream, where, row = sampler(PLAIN, 5), table(), scores(1, 3)
    first, again = (int(where.draw([stream], row)) for _ in range(2))
    assert first == again
    kept = []
    for _ in range(20):
        kept += drawn(stream, row, where)
    assert len(set(kept)) > 3


def test_a_stream_recites_first_and_draws_then() -> None:
    rows, plain = scores(6, 4), sampler(PLAIN, 9)
    begun = Sampler(PLAIN, seed=9, prompt=PROMPT, banned=BANNED, forced=(1, 2))
    assert drawn(begun, rows) == [1, 2, *drawn(plain, rows)[2:]]
    assert drawn(reciting((7, 8)), rows[:2]) == [7, 8]


# ------------------------------------------------------------ what is never drawn


@given(
    st.floats(0.0, 5.0),
    st.integers(0, 120),
    st.floats(0.0, 1.0, exclude_min=True),
    st.floats(0.1, 3.0),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_banned_id_is_never_drawn(heat: float, top_k: int, top_p: float, penalty: float, seed: int) -> None:
    how = Sampling(heat, top_k, top_p, penalty)
    check_sampling(how, "text")
    row = scores(1, seed).index_fill(1, torch.tensor(BANNED), 50.0)
    assert not set(drawn(sampler(how, seed), row.expand(5, -1))) & {BROKEN_ID, *BANNED}


@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("how", [Sampling(), TALKER, NUCLEUS, PLAIN])
def test_a_score_that_is_no_number_gives_no_id_to_its_row_alone(hole: float, how: Sampling) -> None:
    rows, where = scores(3, 2), table()
    streams = [sampler(how, n) for n in range(3)]
    whole = where.draw(streams, rows).tolist()
    rows[1, 3] = hole
    assert where.draw(streams, rows).tolist() == [whole[0], BROKEN_ID, whole[2]]
    assert where.draw([reciting((5,))], rows[1:2]).tolist() == [BROKEN_ID]


def test_what_was_drawn_before_loses_by_its_counts() -> None:
    """presence once, frequency for each time; the prompt does not count; another's draws do not either."""
    how = Sampling(max_tokens=5, presence_penalty=0.5, frequency_penalty=0.25)
    stream, beside, where = Sampler(how, prompt=torch.tensor([3, 3])), Sampler(Sampling()), DrawTable(4, CPU)
    logits = torch.tensor([1.0, 0.5, -8.0, -9.0])
    # 1.0; then 0.25 < 0.5; then 0.25 > -0.25; then 0.0 > -0.25; then -0.25 == -0.25
    for index in (0, 1, 0, 0):
        assert where.draw([beside, stream], torch.stack([logits, logits])).tolist() == [0, index]
        stream.keep(index)
    assert stream.loss == {0: 0.5 + 0.75, 1: 0.5 + 0.25}


def test_only_allowed_ids_are_drawn() -> None:
    allowed, row, where = torch.tensor([False, True, False, True]), torch.tensor([[9.0, 1.0, 8.0, 1.0]]), None
    for temperature in (0.0, 1.0, 50.0):
        how = Sampling(temperature=temperature, top_k=2, top_p=0.9, repetition_penalty=1.5)
        stream = Sampler(how, prompt=torch.tensor([1]))
        stream.allowed = lambda: allowed
        assert set(drawn(stream, row.expand(60, -1), DrawTable(4, CPU))) <= {1, 3}
    stream, free, open_ = Sampler(Sampling()), Sampler(Sampling()), Sampler(Sampling())
    stream.allowed, free.allowed, where = lambda: allowed, lambda: None, DrawTable(4, CPU)
    assert where.draw([free, stream, open_], row.expand(3, -1)).tolist() == [0, 1, 0]


# ------------------------------------------------------------ the table


def test_rows_are_lent_and_given_back() -> None:
    where, row = table(), scores(1, 1)
    streams = [sampler(TALKER, n) for n in range(9)]
    where.draw(streams, row.expand(9, -1))
    assert where.lent == 9 and len({stream.row for stream in streams}) == 9 and len(where.seen) == 16
    where.draw([reciting((3,)), Sampler(PLAIN)], row.expand(2, -1))
    assert where.lent == 9  # who bans nothing and has no penalty needs none
    streams[4].over = True
    del streams[7]
    assert where.lent == 7
    fresh = sampler(TALKER, 20)
    where.draw([fresh], row)
    assert fresh.row == 5 and where.seen[5, :-1].sum() == len(set(PROMPT.tolist()))  # what was seen before is forgotten


@pytest.mark.parametrize("most", DrawKind)
def test_a_draw_can_be_captured(most: DrawKind) -> None:
    hows = [how for how in HOWS if kind_of(how) <= most]
    needs = Needs(frozenset(kind for kind in DrawKind if kind <= most))
    streams, where = [sampler(how, n) for n, how in enumerate(hows)], table()

    def words() -> Tensor:
        return torch.tensor([words_of(stream, where.row(stream), VOCAB) for stream in streams])

    logits, sent, seen, banned = scores(len(hows), 1), words(), where.seen.clone(), where.banned.clone()
    with Sealed([logits, sent, seen, banned]) as sealed:
        draw(logits, sent, seen, banned, needs)
    assert sealed.found == []
    replay = recorded(lambda: (draw(logits, sent, seen, banned, needs),))
    for step in range(6):
        rows = scores(len(hows), step)
        for buffer, given_ in ((logits, rows), (sent, words()), (seen, where.seen), (banned, where.banned)):
            buffer.copy_(given_[: len(buffer)])
        ids = where.draw(streams, rows)
        assert torch.equal(replay()[0], ids)
        for stream, index in zip(streams, ids.tolist(), strict=True):
            stream.keep(index)
