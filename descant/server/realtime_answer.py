"""One answer of the realtime protocol, as its events."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from descant.engine.answer import Answer
from descant.errors import DescantError
from descant.pcm import to_pcm16
from descant.server.errors import body_of_error, request_error
from descant.server.realtime_session import new_id
from descant.types import AudioChunk, Finished, TextDelta

SendEvent = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass
class RealtimeAnswer:
    """An answer that is being made. metadata: the client's, told back; reason: why it was stopped, if it was;
    finished, error: how it ended."""

    answer: Answer
    spoken: bool
    metadata: object = None
    id: str = field(default_factory=lambda: new_id("resp"))
    item: str = field(default_factory=lambda: new_id("item"))
    text: str = ""
    reason: str | None = None
    finished: Finished | None = None
    error: DescantError | None = None
    task: asyncio.Task[None] | None = None

    @property
    def place(self) -> dict[str, Any]:
        """The fields that say where a delta belongs."""
        return {"response_id": self.id, "item_id": self.item, "output_index": 0, "content_index": 0}

    @property
    def content(self) -> dict[str, Any]:
        """The answer so far, as a part of an item."""
        if self.spoken:
            return {"type": "output_audio", "transcript": self.text}
        return {"type": "output_text", "text": self.text}

    @property
    def part(self) -> dict[str, Any]:
        """The same in ``response.content_part`` events, where the types are "audio" and "text"."""
        return {**self.content, "type": "audio" if self.spoken else "text"}

    def in_output(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"response_id": self.id, "output_index": 0, "item": item}

    def message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        """The item of the conversation that the answer is."""
        return {"id": self.item, "type": "message", "role": "assistant", "status": status, "content": content}

    # ------------------------------------------------------------ its events

    async def tell(self, send: SendEvent) -> None:
        """Send the events of the answer, but for those that close it."""
        await send("response.created", {"response": self.record("in_progress")})
        await send("response.output_item.added", self.in_output(self.message("in_progress", [])))
        await send("response.content_part.added", {**self.place, "part": self.part})
        words = "response.output_audio_transcript" if self.spoken else "response.output_text"
        try:
            async for event in self.answer:
                if isinstance(event, TextDelta):
                    self.text += event.text
                    await send(f"{words}.delta", {**self.place, "delta": event.text})
                elif isinstance(event, AudioChunk):
                    data = b64encode(to_pcm16(event.samples)).decode()
                    await send("response.output_audio.delta", {**self.place, "delta": data})
                elif isinstance(event, Finished):
                    self.finished = event
        except DescantError as error:
            self.error = error

    async def tell_end(self, send: SendEvent) -> None:
        """Send the events that close the answer, whatever came of it."""
        if self.spoken:
            await send("response.output_audio.done", self.place)
            await send("response.output_audio_transcript.done", {**self.place, "transcript": self.text})
        else:
            await send("response.output_text.done", {**self.place, "text": self.text})
        await send("response.content_part.done", {**self.place, "part": self.part})
        status, details = self.outcome()
        item = self.message("completed" if status == "completed" else "incomplete", [self.content])
        await send("response.output_item.done", self.in_output(item))
        record = self.record(status) | {"status_details": details, "output": [item], "usage": self.usage()}
        await send("response.done", {"response": record})

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
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": [],
            "output_modalities": ["audio"] if self.spoken else ["text"],
            "metadata": self.metadata,
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
