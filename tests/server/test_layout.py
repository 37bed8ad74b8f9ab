"""conversation.item.layout: what a client is told of a turn's positions is where the prompt really stands."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from descant.engine.conversation import Conversation
from descant.inputs.runs import PositionRun
from descant.tokens import PromptTokens
from tests.inputs import media
from tests.inputs.test_runs import kinds_of, positions_of
from tests.server.conftest import KEY, Running
from tests.server.test_realtime import LOUD, TEXT_BY_HAND, Talk, base64_of, kinds

TEXT = {"type": "input_text", "text": "What?"}
PICTURE = b64encode(media.image_file(media.picture(56, 84))).decode()
VIDEO = b64encode(
    media.video_file(media.grey_frames(list(range(8)), 56, 56), 2, sound=media.noise(4 * 48_000))
).decode()
PARTS: list[dict[str, Any]] = [
    TEXT,
    {"type": "input_audio", "audio": base64_of(LOUD)},
    {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"},
    {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{VIDEO}"}},
]
Asked = list[tuple[Conversation, PromptTokens]]


@pytest.fixture
def talk(server: Running) -> Iterator[Talk]:
    with connect(server.url.replace("http", "ws") + "/v1/realtime?model=tiny", subprotocols=protocols()) as socket:
        opened = Talk(socket)
        opened.next()
        opened.update(TEXT_BY_HAND)
        yield opened
    assert server.idle(), server.omni.engine.ledger()


def protocols() -> list[Any]:
    return ["realtime", f"openai-insecure-api-key.{KEY}"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The conversations that are answered, each with the tokens that its context holds then."""
    found: Asked = []
    ask = Conversation.ask

    def watched(self: Conversation, *given: Any, **named: Any) -> int:
        dropped = ask(self, *given, **named)
        found.append((self, self.context.tokens))
        return dropped

    monkeypatch.setattr(Conversation, "ask", watched)
    return found


def say_all(talk: Talk) -> list[dict[str, Any]]:
    """Text, sound, a picture, a video with sound, and a turn before a camera; what is told of each."""
    told = []
    for part in PARTS:
        item = {"type": "message", "role": "user", "content": [TEXT, part]}
        talk.say("conversation.item.create", item=item)
        told.append(talk.until("conversation.item.layout")[-1])
    for loudness in (1, 0.5, 1):
        talk.push(np.float32(loudness) * LOUD)
        talk.say("input_image_buffer.append", image=PICTURE)
    talk.say("input_audio_buffer.commit")
    told.append(talk.until("conversation.item.layout")[-1])
    return told


def test_what_is_told_is_where_the_prompt_stands(talk: Talk, asked: Asked) -> None:
    talk.update({"include": ["item.layout"]})
    told = say_all(talk)
    talk.say("response.create")
    talk.until("response.done")
    conversation, prompt = asked[-1]
    at = len(conversation.system)
    for layout in told:
        runs = [
            PositionRun(one["type"], one["count"], tuple(one["start"]), one.get("columns")) for one in layout["runs"]
        ]
        own = positions_of(runs)
        there = prompt.positions[:, at : at + own.shape[1]]
        assert torch.equal(there - there[:, :1], own)
        assert [run.kind for run in runs for _ in range(run.count)] == kinds_of(prompt)[at : at + own.shape[1]]
        at += own.shape[1]
    assert at == len(prompt) - len(conversation.opening)
    said = [{run["type"] for run in layout["runs"]} - {"text"} for layout in told]
    assert said == [set(), {"audio"}, {"image"}, {"audio", "video"}, {"audio", "video"}]
    assert {layout["positions_per_second"] for layout in told} == {25}


def test_who_does_not_ask_for_it_is_not_told(talk: Talk) -> None:
    talk.push(LOUD)
    talk.say("input_audio_buffer.commit")
    talk.say("response.create")
    assert "conversation.item.layout" not in kinds(talk.until("response.done"))
