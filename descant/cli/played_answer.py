"""An answer on its way to a reader and a listener who may stop it at any moment."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from descant.cli import common
from descant.cli.events import Interrupted, Sinks
from descant.cli.sound_card import Loudspeaker
from descant.types import AudioChunk, Event, Finished


class PlayedAnswer:
    """One answer: its text is printed, its sound kept and played.

    Its events are taken on a thread of their own, so that whoever also waits for keys and for a microphone is held up
    by nothing. speaker: None where there is none, or none any more.
    """

    def __init__(self, events: Iterable[Event], sinks: Sinks, speaker: Loudspeaker | None):
        self.speaker = speaker
        self.finished: Finished | None = None
        self._sinks = sinks
        self._stopped = False
        self._come: queue.SimpleQueue[Event] = queue.SimpleQueue()
        pool = ThreadPoolExecutor(1, "answer")
        self._taking = pool.submit(self._take, events)
        pool.shutdown(wait=False)

    def go_on(self, wait_s: float) -> bool:
        """Do what has come to be done, and wait for at most ``wait_s``. False: all of it was written and has been
        heard. Raises what made the answer fail."""
        with suppress(queue.Empty):
            event = self._come.get(timeout=wait_s)
            while True:
                self._pass_on(event)
                event = self._come.get_nowait()
        self._watch()
        if not (self._taking.done() and self._come.empty()):
            return True
        self._taking.result()
        if self.speaker is None:
            return False
        self.speaker.end()
        return not self.speaker.silent

    def stop(self) -> Interrupted:
        """Fall silent now; nothing more is printed."""
        self._stopped = True
        self.finished = None
        speaker, self.speaker = self.speaker, None
        return Interrupted(None if speaker is None else speaker.stop())

    def close(self) -> None:
        """Let go of the devices and the files; what was given to the loudspeaker is played first."""
        self._stopped = True
        if self.speaker is not None:
            self.speaker.close()
        self._sinks.close(complete=self.finished is not None)

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._stopped:
                return
            self._come.put(event)

    def _pass_on(self, event: Event) -> None:
        self._sinks.take(event)
        if isinstance(event, AudioChunk) and self.speaker is not None:
            self.speaker.write(event.samples)
        elif isinstance(event, Finished):
            self.finished = event

    def _watch(self) -> None:
        """Feed the loudspeaker; without it the text goes on."""
        if self.speaker is None:
            return
        self.speaker.feed()
        if self.speaker.is_gone():
            common.note("\n  the loudspeaker has gone away; the answer goes on in text")
            self.speaker.close()
            self.speaker = None
