"""Who is being served, and what the scheduler needs to know of the listener."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass

from descant.config import OUTPUT_RATE_HZ
from descant.engine.answer import Answer, AnswerItem
from descant.engine.conversation import Conversation
from descant.engine.limits import Ledger, Limits, Reservation
from descant.engine.models import Stores
from descant.engine.scheduler import SlotView
from descant.engine.session import AnswerSettings, Phase, Request, Session
from descant.engine.stages import Stages
from descant.types import AudioChunk, Event


@dataclass
class PendingRequest:
    """A request in the queue. request: to be given a slot; None: the turn of the live session in slot ``session``.

    place: in the queue, as its reader was told.
    """

    answer: weakref.ref[Answer]
    settings: AnswerSettings
    clock: float
    reservation: Reservation
    request: Request | None = None
    session: int = 0
    place: int = -1

    def tell(self, *items: AnswerItem) -> None:
        """Hand something to the reader, if there still is one."""
        if (reader := self.answer()) is not None:
            for item in items:
                reader.put(item)


@dataclass(eq=False)
class Slot:
    """A session that is served. answer, answer_number: what is being answered, and its number (0: a live session
    listens). reserved: pages that it may come to need.

    can_read: there is room to read on. touched: when its user last said something, seconds. parked: since when its
    reader has taken nothing, seconds (None: it takes events).
    """

    number: int
    session: Session
    reserved: Reservation
    answer: weakref.ref[Answer] | None = None
    answer_number: int = 0
    conversation: Conversation | None = None
    can_read: bool = True
    touched: float = 0.0
    parked: float | None = None
    rest: tuple[Request, ...] = ()  # what the answer goes on with
    playback_start: float = 0.0  # when its first sound went out, seconds

    @property
    def listens(self) -> bool:
        return not self.answer_number

    @property
    def reader(self) -> Answer | None:
        return None if self.answer is None else self.answer()

    def unplayed_s(self, now: float) -> float | None:
        """Seconds of sound that a listener who plays in real time has not heard yet; None where none is expected."""
        speech = self.session.sounding
        if speech is None or self.session.phase is Phase.PREFILL:
            return None
        if not self.session.first_audio_s:
            return 0.0
        return max(0.0, speech.samples / OUTPUT_RATE_HZ - (now - self.playback_start))

    def view(self, stages: Stages, now: float) -> SlotView:
        """This slot as the scheduler sees it."""
        session = self.session
        speech = self.session.sounding
        reads = session.phase in (Phase.LISTENING, Phase.PREFILL) and self.can_read
        answers = session.phase in (Phase.THINKING, Phase.SPEAKING)
        sings = answers and speech is not None and speech.singing
        return SlotView(
            self.number,
            priority=(self.listens, self.number),
            unread=session.context.unread if reads else 0,
            thinks=session.phase is Phase.THINKING,
            talks=sings and speech is not None and speech.has_state,
            decodes=speech is not None and stages.codec_has_work(speech),
            missing_codes=stages.missing_codes(speech) if sings and speech is not None else None,
            unplayed_s=self.unplayed_s(now),
        )

    def parked_s(self, now: float, most: int) -> float | None:
        """Seconds since which more than ``most`` events wait for the reader. None: it takes them."""
        reader = self.reader
        if reader is None or reader.events.qsize() <= most:
            self.parked = None
            return None
        self.parked = now if self.parked is None else self.parked
        return now - self.parked

    def tell(self) -> None:
        """Give the reader, if there still is one, all events that are new."""
        reader = self.reader
        if reader is not None and not reader.cancelled.is_set():
            for event in self.session.drain_events():
                self.hand(event)

    def hand(self, event: Event) -> None:
        """Give an event to the reader, and keep the listener's clock: when sound began, and how often none was left."""
        if (reader := self.reader) is not None:
            reader.put(event)
        if not isinstance(event, AudioChunk):
            return
        now = time.perf_counter()
        heard_s = event.start_sample / OUTPUT_RATE_HZ
        if event.start_sample == 0:
            self.playback_start = now
        elif now - self.playback_start > heard_s:
            self.session.underruns += 1
            self.playback_start = now - heard_s


class SlotTable(dict[int, Slot]):
    """The slots of a worker by number, and the room that they share: pages are reserved before they are taken."""

    def __init__(self, limits: Limits, stores: Stores):
        super().__init__()
        self.limits = limits
        self.stores = stores

    @property
    def answering(self) -> int:
        """The number of slots that are being answered; the others listen."""
        return sum(not slot.listens for slot in list(self.values()))

    def reserved(self, but: Slot | None = None, *, answering: bool = False) -> Reservation:
        """The pages that are reserved, together; only those of slots that answer, if so asked."""
        others = [slot for slot in list(self.values()) if slot is not but]
        reserved = [slot.reserved for slot in others if not (answering and slot.listens)]
        return sum(thinker for thinker, _ in reserved), sum(talker for _, talker in reserved)

    def fits(self, wanted: Reservation, beside: Reservation = (0, 0)) -> bool:
        """True if the stores have room for a reservation beside others."""
        talker = self.stores.talker.limit if self.stores.talker else 0
        return wanted[0] + beside[0] <= self.stores.thinker.limit and wanted[1] + beside[1] <= talker

    def reserve_for_listening(self, slot: Slot) -> None:
        """Reserve pages for what was said, if there is room: without, it is read when an answer is due."""
        if not slot.listens:
            return
        context = slot.session.context
        tokens = len(context.tokens)
        wanted = self.limits.pages(tokens, tokens if context.talker_kv is not None else 0)
        slot.can_read = self.fits(wanted, self.reserved(but=slot))
        held = [len(table.pages) for table in context.tables]
        slot.reserved = wanted if slot.can_read else (held[0], sum(held[1:]))

    def make_room(self, pending: PendingRequest) -> bool:
        """True if there is room for a request. Who only listens gives up its pages for it, and is read again later."""
        own = self.get(pending.session) if pending.request is None else None
        if not self.fits(pending.reservation, self.reserved(but=own, answering=True)):
            return False  # and nobody gave up anything in vain
        while not self.fits(pending.reservation, self.reserved(but=own)):
            others = [slot for slot in self.values() if slot.listens and slot is not own and any(slot.reserved)]
            idlest = min(others, key=lambda slot: slot.touched)
            idlest.session.context.free()
            idlest.reserved = (0, 0)
            idlest.can_read = False
        return True

    def ledger(self, live_sessions: int, waiting: int) -> Ledger:
        """The ledger of what is lent out now. May be called from any thread."""
        slots = list(self.values())
        stores = self.stores
        return Ledger(
            sum(not slot.listens for slot in slots),
            live_sessions,
            waiting,
            stores.thinker.used,
            stores.talker.used if stores.talker else 0,
            *self.reserved(),
            sum(slot.session.speech is not None for slot in slots),
            sum(slot.session.context.encoded for slot in slots),
        )

    def check_pages(self) -> None:
        """Deep check of all pages; call it while the engine rests. RuntimeError names what is out of order."""
        contexts = [slot.session.context for slot in self.values()]
        self.stores.thinker.check([context.thinker_kv for context in contexts])
        if self.stores.talker is not None:
            self.stores.talker.check([context.talker_kv for context in contexts if context.talker_kv is not None])
