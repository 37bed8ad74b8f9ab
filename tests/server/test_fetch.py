"""The fetcher of media: what it reaches is what it has looked at, and it looks at everything."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from descant.errors import RequestError
from descant.omni import TENANT
from descant.server import fetch
from descant.server.fetch import MediaFetcher, addresses_in, is_named, is_public

PUBLIC = "93.184.216.34"
HOSTS = ["media.example", ".cdn.example"]
PICTURE = b"\x89PNG\r\n\x1a\nhello"


def answer(status: int = 200, body: bytes = PICTURE, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Stream(httpcore.AsyncMockStream):
    """What a server says; asked: what it was asked."""

    def __init__(self, parts: list[bytes], asked: list[bytes], pause_s: float):
        super().__init__(parts)
        self.asked, self.pause_s = asked, pause_s

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await asyncio.sleep(self.pause_s)
        return await super().read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.asked.append(buffer)


class Net(httpcore.AsyncNetworkBackend):
    """A network without machines. dialled: the addresses that were reached for; says: what each connection hears."""

    def __init__(self, *says: bytes, pause_s: float = 0.0, parts: int = 1):
        self.says, self.pause_s, self.parts = list(says), pause_s, parts
        self.dialled: list[tuple[str, int]] = []
        self.asked: list[bytes] = []
        self.open = self.most = 0

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.dialled.append((host, port))
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        size = -(-len(said) // self.parts)
        return Stream([said[at : at + size] for at in range(0, len(said), size)], self.asked, self.pause_s)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def names(*answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A name server that answers so, one after the other; the last for ever."""
    left = list(answers)

    async def look_up(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return look_up


def got(net: Net, *addresses: str, look_up: Any = None, hosts: Iterable[str] = HOSTS) -> dict[str, bytes]:
    async def run() -> dict[str, bytes]:
        return await MediaFetcher(tuple(hosts), net, look_up or names([PUBLIC])).fetch_all(addresses)

    return asyncio.run(run())


def refused(net: Net, address: str, **options: Any) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        got(net, address, **options)
    assert PUBLIC not in str(caught.value) and "127" not in str(caught.value)
    return caught.value.status, caught.value.code


def test_what_is_allowed_is_fetched_once_and_bare() -> None:
    net = Net(answer())
    address = "http://media.example/a.png?x=1"
    assert got(net, address, address) == {address: PICTURE}
    assert net.dialled == [(PUBLIC, 80)]
    head = b"".join(net.asked).lower()
    assert (
        b"get /a.png?x=1 http/1.1" in head and b"host: media.example" in head and b"accept-encoding: identity" in head
    )
    assert not any(word in head for word in (b"cookie", b"authorization", b"proxy", b"referer"))


NOT_ALLOWED = [
    "ftp://media.example/x", "gopher://media.example", "file:///etc/passwd", "http://evil.example/", "http://media.example.evil.org/",
    "http://evilmedia.example/", "http://cdn.example/", "http://x.cdn.example.evil.org/", "http://media.example:22/", "http://media.example:0/",
    "http://media.example:443/", "http://a:b@media.example/", "http://media.example@evil.example/", "http://media.example\\@evil.example/",
    "http://%6dedia.example.evil.org/", "http:///x", "http://", "http://media.example:99999/", "http://127.0.0.1/", "http://[::1]/",
    "http://media.example/" + "a" * 3000, "http://media\u3002evil.example/", "http://med\u0456a.example/",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_ALLOWED)
def test_other_hosts_schemes_ports_and_names_are_refused_before_any_look_up(address: str) -> None:
    net = Net(answer())
    assert refused(net, address, look_up=names([])) == (403, "url_not_allowed") and not net.dialled


@pytest.mark.parametrize(
    "address",
    ["http://media.example./x", "HTTP://MEDIA.EXAMPLE/x", "http://a.b.cdn.example/", "http://media.example:80/"],
)
def test_the_same_host_otherwise_written(address: str) -> None:
    assert got(Net(answer()), address) == {address: PICTURE}


PRIVATE = [
    "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "::127.0.0.1", "fec0::1", "x", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_names_of_inner_addresses_are_refused_and_not_dialled(address: str) -> None:
    net = Net(answer())
    assert refused(net, "http://media.example/", look_up=names([address])) == (403, "url_not_allowed")
    assert refused(net, "http://media.example/", look_up=names([PUBLIC, address])) == (403, "url_not_allowed")
    assert refused(net, "http://x/", look_up=names([address]), hosts=["*"]) == (403, "url_not_allowed")
    assert not net.dialled


@given(st.ip_addresses(v=4))
def test_an_address_inside_of_another_is_judged_like_itself_or_harder(address: ipaddress.IPv4Address) -> None:
    public = is_public(str(address))
    assert is_public(f"::ffff:{address}") == public
    assert not public or (address.is_global and not address.is_private)
    low = int(address)
    for prefix in ("64:ff9b::", "::"):
        assert not is_public(f"{prefix}{low >> 16:x}:{low & 0xFFFF:x}")


def test_public_addresses_are_public() -> None:
    assert all(map(is_public, (PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8")))


def test_a_name_that_changes_leads_nowhere_else() -> None:
    """What the name stood for when it was looked at is dialled; each redirect is looked at anew."""
    net = Net(answer(302, b"", "location: /b"), answer())
    assert refused(net, "http://media.example/", look_up=names([PUBLIC], ["127.0.0.1"]))[0] in (400, 403)
    assert {host for host, _ in net.dialled} == {PUBLIC}


REDIRECTS = [
    "http://127.0.0.1/", "http://evil.example/", "file:///etc/passwd", "//evil.example/", "gopher://media.example/", "http://media.example:22/",
    "http://a:b@media.example/", "javascript:1",
]  # fmt: skip


@pytest.mark.parametrize("location", REDIRECTS)
def test_redirects_are_looked_at_like_addresses(location: str) -> None:
    net = Net(answer(302, b"", f"location: {location}"), answer())
    assert refused(net, "http://media.example/") == (403, "url_not_allowed") and len(net.dialled) == 1


def test_redirects_end() -> None:
    near = answer(302, b"", "location: http://media.example/b", "connection: close")
    assert got(Net(near, near, answer()), "http://media.example/") == {"http://media.example/": PICTURE}
    assert refused(Net(near), "http://media.example/") == (400, "media_fetch_failed")


@pytest.mark.parametrize(
    "said",
    [
        answer(404),
        answer(500),
        answer(200, PICTURE, "content-encoding: gzip"),
        b"hello",
        b"",
        b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 5,
    ],
)
def test_what_is_no_file_fails_alike(said: bytes) -> None:
    assert refused(Net(said), "http://media.example/") == (400, "media_fetch_failed")


def test_what_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SERVER_BUDGET", type("Small", (), {"video_bytes": 1000}))
    said = answer(200, b"x" * 5000)
    endless = b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n"
    assert refused(Net(said), "http://media.example/") == (413, "media_too_large")
    assert refused(Net(endless + b"64\r\n" + b"x" * 100 + b"\r\n" * 1), "http://media.example/")[0] in (400, 413)
    long = endless + (b"64\r\n" + b"x" * 100 + b"\r\n") * 20
    assert refused(Net(long, parts=30), "http://media.example/") == (413, "media_too_large")


def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FETCH_S", 0.05)
    assert refused(Net(answer(), pause_s=5), "http://media.example/") == (408, "media_fetch_timeout")


def test_one_keys_slow_addresses_do_not_hold_up_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 addresses of a tarpit, and meanwhile somebody else's one."""
    monkeypatch.setattr(fetch, "FETCH_S", 0.5)

    async def run() -> tuple[bytes, int]:
        slow = Net(answer(), pause_s=30)
        fetcher = MediaFetcher(HOSTS, slow, names([PUBLIC]))
        TENANT.set("one")
        tarpit = asyncio.create_task(fetcher.fetch_all([f"http://media.example/{n}" for n in range(40)]))
        await asyncio.sleep(0.05)
        dialled = len(slow.dialled)
        slow.pause_s = 0.0
        TENANT.set("two")
        mine = await fetcher.fetch_all(["http://media.example/mine"])
        with pytest.raises(RequestError):
            await tarpit
        return mine["http://media.example/mine"], dialled

    assert asyncio.run(run()) == (PICTURE, fetch.FETCHES_OF_ONE)


def test_names_of_hosts() -> None:
    assert is_named("a.example", ["a.example"]) and is_named("x.y.example", [".y.example"]) and is_named("z", ["*"])
    assert (
        not is_named("y.example", [".y.example"])
        and not is_named("xa.example", ["a.example"])
        and not is_named("z", [])
    )


def test_addresses_are_found_where_media_are() -> None:
    rows = [
        {"content": [{"type": "image_url", "image_url": {"url": "https://a/"}}, {"type": "input_image", "image_url": "http://b/"}, 5]},
        {"content": [{"type": "text", "text": "http://c/"}, {"type": "video_url", "video_url": {"url": "data:x"}}]},
        {"content": "http://d/"}, 5,
    ]  # fmt: skip
    assert addresses_in(rows) == ["https://a/", "http://b/"]
