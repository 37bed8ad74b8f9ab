"""A live talk over WebRTC, between two peers of this machine: sound by RTP, events by the data channel."""

from __future__ import annotations

import asyncio
import fractions
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import httpx
import numpy as np
import openai
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from tests.inputs import media
from tests.server.conftest import KEY, Running

aiortc = pytest.importorskip("aiortc", reason="the extra [webrtc] is not installed")
av = pytest.importorskip("av")

TYPED: TypeAdapter[Any] = TypeAdapter(Annotated[RealtimeServerEvent, Field(discriminator="type")])
RATE_HZ = 24_000
LOUD = 0.3 * media.noise(RATE_HZ // 2)
DETECTED = {"audio": {"input": {"turn_detection": {"silence_duration_ms": 200}}}}


class Microphone(aiortc.MediaStreamTrack):  # type: ignore[misc, name-defined]
    """Says what it is told to, 20 ms at a time in real time, and else nothing."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.queue = np.zeros(0, np.float32)
        self.sent = 0
        self.start = 0.0

    async def recv(self) -> Any:
        loop = asyncio.get_running_loop()
        self.start = self.start or loop.time()
        await asyncio.sleep(self.start + 0.02 * self.sent - loop.time())
        said, self.queue = self.queue[:480], self.queue[480:]
        said = np.pad(said, (0, 480 - len(said)))
        frame = av.AudioFrame.from_ndarray((said * 32767).astype("<i2")[None], "s16", "mono")
        frame.sample_rate, frame.pts = RATE_HZ, 480 * self.sent
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        self.sent += 1
        return frame


class Caller:
    """A browser, as far as the protocol sees it."""

    def __init__(self) -> None:
        self.peer = aiortc.RTCPeerConnection()
        self.microphone = Microphone()
        self.peer.addTrack(self.microphone)
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("message", lambda text: self.events.put_nowait(json.loads(text)))
        self.heard = np.zeros(0, np.float32)
        self.tasks: list[asyncio.Task[None]] = []
        self.peer.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self.listen(track))))

    async def listen(self, track: Any) -> None:
        try:
            while True:
                frame = await track.recv()
                self.heard = np.append(self.heard, np.abs(frame.to_ndarray().astype(np.float32)).max() / 32768)
        except aiortc.mediastreams.MediaStreamError:
            pass

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def take(self, answer: str) -> None:
        await self.peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))

    def say(self, kind: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != kind:
            events.append(await asyncio.wait_for(self.events.get(), 30))
            TYPED.validate_python(events[-1])
        return events


def call(server: Running, act: Callable[[Caller, httpx.AsyncClient, str], Awaitable[None]]) -> None:
    """One call: it is made, something is done, and it is ended."""

    async def run() -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        caller = Caller()
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
            form = {"sdp": (None, await caller.offer(), "application/sdp"), "session": (None, json.dumps(DETECTED))}
            told = await client.post("/v1/realtime/calls", files=form)
            assert told.status_code == 201 and told.headers["content-type"] == "application/sdp"
            await caller.take(told.text)
            assert (await caller.until("session.created"))[-1]["session"]["type"] == "realtime"
            try:
                await act(caller, client, told.headers["location"])
            finally:
                await caller.peer.close()

    asyncio.run(run())
    assert server.idle(), server.omni.engine.ledger()


def test_a_spoken_turn_is_answered_in_sound(server: Running) -> None:
    async def act(caller: Caller, client: httpx.AsyncClient, location: str) -> None:
        caller.say("session.update", session={"max_output_tokens": 40})
        await caller.until("session.updated")
        caller.microphone.queue = LOUD
        events = await caller.until("output_audio_buffer.stopped")
        kinds = [event["type"] for event in events]
        assert "response.output_audio.delta" not in kinds and "response.output_audio_transcript.delta" in kinds
        assert kinds.index("output_audio_buffer.started") < kinds.index("output_audio_buffer.stopped")
        assert kinds.index("response.done") < kinds.index("output_audio_buffer.stopped")
        assert caller.heard.max() > 0.001
        ended = await client.post(f"{location}/hangup")
        assert ended.status_code == 200
        while (await client.post(f"{location}/hangup")).status_code != 404:
            await asyncio.sleep(0.01)

    call(server, act)


def test_who_speaks_interrupts_and_the_server_cuts_what_was_not_heard(server: Running) -> None:
    async def act(caller: Caller, client: httpx.AsyncClient, location: str) -> None:
        caller.say("session.update", session={"max_output_tokens": 2000})
        await caller.until("session.updated")
        caller.microphone.queue = LOUD
        await caller.until("output_audio_buffer.started")
        caller.microphone.queue = LOUD
        events = await caller.until("conversation.item.truncated")
        kinds = [event["type"] for event in events]
        assert "output_audio_buffer.cleared" in kinds and "input_audio_buffer.speech_started" in kinds
        caller.say("conversation.item.retrieve", item_id=events[-1]["item_id"])
        kept = (await caller.until("conversation.item.retrieved"))[-1]["item"]["content"][0]["transcript"]
        written = "".join(e["delta"] for e in events if e["type"] == "response.output_audio_transcript.delta")
        assert len(kept) < len(written)
        caller.say("response.cancel")
        caller.say("output_audio_buffer.clear")

    call(server, act)


@pytest.mark.parametrize("body", [b"", b"hello", b"v=0\r\n", b"\xff" * 100, b"v" * 100_000, b"v=0\r\nm=audio x y\r\n"])
def test_a_wrong_offer_is_refused(client: httpx.Client, body: bytes) -> None:
    told = client.post("/v1/realtime/calls", content=body, headers={"content-type": "application/sdp"})
    assert told.status_code == 400 and told.json()["error"]["code"] == "invalid_value"


def test_a_call_needs_an_offer_and_a_session_that_is_one(client: httpx.Client) -> None:
    assert client.post("/v1/realtime/calls", json={}).status_code == 415
    assert client.post("/v1/realtime/calls", files={"sdp": (None, "x"), "session": (None, "[]")}).status_code == 400
    assert client.post("/v1/realtime/calls/nobody/hangup").status_code == 404


def test_a_ticket_makes_a_call_with_its_session(server: Running) -> None:
    bought = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY).realtime.client_secrets.create(
        session={"type": "realtime", "instructions": "be kind"}
    )

    async def run() -> None:
        caller = Caller()
        headers = {"authorization": f"Bearer {bought.value}", "content-type": "application/sdp"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
            offer = await caller.offer()
            told = await client.post("/v1/realtime/calls", content=offer)
            assert (await client.post("/v1/realtime/calls", content=offer)).status_code == 401
            await caller.take(told.text)
            assert (await caller.until("session.created"))[-1]["session"]["instructions"] == "be kind"
            await caller.peer.close()

    asyncio.run(run())
    assert server.idle()
