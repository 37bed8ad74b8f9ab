"""POST /v1/responses: OpenAI's newer form of one answer in text, whole or as a stream of typed events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from descant.engine.answer import Answer
from descant.errors import RequestError
from descant.server.chat import sampling_of
from descant.server.conversation import check_supported, message_of
from descant.server.realtime_session import renamed
from descant.server.schema import MAX_MESSAGES, ResponsesBody
from descant.server.sse import sse
from descant.server.state import ServerState
from descant.types import AnswerOptions, Finished, Message, TextDelta, system, user


async def begin_response(state: ServerState, body: ResponsesBody) -> TextResponse:
    """The answer to a request, begun. Raises RequestError and OptionError."""
    check_supported(
        {
            "tools": body.tools,
            "previous_response_id": body.previous_response_id,
            "background": body.background,
            "text.format": (body.text or {}).get("format", {"type": "text"}) != {"type": "text"},
        }
    )
    omni = state.omni
    messages = messages_of_input(body)
    options: AnswerOptions = {
        "speech": False,
        "max_tokens": body.max_output_tokens,
        "sampling": sampling_of(omni.checkpoint.generation.text, temperature=body.temperature, top_p=body.top_p),
        "seed": body.seed,
    }
    return TextResponse(await omni.achat(messages, **options), body.model or state.settings.model)


def messages_of_input(body: ResponsesBody) -> list[Message]:
    """The instructions and the input items as messages."""
    messages = [] if body.instructions is None else [system(body.instructions)]
    if isinstance(body.input, str):
        return [*messages, user(body.input)]
    if len(body.input) > MAX_MESSAGES:
        raise RequestError(413, "too_many_items", f"at most {MAX_MESSAGES} items are read", param="input")
    for place, item in enumerate(body.input):
        content = item.get("content")
        row = {**item, "content": [renamed(part) for part in content] if isinstance(content, list) else content}
        messages.append(message_of(row, f"input[{place}]", lambda _: None, video_sound=True))
    return messages


@dataclass
class TextResponse:
    """One answer on its way. finished: the engine's last event."""

    answer: Answer
    model: str
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(16)}")
    item: str = field(default_factory=lambda: f"msg_{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    text: str = ""
    finished: Finished | None = None

    @property
    def part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def message(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part]
        return {"type": "message", "id": self.item, "status": status, "role": "assistant", "content": content}

    @property
    def status(self) -> str:
        if self.finished is None:
            return "in_progress"
        return "incomplete" if self.finished.reason == "length" else "completed"

    def record(self) -> dict[str, Any]:
        """The response object so far."""
        cut = {"reason": "max_output_tokens"} if self.status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "error": None,
            "incomplete_details": cut,
            "instructions": None,
            "metadata": {},
            "model": self.model,
            "output": [] if self.finished is None else [self.message(self.status)],
            "parallel_tool_calls": False,
            "temperature": None,
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
            "usage": self.usage(),
        }

    def usage(self) -> dict[str, Any] | None:
        if self.finished is None:
            return None
        counts = self.finished.usage
        return {
            "input_tokens": counts.prompt_tokens,
            "input_tokens_details": {"cached_tokens": counts.prompt_tokens - counts.prefilled_tokens},
            "output_tokens": counts.text_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counts.prompt_tokens + counts.text_tokens,
        }

    async def whole(self, state: ServerState) -> dict[str, Any]:
        """The response, made to its end. Leaving it cancels the answer."""
        try:
            async for event in self.answer:
                if isinstance(event, TextDelta):
                    self.text += event.text
                elif isinstance(event, Finished):
                    self.finished = event
                    state.figures.add(event)
        except asyncio.CancelledError:
            self.answer.cancel()
            raise
        return self.record()

    async def events(self, state: ServerState) -> AsyncGenerator[bytes, None]:
        """The typed events of the answer."""
        place = {"item_id": self.item, "output_index": 0, "content_index": 0}
        number = 0

        def event(kind: str, fields: dict[str, Any]) -> bytes:
            nonlocal number
            number += 1
            return f"event: {kind}\n".encode() + sse({"type": kind, "sequence_number": number - 1, **fields})

        try:
            yield event("response.created", {"response": self.record()})
            yield event("response.output_item.added", {"output_index": 0, "item": self.message("in_progress")})
            yield event("response.content_part.added", {**place, "part": self.part})
            async for told in self.answer:
                if isinstance(told, TextDelta):
                    self.text += told.text
                    yield event("response.output_text.delta", {**place, "delta": told.text, "logprobs": []})
                elif isinstance(told, Finished):
                    self.finished = told
                    state.figures.add(told)
            yield event("response.output_text.done", {**place, "text": self.text, "logprobs": []})
            yield event("response.content_part.done", {**place, "part": self.part})
            yield event("response.output_item.done", {"output_index": 0, "item": self.message(self.status)})
            yield event(f"response.{self.status}", {"response": self.record()})
        finally:
            self.answer.cancel()
