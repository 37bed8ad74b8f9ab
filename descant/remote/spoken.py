"""One spoken turn over /v1/realtime: a question said at a microphone's pace, and the answer as it comes."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from descant.errors import OptionError, RequestError, SessionError, shortened
from descant.remote.heard import Heard
from descant.remote.server import CONNECT_S, NO_BYTE_S
from descant.remote.wire import LINE_BYTES_MOST, STREAM_RATE_HZ, refusal

try:
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
    from websockets.sync.client import ClientConnection, connect
except ImportError as missing:
    raise OptionError(f"a realtime talk needs an extra ({missing.name}): pip install 'descant[remote]'") from None

PACE_S = 0.1  # of sound in one event
BLOCK_BYTES = 2 * round(PACE_S * STREAM_RATE_HZ)
BY_HAND = {"type": "realtime", "output_modalities": ["audio"], "audio": {"input": {"turn_detection": None}}}
DELTAS = ("response.output_audio_transcript.delta", "response.output_text.delta")
SOUND = "response.output_audio.delta"


def spoken_turn(base: str, headers: dict[str, str], model: str, pcm: bytes, max_tokens: int | None = None) -> Heard:
    """Say ``pcm`` (16-bit, STREAM_RATE_HZ) in real time, end the turn, and hear the answer. base: as of api_base.

    Its times count from the end of the turn. Raises SessionError and RequestError.
    """
    blocks = [pcm[start : start + BLOCK_BYTES] for start in range(0, len(pcm), BLOCK_BYTES)]
    with realtime_socket(base, headers, model) as socket:
        send(socket, "session.update", {"session": BY_HAND})
        until(socket, "session.updated")
        say_in_time(socket, blocks)
        send(socket, "input_audio_buffer.commit")
        limit = {} if max_tokens is None else {"max_output_tokens": max_tokens}
        send(socket, "response.create", {"response": limit})
        heard = Heard()
        for event in events_of_socket(socket):
            if event["type"] in DELTAS:
                heard.take(str(event.get("delta")), b"")
            elif event["type"] == SOUND:
                heard.take("", sound_in(event))
            elif event["type"] == "response.done":
                heard.take("", b"")
                check_done(event)
                return heard
    raise SessionError("the server closed the socket before its answer had ended; ask again")


@contextmanager
def realtime_socket(base: str, headers: dict[str, str], model: str) -> Iterator[ClientConnection]:
    """A socket to the realtime route. Every fault of it is one of our errors."""
    url = f"{base.replace('http', 'ws', 1)}/realtime?model={quote(model)}"
    options: dict[str, Any] = {"open_timeout": CONNECT_S, "max_size": LINE_BYTES_MOST, "proxy": None}
    try:
        with connect(url, additional_headers=headers, **options) as socket:
            yield socket
    except InvalidStatus as error:
        raise refusal(error.response.status_code, bytes(error.response.body or b"")) from None
    except ConnectionClosed as error:
        raise SessionError(f"the server closed the socket ({error}); ask again") from None
    except (InvalidHandshake, InvalidMessage) as error:
        raise SessionError(f"{url} speaks no WebSocket ({error}); has this server /v1/realtime?") from None
    except TimeoutError:
        raise SessionError(f"{url} was silent for too long; is it overloaded? Ask again") from None
    except OSError as error:
        raise SessionError(f"nobody answers at {url} ({error}); `descant serve` starts a server") from None


def send(socket: ClientConnection, kind: str, fields: Mapping[str, object] | None = None) -> None:
    socket.send(json.dumps({"type": kind, **(fields or {})}))


def say_in_time(socket: ClientConnection, blocks: Sequence[bytes]) -> None:
    """Send sound as a microphone does: each block once it has been said."""
    begin = time.perf_counter()
    for number, block in enumerate(blocks, 1):
        time.sleep(max(0.0, begin + number * PACE_S - time.perf_counter()))
        send(socket, "input_audio_buffer.append", {"audio": b64encode(block).decode()})


def until(socket: ClientConnection, kind: str) -> None:
    for event in events_of_socket(socket):
        if event["type"] == kind:
            return


def events_of_socket(socket: ClientConnection) -> Iterator[dict[str, Any]]:
    """The server's events. Raises RequestError for one that is an error."""
    while True:
        told = socket.recv(timeout=NO_BYTE_S)
        try:
            event = json.loads(told)
            kind = event["type"]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise SessionError(f"the server sent {shortened(told)}, which is no event") from None
        if kind == "error":
            raise refusal(400, json.dumps(event).encode())
        yield event


def sound_in(event: dict[str, Any]) -> bytes:
    """The samples of one event. Raises SessionError."""
    try:
        pcm = b64decode(event["delta"], validate=True)
    except (ValueError, TypeError, LookupError):
        raise SessionError(f"the server sent {shortened(event)}, which has no sound in it") from None
    return pcm[: len(pcm) // 2 * 2]


def check_done(event: dict[str, Any]) -> None:
    """Refuse an answer that failed. Raises RequestError."""
    response = event.get("response")
    status = response.get("status") if isinstance(response, dict) else None
    if status not in ("completed", "incomplete"):
        details = response.get("status_details") if isinstance(response, dict) else None
        raise RequestError(500, "response_failed", f"the answer is {status}: {shortened(details)}; ask again")
