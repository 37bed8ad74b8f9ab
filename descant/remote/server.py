"""A server at an address: which models and voices it has, and one streamed answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from descant.errors import OptionError, RequestError, SessionError, shortened
from descant.remote.wire import ChunkDelta, api_base, deltas_of, lines_of, refusal

try:
    import httpx
except ImportError as missing:
    raise OptionError(f"talking to a server needs an extra ({missing.name}): pip install 'descant[remote]'") from None

CONNECT_S = 10.0
NO_BYTE_S = 120.0  # without a byte, a server is taken to be gone
SOME_VOICE = "alloy"  # a name that OpenAI's servers have, and others map to one of theirs
SHOWN_MODELS = 20
BODY_BYTES_MOST = 4 << 20  # of a response that is no stream


class RemoteServer:
    """An OpenAI-compatible server. Use it in a ``with``; threads may share it. Nothing is asked until it is used."""

    def __init__(self, url: str, key: str | None = None):
        self.base = api_base(url)
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise OptionError("--key is not printable ASCII, as keys are; check what was pasted")
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=None)
        timeout = httpx.Timeout(NO_BYTE_S, connect=CONNECT_S)
        self._client = httpx.Client(headers=self.headers, timeout=timeout, limits=limits, trust_env=False)

    def __enter__(self) -> RemoteServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    # ------------------------------------------------------------ what it has

    def models(self) -> list[str]:
        """The names of its models; none where it does not list them. Raises SessionError and RequestError."""
        return self._listed("/models", "data", lambda row: row["id"])

    def voices(self) -> tuple[str, ...]:
        """The names of its voices; none where it does not list them."""
        return tuple(self._listed("/audio/voices", "voices", lambda row: row if isinstance(row, str) else row["id"]))

    def model(self, wanted: str | None) -> str:
        """A model that it has: the one that is wanted, or its first. Raises OptionError."""
        names = self.models()
        if wanted is None and not names:
            raise OptionError(f"{self.base} does not list its models; name one by --model")
        if wanted is not None and names and wanted not in names:
            shown = ", ".join(names[:SHOWN_MODELS])
            raise OptionError(f"{self.base} has no model {shortened(wanted)}; it has {shown}")
        return wanted or names[0]

    def _listed(self, path: str, field: str, name: Callable[[Any], str]) -> list[str]:
        try:
            told = json.loads(self._get(path))
            return [str(name(row)) for row in told[field]]
        except RequestError as error:
            if error.status in (404, 405, 501):
                return []
            raise
        except (ValueError, TypeError, LookupError, RecursionError):
            raise SessionError(f"{self.base}{path} is no list of names; is it an OpenAI-compatible server?") from None

    # ------------------------------------------------------------ asking

    def _get(self, path: str) -> bytes:
        with self._asked("GET", path, None) as response:
            return limited(response)

    def stream(self, body: Mapping[str, Any]) -> Iterator[ChunkDelta]:
        """The chunks of one streamed completion. Leaving it early closes the connection, which cancels the answer.

        Raises RequestError for what the server refuses, SessionError where it is away or breaks off.
        """
        options = {"stream": True, "stream_options": {"include_usage": True}}
        with self._asked("POST", "/chat/completions", {**body, **options}) as response:
            yield from deltas_of(lines_of(response.iter_bytes()))

    @contextmanager
    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, f"{self.base}{path}", json=body) as response:
                if response.status_code != 200:
                    raise refusal(response.status_code, limited(response))
                yield response
        except httpx.ConnectError as error:
            raise SessionError(f"nobody answers at {self.base} ({error}); `descant serve` starts a server") from None
        except httpx.TimeoutException:
            raise SessionError(f"{self.base} was silent for too long; is it overloaded? Ask again") from None
        except httpx.HTTPError as error:
            raise SessionError(f"the connection to {self.base} broke: {error}; ask again") from None


def limited(response: httpx.Response) -> bytes:
    """The body of a response, or its beginning."""
    data = bytearray()
    for block in response.iter_bytes():
        data += block
        if len(data) > BODY_BYTES_MOST:
            break
    return bytes(data)


def question(
    messages: Sequence[Mapping[str, Any]],
    model: str,
    *,
    voice: str | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The body of a completion. voice: who speaks it (None: text only)."""
    body: dict[str, Any] = {"model": model, "messages": list(messages)}
    if voice is not None:
        body |= {"modalities": ["text", "audio"], "audio": {"voice": voice, "format": "pcm16"}}
    body |= {} if max_tokens is None else {"max_tokens": max_tokens}
    return body | ({} if seed is None else {"seed": seed})
