"""One answer as a client gets it: its text, its sound, its calls, and how likely its tokens were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from descant.engine.answer import Answer
from descant.tools import ToolCall
from descant.types import AudioChunk, Called, Event, Finished, TextDelta, TokenChance


@dataclass
class Spoken:
    """One answer as it comes. text, samples, calls: so far; tokens: those of the text, in the chat form."""

    text: str = ""
    samples: list[np.ndarray] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    finished: Finished | None = None

    def take(self, event: Event) -> None:
        """Keep what has come."""
        match event:
            case TextDelta():
                self.text += event.text
                self.tokens += map(token_record, event.tokens)
            case AudioChunk():
                self.samples.append(event.samples)
            case Called():
                self.calls.append(event.call)
            case Finished():
                self.finished = event

    @property
    def reason(self) -> str:
        """finish_reason."""
        if self.finished is not None and self.finished.reason == "length":
            return "length"
        return "tool_calls" if self.calls else "stop"


async def collect(answer: Answer, spoken: Spoken) -> Spoken:
    """A whole answer."""
    async for event in answer:
        spoken.take(event)
    return spoken


def token_record(chance: TokenChance) -> dict[str, Any]:
    """A token and its likeliest rivals."""
    return {**chance_record(chance.text, chance.logprob), "top_logprobs": [chance_record(*one) for one in chance.top]}


def chance_record(text: bytes, logprob: float) -> dict[str, Any]:
    """One token: its text, where broken characters are U+FFFD, its bytes, and the logarithm of how likely it was."""
    return {"token": text.decode(errors="replace"), "bytes": list(text), "logprob": max(logprob, LEAST_LOGPROB)}


LEAST_LOGPROB = -9999.0  # JSON has no minus infinity


def usage_record(all_spoken: list[Spoken]) -> dict[str, Any]:
    """The usage of one request: its prompt once, its answers together."""
    usages = [spoken.finished.usage for spoken in all_spoken if spoken.finished is not None]
    prompt = max((usage.prompt_tokens for usage in usages), default=0)
    sound = max((usage.audio_tokens for usage in usages), default=0)
    text = sum(usage.text_tokens for usage in usages)
    codes = sum(usage.codes for usage in usages)
    cached = prompt - max((usage.prefilled_tokens for usage in usages), default=0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": text + codes,
        "total_tokens": prompt + text + codes,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": sound, "text_tokens": prompt - sound},
        "completion_tokens_details": {"text_tokens": text, "audio_tokens": codes},
    }
