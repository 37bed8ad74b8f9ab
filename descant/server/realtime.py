"""/v1/realtime, OpenAI's protocol: a live talk, heard while it goes on, over a WebSocket or over WebRTC.

    client events --> RealtimeTalk --> RealtimeInput      sound, frames, turns --> LiveSession, read as it is pushed
                           |     \\--> Items               messages, put in anywhere, taken out, cut to what was heard
                           |      \\-> RealtimeResponses   answers --> deltas of text and sound
                           +-- Channel (the transport), Dialect (older names)

One talk is one live session. Unknown fields are ignored, and what is wrong is an error event: the channel stays open.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from descant.engine.live import LiveSession
from descant.errors import DescantError, RequestError, SessionError
from descant.server.chat import sampling_of
from descant.server.dialects import Dialect
from descant.server.errors import body_of_error, request_error, wrong
from descant.server.realtime_channel import Channel, Played
from descant.server.realtime_input import LARGE_CHARACTERS, RealtimeInput
from descant.server.realtime_items import (
    MAX_ITEMS,
    Items,
    TalkItem,
    item_record,
    layout_record,
    message_of_item,
    without_media,
)
from descant.server.realtime_responses import RealtimeResponses, voice_fixed
from descant.server.realtime_session import RealtimeSession, event_of, new_id
from descant.server.state import ServerState
from descant.server.tools import read_tool_use
from descant.types import AnswerOptions, Memory

log = logging.getLogger(__name__)
EVENT_BYTES = 16 << 20  # of one event
CONTROL_BYTES = 256 << 10  # of one that carries no media
MEDIA_EVENTS = frozenset(
    {"input_audio_buffer.append", "input_image_buffer.append", "conversation.item.create", "response.create"}
)
MID_TURN_S = 30.0  # without a word in the middle of a turn: then it is forgotten
NOTICE_S = 60.0  # before the end of a session: then it is told


class RealtimeTalk:
    """One talk with one client."""

    def __init__(self, channel: Channel, state: ServerState, dialect: Dialect, config: RealtimeSession | None = None):
        self.channel = channel
        self.state = state
        self.dialect = dialect
        self.config = config or dialect.defaults()
        self.id = new_id("sess")
        self.conversation_id = new_id("conv")
        self.expires_at = int(time.time() + state.settings.session_s)
        self.live: LiveSession | None = None
        self.items = Items()
        self.input = RealtimeInput(self)
        self.responses = RealtimeResponses(self)
        self.may_speak = True  # it opens, or has opened, with speech
        self.heard_s = 0.0  # when the client last said something, on the event loop's clock
        self._sending = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ the channel

    async def run(self) -> None:
        """Until the client leaves, is silent for too long, or has been here for long enough."""
        await self.send("session.created", {"session": self.record()})
        limits = self.state.settings
        loop = asyncio.get_running_loop()
        self.heard_s = loop.time()
        end = self.heard_s + limits.session_s
        notice = self.start(self._give_notice(limits.session_s - NOTICE_S))
        try:
            while loop.time() < end:
                try:
                    async with asyncio.timeout_at(min(self.heard_s + self.patience_s, end)):
                        came = await self.channel.receive()
                except TimeoutError:
                    if loop.time() < end and not await self._forgive():
                        return
                    continue
                if came is None:
                    return
                self.heard_s = loop.time()
                await (self.take(came) if isinstance(came, str) else self.input.take(came))
            await self.leave("session_expired", f"a session lasts {limits.session_s:g} s; open another", 1001)
        finally:
            notice.cancel()
            await self.end()

    @property
    def patience_s(self) -> float:
        """Seconds that the client may be silent now."""
        idle_s = self.state.settings.idle_s
        return min(MID_TURN_S, idle_s) if self.input.turn.seconds else idle_s

    async def _forgive(self) -> bool:
        """Nothing came for a while; returns whether the talk goes on."""
        loop = asyncio.get_running_loop()
        if loop.time() < self.heard_s + self.patience_s:
            return True  # something came by another way
        if self.input.turn.seconds:
            self.heard_s = loop.time()
            await self.input.abandon()
            return True
        await self.leave("idle_timeout", "nothing came for too long", 1008)
        return False

    async def end(self) -> None:
        """Let go of everything."""
        self.input.close()
        for task in list(self._tasks):
            task.cancel()
        if self.live is not None:
            await asyncio.to_thread(self.live.close)

    async def leave(self, code: str, message: str, close_code: int) -> None:
        """Say why, and close the channel."""
        await self.send("error", body_of_error(RequestError(408, code, message)))
        await self.channel.close(close_code)

    async def send(self, kind: str, fields: dict[str, Any] | None = None) -> None:
        """One server event, in the words of the client's dialect."""
        known = self.dialect.event(kind, fields or {})
        if known is None:
            return
        event = {"type": known[0], "event_id": new_id("event"), **known[1]}
        async with self._sending:
            await self.channel.send(json.dumps(event))

    async def take(self, text: str) -> None:
        """One client event; what is wrong with it is told, and nothing else is lost."""
        name: object = None
        try:
            large = len(text) > LARGE_CHARACTERS
            event = await asyncio.to_thread(event_of, text) if large else event_of(text)
            name = event.get("event_id")
            act = HANDLERS.get(event["type"])
            if act is None:
                raise RequestError(400, "unknown_event", "there is no client event of this type")
            if len(text) > CONTROL_BYTES and event["type"] not in MEDIA_EVENTS:
                raise RequestError(413, "event_too_large", f"this event has at most {CONTROL_BYTES:,} bytes")
            await act(self, event)
        except DescantError as error:
            told = body_of_error(request_error(error))["error"]
            told["event_id"] = name if isinstance(name, str) else None
            await self.send("error", {"error": told})

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work beside the channel's loop, which ends with it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Work has ended. A fault of ours ends the talk: whoever waits for the rest of it must not wait for ever."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a realtime talk failed", exc_info=error)
            self._tasks.add(closing := asyncio.ensure_future(self.channel.close(1011)))
            closing.add_done_callback(self._tasks.discard)

    async def _give_notice(self, wait_s: float) -> None:
        """Tell that the session is about to end."""
        if wait_s <= 0:
            return
        await asyncio.sleep(wait_s)
        message = f"the session ends in {NOTICE_S:g} s; open another"
        await self.send("error", body_of_error(RequestError(408, "session_expires_soon", message)))

    # ------------------------------------------------------------ the session

    @property
    def converses(self) -> bool:
        """True unless it only writes down what is said."""
        return self.config.type == "realtime"

    def record(self) -> dict[str, Any]:
        """The session as clients read it."""
        return self.config.record(self.id, self.state.settings.model, self.expires_at)

    async def session(self) -> LiveSession:
        """The live session, opened at the first input."""
        async with self._opening:
            return self.live or await self._open()

    async def _open(self, *, spoken: bool = False) -> LiveSession:
        config = self.config
        omni = self.state.omni
        self.may_speak = (spoken or config.spoken) and omni.speaks
        options: AnswerOptions = {"speech": self.may_speak}
        if self.may_speak:
            options["voice"] = self.state.voice(config.voice)
        if config.sampling is not None:
            options["sampling"] = sampling_of(omni.checkpoint.generation.text, config.sampling)
            options["seed"] = config.sampling.seed
        memory = Memory(full="refuse" if config.truncation == "disabled" else "drop")
        options["tools"] = read_tool_use(config.tools, config.tool_choice, None, "session.")
        self.live = await omni.asession(instructions=config.instructions, memory=memory, **options)
        return self.live

    async def update(self, event: dict[str, Any]) -> None:
        """session.update."""
        given = event.get("session")
        if not isinstance(given, dict):
            raise wrong("session.update has no session", "session")
        before = self.config
        after = before.updated(self.dialect.session(given))
        use = read_tool_use(after.tools, after.tool_choice, None, "session.")
        if self.responses.sounded and after.voice != before.voice:
            raise voice_fixed()
        self.input.check_change(after.audio.input)
        if self.live is not None:
            if after.type != before.type:
                raise RequestError(400, "session_begun", "the type is that of the first input; open another session")
            told = ("instructions", "tools", "tool_choice")
            if any(vars(after)[name] != vars(before)[name] for name in told):
                await asyncio.to_thread(self.live.instruct, after.instructions, use)
        self.config = after
        if after.audio.input != before.audio.input:
            self.input.reset()
        await self.send("session.updated", {"session": self.record()})

    async def speak_up(self) -> None:
        """The session began with text alone, and is to speak from now on: another takes its place, with all that was
        said. Raises RequestError in the middle of a turn."""
        before = self.live
        if before is None or self.may_speak:
            return
        if self.input.turn.seconds or self.responses.active is not None:
            message = "sound can be asked for between turns: the session began with text alone"
            raise RequestError(400, "invalid_state", message, param="session.output_modalities")
        async with self._opening:
            after = await self._open(spoken=True)
            await asyncio.to_thread(after.begin_with, before)
            await asyncio.to_thread(before.close)

    async def finish(self, event: dict[str, Any]) -> None:
        """The older protocol's word for the end: the answer that is being made is made to its end."""
        active = self.responses.active
        if active is not None and active.task is not None:
            await asyncio.wait([active.task])
        await self.send("session.finished")
        await self.channel.close()

    # ------------------------------------------------------------ items

    async def add_item(self, item: TalkItem, place: int | None = None, shown: dict[str, Any] | None = None) -> None:
        """An item joins the conversation. shown: the item as it was sent, where less of it is kept."""
        before = self.items.put(item, place)
        fields = {"previous_item_id": before, "item": shown or item.record}
        await self.send("conversation.item.added", fields)
        await self.send("conversation.item.done", fields)
        if self.config.tells_layout and item.key is not None:
            self.start(self._tell_layout(item.id, item.key))
        if len(self.items.all) > MAX_ITEMS:
            await self._drop(self.items.all[0])

    async def _tell_layout(self, name: str, key: int) -> None:
        """conversation.item.layout, an extension: where the tokens of an item stand. Beside the answer, which need not
        wait for it; an item that is gone by then has none."""
        assert self.live is not None
        with suppress(SessionError):
            runs = await asyncio.to_thread(self.live.layout, key)
            rate = self.state.omni.checkpoint.config.thinker.ids.position_id_per_seconds
            await self.send("conversation.item.layout", layout_record(name, runs, rate))

    async def create_item(self, event: dict[str, Any]) -> None:
        """conversation.item.create."""
        if not self.converses:
            raise RequestError(400, "invalid_state", "a transcription session has no items but what is said")
        record = item_record(event.get("item"))
        self.items.check_new(record["id"])
        place = self.items.place_after(event.get("previous_item_id"))
        if len(self.items.all) >= MAX_ITEMS and self.config.truncation == "disabled":
            raise RequestError(400, "too_many_items", f"a conversation has at most {MAX_ITEMS} items; delete some")
        message = await asyncio.to_thread(message_of_item, record, self.config.audio.input.format.coding)
        self.input.rest()
        live = await self.session()
        key = await asyncio.to_thread(live.insert, message, self.items.key_before(place))
        await self.add_item(TalkItem(without_media(record), key), place, record)

    async def retrieve(self, event: dict[str, Any]) -> None:
        """conversation.item.retrieve: without the sound and the pictures, which are not kept."""
        await self.send("conversation.item.retrieved", {"item": self.items.get(event.get("item_id")).record})

    async def delete(self, event: dict[str, Any]) -> None:
        """conversation.item.delete."""
        item = self.items.get(event.get("item_id"))
        active = self.responses.active
        if active is not None and item in active.output:
            raise RequestError(400, "invalid_state", "the item is being made; cancel the answer first", param="item_id")
        await self._drop(item)
        await self.send("conversation.item.deleted", {"item_id": item.id})

    async def _drop(self, item: TalkItem) -> None:
        self.items.all.remove(item)
        if item.key is not None and self.live is not None:
            await asyncio.to_thread(self.live.remove, item.key)

    async def truncate(self, event: dict[str, Any]) -> None:
        """conversation.item.truncate: the client says how much of an answer was heard."""
        item = self.items.get(event.get("item_id"))
        heard_ms = event.get("audio_end_ms")
        content = item.record.get("content") or [{}]
        if content[0].get("type") != "output_audio" or item.key is None or self.live is None:
            raise RequestError(400, "item_not_found", "only spoken answers can be truncated", param="item_id")
        if not isinstance(heard_ms, int) or isinstance(heard_ms, bool) or heard_ms < 0:
            raise wrong("audio_end_ms is milliseconds, 0 or more", "audio_end_ms")
        await self.cut(item, heard_ms)

    async def clear_output(self, event: dict[str, Any]) -> None:
        """output_audio_buffer.clear: over WebRTC, where the sound that was not played is here."""
        line = self.channel.line
        if line is None:
            raise RequestError(400, "invalid_state", "what was sent over a WebSocket is the client's to drop")
        await self.cut_off(line.clear())

    async def cut_off(self, played: Played | None) -> None:
        """Sound was dropped before it was played: of its answer only what was heard stays."""
        if played is None:
            return
        response = played.response
        await self.send("output_audio_buffer.cleared", {"response_id": response.id})
        if response.item is not None and response.item.key is not None and self.live is not None:
            await self.cut(response.item, round(1000 * played.heard_s))

    async def cut(self, item: TalkItem, heard_ms: int) -> None:
        """Keep of an answer what was heard of it."""
        assert self.live is not None
        kept = await asyncio.to_thread(self.live.truncate, item.speed * heard_ms / 1000, item.key)
        for part in item.record["content"]:
            part["transcript"] = kept
        fields = {"item_id": item.id, "content_index": 0, "audio_end_ms": heard_ms}
        await self.send("conversation.item.truncated", fields)


RealtimeHandler = Callable[[RealtimeTalk, dict[str, Any]], Awaitable[None]]
HANDLERS: dict[str, RealtimeHandler] = {
    "session.update": RealtimeTalk.update,
    "input_audio_buffer.append": lambda talk, event: talk.input.append(event),
    "input_audio_buffer.commit": lambda talk, event: talk.input.commit(event),
    "input_audio_buffer.clear": lambda talk, event: talk.input.clear(event),
    "input_image_buffer.append": lambda talk, event: talk.input.see(event),
    "output_audio_buffer.clear": RealtimeTalk.clear_output,
    "conversation.item.create": RealtimeTalk.create_item,
    "conversation.item.delete": RealtimeTalk.delete,
    "conversation.item.retrieve": RealtimeTalk.retrieve,
    "conversation.item.truncate": RealtimeTalk.truncate,
    "response.create": lambda talk, event: talk.responses.create(event),
    "response.cancel": lambda talk, event: talk.responses.cancel(event),
    "session.finish": RealtimeTalk.finish,
}
