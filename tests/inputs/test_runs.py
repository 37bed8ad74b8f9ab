"""Runs tell every position that the walk gave, and few of them tell a long turn."""

from __future__ import annotations

import random

import pytest
import torch

from descant.inputs.layout import AudioVideoSeg, Segment, VideoSeg, lay_out
from descant.inputs.runs import PositionRun, runs_of
from descant.inputs.turn import LiveTurn
from descant.tokens import NO_TOKENS, EncoderInput, PromptTokens
from descant.types import user
from tests.engine import rig
from tests.inputs import media
from tests.inputs.test_turn import BUILDER, PARTS, whole


def positions_of(runs: list[PositionRun]) -> torch.Tensor:
    """(3, T): what runs say."""
    told = [torch.empty(3, 0, dtype=torch.int64)]
    for run in runs:
        at = torch.arange(run.count)
        steps = at.expand(3, -1)
        if run.columns is not None:
            steps = torch.stack([0 * at, at // run.columns, at % run.columns])
        told.append(torch.tensor(run.start)[:, None] + steps)
    return torch.cat(told, dim=1)


def kinds_of(tokens: PromptTokens) -> list[str]:
    """What fills each token."""
    found = ["text"] * len(tokens)
    for span in tokens.spans:
        for index in span.indices.tolist():
            found[index] = span.source.kind
    return found


def holds(tokens: PromptTokens) -> list[PositionRun]:
    runs = runs_of(tokens)
    assert torch.equal(positions_of(runs), tokens.positions)
    assert [run.kind for run in runs for _ in range(run.count)] == kinds_of(tokens)
    return runs


@pytest.mark.parametrize("case", PARTS)
def test_runs_are_the_positions_of_a_message(case: str) -> None:
    holds(whole([user(*PARTS[case])]))


def test_nothing_is_no_run() -> None:
    assert runs_of(NO_TOKENS) == []


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_the_positions_of_any_segment(seed: int) -> None:
    rng = random.Random(seed)
    t, rows, columns, audio = rng.randint(1, 9), rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 180)
    seconds = rng.choice([0.02, 0.04, 1 / 3, 1.0, 2.0, 3.0])
    if seed % 4 == 1:
        rows, seconds = 1, 0.02  # grids of one moment, and of one row
    grids = [EncoderInput("video", torch.zeros(1), rows * columns)] * t
    segment: Segment
    if seed % 2:
        segment, sources = VideoSeg(t, 2 * rows, 2 * columns, seconds), grids
    else:
        segment = AudioVideoSeg(t, 2 * rows, 2 * columns, seconds, audio)
        sources = [*grids, EncoderInput("audio", torch.zeros(1), audio)]
    runs = holds(lay_out(segment, rig.media_ids(), 2, sources))
    seen = [run for run in runs if run.kind == "video"]
    assert [(run.count, run.columns) for run in seen] == t * [(rows * columns, columns)]


def test_frames_and_sound_of_a_live_turn_stand_in_turn() -> None:
    turn = LiveTurn(BUILDER)
    for second in range(6):
        turn.push_audio(media.noise(16000), 16000)
        turn.push_frame(media.picture(56, 56), float(second))
    tokens = turn.finish()
    runs = holds(tokens)
    seen = [run for run in runs if run.kind != "text"]
    assert [run.kind for run in seen] == 3 * ["video", "video", "audio"]  # chunks of 2 s
    assert [run.start[0] - seen[0].start[0] for run in seen] == [0, 25, 0, 50, 75, 50, 100, 125, 100]
    assert len(runs) < len(tokens) / 10
