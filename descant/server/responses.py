"""POST /v1/responses: OpenAI's newer form of one answer in text, whole or as a stream of typed events.

A response is kept for an hour, unless ``store`` is false, and a later one goes on from it by its id.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

from descant.engine.answer import Answer
from descant.errors import RequestError
from descant.server.attachments import with_attachments
from descant.server.chat import sampling_of
from descant.server.conversation import add_call, add_result, check_supported, message_of, result_of
from descant.server.formats import read_schema
from descant.server.media import check_counts
from descant.server.schema import MAX_MESSAGES, ResponsesBody
from descant.server.spoken import token_record
from descant.server.sse import sse
from descant.server.state import ServerState
from descant.server.tools import call_item, read_call, read_tool_use
from descant.types import AnswerOptions, Called, Event, Finished, Message, Text, TextDelta, system, user

TOKENS_INCLUDED = "message.output_text.logprobs"
TypedEvent = tuple[str, dict[str, Any]]  # its type and its other fields


async def begin_response(state: ServerState, body: ResponsesBody) -> TextResponse:
    """The answer to a request, begun. Raises RequestError and OptionError."""
    check_supported(
        {
            "background": body.background,
            "conversation": body.conversation,
            "prompt": body.prompt,
        }
    )
    omni = state.omni
    before = await asyncio.to_thread(before_it, state, body)
    new = tuple(await asyncio.to_thread(messages_of_input, body))
    first = () if body.instructions is None else (system(body.instructions),)
    options: AnswerOptions = {
        "speech": False,
        "max_tokens": body.max_output_tokens,
        "sampling": sampling_of(omni.checkpoint.generation.text, body),
        "seed": body.seed,
        "tools": read_tool_use(body.tools, body.tool_choice, body.parallel_tool_calls),
        "logprobs": (body.top_logprobs or 0) if TOKENS_INCLUDED in (body.include or ()) else None,
        "schema": None if body.text is None else read_schema(body.text.format, "text.format"),
    }
    answer = await omni.achat([*first, *before, *new], **options)
    beside = await asyncio.to_thread(bytes_beside, body)
    return TextResponse(answer, body, body.model or state.settings.model, before, new, beside)


def bytes_beside(body: ResponsesBody) -> int:
    """The size of what a response tells again of its request."""
    form = None if body.text is None else body.text.format
    return len(json.dumps([body.instructions, body.tools, body.tool_choice, body.metadata, form]))


def before_it(state: ServerState, body: ResponsesBody) -> tuple[Message, ...]:
    """The conversation that a response goes on from. Raises RequestError."""
    if body.previous_response_id is None:
        return ()
    try:
        return state.responses.get(body.previous_response_id).messages
    except RequestError as error:
        where = "previous_response_id"
        raise RequestError(error.status, "previous_response_not_found", str(error), param=where) from None


def messages_of_input(body: ResponsesBody) -> list[Message]:
    """The input items as messages."""
    messages: list[Message] = []
    if isinstance(body.input, str):
        return [user(body.input)]
    if len(body.input) > MAX_MESSAGES:
        raise RequestError(413, "too_many_items", f"at most {MAX_MESSAGES} items are read", param="input")
    rows = with_attachments(body.input, "input")
    check_counts(rows)
    for place, item in enumerate(rows):
        where = f"input[{place}]"
        match item.get("type", "message"):
            case "message":
                content = item.get("content")
                row = {**item, "content": [renamed(part) for part in content] if isinstance(content, list) else content}
                messages.append(message_of(row, where, lambda _: None, video_sound=True))
            case "function_call":
                add_call(messages, read_call(item, where))
            case "function_call_output":
                add_result(messages, result_of(item.get("call_id"), item.get("output"), where))
            case _:
                kinds = "message, function_call and function_call_output"
                raise RequestError(400, "unsupported_item", f"{where}: items are {kinds} here", param=where)
    return messages


@dataclass
class TextResponse:
    """One answer on its way. before, new: the messages that it goes on from, and those of its own input; beside: bytes
    of the rest of the request; output: its items so far, in order; finished: the engine's last event."""

    answer: Answer
    body: ResponsesBody
    model: str
    before: tuple[Message, ...] = ()
    new: tuple[Message, ...] = ()
    beside: int = 0
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    output: list[dict[str, Any]] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def status(self) -> str:
        if self.finished is None:
            return "in_progress"
        return "incomplete" if self.finished.reason == "length" else "completed"

    def record(self) -> dict[str, Any]:
        """The response object so far."""
        cut = {"reason": "max_output_tokens"} if self.status == "incomplete" else None
        body = self.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "error": None,
            "incomplete_details": cut,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self.model,
            "output": [] if self.finished is None else self.output,
            "previous_response_id": body.previous_response_id,
            "store": body.store is not False,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"} if body.text is None else body.text.format or {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "usage": self.usage(),
        }

    def usage(self) -> dict[str, Any] | None:
        if self.finished is None:
            return None
        counts = self.finished.usage
        return {
            "input_tokens": counts.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": counts.prompt_tokens - counts.prefilled_tokens,
                "cache_write_tokens": 0,  # nothing is charged for being kept
            },
            "output_tokens": counts.text_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counts.prompt_tokens + counts.text_tokens,
        }

    async def whole(self, state: ServerState) -> dict[str, Any]:
        """The response, made to its end. Leaving it cancels the answer."""
        try:
            async for _ in self.typed_events(state):
                pass
        except asyncio.CancelledError:
            self.answer.cancel()
            raise
        return self.record()

    async def events(self, state: ServerState) -> AsyncGenerator[bytes, None]:
        """The typed events of the answer, numbered, as server-sent events."""
        number = 0
        try:
            async for kind, fields in self.typed_events(state):
                yield f"event: {kind}\n".encode() + sse({"type": kind, "sequence_number": number, **fields})
                number += 1
        finally:
            self.answer.cancel()

    # ------------------------------------------------------------ its events

    async def typed_events(self, state: ServerState) -> AsyncGenerator[TypedEvent, None]:
        """The events as (type, fields). An item is whole in ``output`` when it is done."""
        yield "response.created", {"response": self.record()}
        yield "response.in_progress", {"response": self.record()}
        message: OutputMessage | None = None
        async for told in self.answer:
            if message is None and (isinstance(told, TextDelta) or (isinstance(told, Finished) and not self.output)):
                message = OutputMessage(len(self.output))
                self.output.append(message.item("in_progress"))
                for event in message.begin():
                    yield event
            for event in self.told(told, message):
                yield event
            if isinstance(told, Finished):
                self.finished = told
                state.figures.add(told)
        if message is not None:
            self.output[message.place] = message.item(self.status)
            for event in message.end(self.status):
                yield event
        self.keep(state)
        yield f"response.{self.status}", {"response": self.record()}

    def keep(self, state: ServerState) -> None:
        """Keep the response, unless it is not to be stored."""
        if self.body.store is not False and self.finished is not None:
            said = [Text(self.finished.text)] if self.finished.text else []
            own = Message("assistant", (*said, *self.finished.calls))
            state.responses.keep(self.record(), self.before, (*self.new, own), self.beside)

    def told(self, event: Event, message: OutputMessage | None) -> Iterator[TypedEvent]:
        """The events of one event of the engine."""
        if isinstance(event, TextDelta) and message is not None:
            yield message.add(event)
        elif isinstance(event, Called):
            place = len(self.output)
            item = call_item(event.call)
            self.output.append(item)
            arguments = {"item_id": item["id"], "output_index": place}
            begun = {**item, "status": "in_progress", "arguments": ""}
            yield "response.output_item.added", {"output_index": place, "item": begun}
            yield "response.function_call_arguments.delta", {**arguments, "delta": event.call.arguments}
            done = {**arguments, "name": event.call.name, "arguments": event.call.arguments}
            yield "response.function_call_arguments.done", done
            yield "response.output_item.done", {"output_index": place, "item": item}


@dataclass
class OutputMessage:
    """The item of a response that is text. place: in the output."""

    place: int
    id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(16)}")
    text: str = ""
    tokens: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.place, "content_index": 0}

    @property
    def part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": self.tokens}

    def item(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part]
        return {"type": "message", "id": self.id, "status": status, "role": "assistant", "content": content}

    def begin(self) -> Iterator[TypedEvent]:
        yield "response.output_item.added", {"output_index": self.place, "item": self.item("in_progress")}
        yield "response.content_part.added", {**self.where, "part": self.part}

    def add(self, delta: TextDelta) -> TypedEvent:
        tokens = [token_record(chance) for chance in delta.tokens]
        self.text += delta.text
        self.tokens += tokens
        return "response.output_text.delta", {**self.where, "delta": delta.text, "logprobs": tokens}

    def end(self, status: str) -> Iterator[TypedEvent]:
        yield "response.output_text.done", {**self.where, "text": self.text, "logprobs": self.tokens}
        yield "response.content_part.done", {**self.where, "part": self.part}
        yield "response.output_item.done", {"output_index": self.place, "item": self.item(status)}


def renamed(part: object) -> object:
    """A part in the words of chat completions."""
    if isinstance(part, dict) and part.get("type") == "input_image":
        return {"type": "image_url", "image_url": part.get("image_url")}
    return part
