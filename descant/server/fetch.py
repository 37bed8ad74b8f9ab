"""Media from addresses, where the operator names the hosts (``media_hosts``); without any nothing is fetched.

A name is looked up once, all that it stands for is looked at, and one of those addresses is dialled: what was checked
is what is reached, so that no second look-up can lead elsewhere. Redirects are steps of the same kind. Nothing of this
server goes along: no proxy and no credentials of its environment, no cookies, no client's headers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import httpcore
import httpx

from descant.errors import RequestError
from descant.omni import TENANT
from descant.server.media import FETCHED, SERVER_BUDGET, check_counts

Resolver = Callable[[str, int], Awaitable[list[str]]]
PORTS = {"http": 80, "https": 443}
REDIRECTS_MOST = 3
FETCH_S = 15.0  # seconds for one address, waiting and redirects included
FETCHES_AT_ONCE = 32  # of all
FETCHES_OF_ONE = 4  # of one key
ADDRESS_CHARACTERS = 2048
NETWORK_FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpx.InvalidURL)
HEADERS = {"accept": "image/*, audio/*, video/*", "accept-encoding": "identity", "user-agent": "descant"}
# Networks of IPv6 whose addresses have one of IPv4 in their last 32 bits, which is where they lead (RFC 6052, 8215).
_TRANSLATED = [ipaddress.IPv6Network(name) for name in ("64:ff9b::/96", "64:ff9b:1::/48")]
_TUNNEL = ipaddress.IPv6Network("2002::/16")  # 6to4, and Teredo: no media are there


async def addresses_of(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[4][0]) for place in found]


def is_public(address: str) -> bool:
    """True for an address of the open network, whatever it is written as."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # also one with a zone, which is of this machine's links
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if parsed.sixtofour is not None or parsed.teredo is not None or parsed in _TUNNEL:
            return False
        if parsed.scope_id or parsed.is_site_local:
            return False
        if any(parsed in network for network in _TRANSLATED):
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def is_named(host: str, allowed: Iterable[str]) -> bool:
    """True for a host that is allowed: by its name, by ".name" for all below it, or by "*"."""
    host = host.lower().removesuffix(".")
    names = [name.lower() for name in allowed]
    return any(name in ("*", host) or (name.startswith(".") and host.endswith(name)) for name in names)


class PinnedNetwork(httpcore.AsyncNetworkBackend):
    """Dials only what it has looked up and looked at."""

    def __init__(self, network: httpcore.AsyncNetworkBackend, look_up: Resolver):
        self.network = network
        self.look_up = look_up

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await self.look_up(host, port)
        if not found or not all(map(is_public, found)):  # a mixed answer is an attempt
            raise not_allowed()
        return await self.network.connect_tcp(found[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise not_allowed()

    async def sleep(self, seconds: float) -> None:
        await self.network.sleep(seconds)


class MediaFetcher:
    """Fetches media for requests. network, look_up: of tests."""

    def __init__(
        self,
        hosts: Sequence[str],
        network: httpcore.AsyncNetworkBackend | None = None,
        look_up: Resolver = addresses_of,
    ):
        self.hosts = hosts
        self.network = PinnedNetwork(network or httpcore.AnyIOBackend(), look_up)
        self.tls = httpx.create_ssl_context(trust_env=False)  # once: it reads all authorities
        self._all = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._of_one: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(FETCHES_OF_ONE))

    async def fetch_all(self, addresses: Iterable[str]) -> dict[str, bytes]:
        """The bytes behind each address. Raises RequestError for the first that cannot be had."""
        wanted = list(dict.fromkeys(addresses))
        for address in wanted:
            self._checked(address)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(address)) for address in wanted]
        found = [task.result() for task in tasks]
        for one in found:
            if isinstance(one, RequestError):
                raise one
        return {address: one for address, one in zip(wanted, found, strict=True) if isinstance(one, bytes)}

    async def _guarded(self, address: str) -> bytes | RequestError:
        """The bytes, or why not, in words that tell nothing of the network."""
        try:
            async with asyncio.timeout(FETCH_S), self._of_one[TENANT.get()], self._all:
                return await self._fetch(address)
        except RequestError as refusal:
            return refusal
        except TimeoutError:
            return RequestError(408, "media_fetch_timeout", "an address did not answer in time; send a data URL")
        except (*NETWORK_FAULTS, OSError, ValueError):
            return RequestError(400, "media_fetch_failed", "an address could not be fetched; send a data URL")

    def _checked(self, address: str | httpx.URL) -> httpx.URL:
        """An address that may be fetched. Raises RequestError."""
        try:
            url = httpx.URL(address) if len(str(address)) <= ADDRESS_CHARACTERS else None
        except (httpx.InvalidURL, ValueError):
            url = None
        if url is None or url.scheme not in PORTS or url.userinfo or not is_named(url.host, self.hosts):
            raise not_allowed()
        if url.port not in (None, PORTS[url.scheme]):
            raise not_allowed()
        return url

    async def _fetch(self, address: str) -> bytes:
        """Follow an address to its bytes."""
        pool = httpcore.AsyncConnectionPool(network_backend=self.network, ssl_context=self.tls)
        url = self._checked(address)
        async with pool:
            for _ in range(REDIRECTS_MOST + 1):
                request = httpx.Request("GET", url, headers=HEADERS)
                async with pool.stream("GET", str(url), headers=request.headers.raw) as answer:
                    headers = httpx.Headers(answer.headers)
                    if answer.status in (301, 302, 303, 307, 308):
                        url = self._checked(url.join(headers.get("location", "")))
                        continue
                    return await self._body(answer, headers)
        raise RequestError(400, "media_fetch_failed", "an address leads on and on; send a data URL")

    async def _body(self, answer: httpcore.Response, headers: httpx.Headers) -> bytes:
        """The bytes of an answer, counted as they come."""
        if answer.status != 200 or headers.get("content-encoding", "identity") != "identity":
            raise RequestError(400, "media_fetch_failed", "an address could not be fetched; send a data URL")
        most = SERVER_BUDGET.video_bytes
        length = headers.get("content-length", "0")
        parts: list[bytes] = []
        size = int(length) if length.isdigit() else 0
        if size <= most:
            size = 0
            async for part in answer.aiter_stream():
                size += len(part)
                if size > most:
                    break
                parts.append(part)
        if size > most:
            raise RequestError(413, "media_too_large", f"what an address gives has more than {most:,} bytes")
        return b"".join(parts)


async def fetch_media(fetcher: MediaFetcher | None, rows: object) -> None:
    """Fetch what messages or items name, for the request that is being served. Without a fetcher nothing is fetched,
    and whoever reads the media refuses the addresses. Raises RequestError."""
    if fetcher is not None and isinstance(rows, list) and (addresses := addresses_in(rows)):
        check_counts(rows)
        FETCHED.set(await fetcher.fetch_all(addresses))


def not_allowed() -> RequestError:
    """The one refusal of addresses that may not be fetched, whatever the reason."""
    return RequestError(403, "url_not_allowed", "this address is not fetched; send a data URL", "permission_error")


ADDRESS_KEYS = ("image_url", "audio_url", "video_url")


def addresses_in(rows: Iterable[object]) -> list[str]:
    """The addresses of media in messages or items."""
    found: list[str] = []
    for row in rows:
        content = row.get("content") if isinstance(row, Mapping) else None
        for part in content if isinstance(content, list) else ():
            for key in ADDRESS_KEYS if isinstance(part, Mapping) else ():
                given = part.get(key)
                address = given.get("url") if isinstance(given, Mapping) else given
                if isinstance(address, str) and address[:8].lower().startswith(("http://", "https://")):
                    found.append(address)
    return found
