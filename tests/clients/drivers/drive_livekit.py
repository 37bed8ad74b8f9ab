"""LiveKit's realtime model for OpenAI, without a LiveKit server: a spoken turn, then a typed one."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import common
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai

WAIT_S = 60


async def answer(generation: llm.GenerationCreatedEvent) -> tuple[str, bytes]:
    """(text, sound) of one generation."""
    text, sound = "", b""
    async for message in generation.message_stream:
        async for piece in message.text_stream:
            text += piece
        async for frame in message.audio_stream:
            sound += bytes(frame.data)
    return text, sound


async def spoken(session: Any) -> tuple[str, bytes]:
    begun: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
    session.on("generation_created", begun.put_nowait)

    async def send(block: bytes) -> None:
        session.push_audio(rtc.AudioFrame(block, common.RATE_HZ, 1, len(block) // 2))

    speaking = asyncio.create_task(common.microphone(send))
    told = await answer(await begun.get())
    speaking.cancel()
    return told


async def typed(session: Any) -> tuple[str, bytes]:
    context = session.chat_ctx.copy()
    context.add_message(role="user", content=common.QUESTION)
    await session.update_chat_ctx(context)
    return await answer(await session.generate_reply())


async def main() -> None:
    async with aiohttp.ClientSession() as http:
        given: dict[str, Any] = {"base_url": f"{common.URL}/v1", "api_key": common.KEY, "http_session": http}
        model = openai.realtime.RealtimeModel(model="nano", **given)
        for turn, check in ((spoken, common.check_heard), (typed, common.check_text)):
            session = model.session()
            errors: list[Any] = []
            session.on("error", errors.append)
            text, sound = await turn(session)
            assert not errors, errors
            check(text)
            common.check_sound(sound)
            await session.aclose()
        await model.aclose()


asyncio.run(asyncio.wait_for(main(), WAIT_S))
common.passed("livekit-plugins-openai", "RealtimeModel: a spoken turn, a typed one")
