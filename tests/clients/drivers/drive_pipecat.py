"""pipecat's OpenAI realtime service in a pipeline: a spoken turn with server VAD, then a typed one from a context."""

from __future__ import annotations

import asyncio
import os

os.environ["LOGURU_AUTOINIT"] = "False"  # its log is not the line that this prints

import common
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

WAIT_S = 60


class Listener(FrameProcessor):
    """Keeps what the service says. done: set at the end of an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.sound = b""
        self.errors: list[str] = []
        self.done = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            self.text += frame.text
        elif isinstance(frame, TTSAudioRawFrame):
            self.sound += frame.audio
        elif isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.done.set()
        await self.push_frame(frame, direction)


async def talk(frames: list[Frame]) -> None:
    """One pipeline, one turn."""
    url = f"{common.SOCKET_URL}/v1/realtime"
    service = OpenAIRealtimeLLMService(api_key=common.KEY, base_url=url)
    listener = Listener()
    worker = PipelineWorker(Pipeline([service, listener]))
    failed: list[str] = []
    service.add_event_handler("on_error", lambda _, error: failed.append(str(error)))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await worker.queue_frames(frames)
    await listener.done.wait()
    await worker.cancel()
    await running
    assert not failed and not listener.errors, failed + listener.errors
    common.check_text(listener.text)
    common.check_sound(listener.sound)


async def main() -> None:
    blocks = common.blocks(common.question_pcm())
    await talk([InputAudioRawFrame(block, common.RATE_HZ, 1) for block in blocks])
    await talk([LLMContextFrame(LLMContext([{"role": "user", "content": common.QUESTION}]))])


asyncio.run(asyncio.wait_for(main(), WAIT_S))
common.passed("pipecat-ai", "OpenAIRealtimeLLMService in a pipeline: a spoken turn, a typed one")
