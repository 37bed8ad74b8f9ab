"""Every argument of every public function, given every wrong kind of value: the answer is DescantError, or it works.

An AttributeError or TypeError that comes from inside would tell a user nothing about what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import descant
from descant import Audio, Clip, Image, Message, Sampling, Text, Video, user
from descant.engine.scheduler import SchedulerConfig
from descant.errors import DescantError
from descant.types import AnswerOptions
from tests import tiny

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 5, 10**400, 1.5, float("nan"), float("inf"), "", "x", b"", b"x", [], ["x"], [None], (), {},
    {"x": 1}, {1}, object(), object, np.zeros(3, np.int32), np.zeros((2, 3, 4)), np.zeros((0, 0, 3), np.uint8),
    np.float32(1), Path("/nowhere"), lambda: None, user("x"), Text("x"), [[user("x")]],
)  # fmt: skip
PCM = np.zeros(4800, np.float32)
PIXELS = np.zeros((56, 56, 3), np.uint8)
FRAMES = np.zeros((4, 56, 56, 3), np.uint8)
SHORT = Sampling(max_tokens=2)


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> Iterator[descant.Omni]:
    folder = tiny.write_descant(tmp_path_factory.mktemp("wrong") / "tiny")
    loaded = descant.load(folder)
    yield loaded
    loaded.close()


def asked(omni: descant.Omni, *parts: Any) -> None:
    """A question is laid out and queued, and nobody waits for its answer."""
    omni.chat([Message("user", parts)], speech=False, max_tokens=1).cancel()


def plain_calls() -> dict[str, Callable[[Any], object]]:
    """Places of what is made without a model."""
    calls: dict[str, Callable[[Any], object]] = {}
    for kind in (Sampling, descant.Decoding, descant.Memory, descant.Budget, descant.Limits, SchedulerConfig):
        for name in (field.name for field in fields(kind)):
            calls[f"{kind.__name__}({name}=)"] = lambda value, kind=kind, name=name: kind(**{name: value})
    for make in (descant.user, descant.system, descant.assistant):
        calls[f"{make.__name__}()"] = make
    return calls


def loads(folder: Path) -> dict[str, Callable[[Any], object]]:
    names = ("dtype", "device", "latency", "limits", "budget", "step_mode")
    calls: dict[str, Callable[[Any], object]] = {
        f"load({name}=)": lambda value, name=name: descant.load(folder, **{name: value}).close() for name in names
    }
    return calls | {"load(name)": lambda value: descant.load(value).close()}


def asks(omni: descant.Omni) -> dict[str, Callable[[Any], object]]:
    """Places of a question, a text to say, a recording, and their options."""
    base: dict[str, Any] = {"speech": False, "max_tokens": 1}
    calls: dict[str, Callable[[Any], object]] = {
        "chat(messages)": lambda value: omni.chat(value, **base).cancel(),
        "chat([message])": lambda value: omni.chat([value], **base).cancel(),
        "chat(role)": lambda value: omni.chat([{"role": value, "content": "x"}], **base).cancel(),
        "chat(content)": lambda value: omni.chat([{"role": "user", "content": value}], **base).cancel(),
        "chat(part)": lambda value: omni.chat([{"role": "user", "content": [value]}], **base).cancel(),
        "chat(type)": lambda value: omni.chat([{"role": "user", "content": [{"type": value}]}], **base).cancel(),
        "Message(role)": lambda value: omni.chat([Message(value, (Text("x"),))], **base).cancel(),
        "Message(content)": lambda value: omni.chat([Message("user", value)], **base).cancel(),
        "speak(text)": lambda value: omni.speak(value, talker_sampling=SHORT).cancel(),
        "transcribe(audio)": lambda value: omni.transcribe(value, max_tokens=1),
        "transcribe(max_tokens=)": lambda value: omni.transcribe(Audio(PCM, 16000), max_tokens=value),
        "trace(messages)": lambda value: omni.trace(value, max_text=1, max_codes=1),
        "trace(max_text=)": lambda value: omni.trace("x", max_text=value, max_codes=1),
        "trace(max_codes=)": lambda value: omni.trace("x", max_text=1, max_codes=value),
        "trace(voice=)": lambda value: omni.trace("x", max_text=1, max_codes=1, voice=value),
        "drain(timeout_s=)": lambda value: drained(omni, value),
    }
    for kind in ("image_url", "audio_url", "video_url", "input_audio", "image", "audio", "video", "text"):
        calls[f"chat({kind})"] = lambda value, kind=kind: asked_in_json(omni, {"type": kind, kind: value})
        calls[f"chat({kind}.url)"] = lambda value, kind=kind: asked_in_json(omni, {"type": kind, kind: {"url": value}})
    for name in AnswerOptions.__annotations__:
        calls[f"chat({name}=)"] = lambda value, name=name: omni.chat("x", **{name: value}).cancel()
        calls[f"speak({name}=)"] = lambda value, name=name: omni.speak("x", **{name: value}).cancel()
        calls[f"session({name}=)"] = lambda value, name=name: omni.session(**{name: value}).close()
    for name in ("instructions", "memory"):
        calls[f"session({name}=)"] = lambda value, name=name: omni.session(**{name: value}).close()
    return calls


def drained(omni: descant.Omni, value: Any) -> None:
    """Of an Omni of its own: it takes nothing more afterwards."""
    with closing(descant.Omni(omni.checkpoint)) as own:
        own.drain(value)


def asked_in_json(omni: descant.Omni, part: dict[str, Any]) -> None:
    omni.chat([{"role": "user", "content": [part]}], speech=False, max_tokens=1).cancel()


def media(omni: descant.Omni) -> dict[str, Callable[[Any], object]]:
    return {
        "Text": lambda value: asked(omni, Text(value)),
        "Image": lambda value: asked(omni, Image(value)),
        "Audio(source)": lambda value: asked(omni, Audio(value)),
        "Audio(source, rate)": lambda value: asked(omni, Audio(value, 16000)),
        "Audio(rate=)": lambda value: asked(omni, Audio(PCM, value)),
        "Video": lambda value: asked(omni, Video(value)),
        "Video(use_audio=)": lambda value: asked(omni, Video(Clip(FRAMES, 2.0, PCM), value)),
        "Clip(frames)": lambda value: asked(omni, Video(Clip(value, 2.0))),
        "Clip(fps=)": lambda value: asked(omni, Video(Clip(FRAMES, value))),
        "Clip(sound=)": lambda value: asked(omni, Video(Clip(FRAMES, 2.0, value), use_audio=True)),
    }


def live(omni: descant.Omni) -> dict[str, Callable[[Any], object]]:
    """Places of a live session; each call gets a session of its own."""

    def with_session(act: Callable[[descant.LiveSession, Any], object]) -> Callable[[Any], object]:
        def call(value: Any) -> None:
            with omni.session(speech=False, max_tokens=1) as session:
                act(session, value)

        return call

    def respond(session: descant.LiveSession, value: Any) -> None:
        session.add("x")
        session.respond(max_tokens=value)

    return {
        "push_audio(pcm)": with_session(lambda session, value: session.push_audio(value, 16000)),
        "push_audio(rate)": with_session(lambda session, value: session.push_audio(PCM, value)),
        "push_frame(image)": with_session(lambda session, value: session.push_frame(value, 0.0)),
        "push_frame(at)": with_session(lambda session, value: session.push_frame(PIXELS, value)),
        "add(part)": with_session(lambda session, value: session.add(value)),
        "respond(max_tokens=)": with_session(respond),
        "respond(voice=)": with_session(lambda session, value: (session.add("x"), session.respond(voice=value))),
        "truncate(heard_seconds)": with_session(lambda session, value: session.truncate(value)),
    }


def faults(calls: dict[str, Callable[[Any], object]]) -> list[str]:
    """Every call with every wrong value: those that raised anything but DescantError."""
    found = []
    for place, call in calls.items():
        for value in WRONG:
            try:
                call(value)
            except DescantError as error:
                if not 20 < len(str(error)) < 1000:
                    found.append(f"{place} of {value!r:.60}: {error}")
            except Exception as error:
                found.append(f"{place} of {value!r:.60}: {type(error).__name__}: {error}")
    return found


@pytest.mark.parametrize("group", [asks, media, live], ids=lambda group: group.__name__)
def test_a_wrong_value_is_refused_in_our_words(omni: descant.Omni, group: Any) -> None:
    calls = group(omni)
    assert not (found := faults(calls)), f"{len(found)} of {len(calls) * len(WRONG)}:\n" + "\n".join(found)


def test_options_are_refused_where_they_are_made() -> None:
    calls = plain_calls()
    assert not (found := faults(calls)), f"{len(found)} of {len(calls) * len(WRONG)}:\n" + "\n".join(found)


@pytest.mark.slow
def test_loading_with_a_wrong_value(omni: descant.Omni) -> None:
    calls = loads(omni.checkpoint.folder)
    assert not (found := faults(calls)), f"{len(found)} of {len(calls) * len(WRONG)}:\n" + "\n".join(found)


def test_the_table_is_large(omni: descant.Omni) -> None:
    groups = [plain_calls(), asks(omni), media(omni), live(omni), loads(omni.checkpoint.folder)]
    assert sum(map(len, groups)) * len(WRONG) > 3000


@pytest.mark.parametrize(
    ("option", "says"),
    [("temprature", "unknown option 'temprature'"), ("max_token", "did you mean 'max_tokens'"), ("sede", "'seed'")],
)
def test_an_option_that_does_not_exist_is_named_with_the_nearest(omni: descant.Omni, option: str, says: str) -> None:
    with pytest.raises(descant.OptionError, match=says):
        omni.chat("x", **{option: 1})


@pytest.mark.parametrize("option", [{"speech": False}, {"sampling": SHORT}, {"max_tokens": 3}])
def test_options_that_choose_words_mean_nothing_to_speak(omni: descant.Omni, option: dict[str, Any]) -> None:
    with pytest.raises(descant.OptionError, match="has no meaning when a given text is read aloud"):
        omni.speak("x", **option)
