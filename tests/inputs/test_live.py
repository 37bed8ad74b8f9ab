"""Live input: pushed in any cuts == given as a whole, and rows once given stay."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descant.config import InputsConfig
from descant.errors import ConfigError, SessionError
from descant.inputs import door
from descant.inputs.audio import audio_tokens, log_mel
from descant.inputs.layout import AudioSeg, AudioVideoSeg, Segment, VideoSeg, Walk
from descant.inputs.live import LiveMedia, LiveRows
from descant.inputs.live_sight import LiveFrames
from descant.inputs.live_sound import Block, LiveAudio
from descant.inputs.prompt import build_prompt
from descant.inputs.rows import NOTHING, Rows, unchanged
from descant.types import Audio, Budget, Clip, Message, Part, Video
from tests.inputs import media

Array = npt.NDArray[Any]
TOKENIZER = media.nano_tokenizer()
IDS = media.media_ids(TOKENIZER)
INPUTS = InputsConfig(default_system=None, video_min_pixels=3136, video_max_pixels=3136)
RATES = [8000, 11025, 16000, 24000, 44100, 48000]
quick = settings(max_examples=30, deadline=None, derandomize=True)


def whole(samples: Array, rate: int, inputs: InputsConfig = INPUTS) -> Tensor:
    return log_mel(door.check_samples(samples, rate, inputs.sampling_rate, Budget()), inputs)


def cuts(count: int, rng: np.random.Generator, most: int) -> list[slice]:
    """A random cut of ``count`` samples; empty pieces happen."""
    ends = [0]
    while ends[-1] < count:
        ends.append(min(count, ends[-1] + int(rng.integers(0, most))))
    return [slice(a, b) for a, b in pairwise(ends)]


def sound(count: int, rate: int, rng: np.random.Generator) -> Array:
    """Noise whose loudness jumps by up to 100 dB every half a second or so, in steps of int16."""
    steps = rng.uniform(-5, 0, 1 + count * 2 // rate)
    level = 10.0 ** np.repeat(steps, rate // 2 + 1)[:count]
    noise = np.clip(0.3 * rng.standard_normal(count) * level, -1, 1)
    return np.round(noise * 32767).astype(np.int16)


FORMS: dict[str, Callable[[Array], Any]] = {
    "bytes": lambda pcm: pcm.astype("<i2").tobytes(),
    "int16": lambda pcm: pcm,
    "float32": lambda pcm: (pcm / np.float32(32768)).astype(np.float32),
    "float64": lambda pcm: pcm / 32768.0,
}


def as_float(pcm: Array) -> Array:
    made: Array = FORMS["float32"](pcm)
    return made


# ---------------------------------------------------------------- sound


def check_step(before: list[Block], now: list[Block]) -> None:
    """What versions and ``final`` promise between two looks."""
    assert len(now) >= len(before) and [block.index for block in now] == list(range(len(now)))
    assert all(block.final for block in now[:-1])
    for old, new in zip(before, now):
        assert new.version >= old.version and (new.final or not old.final)
        assert (new.version == old.version) == torch.equal(new.mel, old.mel)
        frames = old.mel.shape[1]  # those there already: only the floor may have risen
        assert frames == new.mel.shape[1] or not old.final
        assert torch.equal(new.mel[:, :frames], torch.maximum(old.mel, new.mel.min()))


@quick
@given(
    rate=st.sampled_from(RATES),
    seconds=st.floats(0.025, 4.6),
    form=st.sampled_from(sorted(FORMS)),
    most=st.sampled_from([300, 4000, 60000]),
    seed=st.integers(0, 999),
)
def test_any_cuts_give_the_features_of_the_whole(rate: int, seconds: float, form: str, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pcm = sound(round(seconds * rate), rate, rng)
    live, seen = LiveAudio(INPUTS), list[Block]()
    for cut in cuts(len(pcm), rng, most):
        live.push(FORMS[form](pcm[cut]), rate)
        if rng.random() < 0.3:
            blocks = live.blocks()
            check_step(seen, blocks)
            seen = blocks
    made = live.finish()
    check_step(seen, live.blocks())
    assert torch.equal(made, whole(as_float(pcm), rate))
    assert torch.equal(made, torch.cat([block.mel for block in live.blocks()], dim=1))
    assert sum(block.tokens for block in live.blocks()) == audio_tokens(made.shape[1])
    assert all(block.final for block in live.blocks())


@pytest.mark.parametrize("count", [321, 15840, 15841, 15960, 16000])
def test_the_end_of_the_longest_clip(count: int) -> None:
    """There the reference reflects instead of padding with silence."""
    short = InputsConfig(max_audio_s=1.0)
    samples = media.noise(count)
    live = LiveAudio(short)
    for start in range(0, count, 777):
        live.push(samples[start : start + 777], 16000)
        live.blocks()
    assert torch.equal(live.finish(), whole(samples, 16000, short))


@pytest.mark.parametrize("block", [4, 20, 300])
def test_blocks_of_other_encoders(block: int) -> None:
    samples = media.noise(40000)
    live = LiveAudio(INPUTS, block=block)
    live.push(samples, 16000)
    assert {b.mel.shape[1] for b in live.blocks()[:-1]} <= {block}
    assert torch.equal(live.finish(), whole(samples, 16000))
    with pytest.raises(ConfigError, match="n_window"):
        LiveAudio(INPUTS, block=block + 2)


def test_a_louder_moment_changes_exactly_the_blocks_under_the_new_floor() -> None:
    """Loud, faint, loud and faint noise of 2 s each, then a bang: its floor lies between the two."""
    rng = np.random.default_rng(0)
    live = LiveAudio(INPUTS)
    for level in (0.1, 1e-6, 0.1, 1e-6):
        live.push(level * rng.standard_normal(32000), 16000)
    live.push(np.zeros(400, np.float32), 16000)
    before = live.blocks()
    assert [block.final for block in before] == [True, True, True, True, False]
    live.push(np.full(16000, 0.9, np.float32), 16000)
    now = live.blocks()
    changed = [new.version != old.version for old, new in zip(before[:4], now)]
    quietest = [float(block.mel.min()) for block in before[:4]]
    floor = min(float(block.mel.min()) for block in now)
    assert changed == [low < floor for low in quietest] == [False, True, False, True]
    assert now[0].mel is before[0].mel


def test_only_frames_with_a_full_window_are_given() -> None:
    """Frame f sees samples up to f * 160 + 200; the block of 2 s is whole with sample 32040."""
    live = LiveAudio(INPUTS)
    samples = media.noise(32040)
    counts = []
    for cut in (slice(0, 200), slice(200, 201), slice(201, 359), slice(359, 360), slice(360, 32039)):
        live.push(samples[cut], 16000)
        counts.append(sum(block.mel.shape[1] for block in live.blocks()))
    assert counts == [0, 1, 1, 2, 199] and not live.blocks()[0].final
    live.push(samples[32039:], 16000)
    assert live.blocks()[0].final and live.blocks()[0].tokens == 50


# ---------------------------------------------------------------- layout of what grows

grown = st.tuples(st.integers(1, 6), st.integers(0, 260))


@quick
@given(shape=st.tuples(st.sampled_from([2, 4]), st.sampled_from([2, 6])), seconds=st.sampled_from([0.4, 1.0, 3.0]),
       size=grown, base=st.integers(0, 9))  # fmt: skip
def test_growing_rows_are_what_all_futures_share(
    shape: tuple[int, int], seconds: float, size: tuple[int, int], base: int
) -> None:
    """Settled rows begin every future, and no longer beginning does."""
    t, audio = size
    futures = [(t + dt, audio + da) for dt in (0, 1, 9) for da in (0, 1, 500)]

    def walked(segment: Segment, growing: bool = False) -> Tensor:
        ids, positions = Walk(IDS, 2, base).add(segment, growing=growing)
        return torch.cat([ids[None], positions])

    def check(settled: Tensor, ends: list[Tensor]) -> None:
        count = settled.shape[1]
        assert all(torch.equal(end[:, :count], settled) for end in ends)
        assert len({tuple(end[:, count].tolist()) for end in ends}) > 1

    check(
        walked(AudioVideoSeg(t, *shape, seconds, audio), True),
        [walked(AudioVideoSeg(a, *shape, seconds, b)) for a, b in futures],
    )
    check(walked(VideoSeg(t, *shape, seconds), True), [walked(VideoSeg(a, *shape, seconds)) for a, _ in futures])
    check(walked(AudioSeg(audio), True), [walked(AudioSeg(b)) for _, b in futures])


# ---------------------------------------------------------------- the whole medium


def check_against_prompt(live: LiveMedia, rows: LiveRows, base: int, part: Part) -> None:
    """Finished live rows, between the texts of a turn, against ``build_prompt`` of the same turn."""
    prompt = build_prompt([Message("user", (part,))], TOKENIZER, INPUTS, IDS, speech=False)
    end = base + len(rows.ids)
    assert torch.equal(prompt.ids[base:end], rows.ids)
    assert torch.equal(prompt.positions[:, base:end], rows.positions)
    assert rows.base == int(prompt.positions[0, end]) and rows.final == len(rows.ids)
    audio, videos = live.media()
    assert len(audio) == len(prompt.audio) and all(map(torch.equal, audio, prompt.audio))
    assert [grid.grid for grid in videos] == [grid.grid for grid in prompt.videos]
    assert all(torch.equal(ours.patches, theirs.patches) for ours, theirs in zip(videos, prompt.videos))


BASE = len(TOKENIZER.encode("user\n")) + 1  # rows before the medium of a first turn


class Cache:
    """What an engine would hold: one entry a row; a row of a medium holds the features that it came from."""

    def __init__(self) -> None:
        self.rows: LiveRows | None = None
        self.laid: Rows = NOTHING
        self.entries: list[tuple[Any, ...]] = []
        self.rolled_back = 0

    def follow(self, live: LiveMedia, rows: LiveRows) -> None:
        laid = live.laid()
        assert torch.equal(laid.ids, rows.ids) and [u.rows.tolist() for u in laid.units] == [
            span.rows.tolist() for span in rows.spans
        ]
        keep, self.laid = unchanged(self.laid, laid), laid
        assert keep <= len(self.entries)
        if self.rows is not None:
            final = min((int(s.rows[0]) for s in self.rows.spans if s.kind == "audio"), default=self.rows.final)
            assert keep >= min(final, self.rows.final)  # pictures and text never fall
            assert len(rows.ids) >= len(self.rows.ids)
        self.rolled_back += len(self.entries) - keep
        self.entries[keep:] = entries(live, rows)[keep:]
        self.rows = rows


def entries(live: LiveMedia, rows: LiveRows) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = list(zip(rows.ids.tolist(), *rows.positions.tolist()))
    for span in rows.spans:
        source = live.block(span.index).mel if span.kind == "audio" else live.grid(span.index).patches
        for place, row in enumerate(span.rows.tolist()):
            made[row] += (place, source.numpy().tobytes())
    return made


@quick
@given(
    seconds=st.floats(0.03, 5.0), frames=st.integers(0, 11), use_sound=st.booleans(), rate=st.sampled_from(RATES),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_any_cuts_give_the_rows_of_the_prompt(
    seconds: float, frames: int, use_sound: bool, rate: int, seed: int
) -> None:
    """Sound in random pieces, frames of 2 a second at random places between them, looks at random."""
    if not (use_sound or frames):
        return
    rng = np.random.default_rng(seed)
    pcm = sound(round(seconds * rate), rate, rng)
    pictures = [media.picture(56, 56, seed=seed + n) for n in range(frames)]
    live, cache = LiveMedia(INPUTS, IDS, sound=use_sound, sight=frames > 0, base=BASE), Cache()
    pieces = [pcm[cut] for cut in cuts(len(pcm), rng, rate)] if use_sound else []
    turns = np.array([0] * len(pieces) + [1] * frames)
    rng.shuffle(turns)
    shown = 0
    for turn in turns:
        if turn:
            live.push_frame(pictures[shown], at=shown / 2)
            shown += 1
        else:
            live.push_audio(pieces.pop(0), rate)
        if rng.random() < 0.5:
            cache.follow(live, live.rows())
    rows = live.finish()
    cache.follow(live, rows)
    assert cache.entries == entries(live, rows)
    heard = door.check_samples(as_float(pcm), rate, 16000, Budget())
    if not frames:
        check_against_prompt(live, rows, BASE, Audio(as_float(pcm), rate))
        return
    clip = Clip(np.stack(pictures + pictures[-1:] * (frames % 2)), 2.0, heard if use_sound else None)
    check_against_prompt(live, rows, BASE, Video(clip, use_audio=use_sound))


def test_the_rows_of_a_talk_before_a_camera() -> None:
    """The interleave by 2 s: which rows are there, and which are final, as sound and frames come."""
    live = LiveMedia(INPUTS, IDS, sight=True)
    grey = media.grey_frames([10, 60, 110, 160, 210, 250], 56, 56)

    def look() -> tuple[int, int]:
        rows = live.rows()
        return len(rows.ids), rows.final

    live.push_audio(media.noise(32040), 16000)
    assert look() == (0, 0)  # no frame yet: how many tokens has a grid?
    live.push_frame(grey[0], at=0.0)
    live.push_frame(grey[1], at=0.5)
    assert look() == (2 + 4, 6)  # the second grid of these 2 s may still come before the sound
    live.push_frame(grey[2], at=1.0)
    live.push_frame(grey[3], at=1.5)
    assert look() == (2 + 8 + 50, 60)
    live.push_audio(media.noise(8000, seed=1), 16000)
    assert look() == (60, 60)  # the pictures of the next 2 s come first
    live.push_frame(grey[4], at=2.0)
    live.push_frame(grey[5], at=2.5)
    assert look() == (64, 64)
    spans = live.finish().spans
    assert [(span.kind, span.index) for span in spans] == [
        ("video", 0), ("video", 1), ("audio", 0), ("video", 2), ("audio", 1),
    ]  # fmt: skip
    assert len(live.rows().ids) == 64 + 13 + 2


def test_the_last_block_grows_and_is_rolled_back() -> None:
    live = LiveMedia(INPUTS, IDS, base=7)
    samples = media.noise(56000)
    live.push_audio(samples[:40000], 16000)
    rows, before = live.rows(), live.laid()
    assert (len(rows.ids), rows.final) == (1 + 62, 51) and rows.base is None
    assert unchanged(before, live.laid()) == 63
    live.push_audio(samples[40000:], 16000)
    now = live.laid()
    assert unchanged(before, now) == 51
    live.push_audio(np.full(4000, 0.99, np.float32), 16000)  # louder: every block so far
    assert unchanged(now, live.laid()) == 1


@pytest.mark.parametrize("heard, seen", [(True, False), (False, True), (False, False)])
def test_a_stream_that_never_comes(heard: bool, seen: bool) -> None:
    live = LiveMedia(INPUTS, IDS, sight=True, base=BASE)
    samples, frames = media.noise(9000), media.grey_frames([1, 2], 56, 56)
    if heard:
        live.push_audio(samples, 16000)
    for place in range(2 * seen):
        live.push_frame(frames[place], at=place / 2)
    assert len(live.rows().ids) == 0
    rows = live.finish()
    if heard:
        check_against_prompt(live, rows, BASE, Audio(samples, 16000))
    elif seen:
        check_against_prompt(live, rows, BASE, Video(Clip(frames, 2.0)))
    else:
        assert rows.ids.shape == (0,) and rows.positions.shape == (3, 0) and rows.base == BASE
    with pytest.raises(SessionError, match="after the end"):
        live.finish()


@pytest.mark.parametrize("first", ["sound", "sight"])
def test_a_stream_may_join_the_other(first: str) -> None:
    """As if both had been expected from the beginning."""
    samples, frames = media.noise(40000), media.grey_frames([1, 2, 3, 4], 56, 56)
    live = LiveMedia(INPUTS, IDS, sound=first == "sound", sight=first == "sight", base=BASE)

    def show() -> None:
        for place, frame in enumerate(frames):
            live.push_frame(frame, at=place / 2)

    if first == "sight":
        show()
    before = live.laid()
    live.push_audio(samples, 16000)
    if first == "sound":
        before = live.laid()
        show()
    assert len(before) > 1 and unchanged(before, live.laid()) <= 1 + 4 * (first == "sight")
    check_against_prompt(live, live.finish(), BASE, Video(Clip(frames, 2.0, samples), use_audio=True))


# ---------------------------------------------------------------- frames on a clock


@pytest.mark.parametrize(
    "start, times, expected",
    [
        (None, [3.0], [0, 0]),
        (None, [3.0, 3.5, 4.0], [0, 1, 2, 2]),
        (None, list(np.arange(20) / 10), [0, 5, 10, 15]),
        (0.0, [0.6, 0.9, 1.6], [0, 0, 1, 2]),  # nearest to 0, 0.5, 1.0 and 1.5
        (0.0, [0.0, 0.25, 0.75], [0, 1]),  # both as near to 0.5: the earlier
        (0.0, [0.0, 2.1], [0, 0, 0, 1, 1, 1]),  # a camera that stood still
        (0.0, [0.0, 0.499, 1.0, 1.499], [0, 1, 2, 3]),
        (0.0, [0.0, 0.5, 0.999], [0, 1, 2, 2]),  # 1 ms early is on time
        (0.0, [0.0, 0.0, 0.5], [0, 2]),
    ],
)
def test_frames_are_sampled_by_their_times(start: float | None, times: list[float], expected: list[int]) -> None:
    frames = media.grey_frames(list(range(len(times))), 56, 56)
    live = LiveFrames(INPUTS, start=start)
    buffer = np.empty_like(frames[0])
    for frame, at in zip(frames, times):
        buffer[:] = frame  # as a camera does
        live.push(buffer, float(at))
    live.finish()
    assert [int(frame[0, 0, 0]) for frame in live.sampled()] == expected


def test_a_frame_may_be_a_file() -> None:
    pixels = media.picture(56, 84)
    live = LiveFrames(INPUTS)
    live.push(media.image_file(pixels), 0.0)
    live.finish()
    plain = LiveFrames(INPUTS)
    plain.push(pixels, 0.0)
    plain.finish()
    assert torch.equal(live.grid(0).patches, plain.whole().patches)
