"""POST /v1/audio/speech: a text read aloud, as bytes or as server-sent events while it is made."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator

from descant.engine.answer import Answer
from descant.server.encode import MEDIA_TYPES, SoundEncoder
from descant.server.schema import SpeechBody, VoiceId
from descant.server.sse import sse
from descant.server.state import ServerState
from descant.types import AudioChunk, Finished


async def speech_of(state: ServerState, body: SpeechBody) -> tuple[Answer, str]:
    """The answer that reads a text aloud, and the media type of its sound."""
    voice = state.voice(body.voice.id if isinstance(body.voice, VoiceId) else body.voice)
    answer = await state.omni.aspeak(body.input, voice=voice, seed=body.seed)
    return answer, MEDIA_TYPES[body.response_format]


async def speak_bytes(state: ServerState, answer: Answer, body: SpeechBody) -> AsyncGenerator[bytes, None]:
    """The sound, as it is made. An error cuts it: there is no place to tell it."""
    encoder = SoundEncoder(body.response_format, body.speed)
    try:
        async for event in answer:
            if isinstance(event, AudioChunk):
                if data := await asyncio.to_thread(encoder.push, event.samples):
                    yield data
            elif isinstance(event, Finished):
                state.figures.add(event)
        yield await asyncio.to_thread(encoder.finish)
    finally:
        answer.cancel()


async def speak_events(state: ServerState, answer: Answer, body: SpeechBody) -> AsyncGenerator[bytes, None]:
    """The sound as server-sent events."""
    usage: dict[str, int] = {}
    try:
        encoder = SoundEncoder(body.response_format, body.speed)
        async for event in answer:
            if isinstance(event, AudioChunk):
                if data := await asyncio.to_thread(encoder.push, event.samples):
                    yield sse({"type": "speech.audio.delta", "audio": b64encode(data).decode()})
            elif isinstance(event, Finished):
                state.figures.add(event)
                tokens = event.usage.prompt_tokens, event.usage.codes
                usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
        if data := await asyncio.to_thread(encoder.finish):
            yield sse({"type": "speech.audio.delta", "audio": b64encode(data).decode()})
        yield sse({"type": "speech.audio.done", "usage": usage})
    finally:
        answer.cancel()
