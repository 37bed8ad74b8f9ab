"""A stand-in for a loaded model: it answers what it is told, slowly if wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from descant.errors import OptionError
from descant.types import (
    AudioChunk,
    Event,
    Finished,
    Message,
    Part,
    Text,
    TextDelta,
    Timings,
    Transcript,
    Usage,
    assistant,
)

if TYPE_CHECKING:
    import torch

RATE = 24000


@dataclass
class StubOmni:
    """Answers every chat with ``text``, a word and a tenth of a second of sound at a time; keeps what it was asked."""

    text: str = "Seven plus five is twelve."
    voices: tuple[str, ...] = ("Nova", "Rex")
    pause: float = 0.0  # seconds between events
    endless: bool = False
    cut: bool = False  # by a limit
    calls: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    @property
    def speaks(self) -> bool:
        return bool(self.voices)

    def chat(self, messages: Sequence[Message], **options: Any) -> Iterator[Event]:
        voice = options.get("voice")
        if voice is not None and voice not in self.voices:
            raise OptionError(f"unknown voice {voice!r}; this model has {', '.join(self.voices)}")
        self.calls.append((list(messages), options))
        return self.events(speech=options.get("speech", True))

    def session(self, **options: Any) -> StubSession:
        return StubSession(self, options)

    def speak(self, text: str, **options: Any) -> Iterator[Event]:
        self.calls.append((text, options))
        return self.events(speech=True)

    def transcribe(self, audio: Any, **options: Any) -> Transcript:
        self.calls.append((audio, options))
        *_, last = self.events(speech=False)
        assert isinstance(last, Finished)
        written = Transcript("what was said")
        written.finished = last
        return written

    def trace(self, messages: Sequence[Message], **options: Any) -> dict[str, torch.Tensor]:
        import torch  # here, because a process that only chats starts faster without it

        self.calls.append((list(messages), options))
        return {"text_ids": torch.arange(3), "wav": torch.zeros(4)}

    def events(self, *, speech: bool) -> Iterator[Event]:
        start, sample = time.perf_counter(), 0
        words = self.text.split(" ")
        while True:
            for place, word in enumerate(words):
                yield TextDelta(word if place == 0 else f" {word}", time.perf_counter() - start)
                if speech:
                    tone = np.sin(np.arange(RATE // 10) * 0.1).astype(np.float32) * 0.5
                    yield AudioChunk(tone, sample, RATE, time.perf_counter() - start)
                    sample += len(tone)
                time.sleep(self.pause)
            if not self.endless:
                break
        usage = Usage(1, 1, len(words), text_cut=self.cut, speech_cut=self.cut and speech)
        timings = Timings(time.perf_counter() - start, first_text_s=0.1)
        yield Finished(self.text, "length" if self.cut else "stop", usage, timings, time.perf_counter() - start)


@dataclass
class StubSession:
    """A live session of the stand-in: its calls are the whole conversation so far."""

    omni: StubOmni
    options: dict[str, Any]
    messages: list[Message] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    pushed: list[np.ndarray] = field(default_factory=list)  # since the last turn
    turns: list[np.ndarray] = field(default_factory=list)  # what was pushed, turn by turn
    heard: list[float] = field(default_factory=list)  # seconds at which answers were truncated
    closed: bool = False

    def add(self, *parts: Part | str) -> None:
        self.parts += [Text(part) if isinstance(part, str) else part for part in parts]

    def push_audio(self, samples: np.ndarray, rate: int) -> None:
        self.pushed.append(samples)

    def clear(self) -> None:
        self.pushed = []

    def truncate(self, heard_seconds: float) -> str:
        """A word is a tenth of a second."""
        self.heard.append(heard_seconds)
        kept = " ".join(self.omni.text.split(" ")[: int(heard_seconds * 10 + 1e-6)])
        self.messages[-1] = assistant(kept)
        return kept

    def respond(self, **options: Any) -> Iterator[Event]:
        asked = [*self.messages, Message("user", tuple(self.parts))]
        self.turns.append(np.concatenate([np.zeros(0, np.float32), *self.pushed]))
        self.parts, self.pushed = [], []
        self.messages = [*asked, assistant(self.omni.text)]
        return self.omni.chat(asked, **{**self.options, **options})

    @property
    def keys(self) -> tuple[int, ...]:
        return tuple(range(len(self.messages)))

    def remove(self, key: int) -> None:
        del self.messages[key]

    def begin_with(self, other: StubSession) -> None:
        self.messages = list(other.messages)

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
