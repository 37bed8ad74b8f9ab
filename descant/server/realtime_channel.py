"""The ways by which a realtime talk reaches its client: what a transport has to do, and the WebSocket."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from descant.server.voice_formats import SoundArray

if TYPE_CHECKING:
    from descant.server.realtime_answer import RealtimeAnswer


@dataclass(frozen=True)
class Played:
    """The answer whose sound was cut off, and seconds of it that were heard."""

    response: RealtimeAnswer
    heard_s: float


class SoundLine(Protocol):
    """A way by which sound leaves beside the events, in real time."""

    async def play(self, response: RealtimeAnswer, samples: SoundArray) -> None:
        """Queue samples (W,) at 24 kHz."""

    def clear(self) -> Played | None:
        """Drop what was not played; returns whose it was and how much of that was (None: there was nothing)."""

    async def ended(self, response: RealtimeAnswer) -> None:
        """Nothing more comes of an answer."""


class Channel(Protocol):
    """A way to one client."""

    @property
    def line(self) -> SoundLine | None:
        """The way by which sound leaves; None: as events."""

    async def receive(self) -> str | SoundArray | None:
        """The client's next event, or samples (W,) of its microphone at the session's rate; None: the client left."""

    async def send(self, text: str) -> None:
        """One event to the client. Harmless when the client is gone."""

    async def close(self, code: int = 1000) -> None:
        """End it. Harmless when repeated."""


class SocketChannel:
    """A WebSocket."""

    line = None

    def __init__(self, socket: WebSocket):
        self.socket = socket

    async def receive(self) -> str | None:
        try:
            message = await self.socket.receive()
        except RuntimeError:  # it was closed from here
            return None
        text = message.get("text")
        if text is None and message["type"] == "websocket.receive":
            await self.close(1003)  # the protocol has no binary messages
        return text

    async def send(self, text: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await self.socket.send_text(text)

    async def close(self, code: int = 1000) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await self.socket.close(code)
