"""/v1/responses as OpenAI's client speaks it: conversations that go on by an id, typed events, and what is kept."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.errors import RequestError
from descant.omni import TENANT
from descant.server import kept
from descant.server.kept import KeptResponses
from descant.tools import ToolCall
from descant.types import Audio, Message, user
from tests.badinputs.catalogue import PICTURE
from tests.server.conftest import KEY, OTHER_KEY, Running, Script
from tests.server.test_tools import CALLS, FLAT

ASKED: dict[str, Any] = {"model": "tiny", "max_output_tokens": 200, "temperature": 0}
PATH = "/v1/responses"


@pytest.fixture
def sdk(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
    assert server.idle()


def read_by(server: Running, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """All conversations that the model is given from now on."""
    asked: list[list[Any]] = []
    achat = server.omni.achat

    async def spy(messages: Any, **options: Any) -> Any:
        asked.append(list(messages))
        return await achat(messages, **options)

    monkeypatch.setattr(server.omni, "achat", spy)
    return asked


def test_a_conversation_goes_on_by_its_id(
    sdk: openai.OpenAI, server: Running, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model reads is what it reads when all is given at once; instructions are of one response."""
    asked = read_by(server, monkeypatch)
    picture: Any = {"role": "user", "content": [{"type": "input_image", "image_url": PICTURE, "detail": "auto"}]}
    script("I see stars.")
    first = sdk.responses.create(input=[picture], instructions="Be brief.", **ASKED)
    script("Let me look.", *CALLS)
    second = sdk.responses.create(input="How many?", previous_response_id=first.id, tools=FLAT, **ASKED)
    script("Three.")
    (call,) = [item for item in second.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    third = sdk.responses.create(input=[result], previous_response_id=second.id, instructions="Sing.", **ASKED)
    assert third.output_text == "Three." and third.previous_response_id == second.id
    said: Any = [{"role": "assistant", "content": first.output_text}, {"role": "user", "content": "How many?"}]
    items: Any = [picture, *said, *(item.model_dump(exclude_none=True) for item in second.output), result]
    sdk.responses.create(input=items, instructions="Sing.", **ASKED)
    by_id, at_once = asked[2], asked[3]
    assert by_id == at_once and [m.role for m in by_id] == [
        "system", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    calls = [part for message in by_id for part in message.content if isinstance(part, ToolCall)]
    assert [one.id for one in calls] == [call.call_id]


def test_what_is_kept_can_be_asked_for_and_forgotten(sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(input="hello", metadata={"a": "b"}, **ASKED)
    again = sdk.responses.retrieve(made.id)
    assert again.model_dump() == made.model_dump() and again.metadata == {"a": "b"}
    sdk.responses.delete(made.id)
    for ask in (sdk.responses.retrieve, sdk.responses.delete):
        with pytest.raises(openai.NotFoundError, match="send the conversation"):
            ask(made.id)
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.responses.create(input="and?", previous_response_id=made.id, **ASKED)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_is_not_to_be_stored_is_not(sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(input="hello", store=False, **ASKED)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


def test_a_streamed_response_is_kept_when_it_is_told(sdk: openai.OpenAI, script: Script) -> None:
    script("Good morning.")
    with sdk.responses.stream(input="hello", **ASKED) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    last = events[-1]
    assert last.type == "response.completed"
    kept_one = sdk.responses.retrieve(last.response.id)
    assert kept_one.output_text == "Good morning." and kept_one.usage is not None and kept_one.usage.total_tokens > 13


def test_a_text_tells_how_likely_its_tokens_were(sdk: openai.OpenAI) -> None:
    asked: Any = {**ASKED, "max_output_tokens": 8, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = sdk.responses.create(input="hello", **asked).output[0]
    assert whole.type == "message" and whole.content[0].type == "output_text"
    told = whole.content[0].logprobs
    assert told and all(len(one.top_logprobs) == 2 for one in told)
    deltas = [e for e in sdk.responses.create(input="hello", stream=True, **asked) if e.type.endswith("text.delta")]
    assert [one.logprob for e in deltas for one in e.logprobs] == [one.logprob for one in told]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fields, status",
    [
        ({"previous_response_id": "resp_none"}, 404),
        ({"previous_response_id": ""}, 400),
        ({"background": True}, 400),
        ({"conversation": "conv_1"}, 400),
        ({"prompt": {"id": "x"}}, 400),
        ({"store": "yes"}, 400),
        ({"metadata": {"a": 5}}, 400),
        ({"metadata": {"a": "x" * 513}}, 400),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400),
        ({"input": [{"type": "item_reference", "id": "x"}]}, 400),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, 400),
        ({"input": [{"type": "function_call", "call_id": "a"}]}, 400),
        ({"input": []}, 400),
        ({"input": 5}, 400),
        ({"tools": [{"type": "web_search"}]}, 400),
        ({"include": "all"}, 400),
        ({"top_logprobs": 21}, 400),
    ],
)
def test_impossible_responses_are_refused(client: httpx.Client, fields: dict[str, Any], status: int) -> None:
    response = client.post(PATH, json={"input": "hello", **ASKED, **fields})
    assert response.status_code == status and response.json()["error"]["message"]


def test_each_key_has_its_own(sdk: openai.OpenAI, server: Running) -> None:
    """Over HTTP: neither a response nor a spoken answer is known to another key."""
    made = sdk.responses.create(input="hello", **ASKED)
    question: Any = {"role": "user", "content": "hello"}
    spoken = sdk.chat.completions.create(
        model="tiny", messages=[question], modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"},
        max_tokens=4,
    )  # fmt: skip
    audio = spoken.choices[0].message.audio
    assert audio is not None
    goes_on: Any = [question, {"role": "assistant", "audio": {"id": audio.id}}, question]
    assert sdk.chat.completions.create(model="tiny", messages=goes_on, max_tokens=2).choices
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=OTHER_KEY, max_retries=0) as other:
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            other.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            other.responses.create(input="and?", previous_response_id=made.id, **ASKED)
        with pytest.raises(openai.BadRequestError) as refused:
            other.chat.completions.create(model="tiny", messages=goes_on, max_tokens=2)
    assert refused.value.code == "audio_not_found" and sdk.responses.retrieve(made.id).id == made.id


# ---------------------------------------------------------------- the store


def record(name: str) -> dict[str, Any]:
    return {"id": name}


def test_nobody_gets_a_response_of_another_key() -> None:
    store = KeptResponses()

    def of(tenant: str, act: Any) -> Any:
        def run() -> Any:
            TENANT.set(tenant)
            return act()

        return contextvars.copy_context().run(run)

    of("a", lambda: store.keep(record("x"), (), (user("secret"),)))
    assert of("a", lambda: store.get("x")).messages == (user("secret"),)
    for act in (lambda: store.get("x"), lambda: store.remove("x")):
        with pytest.raises(RequestError) as refused:
            of("b", act)
        assert refused.value.status == 404
    of("a", lambda: store.remove("x"))
    assert not store.bytes


def held(store: KeptResponses) -> int:
    """The bytes of all that a store holds, counted anew."""
    kept_now = [one for _, one in store._kept.values()]
    messages = {id(message): message for one in kept_now for message in one.messages}
    return sum(map(kept.bytes_of_message, messages.values())) + sum(one.size for one in kept_now)


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 9)), max_size=30))
def test_what_is_held_is_what_is_counted(steps: list[tuple[int, int, int]]) -> None:
    """Whoever goes on from whom, in whatever order they go: messages that are shared count once, and none is left."""
    store = KeptResponses(most=4, most_bytes=100)
    for number, (parent, size, beside) in enumerate(steps):
        before: tuple[Message, ...] = ()
        with suppress(RequestError):
            before = store.get(str(number - 1 - parent)).messages
        store.keep(record(str(number)), before, (Message("user", (Audio(b"y" * size),)),), beside)
        assert store.bytes == held(store) <= 100 and len(store._kept) <= 4
        if beside == 9:
            with suppress(RequestError):
                store.remove(str(number - parent))
            assert store.bytes == held(store)
    for name in [name for _, name in store._kept]:
        store.remove(name)
    assert store.bytes == 0 and not store._holders


def test_a_response_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeptResponses()
    store.keep(record("late"), (), (user("hi"),), 5)
    assert store.get("late").record == record("late") and store.bytes == 7
    now = kept.time.monotonic()
    monkeypatch.setattr(kept.time, "monotonic", lambda: now + kept.KEPT_RESPONSE_S + 1)
    with pytest.raises(RequestError):
        store.get("late")
    assert store.bytes == 0
