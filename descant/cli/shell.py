"""One conversation in the terminal: its session, what was asked and answered, and what the commands may change."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from descant.cli import common
from descant.cli.events import Sinks
from descant.cli.remote import RemoteHome
from descant.errors import OptionError
from descant.files import is_there
from descant.types import AnswerOptions, Message, Part, Text, assistant

if TYPE_CHECKING:
    from descant.omni import LiveSession, Omni
    from descant.remote.talk import RemoteTalk


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
        common.note(f"  {name} goes with the next question (an empty line sends it)")

    def answer(self, text: str) -> None:
        """Answer one turn. An answer that is stopped keeps what it said so far."""
        parts = (*self.attached, *([Text(text)] if text else []))
        self.attached = []
        if text:
            self.session.add(text)
        self.ask(parts)

    def ask(self, parts: tuple[Part, ...]) -> None:
        """Answer what was added to the session: ``parts``."""
        wav = None if self.out is None else next_free(self.out, "answer-{}.wav", self.answers + 1)
        sinks = Sinks(text=sys.stdout, out=wav, play=self.play)
        asked = len(self.session.keys)
        try:
            finished = sinks.run(self.session.respond(voice=self.voice))
        except KeyboardInterrupt:
            self.session.cancel()
            self._keep(parts, sinks.said, asked, sinks)
            raise
        self._keep(parts, finished.text, asked, sinks)
        if sinks.wav is not None:
            common.note(f"  {sinks.wav.path} ({sinks.wav.seconds:.1f} s)")
        elif self.out is not None and isinstance(self.omni, RemoteHome):
            common.note("  the server sent no sound; --no-speech asks for none")
        common.note_cuts(finished)

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
