"""Examples of the whole domain: in everybody's words, typed and spoken, alone and in talks.

Every example is a pure function of (seed, number), as in `mixture`. What is spoken comes from a ``Bank`` with known
features; without one there are typed questions and silent pictures only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from descant.errors import OptionError
from descant.train.examples import Example
from descant.train.nano import domain, pictures, prose, refusals, scenes, sounds, talks, videos, wording
from descant.train.nano.spoken import Bank
from descant.train.nano.wording import Asked
from descant.types import READ_ALOUD, TRANSCRIBE, Clip, Image, Message, Part, Video, user

TYPED_ALONE = (*wording.ASKING, "outside")
SHOWN = ("where", "same", "compare", "change", "blank", "sound", "video")
SPOKEN_TALKS = {"talk": 0.0, "talk:text": 0.0, "talk:mixed": 0.5, "talk:spoken": 1.0}  # share of turns spoken
PICTURELESS = {**talks.SHARES, "picture": 0.0, "shown": 0.0}


@dataclass(frozen=True)
class WideSource:
    """Where examples come from."""

    split: domain.Split
    bank: Bank | None = None

    @property
    def sounds(self) -> Bank:
        """The bank. OptionError: there is none."""
        if self.bank is None:
            raise OptionError("this task needs sounds; name the stage that computes features under needs and in ears")
        return self.bank


def make_wide(source: WideSource, task: str, rng: random.Random) -> Example:
    """One example of a task.

    One of ``TYPED_ALONE``, "asked:TASK" (the same, spoken), "colour", "shape", "count", "describe" or one of ``SHOWN``
    (about a medium; "aloud:TASK": asked aloud), "silence", "noise", "say", "write", "talk", "talk:text" (no
    pictures), "talk:mixed" or "talk:spoken".
    """
    kind, _, name = task.partition(":")
    if task in TYPED_ALONE:
        asked, part = asked_part(source, task, rng, spoken=False)
        return Example(task, user(part), asked.reply)
    if kind == "asked":
        asked, part = asked_part(source, name, rng, spoken=True)
        return Example(task, user(part), asked.reply, heard=asked.words)
    if (name or task) in (*domain.IMAGE_TASKS, *SHOWN):
        return _shown(source, task, name or task, rng)
    if task in ("silence", "noise"):
        heard, _ = source.sounds.draw(task, rng)
        return Example(task, user(heard), refusals.NOTHING_HEARD if task == "silence" else refusals.NOISE_HEARD)
    if task == "say":
        text = text_to_say(rng)
        return Example(task, user(READ_ALOUD.format(text=text)), text)
    if task == "write":
        heard, spoken = source.sounds.draw_speech(rng.choice(("word", "word", "sentence", *TYPED_ALONE)), rng)
        return Example(task, user(heard, TRANSCRIBE), spoken.text, heard=spoken.text)
    if task in SPOKEN_TALKS:
        return _talk(source, SPOKEN_TALKS[task], PICTURELESS if task == "talk:text" else talks.SHARES, rng)
    raise OptionError(f"unknown task {task!r} in a mixture")


def asked_part(source: WideSource, task: str, rng: random.Random, spoken: bool) -> tuple[Asked, Part]:
    """A question, typed, or spoken from the bank."""
    if not spoken:
        return talks.type_question(task, rng, source.split)
    told = task.removeprefix("fix:")  # a correction is spoken as the new question alone
    heard, clip = source.sounds.draw_speech(told, rng)
    return Asked(clip.task, clip.core, clip.text, clip.reply), heard


def _turn(media: tuple[Part, ...], question: Part, rng: random.Random) -> Message:
    """People show first and ask then, or ask first."""
    return user(*media, question) if rng.random() < 0.65 else user(question, *media)


def _shown(source: WideSource, task: str, about: str, rng: random.Random) -> Example:
    media, reply = _medium(source, about, rng)
    asked, part = asked_part(source, "describe" if about == "blank" else about, rng, spoken=task.startswith("aloud:"))
    return Example(task, _turn(media, part, rng), reply, heard=asked.words if task.startswith("aloud:") else "")


def _medium(source: WideSource, about: str, rng: random.Random) -> tuple[tuple[Part, ...], str]:
    """Draw something to show or to hear, and the right answer about it."""
    unnamed = 0.5 if source.split == "train" and about in ("shape", "count", "where") else 0.0
    if about in domain.IMAGE_TASKS:
        scene = scenes.draw_scene(rng, source.split, unnamed)
        return (_image(scene),), domain.picture_reply(about, scene.colour, scene.shape, scene.count)
    if about == "where":
        scene, where = scenes.draw_placed(rng, source.split, unnamed)
        return (_image(scene),), scenes.place_reply(where)
    if about == "blank":
        return (_image(scenes.draw_blank(rng, source.split)),), refusals.NOTHING_SEEN
    if about in ("same", "compare"):
        first, second = scenes.draw_pair(rng, source.split)
        return (_image(first), _image(second)), scenes.pair_reply(about, first, second)
    if about == "change":
        change = scenes.draw_change(rng)
        return (Video(Clip(scenes.change_frames(change), videos.VIDEO_FPS)),), scenes.change_reply(change)
    if about == "sound":
        kind = rng.choice(sounds.SOUND_KINDS)
        return (source.sounds.draw(f"sound:{kind}", rng)[0],), domain.sound_reply(kind)
    shown, film = source.sounds.draw_film(rng)
    return (shown,), domain.video_reply(int(film.beep_s), film.answer)


def _image(scene: pictures.Scene) -> Image:
    return Image(pictures.render_scene(scene))


def text_to_say(rng: random.Random) -> str:
    """Something to read aloud: a sentence, a reply of the domain, or a few frequent words."""
    kind = rng.random()
    if kind < 0.45:
        return prose.draw_sentence(rng)
    if kind < 0.75:
        return wording.draw_asked(rng.choice(wording.ASKING), rng, "train").reply
    words = " ".join(rng.choice(wording.FREQUENT_WORDS) for _ in range(rng.randrange(1, 8)))
    return domain.as_sentence(words) if rng.random() < 0.6 else words


def _talk(source: WideSource, spoken: float, shares: Mapping[str, float], rng: random.Random) -> Example:
    def utter(task: str, rng: random.Random) -> tuple[Asked, Part]:
        return asked_part(source, task, rng, spoken=rng.random() < spoken)

    return talks.draw_talk(utter, rng, source.split, shares=shares).example()


def wide_replies(split: domain.Split) -> list[str]:
    """Every unique reply of the whole domain, sorted; those of "test" that only held-out questions ask for are among
    them, so that the difference of both is what training never says."""
    found = {*domain.replies(split)}
    for n in range(1, 101):
        if wording.is_held_out("before", (n,), 0, 0) == (split == "test"):
            found.add(wording.right_reply("before", (n,)))
    told = {reply: scenes.is_held_out_reply(reply) for reply in scenes.scene_replies()}
    found |= {reply for reply, held_out in told.items() if held_out == (split == "test")}
    return sorted(found | {*talks.resumed_replies(), *refusals.ALL_REPLIES} if split == "train" else found)
