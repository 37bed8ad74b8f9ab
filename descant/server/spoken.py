"""One answer as a client gets it: its stop texts applied, its sound kept, its tokens told with the text they made."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from descant.engine.answer import Answer
from descant.tools import ToolCall
from descant.types import AudioChunk, Called, Finished, TextDelta, TokenChance


@dataclass
class Spoken:
    """One answer as it comes. text: so far; held: what may yet become a stop text."""

    stops: tuple[str, ...]
    text: str = ""
    held: str = ""
    samples: list[np.ndarray] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    finished: Finished | None = None
    stopped: bool = False
    chances: deque[tuple[int, TokenChance]] = field(default_factory=deque)  # where their text begins; not told yet

    def take(self, delta: TextDelta) -> str:
        """Take new text; returns the part of it that can be told now."""
        begin = len(self.text) + len(self.held)
        self.chances.extend((begin, chance) for chance in delta.tokens)
        self.held += delta.text
        found = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if found:
            told, self.held, self.stopped = self.held[: min(found)], "", True
        else:
            keep = max((len(self.held) - n for n in self._beginnings()), default=0)
            told, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        self.text += told
        return told

    def _beginnings(self) -> list[int]:
        """The places in what is held at which a stop text may begin."""
        return [
            place for place in range(len(self.held)) if any(stop.startswith(self.held[place:]) for stop in self.stops)
        ]

    def rest(self) -> str:
        """Return what was held back, when no more comes."""
        told, self.held = self.held, ""
        self.text += told
        return told

    def tokens(self) -> list[dict[str, Any]]:
        """The tokens of the text that is told by now, and was not before, in the chat form."""
        told = []
        while self.chances and self.chances[0][0] < len(self.text):
            told.append(token_record(self.chances.popleft()[1]))
        return told

    @property
    def reason(self) -> str:
        """finish_reason."""
        if self.finished is not None and self.finished.reason == "length":
            return "length"
        return "tool_calls" if self.calls else "stop"


async def collect(answer: Answer, spoken: Spoken) -> Spoken:
    """A whole answer."""
    async for event in answer:
        if isinstance(event, TextDelta):
            spoken.take(event)
        elif isinstance(event, AudioChunk):
            spoken.samples.append(event.samples)
        elif isinstance(event, Called):
            spoken.calls.append(event.call)
        elif isinstance(event, Finished):
            spoken.finished = event
        if spoken.stopped:
            answer.cancel()
            break
    spoken.rest()
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
