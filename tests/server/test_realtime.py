"""A live talk over a WebSocket, as OpenAI's protocol has it: event by event, and by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from descant.server.dialects import DIALECTS
from descant.server.realtime import RealtimeTalk
from descant.server.settings import ServerSettings
from descant.server.state import ServerState
from descant.types import TextDelta
from tests.inputs import media
from tests.server.conftest import KEY, Running

RATE_HZ = 24_000
LOUD = 0.3 * media.noise(RATE_HZ)
SILENCE = np.zeros(RATE_HZ, np.float32)
BY_HAND: dict[str, Any] = {"audio": {"input": {"turn_detection": None}}, "max_output_tokens": 8}
TEXT_BY_HAND = {**BY_HAND, "output_modalities": ["text"]}


def base64_of(samples: np.ndarray) -> str:
    return b64encode((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()).decode()


class Talk:
    """One socket, as a client holds it."""

    def __init__(self, socket: ClientConnection):
        self.socket = socket

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.socket.recv(timeout=30))
        return event

    def until(self, kind: str) -> list[dict[str, Any]]:
        """The events up to one of a kind."""
        events = [self.next()]
        while events[-1]["type"] != kind:
            events.append(self.next())
        return events

    def update(self, session: dict[str, Any]) -> dict[str, Any]:
        self.say("session.update", session=session)
        session_now: dict[str, Any] = self.until("session.updated")[-1]["session"]
        return session_now

    def push(self, samples: np.ndarray, cut: int = 2400) -> None:
        for start in range(0, len(samples), cut):
            self.say("input_audio_buffer.append", audio=base64_of(samples[start : start + cut]))

    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.until("error")[-1]["error"]
        return error


@pytest.fixture
def talk(server: Running) -> Iterator[Talk]:
    url = server.url.replace("http", "ws") + "/v1/realtime?model=tiny"
    with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
        opened = Talk(socket)
        assert opened.next()["type"] == "session.created"
        yield opened
    assert server.idle(), server.omni.engine.ledger()


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Types in order, neighbours once."""
    found = [event["type"] for event in events]
    return [kind for place, kind in enumerate(found) if place == 0 or kind != found[place - 1]]


# ---------------------------------------------------------------- turns


def test_a_turn_by_hand_is_that_of_a_live_session(talk: Talk, server: Running) -> None:
    talk.update(TEXT_BY_HAND)
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    events = talk.until("response.done")
    assert kinds(events)[:7] == [
        "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", "response.created",
        "response.output_item.added", "conversation.item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds(events)[-5:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "conversation.item.done", "response.done",
    ]  # fmt: skip
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    with server.omni.session(speech=False) as session:
        session.push_audio((LOUD * 32767).astype("<i2"), RATE_HZ)
        wanted = "".join(e.text for e in session.respond(max_tokens=8) if isinstance(e, TextDelta))
    assert text == wanted == events[-5]["text"]
    done = events[-1]["response"]
    assert done["status"] in ("completed", "incomplete") and done["usage"]["output_tokens"] > 0


def test_speech_comes_with_its_transcript(talk: Talk) -> None:
    talk.update(BY_HAND)
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    events = talk.until("response.done")
    sound = b"".join(b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta")
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_audio_transcript.delta")
    assert len(sound) > 4800 and text == events[-1]["response"]["output"][0]["content"][0]["transcript"]


def test_turns_are_told_by_the_voice(talk: Talk) -> None:
    talk.update({"max_output_tokens": 4})
    talk.push(SILENCE)
    talk.push(LOUD)
    talk.push(SILENCE)
    events = talk.until("response.done")
    started, stopped = (
        next(e for e in events if e["type"] == f"input_audio_buffer.speech_{w}") for w in ("started", "stopped")
    )
    assert abs(started["audio_start_ms"] - 700) < 100 and 2400 < stopped["audio_end_ms"] < 2700
    assert (
        started["item_id"]
        == stopped["item_id"]
        == next(e["item_id"] for e in events if e["type"] == "input_audio_buffer.committed")
    )
    assert kinds(events)[:3] == [
        "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
    ]  # fmt: skip


def test_who_speaks_interrupts_and_only_what_was_heard_stays(talk: Talk, server: Running) -> None:
    talk.update({"max_output_tokens": 3000, "audio": {"input": {"turn_detection": {"silence_duration_ms": 200}}}})
    talk.push(LOUD[:12000])
    talk.push(SILENCE[:9600])
    spoken = talk.until("response.output_audio.delta")
    talk.push(LOUD[:6000])
    cut = talk.until("response.done")
    done = cut[-1]["response"]
    assert done["status"] in ("cancelled", "incomplete")
    if done["status"] == "cancelled":
        assert done["status_details"]["reason"] == "turn_detected"
    item = done["output"][0]["id"]
    assert item == spoken[-1]["item_id"]
    talk.say("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=50)
    assert talk.until("conversation.item.truncated")[-1]["audio_end_ms"] == 50


def test_an_answer_can_be_cancelled(talk: Talk) -> None:
    talk.update({**BY_HAND, "max_output_tokens": 3000})
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    talk.until("response.output_audio_transcript.delta")
    talk.say("response.cancel")
    done = talk.until("response.done")[-1]["response"]
    assert done["status"] in ("cancelled", "completed", "incomplete")
    talk.say("response.cancel")
    assert talk.error()["code"] == "response_cancel_not_active"


def test_typed_turns_pictures_and_camera_frames(talk: Talk) -> None:
    picture = "data:image/png;base64," + b64encode(media.image_file(media.picture(56, 56))).decode()
    talk.update(TEXT_BY_HAND)
    content = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": picture}]
    talk.say("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert talk.until("conversation.item.done")[-1]["item"]["content"] == content
    talk.say("response.create", response={"max_output_tokens": 3})
    typed = talk.until("response.done")[-1]["response"]["usage"]
    talk.push(LOUD)
    talk.say("input_image_buffer.append", image=picture)
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    seen = talk.until("response.done")[-1]["response"]["usage"]
    assert seen["input_tokens"] > typed["input_tokens"] + 20


def test_what_was_said_can_be_written_down(talk: Talk) -> None:
    talk.update({**TEXT_BY_HAND, "audio": {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}})
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    told = talk.until("conversation.item.input_audio_transcription.completed")
    assert told[-1]["item_id"] == told[0]["item_id"]


# ---------------------------------------------------------------- what is wrong


def updated(session: object) -> str:
    return json.dumps({"type": "session.update", "session": session})


WRONG: dict[str, tuple[str, str]] = {
    "no JSON": ("hello", "invalid_json"),
    "a list": ("[]", "invalid_json"),
    "deep": ("[" * 100_000, "invalid_json"),
    "no type": ("{}", "invalid_json"),
    "unknown": ('{"type": "sing"}', "unknown_event"),
    "no session": ('{"type": "session.update"}', "invalid_value"),
    "tools": (updated({"tools": [{}]}), "invalid_value"),
    "a format": (updated({"audio": {"input": {"format": {"type": "audio/opus"}}}}), "invalid_value"),
    "a speed": (updated({"audio": {"output": {"speed": 3.0}}}), "invalid_value"),
    "an audio that is none": (updated({"audio": 5}), "invalid_value"),
    "a threshold": (updated({"audio": {"input": {"turn_detection": {"threshold": 7}}}}), "invalid_value"),
    "modalities": (updated({"output_modalities": ["video"]}), "invalid_value"),
    "no sound": ('{"type": "input_audio_buffer.append"}', "invalid_value"),
    "no base64": ('{"type": "input_audio_buffer.append", "audio": "***"}', "invalid_base64"),
    "half a sample": ('{"type": "input_audio_buffer.append", "audio": "AA=="}', "invalid_value"),
    "nothing to commit": ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty"),
    "nothing to answer": ('{"type": "response.create"}', "invalid_state"),
    "nothing to cancel": ('{"type": "response.cancel"}', "response_cancel_not_active"),
    "nothing to truncate": ('{"type": "conversation.item.truncate", "item_id": "x"}', "item_not_found"),
    "an item of nobody": ('{"type": "conversation.item.create", "item": {"type": "message"}}', "invalid_value"),
    "an unknown item": ('{"type": "conversation.item.create", "item": {"type": "song"}}', "unsupported_item"),
    "nothing to retrieve": ('{"type": "conversation.item.retrieve", "item_id": "x"}', "item_not_found"),
    "nothing to delete": ('{"type": "conversation.item.delete"}', "item_not_found"),
    "an address": ('{"type": "input_image_buffer.append", "image": "https://x.example/y"}', "url_not_allowed"),
}


def test_what_is_wrong_is_told_and_the_socket_stays_open(talk: Talk) -> None:
    for name, (text, code) in WRONG.items():
        talk.socket.send(text)
        error = talk.error()
        assert error["code"] == code and error["message"], name
    talk.say("sing", event_id="mine")
    assert talk.error()["event_id"] == "mine"
    talk.update(TEXT_BY_HAND)
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    assert talk.until("response.done")[-1]["response"]["status"] in ("completed", "incomplete")


def test_a_second_answer_and_a_late_change_are_refused(talk: Talk) -> None:
    talk.update({**BY_HAND, "instructions": "Be kind.", "max_output_tokens": 3000})
    talk.push(LOUD)
    talk.update(
        {"instructions": "Be kind.", "tracing": "auto", "model": "gpt-realtime"}
    )  # as clients do, again and again
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    talk.say("response.create")
    assert talk.error()["code"] == "conversation_already_has_active_response"


def test_updates_are_merged_and_null_clears(talk: Talk) -> None:
    now = talk.update({"audio": {"input": {"turn_detection": {"threshold": 0.7}}, "output": {"voice": "ash"}}})
    detection = now["audio"]["input"]["turn_detection"]
    assert (
        detection["threshold"] == 0.7 and detection["type"] == "server_vad" and now["audio"]["output"]["voice"] == "ash"
    )
    now = talk.update({"audio": {"input": {"turn_detection": None, "noise_reduction": None}}})
    assert now["audio"]["input"]["turn_detection"] is None and now["output_modalities"] == ["audio"]


def test_sound_can_be_cleared(talk: Talk) -> None:
    talk.update(BY_HAND)
    talk.push(LOUD)
    talk.say("input_audio_buffer.clear")
    talk.until("input_audio_buffer.cleared")
    talk.say("input_audio_buffer.commit")
    assert talk.error()["code"] == "input_audio_buffer_commit_empty"


def test_a_socket_needs_a_key_before_it_is_one(server: Running) -> None:
    url = server.url.replace("http", "ws") + "/v1/realtime"
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"origin": "https://evil.example", "authorization": f"Bearer {KEY}"},
    ):
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers=headers)
        assert refused.value.response.status_code in (401, 403)
    protocols = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with connect(url, subprotocols=protocols) as socket:  # type: ignore[arg-type]
        assert socket.subprotocol == "realtime" and json.loads(socket.recv())["type"] == "session.created"
        socket.send(b"\x00\x01")  # the protocol has no binary messages


def test_who_hangs_up_leaves_nothing_behind(server: Running) -> None:
    url = server.url.replace("http", "ws") + "/v1/realtime"
    for stop in ("response.created", "response.output_audio.delta", "session.updated"):
        with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
            opened = Talk(socket)
            opened.say("session.update", session={**BY_HAND, "max_output_tokens": 3000})
            opened.push(LOUD)
            opened.say("input_audio_buffer.commit")
            opened.say("response.create")
            opened.until(stop)
        assert server.idle(), server.omni.engine.ledger()


def test_the_openai_client_has_a_live_talk(server: Running) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    with client.realtime.connect(model="tiny") as talk:
        talk.session.update(session={"type": "realtime", "max_output_tokens": 6})
        for start in range(0, 2 * RATE_HZ, 2400):
            whole = np.concatenate([LOUD, SILENCE])
            talk.input_audio_buffer.append(audio=base64_of(whole[start : start + 2400]))
        told: list[str] = []
        for event in talk:
            told.append(event.type)
            if event.type == "response.done":
                assert event.response.output
                break
    assert {"session.created", "session.updated", "input_audio_buffer.speech_started"} <= set(told)
    assert "response.output_audio.delta" in told
    assert server.idle()


def test_the_older_names_and_16_khz_give_the_same_answer(server: Running) -> None:
    url = server.url.replace("http", "ws") + "/v1/realtime?dialect=dashscope&model=tiny"
    said = 0.3 * media.noise(16000)
    with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
        talk = Talk(socket)
        assert talk.next()["session"]["output_audio_format"] == "pcm24"
        session = {"modalities": ["text"], "voice": "Cherry", "turn_detection": None, "input_audio_format": "pcm16"}
        assert talk.update(session)["modalities"] == ["text"]
        talk.push(said, 1600)
        talk.say("input_audio_buffer.commit")
        talk.say("response.create", response={"max_output_tokens": 8})
        events = talk.until("response.done")
        text = "".join(event["delta"] for event in events if event["type"] == "response.text.delta")
        assert "conversation.item.created" in kinds(events) and "conversation.item.done" not in kinds(events)
        assert events[-1]["response"]["output"][0]["content"] == [{"type": "text", "text": text}]
        talk.say("session.update", session={"modalities": ["audio"]})
        assert talk.error()["code"] == "invalid_value"
        talk.say("session.finish")
        talk.until("session.finished")
    with server.omni.session(speech=False) as live:
        live.push_audio((said * 32767).astype("<i2"), 16000)
        assert text == "".join(e.text for e in live.respond(max_tokens=8) if isinstance(e, TextDelta))
    assert server.idle()


class Silent:
    """A channel from which nothing comes. sent: to it; closed: with which code."""

    line = None

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed = 0

    async def receive(self) -> str | None:
        await asyncio.sleep(60)
        return None

    async def send(self, text: str) -> None:
        self.sent.append(json.loads(text))

    async def close(self, code: int = 1000) -> None:
        self.closed = code


@pytest.mark.parametrize("limit", ["idle_s", "session_s"])
def test_a_silent_socket_is_told_and_closed(server: Running, limit: str) -> None:
    state = ServerState(ServerSettings(**{limit: 0.01}))
    state.loaded = server.omni
    socket = Silent()
    asyncio.run(RealtimeTalk(socket, state, DIALECTS["openai"]).run())
    assert [event["type"] for event in socket.sent] == ["session.created", "error"]
    wanted = {"idle_s": ("idle_timeout", 1008), "session_s": ("session_expired", 1001)}
    assert (socket.sent[-1]["error"]["code"], socket.closed) == wanted[limit]


def test_who_stops_in_the_middle_of_a_turn_is_told_and_what_it_held_is_free(
    talk: Talk, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("descant.server.realtime.MID_TURN_S", 0.3)
    talk.update(TEXT_BY_HAND)
    talk.push(LOUD)
    events = talk.until("error")
    assert events[-1]["error"]["code"] == "idle_timeout" and "input_audio_buffer.cleared" in kinds(events)
    talk.say("input_audio_buffer.commit")
    assert talk.error()["code"] == "input_audio_buffer_commit_empty"


def test_the_end_of_a_session_is_told_before_it_comes(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("descant.server.realtime.NOTICE_S", 0.05)
    state = ServerState(ServerSettings(session_s=0.1))
    state.loaded = server.omni
    socket = Silent()
    asyncio.run(RealtimeTalk(socket, state, DIALECTS["openai"]).run())
    assert [event["error"]["code"] for event in socket.sent[1:]] == ["session_expires_soon", "session_expired"]


# ---------------------------------------------------------------- the older protocol

FLAT_SESSION = {"modalities": ["text"], "turn_detection": None, "input_audio_format": "pcm16", "temperature": 0}
NESTED_SESSION = {
    "output_modalities": ["text"],
    "temperature": 0,
    "audio": {"input": {"turn_detection": None, "format": {"type": "pcm", "sample_rate": 8000}}},
    "video": {"input": {"representation_compact": 2}},
}


@pytest.mark.parametrize("session, rate", [(FLAT_SESSION, 16_000), (NESTED_SESSION, 8_000)], ids=["flat", "nested"])
def test_both_forms_of_an_older_session_say_the_same(server: Running, session: dict[str, Any], rate: int) -> None:
    said = 0.3 * media.noise(rate)
    with connect(
        server.url.replace("http", "ws") + "/v1/realtime?dialect=dashscope",
        additional_headers={"authorization": f"Bearer {KEY}"},
    ) as socket:
        talk = Talk(socket)
        assert talk.next()["session"]["turn_detection"]["silence_duration_ms"] == 800
        assert talk.update({**session, "max_tokens": 8})["temperature"] == 0
        talk.push(said, rate // 10)
        talk.say("input_audio_buffer.commit")
        talk.say("response.create", response={"modalities": ["text"]})
        events = talk.until("response.done")
        text = "".join(event["delta"] for event in events if event["type"] == "response.text.delta")
    greedy = replace(server.omni.checkpoint.generation.text, temperature=0)
    with server.omni.session(speech=False, sampling=greedy) as live:
        live.push_audio((said * 32767).astype("<i2"), rate)
        assert text == "".join(e.text for e in live.respond(max_tokens=8) if isinstance(e, TextDelta))
    assert server.idle()
