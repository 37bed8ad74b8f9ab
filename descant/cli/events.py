"""Where the events of an answer go: the terminal, a WAV file, a player, and JSON lines for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from descant.cli.player import STDOUT, Player, WavWriter, cannot_write, find_player
from descant.errors import DescantError, OptionError, SessionError
from descant.files import check_output, open_output
from descant.types import AudioChunk, Called, Event, Finished, Progress, TextDelta

FOREIGN_SUFFIXES = {".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4"}
SECOND_DIGITS = 6  # decimals of a time in seconds


@dataclass(frozen=True)
class Interrupted:
    """An answer that was stopped. heard_s: seconds of its sound that were heard; None: nobody counts them."""

    heard_s: float | None


def as_json(event: Event) -> str:
    """One event as one line. ``samples`` is the number of samples of the chunk; t is in seconds."""
    body: dict[str, object]
    t = round(event.t, SECOND_DIGITS)
    if isinstance(event, TextDelta):
        body = {"type": "text", "t": t, "text": event.text}
    elif isinstance(event, AudioChunk):
        body = {"type": "audio", "t": t, "start_sample": event.start_sample, "samples": len(event.samples)}
    elif isinstance(event, Called):
        body = {"type": "call", "t": t, **vars(event.call)}
    elif isinstance(event, Progress):
        body = {"type": event.stage, "t": t, "done": event.done, "total": event.total}
    else:
        timings = {
            name: round(value, SECOND_DIGITS) for name, value in vars(event.timings).items() if value is not None
        }
        body = {"type": "finished", "t": t, "text": event.text, "reason": event.reason}
        body |= {"usage": vars(event.usage), "timings": timings}
    return json.dumps(body)


def printable(text: str) -> str:
    """Text without control characters (C0, DEL, C1), so that an answer cannot steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0))


@dataclass
class Sinks:
    """Every place that wants the events. ``wav`` opens its file at the first sound, when the rate is known.

    faults: outputs that failed (a full disk, a player that died). The answer goes on without them.
    """

    text: TextIO | None = None
    events: TextIO | None = None
    out: Path | None = None
    play: bool = False
    wav: WavWriter | None = field(default=None, init=False)
    player: Player | None = field(default=None, init=False)
    faults: list[DescantError] = field(default_factory=list, init=False)
    said: str = field(default="", init=False)  # the text so far

    def take(self, event: Event) -> None:
        if self.events is not None:
            try:
                print(as_json(event), file=self.events, flush=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                self.faults.append(cannot_write(Path(self.events.name), error))
                self.events = None
        if isinstance(event, TextDelta):
            self.said += event.text
            if self.text is not None:
                print(printable(event.text), end="", file=self.text, flush=True)
        elif isinstance(event, AudioChunk):
            self._sound(event)

    def _sound(self, chunk: AudioChunk) -> None:
        try:
            if self.wav is None and self.out is not None:
                self.wav = WavWriter(self.out, chunk.rate)
            if self.wav is not None:
                self.wav.write(chunk.samples)
        except OptionError as error:
            self.faults.append(error)
            self.out = None
            self._close_wav()
        name = find_player() if self.play and self.player is None else None
        if name is not None:
            self.player = Player(name, chunk.rate)
        if self.player is not None:
            self.player.write(chunk.samples)

    def _close_wav(self) -> None:
        if self.wav is not None:
            with suppress(OptionError):  # it was said already
                self.wav.close()

    def run(self, events: Iterable[Event]) -> Finished:
        """Pass every event on as it comes; returns the last one. An interrupted answer leaves a whole WAV file.

        Raises the first fault of an output, when the answer is over.
        """
        finished: Finished | None = None
        try:
            for event in events:
                self.take(event)
                if isinstance(event, Finished):
                    finished = event
        finally:
            self.close(complete=finished is not None)
        return self.end(finished)

    def close(self, *, complete: bool) -> None:
        """No more events come. An answer that is not complete falls silent."""
        if self.player is not None and not complete:
            self.player.stop()
        self._close_wav()
        if self.text is not None:
            print(file=self.text, flush=True)

    def end(self, finished: Finished | None) -> Finished:
        """After ``close``: wait until a player has played it all. Raises the first fault of an output."""
        if finished is None:
            raise SessionError("the answer ended without its last event; ask again")
        if self.player is not None:
            self.player.finish(self.out)
            if self.player.died:
                where = f"; the sound is in {self.wav.path}" if self.wav is not None else ""
                print(f"{self.player.name} could not play all of it (no sound card?){where}", file=sys.stderr)
        if self.faults:
            raise self.faults[0]
        return finished


@contextmanager
def open_sinks(
    *, out: Path | None, events: str | None, inputs: Sequence[str] = (), play: bool = False, text: bool = True
) -> Iterator[Sinks]:
    """Sinks for one answer. "-" is stdout, which then carries nothing but JSON (``events``) or sound (``out``).

    inputs: files that are read, and so may not be written to. Everything is checked before a model is loaded.
    """
    wav_to_stdout = str(out) == STDOUT
    if wav_to_stdout and events == STDOUT:
        raise OptionError("--out - and --events - both ask for stdout; name a file for one of them")
    read = [name for name in inputs if name != STDOUT]
    log = None if events in (None, STDOUT) else Path(str(events))
    if out is not None and not wav_to_stdout:
        if out.suffix.lower() in FOREIGN_SUFFIXES:
            raise OptionError(f"--out {out}: the sound is written as WAV; name it {out.with_suffix('.wav')}")
        check_output(out, "--out", read, [log] if log is not None else [])
    if log is not None:
        check_output(log, "--events", read)
    with ExitStack() as stack:
        lines: TextIO | None = sys.stdout if events == STDOUT else None
        if log is not None:
            lines = stack.enter_context(io.TextIOWrapper(open_output(log, "--events"), encoding="utf-8"))
        screen = sys.stderr if wav_to_stdout else sys.stdout
        yield Sinks(text=screen if text and events != STDOUT else None, events=lines, out=out, play=play)
