"""Live input: pushed in any cuts == given as a whole, and tokens once given stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descant.config import InputsConfig, audio_tokens
from descant.errors import ConfigError, SessionError
from descant.inputs import door
from descant.inputs.audio import log_mel
from descant.inputs.layout import AudioSeg, AudioVideoSeg, Segment, VideoSeg, lay_out
from descant.inputs.live import LiveMedia
from descant.inputs.live_sight import LiveFrames
from descant.inputs.live_sound import AudioBlock, LiveAudio
from descant.inputs.prompt import PromptBuilder
from descant.tokens import NO_TOKENS, PixelGrid, PromptTokens, unchanged
from descant.types import Audio, Budget, Clip, Message, Part, Video
from tests.filled import unfilled
from tests.inputs import media

Array = npt.NDArray[Any]
TOKENIZER = media.nano_tokenizer()
IDS = media.media_ids(TOKENIZER)
CFG = media.thinker_config(TOKENIZER)
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


def check_step(before: list[AudioBlock], now: list[AudioBlock]) -> None:
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
    live, seen = LiveAudio(INPUTS), list[AudioBlock]()
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
       size=grown)  # fmt: skip
def test_growing_tokens_are_what_all_futures_share(
    shape: tuple[int, int], seconds: float, size: tuple[int, int]
) -> None:
    """Settled tokens begin every future, and no longer beginning does."""
    t, audio = size
    futures = [(t + dt, audio + da) for dt in (0, 1, 9) for da in (0, 1, 500)]

    def walked(segment: Segment, growing: bool = False) -> Tensor:
        made = lay_out(segment, IDS, 2, unfilled(segment), growing=growing)
        return torch.cat([made.ids[None], made.positions])

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


def test_sources_that_make_other_tokens_are_refused() -> None:
    segment = AudioSeg(50)
    [whole] = unfilled(segment)
    assert len(lay_out(segment, IDS, 2, [whole]).spans) == 1
    for tokens in (49, 51):
        with pytest.raises(SessionError, match=f"50 audio tokens but its media give {tokens}"):
            lay_out(segment, IDS, 2, [replace(whole, tokens=tokens)])


# ---------------------------------------------------------------- the whole medium


def check_against_prompt(made: PromptTokens, part: Part) -> None:
    """Finished live tokens against the prompt of the same medium."""
    builder = PromptBuilder(TOKENIZER, INPUTS, CFG)
    wanted = builder.piece(part)  # type: ignore[arg-type]  # never a Text here
    assert torch.equal(made.ids, wanted.ids) and torch.equal(made.positions, wanted.positions)
    assert made.extent == wanted.extent > 0
    assert [s.source.digest for s in made.spans] == [s.source.digest for s in wanted.spans]
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(made.spans, wanted.spans, strict=True))
    prompt = builder.build([Message("user", (part,))], speech=False)
    start = len(TOKENIZER.encode("user\n")) + 1
    assert torch.equal(prompt.ids[start : start + len(made)], made.ids)
    assert torch.equal(prompt.positions[:, start : start + len(made)], made.positions + start)
    assert int(prompt.positions[0, start + len(made)]) == start + made.extent


class Cache:
    """What an engine would hold: one entry a token; a token of a medium holds the content that it came from."""

    def __init__(self) -> None:
        self.tokens = NO_TOKENS
        self.settled = 0
        self.entries: list[tuple[Any, ...]] = []

    def follow(self, live: LiveMedia) -> None:
        tokens = live.tokens()
        kept = unchanged(self.tokens, tokens)
        sounds = [span.first for span in self.tokens.spans if span.source.kind == "audio"]
        assert kept >= min([self.settled, *sounds])  # pictures and text never fall
        assert len(tokens) >= len(self.tokens)
        self.entries[kept:] = entries(tokens)[kept:]
        self.tokens, self.settled = tokens, len(live.tokens(settled=True))
        assert self.settled <= len(tokens) and unchanged(live.tokens(settled=True), tokens) == self.settled


def entries(tokens: PromptTokens) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = list(zip(tokens.ids.tolist(), *tokens.positions.tolist()))
    for span in tokens.spans:
        content = span.source.content
        values = content.patches if isinstance(content, PixelGrid) else content
        for place, index in enumerate(span.indices.tolist()):
            made[index] += (place, values.numpy().tobytes())
    return made


@quick
@given(
    seconds=st.floats(0.03, 5.0), frames=st.integers(0, 11), use_sound=st.booleans(), rate=st.sampled_from(RATES),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_any_cuts_give_the_tokens_of_the_prompt(
    seconds: float, frames: int, use_sound: bool, rate: int, seed: int
) -> None:
    """Sound in random pieces, frames of 2 a second at random places between them, looks at random."""
    if not (use_sound or frames):
        return
    rng = np.random.default_rng(seed)
    pcm = sound(round(seconds * rate), rate, rng)
    pictures = [media.picture(56, 56, seed=seed + n) for n in range(frames)]
    live, cache = LiveMedia(INPUTS, IDS, sound=use_sound, sight=frames > 0), Cache()
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
            cache.follow(live)
    made = live.finish()
    cache.follow(live)
    assert cache.entries == entries(made) and cache.settled == len(made)
    heard = door.check_samples(as_float(pcm), rate, 16000, Budget())
    if not frames:
        check_against_prompt(made, Audio(as_float(pcm), rate))
        return
    clip = Clip(np.stack(pictures + pictures[-1:] * (frames % 2)), 2.0, heard if use_sound else None)
    check_against_prompt(made, Video(clip, use_audio=use_sound))


def test_the_tokens_of_a_talk_before_a_camera() -> None:
    """The interleave by 2 s: how many tokens are there, and how many are settled, as sound and frames come."""
    live = LiveMedia(INPUTS, IDS, sight=True)
    grey = media.grey_frames([10, 60, 110, 160, 210, 250], 56, 56)

    def look() -> tuple[int, int]:
        return len(live.tokens()), len(live.tokens(settled=True))

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
    made = live.finish()
    assert [span.source.kind for span in made.spans] == ["video", "video", "audio", "video", "audio"]
    assert len(made) == 64 + 13 + 2


def test_the_last_block_grows_and_is_rolled_back() -> None:
    live = LiveMedia(INPUTS, IDS)
    samples = media.noise(56000)
    live.push_audio(samples[:40000], 16000)
    before = live.tokens()
    assert (len(before), len(live.tokens(settled=True))) == (1 + 62, 51) and before.extent == 0
    assert unchanged(before, live.tokens()) == 63
    live.push_audio(samples[40000:], 16000)
    now = live.tokens()
    assert unchanged(before, now) == 51
    live.push_audio(np.full(4000, 0.99, np.float32), 16000)  # louder: every block so far
    assert unchanged(now, live.tokens()) == 1


@pytest.mark.parametrize("heard, seen", [(True, False), (False, True), (False, False)])
def test_a_stream_that_never_comes(heard: bool, seen: bool) -> None:
    live = LiveMedia(INPUTS, IDS, sight=True)
    samples, frames = media.noise(9000), media.grey_frames([1, 2], 56, 56)
    if heard:
        live.push_audio(samples, 16000)
    for place in range(2 * seen):
        live.push_frame(frames[place], at=place / 2)
    assert len(live.tokens()) == 0
    made = live.finish()
    if heard:
        check_against_prompt(made, Audio(samples, 16000))
    elif seen:
        check_against_prompt(made, Video(Clip(frames, 2.0)))
    else:
        assert made.ids.shape == (0,) and made.positions.shape == (3, 0) and made.extent == 0
    with pytest.raises(SessionError, match="after the end"):
        live.finish()


@pytest.mark.parametrize("first", ["sound", "sight"])
def test_a_stream_may_join_the_other(first: str) -> None:
    """As if both had been expected from the beginning."""
    samples, frames = media.noise(40000), media.grey_frames([1, 2, 3, 4], 56, 56)
    live = LiveMedia(INPUTS, IDS, sound=first == "sound", sight=first == "sight")

    def show() -> None:
        for place, frame in enumerate(frames):
            live.push_frame(frame, at=place / 2)

    if first == "sight":
        show()
    before = live.tokens()
    live.push_audio(samples, 16000)
    if first == "sound":
        before = live.tokens()
        show()
    assert len(before) > 1 and unchanged(before, live.tokens()) <= 1 + 4 * (first == "sight")
    check_against_prompt(live.finish(), Video(Clip(frames, 2.0, samples), use_audio=True))


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
    assert [int(frame[0, 0, 0]) for frame in live._sampled] == expected


def test_a_frame_may_be_a_file() -> None:
    pixels = media.picture(56, 84)
    live = LiveFrames(INPUTS)
    live.push(media.image_file(pixels), 0.0)
    live.finish()
    plain = LiveFrames(INPUTS)
    plain.push(pixels, 0.0)
    plain.finish()
    assert torch.equal(live.grid(0).patches, plain.grid(0).patches)
