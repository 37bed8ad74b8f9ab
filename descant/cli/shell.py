"""One conversation in the terminal: its session, what was asked and answered, and what the commands may change."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from descant.cli import common
from descant.cli.events import Interrupted, Sinks, printable
from descant.cli.remote import RemoteHome
from descant.errors import OptionError
from descant.files import is_there
from descant.types import AnswerOptions, Audio, Finished, Message, Part, Text, assistant

if TYPE_CHECKING:
    from descant.cli.handset import Handset
    from descant.omni import LiveSession, Omni
    from descant.remote.talk import RemoteTalk

MicMode = Literal["push", "hands-free", "headset", "off"]
GREY, NO_COLOUR = "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class ChatTurn:
    """A question and its answer. said: what the conversation keeps of the answer; keys: of both, in the session; sound:
    the answer's file."""

    parts: tuple[Part, ...]
    said: str
    keys: tuple[int, ...]
    sound: Path | None = None


@dataclass
class ChatShell:
    """A live session, and what goes with it.

    turns: what was asked and answered; attached: what goes with the next question; answers: how many were made.
    """

    omni: Omni | RemoteHome
    out: Path | None  # folder for the sounds; None: text only
    play: bool
    voice: str | None
    options: AnswerOptions
    session: LiveSession | RemoteTalk
    turns: list[ChatTurn] = field(default_factory=list)
    attached: list[Part] = field(default_factory=list)
    answers: int = 0
    handset: Handset | None = None  # None: typing alone

    @property
    def live(self) -> LiveSession:
        """The session of a model of this machine."""
        return cast("LiveSession", self.session)

    @property
    def messages(self) -> list[Message]:
        """The conversation."""
        return [
            message
            for turn in self.turns
            for message in (Message("user", turn.parts), *([assistant(turn.said)] if turn.said else []))
        ]

    def attach(self, part: Part, name: str) -> None:
        """Add a medium to the next question; it is read while the question is typed."""
        self.session.add(part)
        self.attached.append(part)
        common.note(f"  {name} goes with the next question ({self._how_to_send})")

    @property
    def _how_to_send(self) -> str:
        spoken = self.handset is not None and self.handset.pushes
        return "Enter begins to speak about it; Enter twice sends it alone" if spoken else "an empty line sends it"

    def speak(self, handset: Handset) -> None:
        """Have a turn spoken, and answer it; where nothing was said, what is attached alone."""
        turn = handset.talk(self.live)
        if turn is None:
            return
        if (sound := turn.sound) is None and not self.attached:
            common.note("  nothing was said")
        else:
            self.answer("", sound)

    def answer(self, text: str, sound: Audio | None = None) -> None:
        """Answer one turn. sound: what was spoken, which the session has heard already. An answer that is stopped keeps
        what was heard of it; where nobody counts that, what it said so far."""
        parts = (*self.attached, *([] if sound is None else [sound]), *([Text(text)] if text else []))
        self.attached = []
        if text:
            self.session.add(text)
        self.ask(parts)

    def ask(self, parts: tuple[Part, ...]) -> None:
        """Answer what was added to the session: ``parts``."""
        wav = None if self.out is None else next_free(self.out, "answer-{}.wav", self.answers + 1)
        sinks = Sinks(text=sys.stdout, out=wav, play=self.play and self.handset is None)
        asked = len(self.session.keys)
        try:
            finished = self._deliver(sinks)
        except KeyboardInterrupt:
            self.session.cancel()
            self._keep(parts, sinks.said, asked, sinks)
            raise
        if isinstance(finished, Interrupted):
            self._keep(parts, self._cut(sinks.said, finished.heard_s), asked, sinks)
            return
        self._keep(parts, finished.text, asked, sinks)
        if sinks.wav is not None:
            common.note(f"  {sinks.wav.path} ({sinks.wav.seconds:.1f} s)")
        elif self.out is not None and isinstance(self.omni, RemoteHome):
            common.note("  the server sent no sound; --no-speech asks for none")
        common.note_cuts(finished)

    def _deliver(self, sinks: Sinks) -> Finished | Interrupted:
        """Have the answer made, read and heard."""
        answer = self.session.respond(voice=self.voice)
        return sinks.run(answer) if self.handset is None else self.handset.play(self.live, answer, sinks)

    def _cut(self, said: str, heard_s: float | None) -> str:
        """Stop the answer, and have the conversation keep only what was heard of it, which is returned and shown."""
        self.session.cancel()
        if heard_s is None:
            common.note("  stopped")
            return said
        kept = self.live.truncate(heard_s)
        heard, rest = (" ".join(printable(text).split("\n")) for text in (kept, said[len(kept) :]))
        common.note(f"  heard: {heard}{GREY}{rest}{NO_COLOUR}")
        return kept

    def _keep(self, parts: tuple[Part, ...], said: str, asked: int, sinks: Sinks) -> None:
        """A question was answered. asked: the messages that the session had before it."""
        self.answers += 1
        keys = tuple(self.session.keys[asked:])
        if keys:  # a server was interrupted before its first word: nothing is kept
            self.turns.append(ChatTurn(parts, said, keys, None if sinks.wav is None else sinks.wav.path))

    def take_back(self) -> ChatTurn:
        """Forget the last question and its answer, as if it had never been asked. Raises OptionError."""
        if not self.turns:
            raise OptionError("nothing was asked yet")
        turn = self.turns.pop()
        for key in reversed(turn.keys):
            self.session.remove(key)
        return turn

    def ask_again(self) -> None:
        """Forget the last answer, and make another."""
        if self.attached:
            raise OptionError("something goes with the next question already; an empty line sends it")
        turn = self.take_back()
        self.session.add(*turn.parts)
        self.ask(turn.parts)

    def reopen(self, seed: int) -> None:
        """Go on with the same conversation and another seed."""
        options: AnswerOptions = {**self.options, "seed": seed}
        fresh = self.omni.session(**options)
        fresh.begin_with(self.session)  # type: ignore[arg-type] # both are of the same home
        self.session.close()
        self.session, self.options = fresh, options
        if self.attached:
            self.session.add(*self.attached)

    def forget(self) -> None:
        """Begin another conversation."""
        self.session.close()
        self.session = self.omni.session(**self.options)
        self.turns = []
        self.attached = []


def next_free(folder: Path, pattern: str, number: int = 1) -> Path:
    """The first of folder/pattern with a number from ``number`` on that is not there yet: nothing is overwritten."""
    return next(path for n in count(number) if not is_there(path := folder / pattern.format(n)))
