"""Everything that a client may say of items, sessions and answers; each event has the type that OpenAI gives it."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import Field, TypeAdapter
from websockets.sync.client import connect

from descant.server.voice_formats import LEVELS, SoundCoding
from descant.types import TextDelta, assistant, system, user
from tests.inputs import media
from tests.server.conftest import KEY, Running, Script
from tests.server.test_realtime import BY_HAND, LOUD, RATE_HZ, SILENCE, TEXT_BY_HAND, Talk, base64_of, kinds
from tests.server.test_tools import CALLS, FLAT, WAIT

TYPED: TypeAdapter[Any] = TypeAdapter(Annotated[RealtimeServerEvent, Field(discriminator="type")])
DETECTED = {"silence_duration_ms": 200}


class TypedTalk(Talk):
    """A talk that reads every event by OpenAI's types."""

    def next(self) -> dict[str, Any]:
        event = super().next()
        TYPED.validate_python(event)
        return event

    def create(self, role: str, text: str, **fields: Any) -> dict[str, Any]:
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **fields.pop("item", {})}
        self.say("conversation.item.create", item=item, **fields)
        made: dict[str, Any] = self.until("conversation.item.done")[-1]["item"]
        return made

    def answer(self, **response: Any) -> str:
        """The text of an answer."""
        self.say("response.create", response=response)
        events = self.until("response.done")
        assert events[-1]["response"]["status"] in ("completed", "incomplete"), events[-1]
        name = "response.output_text.delta", "response.output_audio_transcript.delta"
        return "".join(event["delta"] for event in events if event["type"] in name)


@pytest.fixture
def talk(server: Running) -> Iterator[TypedTalk]:
    url = server.url.replace("http", "ws") + "/v1/realtime?model=tiny"
    with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
        opened = TypedTalk(socket)
        assert opened.next()["type"] == "session.created"
        yield opened
    assert server.idle(), server.omni.engine.ledger()


def chat(server: Running, *messages: Any, tokens: int = 8) -> str:
    events = server.omni.chat(list(messages), speech=False, max_tokens=tokens, seed=1)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# ---------------------------------------------------------------- items


def test_items_stand_where_they_are_put_and_are_answered_as_a_chat_of_them(talk: TypedTalk, server: Running) -> None:
    talk.update({**TEXT_BY_HAND, "instructions": "be kind"})
    last = talk.create("user", "what is it?")
    talk.create("assistant", "a ball", previous_item_id="root", item={"id": "ball"})
    first = talk.create("user", "look", previous_item_id="root")
    gone = talk.create("user", "never mind", previous_item_id="ball")
    talk.say("conversation.item.delete", item_id=gone["id"])
    assert talk.until("conversation.item.deleted")[-1]["item_id"] == gone["id"]
    said = talk.answer()
    wanted = [system("be kind"), user("look"), assistant("a ball"), user("what is it?")]
    assert said == chat(server, *wanted)
    for item, text in ((first, "look"), (last, "what is it?")):
        talk.say("conversation.item.retrieve", item_id=item["id"])
        assert talk.until("conversation.item.retrieved")[-1]["item"]["content"][0]["text"] == text


@pytest.mark.parametrize(
    "fields", [{"previous_item_id": "nobody"}, {"item": {"id": "same"}}, {"item": {"id": ""}}, {"item": {"id": 5}}]
)
def test_an_item_that_cannot_stand_there_is_refused(talk: TypedTalk, fields: dict[str, Any]) -> None:
    talk.update(TEXT_BY_HAND)
    talk.create("user", "hello", item={"id": "same"})
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    talk.say("conversation.item.create", event_id="mine", **{**fields, "item": {**item, **fields.get("item", {})}})
    if fields.get("item", {}).get("id") == "":  # an empty id is none
        assert talk.until("conversation.item.done")
    else:
        assert talk.error()["event_id"] == "mine"
    assert talk.answer()


def test_instructions_and_what_one_answer_alone_is_told(talk: TypedTalk, server: Running) -> None:
    """At any time; of one answer, they are gone after it."""
    talk.update({**TEXT_BY_HAND, "instructions": "be kind"})
    talk.create("user", "hello")
    first = talk.answer(instructions="sing", max_output_tokens=4, metadata={"mine": "1"})
    assert first == chat(server, system("sing"), user("hello"), tokens=4)
    talk.update({"instructions": "be brief"})
    talk.create("user", "and now?")
    with server.omni.session(instructions="be kind", speech=False, seed=1) as live:
        live.insert(user("hello"))
        list(live.respond(go_on=True, instructions="sing", max_tokens=4))
        live.instruct("be brief")
        live.insert(user("and now?"))
        wanted = "".join(e.text for e in live.respond(go_on=True, max_tokens=8) if isinstance(e, TextDelta))
    assert talk.answer() == wanted


def test_an_answer_can_begin_a_talk(talk: TypedTalk, server: Running) -> None:
    talk.update({**TEXT_BY_HAND, "instructions": "greet"})
    assert talk.answer() == answer_to_nothing(server, "greet")


def answer_to_nothing(server: Running, instructions: str) -> str:
    with server.omni.session(instructions=instructions, speech=False, seed=1) as live:
        return "".join(e.text for e in live.respond(go_on=True, max_tokens=8) if isinstance(e, TextDelta))


def test_an_item_of_sound_is_heard(talk: TypedTalk, server: Running) -> None:
    talk.update(TEXT_BY_HAND)
    content = [{"type": "input_audio", "audio": base64_of(LOUD)}]
    talk.say("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    kept = talk.until("conversation.item.done")[-1]["item"]
    talk.say("conversation.item.retrieve", item_id=kept["id"])
    assert "audio" not in talk.until("conversation.item.retrieved")[-1]["item"]["content"][0]
    assert talk.answer()


# ---------------------------------------------------------------- answers


def test_answers_beside_the_talk_leave_it_as_it_is(talk: TypedTalk, server: Running) -> None:
    """Several at once, each told apart by its id, its metadata as given."""
    talk.update({**TEXT_BY_HAND, "max_output_tokens": 2000})
    item = talk.create("user", "hello")
    own = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "classify"}]}]
    for name in ("a", "b"):
        reference = {"type": "item_reference", "id": item["id"]}
        wish = {"conversation": "none", "metadata": {"topic": name}, "input": [reference, *own]}
        talk.say("response.create", response=wish | {"max_output_tokens": 8})
    talk.say("response.create", response={"max_output_tokens": 8})
    done = [talk.until("response.done")[-1]["response"] for _ in range(3)]
    beside = [response for response in done if response["metadata"]]
    assert sorted(response["metadata"]["topic"] for response in beside) == ["a", "b"]
    assert all(response["conversation_id"] is None for response in beside)
    texts = {response["output"][0]["content"][0]["text"] for response in beside}
    assert texts == {chat(server, user("hello"), user("classify"))}
    kept = [response for response in done if not response["metadata"]]
    talk.say("conversation.item.retrieve", item_id=beside[0]["output"][0]["id"])
    assert talk.error()["code"] == "item_not_found"
    talk.say("conversation.item.retrieve", item_id=kept[0]["output"][0]["id"])
    assert talk.until("conversation.item.retrieved")


def test_an_answer_beside_the_talk_is_cancelled_by_its_id(talk: TypedTalk) -> None:
    talk.update(TEXT_BY_HAND)
    talk.say("response.create", response={"conversation": "none", "input": [], "max_output_tokens": 3000})
    begun = talk.until("response.created")[-1]["response"]["id"]
    talk.say("response.cancel")
    assert talk.error()["code"] == "response_cancel_not_active"
    talk.say("response.cancel", response_id=begun)
    done = talk.until("response.done")[-1]["response"]
    assert done["id"] == begun and done["status"] in ("cancelled", "completed", "incomplete")


def test_one_answer_may_be_text_alone_and_the_voice_stays_once_heard(talk: TypedTalk) -> None:
    talk.update({**BY_HAND, "audio": {**BY_HAND["audio"], "output": {"voice": "ash"}}})
    talk.create("user", "hello")
    talk.say("response.create", response={"output_modalities": ["text"]})
    assert "response.output_text.delta" in kinds(talk.until("response.done"))
    talk.update({"audio": {"output": {"voice": "coral"}}})
    talk.create("user", "aloud")
    assert talk.answer()
    talk.say("session.update", session={"audio": {"output": {"voice": "ash"}}})
    assert talk.error()["code"] == "cannot_update_voice"
    talk.update({"audio": {"output": {"voice": "coral"}}})
    talk.say("response.create", response={"audio": {"output": {"voice": "ash"}}})
    assert talk.error()["code"] == "cannot_update_voice"


def test_any_answer_is_cut_to_what_was_heard(talk: TypedTalk) -> None:
    talk.update(BY_HAND)
    names = []
    for text in ("one", "two"):
        talk.create("user", text)
        talk.say("response.create")
        names.append(talk.until("response.done")[-1]["response"]["output"][0]["id"])
    talk.say("conversation.item.truncate", item_id=names[0], content_index=0, audio_end_ms=0)
    talk.until("conversation.item.truncated")
    talk.say("conversation.item.retrieve", item_id=names[0])
    assert talk.until("conversation.item.retrieved")[-1]["item"]["content"][0]["transcript"] == ""
    talk.create("user", "three")
    assert talk.answer()


@pytest.mark.parametrize("coding", ["audio/pcmu", "audio/pcma"])
def test_a_telephone_line_in_both_directions(talk: TypedTalk, coding: str) -> None:
    """G.711 at 8 kHz; the levels are those of the codecs in FFmpeg."""
    form = {"type": coding}
    talk.update({**BY_HAND, "audio": {"input": {"turn_detection": None, "format": form}, "output": {"format": form}}})
    telephone = SoundCoding(coding, 8000)
    for _ in range(5):
        talk.say("input_audio_buffer.append", audio=telephone.encoded(0.3 * media.noise(1600)))
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    events = talk.until("response.done")
    sent = sum(len(telephone.decoded(e["delta"])) for e in events if e["type"] == "response.output_audio.delta")
    made = events[-1]["response"]["usage"]["output_token_details"]["audio_tokens"]
    assert made and sent / 8000 == pytest.approx(events_seconds(events), abs=0.05)
    levels = np.sort(LEVELS[coding])
    back = telephone.decoded(telephone.encoded(levels))
    assert np.array_equal(back, levels) and telephone.encoded(levels) != b64encode(b"").decode()


def events_seconds(events: list[dict[str, Any]]) -> float:
    """Seconds of sound by the codes of the answer: tiny has 20 ms a code."""
    codes = events[-1]["response"]["usage"]["output_token_details"]["audio_tokens"]
    return float(codes * 0.02)


def test_sound_comes_at_the_speed_that_was_asked_for(talk: TypedTalk) -> None:
    lengths = []
    for speed in (1.0, 1.5):
        talk.update({**BY_HAND, "audio": {**BY_HAND["audio"], "output": {"speed": speed}}})
        talk.create("user", "hello")
        talk.say("response.create")
        events = talk.until("response.done")
        sound = sum(len(b64decode(e["delta"])) for e in events if e["type"] == "response.output_audio.delta") / 48000
        lengths.append(sound / events_seconds(events))
    assert lengths[0] == pytest.approx(1.0, abs=0.01) and lengths[1] == pytest.approx(2 / 3, abs=0.1)


# ---------------------------------------------------------------- turns


def test_turns_are_told_and_not_answered(talk: TypedTalk) -> None:
    detection = {**DETECTED, "create_response": False}
    talk.update({"max_output_tokens": 4, "audio": {"input": {"turn_detection": detection}}})
    for _ in range(2):
        talk.push(LOUD[:9600])
        talk.push(SILENCE[:9600])
        talk.until("conversation.item.done")
    talk.say("input_audio_buffer.clear")
    events = talk.until("input_audio_buffer.cleared")
    assert "response.created" not in kinds(events)
    talk.say("response.create", response={"output_modalities": ["text"]})
    assert talk.until("response.done")[-1]["response"]["usage"]["input_tokens"] > 20


def test_who_may_not_interrupt_does_not(talk: TypedTalk) -> None:
    detection = {**DETECTED, "interrupt_response": False}
    talk.update({"max_output_tokens": 60, "audio": {"input": {"turn_detection": detection}}})
    talk.push(LOUD[:9600])
    talk.push(SILENCE[:9600])
    talk.until("response.output_audio.delta")
    talk.push(LOUD[:9600])
    talk.push(SILENCE[:9600])
    done = talk.until("response.done")[-1]["response"]
    assert (done["status"] in ("completed", "incomplete") and done["status_details"] is None) or (
        done["status_details"]["reason"] == "max_output_tokens"
    )


def test_who_says_nothing_is_asked_again(talk: TypedTalk) -> None:
    talk.update({"max_output_tokens": 4, "audio": {"input": {"turn_detection": {**DETECTED, "idle_timeout_ms": 100}}}})
    talk.push(LOUD[:9600])
    talk.push(SILENCE[:9600])
    talk.until("response.done")
    events = talk.until("response.done")
    asked = next(e for e in events if e["type"] == "input_audio_buffer.timeout_triggered")
    assert asked["item_id"] == next(e for e in events if e["type"] == "input_audio_buffer.committed")["item_id"]
    assert asked["audio_end_ms"] > asked["audio_start_ms"]


def test_a_session_that_only_writes_down(talk: TypedTalk, server: Running) -> None:
    talk.say("session.update", session={"type": "transcription", "audio": {"input": {"turn_detection": DETECTED}}})
    session = talk.until("session.updated")[-1]["session"]
    assert session["type"] == "transcription" and "output_modalities" not in session
    talk.push(LOUD[:9600])
    talk.push(SILENCE[:9600])
    name = "conversation.item.input_audio_transcription"
    events = talk.until(f"{name}.completed")
    text = "".join(event["delta"] for event in events if event["type"] == f"{name}.delta")
    assert text == events[-1]["transcript"] and events[-1]["usage"]["seconds"] > 0.4
    talk.say("response.create")
    assert talk.error()["code"] == "invalid_state"
    assert server.omni.engine.ledger().live_sessions == 0


def test_a_false_start_costs_nothing(talk: TypedTalk, server: Running) -> None:
    """A click is pushed at once, and taken back: the answer is that of the turn alone."""
    talk.update({**TEXT_BY_HAND, "audio": {"input": {"turn_detection": {**DETECTED, "create_response": False}}}})
    click = np.zeros(4800, np.float32)
    click[2000:2400] = 0.9
    talk.push(click)
    talk.push(SILENCE[:4800])
    talk.update({"audio": {"input": {"turn_detection": None}}})
    talk.say("input_audio_buffer.commit")
    assert talk.error()["code"] == "input_audio_buffer_commit_empty"
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    said = talk.answer()
    with server.omni.session(speech=False) as live:
        live.push_audio((LOUD * 32767).astype("<i2"), RATE_HZ)
        assert said == "".join(e.text for e in live.respond(max_tokens=8) if isinstance(e, TextDelta))


def test_a_buffer_that_is_full_keeps_what_it_has(talk: TypedTalk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("descant.server.realtime_input.KEPT_SOUND_S", 1.05)
    talk.update(TEXT_BY_HAND)
    talk.push(LOUD)
    talk.say("input_audio_buffer.append", audio=base64_of(LOUD[:2400]))
    assert talk.error()["code"] == "input_audio_buffer_full"
    talk.say("input_audio_buffer.commit")
    assert talk.answer()


# ---------------------------------------------------------------- tools


def test_calls_are_items_and_their_results_are_answered(talk: TypedTalk, script: Script) -> None:
    """What is said and each call are items; a call is never spoken."""
    talk.update({"tools": FLAT, "audio": {"input": {"turn_detection": None}}, "max_output_tokens": 200})
    talk.create("user", "How is it in Rome?")
    script("Let me look.", *CALLS, *WAIT)
    talk.say("response.create")
    events = talk.until("response.done")
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert output[0]["content"][0]["transcript"] == "Let me look." and output[1]["arguments"] == '{"city": "Rome"}'
    places = {e["output_index"] for e in events if e["type"] == "response.function_call_arguments.done"}
    assert places == {1, 2}
    for item in output[1:]:
        answered = {"type": "function_call_output", "call_id": item["call_id"], "output": "warm"}
        talk.say("conversation.item.create", item=answered)
        talk.until("conversation.item.done")
    script("It is warm.")
    assert talk.answer() == "It is warm."


def test_an_answer_may_only_call(talk: TypedTalk, script: Script) -> None:
    talk.update({**BY_HAND, "tools": FLAT, "max_output_tokens": 200})
    talk.create("user", "How is it in Rome?")
    script(*CALLS)
    talk.say("response.create")
    assert [item["type"] for item in talk.until("response.done")[-1]["response"]["output"]] == ["function_call"]


def test_calls_of_others_can_be_put_in(talk: TypedTalk) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"what": "x"}'}
    talk.update({**TEXT_BY_HAND, "tools": FLAT})
    talk.create("user", "find x")
    for item in (call, {"type": "function_call_output", "call_id": "c1", "output": "here"}):
        talk.say("conversation.item.create", item=item)
        assert talk.until("conversation.item.done")[-1]["item"]["type"] == item["type"]
    assert talk.answer()


# ---------------------------------------------------------------- turns by their words


@pytest.mark.parametrize("text, least_ms, most_ms", [("Yes.", 250, 1900), ("and", 1950, 2300)])
def test_a_turn_ends_when_its_words_are_complete(
    talk: TypedTalk, script: Script, text: str, least_ms: int, most_ms: int
) -> None:
    """The transcript of the pause tells: a full stop ends the turn soon, an open end waits for 2 s."""
    detection = {"type": "semantic_vad", "eagerness": "high", "create_response": False}
    talk.update({**TEXT_BY_HAND, "audio": {"input": {"turn_detection": detection}}})
    script(text)
    talk.push(LOUD[:12000])
    for _ in range(120):  # at a microphone's pace, for the transcript is made meanwhile
        talk.push(SILENCE[:480])
        time.sleep(0.02)
    stopped = talk.until("input_audio_buffer.speech_stopped")[-1]
    assert least_ms < stopped["audio_end_ms"] - 500 < most_ms


def test_writing_down_what_is_said_changes_nothing_of_the_talk(server: Running) -> None:
    answers = []
    for transcription in (None, {"model": "gpt-4o-mini-transcribe"}):
        url = server.url.replace("http", "ws") + "/v1/realtime"
        with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
            talk = TypedTalk(socket)
            talk.update({**TEXT_BY_HAND, "audio": {"input": {"turn_detection": None, "transcription": transcription}}})
            talk.push(LOUD)
            talk.say("input_audio_buffer.commit")
            answers.append(talk.answer())
    assert answers[0] == answers[1] and server.idle()


def test_the_coding_stays_in_the_middle_of_a_turn(talk: TypedTalk) -> None:
    talk.update(TEXT_BY_HAND)
    talk.push(LOUD)
    talk.say("session.update", session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    assert talk.error()["code"] == "invalid_state"
    talk.say("input_audio_buffer.commit")
    talk.update({"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    assert talk.answer()


def test_a_talk_of_text_begins_to_speak(talk: TypedTalk, server: Running) -> None:
    """With all that was said: the words are those that they would be, and the sound is there."""
    talk.update({**TEXT_BY_HAND, "instructions": "be kind"})
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    item = talk.until("conversation.item.done")[-1]["item"]["id"]
    first = talk.answer()
    talk.create("user", "aloud")
    talk.say("response.create", response={"output_modalities": ["audio"]})
    events = talk.until("response.done")
    assert "response.output_audio.delta" in kinds(events)
    with server.omni.session(instructions="be kind", seed=1) as live:
        live.push_audio((LOUD * 32767).astype("<i2"), RATE_HZ)
        live.commit()
        live.insert(assistant(first))
        live.insert(user("aloud"))
        wanted = "".join(e.text for e in live.respond(go_on=True, max_tokens=8) if isinstance(e, TextDelta))
    assert wanted == "".join(e["delta"] for e in events if e["type"] == "response.output_audio_transcript.delta")
    talk.say("conversation.item.delete", item_id=item)
    talk.until("conversation.item.deleted")
    talk.answer()
    assert server.omni.engine.ledger().live_sessions == 1
