"""Laws of a stream of events: the whole answer is the list of its events, whoever else is being answered meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.bench.streams import finish, push
from descant.engine.session import split_seed
from descant.types import AudioChunk, Event, Finished, Sampling, TextDelta
from tests.engine import rig
from tests.engine.alone import run, stages_for, stream

MODELS = rig.models(1)
HOT = Sampling(temperature=1.5, top_k=30, top_p=0.95, max_tokens=16)
SONG = Sampling(temperature=1.0, top_k=20, top_p=0.9, repetition_penalty=1.05, max_tokens=30)


def content(events: Iterable[Event]) -> list[tuple[object, ...]]:
    """Everything in the events but the time."""
    rows: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, TextDelta):
            rows.append(("text", event.text))
        elif isinstance(event, AudioChunk):
            rows.append(("audio", event.start_sample, event.rate, event.samples.tobytes()))
        else:
            rows.append(("end", event.text, event.reason, tuple(vars(event.usage).items())))
    return rows


def answer(seed: int, text: str = "user: hi") -> list[Event]:
    return list(stream(MODELS, rig.request(text, text=HOT, speech=SONG, seed=seed)))


def recite(text: str, **changes: object) -> list[Event]:
    ids = tuple(rig.TOKENIZER.encode(text))
    return list(stream(MODELS, rig.request(forced=ids, text=Sampling(max_tokens=len(ids) + 1), **changes)))


def check_order(events: Sequence[Event]) -> None:
    """Any number of texts and chunks without a gap, then one Finished that sums them up; time never runs backwards."""
    *body, end = events
    assert isinstance(end, Finished) and not any(isinstance(event, Finished) for event in body)
    assert "".join(event.text for event in body if isinstance(event, TextDelta)) == end.text
    position = 0
    for chunk in (event for event in body if isinstance(event, AudioChunk)):
        assert chunk.start_sample == position and chunk.samples.dtype == np.float32 and chunk.rate == 24000
        assert len(chunk.samples) and float(np.abs(chunk.samples).max()) <= 1
        position += len(chunk.samples)
    assert position == end.usage.samples == end.usage.codes * 4 * 240
    times = [event.t for event in events]
    assert times == sorted(times) and times[0] >= 0


@pytest.mark.parametrize("seed", range(4))
def test_one_seed_makes_text_codes_and_sound_again(seed: int) -> None:
    first, second = answer(seed), answer(seed)
    check_order(first)
    assert content(first) == content(second)


def test_another_seed_is_another_answer() -> None:
    assert len({str(content(answer(seed))) for seed in range(4)}) == 4


def test_a_seed_decides_the_noise_as_well() -> None:
    greedy = [list(stream(MODELS, rig.request(seed=seed))) for seed in (0, 1)]
    assert greedy[0][-1].text == greedy[1][-1].text
    assert content(greedy[0]) != content(greedy[1])


def test_the_three_streams_of_a_seed_are_different() -> None:
    assert len({value for seed in range(50) for value in split_seed(seed)}) == 150


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 3), st.integers(4, 7))
@settings(max_examples=12, deadline=None)
def test_two_answers_at_once_do_not_disturb_each_other(turns: list[bool], one: int, two: int) -> None:
    requests = [rig.request(f"user: number {n}", text=HOT, speech=SONG, seed=n) for n in (one, two)]
    alone = [content(stream(MODELS, request)) for request in requests]
    both = [stream(MODELS, request) for request in requests]
    together: list[list[Event]] = [[], []]
    for second in turns:
        together[second] += [event for event in [next(both[second], None)] if event is not None]
    for heard, rest in zip(together, both, strict=True):
        heard += list(rest)
    assert [content(events) for events in together] == alone


@pytest.mark.parametrize("cuts", [[40], [1] * 40, [3, 0, 17, 1, 19]])
def test_the_sound_is_that_of_its_codes_however_they_arrive(cuts: list[int]) -> None:
    stages = stages_for(MODELS)
    session = stages.open(rig.request(forced=tuple(rig.TOKENIZER.encode("sing"))))
    events = list(run(stages, session))
    state = MODELS.token2wav.start(rig.voice(), split_seed(0)[2], rig.FAST)
    codes, pieces = session.speech.codes, []
    for size in cuts:
        samples, state = push(MODELS.token2wav, state, codes[:size])
        pieces.append(samples)
        codes = codes[size:]
    pieces.append(finish(MODELS.token2wav, state)[0])
    streamed = np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
    assert np.array_equal(streamed, torch.cat(pieces).numpy())


@given(st.text(min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_every_delta_is_valid_unicode_and_they_join_to_the_text(text: str) -> None:
    events = recite(text, voice=None)
    deltas = [event.text for event in events[:-1]]
    for delta in deltas:
        assert (
            delta
            and delta.encode().decode() == delta
            and "\ufffd" not in delta.replace("\ufffd", "", text.count("\ufffd"))
        )
    assert "".join(deltas) == rig.TOKENIZER.decode(rig.TOKENIZER.encode(text)) == events[-1].text


def test_a_character_cut_in_half_by_the_limit_is_marked_not_broken() -> None:
    ids = tuple(rig.TOKENIZER.encode("ok \N{WHITE SMILING FACE}"))
    events = list(stream(MODELS, rig.request(forced=ids, text=Sampling(max_tokens=5), voice=None)))
    assert [event.text for event in events] == ["o", "k", " ", "\ufffd", "ok \ufffd"]


def test_sound_does_not_wait_for_the_text_nor_the_text_for_sound() -> None:
    events = recite("this answer is long enough for sound to come before its end")
    kinds = [type(event) for event in events]
    first_sound, last_text = kinds.index(AudioChunk), max(i for i, kind in enumerate(kinds) if kind is TextDelta)
    # 2 blocks of 6 codes make the first window; a code is sung for each token: sound comes with the 12th
    assert sum(kind is TextDelta for kind in kinds[:first_sound]) == 12
    assert first_sound < last_text
    assert kinds[:first_sound] == [TextDelta] * 12


def test_the_order_check_can_fail() -> None:
    events = answer(0)
    chunk = next(i for i, event in enumerate(events) if isinstance(event, AudioChunk))
    late = [*events[:chunk], *events[chunk + 1 :]]
    shifted = [replace(e, start_sample=e.start_sample + 1) if isinstance(e, AudioChunk) else e for e in events]
    for broken in (late, shifted, events[:-1], events[::-1]):
        with pytest.raises(AssertionError):
            check_order(broken)
