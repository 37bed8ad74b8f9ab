"""/v1/realtime, OpenAI's protocol over a WebSocket: a live talk, heard while it goes on.

    client   session.update, input_audio_buffer.append     response.create, response.cancel, item.truncate
                        |                                                |
             VAD or commit --> LiveSession: prefilled as it is pushed -- respond() --> deltas of text and sound

One socket is one live session. Its instructions are those of the first input; unknown fields are ignored, and what is
wrong is an error event: the socket stays open.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from descant.engine.live import LiveSession
from descant.errors import DescantError, RequestError
from descant.server.conversation import bytes_of, part_of
from descant.server.dialects import Dialect
from descant.server.errors import body_of_error, request_error
from descant.server.realtime_answer import RealtimeAnswer
from descant.server.realtime_session import (
    DEFAULTS,
    at,
    check_session,
    deep_merged,
    new_id,
    renamed,
    samples_of,
    vad_settings,
)
from descant.server.state import ServerState
from descant.server.vad import EnergyVad
from descant.types import TRANSCRIBE, AnswerOptions, Audio, Finished, user

EVENT_BYTES = 16 << 20  # of one event
KEPT_SOUND_S = 300.0  # of the turn's sound, for its transcript
SHORTEST_TURN_S = 0.1  # less is no speech: a false start


@dataclass
class Turn:
    """The sound of the turn that is coming in. item: its id; pcm: what was heard, for a transcript."""

    item: str = field(default_factory=lambda: new_id("item"))
    pcm: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


class RealtimeTalk:
    """One socket."""

    def __init__(self, socket: WebSocket, state: ServerState, dialect: Dialect):
        self.socket = socket
        self.state = state
        self.dialect = dialect
        self.config = deep_merged(DEFAULTS, {"model": state.settings.model, "id": new_id("sess")})
        self.live: LiveSession | None = None
        self.turn = Turn()
        self.before: deque[np.ndarray] = deque()  # sound before speech begins: the padding
        self.vad: EnergyVad | None = None
        self.response: RealtimeAnswer | None = None
        self.heard_s = 0.0  # of sound in all
        self.last_spoken: RealtimeAnswer | None = None
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ the socket

    async def run(self) -> None:
        """Until the client leaves, is silent for too long, or has been here for long enough."""
        await self.send("session.created", {"session": self.config})
        limits = self.state.settings
        end = asyncio.get_running_loop().time() + limits.session_s
        try:
            while (left := end - asyncio.get_running_loop().time()) > 0:
                async with asyncio.timeout(min(limits.idle_s, left)):
                    text = await self.socket.receive_text()
                await self.take(text)
            await self.leave("session_expired", f"a session lasts {limits.session_s:g} s; open another", 1001)
        except TimeoutError:
            await self.leave("idle_timeout", "nothing came for too long, or the session has lasted long enough", 1008)
        except (
            WebSocketDisconnect,
            RuntimeError,
            KeyError,
        ):  # KeyError: a binary message, which the protocol does not have
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            if self.live is not None:
                await asyncio.to_thread(self.live.close)

    async def leave(self, code: str, message: str, close_code: int) -> None:
        """Say why, and close the socket."""
        with suppress(RuntimeError, WebSocketDisconnect):  # the client may have gone
            await self.send("error", body_of_error(RequestError(408, code, message)))
            await self.socket.close(close_code)

    async def send(self, kind: str, fields: dict[str, Any] | None = None) -> None:
        """One server event, in the words of the client's dialect."""
        known = self.dialect.event(kind, fields or {})
        if known is None:
            return
        event = {"type": known[0], "event_id": new_id("event"), **known[1]}
        async with self._sending:
            await self.socket.send_text(json.dumps(event))

    async def take(self, text: str) -> None:
        """One client event; what is wrong with it is told, and nothing else is lost."""
        event: object = None
        try:
            with suppress(ValueError, RecursionError):
                event = json.loads(text)
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                raise RequestError(400, "invalid_json", "an event is a JSON object with a type")
            act = HANDLERS.get(event["type"])
            if act is None:
                raise RequestError(400, "unknown_event", "there is no client event of this type")
            await act(self, event)
        except DescantError as error:
            told = body_of_error(request_error(error))["error"]
            told["event_id"] = event.get("event_id") if isinstance(event, dict) else None
            await self.send("error", {"error": told})

    # ------------------------------------------------------------ the session

    @property
    def input(self) -> dict[str, Any]:
        return self.config["audio"]["input"]  # type: ignore[no-any-return]

    @property
    def spoken(self) -> bool:
        return "audio" in self.config["output_modalities"] and self.state.omni.speaks

    async def session(self) -> LiveSession:
        """The live session, opened at the first input."""
        if self.live is None:
            voice = self.config["audio"]["output"].get("voice")
            name = voice.get("id") if isinstance(voice, dict) else voice
            options: AnswerOptions = {"speech": self.spoken}
            if self.spoken:
                options["voice"] = self.state.voice(name if isinstance(name, str) else None)
            self.live = await self.state.omni.asession(instructions=self.config["instructions"], **options)
        return self.live

    async def update(self, event: dict[str, Any]) -> None:
        given = event.get("session")
        if not isinstance(given, dict):
            raise RequestError(400, "invalid_value", "session.update has no session", param="session")
        after = deep_merged(self.config, self.dialect.session(given))
        fixed = [("instructions",), ("output_modalities",), ("audio", "output", "voice")]
        if self.live is not None and any(at(after, path) != at(self.config, path) for path in fixed):
            raise RequestError(
                400, "session_begun", "instructions, modalities and voice are those of the first input; open another"
            )
        check_session(after)
        self.config = after
        self.vad = None
        await self.send("session.updated", {"session": self.config})

    # ------------------------------------------------------------ sound in

    async def append(self, event: dict[str, Any]) -> None:
        samples = samples_of(event.get("audio"))
        detection = self.input.get("turn_detection")
        if detection is None:
            await self.hear(samples)
            return
        if self.vad is None:
            self.vad = EnergyVad(self.dialect.rate_hz, vad_settings(detection))
        self.before.append(samples)
        speaking = self.vad.speaking
        for what in list(self.vad.push(samples)):
            if what.kind == "started":
                await self.begin_turn(detection, what.at_s)
            else:
                await self.end_turn(detection, what.at_s)
        if self.vad.speaking or speaking:
            await self.hear_before()
        self.forget_before(self.vad.settings.padding_s)

    async def begin_turn(self, detection: dict[str, Any], at_s: float) -> None:
        await self.send(
            "input_audio_buffer.speech_started", {"audio_start_ms": round(1000 * at_s), "item_id": self.turn.item}
        )
        if self.response is not None and detection.get("interrupt_response", True):
            await self.stop("turn_detected")
        await self.hear_before()

    async def end_turn(self, detection: dict[str, Any], at_s: float) -> None:
        await self.hear_before()
        await self.send(
            "input_audio_buffer.speech_stopped", {"audio_end_ms": round(1000 * at_s), "item_id": self.turn.item}
        )
        await self.commit({})
        if detection.get("create_response", True):
            await self.respond({})

    async def hear_before(self) -> None:
        while self.before:
            await self.hear(self.before.popleft())

    def forget_before(self, seconds: float) -> None:
        """Keep of the sound before speech no more than its padding."""
        kept = sum(map(len, self.before))
        while self.before and kept - len(self.before[0]) >= seconds * self.dialect.rate_hz:
            kept -= len(self.before.popleft())

    async def hear(self, samples: np.ndarray) -> None:
        """Sound that belongs to the turn: read while it comes in."""
        if len(samples):
            await (await self.session()).apush_audio(samples, self.dialect.rate_hz)
            self.turn.seconds += len(samples) / self.dialect.rate_hz
            if self.turn.seconds <= KEPT_SOUND_S:
                self.turn.pcm.append(samples)

    async def see(self, event: dict[str, Any]) -> None:
        """A camera's frame, on the clock of the sound."""
        image = bytes_of(event.get("image"), "image")
        await (await self.session()).apush_frame(image, self.turn.seconds)

    async def commit(self, event: dict[str, Any]) -> None:
        turn = self.turn
        if turn.seconds < SHORTEST_TURN_S:
            raise RequestError(400, "input_audio_buffer_commit_empty", "there is no sound in the buffer to commit")
        self.turn = Turn()
        await self.send("input_audio_buffer.committed", {"item_id": turn.item, "previous_item_id": None})
        content = [{"type": "input_audio", "transcript": None}]
        await self.added(
            {"id": turn.item, "type": "message", "role": "user", "status": "completed", "content": content}
        )
        if self.input.get("transcription") is not None:
            self.start(self.transcribe(turn))

    async def clear(self, event: dict[str, Any]) -> None:
        self.before.clear()
        self.turn = Turn()
        if self.live is not None:
            await self.live.aclear()
        await self.send("input_audio_buffer.cleared")

    async def transcribe(self, turn: Turn) -> None:
        """Write down what was said, beside the answer."""
        name = "conversation.item.input_audio_transcription"
        try:
            sound = Audio(np.concatenate(turn.pcm), self.dialect.rate_hz)
            text = ""
            async for event in await self.state.omni.achat([user(sound, TRANSCRIBE)], speech=False):
                if isinstance(event, Finished):
                    text = event.text
            fields = {"item_id": turn.item, "content_index": 0, "transcript": text}
            await self.send(f"{name}.completed", fields | {"usage": {"type": "duration", "seconds": turn.seconds}})
        except DescantError as error:
            told = body_of_error(request_error(error))["error"]
            await self.send(f"{name}.failed", {"item_id": turn.item, "content_index": 0, "error": told})

    # ------------------------------------------------------------ items

    async def finish(self, event: dict[str, Any]) -> None:
        """The older protocol's word for the end: the answer that is being made is made to its end."""
        if self.response is not None and self.response.task is not None:
            await asyncio.wait([self.response.task])
        await self.send("session.finished")
        await self.socket.close()

    async def create_item(self, event: dict[str, Any]) -> None:
        item = event.get("item")
        if not isinstance(item, dict) or item.get("type") != "message" or item.get("role") != "user":
            raise RequestError(400, "unsupported_item", "items are messages of the user here", param="item")
        content = item.get("content")
        parts = [
            part_of(renamed(part), f"item.content[{n}]", video_sound=False) for n, part in enumerate(content or [])
        ]
        await (await self.session()).aadd(*parts)
        await self.added({"id": new_id("item"), "status": "completed", **item})

    async def added(self, item: dict[str, Any]) -> None:
        await self.send("conversation.item.added", {"previous_item_id": None, "item": item})
        await self.send("conversation.item.done", {"previous_item_id": None, "item": item})

    async def truncate(self, event: dict[str, Any]) -> None:
        heard_ms = event.get("audio_end_ms")
        last = self.last_spoken
        if last is None or last.item != event.get("item_id") or self.live is None:
            raise RequestError(400, "item_not_found", "only the last spoken item can be truncated", param="item_id")
        if not isinstance(heard_ms, int) or isinstance(heard_ms, bool) or heard_ms < 0:
            raise RequestError(400, "invalid_value", "audio_end_ms is milliseconds, 0 or more", param="audio_end_ms")
        await asyncio.to_thread(self.live.truncate, heard_ms / 1000)
        fields = {"item_id": last.item, "content_index": 0, "audio_end_ms": heard_ms}
        await self.send("conversation.item.truncated", {**fields})

    # ------------------------------------------------------------ answers

    async def respond(self, event: dict[str, Any]) -> None:
        if self.response is not None:
            raise RequestError(
                400, "conversation_already_has_active_response", "an answer is being made; cancel it first"
            )
        most = self.config["max_output_tokens"]
        wish = event.get("response")
        given = wish if isinstance(wish, dict) else {}
        if isinstance(given.get("max_output_tokens"), int):
            most = given["max_output_tokens"]
        if self.live is None:
            raise RequestError(400, "invalid_state", "there is nothing to answer: send sound or an item first")
        answer = await self.live.arespond(max_tokens=most if isinstance(most, int) else None)
        self.response = RealtimeAnswer(answer, self.spoken, given.get("metadata"))
        self.response.task = self.start(self.tell(self.response))

    async def cancel(self, event: dict[str, Any]) -> None:
        if self.response is None:
            raise RequestError(400, "response_cancel_not_active", "no answer is being made")
        await self.stop("client_cancelled")

    async def stop(self, reason: str) -> None:
        """End the answer that is being made; what it wrote stays in the conversation until it is truncated."""
        response = self.response
        if response is None or self.live is None:
            return
        response.reason = reason
        await asyncio.to_thread(self.live.cancel)
        if response.task is not None:
            await asyncio.wait([response.task])

    async def tell(self, response: RealtimeAnswer) -> None:
        """One answer, told to its end; from there on the next one may begin."""
        await response.tell(self.send)
        if response.finished is not None:
            self.state.figures.add(response.finished)
        self.response = None
        if response.spoken:
            self.last_spoken = response
        await response.tell_end(self.send)

    def start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Work beside the socket's loop, which ends with it."""
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


RealtimeHandler = Callable[[RealtimeTalk, dict[str, Any]], Awaitable[None]]
HANDLERS: dict[str, RealtimeHandler] = {
    "session.update": RealtimeTalk.update,
    "input_audio_buffer.append": RealtimeTalk.append,
    "input_audio_buffer.commit": RealtimeTalk.commit,
    "input_audio_buffer.clear": RealtimeTalk.clear,
    "input_image_buffer.append": RealtimeTalk.see,
    "conversation.item.create": RealtimeTalk.create_item,
    "conversation.item.truncate": RealtimeTalk.truncate,
    "response.create": RealtimeTalk.respond,
    "response.cancel": RealtimeTalk.cancel,
    "session.finish": RealtimeTalk.finish,
}
