"""Encoders: streamed == whole, batched == alone, and gradients reach every weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.config import AudioConfig, VisionConfig, audio_tokens
from descant.model import audio, vision
from descant.model.audio import AudioEncoder, conv_frames
from descant.model.vision import VisionEncoder, layout, segment_ids

MELS = 8
LAW = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def ear() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(AudioConfig(MELS, 2, 2, 16, 32, 24, n_window=10)).eval()


@pytest.fixture(scope="module")
def eye() -> VisionEncoder:
    torch.manual_seed(0)
    cfg = VisionConfig(4, 16, 2, 24, 20, (1, 3), patch_size=2, temporal_patch_size=2, window_size=16)
    return VisionEncoder(cfg).eval()


def clip(frames: int) -> torch.Tensor:
    return torch.randn(MELS, frames, generator=torch.Generator().manual_seed(frames))


def picture(t: int, h: int, w: int) -> torch.Tensor:
    return torch.randn(t * h * w, 24, generator=torch.Generator().manual_seed(100 * t + 10 * h + w))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@LAW
@given(frames=st.integers(1, 130), blocks=st.integers(1, 3))
@torch.no_grad()
def test_sound_in_blocks_is_the_whole(ear: AudioEncoder, frames: int, blocks: int) -> None:
    whole = ear([clip(frames)])[0]
    pieces = [ear([piece])[0] for piece in clip(frames).split(blocks * ear.cfg.block_frames, dim=1)]
    close(torch.cat(pieces), whole)


@LAW
@given(frames=st.lists(st.integers(1, 70), min_size=1, max_size=6))
@torch.no_grad()
def test_clips_together_are_clips_alone(ear: AudioEncoder, frames: list[int]) -> None:
    for n, rows in zip(frames, ear([clip(n) for n in frames]), strict=True):
        assert rows.shape == (audio_tokens(n), 24)
        close(rows, ear([clip(n)])[0])


def test_no_clip_is_no_work(ear: AudioEncoder) -> None:
    assert ear([]) == []


def test_tokens_follow_the_official_formula() -> None:
    for frames in range(1, 30_001, 7):
        assert audio_tokens(frames) == max(0, (conv_frames(frames) - 2) // 2 + 1)
    assert [audio_tokens(n) for n in (3, 100, 200, 1000, 1001, 30_000)] == [1, 25, 50, 250, 250, 7500]


@LAW
@given(
    grids=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)).map(lambda g: (g[0], 2 * g[1], 2 * g[2])),
        min_size=1,
        max_size=4,
    )
)
@torch.no_grad()
def test_pictures_together_are_temporal_grids_alone(eye: VisionEncoder, grids: list[tuple[int, int, int]]) -> None:
    rows = [picture(*grid) for grid in grids]
    whole = eye(torch.cat(rows), grids)
    alone = [
        eye(part, [(1, h, w)]) for (t, h, w), patches in zip(grids, rows, strict=True) for part in patches.split(h * w)
    ]
    close(whole, torch.cat(alone))


@LAW
@given(t=st.integers(1, 3), h=st.integers(1, 9), w=st.integers(1, 9), side=st.sampled_from([None, 1, 3, 4]))
def test_a_layout_is_an_order_with_whole_segments(t: int, h: int, w: int, side: int | None) -> None:
    segments = segment_ids([(t, 2 * h, 2 * w), (1, 4, 6)], side, 2)
    plan = layout(segments, 4)
    assert plan.order.sort().values.tolist() == list(range(t * h * w + 6))
    assert sum(count * length for count, length in plan.runs) == 4 * (t * h * w + 6)
    laid, start = segments[plan.order], 0
    for count, length in plan.runs:
        run = laid[start : start + count * length // 4].view(count, length // 4)
        assert (run == run[:, :1]).all() and run[:, 0].unique().numel() == count
        start += count * length // 4


@pytest.mark.parametrize("broken", ["sinusoids", "conv_lengths"])
def test_a_clip_that_sees_another_is_seen(ear: AudioEncoder, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws above can fail: a padded neighbour that leaks, positions that depend on the batch."""
    wrong = {
        "sinusoids": lambda length, dim, device: torch.rand(length, dim) * length,
        "conv_lengths": lambda frames: frames,
    }
    monkeypatch.setattr(audio, broken, wrong[broken])
    together = ear([clip(17), clip(5)])[1]
    assert (together - ear([clip(5)])[0]).abs().max() > 1e-4


def test_time_that_mixes_is_seen(eye: VisionEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "segment_ids", lambda g, side, merge: torch.zeros_like(segment_ids(g, side, merge)))
    rows = picture(2, 4, 4)
    assert (eye(rows, [(2, 4, 4)])[:4] - eye(rows[:16], [(1, 4, 4)])).abs().max() > 1e-4


def test_gradients_reach_every_weight(ear: AudioEncoder, eye: VisionEncoder) -> None:
    sum(rows.square().sum() for rows in ear([clip(17), clip(40), clip(33)])).backward()  # type: ignore[union-attr]
    eye(torch.cat([picture(1, 6, 10), picture(2, 4, 4)]), [(1, 6, 10), (2, 4, 4)]).square().sum().backward()
    idle = {"audio_bos_eos_token.weight"}  # stored in the official files, never used
    for model in (ear, eye):
        for name, weight in model.named_parameters():
            assert name in idle or (weight.grad is not None and weight.grad.isfinite().all()), name
        model.zero_grad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    whole = AudioEncoder(AudioConfig(MELS, 2, 2, 16, 32, 24, n_window=10)).eval()
    sight = VisionEncoder(VisionConfig(2, 16, 2, 24, 20, (1,), patch_size=2, window_size=16)).eval()
    heard, seen = whole([clip(45)])[0], sight(picture(1, 6, 10), [(1, 6, 10)])
    near = {"rtol": 0.05, "atol": 0.05}
    rows = whole.to(dtype)([clip(45)])[0]
    assert rows.dtype == dtype
    torch.testing.assert_close(rows.float(), heard, **near)
    torch.testing.assert_close(sight.to(dtype)(picture(1, 6, 10), [(1, 6, 10)]).float(), seen, **near)
