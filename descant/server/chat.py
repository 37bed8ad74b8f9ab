"""POST /v1/chat/completions: one conversation, answered whole or as a stream of chunks."""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from pydantic import BaseModel

from descant.engine.answer import Answer
from descant.engine.sampling import SEED_END
from descant.errors import OptionError
from descant.server.conversation import check_supported, messages_of
from descant.server.encode import SoundEncoder, SoundFormat, whole
from descant.server.formats import read_schema
from descant.server.schema import ChatBody, VoiceId
from descant.server.spoken import Spoken, collect, usage_record
from descant.server.sse import merged_streams, progress_note, sse
from descant.server.state import ServerState
from descant.server.tools import chat_call, read_tool_use
from descant.types import AnswerOptions, AudioChunk, Called, Finished, Message, Progress, Sampling, TextDelta

Delta = tuple[dict[str, Any] | Progress, str | None]  # delta, or the work before it; finish_reason


@dataclass(frozen=True)
class ChatWish:
    """A request, read. form: of the sound (None: text only)."""

    messages: list[Message]
    options: AnswerOptions
    model: str
    form: SoundFormat | None
    count: int


def read_wish(state: ServerState, body: ChatBody) -> ChatWish:
    """Read what is asked for. Media are decoded later. Raises RequestError and OptionError."""
    omni = state.omni
    check_supported(
        {
            "functions (write tools)": body.functions,
            "logit_bias": body.logit_bias,
        }
    )
    if body.top_logprobs is not None and not body.logprobs:
        raise OptionError("top_logprobs tells more of logprobs; set logprobs to true as well")
    spoken = "audio" in (body.modalities or ["text"])
    if spoken and body.audio is None:
        raise OptionError("modalities name audio; say how it is to sound: audio: {voice, format}")
    video_sound = body.mm_processor_kwargs is None or body.mm_processor_kwargs.use_audio_in_video
    messages = messages_of(body.messages, state.spoken.text, video_sound=video_sound)
    voice = None
    if spoken and body.audio is not None:
        wish = body.audio.voice
        voice = state.voice(wish.id if isinstance(wish, VoiceId) else wish)
    options: AnswerOptions = {
        "speech": spoken,
        "voice": voice,
        "sampling": sampling_of(omni.checkpoint.generation.text, body),
        "max_tokens": body.max_completion_tokens or body.max_tokens,
        "seed": body.seed,
        "latency": body.latency,
        "tools": read_tool_use(body.tools, body.tool_choice, body.parallel_tool_calls),
        "schema": read_schema(body.response_format, "response_format"),
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
        "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
    }
    form = body.audio.format if spoken and body.audio is not None else None
    return ChatWish(messages, options, body.model or state.settings.model, form, body.n or 1)


def sampling_of(own: Sampling, body: BaseModel) -> Sampling | None:
    """The model's sampling with what a request changes; None: nothing."""
    given = vars(body)
    changes = {one.name: given[one.name] for one in fields(Sampling) if given.get(one.name) is not None}
    changes.pop("max_tokens", None)  # which is an option of its own
    return replace(own, **changes) if changes else None


async def answers_of(state: ServerState, wish: ChatWish) -> list[Answer]:
    """The answers, begun. n of them: each with the next seed."""
    seed = wish.options.get("seed")
    seed = secrets.randbelow(2**62) if seed is None and wish.count > 1 else seed
    begun = []
    for place in range(wish.count):
        options: AnswerOptions = {**wish.options, "seed": None if seed is None else (seed + place) % SEED_END}
        begun.append(await state.omni.achat(wish.messages, **options))
    return begun


async def whole_completion(state: ServerState, wish: ChatWish) -> dict[str, Any]:
    """The response that is not streamed."""
    begun = await answers_of(state, wish)
    try:
        made = await asyncio.gather(*(collect(answer, Spoken()) for answer in begun))
    finally:  # the client left, or one of them failed
        for answer in begun:
            answer.cancel()
    choices = []
    for index, spoken in enumerate(made):
        content = None if spoken.calls and not spoken.text else spoken.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if spoken.calls:
            message["tool_calls"] = [chat_call(call) for call in spoken.calls]
        if wish.form is not None and (spoken.text or not spoken.calls):
            samples = np.concatenate([np.zeros(0, np.float32), *spoken.samples])
            name, until = state.spoken.keep(spoken.text)
            data = b64encode(await asyncio.to_thread(whole, samples, wish.form)).decode()
            message["content"] = None
            message["audio"] = {"id": name, "data": data, "expires_at": until, "transcript": spoken.text}
        choice = {"index": index, "message": message, "finish_reason": spoken.reason, "logprobs": None}
        choices.append(with_tokens(choice, spoken))
        if spoken.finished is not None:
            state.figures.add(spoken.finished)
    return {**head(wish, "chat.completion"), "choices": choices, "usage": usage_record(made)}


def head(wish: ChatWish, kind: str) -> dict[str, Any]:
    """The beginning of every body of one completion."""
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": wish.model,
        "system_fingerprint": None,
    }


async def stream_completion(
    state: ServerState, wish: ChatWish, begun: list[Answer], *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The chunks of the answers, as server-sent events. Leaving it cancels them. An error ends it, without [DONE]."""
    first = head(wish, "chat.completion.chunk")
    made = [Spoken() for _ in begun]
    if include_usage:
        first["usage"] = None  # all chunks have the field, and the last one has it filled
    try:
        streams = [deltas(state, wish, answer, spoken) for answer, spoken in zip(begun, made, strict=True)]
        async with aclosing(merged_streams(streams)) as merged:
            async for index, (delta, reason) in merged:
                if isinstance(delta, Progress):
                    yield progress_note(delta)
                    continue
                choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}
                yield sse({**first, "choices": [with_tokens(choice, made[index])]})
        if include_usage:
            yield sse({**first, "choices": [], "usage": usage_record(made)})
        yield b"data: [DONE]\n\n"
    finally:
        for answer in begun:
            answer.cancel()


def with_tokens(choice: dict[str, Any], spoken: Spoken) -> dict[str, Any]:
    """A choice with the tokens that were not told yet, where they are asked for."""
    if not spoken.tokens:
        return choice
    tokens, spoken.tokens = spoken.tokens, []
    return {**choice, "logprobs": {"content": tokens, "refusal": None}}


async def deltas(state: ServerState, wish: ChatWish, answer: Answer, spoken: Spoken) -> AsyncGenerator[Delta, None]:
    """(delta, finish_reason) of one answer: text in ``content``, or transcript and sound in ``audio``; each call of a
    tool whole, in one delta."""
    encoder = None if wish.form is None else SoundEncoder(wish.form)
    name, until = state.spoken.keep("") if encoder is not None else ("", 0)

    def told(text: str) -> dict[str, Any]:
        return {"content": text} if encoder is None else {"audio": {"id": name, "transcript": text}}

    def sounding(data: bytes) -> dict[str, Any]:
        return {"audio": {"id": name, "data": b64encode(data).decode()}}

    yield {"role": "assistant", **({"content": ""} if encoder is None else {"audio": {"id": name}})}, None
    async for event in answer:
        if isinstance(event, AudioChunk) and encoder is not None:  # not kept: it is told
            if data := await asyncio.to_thread(encoder.push, event.samples):
                yield sounding(data), None
            continue
        spoken.take(event)
        if isinstance(event, TextDelta):
            yield told(event.text), None
        elif isinstance(event, Progress):
            yield event, None
        elif isinstance(event, Called):
            yield {"tool_calls": [{"index": len(spoken.calls) - 1, **chat_call(event.call)}]}, None
        elif isinstance(event, Finished):
            state.figures.add(event)
    if encoder is not None:
        if data := await asyncio.to_thread(encoder.finish):
            yield sounding(data), None
        state.spoken.replace(name, spoken.text)
        yield {"audio": {"id": name, "expires_at": until}}, None
    yield {}, spoken.reason
