"""Which examples a stage draws: every example is a pure function of (seed, number), whatever was drawn before."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from descant.errors import OptionError
from descant.train.examples import Example
from descant.train.nano import domain, phrases, pictures, sounds, videos
from descant.train.nano.augment import distort, noisy, speed
from descant.train.nano.questions import QUESTION_RATE_HZ, Clips, SpokenQuestion, word_list
from descant.train.nano.wide import WideSource, make_wide
from descant.types import READ_ALOUD, TRANSCRIBE, Audio, Clip, Image, Message, Part, Video, user


@dataclass(frozen=True)
class Source:
    """Where examples come from. clips: spoken questions (None: no spoken tasks); distorted: training's augmentation.

    shuffled: answers are drawn without regard to the media, for the control that must stay at chance.
    """

    split: domain.Split
    clips: Clips | None = None
    distorted: bool = True
    shuffled: bool = False
    by_task: dict[str, list[int]] = field(default_factory=dict)  # clip numbers

    def __post_init__(self) -> None:
        for i, spoken in enumerate(self.clips.spoken if self.clips else ()):
            self.by_task.setdefault(spoken.task, []).append(i)


def draw_example(source: Source | WideSource, shares: Mapping[str, float], seed: int, number: int) -> Example:
    """Example ``number`` of a stream; shares: task -> weight, in any unit."""
    rng = random.Random(f"mixture/{seed}/{source.split}/{number}")
    task = rng.choices(list(shares), list(shares.values()))[0]
    return make_example(source, task, rng)


def make_example(source: Source | WideSource, task: str, rng: random.Random) -> Example:
    """One example of a task: of the whole domain (see ``wide.make_wide``), or of its first wording.

    Of the first wording: a text task of `domain`, or "asked:TASK" (spoken), "aloud:TASK" (spoken, about a picture),
    "colour", "shape", "count", "describe", "sound", "video", "say" or "write".
    """
    if isinstance(source, WideSource):
        return make_wide(source, task, rng)
    kind, _, name = task.partition(":")
    if task in domain.TEXT_TASKS:
        words, reply = domain.sample(task, rng, source.split)
        return Example(task, user(domain.as_typed(words, rng, digits=0.1 if source.split == "train" else 0.0)), reply)
    if kind == "asked":
        clip, spoken = _speech(source, name, rng)
        return Example(task, user(clip), spoken.reply, _mask(source, rng), spoken.text)
    if task in domain.IMAGE_TASKS or kind == "aloud":
        return _picture(source, task, name or task, rng)
    if task == "sound":
        return _sound(source, rng)
    if task == "video":
        return _video(source, rng)
    if task == "say":
        text = _text_to_say(rng)
        return Example(task, user(READ_ALOUD.format(text=text)), text)
    if task == "write":
        clip, spoken = _speech(source, rng.choice(list(source.by_task)), rng)
        return Example(task, user(clip, TRANSCRIBE), spoken.text, _mask(source, rng), spoken.text)
    raise OptionError(f"unknown task {task!r} in a mixture")


def _speech(source: Source, task: str, rng: random.Random) -> tuple[Audio, SpokenQuestion]:
    if source.clips is None or task not in source.by_task:
        raise OptionError(f"no spoken clips of task {task!r}; make them with the data stage")
    i = rng.choice(source.by_task[task])
    samples = source.clips[i]
    if source.distorted:
        samples = distort(samples, np.random.default_rng(rng.randrange(2**31)))
    return Audio(samples, QUESTION_RATE_HZ), source.clips.spoken[i]


def _mask(source: Source, rng: random.Random) -> int | None:
    return rng.randrange(2**31) if source.distorted else None


def _turn(media: Part, question: Part | str, rng: random.Random, media_first: float) -> Message:
    """People show first and ask then, or ask first: both occur."""
    return user(media, question) if rng.random() < media_first else user(question, media)


def _picture(source: Source, task: str, attribute: str, rng: random.Random) -> Example:
    colourless = source.split == "train" and attribute in ("shape", "count")
    scene = pictures.draw_picture(rng, source.split, unnamed=0.5 if colourless else 0.0)
    said = pictures.draw_picture(rng, source.split) if source.shuffled else scene
    reply = domain.picture_reply(attribute, said.colour, said.shape, said.count)
    shown = Image(pictures.render_scene(scene))
    if task.startswith("aloud:"):
        clip, spoken = _speech(source, attribute, rng)
        return Example(task, _turn(shown, clip, rng, 0.7), reply, _mask(source, rng), spoken.text)
    words = domain.as_typed(domain.picture_question(attribute, rng), rng)
    return Example(task, _turn(shown, words, rng, 0.6), reply)


def _sound(source: Source, rng: random.Random) -> Example:
    kind = rng.choice(sounds.SOUND_KINDS)
    numpy_rng = np.random.default_rng(rng.randrange(2**31))
    samples = sounds.make_sound(kind, numpy_rng, rng.uniform(1.2, 2.0))
    if source.distorted and kind != "silence" and rng.random() < 0.5:
        samples = noisy(speed(samples, numpy_rng.uniform(0.95, 1.05)), numpy_rng.uniform(15, 40), numpy_rng)
    said = rng.choice(sounds.SOUND_KINDS) if source.shuffled else kind
    words = domain.as_typed(rng.choice(phrases.ASK_SOUND), rng)
    return Example("sound", _turn(Audio(samples, QUESTION_RATE_HZ), words, rng, 0.6), domain.sound_reply(said))


def _video(source: Source, rng: random.Random) -> Example:
    clip = videos.draw_video(rng)
    words = domain.as_typed(rng.choice(phrases.ASK_VIDEO), rng)
    second = rng.randrange(videos.SECONDS) if source.shuffled else int(clip.beep_s)
    film = Video(Clip(videos.video_frames(clip), videos.VIDEO_FPS, videos.sound(clip)), use_audio=True)
    return Example("video", _turn(film, words, rng, 0.75), domain.video_reply(second, clip.colours[second]))


def _text_to_say(rng: random.Random) -> str:
    """A reply of the domain, or a few frequent words."""
    if rng.random() < 0.4:
        task = rng.choice(domain.TEXT_TASKS)
        return domain.sample(task, rng, "train")[1]
    words = " ".join(rng.choice(word_list()) for _ in range(rng.randrange(1, 8)))
    return words[0].upper() + words[1:] + "." if rng.random() < 0.6 else words
