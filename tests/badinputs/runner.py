"""Sends cases to a server of OpenAI's protocol, and looks after each of them at what must have survived."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.badinputs.case import ASK, CHAT, Case, Http, Talk, Wire

LEAKS = re.compile(r'0x[0-9a-f]{6,}|Traceback|File "|/home/|/tmp/|<_io|site-packages')
JSON = {"content-type": "application/json"}
ANSWER_S = 60.0  # seconds that a case may take
LONGEST_MESSAGE = 1000  # characters of an error
IDLE_S = 10.0  # seconds until nothing is lent out any more


@dataclass
class Answer:
    """What came: a status and a body of HTTP, or the error codes and the close code of a talk."""

    status: int = 0
    body: str = ""
    errors: list[str] = field(default_factory=list)
    closed: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Server:
    """A server under test. pid: of its process, where it is on this machine; strict: codes are looked at, too."""

    url: str
    key: str = ""
    model: str = "tiny"
    pid: int | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=ANSWER_S)
        self.canary_client = httpx.Client(base_url=self.url, headers=self.bearer, timeout=ANSWER_S)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    # ------------------------------------------------------------ sending

    def send(self, case: Case) -> Answer:
        """The answer to a case."""
        match case.sends:
            case Http():
                return self._ask(case.sends)
            case Wire():
                return self._write(case.sends)
            case Talk():
                return self._talk(case.sends)

    def _ask(self, asked: Http) -> Answer:
        headers = {**JSON, **(self.bearer if asked.key else {}), **asked.headers}
        encoded = {name: value.encode("utf-8", "surrogateescape") for name, value in headers.items()}
        came = self.client.request(asked.method, asked.path, content=asked.data(self.model), headers=encoded)
        return Answer(came.status_code, came.text)

    def _write(self, sent: Wire) -> Answer:
        where = urlsplit(self.url)
        common = f"host: {where.netloc}".encode() + (
            f"\r\nauthorization: Bearer {self.key}".encode() if self.key else b""
        )
        came = b""
        with socket.create_connection((where.hostname or "", where.port or 80), timeout=30) as plug:
            try:
                for piece in sent.pieces(common):
                    plug.sendall(piece)
            except OSError:
                pass  # it was refused before all was sent
            plug.settimeout(15)
            try:
                while b"\r\n\r\n" not in came and (part := plug.recv(65536)):
                    came += part
            except OSError:
                pass
        line, _, rest = came.partition(b"\r\n")
        words = line.split(b" ")
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        return Answer(status, rest.partition(b"\r\n\r\n")[2].decode(errors="replace"))

    def _talk(self, talk: Talk) -> Answer:
        address = f"ws{self.url.removeprefix('http')}/v1/realtime?{talk.query}"
        headers = {**(self.bearer if talk.key else {}), **talk.headers}
        answer = Answer(101)
        try:
            with connect(address, additional_headers=headers, max_size=None, compression=None, open_timeout=30) as line:
                events = talk.events() if callable(talk.events) else talk.events
                try:
                    for event in events:
                        line.send(event)
                    line.send(json.dumps({"type": "there.is.no.such.event", "event_id": "the last"}))
                    self._read(line, answer)
                except ConnectionClosed as end:
                    answer.closed = end.rcvd.code if end.rcvd is not None else 1006
        except InvalidStatus as refused:
            answer.status = refused.response.status_code
            answer.body = bytes(refused.response.body or b"").decode(errors="replace")
        return answer

    def _read(self, line: object, answer: Answer) -> None:
        """Until the last event was told to be wrong, so that all before it was answered."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            event = json.loads(line.recv(timeout=30))  # type: ignore[attr-defined]
            if event["type"] != "error":
                continue
            if event["error"].get("event_id") == "the last":
                return
            answer.errors.append(str(event["error"].get("code")))
            answer.body += json.dumps(event)

    # ------------------------------------------------------------ what must have survived

    def canary(self) -> str:
        """An answer that is always the same."""
        asked = {**ASK, "model": self.model, "temperature": 0}
        return str(self.canary_client.post(CHAT, json=asked).json()["choices"][0]["message"]["content"])

    def lent_out(self) -> dict[str, float]:
        """What the ledger says is lent out; {} where the server has no such figures."""
        text = self.canary_client.get("/metrics").text
        names = "sessions live_sessions waiting thinker_pages talker_pages".split()
        found = {name: re.search(rf"^descant_{name} ([\d.e+-]+)$", text, re.MULTILINE) for name in names}
        return {name: float(match[1]) for name, match in found.items() if match and float(match[1])}

    def survived(self) -> Iterable[str]:
        """What did not survive."""
        if self.client.get("/ready").status_code != 200:
            yield "the server is not ready any more"
        if self.pid is not None and not Path(f"/proc/{self.pid}").exists():
            yield "the server's process is gone"
        end = time.monotonic() + IDLE_S
        while (lent := self.lent_out()) and time.monotonic() < end:
            time.sleep(0.01)
        if lent:
            yield f"still lent out: {lent}"


def faults_of(case: Case, answer: Answer, *, strict: bool) -> Iterable[str]:
    """Whatever is wrong with an answer."""
    if LEAKS.search(answer.body):
        yield f"leaks {LEAKS.search(answer.body)}"
    if isinstance(case.sends, Talk):
        yield from talk_faults(case.sends, answer)
        return
    if answer.status not in case.right:
        yield f"status {answer.status}, not {' or '.join(map(str, case.right))}: {answer.body[:200]}"
    if answer.status >= 400 and isinstance(case.sends, Http) and answer.status != 404:
        try:
            error = json.loads(answer.body)["error"]
        except (ValueError, KeyError, TypeError):
            yield "no error in its body"
            return
        if not {"message", "type", "param", "code"} <= set(error) or len(error["message"]) > LONGEST_MESSAGE:
            yield "not the form of an error"
        if strict and case.codes and error["code"] not in case.codes:
            yield f"code {error['code']}, not {' or '.join(case.codes)}"


def talk_faults(talk: Talk, answer: Answer) -> Iterable[str]:
    if answer.status != 101:
        if answer.status not in talk.refused:
            yield f"refused with {answer.status}"
    elif talk.refused and not talk.closed:
        yield "not refused"
    elif talk.closed:
        if answer.closed not in talk.closed:
            yield f"closed with {answer.closed}, not {' or '.join(map(str, talk.closed))}"
    elif answer.closed:
        yield f"closed with {answer.closed}"
    elif talk.wants and "" not in talk.wants and not set(answer.errors) & set(talk.wants):
        yield f"errors {answer.errors}, none of {', '.join(talk.wants)}"
    elif not talk.wants and answer.errors:
        yield f"errors {answer.errors}"


def run(server: Server, cases: Iterable[Case]) -> list[tuple[Case, list[str]]]:
    """Every case with what did not hold. A canary asks while the case is served, and its answer may not change."""
    before = server.canary()
    results = []
    for case in cases:
        heard: list[str] = []
        canary = threading.Thread(target=lambda heard=heard: heard.append(server.canary()))  # type: ignore[misc]
        canary.start()
        try:
            found = list(faults_of(case, server.send(case), strict=server.strict))
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            found = [f"no answer: {type(error).__name__}"]
        canary.join(ANSWER_S)
        if heard != [before]:
            found.append("the canary's answer changed")
        results.append((case, [*found, *server.survived()]))
    return results
