"""Spoken questions in everybody's words, by many speakers, and the bank of all sounds that training hears.

``make_spoken`` says the clips once, undistorted. ``HeardSounds`` turns them, and sounds, beeps of videos, silence and
noise, into what a microphone would give: sound ``n`` is a pure function of (seed, n). Its features are computed once
(`descant.train.ears`); ``Bank`` deals them out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from descant.errors import OptionError
from descant.train.ears import CachedAudio, CachedVideo, FeatureStore, fingerprint
from descant.train.loop import StageContext
from descant.train.nano import microphone, sounds, videos, voices, wording
from descant.train.nano.augment import CLIP_RATE_HZ
from descant.train.nano.domain import Split
from descant.train.nano.questions import Clips, SpokenQuestion, build_questions, trim_clip
from descant.train.recipe import read_dataclass
from descant.types import Clip

SPOKEN_SHARES = {
    "chat": 16, "plus": 13, "minus": 11, "opposite": 11, "next": 7, "before": 6, "day": 3, "month": 3, "outside": 10,
    "more": 3, "less": 3, "again": 2, "resume": 1.5, "colour": 3, "shape": 3, "count": 3, "describe": 1.5, "where": 1.5,
    "same": 1, "compare": 1, "sound": 1.5, "video": 2, "change": 1, "sentence": 6, "word": 16,
}  # fmt: skip
HEARD_SHARES = {"speech": 0.8, "sound": 0.07, "video": 0.06, "silence": 0.03, "noise": 0.04}


def plan_spoken(count: int, seed: int, split: Split) -> list[SpokenQuestion]:
    """The words and speakers of ``count`` clips."""
    clips = []
    for i in range(count):
        rng = random.Random(f"spoken/{seed}/{split}/{i}")
        task = rng.choices(list(SPOKEN_SHARES), list(SPOKEN_SHARES.values()))[0]
        asked = wording.draw_asked(task, rng, split)
        clips.append(SpokenQuestion(task, asked.words, asked.reply, str(voices.draw_speaker(rng)), asked.core))
    return clips


@dataclass(frozen=True)
class SpokenOptions:
    """Numbers of clips, to learn from and to test on."""

    train: int
    test: int


def say_clip(text: str, voice: str) -> np.ndarray:
    """The words by the speaker whose ``str`` is ``voice``, without the silence around them."""
    return trim_clip(voices.speak(text, voices.Speaker.parse(voice)))


def make_spoken(context: StageContext) -> None:
    """The task "spoken": two folders of clips, whose questions are never the same."""
    stage = context.stage
    options = read_dataclass(SpokenOptions, stage.options, f"stages.{stage.name}.options")
    counts: dict[Split, int] = {"test": options.test, "train": options.train}
    plans = {split: plan_spoken(count, stage.seed, split) for split, count in counts.items()}
    for name, clips in plans.items():
        for done in build_questions(context.folder / name, clips, say_clip):
            if done % 1000 == 0 or done == len(clips):
                print(f"{stage.name}: {name} {done} of {len(clips)}", flush=True)
    record: dict[str, Any] = {
        "clips": {name: len(clips) for name, clips in plans.items()},
        "voices": sorted({c.voice.rsplit(":", 3)[0] for c in plans["train"]}),
    }
    makers = [
        {"generator": name, "licence": maker.licence, "voices": [v for v in record["voices"] if v.startswith(name)]}
        for name, maker in voices.ENGINES.items()
        if maker.trains
    ]
    (context.folder / "provenance.json").write_text(json.dumps(makers, indent=1))
    (context.folder / "final.json").write_text(json.dumps(record, indent=1))


# ---------------------------------------------------------------- what microphones give


@dataclass(frozen=True)
class HeardSounds:
    """Sounds as they reach the ears, by number."""

    clips: Clips
    seed: int
    split: Split

    @property
    def digest(self) -> str:
        """Of all that the sounds depend on but the code."""
        told = [(c.text, c.voice) for c in self.clips.spoken]
        return fingerprint({"clips": told, "seed": self.seed, "split": self.split, "shares": HEARD_SHARES})

    def about(self, number: int) -> Mapping[str, object]:
        """Tell what sound ``number`` is: its kind, and the clip, the kind of sound or the video that it comes from."""
        rng = random.Random(f"heard/{self.seed}/{self.split}/{number}")
        kind = rng.choices(list(HEARD_SHARES), list(HEARD_SHARES.values()))[0]
        if kind == "speech":
            return {"kind": kind, "clip": rng.randrange(len(self.clips))}
        if kind == "sound":
            return {"kind": kind, "sound": rng.choice(sounds.SOUND_KINDS)}
        return {"kind": kind, "video": rng.randrange(2**31)} if kind == "video" else {"kind": kind}

    def samples(self, number: int) -> np.ndarray:
        """Samples (W,) at 16 kHz of sound ``number``."""
        about = self.about(number)
        rng = np.random.default_rng([self.seed, number, self.split == "test"])
        match about["kind"]:
            case "speech":
                return microphone.as_recorded(self.clips[int(str(about["clip"]))], rng, self._other)
            case "sound":
                return _sound(str(about["sound"]), rng)
            case "video":
                return videos.sound(film_of(about))
            case "silence":
                return silent(rng)
            case _:
                return noise_alone(rng)

    def _other(self, rng: Generator) -> np.ndarray:
        return self.clips[int(rng.integers(len(self.clips)))]


def film_of(about: Mapping[str, object]) -> videos.DrawnVideo:
    """The video that a sound belongs to."""
    return videos.draw_video(random.Random(f"film/{about['video']}"))


def _sound(kind: str, rng: Generator) -> np.ndarray:
    samples = sounds.make_sound(kind, rng, rng.uniform(1.0, 2.2))
    if kind != "silence" and rng.random() < 0.5:
        samples = microphone.mixed(samples, microphone.coloured(len(samples), -3.0, rng), rng.uniform(12, 35))
    samples = microphone.surrounded(samples, rng.uniform(0, 0.6), rng.uniform(0, 1.0), None, rng)
    return microphone.as_float(np.clip(samples, -1, 1))


def silent(rng: Generator) -> np.ndarray:
    """Nothing, for half a second to four: digital zeros, or a floor at -80 to -60 dB."""
    count = round(rng.uniform(0.5, 4.0) * CLIP_RATE_HZ)
    if rng.random() < 0.4:
        return np.zeros(count, np.float32)
    colour = float(rng.choice(list(microphone.SLOPES_DB.values())))
    return microphone.as_float(microphone.coloured(count, colour, rng) * 10 ** (rng.uniform(-80, -60) / 20))


def noise_alone(rng: Generator) -> np.ndarray:
    """Noise of a colour or hum, at -45 to -12 dB, for half a second to four."""
    count = round(rng.uniform(0.5, 4.0) * CLIP_RATE_HZ)
    if rng.random() < 0.25:
        made = microphone.hum(count, float(rng.choice([50.0, 60.0])), rng)
    else:
        made = microphone.coloured(count, float(rng.choice(list(microphone.SLOPES_DB.values()))), rng)
    return microphone.as_float(np.clip(made * 10 ** (rng.uniform(-45, -12) / 20), -1, 1))


class Bank:
    """Sounds with known features, by what they are."""

    def __init__(self, store: FeatureStore, clips: Clips):
        self.store = store
        self.spoken = clips.spoken
        self.places: dict[str, list[int]] = {}  # "speech:TASK", "sound:KIND", "video", "silence", "noise" -> numbers
        for number, clip in enumerate(store.clips):
            kind = str(clip.about["kind"])
            if kind == "speech":
                kind += f":{self.said(number).task}"
            elif kind == "sound":
                kind += f":{clip.about['sound']}"
            self.places.setdefault(kind, []).append(number)

    def said(self, number: int) -> SpokenQuestion:
        """The spoken question that sound ``number``, which is speech, says."""
        clip: int = self.store.clips[number].about["clip"]
        return self.spoken[clip]

    def speech(self) -> list[int]:
        """The numbers of the sounds that are speech, in order."""
        return [number for number, clip in enumerate(self.store.clips) if clip.about["kind"] == "speech"]

    def draw(self, kind: str, rng: random.Random) -> tuple[CachedAudio, int]:
        """A sound of a kind (see ``places``), and its number. OptionError: the bank has none."""
        if kind not in self.places:
            raise OptionError(f"the bank has no sound {kind!r}; make more sounds in the stage that computes features")
        number = rng.choice(self.places[kind])
        return CachedAudio(np.zeros(0, np.float32), CLIP_RATE_HZ, self.store[number]), number

    def draw_speech(self, task: str, rng: random.Random) -> tuple[CachedAudio, SpokenQuestion]:
        """A spoken question of a task."""
        heard, number = self.draw(f"speech:{task}", rng)
        return heard, self.said(number)

    def draw_film(self, rng: random.Random) -> tuple[CachedVideo, videos.DrawnVideo]:
        """A video with its beep."""
        heard, number = self.draw("video", rng)
        film = film_of(self.store.clips[number].about)
        return CachedVideo(Clip(videos.video_frames(film), videos.VIDEO_FPS), True, heard.features), film
