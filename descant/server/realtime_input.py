"""The input side of a realtime talk: its microphone and camera, and when a turn begins and ends.

Sound is pushed into the live session while it comes in. What may be speech is pushed at its first frame, with the
padding before it, and taken back if it was nothing; sound in which nobody speaks is not pushed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from descant.errors import DescantError, MediaError, RequestError
from descant.pcm import to_pcm16
from descant.server.errors import body_of_error, request_error
from descant.server.media import media_of
from descant.server.realtime_items import TalkItem
from descant.server.realtime_session import AudioIn, SemanticVad, ServerVad, new_id
from descant.server.turn_end import TurnEnd
from descant.server.vad import TurnDetector, VadEvent, VadSettings
from descant.server.voice_formats import SoundArray
from descant.types import TRANSCRIBE, Audio, Finished, TextDelta, user

if TYPE_CHECKING:
    from descant.server.realtime import RealtimeTalk

KEPT_SOUND_S = 300.0  # of a turn: what can be heard at once
SHORTEST_TURN_S = 0.1  # less is no speech
LARGE_CHARACTERS = 64 << 10  # of an event: what is larger is read on a thread
CUT_S = 0.1  # the longest piece that is looked at at once, so that turns are cut where they end
TRANSCRIPT = "conversation.item.input_audio_transcription"
TRANSCRIPT_WAIT_S = 2.0  # for the answer's first sound, which the transcript would delay
EMPTY = "input_audio_buffer_commit_empty"


@dataclass
class Turn:
    """The turn that is coming in. item: its id; pcm: its sound, 16 bit, for a transcript; begun_s: on the clock of all
    sound; first_frame_s: on the event loop's; frame_s: of the last frame, since the turn began."""

    item: str = field(default_factory=lambda: new_id("item"))
    pcm: list[bytes] = field(default_factory=list)
    seconds: float = 0.0
    begun_s: float = 0.0
    first_frame_s: float = 0.0
    frame_s: float = 0.0

    def samples(self) -> SoundArray:
        """The sound (W,)."""
        return np.frombuffer(b"".join(self.pcm), "<i2").astype(np.float32) / np.float32(32768)


class RealtimeInput:
    """Microphone and camera of one talk."""

    def __init__(self, talk: RealtimeTalk):
        self.talk = talk
        self.turn = Turn()
        self.detector: TurnDetector | None = None
        self.turn_end: TurnEnd | None = None
        self.before: deque[SoundArray] = deque()  # sound in which nobody speaks: the padding of what may come
        self.frame: bytes | None = None  # the camera's last, of those that came while nobody spoke
        self.clock_s = 0.0  # of all sound that came
        self.busy = asyncio.Lock()  # held by whoever changes the turn
        self._reading = False  # what comes is pushed
        self._idle: asyncio.Task[None] | None = None

    @property
    def detection(self) -> ServerVad | SemanticVad | None:
        return self.talk.config.detection

    @property
    def rate(self) -> int:
        return self.talk.config.audio.input.format.coding.rate

    def check_change(self, after: AudioIn) -> None:
        """Refuse another coding in the middle of a turn."""
        if self.turn.seconds and after.format != self.talk.config.audio.input.format:
            message = "the format of sound cannot change in the middle of a turn; commit or clear it first"
            raise RequestError(400, "invalid_state", message, param="session.audio.input.format")

    def reset(self) -> None:
        """The session has changed: turns are told anew."""
        self.before.clear()
        self.detector = None
        self.turn_end = None
        self.rest()

    # ------------------------------------------------------------ client events

    async def append(self, event: dict[str, Any]) -> None:
        """Sound came."""
        coding = self.talk.config.audio.input.format.coding
        given = event.get("audio")
        large = isinstance(given, str) and len(given) > LARGE_CHARACTERS
        await self.take(await asyncio.to_thread(coding.decoded, given) if large else coding.decoded(given))

    async def take(self, samples: SoundArray) -> None:
        """Samples (W,) float32 at the session's rate."""
        async with self.busy:
            await self._take(samples)

    async def _take(self, samples: SoundArray) -> None:
        if self.detection is None and self.turn.seconds + len(samples) / self.rate > KEPT_SOUND_S:
            message = f"{KEPT_SOUND_S:g} s of sound wait already; commit or clear them"
            raise RequestError(400, "input_audio_buffer_full", message, param="audio")
        step = max(1, round(CUT_S * self.rate))
        for start in range(0, len(samples), step):
            await self._hear(samples[start : start + step])

    async def see(self, event: dict[str, Any]) -> None:
        """A camera's frame came: it stands where the clock of the sound stands. While nobody speaks only the last one
        is kept, and shown when somebody does."""
        image = await asyncio.to_thread(media_of, event.get("image"), "image", "image")
        if not self.talk.converses:
            return
        if self.detection is not None and not self.turn.seconds:
            self.frame = image
        else:
            await self._show(image)

    async def commit(self, event: dict[str, Any]) -> None:
        """The client says that the turn is over."""
        async with self.busy:
            if self.detector is not None:
                await self._read_before()
                self.detector.stop()
            await self.end_turn()

    async def settle(self) -> None:
        """An answer is asked for and turns are told by hand: what waits is a turn, as if it had been committed. Less
        than a turn is forgotten."""
        async with self.busy:
            if self.detection is not None or not self.turn.seconds:
                return
            if self.turn.seconds < SHORTEST_TURN_S:
                await self._take_back()
            else:
                await self.end_turn()

    async def clear(self, event: dict[str, Any]) -> None:
        """Forget what came since the last turn."""
        async with self.busy:
            if self.detector is not None:
                self.detector.stop()
            self.before.clear()
            await self._take_back()
        await self.talk.send("input_audio_buffer.cleared")

    def close(self) -> None:
        """Nothing more comes."""
        self.rest()
        if self.turn_end is not None:
            self.turn_end.reset()

    # ------------------------------------------------------------ turns

    async def end_turn(self) -> str:
        """The turn is over, and an item of the conversation; returns its id. Raises RequestError."""
        turn = self.turn
        if turn.seconds < SHORTEST_TURN_S:
            raise RequestError(400, EMPTY, "there is no sound in the buffer to commit")
        talk = self.talk
        key = None
        if talk.converses:
            live = await talk.session()
            try:
                key = await asyncio.to_thread(live.commit)
            except MediaError:
                await self._take_back()
                raise
        self._new_turn()
        part = {"type": "input_audio", "transcript": None}
        record: dict[str, Any] = {"id": turn.item, "object": "realtime.item", "type": "message", "role": "user"}
        record |= {"status": "completed", "content": [part]}
        before = talk.items.all[-1].id if talk.items.all else None
        await talk.send("input_audio_buffer.committed", {"item_id": turn.item, "previous_item_id": before})
        await talk.add_item(TalkItem(record, key))
        if talk.config.audio.input.transcription is not None or not talk.converses:
            talk.start(self._transcribe(turn, part))
        return turn.item

    async def abandon(self) -> None:
        """Nothing came for too long in the middle of a turn: it is forgotten, and what it held is free."""
        await self.clear({})
        message = "nothing came for too long in the middle of a turn, which is forgotten"
        await self.talk.send("error", body_of_error(RequestError(408, "idle_timeout", message)))

    def rest(self) -> None:
        """Whoever was to be asked whether they are still there has said something."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def await_user(self, unplayed_s: float) -> None:
        """An answer has ended, and so many seconds of it are still to be heard: then the user's time begins."""
        detection = self.detection
        self.rest()
        if isinstance(detection, ServerVad) and detection.idle_timeout_ms is not None:
            self._idle = self.talk.start(self._ask_again(unplayed_s + detection.idle_timeout_ms / 1000))

    # ------------------------------------------------------------ inside

    async def _hear(self, samples: SoundArray) -> None:
        """A short piece of sound (W,)."""
        self.clock_s += len(samples) / self.rate
        detection = self.detection
        if detection is None:
            await self._read(samples)
            return
        if self.detector is None:
            settings, self.turn_end = settings_of(detection)
            self.detector = self.talk.state.detector(self.rate, settings)
        self.before.append(samples)
        for event in list(self.detector.push(samples)):  # here: it takes a fraction of a millisecond
            await self._follow(event, detection)
        if self._reading:
            await self._read_before()
        self._forget_before(self.detector.settings.padding_s)
        if self.turn_end is not None and self.detector.speaking:
            self.turn_end.paused(self.detector.quiet_s)
            if self.turn_end.over:
                self.detector.stop()
                await self._follow(VadEvent("stopped", self.clock_s), detection)

    async def _follow(self, event: VadEvent, detection: ServerVad | SemanticVad) -> None:
        """Act on an event of the detector."""
        ms = round(1000 * event.at_s)
        talk = self.talk
        match event.kind:
            case "maybe":
                self._reading = talk.converses
                self.turn.begun_s = event.at_s
            case "nothing":
                self.before.clear()
                await self._take_back()
            case "started":
                self._reading = True
                self.rest()
                await talk.send("input_audio_buffer.speech_started", {"audio_start_ms": ms, "item_id": self.turn.item})
                if detection.interrupt_response:
                    await talk.responses.interrupt()
            case "pausing":
                if self.turn_end is not None:
                    await self._read_before()
                    self.turn_end.begin(talk.state.omni, self.turn.samples(), self.rate)
            case "stopped":
                await self._read_before()
                self._reading = False
                await talk.send("input_audio_buffer.speech_stopped", {"audio_end_ms": ms, "item_id": self.turn.item})
                await self.end_turn()
                if detection.create_response and talk.converses:
                    await talk.responses.begin_by_turn()

    async def _read(self, samples: SoundArray) -> None:
        """Sound that belongs to the turn: the model reads it while it comes in."""
        if not len(samples):
            return
        if self.talk.converses:
            await (await self.talk.session()).apush_audio(samples, self.rate)
        self.turn.seconds += len(samples) / self.rate
        if self.turn.seconds <= KEPT_SOUND_S:
            self.turn.pcm.append(to_pcm16(samples))
        if self.frame is not None:
            image, self.frame = self.frame, None
            try:
                await self._show(image)
            except MediaError as error:  # the sound is not lost by it
                await self.talk.send("error", body_of_error(request_error(error)))

    async def _show(self, image: bytes) -> None:
        """A frame belongs to the turn."""
        live = await self.talk.session()
        turn = self.turn
        now = asyncio.get_running_loop().time()
        turn.first_frame_s = turn.first_frame_s or now
        turn.frame_s = max(turn.frame_s, turn.seconds or now - turn.first_frame_s)  # never back
        await live.apush_frame(image, turn.frame_s)

    async def _read_before(self) -> None:
        while self.before:
            await self._read(self.before.popleft())

    async def _take_back(self) -> None:
        """Roll back what was read of a turn that is none."""
        self._new_turn()
        if self.talk.live is not None:
            await self.talk.live.aclear()

    def _new_turn(self) -> None:
        self.turn = Turn()
        self._reading = False
        if self.turn_end is not None:
            self.turn_end.reset()

    def _forget_before(self, seconds: float) -> None:
        """Keep of the sound before speech no more than its padding."""
        kept = sum(map(len, self.before))
        while self.before and kept - len(self.before[0]) >= seconds * self.rate:
            kept -= len(self.before.popleft())

    async def _ask_again(self, wait_s: float) -> None:
        """The user says nothing for a while: the silence is their turn, and it is answered."""
        await asyncio.sleep(wait_s)
        self._idle = None
        async with self.busy:
            await self._answer_silence()

    async def _answer_silence(self) -> None:
        if self.turn.seconds or self.talk.responses.active is not None:
            return
        await self._read_before()
        if self.turn.seconds < SHORTEST_TURN_S:
            await self._read(np.zeros(round(2 * SHORTEST_TURN_S * self.rate), np.float32))
        end = round(1000 * self.clock_s)
        fields = {"audio_start_ms": max(0, end - round(1000 * self.turn.seconds)), "audio_end_ms": end}
        await self.talk.send("input_audio_buffer.timeout_triggered", fields | {"item_id": self.turn.item})
        await self.end_turn()
        await self.talk.responses.begin_by_turn()

    async def _transcribe(self, turn: Turn, part: dict[str, Any]) -> None:
        """Write down what was said, beside the answer, once that is heard. part: of the item, which keeps it."""
        place = {"item_id": turn.item, "content_index": 0}
        talk = self.talk
        try:
            await talk.responses.heard(TRANSCRIPT_WAIT_S)
            sound = Audio(turn.samples(), self.rate)
            text = ""
            async for event in await talk.state.omni.achat([user(sound, TRANSCRIBE)], speech=False):
                if isinstance(event, TextDelta):
                    await talk.send(f"{TRANSCRIPT}.delta", {**place, "delta": event.text})
                elif isinstance(event, Finished):
                    text = event.text
            part["transcript"] = text
            usage = {"type": "duration", "seconds": turn.seconds}
            await talk.send(f"{TRANSCRIPT}.completed", {**place, "transcript": text, "usage": usage})
        except DescantError as error:
            told = body_of_error(request_error(error))["error"]
            await talk.send(f"{TRANSCRIPT}.failed", {**place, "error": told})


def settings_of(detection: ServerVad | SemanticVad) -> tuple[VadSettings, TurnEnd | None]:
    """The detector's settings, and who decides when a turn is over (None: the detector)."""
    if isinstance(detection, SemanticVad):
        turn_end = TurnEnd(detection.eagerness)
        return VadSettings(silence_s=turn_end.longest_s), turn_end
    settings = VadSettings(
        detection.threshold, detection.silence_duration_ms / 1000, detection.prefix_padding_ms / 1000
    )
    return settings, None
