"""TMRoPE ids equal the reference's ``get_rope_index`` on random segment lists; its walk searches ids, ours does not."""

from __future__ import annotations

from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniPreTrainedModelForConditionalGeneration
from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import Qwen2_5OmniProcessor

from descant.config import MediaIds
from descant.inputs import layout as ours
from descant.inputs.layout import AudioSeg, AudioVideoSeg, ImageSeg, Segment, TextSeg, VideoSeg, lay_out
from descant.tokens import PromptTokens, concatenate
from tests.filled import unfilled

IDS = MediaIds(audio=46, image=55, video=56, audio_start=47, audio_end=48, vision_start=52, vision_end=53)


def reference(segments: list[Segment], ids: Tensor) -> tuple[Tensor, int]:
    """positions (3, T) and the next position, from transformers, given our ids and the segments' shapes."""
    walker = SimpleNamespace(
        spatial_merge_size=2,
        config=SimpleNamespace(
            image_token_id=IDS.image,
            video_token_id=IDS.video,
            audio_token_id=IDS.audio,
            vision_start_token_id=IDS.vision_start,
            audio_start_token_id=IDS.audio_start,
            position_id_per_seconds=25,
            seconds_per_chunk=2,
        ),
    )
    source = Qwen2_5OmniPreTrainedModelForConditionalGeneration
    for name in ("get_llm_pos_ids_for_vision", "get_chunked_index"):
        setattr(walker, name, MethodType(getattr(source, name), walker))
    images = [(s.t, s.h, s.w) for s in segments if isinstance(s, ImageSeg)]
    videos = [s for s in segments if isinstance(s, VideoSeg | AudioVideoSeg)]
    sounds = [
        s.tokens if isinstance(s, AudioSeg) else s.audio for s in segments if isinstance(s, AudioSeg | AudioVideoSeg)
    ]
    positions, delta = source.get_rope_index(
        walker,
        ids[None],
        torch.tensor(images) if images else None,
        torch.tensor([(s.t, s.h, s.w) for s in videos]) if videos else None,
        torch.ones(1, len(ids), dtype=torch.long),
        any(isinstance(s, AudioVideoSeg) for s in segments),
        torch.tensor([4 * tokens for tokens in sounds]) if sounds else None,  # mel frames
        torch.tensor([s.seconds for s in videos]) if videos else None,
    )
    return positions[:, 0], int(delta) + len(ids)


def laid(segments: list[Segment]) -> PromptTokens:
    return concatenate([lay_out(segment, IDS, 2, unfilled(segment)) for segment in segments])


def differs(segments: list[Segment]) -> bool:
    made = laid(segments)
    expected, following = reference(segments, made.ids)
    return not torch.equal(made.positions, expected) or made.next_position != following


sides = st.integers(1, 6).map(lambda n: 2 * n)
wide = st.one_of(sides, st.integers(40, 80).map(lambda n: 2 * n))  # frames wider than a chunk of sound is long
clock = st.sampled_from([1.0, 0.5, 2 / 3, 0.08, 2.0, 3.0, 5.0])  # seconds per grid; over 2 s the chunks drift
text = st.builds(TextSeg, st.lists(st.integers(1, 40), min_size=1, max_size=6))
sound = st.builds(AudioSeg, st.integers(1, 130))
image = st.builds(ImageSeg, st.just(1), sides, wide)
silent = st.builds(VideoSeg, st.integers(1, 6), sides, sides, clock)
talking = st.builds(AudioVideoSeg, st.integers(1, 6), sides, wide, clock, st.integers(1, 180))
# the reference has one flag for all videos of a prompt, so one prompt has silent videos or talking ones
prompts = st.one_of(
    *(st.lists(st.one_of(text, sound, image, video), min_size=1, max_size=7) for video in (silent, talking))
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(prompts)
def test_positions_equal_the_reference(segments: list[Segment]) -> None:
    assert not differs(segments)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(talking)
def test_interleaved_placeholders_equal_the_processor(segment: AudioVideoSeg) -> None:
    walker = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2),
        audio_bos_token="(",
        audio_eos_token=")",
        audio_token="a",
        video_token="v",
    )
    walker.get_chunked_index = MethodType(Qwen2_5OmniProcessor.get_chunked_index, walker)
    expected = Qwen2_5OmniProcessor.replace_video_with_audio_token(
        walker,
        {"video_grid_thw": [(segment.t, segment.h, segment.w)], "video_second_per_grid": [segment.seconds]},
        0,
        {"num_audio_tokens": [segment.audio]},
        0,
        position_id_per_seconds=25,
        seconds_per_chunk=2.0,
    )
    signs = {IDS.audio_start: "(", IDS.audio_end: ")", IDS.audio: "a", IDS.video: "v"}
    ids = laid([segment]).ids.tolist()
    assert ids[0] == IDS.vision_start and ids[-1] == IDS.vision_end
    assert "".join(signs[i] for i in ids[1:-1]) == expected


CASES: dict[str, list[Segment]] = {
    "text": [TextSeg([1, 2, 3])],
    "audio": [TextSeg([1]), AudioSeg(5), TextSeg([2])],
    "images": [TextSeg([1, 2]), ImageSeg(1, 4, 6), ImageSeg(1, 2, 8), TextSeg([7])],
    "silent video, audio": [TextSeg([1]), VideoSeg(2, 4, 4, 1.0), AudioSeg(5), TextSeg([9])],
    "sound the longer": [TextSeg([1]), AudioVideoSeg(2, 4, 4, 1.0, 130), TextSeg([9])],
    "pictures the longer": [TextSeg([1]), AudioVideoSeg(6, 4, 4, 1.0, 20), TextSeg([9])],
    "both over two chunks": [TextSeg([1]), AudioVideoSeg(6, 4, 4, 1.0, 130), TextSeg([9])],
    "sparse grids drift": [TextSeg([1]), AudioVideoSeg(5, 4, 4, 3.0, 400), TextSeg([9])],
    "wide frames, last piece counts": [AudioVideoSeg(1, 2, 160, 1.0, 9), TextSeg([9])],
}


@pytest.mark.parametrize("case", CASES)
def test_named_cases(case: str, record: Any) -> None:
    wrong = differs(CASES[case])
    record("layout", case, float(wrong))
    assert not wrong


def _sound_first(segment: AudioVideoSeg, ids: MediaIds, merge: int) -> list[Any]:
    return REAL_INTERLEAVE(segment, ids, merge)[::-1]


REAL_INTERLEAVE = ours._interleave
REAL_GRID = ours._grid
BROKEN: dict[str, tuple[str, Any, str]] = {
    "streams are never cut": ("_chunks", lambda stream, span: [stream], "both over two chunks"),
    "sound before pictures": ("_interleave", _sound_first, "pictures the longer"),
    "rows and columns swapped": ("_grid", lambda s, t, m: REAL_GRID(s, t, m)[[0, 2, 1]], "images"),
    "grids all at time 0": ("_grid", lambda s, t, m: REAL_GRID(s, [0] * len(t), m), "silent video, audio"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_formula_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, replacement, case = BROKEN[fault]
    monkeypatch.setattr(ours, name, replacement)
    assert differs(CASES[case])
