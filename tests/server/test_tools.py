"""Tools over HTTP: described, called and answered in the forms of OpenAI's protocols, by its own client."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from descant.errors import DescantError
from descant.inputs.template import render
from descant.server.conversation import messages_of
from descant.server.formats import read_schema
from descant.server.responses import messages_of_input
from descant.server.schema import ResponsesBody
from descant.server.tools import read_tool_use
from descant.tools import ToolUse
from tests.badinputs.catalogue import ASK, CHAT
from tests.server.conftest import KEY, Running, Script

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
NESTED: Any = [{"type": "function", "function": FUNCTION}, {"type": "function", "function": {"name": "wait"}}]
FLAT: Any = [{"type": "function", **FUNCTION}, {"type": "function", "name": "wait"}]
CALLS = ("<tool_call>", '\n{"name": "weather", "arguments": {"city": "Rome"}}\n', "</tool_call>")
WAIT = ("\n", "<tool_call>", '\n{"name": "wait", "arguments": {}}\n', "</tool_call>")
QUESTION: Any = [{"role": "user", "content": "How is it in Rome?"}]


@pytest.fixture
def sdk(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
    assert server.idle()


# ---------------------------------------------------------------- chat completions


def test_the_openai_client_calls_tools_and_gives_results(sdk: openai.OpenAI, script: Script) -> None:
    script("Let me look.\n", *CALLS, *WAIT)
    chosen = sdk.chat.completions.create(model="tiny", messages=QUESTION, tools=NESTED).choices[0]
    assert chosen.finish_reason == "tool_calls" and chosen.message.content == "Let me look."
    calls = chosen.message.tool_calls
    assert calls is not None and [c.function.name for c in calls if c.type == "function"] == ["weather", "wait"]
    first = calls[0]
    assert first.type == "function" and json.loads(first.function.arguments) == {"city": "Rome"}
    script("It is warm.")
    results: Any = [{"role": "tool", "tool_call_id": c.id, "content": c.id} for c in reversed(calls)]
    after = [*QUESTION, chosen.message.model_dump(exclude_none=True), *results]
    last = sdk.chat.completions.create(model="tiny", messages=after, tools=NESTED).choices[0]
    assert last.message.content == "It is warm." and last.finish_reason == "stop" and not last.message.tool_calls


def test_calls_are_streamed_by_their_index(sdk: openai.OpenAI, script: Script) -> None:
    script("Let me look.", *CALLS, *WAIT)
    stream = sdk.chat.completions.create(model="tiny", messages=QUESTION, tools=NESTED, stream=True)
    chunks = [chunk.choices[0] for chunk in stream]
    text = "".join(chunk.delta.content or "" for chunk in chunks)
    calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert text == "Let me look." and chunks[-1].finish_reason == "tool_calls"
    assert [(c.index, c.function.name, c.function.arguments) for c in calls if c.function] == [
        (0, "weather", '{"city": "Rome"}'), (1, "wait", "{}")
    ]  # fmt: skip
    assert len({call.id for call in calls}) == 2


def test_the_clients_own_stream_puts_calls_together(sdk: openai.OpenAI, script: Script) -> None:
    script("Let me look.", *CALLS, *WAIT)
    with sdk.chat.completions.stream(model="tiny", messages=QUESTION, tools=NESTED) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert kinds.count("tool_calls.function.arguments.done") == 2 and message.content == "Let me look."
    assert [call.function.arguments for call in message.tool_calls or ()] == ['{"city": "Rome"}', "{}"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_not_spoken(client: httpx.Client, script: Script, stream: bool) -> None:
    """The transcript and the sound of an answer with a call are those of the answer without it."""
    spoken = {**ASK, "max_tokens": 200, "modalities": ["text", "audio"], "audio": {"voice": "x", "format": "pcm16"}}
    heard = []
    for pieces in (("Let me look.",), ("Let me look.", *CALLS)):
        script(*pieces)
        response = client.post(CHAT, json={**spoken, "tools": NESTED, "stream": stream})
        if stream:
            deltas = [json.loads(line[6:])["choices"][0] for line in response.text.split("\n\n") if "{" in line]
            audio = [d["delta"].get("audio", {}) for d in deltas]
            told = "".join(a.get("transcript", "") for a in audio)
            heard.append((told, b"".join(b64decode(a.get("data", "")) for a in audio)))
            assert "content" not in "".join(map(str, (d["delta"] for d in deltas)))
        else:
            message = response.json()["choices"][0]["message"]
            heard.append((message["audio"]["transcript"], b64decode(message["audio"]["data"])))
            assert message["content"] is None and len(message.get("tool_calls", [])) == len(pieces) // 4
    assert heard[0] == heard[1] and heard[0][0] == "Let me look." and len(heard[0][1]) > 4800


def test_what_only_calls_has_no_sound(client: httpx.Client, script: Script) -> None:
    script(*CALLS)
    asked = {**ASK, "max_tokens": 200, "tools": NESTED, "modalities": ["text", "audio"]}
    asked["audio"] = {"voice": "x", "format": "wav"}
    message = client.post(CHAT, json=asked).json()["choices"][0]["message"]
    assert message["content"] is None and len(message["tool_calls"]) == 1 and "audio" not in message


def test_content_is_null_where_there_are_only_calls(client: httpx.Client, script: Script) -> None:
    script(*CALLS)
    message = client.post(CHAT, json={**ASK, "max_tokens": 200, "tools": NESTED}).json()["choices"][0]["message"]
    assert message["content"] is None and message["tool_calls"][0]["function"]["name"] == "weather"


def test_a_call_that_is_cut_is_none(client: httpx.Client, script: Script) -> None:
    script(*CALLS)
    choice = client.post(CHAT, json={**ASK, "max_tokens": 12, "tools": NESTED}).json()["choices"][0]
    assert choice["finish_reason"] == "length" and "tool_calls" not in choice["message"]


def test_a_named_tool_is_called(sdk: openai.OpenAI) -> None:
    """The model here writes random ids: what is required is what it is made to begin with."""
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    asked: Any = {"model": "tiny", "messages": QUESTION, "tools": NESTED, "seed": 1, "max_tokens": 60}
    for _ in range(2):
        cut = sdk.chat.completions.create(tool_choice=choice, **asked).choices[0]
        assert not cut.message.content and cut.finish_reason == "length"


def test_a_strict_tool_gets_what_its_schema_says(sdk: openai.OpenAI) -> None:
    """Whatever the weights: these are random."""
    city = {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}
    schema = {"type": "object", "properties": city, "required": [*city], "additionalProperties": False}
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": schema, "strict": True}}
    asked: Any = {"model": "tiny", "messages": QUESTION, "tools": [tool], "tool_choice": "required", "max_tokens": 120}
    for seed in range(4):
        chosen = sdk.chat.completions.create(temperature=2, seed=seed, parallel_tool_calls=False, **asked).choices[0]
        (call,) = chosen.message.tool_calls or ()
        assert call.type == "function" and call.function.name == "weather"
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "days"} and arguments["city"] in ("Rome", "Oslo")
        assert 1 <= arguments["days"] <= 7
    tool["function"]["parameters"] = {"not": {}}
    with pytest.raises(openai.BadRequestError, match="weather is strict"):
        sdk.chat.completions.create(**asked)


def test_one_call_if_so_asked(client: httpx.Client, script: Script) -> None:
    script(*CALLS, *WAIT, "and more")
    asked = {**ASK, "max_tokens": 200, "tools": NESTED}
    counts = []
    for parallel in (True, False):
        choice = client.post(CHAT, json={**asked, "parallel_tool_calls": parallel}).json()["choices"][0]
        counts.append(len(choice["message"]["tool_calls"]))
    assert counts == [2, 1] and choice["message"]["content"] is None


# ---------------------------------------------------------------- responses


def test_the_openai_client_calls_tools_in_responses(sdk: openai.OpenAI, script: Script) -> None:
    script("Let me look.", *CALLS, *WAIT)
    response = sdk.responses.create(model="tiny", input=QUESTION, tools=FLAT)
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert response.output_text == "Let me look." and response.status == "completed"
    call = response.output[1]
    assert call.type == "function_call" and call.name == "weather" and json.loads(call.arguments) == {"city": "Rome"}
    script("It is warm.")
    outputs: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "warm"}
        for item in response.output
        if item.type == "function_call"
    ]
    history: Any = [*QUESTION, *(item.model_dump(exclude_none=True) for item in response.output), *outputs]
    assert sdk.responses.create(model="tiny", input=history, tools=FLAT).output_text == "It is warm."


@pytest.mark.parametrize("before", ["Let me look.", ""])
def test_calls_are_typed_events(sdk: openai.OpenAI, script: Script, before: str) -> None:
    script(*([before] if before else []), *CALLS)
    with sdk.responses.stream(model="tiny", input=QUESTION, tools=FLAT) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events if event.type != "response.output_text.delta"]
    done = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert done == ['{"city": "Rome"}'] and final.output_text == before
    call = final.output[-1]
    assert call.type == "function_call" and call.name == "weather"
    added = [e.output_index for e in events if e.type == "response.output_item.added"]
    assert added == list(range(len(final.output)))


# ---------------------------------------------------------------- what is read


def pieces(messages: list[dict[str, Any]], omni: Any) -> list[Any]:
    read = messages_of(messages, lambda _: None, video_sound=True)
    return render(read, omni.checkpoint.inputs, speech=False, generate=True)


def test_results_are_read_in_the_order_of_the_calls(server: Running) -> None:
    """The model is not told the ids of calls: only the order says which result is whose."""
    calls = [{"id": c, "type": "function", "function": {"name": "f", "arguments": "{}"}} for c in ("a", "b", "c")]
    results = [{"role": "tool", "tool_call_id": c, "content": c} for c in ("c", "a", "b")]
    asked = [{"role": "assistant", "content": None, "tool_calls": calls}]
    in_order = [results[1], results[2], results[0]]
    assert pieces([*asked, *results], server.omni) == pieces([*asked, *in_order], server.omni)
    parts = [{"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "a"}]}]
    assert pieces([*asked, *parts], server.omni) == pieces([*asked, results[1]], server.omni)


def test_both_forms_of_tools_are_one() -> None:
    assert read_tool_use(NESTED) == read_tool_use(FLAT) and read_tool_use([]) is None and read_tool_use(None) is None
    for row in ({"type": "function", "function": {"name": "wait"}}, {"type": "function", "name": "wait"}):
        use = read_tool_use(FLAT, row)
        assert use is not None and (use.choice, use.name) == ("required", "wait")
        for allowed in ({"mode": "required", "tools": [row]}, {"allowed_tools": {"mode": "required", "tools": [row]}}):
            use = read_tool_use(FLAT, {"type": "allowed_tools", **allowed}, False)
            assert use == ToolUse(use.tools, "required", parallel=False) and [t.name for t in use.tools] == ["wait"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": 5},
        {"tools": [5]},
        {"tools": [{}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": 5}]},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": 5}}]},
        {"tools": NESTED * 2},
        {"tools": NESTED, "tool_choice": "always"},
        {"tools": NESTED, "tool_choice": {}},
        {"tools": NESTED, "tool_choice": {"type": "function"}},
        {"tools": NESTED, "tool_choice": {"type": "function", "function": {"name": "lost"}}},
        {"tools": NESTED, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "lost"}]}},
        {"tools": NESTED, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": 5}},
        {"tools": NESTED, "parallel_tool_calls": "yes"},
        {"tool_choice": "required"},
        {"functions": [{"name": "f"}]},
        {"messages": [{"role": "user", "content": "x", "tool_calls": []}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": 5}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [5]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": 5}}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "tool", "tool_call_id": "a", "content": 5}]},
        {"messages": [{"role": "tool", "tool_call_id": "a", "content": [{"type": "input_audio"}]}]},
    ],
)
def test_what_is_wrong_with_tools_is_told(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = client.post(CHAT, json={**ASK, **fields})
    assert response.status_code == 400 and response.json()["error"]["code"] in (
        "invalid_value",
        "unsupported_part",
        "invalid_base64",
    )


@pytest.mark.parametrize("deep", [[], {}])
def test_parameters_that_are_nested_too_deep_are_refused(deep: Any) -> None:
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(DescantError, match="no JSON"):
        read_tool_use([{"type": "function", "name": "f", "parameters": {"a": deep}}])
    while deep:  # Python frees what is nested this deep only piece by piece
        deep = deep[0]


WORDS = st.sampled_from(
    "type function name parameters strict tools allowed_tools mode required auto role tool assistant user content "
    "tool_calls tool_call_id id arguments call_id output message function_call function_call_output text file "
    "file_data audio json_schema schema {} weather".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=8,
)


@settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(VALUES, VALUES, VALUES)
def test_whatever_is_sent_is_read_or_refused(one: Any, other: Any, third: Any) -> None:
    """JSON of the protocol's own words, put together at random, never meets an error that is not ours."""
    rows = [row for row in (one, other, third) if isinstance(row, dict)]
    for read in (
        lambda: read_tool_use(one, other, third),
        lambda: read_tool_use(rows, other),
        lambda: messages_of(rows, lambda _: "said", video_sound=True),
        lambda: messages_of_input(ResponsesBody(input=rows or "x")),
        lambda: read_schema(one if isinstance(one, dict) else None, "response_format"),
    ):
        with suppress(DescantError):
            read()
