"""Pictures, sounds, videos and spoken questions: pure functions of a seed that show what they claim to show."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from descant.errors import OptionError
from descant.train.mel import mask_mel
from descant.train.nano import augment, domain, phrases, pictures, questions, sounds, videos


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_pictures_are_pure_functions_of_the_seed() -> None:
    first, again = (pictures.render_scene(pictures.draw_picture(random.Random(5), "train")) for _ in range(2))
    assert digest(first) == digest(again)
    assert digest(first) != digest(pictures.render_scene(pictures.draw_picture(random.Random(6), "train")))


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_keep_to_their_split(split: domain.Split) -> None:
    rng = random.Random(0)
    scenes = [pictures.draw_picture(rng, split) for _ in range(200)]
    assert all(domain.held_out_pair(s.colour, s.shape) == (split == "test") for s in scenes)
    assert {s.count for s in scenes} == set(range(1, 7))


@pytest.mark.parametrize("shape", phrases.SHAPES)
def test_as_many_shapes_are_drawn_as_are_claimed(shape: str) -> None:
    """Count the connected patches of the shape's colour on a plain background."""
    for count in (1, 4, 6):
        rng = random.Random(f"{shape}{count}")
        scene = pictures.scene("red", shape, count, rng)
        plain = pictures.Scene("red", shape, scene.boxes, (255, 0, 0), ((90, 90, 90),) * 2, 0, (112, 112), 0)
        inked = pictures.render_scene(plain)[:, :, 0] > 180
        assert patches(inked) == count


def patches(mask: np.ndarray) -> int:
    """Connected components, by flooding."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, 0
    while left:
        found += 1
        front = [left.pop()]
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
    return found


@pytest.mark.parametrize("kind", sounds.SOUND_KINDS)
def test_sounds_are_pure_finite_and_in_range(kind: str) -> None:
    first, again = (sounds.make_sound(kind, np.random.default_rng(3), 1.5) for _ in range(2))
    assert digest(first) == digest(again)
    assert first.dtype == np.float32 and first.shape == (24000,)
    assert np.isfinite(first).all() and np.abs(first).max() <= 1.0
    loud = np.abs(first).max()
    assert loud < 0.05 if kind == "silence" else loud > 0.15


def test_every_video_has_one_answer_and_a_beep_away_from_the_cuts() -> None:
    rng = random.Random(0)
    for _ in range(50):
        clip = videos.draw_video(rng)
        assert len(set(clip.colours)) == videos.SECONDS
        into = clip.beep_s % 1.0
        assert into >= videos.MARGIN_S and into + videos.BEEP_S <= 1.0 - videos.MARGIN_S + 1e-9
        assert clip.answer == clip.colours[int(clip.beep_s)]


def test_the_beep_is_heard_and_the_colour_is_seen_in_the_same_second() -> None:
    clip = videos.draw_video(random.Random(4))
    power = (videos.sound(clip).reshape(videos.SECONDS, -1) ** 2).mean(1)
    second = int(clip.beep_s)
    assert power.argmax() == second
    middle = videos.video_frames(clip)[second * videos.VIDEO_FPS, videos.VIDEO_PIXELS // 2, videos.VIDEO_PIXELS // 2]
    assert tuple(middle) == clip.rgb[second]


def test_a_video_file_holds_both_streams(tmp_path: Path) -> None:
    import av

    clip = videos.draw_video(random.Random(1))
    videos.write_video(clip, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert {stream.type for stream in file.streams} == {"video", "audio"}
        shots = [shot.to_ndarray(format="rgb24") for shot in file.decode(video=0)]
    assert len(shots) == 40
    for second in range(videos.SECONDS):
        seen = shots[10 * second + 5][56, 56].astype(int)
        assert np.abs(seen - np.array(clip.rgb[second])).max() < 40


# ---------------------------------------------------------------- spoken questions, without a synthesiser


def hum(text: str, voice: str) -> np.ndarray:
    """A stand-in for the synthesiser: a tone as long as the text."""
    return sounds.tone(300, 0.02 * len(text)).astype(np.float32) * 0.5


@pytest.fixture
def humming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "synthesise", hum)


def test_what_is_spoken_depends_on_the_seed_alone() -> None:
    assert questions.plan(30, 1, "train") == questions.plan(40, 1, "train")[:30]
    assert questions.plan(30, 1, "train") != questions.plan(30, 2, "train")


def test_voices_for_testing_are_never_drawn_for_training() -> None:
    drawn = {clip.voice for clip in questions.plan(3000, 0, "train")}
    assert not any("awb" in voice or "scotland" in voice for voice in drawn)


def test_spoken_test_questions_are_not_spoken_in_training() -> None:
    train = {c.text for c in questions.plan(3000, 0, "train") if c.reply}
    test = {c.text for c in questions.plan(300, 1, "test") if c.reply}
    assert not train & test


@pytest.mark.usefixtures("humming")
def test_a_killed_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    wanted = questions.plan(12, 0, "train")
    assert list(questions.build_questions(tmp_path / "whole", wanted)) == list(range(1, 13))
    half = questions.build_questions(tmp_path / "cut", wanted)
    for _ in range(5):
        next(half)
    half.close()
    with (tmp_path / "cut" / "index.jsonl").open("a") as index:
        index.write('{"start": 1')  # a kill in the middle of a line
    with (tmp_path / "cut" / "samples.i16").open("ab") as samples:
        samples.write(b"xyz")
    assert list(questions.build_questions(tmp_path / "cut", wanted)) == list(range(6, 13))
    for name in ("index.jsonl", "samples.i16"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("humming")
def test_clips_are_read_back(tmp_path: Path) -> None:
    wanted = questions.plan(6, 0, "train")
    list(questions.build_questions(tmp_path, wanted))
    clips = questions.Clips(tmp_path)
    assert clips.spoken == wanted
    assert np.abs(clips[3] - hum(wanted[3].text, "")).max() < 1e-3


def test_a_missing_folder_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="data stage"):
        questions.Clips(tmp_path)


def test_trim_keeps_a_margin() -> None:
    samples = np.zeros(16000, dtype=np.float32)
    samples[8000:9000] = 0.5
    assert len(questions.trim_clip(samples)) == 999 + 2 * 960


def test_distortion_keeps_clips_usable() -> None:
    samples = hum("what is seven plus five", "")
    for seed in range(20):
        out = augment.distort(samples, np.random.default_rng(seed))
        assert out.dtype == np.float32 and np.isfinite(out).all() and np.abs(out).max() <= 1.0
        assert 0.85 < len(out) / len(samples) < 1.75


def test_masked_mel_changes_only_stripes() -> None:
    mel = np.random.default_rng(0).standard_normal((128, 150)).astype(np.float32)
    for seed in range(10):
        masked = mask_mel(mel, np.random.default_rng(seed))
        assert ((masked == mel) | (masked == mel.min())).all()
        assert (masked == mel).mean() > 0.75
