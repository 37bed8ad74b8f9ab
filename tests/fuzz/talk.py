"""Realtime talks beside a model of them: ``python -m tests.fuzz.talk --programs 2000 --steps 50``.

hypothesis makes programs of events: items, sound, commits, answers, and what is wrong. After each the server must have
told what the model says, no more and no less. Prints what was tried.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from websockets.sync.client import ClientConnection, connect

from tests.chaos.server import tiny_server
from tests.server.conftest import KEY, Running

RATE = 24_000  # Hz
SHORTEST_TURN_S = 0.1
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
NAMES = st.text("abcdefghij", min_size=1, max_size=3).map("item_{}".format)


class Stage:
    """The server that all programs talk to, and how many steps they took."""

    running: Iterator[Running]
    server: Running
    steps = 0
    programs = 0

    @classmethod
    def open(cls) -> None:
        cls.running = tiny_server()
        cls.server = next(cls.running)

    @classmethod
    def close(cls) -> None:
        cls.running.close()  # type: ignore[attr-defined]


class TalkMachine(RuleBasedStateMachine):
    """One talk with manual turns and answers in text. items: what the conversation holds, in order; heard: samples that
    are not committed."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        Stage.programs += 1
        self.items: list[str] = []
        self.heard = 0
        address = f"ws{Stage.server.url.removeprefix('http')}/v1/realtime"
        self.open = ExitStack()
        opened = connect(address, additional_headers={"authorization": f"Bearer {KEY}"}, open_timeout=60)
        self.line: ClientConnection = self.open.enter_context(opened)
        assert json.loads(self.line.recv(30))["type"] == "session.created"
        session = {"type": "realtime", "output_modalities": ["text"], "audio": {"input": {"turn_detection": None}}}
        (updated,) = self.told({"type": "session.update", "session": session})
        assert updated["type"] == "session.updated"

    def told(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """What the server tells of an event: all up to the error of one that there is not."""
        Stage.steps += 1
        mark = f"mark_{Stage.steps}"
        self.line.send(json.dumps(event))
        self.line.send(json.dumps({"type": "no.such.event", "event_id": mark}))
        found: list[dict[str, Any]] = []
        while True:
            came = json.loads(self.line.recv(60))
            if came["type"] == "error" and came["error"].get("event_id") == mark:
                return found
            found.append(came)

    def one_error(self, event: dict[str, Any], *codes: str) -> None:
        (came,) = self.told({**event, "event_id": "mine"})
        assert came["type"] == "error" and came["error"]["event_id"] == "mine", came
        assert not codes or came["error"]["code"] in codes, came

    @rule(target=known, name=NAMES, text=st.text(max_size=8))
    def create(self, name: str, text: str) -> Any:
        item = {"id": name, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text or "x"}]}
        event = {"type": "conversation.item.create", "item": item}
        if name in self.items:
            self.one_error(event)
            return multiple()
        came = self.told(event)
        assert [one["type"] for one in came] == ["conversation.item.added", "conversation.item.done"], came
        before = self.items[-1] if self.items else None
        assert came[0]["item"]["id"] == name and came[0].get("previous_item_id") == before
        self.items.append(name)
        return name

    @rule(name=known | NAMES)
    def delete(self, name: str) -> None:
        event = {"type": "conversation.item.delete", "item_id": name}
        if name not in self.items:
            self.one_error(event, "item_not_found")
            return
        (came,) = self.told(event)
        assert came["type"] == "conversation.item.deleted" and came["item_id"] == name
        self.items.remove(name)

    @rule(name=known | NAMES)
    def retrieve(self, name: str) -> None:
        event = {"type": "conversation.item.retrieve", "item_id": name}
        if name not in self.items:
            self.one_error(event, "item_not_found")
            return
        (came,) = self.told(event)
        assert came["type"] == "conversation.item.retrieved" and came["item"]["id"] == name

    @rule(count=st.sampled_from([0, 1, 240, 1200, 4800]))
    def append(self, count: int) -> None:
        audio = base64.b64encode(bytes(2 * count)).decode()
        assert not self.told({"type": "input_audio_buffer.append", "audio": audio})
        self.heard += count

    @rule(target=known)
    def commit(self) -> Any:
        if self.heard < SHORTEST_TURN_S * RATE:
            self.one_error({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty")
            return multiple()
        came = self.told({"type": "input_audio_buffer.commit"})
        assert [one["type"] for one in came] == COMMITTED, came
        self.items.append(came[0]["item_id"])
        self.heard = 0
        return came[0]["item_id"]

    @rule()
    def clear(self) -> None:
        (came,) = self.told({"type": "input_audio_buffer.clear"})
        assert came["type"] == "input_audio_buffer.cleared"
        self.heard = 0

    @rule(most=st.integers(1, 3))
    def respond(self, most: int) -> None:
        event = {"type": "response.create", "response": {"max_output_tokens": most}}
        came = self.told(event)
        while not any(one["type"] in ("response.done", "error") for one in came):
            came.append(json.loads(self.line.recv(60)))
        if self.heard >= SHORTEST_TURN_S * RATE:  # what waits is a turn
            assert [one["type"] for one in came[:3]] == COMMITTED, came
            self.items.append(came[0]["item_id"])
            del came[:3]
        self.heard = 0
        kinds = [one["type"] for one in came]
        if kinds == ["error"]:  # nothing to answer
            assert not self.items, came
            return
        assert kinds[0] == "response.created" and kinds[-1] == "response.done", kinds
        self.items += [one["item"]["id"] for one in came if one["type"] == "conversation.item.added"]

    @rule(kind=st.sampled_from(["response.cancel", "conversation.item.truncate", "dance"]))
    def wrong(self, kind: str) -> None:
        self.one_error({"type": kind, "item_id": "item_none", "content_index": 0, "audio_end_ms": 5})

    @invariant()
    def no_item_twice(self) -> None:
        assert len(set(self.items)) == len(self.items)

    def teardown(self) -> None:
        self.open.close()


def run(programs: int, steps: int, first: int = 0) -> None:
    """So many programs. Raises AssertionError where the server and the model part."""
    Stage.open()
    try:
        chosen = settings(
            max_examples=programs, stateful_step_count=steps, deadline=None, database=None, print_blob=False,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        run_state_machine_as_test(seed(first)(TalkMachine), settings=chosen)
        assert Stage.server.idle(), Stage.server.omni.engine.ledger()
    finally:
        Stage.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = 0
    try:
        run(given.programs, given.steps, given.seed)
    except AssertionError as error:
        failed = 1
        print(error)
    print(f"talk: programs={Stage.programs} steps={Stage.steps} failures={failed}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
