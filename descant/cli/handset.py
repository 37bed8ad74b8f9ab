"""The microphone, the loudspeaker and the keys of a talk in the terminal.

    push         Enter on an empty line: speak; Enter again: answered. Esc takes it back
    hands-free   speak whenever the model is silent; a pause ends the turn
    headset      the same while it speaks: who speaks interrupts it

A terminal has no echo cancellation. Without a headset the microphone would hear the loudspeaker, and the model would
interrupt itself: so in hands-free nobody listens while it speaks, and a key interrupts. All happens on one thread,
which looks at keys, microphone and answer in turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descant.cli import common
from descant.cli.events import Interrupted, Sinks
from descant.cli.keyboard import BACKSPACE, ENTER, ESCAPE, HAS_KEYS, Keyboard
from descant.cli.level_meter import LevelMeter
from descant.cli.line_editor import read_line
from descant.cli.played_answer import PlayedAnswer
from descant.cli.player import find_player, sound_of
from descant.cli.shell import MicMode
from descant.cli.sound_card import Loudspeaker, Microphone, sound_library
from descant.cli.spoken_turn import SpokenTurn, TurnListener
from descant.errors import DescantError
from descant.types import Audio, AudioChunk, Event, Finished

if TYPE_CHECKING:
    from descant.omni import LiveSession

TICK_S = 0.04  # between two looks at the keys and the microphone
PUSH_HINT = "Enter: that was it; Esc: take it back"
FREE_HINT = "speak, or type"

HINTS: dict[MicMode, str] = {
    "push": "Enter on an empty line: speak; Enter again: answered. A key interrupts an answer.",
    "hands-free": "Speak, or type. While it speaks nobody listens, and a key interrupts; with a headset: --mic headset",
    "headset": "Speak, or type, and interrupt it by speaking or by a key.",
    "off": "",
}


class Handset:
    """Of one talk. library: the module sounddevice; speech: answers are heard. What is missing or goes away is said in
    one line, and the talk goes on without it."""

    def __init__(self, library: Any, mode: MicMode, *, speech: bool):
        self.mode = mode if HAS_KEYS else "off"
        self._library = library
        self._speech = speech
        self._plays = True  # until no loudspeaker could be opened
        self._listener: TurnListener | None = None
        self._typed = ""  # while the model spoke: the beginning of the next line
        self._presses = False  # Enter interrupted the model: the next turn is spoken
        if self.mode != "off":
            self._open_microphone()

    @property
    def hint(self) -> str:
        """A line that says how to speak."""
        return HINTS[self.mode]

    @property
    def pushes(self) -> bool:
        """True where an empty line begins a spoken turn."""
        return self.mode == "push"

    def next_line(self, session: LiveSession) -> str | Audio | None:
        """A line that was typed, or the sound of a turn that was spoken without a key; None: the person leaves."""
        typed, self._typed = self._typed, ""
        if self._presses and not typed:
            self._presses = False
            return ""
        self._presses = False
        if not typed and (said := self._wait(session)) is not None:
            return said
        return read_line(typed)

    def talk(self, session: LiveSession) -> SpokenTurn | None:
        """Take a turn by key: from here to Enter or the space bar. None: it was taken back, by Esc, Ctrl-C, or because
        the microphone went away."""
        try:
            microphone = Microphone(self._library)
        except DescantError as error:
            self._lose_microphone(str(error))
            return None
        turn = SpokenTurn(microphone.rate)
        complete = False  # it was not taken back
        try:
            complete = self._record(session, microphone, turn)
            microphone.close()  # which hands over the end
            turn.push(session, microphone.read())
        except KeyboardInterrupt:
            complete = False
        finally:
            microphone.close()
            if not complete or turn.sound is None or turn.is_mute:
                session.clear()
        if microphone.lost:
            common.note(f"  {microphone.lost / microphone.rate:.1f} s of it were lost: this machine was too busy")
        if complete and turn.is_mute and turn.sound is not None:
            common.note("  the microphone gave nothing at all; is it muted, or is this terminal not allowed to use it?")
            return None
        return turn if complete else None

    def play(self, session: LiveSession, answer: Iterable[Event], sinks: Sinks) -> Finished | Interrupted:
        """Pass an answer on until it has been heard, or a key or a voice interrupts it."""
        speaker = self._loudspeaker()
        sinks.play = self._speech and speaker is None and find_player() is not None
        played = PlayedAnswer(answer, sinks, speaker)
        try:
            if self._is_stopped(session, played):
                return played.stop()
        finally:
            played.close()
        return sinks.end(played.finished)

    def play_again(self, session: LiveSession, path: Path) -> bool:
        """Play a WAV file; a key or a voice interrupts it. False: there is no loudspeaker to play it."""
        if (speaker := self._loudspeaker()) is None:
            return False
        samples, rate = sound_of(path)
        again = PlayedAnswer([AudioChunk(samples, 0, rate, 0.0)], Sinks(), speaker)
        try:
            if self._is_stopped(session, again):
                again.stop()
        finally:
            again.close()
        return True

    def close(self) -> None:
        if self._listener is not None:
            self._listener.microphone.close()

    # ---------------------------------------------------------------- the microphone

    def _open_microphone(self) -> None:
        """Open the microphone that stays open; for the key, only see that there is one."""
        try:
            if self.mode == "push":
                self._library.query_devices(kind="input")
            else:
                self._listener = TurnListener(Microphone(self._library))
        except (DescantError, self._library.PortAudioError, ValueError) as error:
            self._lose_microphone(str(error))

    def _lose_microphone(self, why: str) -> None:
        common.note(f"  {why}; type your questions")
        self.mode = "off"
        if self._listener is not None:
            self._listener.microphone.close()
            self._listener = None

    def _record(self, session: LiveSession, microphone: Microphone, turn: SpokenTurn) -> bool:
        """Push what comes until a key ends it; False: it was taken back."""
        meter = LevelMeter(PUSH_HINT)
        try:
            with Keyboard() as keys:
                while not microphone.is_gone():
                    samples = microphone.read()
                    turn.push(session, samples)
                    meter.show(samples)
                    key = keys.pressed(TICK_S)
                    if key.startswith((*ENTER, " ")):
                        return True
                    if key == ESCAPE:
                        return False
        finally:
            meter.hide()
        self._lose_microphone("the microphone has gone away")
        return False

    def _wait(self, session: LiveSession) -> Audio | None:
        """Listen until a turn was spoken, or a key is pressed (None), which then begins a line."""
        listener = self._listener
        if listener is None:
            return None
        meter = LevelMeter(FREE_HINT)
        try:
            with Keyboard() as keys:
                while not keys.waits(TICK_S):
                    if self._hears(session) == "ended":
                        return listener.turn.sound
                    if self._listener is None:
                        return None
                    meter.show(listener.latest)
        finally:
            meter.hide()
        listener.take_back(session)
        listener.skip()
        return None

    def _hears(self, session: LiveSession) -> str | None:
        """One look at the open microphone."""
        listener = self._listener
        if listener is None:
            return None
        if listener.microphone.is_gone():
            listener.take_back(session)
            self._lose_microphone("the microphone has gone away")
            return None
        return listener.hear(session)

    # ---------------------------------------------------------------- the loudspeaker

    def _loudspeaker(self) -> Loudspeaker | None:
        """The loudspeaker of one answer; where there is none, a program may play it."""
        if self._speech and self._plays:
            try:
                return Loudspeaker(self._library)
            except DescantError as error:
                common.note(f"  {error}")
                self._plays = False
        return None

    def _is_stopped(self, session: LiveSession, played: PlayedAnswer) -> bool:
        """Pass an answer on; True as soon as somebody interrupts it."""
        with suppress(KeyboardInterrupt), Keyboard() as keys:
            while played.go_on(TICK_S):
                if self._key_stops(keys.pressed()) or self._voice_stops(session):
                    return True
            return False
        return True

    def _key_stops(self, keys: str) -> bool:
        """Esc, the space bar and Enter interrupt; what else is typed begins the next line."""
        if keys == ESCAPE or (keys == " " and not self._typed):
            return True
        if keys.startswith(ESCAPE):  # an arrow, and the like
            return False
        for key in keys:
            if key in ENTER:
                self._presses = self.pushes
                return True
            if key in BACKSPACE:
                self._typed = self._typed[:-1]
            elif key.isprintable():
                self._typed += key
        return False

    def _voice_stops(self, session: LiveSession) -> bool:
        if self.mode == "headset":
            return self._hears(session) == "began"
        if self._listener is not None:
            self._listener.skip()
        return False


def open_handset(mode: MicMode | None, *, speech: bool) -> Handset | None:
    """The devices of a talk. mode: None is "push", if it can be. None where there is no sounddevice that works; a line
    says so if one was asked for, or is broken."""
    try:
        library = sound_library()
    except DescantError as error:
        if mode != "off":
            common.note(f"  {error}")
        return None
    if library is None:
        if mode not in (None, "off"):
            common.note("  speaking needs sounddevice: pip install 'descant[mic]'; type your questions")
        return None
    return Handset(library, mode or "push", speech=speech)
