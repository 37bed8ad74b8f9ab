"""What clients were found to need, each with its version; and the driver of OpenAI's Python client, on nano.

The other clients are driven by ``nox -s clients``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.realtime import RealtimeServerEvent
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import Field, TypeAdapter, ValidationError
from websockets.sync.client import ClientConnection, connect

from descant.weights.fetch import embedded
from tests.badinputs.catalogue import ASK, PICTURE
from tests.inputs import media
from tests.server.conftest import KEY, Running

CLIENTS = Path(__file__).resolve().parents[1] / "clients"


@pytest.mark.skipif("nano" not in embedded(), reason="this checkout has no trained nano")
def test_the_openai_client_passes_its_driver() -> None:
    command = [sys.executable, str(CLIENTS / "rig.py"), "--", sys.executable, str(CLIENTS / "drivers/drive_openai.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("openai "), done.stdout + done.stderr


def sources(client: str) -> str:
    """What is driven for a client of the table in docs/clients.md: its driver, and what that uses."""
    package = client.removesuffix(" (npm)")
    if client.endswith("(npm)"):
        found = [p.parent for p in CLIENTS.glob("node/*/package.json") if f'"{package}"' in p.read_text()]
        return "".join(path.read_text() for path in (found[0] / "drive.mjs", CLIENTS / "node" / "common.mjs"))
    found = [
        p for p in CLIENTS.glob("requirements/*.txt") if re.search(rf"^{package}(\[\w+\])?==", p.read_text(), re.M)
    ]
    drivers = CLIENTS / "drivers"
    return (drivers / f"drive_{found[0].stem.replace('-', '_')}.py").read_text() + (drivers / "common.py").read_text()


def test_the_table_of_clients_is_what_is_driven() -> None:
    """Every client has a row, and every name in a row is one that its driver writes."""
    readme = (CLIENTS.parents[1] / "docs" / "clients.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `(.+?)`", readme[readme.index("| client | how |") :], re.MULTILINE)
    assert len(rows) == len([*CLIENTS.glob("requirements/*.txt"), *CLIENTS.glob("node/*/package.json")])
    for client, call in rows:
        written = sources(client)
        names = re.findall(r"--[\w-]+|\w+(?==)|\w+(?=\()|\w+(?=: )", re.sub(r'"[^"]*"', '""', call))
        assert names and all(name in written for name in names), (client, names)
        for path in re.findall(r"8000(/[\w/-]+)", call):
            assert path in written, (client, path)


TYPED: TypeAdapter[Any] = TypeAdapter(Annotated[RealtimeServerEvent, Field(discriminator="type")])
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[ResponseStreamEvent, Field(discriminator="type")])
RATE_HZ = 24_000
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
PCM = b64encode(
    (0.3 * 32767 * np.concatenate([media.noise(RATE_HZ), np.zeros(RATE_HZ)])).astype("<i2").tobytes()
).decode()


def told(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """All events up to one of this type."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv(timeout=60)))
    return events


def talk(socket: ClientConnection, modality: str) -> list[dict[str, Any]]:
    """The events of one session in which everything happens: said, typed, shown, truncated, cancelled, refused."""

    def say(kind: str, **fields: Any) -> None:
        socket.send(json.dumps({"type": kind, **fields}))

    audio = {"input": {"transcription": {"model": "whisper-1"}}}
    session = {"type": "realtime", "output_modalities": [modality], "max_output_tokens": 8, "audio": audio}
    say("session.update", session=session)
    say("input_audio_buffer.append", audio=PCM)
    events = told(socket, "response.done")
    item = events[-1]["response"]["output"][0]["id"]
    if all(event["type"] != TRANSCRIBED for event in events):  # it is written down beside the answer
        events += told(socket, TRANSCRIBED)
    if modality == "audio":
        say("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=100)
        events += told(socket, "conversation.item.truncated")
    say("conversation.item.retrieve", item_id=item)
    events += told(socket, "conversation.item.retrieved")
    content = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PICTURE}]
    say("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    say("response.create", response={"max_output_tokens": 2000})
    events += told(socket, "response.content_part.added")
    say("response.cancel")
    events += told(socket, "response.done")
    say("conversation.item.delete", item_id=item)
    events += told(socket, "conversation.item.deleted")
    beside = {"conversation": "none", "input": [{"type": "message", "role": "user", "content": content[:1]}]}
    say("response.create", response={**beside, "max_output_tokens": 4})
    events += told(socket, "response.done")
    say("input_audio_buffer.clear")
    events += told(socket, "input_audio_buffer.cleared")
    say("sing")
    return events + told(socket, "error")


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_every_event_has_the_type_that_openai_gives_it(server: Running, modality: str) -> None:
    """openai-agents 0.24.0 reads each event by the types of openai 3.57.0, and ends the talk at one that is not so."""
    url = server.url.replace("http", "ws") + "/v1/realtime"
    with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
        events = talk(socket, modality)
    kinds = {event["type"] for event in events}
    wrong = []
    for event in events:
        try:
            TYPED.validate_python(event)
        except ValidationError as error:
            wrong.append(f"{event['type']}: {error.errors(include_url=False, include_input=False)}")
    assert not wrong, "\n".join(sorted(set(wrong)))
    assert {TRANSCRIBED, "response.content_part.done"} <= kinds
    assert server.idle()


def test_dashscope_shows_a_jpeg_as_bare_base64_on_its_own_path(server: Running) -> None:
    """dashscope 2.0.2 appends ?model= to the address that it is given, and a JPEG begins like a path: /9j/."""
    frame = b64encode(media.image_file(media.picture(56, 56), "JPEG")).decode()
    assert frame.startswith("/9j/")
    url = server.url.replace("http", "ws") + "/api-ws/v1/realtime?model=tiny"
    with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
        session = {"modalities": ["text"], "voice": "Cherry", "turn_detection": None, "input_audio_format": "pcm16"}
        for event in (
            {"type": "session.update", "session": session},
            {"type": "input_audio_buffer.append", "audio": PCM},
            {"type": "input_image_buffer.append", "image": frame},
            {"type": "input_audio_buffer.commit"},
            {"type": "response.create", "response": {"max_output_tokens": 4}},
        ):
            socket.send(json.dumps(event))
        events = told(socket, "response.done")
    assert not [event for event in events if event["type"] == "error"]
    assert any(event["type"] == "response.text.delta" for event in events)
    assert server.idle()


def test_livekit_knows_its_answer_by_its_metadata(server: Running) -> None:
    """livekit-plugins-openai 1.8.9 waits for a response.created that bears the metadata of its response.create."""
    url = server.url.replace("http", "ws") + "/v1/realtime"
    with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
        mine = {"client_event_id": "response_create_1"}
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        socket.send(json.dumps({"type": "response.create", "response": {"metadata": mine, "max_output_tokens": 4}}))
        events = told(socket, "response.done")
    assert [event["response"]["metadata"] for event in events if "response" in event] == [mine, mine]
    assert server.idle()


def stream_of(client: httpx.Client, path: str, body: dict[str, Any]) -> list[Any]:
    """The events of a stream, but for [DONE]."""
    lines = client.post(path, json=body).text.split("\n")
    return [json.loads(line[5:]) for line in lines if line.startswith("data:") and "[DONE]" not in line]


def test_every_body_over_http_has_the_type_that_openai_gives_it(client: httpx.Client) -> None:
    """openai 3.57.0, whose own client reads leniently: the same bodies, held to its types."""
    chat = "/v1/chat/completions"
    spoken = {**ASK, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    for asked in (ASK, spoken):
        ChatCompletion.model_validate(client.post(chat, json=asked).json())
        for chunk in stream_of(client, chat, {**asked, **counted}):
            ChatCompletionChunk.model_validate(chunk)
    given = {"input": "hello", "max_output_tokens": 6, "model": "tiny"}
    Response.model_validate(client.post("/v1/responses", json=given).json())
    events = stream_of(client, "/v1/responses", {**given, "stream": True})
    for event in events:
        RESPONSE_EVENT.validate_python(event)
    assert events[0]["type"] == "response.created" and len(events) > 5
    said = {"input": "hi", "voice": "alloy", "response_format": "pcm", "stream_format": "sse"}
    assert stream_of(client, "/v1/audio/speech", said)[-1]["type"] == "speech.audio.done"
