"""A realtime talk over WebRTC: sound in and out by RTP, events by the data channel ``oai-events`` (extra ``[webrtc]``).

    browser  --offer-->  POST /v1/realtime/calls  --answer-->  browser
    microphone track --> samples at the session's rate --+
    data channel     --> client events ------------------+--> RealtimeTalk --> data channel, VoiceTrack --> loudspeaker

The talk is the one of the WebSocket (`realtime.py`). What differs is the sound: it is played here, in real time, so the
server knows how much of an answer was heard, and cuts an interrupted one itself. Source: aiortc.
"""

from __future__ import annotations

import asyncio
import fractions
import logging
from collections import deque
from contextlib import suppress

import av
import numpy as np
import soxr
from aiortc import MediaStreamTrack, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError

from descant.config import OUTPUT_RATE_HZ
from descant.pcm import to_pcm16
from descant.server.dialects import DIALECTS
from descant.server.errors import wrong
from descant.server.realtime import RealtimeTalk
from descant.server.realtime_answer import RealtimeAnswer
from descant.server.realtime_channel import Played
from descant.server.realtime_session import RealtimeSession, new_id
from descant.server.state import ServerState
from descant.server.voice_formats import SoundArray

log = logging.getLogger(__name__)
VOICE_FRAME_S = 0.02  # of sound on its way out
HEARD_S = 0.04  # of sound on its way in that is handed on at once
MOST_WAITING = 512  # events and pieces of sound that wait to be taken; beyond that the oldest sound is dropped
MOST_UNSENT = 4096  # events that wait for the data channel to open
PEER_CONNECT_S = 30.0  # until the peer must be there
WRONG_SDP = (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, InvalidStateError)


class VoiceTrack(MediaStreamTrack):
    """Sound on its way out, 20 ms at a time, in real time; silence where there is none."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.size = round(OUTPUT_RATE_HZ * VOICE_FRAME_S)
        self.queue: deque[SoundArray] = deque()
        self.taken = 0  # samples of sound that left since ``restart``
        self.drained = asyncio.Event()
        self._sent = 0  # frames
        self._start = 0.0
        self.drained.set()

    def put(self, samples: SoundArray) -> None:
        """Samples (W,) at 24 kHz."""
        self.queue.append(samples)
        self.drained.clear()

    def clear(self) -> None:
        """Drop what has not left."""
        self.queue.clear()
        self.drained.set()

    def restart(self) -> None:
        """Count from here."""
        self.taken = 0

    async def recv(self) -> av.AudioFrame:
        """The next frame, when it is due."""
        loop = asyncio.get_running_loop()
        self._start = self._start or loop.time()
        await asyncio.sleep(self._start + self._sent * VOICE_FRAME_S - loop.time())
        frame = av.AudioFrame.from_ndarray(np.frombuffer(to_pcm16(self._next()), "<i2")[None], "s16", "mono")
        frame.sample_rate = OUTPUT_RATE_HZ
        frame.pts = self._sent * self.size
        frame.time_base = fractions.Fraction(1, OUTPUT_RATE_HZ)
        self._sent += 1
        return frame

    def _next(self) -> SoundArray:
        """The samples of one frame."""
        frame = np.zeros(self.size, np.float32)
        filled = 0
        while self.queue and filled < self.size:
            piece = self.queue.popleft()
            count = min(len(piece), self.size - filled)
            frame[filled : filled + count] = piece[:count]
            filled += count
            if count < len(piece):
                self.queue.appendleft(piece[count:])
        self.taken += filled
        if not self.queue:
            self.drained.set()
        return frame


class VoiceLine:
    """The sound of one talk on its way out, and how much of it was heard."""

    def __init__(self, track: VoiceTrack):
        self.track = track
        self.talk: RealtimeTalk | None = None
        self.response: RealtimeAnswer | None = None  # whose sound is in the track

    async def play(self, response: RealtimeAnswer, samples: SoundArray) -> None:
        """Samples (W,) at 24 kHz of an answer. The first of them begin the output."""
        if response is not self.response:
            await self.track.drained.wait()
            self.response = response
            self.track.restart()
            await self._send("started", response)
        self.track.put(samples)

    def clear(self) -> Played | None:
        """Drop what was not played; returns whose it was and how much of that was (None: there was nothing)."""
        response, self.response = self.response, None
        left = not self.track.drained.is_set()
        self.track.clear()
        if response is None or not left:
            return None
        return Played(response, self.track.taken / OUTPUT_RATE_HZ)

    async def ended(self, response: RealtimeAnswer) -> None:
        """Nothing more comes of an answer; when all of it is played, that is told."""
        if response is self.response:
            await self.track.drained.wait()
        if response is self.response:
            self.response = None
            await self._send("stopped", response)

    async def _send(self, what: str, response: RealtimeAnswer) -> None:
        if self.talk is not None:
            await self.talk.send(f"output_audio_buffer.{what}", {"response_id": response.id})


class PeerChannel:
    """One peer: its events and its microphone in, events and a voice out."""

    def __init__(self, peer: RTCPeerConnection):
        self.peer = peer
        self.track = VoiceTrack()
        self.line = VoiceLine(self.track)
        self.here = asyncio.Event()  # the peer is connected
        self._came: asyncio.Queue[str | SoundArray | None] = asyncio.Queue(MOST_WAITING)
        self._unsent: deque[str] = deque(maxlen=MOST_UNSENT)
        self._events: RTCDataChannel | None = None
        self._listening: asyncio.Task[None] | None = None
        peer.on("datachannel", self.open_events)
        peer.on("track", self.open_track)
        peer.on("connectionstatechange", self.look)

    # ------------------------------------------------------------ the peer's side

    def open_events(self, events: RTCDataChannel) -> None:
        """The peer opened a data channel."""
        self._events = events
        events.on("message", self.take)
        events.on("close", self.leave)
        while self._unsent:
            events.send(self._unsent.popleft())

    def open_track(self, track: MediaStreamTrack) -> None:
        """The peer has a microphone."""
        if track.kind == "audio" and self._listening is None:
            self._listening = asyncio.ensure_future(self.listen(track))

    def look(self) -> None:
        """The connection has changed."""
        if self.peer.connectionState == "connected":
            self.here.set()
        elif self.peer.connectionState in ("failed", "closed"):
            self.leave()

    def take(self, message: str | bytes) -> None:
        """An event of the peer; one that comes faster than it can be taken ends the call."""
        if isinstance(message, bytes) or self._came.full():
            self.leave()
        else:
            self._came.put_nowait(message)

    def leave(self) -> None:
        """The peer has gone, or must."""
        while self._came.full():
            self._came.get_nowait()
        self._came.put_nowait(None)
        self.here.set()

    async def listen(self, track: MediaStreamTrack) -> None:
        """Hand on the microphone's sound until it ends."""
        resampler: soxr.ResampleStream | None = None
        rates = (0, 0)
        pieces: list[SoundArray] = []
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if not isinstance(frame, av.AudioFrame):
                    continue
                rate = self.line.talk.input.rate if self.line.talk is not None else OUTPUT_RATE_HZ
                if rates != (frame.sample_rate, rate):
                    rates = (frame.sample_rate, rate)
                    resampler = soxr.ResampleStream(*rates, 1, "float32")
                assert resampler is not None
                pieces.append(resampler.resample_chunk(mono_of(frame)))
                if sum(map(len, pieces)) >= HEARD_S * rate and not self._came.full():
                    self._came.put_nowait(np.concatenate(pieces))
                    pieces.clear()

    # ------------------------------------------------------------ the talk's side

    async def receive(self) -> str | SoundArray | None:
        return await self._came.get()

    async def send(self, text: str) -> None:
        if self._events is None:
            self._unsent.append(text)
        elif self._events.readyState == "open":
            self._events.send(text)

    async def close(self, code: int = 1000) -> None:
        if self._listening is not None:
            self._listening.cancel()
        self.track.stop()
        self.leave()
        await self.peer.close()


def mono_of(frame: av.AudioFrame) -> SoundArray:
    """The samples (W,) of a frame of 16-bit sound, channels together."""
    sound = frame.to_ndarray()
    rows = sound.reshape(-1, len(frame.layout.channels)).T if sound.shape[0] == 1 else sound
    mono: SoundArray = rows.mean(axis=0, dtype=np.float32) / np.float32(32768)
    return mono


async def answer_call(state: ServerState, offer: str, session: RealtimeSession) -> tuple[str, str]:
    """Take a call; returns its id and the SDP of the answer. The talk begins when the peer is there.

    Raises RequestError.
    """
    peer = RTCPeerConnection()
    channel = PeerChannel(peer)
    try:
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        peer.addTrack(channel.track)
        await peer.setLocalDescription(await peer.createAnswer())
    except WRONG_SDP:
        await channel.close()
        raise wrong("the offer is no SDP that can be answered", "sdp") from None
    talk = RealtimeTalk(channel, state, DIALECTS["openai"], session)
    channel.line.talk = talk
    name = new_id(f"rtc_{state.replica}" if state.replica else "rtc")
    state.calls[name] = asyncio.create_task(hold_call(state, name, channel, talk))
    return name, peer.localDescription.sdp


async def hold_call(state: ServerState, name: str, channel: PeerChannel, talk: RealtimeTalk) -> None:
    """One call, until its end."""
    try:
        async with asyncio.timeout(PEER_CONNECT_S):
            await channel.here.wait()
        await talk.run()
    except TimeoutError:
        log.info("the peer of a call never came")
    finally:
        state.calls.pop(name, None)
        await channel.close()
