"""The ways in that people type: an answer for ``for`` and ``async for``, and every form of a conversation."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import descant
from descant import Audio, Finished, Image, OptionError, Sampling, TextDelta, Video
from descant.inputs.messages import read_messages
from descant.types import Event, Message
from tests import tiny
from tests.inputs import media

SHORT = Sampling(max_tokens=8)
WAV = media.wav(media.tone(1, 16000), 16000)
PNG = media.image_file(media.picture(56, 56))


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> Iterator[descant.Omni]:
    loaded = descant.load(tiny.write_descant(tmp_path_factory.mktemp("door") / "tiny"))
    yield loaded
    loaded.close()


def told(events: list[Event]) -> list[object]:
    """The content of events, without their times."""
    return [e.samples.tobytes() if isinstance(e, descant.AudioChunk) else e.text for e in events]


def ask(omni: descant.Omni, **options: Any) -> descant.Answer:
    return omni.chat("hello", talker_sampling=SHORT, max_tokens=4, seed=3, **options)


def test_an_answer_is_for_loops_and_event_loops(omni: descant.Omni) -> None:
    async def read(answer: descant.Answer) -> list[Event]:
        return [event async for event in answer]

    async def built_off_the_loop() -> list[Event]:
        answer = await omni.achat("hello", talker_sampling=SHORT, max_tokens=4, seed=3)
        return [event async for event in answer]

    expected = told(list(ask(omni)))
    assert isinstance(ask(omni), descant.Answer)
    assert told(asyncio.run(read(ask(omni)))) == told(asyncio.run(built_off_the_loop())) == expected
    spoken = list(omni.speak("a b", talker_sampling=SHORT, seed=1))
    assert told(asyncio.run(read(omni.speak("a b", talker_sampling=SHORT, seed=1)))) == told(spoken)


def test_a_cancelled_answer_gives_nothing_more(omni: descant.Omni) -> None:
    answer = ask(omni)
    answer.cancel()
    assert list(answer) == []


def test_an_event_loop_goes_on_while_a_question_is_read(omni: descant.Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop turns a hundred times while ``chat`` is inside; a ``chat`` on the loop would never let it."""
    import threading

    turned = threading.Event()
    chat = omni.chat

    def slow(*args: Any, **options: Any) -> descant.Answer:
        assert turned.wait(60), "the loop stands still"
        return chat(*args, **options)

    monkeypatch.setattr(omni, "chat", slow)

    async def both() -> list[Event]:
        asked = asyncio.ensure_future(omni.achat("hello", max_tokens=2, speech=False))
        for _ in range(100):
            await asyncio.sleep(0)
        turned.set()
        return [event async for event in await asked]

    assert isinstance(asyncio.run(both())[-1], Finished)


def test_a_live_session_in_an_event_loop_is_the_session(omni: descant.Omni) -> None:
    sound = media.tone(1, 16000)

    async def live() -> list[Event]:
        with await omni.asession(seed=5, talker_sampling=SHORT, max_tokens=4) as session:
            await session.apush_audio(sound, 16000)
            await session.apush_frame(np.zeros((56, 56, 3), np.uint8), 0.5)
            await session.aadd("what?")
            return [event async for event in await session.arespond()]

    with omni.session(seed=5, talker_sampling=SHORT, max_tokens=4) as session:
        session.push_audio(sound, 16000)
        session.push_frame(np.zeros((56, 56, 3), np.uint8), 0.5)
        session.add("what?")
        expected = list(session.respond())
    assert told(asyncio.run(live())) == told(expected)


def test_a_tenant_a_budget_and_a_step_mode_can_be_given(omni: descant.Omni) -> None:
    with pytest.raises(descant.MediaError) as caught:
        omni.chat([descant.user(Audio(WAV))], budget=descant.Budget(audio_s=0.5))
    assert caught.value.code == "audio.too_long"
    tight = descant.Omni(omni.checkpoint, budget=descant.Budget(audio_s=0.5), step_mode="off")
    with pytest.raises(descant.MediaError):
        tight.chat([descant.user(Audio(WAV))])
    prompt = "the same long question " * 8
    first, again, other = (
        list(omni.chat(prompt, speech=False, max_tokens=1, tenant=tenant))[-1] for tenant in ("a", "a", "b")
    )
    assert isinstance(first, Finished) and isinstance(again, Finished) and isinstance(other, Finished)
    assert again.usage.prefilled_tokens < first.usage.prefilled_tokens == other.usage.prefilled_tokens


FORMS: dict[str, tuple[object, list[Message]]] = {
    "a string": ("hi", [descant.user("hi")]),
    "a message": (descant.user("hi"), [descant.user("hi")]),
    "a tuple": ((descant.system("s"), descant.user("hi")), [descant.system("s"), descant.user("hi")]),
    "mixed": ([{"role": "developer", "content": "s"}, descant.user("hi")], [descant.system("s"), descant.user("hi")]),
    "openai parts": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": "b.png"},
                    {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}},
                    {"type": "video_url", "video_url": {"url": "c.mp4"}, "use_audio_in_video": True},
                ],
            }
        ],
        [descant.user("look", Image("a.png"), Image("b.png"), Audio(WAV), Video("c.mp4", use_audio=True))],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_conversation(form: str) -> None:
    given, expected = FORMS[form]
    assert read_messages(given) == expected


def test_a_data_url_is_the_file(omni: descant.Omni) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    forms: list[Any] = [
        [descant.user(Image(PNG))],
        [descant.user(Image(url))],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
    ]
    texts = [[e for e in omni.chat(f, speech=False, max_tokens=3) if isinstance(e, TextDelta)] for f in forms]
    assert [e.text for e in texts[0]] == [e.text for e in texts[1]] == [e.text for e in texts[2]]


@pytest.mark.parametrize("url", ["data:image/png,abc", "data:image/png;base64", "data:image/png;base64,a!b"])
def test_a_damaged_data_url_is_refused_in_few_words(omni: descant.Omni, url: str) -> None:
    with pytest.raises(descant.MediaError) as caught:
        omni.chat([descant.user(Image(url + "x" * 10**6))])
    assert caught.value.code == "media.url" and len(str(caught.value)) < 200


def test_sound_as_int16_is_the_sound_as_float(omni: descant.Omni) -> None:
    pcm = (media.tone(1, 16000) * 32767).astype(np.int16)
    floats = pcm.astype(np.float32) / 32768
    ends = [list(omni.chat([descant.user(Audio(a, 16000))], speech=False, max_tokens=3))[-1] for a in (pcm, floats)]
    assert isinstance(ends[0], Finished) and isinstance(ends[1], Finished) and ends[0].text == ends[1].text


def test_an_empty_conversation_says_what_to_write(omni: descant.Omni) -> None:
    with pytest.raises(OptionError, match=r"descant\.user"):
        omni.chat([])


def test_each_answer_of_a_session_may_have_a_voice_of_its_own(omni: descant.Omni) -> None:
    first, other = omni.voices[:2]
    with omni.session(seed=5, voice=first, talker_sampling=SHORT, max_tokens=4) as session:
        session.add("what?")
        changed = list(session.respond(voice=other))
    with omni.session(seed=5, voice=other, talker_sampling=SHORT, max_tokens=4) as session:
        session.add("what?")
        assert told(list(session.respond())) == told(changed)
        session.add("and?")
        with pytest.raises(OptionError, match=f"unknown voice 'Nobody'; this model has {first}"):
            session.respond(voice="Nobody")
        assert isinstance(list(session.respond())[-1], Finished)  # nothing was lost
    with omni.session(speech=False) as session:
        session.add("what?")
        with pytest.raises(OptionError, match="speech=True"):
            session.respond(voice=first)
