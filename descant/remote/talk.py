"""A talk with a server, in the shape of a live session: turns are added, answers come as events."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from descant.errors import OptionError, RequestError
from descant.remote.heard import Heard
from descant.remote.server import SOME_VOICE, RemoteServer, question
from descant.remote.wire import STREAM_RATE_HZ, ChunkDelta, content_part
from descant.types import AudioChunk, Event, Finished, Part, Text, TextDelta, Timings, Usage

if TYPE_CHECKING:
    import numpy as np

NOT_UNDERSTOOD = (400, 422)  # statuses of a request with something in it that a server does not know


class RemoteTalk:
    """One conversation. The server keeps nothing of it: each request bears all turns, and texts of earlier answers."""

    def __init__(
        self,
        server: RemoteServer,
        model: str,
        *,
        speech: bool = True,
        max_tokens: int | None = None,
        seed: int | None = None,
    ):
        self.server = server
        self.model = model
        self.speech = speech
        self.max_tokens = max_tokens
        self.seed = seed
        self.messages: list[dict[str, Any]] = []
        self._turn: list[dict[str, Any]] = []
        self._answer: Generator[Event, None, None] | None = None

    def add(self, *parts: str | Part) -> None:
        """Add to the user's turn. A file is read now. Raises OptionError."""
        self._turn += [content_part(Text(part) if isinstance(part, str) else part) for part in parts]

    def respond(self, *, voice: str | None = None) -> Generator[Event, None, None]:
        """Answer the turn. Leave the loop to interrupt it: the answer keeps what was said so far.

        A turn that is refused is forgotten; the talk before it stays. Raises RequestError and SessionError.
        """
        self._answer = self._respond(voice)
        return self._answer

    def _respond(self, voice: str | None) -> Generator[Event, None, None]:
        turn = {"role": "user", "content": self._turn}
        self._turn = []
        if not turn["content"]:
            raise OptionError("there is nothing to answer; add text or a medium first")
        body = question(
            [*self.messages, turn],
            self.model,
            voice=(voice or SOME_VOICE) if self.speech else None,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )
        heard = Heard()
        reason = None
        usage: Mapping[str, Any] = {}
        try:
            for delta in self.server.stream(body):
                reason = delta.reason or reason
                usage = delta.usage or usage
                yield from events_of(heard, delta)
        except RequestError as error:
            if self.speech and error.status in NOT_UNDERSTOOD:
                message = f"{error}; a model without a voice needs --no-speech"
                raise RequestError(error.status, error.code, message) from None
            raise
        finally:
            if heard.text:
                self.messages += [turn, {"role": "assistant", "content": heard.text}]
        yield finished(heard, reason, usage)

    @property
    def keys(self) -> tuple[int, ...]:
        """The places of all messages, from 1 on."""
        return tuple(range(1, 1 + len(self.messages)))

    def remove(self, key: int) -> None:
        """Take a message out; those behind it move up. Raises OptionError."""
        if key not in self.keys:
            raise OptionError(f"key={key} is of no message of this conversation")
        del self.messages[key - 1]

    def begin_with(self, other: RemoteTalk) -> None:
        """Begin with all that was said in another talk."""
        self.messages = list(other.messages)

    def cancel(self) -> None:
        """Stop the answer that is being made."""
        if self._answer is not None:
            self._answer.close()

    def close(self) -> None:
        self.cancel()


def events_of(heard: Heard, delta: ChunkDelta) -> Iterator[Event]:
    """The events of one chunk."""
    start = heard.samples
    t = heard.take(delta.text, delta.pcm)
    if delta.text:
        yield TextDelta(delta.text, t)
    if delta.pcm:
        yield AudioChunk(samples_in(delta.pcm), start, STREAM_RATE_HZ, t)


def samples_in(pcm: bytes) -> np.ndarray:
    """16-bit little-endian PCM -> (W,) float32 in [-1, 1)."""
    import numpy as np

    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


def finished(heard: Heard, reason: str | None, usage: Mapping[str, Any]) -> Finished:
    """The last event: the server's counts, and the listener's times."""
    read = detail(usage, "prompt_tokens_details", "cached_tokens")
    prompt = count_of(usage.get("prompt_tokens"))
    codes = detail(usage, "completion_tokens_details", "audio_tokens")
    text_tokens = count_of(usage.get("completion_tokens")) - codes
    cut = reason == "length"
    counts = Usage(prompt, prompt - read, text_tokens, codes, heard.samples, heard.underruns, text_cut=cut)
    times = Timings(heard.total_s, heard.audio_s, heard.first_text_s, heard.first_audio_s, heard.rtf)
    return Finished(heard.text, "length" if cut else "stop", counts, times, heard.total_s)


def detail(usage: Mapping[str, Any], group: str, name: str) -> int:
    """A count that a server may leave out."""
    counts = usage.get(group)
    return count_of(counts.get(name)) if isinstance(counts, Mapping) else 0


def count_of(value: object) -> int:
    return value if isinstance(value, int) else 0
