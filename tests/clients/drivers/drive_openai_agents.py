"""OpenAI's agents library in Python: a RealtimeRunner hears a spoken question, then reads one with a picture."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import common
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.realtime.session import RealtimeSession

PICTURE = "data:image/png;base64," + b64encode((common.MEDIA / "stars.png").read_bytes()).decode()
WAIT_S = 60


async def answer(session: RealtimeSession) -> tuple[str, bytes]:
    """(text, sound) of the next answer, as the library tells them."""
    text, sound = "", b""
    async for event in session:
        assert event.type != "error", event
        if event.type == "audio":
            sound += event.audio.data
        elif event.type == "raw_model_event" and event.data.type == "transcript_delta":
            text += event.data.delta
        elif event.type == "agent_end":
            break
    return text, sound


async def main() -> None:
    agent = RealtimeAgent(name="nano")
    config: Any = {"url": f"{common.SOCKET_URL}/v1/realtime?model=nano", "api_key": common.KEY}
    async with await RealtimeRunner(agent).run(model_config=config) as session:
        speaking = asyncio.create_task(common.microphone(session.send_audio))
        text, sound = await answer(session)
        speaking.cancel()
        common.check_heard(text)
        common.check_sound(sound)
    async with await RealtimeRunner(agent).run(model_config=config) as session:
        content: Any = [
            {"type": "input_image", "image_url": PICTURE},
            {"type": "input_text", "text": "How many shapes are there?"},
        ]
        await session.send_message({"type": "message", "role": "user", "content": content})
        text, sound = await answer(session)
        common.check_text(text, common.PICTURE_ANSWER)
        common.check_sound(sound)


asyncio.run(asyncio.wait_for(main(), WAIT_S))
common.passed("openai-agents", "RealtimeRunner: a spoken question, a typed one with a picture")
