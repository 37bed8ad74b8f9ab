"""Section A: HTTP and JSON."""

from __future__ import annotations

import json

from tests.badinputs.case import ASK, CHAT, Case, Http, Wire, fields, said

ASKED = json.dumps(ASK).encode()


def raw(case: str, name: str, body: bytes, right: int = 400, *codes: str) -> Case:
    return Case(case, name, Http(body), (right,), codes)


def post(common: bytes, *more: bytes, body: bytes = b"") -> list[bytes]:
    lines = [b"POST " + CHAT.encode() + b" HTTP/1.1", common, b"content-type: application/json", *more, b"", b""]
    return [b"\r\n".join(lines) + body]


def wire(
    case: str, name: str, *more: bytes, body: bytes = b"", right: tuple[int, ...] = (400,), slow: bool = False
) -> Case:
    return Case(case, name, Wire(lambda common: post(common, *more, body=body)), right, slow=slow)


def lines(case: str, name: str, first: bytes, right: tuple[int, ...]) -> Case:
    return Case(case, name, Wire(lambda common: [first + b"\r\n" + common + b"\r\n\r\n"]), right)


def endless(common: bytes) -> list[bytes]:
    return [*post(common, b"transfer-encoding: chunked"), *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 600]


def header(
    case: str, name: str, headers: dict[str, str], right: tuple[int, ...], *codes: str, body: bytes = ASKED
) -> Case:
    return Case(case, name, Http(body, headers=headers), right, codes)


CASES = [
    raw("A1", "no body", b"", 400, "invalid_json"),
    raw("A2", "an empty object", b"{}", 400, "invalid_value"),
    *[raw("A3", f"a top level of {text.decode()}", text) for text in (b"[]", b"5", b'"x"', b"null", b"true")],
    *[raw("A4", f"JSON cut at {n}", ASKED[:n], 400, "invalid_json") for n in (1, 20, len(ASKED) - 1)],
    raw("A5", "100,000 brackets", b"[" * 100_000, 400, "invalid_json"),
    raw("A5", "33 levels that close", b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", 400, "invalid_json"),
    raw("A6", "100,000 keys", json.dumps({str(n): n for n in range(100_000)}).encode(), 400, "invalid_json"),
    raw("A7", "a key twice", ASKED[:-1] + b', "model": "tiny"}', 400, "duplicate_key"),
    *[raw("A9", text, ASKED[:-1] + f', "temperature": {text}}}'.encode(), 400, "invalid_json")
      for text in ("NaN", "Infinity", "-Infinity", "1e400")],
    raw("A10", "a byte order mark", b"\xef\xbb\xbf" + ASKED, 400, "invalid_json"),
    raw("A11", "bytes that are no UTF-8", ASKED.replace(b"hello", b"hel\xff"), 400, "invalid_json"),
    raw("A11", "UTF-16", ASKED.decode().encode("utf-16"), 400, "invalid_json"),
    raw("A11", "half a surrogate pair", ASKED.replace(b"hello", b"\\ud800"), 400),
    fields("A13", "control characters in text", {"messages": said("a\x00b\x07\x1b[31m")}, 200),
    *[header("A14", f"content type {kind or 'none'}", {"content-type": kind}, (415,), "unsupported_content_type")
      for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx")],
    *[header("A15", f"content encoding {kind}", {"content-encoding": kind}, (415,)) for kind in ("gzip", "br", "gzip, gzip")],
    wire("A16", "a length of 10 GiB", b"content-length: 10737418240", right=(413,)),
    wire("A16", "a length below zero", b"content-length: -1", right=(400, 413)),
    Case("A17", "an endless body", Wire(endless), (413,)),
    wire("A18", "half of the body", b"content-length: 500", body=b"{", right=(408,), slow=True),
    wire("A19", "a length and chunks", b"content-length: 5", b"transfer-encoding: chunked", body=b"0\r\n\r\n", right=(400,)),
    wire("A19", "two lengths", b"content-length: 5", b"content-length: 6", body=b"{}   ", right=(400,)),
    wire("A19", "chunks of another coding", b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n", right=(400, 501)),
    wire("A19", "a chunk of no size", b"transfer-encoding: chunked", body=b"x\r\n", right=(400,)),
    lines("A19", "no HTTP", b"hello there", (400,)),
    lines("A19", "a line of NUL", b"GET /\x00 HTTP/1.1", (400, 404)),
    wire("A20", "a header of 1 MiB", b"x: " + b"a" * (1 << 20), right=(400, 431)),
    wire("A20", "10,000 headers", *[b"x: y"] * 10_000, right=(400, 431)),
    wire("A20", "200 headers", *[b"x: y"] * 200, right=(431,)),
    lines("A20", "a path of 100 KB", b"GET /" + b"a" * 100_000 + b" HTTP/1.1", (400, 414, 431)),
    Case("A21", "first lines that stop", Wire(lambda common: [b"POST /v1/chat"]), (408,), slow=True),
    fields("A22", "fields that nobody knows", {"zzz": 1, "trust_remote_code": True, "__class__": "x"}, (200, 400)),
    *[header("A24", f"host {name!r}", {"host": name}, (400, 403))
      for name in ("a/?x=", "evil.example", "localhost@evil.example", "127.0.0.1.evil.example", "127.0.0.1:x", "[::1")],
    Case("A25", "10,000 ranges", Http(None, "/", "GET", {"range": "bytes=" + ",".join(["0-0"] * 2000)}), (200, 206, 404, 416, 431)),
    lines("A26", "HTTP/1.0", b"GET /health HTTP/1.0", (200,)),
    lines("A26", "HTTP/9", b"GET /health HTTP/9.9", (200, 400, 505)),
    wire("A26", "Expect: 100-continue", b"expect: 100-continue", b"content-length: 2", b"connection: close", body=b"{}", right=(100, 400)),
    Case("A26", "ten requests at once", Wire(lambda common: [(b"GET /health HTTP/1.1\r\n" + common + b"\r\n\r\n") * 10]), (200,)),
    Case("A27", "a method that is none", Http(None, CHAT, "BREW"), (405,)),
    Case("A27", "a method that is not for it", Http(None, CHAT, "GET"), (405,)),
    Case("A27", "a path that is none", Http(None, "/v1/../../etc/passwd", "GET"), (404,)),
    *[header("A28", f"request id {name[:12]!r}", {"x-request-id": name}, (200,)) for name in ("a b", "x" * 8000, "\x1b[31m")],
]  # fmt: skip
