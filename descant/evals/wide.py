"""Rows of the whole domain: everybody's words, voices that never trained, microphones as they are, and honest replies.

Questions are of the test split of `train.nano.wording`; what is spoken is said on the spot. Pure functions of a seed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from descant.evals import newcomer, people
from descant.evals.tasks import PICTURE, PICTURE_CHANCE, EvalItem, TaskRow, replaced
from descant.train.nano import (
    domain,
    microphone,
    pictures,
    prose,
    refusals,
    scenes,
    sounds,
    talks,
    videos,
    voices,
    wide,
    wording,
)
from descant.train.nano.questions import QUESTION_RATE_HZ
from descant.train.nano.spoken import noise_alone, say_clip, silent
from descant.types import READ_ALOUD, TRANSCRIBE, Audio, Clip, Image, Text, Video, user

Sound = Callable[[np.ndarray, np.random.Generator], np.ndarray]
TEST_SOURCE = wide.WideSource("test")
COUNT_CHANCE = 100 / scenes.MOST_SHAPES
CONDITIONS: Mapping[
    str, tuple[Sound, float | None]
] = {  # name -> (what is done to a clip, the bar for training's voices)
    "clean": (lambda x, rng: x, None),
    "2 s of silence around": (lambda x, rng: microphone.surrounded(x, 2.0, 2.0, None, rng), 95),
    "10 dB noise": (lambda x, rng: microphone.mixed(x, microphone.coloured(len(x), -3.0, rng), 10.0), 85),
    "echo": (lambda x, rng: microphone.in_a_room(x, 0.4, 0.0, rng), 85),
    "clipped by 20 dB": (lambda x, rng: microphone.clipped(x, 20.0), 80),
    "telephone": (lambda x, rng: microphone.telephone(x), 95),
    "at -50 dB": (lambda x, rng: microphone.at_level(x, -50.0), None),
    "Opus at 16 kbit/s": (lambda x, rng: microphone.coded(x, "opus"), None),
}
PLAIN_SPEAKERS = tuple(
    voices.Speaker(engine, voice)
    for engine, names in (("flite", voices.TRAINING_FLITE), ("pico", ("en-US",)))
    for voice in names
) + tuple(voices.Speaker("espeak", f"{accent}+{timbre}") for accent, timbre in
          (("en-us", "m1"), ("en-us", "f3"), ("en-gb", "m3"), ("en-gb-x-rp", "f2"), ("en-us", "Andy")))  # fmt: skip
VOICES: Mapping[str, tuple[voices.Speaker, ...]] = {
    "of training": PLAIN_SPEAKERS, "other synthetic": voices.OTHER_SYNTHETIC,
    "natural, never met": voices.NATURAL_UNMET,
}  # fmt: skip


def has_engine(speakers: Sequence[voices.Speaker]) -> bool:
    """True if every speaker's engine is installed here."""
    programs = {"flite": "flite", "espeak": "espeak-ng", "festival": "text2wave"}
    return all(shutil.which(programs[one.engine]) for one in speakers if one.engine in programs)


def typed(task: str, rng: random.Random) -> EvalItem:
    """A question or picture of the whole domain, typed."""
    made = wide.make_wide(TEST_SOURCE, task, rng)
    return EvalItem(task, made.question, made.reply, honest=task in ("outside", "blank"))


def voiced(words: str, rng: random.Random, speakers: Sequence[voices.Speaker] = PLAIN_SPEAKERS) -> np.ndarray:
    """The words by one of the speakers, at ``QUESTION_RATE_HZ``."""
    return say_clip(words, str(rng.choice(speakers)))


def said(task: str, speakers: Sequence[voices.Speaker], rng: random.Random, done: Sound | None = None) -> EvalItem:
    """A question, spoken by one of the speakers, through a microphone if one is given."""
    asked = wording.draw_asked(task, rng, "test")
    samples = voiced(asked.words, rng, speakers)
    if done is not None:
        heard = microphone.at_level(samples, -24.0)
        samples = np.clip(done(heard, np.random.default_rng(rng.randrange(2**31))), -1, 1).astype(np.float32)
    return EvalItem(task, user(Audio(samples, QUESTION_RATE_HZ)), asked.reply, honest=task == "outside")


def aloud(task: str, rng: random.Random) -> EvalItem:
    """A picture, asked about aloud."""
    item = typed(task, rng)
    asked = wording.draw_asked(task, rng, "test")
    speech = Audio(voiced(asked.words, rng), QUESTION_RATE_HZ)
    return replace(item, question=replaced(item.question, lambda part: speech if isinstance(part, Text) else part))


def heard(task: str, rng: random.Random) -> EvalItem:
    """One of ten sounds, asked about in text."""
    kind = rng.choice(sounds.SOUND_KINDS)
    samples = sounds.make_sound(kind, np.random.default_rng(rng.randrange(2**31)), rng.uniform(1.2, 2.0))
    _, asked = talks.type_question("sound", rng, "test")
    return EvalItem(task, user(Audio(samples, QUESTION_RATE_HZ), asked), domain.sound_reply(kind))


def beeped(task: str, rng: random.Random) -> EvalItem:
    """The colour at the beep. task "shuffled": the pictures come in another order, the answer stays."""
    film = videos.draw_video(rng)
    frames = videos.video_frames(film).reshape(videos.SECONDS, videos.VIDEO_FPS, 56, 56, 3)
    if task == "shuffled":
        order = list(range(videos.SECONDS))
        while any(a == b for a, b in enumerate(order)):
            rng.shuffle(order)
        frames = frames[order]
    clip = Clip(frames.reshape(-1, 56, 56, 3), videos.VIDEO_FPS, videos.sound(film))
    _, asked = talks.type_question("video", rng, "test")
    return EvalItem("video", user(Video(clip, True), asked), domain.video_reply(int(film.beep_s), film.answer))


def counted(task: str, rng: random.Random) -> EvalItem:
    """Counting to nine, every number equally often."""
    scene = scenes.draw_scene(rng, "test")
    _, asked = talks.type_question("count", rng, "test")
    shown = Image(pictures.render_scene(scene))
    return EvalItem("count", user(shown, asked), domain.picture_reply("count", scene.colour, scene.shape, scene.count))


def alone(task: str, rng: random.Random) -> EvalItem:
    """Silence, or noise, and nothing else."""
    maker = silent if task == "silence" else noise_alone
    samples = maker(np.random.default_rng(rng.randrange(2**31)))
    reply = refusals.NOTHING_HEARD if task == "silence" else refusals.NOISE_HEARD
    return EvalItem(task, user(Audio(samples, QUESTION_RATE_HZ)), reply, honest=True)


def newcomers(task: str, rng: random.Random) -> EvalItem:
    """One of forty; the row takes each of them once."""
    text, kind, _ = newcomer.NEWCOMER[int(task)]
    return EvalItem(kind, user(text), newcomer.newcomer_reply(int(task)))


def person_word(task: str, rng: random.Random) -> EvalItem:
    """A person's single word, to be written down."""
    return replace(person_item(task), expected=people.WORDS[task])


def person_item(name: str) -> EvalItem:
    """A recording of a person, to be written down."""
    return EvalItem("write", user(Audio(people.recording(name), people.PEOPLE_RATE_HZ), TRANSCRIBE), "")


def person_sum(task: str, rng: random.Random) -> EvalItem:
    """A sum in a person's words, spliced."""
    samples, reply = people.spliced_sum(rng)
    return EvalItem("plus", user(Audio(samples, people.PEOPLE_RATE_HZ)), reply)


def word_rows() -> list[TaskRow]:
    """Rows of typed and shown questions."""
    forty = tuple(str(n) for n in range(len(newcomer.NEWCOMER)))
    return [
        TaskRow("typed, in everybody's words", wording.ASKING, typed, 0, 98),
        TaskRow("a newcomer's forty", forty, newcomers, 0, 90, count=len(forty)),
        TaskRow("outside its domain, typed: honest", ("outside",), typed, 0, 95, count=60),
        TaskRow("picture: colour, shape, count to nine; typed", PICTURE, typed, PICTURE_CHANCE, 97),
        TaskRow("picture: asked aloud", PICTURE, aloud, PICTURE_CHANCE, 93),
        TaskRow("counting to nine", ("count",), counted, COUNT_CHANCE, 90),
        TaskRow("where it is, two compared, what changed", ("where", "same", "compare", "change"), typed, 25, None),
        TaskRow("a blank picture: honest", ("blank",), typed, 0, None),
        TaskRow("sounds, in everybody's words", ("sound",), heard, 10, 98),
        TaskRow("video: colour at the beep, in everybody's words", ("video",), beeped, 25, 95),
        TaskRow("video: the same in another order", ("shuffled",), beeped, 25, 40, below=True),
    ]


def voice_rows() -> list[TaskRow]:
    """Rows of spoken questions; those of engines and recordings that are not installed are left out."""
    bars = {"of training": 97.0, "other synthetic": 92.0, "natural, never met": 85.0}
    rows = [
        TaskRow(f"spoken, voices {name}", wording.ASKING, spoken_by(speakers), 0, bars[name])
        for name, speakers in VOICES.items()
        if has_engine(speakers)
    ]
    for name, (done, bar) in CONDITIONS.items():
        if bar is not None:
            rows.append(TaskRow(f"voices of training, {name}", wording.ASKING, spoken_by(PLAIN_SPEAKERS, done), 0, bar))
    rows += [
        TaskRow("silence alone: honest", ("silence",), alone, 0, 95),
        TaskRow("noise alone: honest", ("noise",), alone, 0, 95),
        TaskRow("speech that is no question: honest", ("outside",), spoken_by(PLAIN_SPEAKERS), 0, 95),
    ]
    if people.is_installed():
        rows += [
            TaskRow("a person's single words, written down", tuple(people.WORDS), person_word, 0, 85, count=53),
            TaskRow("a person's sums, answered", ("plus",), person_sum, 0, 80, count=30),
        ]
    return rows


def spoken_by(
    speakers: Sequence[voices.Speaker], done: Sound | None = None
) -> Callable[[str, random.Random], EvalItem]:
    """The questions of a row that these speakers ask."""
    return lambda task, rng: said(task, speakers, rng, done)


def grid_rows() -> list[tuple[str, str, TaskRow]]:
    """(voice, condition, row) of each cell of the robustness grid."""
    return [
        (voice, condition, TaskRow(f"{voice} / {condition}", wording.ASKING, spoken_by(speakers, done), 0, None))
        for voice, speakers in VOICES.items()
        if has_engine(speakers)
        for condition, (done, _) in CONDITIONS.items()
    ]


REPLYING = (*wording.ASKING, "outside", *domain.IMAGE_TASKS, "where", "same", "compare", "change", "video", "sound")


def reply_items(count: int, seed: int) -> list[EvalItem]:
    """Questions whose answers are to be heard: every kind of reply takes its turn, videos and small talk included."""
    makers = {"video": beeped, "sound": heard}
    drawn = [(REPLYING[n % len(REPLYING)], random.Random(f"replies/{seed}/{n}")) for n in range(count)]
    return [makers.get(task, typed)(task, rng) for task, rng in drawn]


def say_items(count: int, seed: int) -> list[EvalItem]:
    """Plain sentences to be read aloud."""
    texts = [prose.draw_sentence(random.Random(f"say/{seed}/{n}")) for n in range(count)]
    return [EvalItem("say", user(READ_ALOUD.format(text=text)), text) for text in texts]
