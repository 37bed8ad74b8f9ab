"""Where the events of an answer go: the terminal, a WAV file, a player, and JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from descant.cli.player import Player, WavWriter, find_player
from descant.errors import OptionError, SessionError
from descant.types import AudioChunk, Event, Finished, Progress, TextDelta

SECOND_DIGITS = 6  # decimals of a time in seconds


def as_json(event: Event) -> str:
    """One event as one line. ``samples`` is the number of samples of the chunk; t is in seconds."""
    body: dict[str, object]
    t = round(event.t, SECOND_DIGITS)
    if isinstance(event, TextDelta):
        body = {"type": "text", "t": t, "text": event.text}
    elif isinstance(event, AudioChunk):
        body = {"type": "audio", "t": t, "start_sample": event.start_sample, "samples": len(event.samples)}
    elif isinstance(event, Progress):
        body = {"type": event.stage, "t": t, "done": event.done, "total": event.total}
    else:
        timings = {
            name: round(value, SECOND_DIGITS) for name, value in vars(event.timings).items() if value is not None
        }
        body = {"type": "finished", "t": t, "text": event.text, "usage": vars(event.usage), "timings": timings}
    return json.dumps(body, ensure_ascii=False)


def printable(text: str) -> str:
    """Text without control characters (C0, DEL, C1), so that an answer cannot steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0))


@dataclass
class Sinks:
    """Every place that wants the events. ``wav`` opens its file at the first sound, when the rate is known."""

    text: TextIO | None = None
    events: TextIO | None = None
    out: Path | None = None
    play: bool = False
    wav: WavWriter | None = field(default=None, init=False)
    player: Player | None = field(default=None, init=False)

    def take(self, event: Event) -> None:
        if self.events is not None:
            print(as_json(event), file=self.events, flush=True)
        if isinstance(event, TextDelta) and self.text is not None:
            print(printable(event.text), end="", file=self.text, flush=True)
        elif isinstance(event, AudioChunk):
            self._sound(event)

    def _sound(self, chunk: AudioChunk) -> None:
        if self.wav is None and self.out is not None:
            self.wav = WavWriter(self.out, chunk.rate)
        if self.wav is not None:
            self.wav.write(chunk.samples)
        name = find_player() if self.play and self.player is None else None
        if name is not None:
            self.player = Player(name, chunk.rate)
        if self.player is not None:
            self.player.write(chunk.samples)

    def run(self, events: Iterable[Event]) -> Finished:
        """Pass every event on as it comes; returns the last one. An interrupted answer leaves a whole WAV file."""
        finished: Finished | None = None
        try:
            for event in events:
                self.take(event)
                if isinstance(event, Finished):
                    finished = event
        finally:
            if self.player is not None and finished is None:
                self.player.stop()
            if self.wav is not None:
                self.wav.close()
            if self.text is not None:
                print(file=self.text, flush=True)
        if finished is None:
            raise SessionError("the answer ended without its last event; ask again")
        if self.player is not None:
            self.player.finish(self.out)
        return finished


@contextmanager
def open_sinks(*, out: Path | None, events: str | None, play: bool = False, text: bool = True) -> Iterator[Sinks]:
    """Sinks for one answer. ``events`` is a file name, or "-" for stdout, which then carries nothing but JSON."""
    check_out(out)
    with ExitStack() as stack:
        log: TextIO | None = None
        if events == "-":
            log = sys.stdout
        elif events is not None:
            try:
                log = stack.enter_context(Path(events).open("w", encoding="utf-8"))
            except OSError as error:
                raise OptionError(f"cannot write --events {events}: {error.strerror}; name another file") from error
        screen = sys.stdout if text and events != "-" else None
        yield Sinks(text=screen, events=log, out=out, play=play)


def check_out(out: Path | None) -> None:
    """Refuse a WAV file that cannot be written before the model is loaded, not after the answer."""
    if out is None:
        return
    if out.is_dir():
        raise OptionError(f"cannot write --out {out}: it is a folder; name a file, such as {out / 'answer.wav'}")
    if not out.parent.is_dir():
        raise OptionError(f"cannot write --out {out}: there is no folder {out.parent}; make it first")
