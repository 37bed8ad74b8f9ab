"""/v1/audio: a text read aloud as it is made, and a recording written down."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator

from descant.engine.answer import Answer
from descant.errors import OptionError
from descant.server.encode import MEDIA_TYPES, SoundEncoder, SoundFormat
from descant.server.schema import SpeechBody, VoiceId
from descant.server.sse import sse
from descant.server.state import ServerState
from descant.types import TRANSCRIBE, Audio, AudioChunk, Finished, TextDelta, user


async def speech_of(state: ServerState, body: SpeechBody) -> tuple[Answer, str]:
    """The answer that reads a text aloud, and the media type of its sound."""
    if body.speed != 1.0:
        raise OptionError("speed: this voice has one speed; leave it out, or write 1")
    voice = state.voice(body.voice.id if isinstance(body.voice, VoiceId) else body.voice)
    answer = await state.omni.aspeak(body.input, voice=voice, seed=body.seed)
    return answer, MEDIA_TYPES[body.response_format]


async def speak_bytes(state: ServerState, answer: Answer, form: SoundFormat) -> AsyncGenerator[bytes, None]:
    """The sound, as it is made. An error cuts it: there is no place to tell it."""
    encoder = SoundEncoder(form)
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


async def speak_events(state: ServerState, answer: Answer, form: SoundFormat) -> AsyncGenerator[bytes, None]:
    """The sound as server-sent events."""
    usage: dict[str, int] = {}
    try:
        encoder = SoundEncoder(form)
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


async def transcript_of(state: ServerState, data: bytes) -> Answer:
    """The answer that writes a recording down."""
    return await state.omni.achat([user(Audio(data), TRANSCRIBE)], speech=False)


async def whole_transcript(state: ServerState, answer: Answer) -> str:
    """All that was said."""
    text = ""
    try:
        async for event in answer:
            if isinstance(event, Finished):
                state.figures.add(event)
                text = event.text
    finally:
        answer.cancel()
    return text


async def transcript_events(state: ServerState, answer: Answer) -> AsyncGenerator[bytes, None]:
    """A transcript as server-sent events, as it is written."""
    try:
        async for event in answer:
            if isinstance(event, TextDelta):
                yield sse({"type": "transcript.text.delta", "delta": event.text})
            elif isinstance(event, Finished):
                state.figures.add(event)
                yield sse({"type": "transcript.text.done", "text": event.text})
        yield b"data: [DONE]\n\n"
    finally:
        answer.cancel()
