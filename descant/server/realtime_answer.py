"""One answer of the realtime protocol, as its events.

response.created
  what is said   output_item.added, content_part.added, deltas of text, sound, content_part.done, output_item.done
  each call      output_item.added, function_call_arguments.delta, function_call_arguments.done, output_item.done
response.done
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from descant.config import OUTPUT_RATE_HZ
from descant.engine.answer import Answer
from descant.errors import DescantError
from descant.server.errors import body_of_error, request_error
from descant.server.realtime_items import TalkItem
from descant.server.realtime_session import Format, new_id
from descant.server.tools import call_item
from descant.server.voice_formats import SoundArray, SoundWriter
from descant.tools import ToolCall
from descant.types import AudioChunk, Called, Finished, TextDelta

if TYPE_CHECKING:
    from descant.server.realtime import RealtimeTalk


@dataclass(frozen=True)
class AnswerTerms:
    """The terms of one answer. kept: it becomes part of the conversation; beside: it answers messages of its own, or
    nobody keeps it; metadata: what the client gave, and is told
    again; speed: of the sound; voice: as it was asked for."""

    spoken: bool
    kept: bool = True
    beside: bool = False
    form: Format = field(default_factory=Format)
    speed: float = 1.0
    voice: str = "default"
    metadata: dict[str, Any] | None = None
    most_tokens: int | None = None


@dataclass(eq=False)
class RealtimeAnswer:
    """An answer that is being made. reason: why it was stopped, if it was; finished, error: how it ended."""

    talk: RealtimeTalk
    answer: Answer
    terms: AnswerTerms
    id: str = field(default_factory=lambda: new_id("resp"))
    item: TalkItem | None = None  # what is said
    output: list[TalkItem] = field(default_factory=list)
    text: str = ""
    reason: str | None = None
    finished: Finished | None = None
    error: DescantError | None = None
    task: asyncio.Task[None] | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # its first sound or word is out, or it is over
    first_sound_s: float = 0.0  # on the event loop's clock
    samples: int = 0

    # ------------------------------------------------------------ its events

    async def tell(self) -> None:
        """Send the events of the answer, but for those that close it."""
        await self.talk.send("response.created", {"response": self.record("in_progress")})
        writer = SoundWriter(self.terms.form.coding, self.terms.speed)
        try:
            async for event in self.answer:
                if isinstance(event, TextDelta):
                    await self._write(event.text)
                elif isinstance(event, AudioChunk):
                    await self._sound(writer, event.samples)
                elif isinstance(event, Called):
                    await self._call(event.call)
                elif isinstance(event, Finished):
                    self.finished = event
            if self.samples and (line := self.talk.channel.line) is not None:
                await line.play(self, writer.tempo.finish())
            elif self.samples:
                await self._send_sound(writer.finish())
        except DescantError as error:
            self.error = error
        finally:
            self.heard.set()

    async def tell_end(self) -> None:
        """Send the events that close the answer, whatever came of it."""
        status, details = self.outcome()
        if self.finished is not None and not self.output:
            await self._open_message()
        if self.item is not None:
            await self._close_message(self.item, "completed" if status == "completed" else "incomplete")
        record = self.record(status) | {"status_details": details, "usage": self.usage()}
        await self.talk.send("response.done", {"response": record})

    async def _open_message(self) -> None:
        """The item of what is said begins, unless it has."""
        if self.item is not None:
            return
        record = {"id": new_id("item"), "object": "realtime.item", "type": "message", "role": "assistant"}
        key = None if self.terms.beside else self.answer.number
        self.item = TalkItem(record | {"status": "in_progress", "content": []}, key, self.terms.speed)
        await self._open(self.item)
        await self.talk.send("response.content_part.added", {**self.place, "part": self.part})

    async def _close_message(self, item: TalkItem, status: str) -> None:
        """The item of what was said is complete."""
        if self.terms.spoken:
            await self.talk.send("response.output_audio.done", self.place)
            words = {**self.place, "transcript": self.text}
            await self.talk.send("response.output_audio_transcript.done", words)
        else:
            await self.talk.send("response.output_text.done", {**self.place, "text": self.text})
        await self.talk.send("response.content_part.done", {**self.place, "part": self.part})
        item.record |= {"status": status, "content": [self.content]}
        await self._close(item)

    async def _open(self, item: TalkItem) -> None:
        self.output.append(item)
        place = {"response_id": self.id, "output_index": len(self.output) - 1}
        await self.talk.send("response.output_item.added", {**place, "item": item.record})
        if self.terms.kept:
            before = self.talk.items.put(item)
            await self.talk.send("conversation.item.added", {"previous_item_id": before, "item": item.record})

    async def _close(self, item: TalkItem) -> None:
        place = {"response_id": self.id, "output_index": self.output.index(item)}
        await self.talk.send("response.output_item.done", {**place, "item": item.record})
        if self.terms.kept:
            before = self.talk.items.before(item)
            await self.talk.send("conversation.item.done", {"previous_item_id": before, "item": item.record})

    async def _write(self, text: str) -> None:
        await self._open_message()
        self.text += text
        words = "response.output_audio_transcript" if self.terms.spoken else "response.output_text"
        await self.talk.send(f"{words}.delta", {**self.place, "delta": text})
        if not self.terms.spoken:
            self.heard.set()

    async def _sound(self, writer: SoundWriter, samples: SoundArray) -> None:
        """Sound leaves as it comes: by the line if there is one, else as events."""
        await self._open_message()
        if not self.samples:
            self.first_sound_s = asyncio.get_running_loop().time()
        self.samples += len(samples)
        if (line := self.talk.channel.line) is not None:
            await line.play(self, writer.tempo.push(samples))
        else:
            await self._send_sound(writer.push(samples))
        self.heard.set()

    async def _send_sound(self, data: str) -> None:
        if data:
            await self.talk.send("response.output_audio.delta", {**self.place, "delta": data})

    async def _call(self, call: ToolCall) -> None:
        """The model calls a tool: an item of its own, never spoken."""
        call = ToolCall(call.name, call.arguments, call.id or new_id("call"))
        item = TalkItem({"object": "realtime.item", **call_item(call, "in_progress"), "arguments": ""})
        await self._open(item)
        place = {"response_id": self.id, "item_id": item.id, "output_index": len(self.output) - 1, "call_id": call.id}
        name = "response.function_call_arguments"
        await self.talk.send(f"{name}.delta", {**place, "delta": call.arguments})
        await self.talk.send(f"{name}.done", {**place, "name": call.name, "arguments": call.arguments})
        item.record |= {"status": "completed", "arguments": call.arguments}
        await self._close(item)

    # ------------------------------------------------------------ its records

    @property
    def place(self) -> dict[str, Any]:
        """The fields that say where a delta belongs."""
        assert self.item is not None  # nothing is said before it
        index = self.output.index(self.item)
        return {"response_id": self.id, "item_id": self.item.id, "output_index": index, "content_index": 0}

    @property
    def content(self) -> dict[str, Any]:
        """The answer so far, as a part of an item."""
        if self.terms.spoken:
            return {"type": "output_audio", "transcript": self.text}
        return {"type": "output_text", "text": self.text}

    @property
    def part(self) -> dict[str, Any]:
        """The same in ``response.content_part`` events, where the types are "audio" and "text"."""
        return {**self.content, "type": "audio" if self.terms.spoken else "text"}

    def unplayed_s(self, now: float) -> float:
        """Seconds of its sound that a listener who plays in real time has not heard yet."""
        return (
            max(0.0, self.first_sound_s + self.samples / OUTPUT_RATE_HZ / self.terms.speed - now)
            if self.samples
            else 0.0
        )

    def outcome(self) -> tuple[str, dict[str, Any] | None]:
        """(status, status_details) at the end."""
        if self.error is not None:
            return "failed", {"type": "failed", "error": body_of_error(request_error(self.error))["error"]}
        if self.finished is None:
            return "cancelled", {"type": "cancelled", "reason": self.reason or "client_cancelled"}
        if self.finished.reason == "length":
            return "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
        return "completed", None

    def record(self, status: str) -> dict[str, Any]:
        """The response object."""
        terms = self.terms
        most = terms.most_tokens
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "conversation_id": self.talk.conversation_id if terms.kept else None,
            "output": [item.record for item in self.output],
            "output_modalities": ["audio"] if terms.spoken else ["text"],
            "max_output_tokens": "inf" if most is None else most,
            "audio": {"output": {"format": terms.form.model_dump(), "voice": terms.voice}},
            "metadata": terms.metadata,
            "usage": None,
        }

    def usage(self) -> dict[str, Any] | None:
        """Counts, once it is finished."""
        if self.finished is None:
            return None
        counts = self.finished.usage
        made = counts.text_tokens + counts.codes
        return {
            "input_tokens": counts.prompt_tokens,
            "output_tokens": made,
            "total_tokens": counts.prompt_tokens + made,
            "input_token_details": {"cached_tokens": counts.prompt_tokens - counts.prefilled_tokens},
            "output_token_details": {"text_tokens": counts.text_tokens, "audio_tokens": counts.codes},
        }
