"""Sections H and I: who comes in, and live talks; of section J what a client can do by itself."""

from __future__ import annotations

import json
from base64 import b64encode

import numpy as np

from tests.badinputs.case import CHAT, Case, Http, Talk, fields, said
from tests.badinputs.framing import ASKED

ROUTES = [("GET", "/v1/models"), ("POST", CHAT), ("POST", "/v1/responses"), ("POST", "/v1/audio/speech"),
          ("POST", "/v1/audio/transcriptions"), ("GET", "/metrics"), ("GET", "/version"), ("GET", "/v1/audio/voices"),
          ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/debug"), ("POST", "/v1/realtime/client_secrets")]  # fmt: skip


def kept_out(
    name: str, headers: dict[str, str], right: tuple[int, ...], path: str = "/v1/models", case: str = "H1"
) -> Case:
    return Case(case, name, Http(None, path, "GET", headers, key=False), right)


CASES = [
    *[Case("H1", f"no key at {method} {path}", Http(None if method == "GET" else b"{}", path, method, key=False), (401, 404)) for method, path in ROUTES],
    *[kept_out(f"the key {header!r}", {"authorization": header}, (401,))
      for header in ("Bearer wrong", "Bearer", "Basic d3Jvbmc6", "wrong", "Bearer " + "x" * 5000, "Bearer \xff")],
    *[kept_out(f"a key in the address: {query}", {}, (401,), f"/v1/models?{query}", "H2") for query in ("api_key=KEY", "key=KEY", "access_token=KEY")],
    kept_out("a key in a cookie", {"cookie": "authorization=Bearer KEY"}, (401,), case="H2"),
    *[Case("H4", f"a socket with {name}", Talk(headers=headers, key=False, refused=(401,))) for name, headers in {
        "no key": {}, "a wrong key": {"authorization": "Bearer wrong"}, "a ticket that is none": {"authorization": "Bearer ek_" + "0" * 32},
        "a wrong subprotocol": {"sec-websocket-protocol": "realtime, openai-insecure-api-key.wrong"}}.items()],
    *[Case("H6", f"a socket of the page {origin}", Talk(headers={"origin": origin}, refused=(403,))) for origin in ("https://evil.example", "null")],
    *[Case("H7", f"{method} of another page", Http(None if method == "GET" else b"{}", path, method,
           {"origin": "https://evil.example", "access-control-request-method": "POST"}), (403,))
      for method, path in (("OPTIONS", CHAT), ("GET", "/v1/models"), ("POST", CHAT))],
    *[Case("H11", f"somebody's {path}", Http(None, path, "GET"), (404, 405)) for path in
      ("/v1/responses/resp_1", "/v1/files/file_1", "/v1/chat/completions/x", "/v1/realtime/sessions/x")],
    *[Case("H14", f"the path {path}", Http(None, path, "GET"), (400, 404)) for path in
      ("/assets/..%2f..%2fetc/passwd", "/assets/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cx", "/assets//etc/passwd", "//etc/passwd", "/%00")],
    *[Case("H15", f"the operator's {path} without a key", Http(None, path, "GET", key=False), (401, 404)) for path in
      ("/metrics", "/openapi.json", "/redoc", "/profile")],
]  # fmt: skip


def event(kind: str, **more: object) -> str:
    return json.dumps({"type": kind, "event_id": "mine", **more})


def session(**more: object) -> str:
    return event("session.update", session={"type": "realtime", **more})


def append(pcm: bytes) -> str:
    return event("input_audio_buffer.append", audio=b64encode(pcm).decode())


MANUAL = session(audio={"input": {"turn_detection": None}})
TEXT = session(output_modalities=["text"])
ITEM = event(
    "conversation.item.create",
    item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
)
NOISE = (np.random.default_rng(0).standard_normal(24_000 * 15) * 3000).astype("<i2").tobytes()  # 15 s
ERROR = ("invalid_json", "invalid_value", "unknown_event", "unsupported_item", "unsupported_part", "item_not_found", "invalid_base64",
         "invalid_state", "event_too_large", "url_not_allowed", "duplicate_key", "item_exists")  # fmt: skip


def wrong(case: str, name: str, *events: str, wants: tuple[str, ...] = ERROR) -> Case:
    """Events of which the last is told to be wrong, and the session goes on."""
    return Case(case, name, Talk(events, wants))


def ends(case: str, name: str, *events: str | bytes, closed: tuple[int, ...]) -> Case:
    return Case(case, name, Talk(events, closed=closed))


TALKS = [
    *[wrong("I1", f"the text {text[:20]!r}", text) for text in ("", "hello", "[]", "5", "{", '{"type": 5}', '{"type": "x", "type": "y"}', "[" * 50_000, "NaN")],
    *[wrong("I2", f"the event {kind[:20]!r}", event(kind)) for kind in ("dance", "", "session.created", "__init__", "x" * 10_000)],
    wrong("I2", "an event without a type", '{"event_id": "mine"}'),
    wrong("I4", "an answer to nothing", TEXT, event("response.create"), wants=(*ERROR, "")),
    wrong("I5", "nothing to commit", MANUAL, event("input_audio_buffer.commit"), wants=("input_audio_buffer_commit_empty",)),
    *[wrong("I6", f"sound that is {name}", MANUAL, event("input_audio_buffer.append", audio=value)) for name, value in
      {"no base64": "***", "a number": 5, "nothing": None, "half a sample": "AA==", "an address": "http://127.0.0.1/"}.items()],
    # 1006: the end of the connection overtook the word of it, while the client was still sending
    ends("I7", "an event of 17 MiB", event("x", y="z" * (17 << 20)), closed=(1009, 1006)),
    wrong("I7", "a control event of 2 MiB", session(instructions="x" * (2 << 20))),
    Case("I8", "over 300 s of sound", Talk(lambda: (MANUAL, *[append(NOISE)] * 21), ("input_audio_buffer_full", "buffer_full", *ERROR)), slow=True),
    Case("I10", "300 empty appends", Talk((MANUAL, *[append(b"")] * 300, event("input_audio_buffer.commit")), ("input_audio_buffer_commit_empty",))),
    wrong("I12", "a cancel of nothing", event("response.cancel"), wants=("response_cancel_not_active",)),
    *[wrong("I15", f"{kind} of an item that is none", event(f"conversation.item.{kind}", item_id="item_0", content_index=0, audio_end_ms=5)) for kind in ("delete", "retrieve", "truncate")],
    wrong("I16", "an item after one that is none", event("conversation.item.create", previous_item_id="item_0", item={"type": "message", "role": "user", "content": []})),
    *[wrong("I16", f"an item that is {name}", event("conversation.item.create", item=item)) for name, item in {
        "nothing": None, "a list": [], "of no type": {}, "of another type": {"type": "dream"}, "of a wizard": {"type": "message", "role": "wizard", "content": []},
        "of a number": {"type": "message", "role": "user", "content": 5}, "a picture at an address": {"type": "message", "role": "user", "content": [
            {"type": "input_image", "image_url": "http://127.0.0.1/"}]}}.items()],
    *[wrong("I19", f"a session of {name}", event("session.update", session=value)) for name, value in {
        "nothing": None, "a list": [], "a modality that is none": {"output_modalities": ["smell"]}, "a number for instructions": {"instructions": 5},
        "another rate": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 5}}}}, "a detector that is none": {"audio": {"input": {"turn_detection": {"type": "magic"}}}},
        "a threshold of 1e300": {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 1e300}}}}, "a number for sound": {"audio": 5},
        "tools that are none": {"tools": [5]}}.items()],
    *[wrong("I20", f"an answer with {name}", ITEM, event("response.create", response=value)) for name, value in {
        "a number": 5, "a modality that is none": {"output_modalities": ["smell"]}, "tokens below zero": {"max_output_tokens": -5}}.items()],
    wrong("I20", "a picture that is none", event("input_image_buffer.append", image="AAAA"), wants=(*ERROR, "unsupported_media", "media_decode_failed", "invalid_media")),
    ends("I25", "bytes", b"\0\1\2", closed=(1003,)),
    Case("I28", "a query of 8 KB", Talk((TEXT,), query="model=" + "x" * 8000)),
    Case("I28", "a dialect that is none", Talk((TEXT,), query="dialect=klingon")),
    *[Case("I30", f"a session that begins and ends, {n}", Talk((TEXT,))) for n in range(5)],
]  # fmt: skip
LOAD = [
    *[fields("J16", f"a beginning that nobody else has, {n}", {"messages": said(f"{n} is a number of {n * 7919}"), "max_tokens": 1}, 200) for n in range(20)],
    Case("J18", "a good request after all of it", Http(ASKED), (200,)),
]  # fmt: skip
# What is not sent by the runner, and where it is held.
ELSEWHERE = {
    "A21": "500 slow sockets: tests/server/test_armour.py holds the law for one, and connections have a number",
    "B18": "batches of prompts: there is no such parameter",
    "G8": "answers of name servers, redirects, tarpits: tests/server/test_fetch.py, with a resolver of its own",
    "H3": "times of wrong keys: hmac.compare_digest; a statistical test would need a quiet machine",
    "H12": "another key's cached beginnings: tests/server/test_armour.py",
    "I9": "a flood of events: tests/server/test_armour.py, on a clock of its own",
    "I21": "a peer that vanished: the library's own pings, every 20 s, 60 s to answer",
    "I23": "silence and the end of a session: tests/server/test_realtime.py, with short times",
    "I26": "frames that are none: the websockets library's own suite",
    "J1": "clients who leave: tests/chaos/server.py, in every phase",
    "J6": "memory that runs out, NaN, a worker that dies: tests/engine/test_hard_shell.py and tests/laws/test_faults.py",
    "J10": "a killed replica and a rolling update: the tests of descant.scale",
    "J11": "a signal: tests/server/test_serve.py, and tests/chaos/drains.py",
}
