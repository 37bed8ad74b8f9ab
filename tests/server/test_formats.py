"""How text is drawn and what it must look like: schemas, penalties, chances of tokens, several answers at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pydantic
import pytest

from tests.badinputs.catalogue import ASK, CHAT, SOUND
from tests.server.conftest import KEY, Running

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
FLAT: Any = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}


class Verdict(pydantic.BaseModel):
    ok: bool


@pytest.fixture
def sdk(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
    assert server.idle()


def choices(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    response = client.post(CHAT, json={**ASK, **fields})
    assert response.status_code == 200, response.text
    return response.json()["choices"]  # type: ignore[no-any-return]


def streamed(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    text = client.post(CHAT, json={**ASK, **fields, "stream": True}).text
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


# ---------------------------------------------------------------- schemas


def test_the_openai_client_gets_what_its_schema_says(sdk: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": "is it so?"}], "seed": 1}
    for temperature in (0.0, 2.0):
        parsed = sdk.chat.completions.parse(response_format=Verdict, temperature=temperature, **asked).choices[0]
        assert isinstance(parsed.message.parsed, Verdict)
    answer = sdk.responses.create(model="tiny", input="is it so?", text=FLAT, max_output_tokens=50)
    assert answer.output_text in ('{"ok": true}', '{"ok": false}') and answer.status == "completed"
    told = sdk.responses.parse(model="tiny", input="is it so?", text_format=Verdict, max_output_tokens=50)
    assert isinstance(told.output_parsed, Verdict)


def test_a_schema_is_followed_aloud_and_in_a_stream(client: httpx.Client) -> None:
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "pcm16"}}
    asked = {"response_format": FORMAT, "max_tokens": 50, "temperature": 2}
    (whole,) = choices(client, **asked, **spoken)
    said = whole["message"]["audio"]["transcript"]
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in streamed(client, **asked)]
    assert json.loads(said) == json.loads("".join(deltas)) and set(json.loads(said)) == {"ok"}


def test_any_object_is_written_if_so_asked(client: httpx.Client) -> None:
    for seed in range(5):
        (choice,) = choices(client, response_format={"type": "json_object"}, max_tokens=80, temperature=2, seed=seed)
        assert choice["message"]["content"].startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["message"]["content"]), dict)
    assert choices(client, response_format={"type": "text"}) == choices(client)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"type": "yaml"}, "json_object or json_schema"),
        ({"type": "json_schema"}, "there is no schema"),
        ({"type": "json_schema", "json_schema": {"schema": "{}"}}, "there is no schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "zzzz"}}}, "no JSON Schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "keywords"),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "http://zzzz/"}}}, "nothing is fetched"),
    ],
)
def test_a_bad_schema_is_told_by_its_kind(client: httpx.Client, given: dict[str, Any], told: str) -> None:
    response = client.post(CHAT, json={**ASK, "response_format": given})
    error = response.json()["error"]
    assert response.status_code == 400 and told in error["message"] and "zzzz" not in response.text
    flat = given.get("json_schema", {}) | {"type": given["type"]}
    refused = client.post("/v1/responses", json={"input": "x", "text": {"format": flat}})
    assert refused.status_code == 400 and told in refused.json()["error"]["message"]


# ---------------------------------------------------------------- chances of tokens


def test_tokens_are_told_with_their_chances(sdk: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "max_tokens": 6, "messages": [{"role": "user", "content": "hello"}], "seed": 1}
    choice = sdk.chat.completions.create(logprobs=True, top_logprobs=3, temperature=0, **asked).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    told = choice.logprobs.content
    said = b"".join(bytes(token.bytes or ()) for token in told).decode(errors="replace")
    assert said == choice.message.content and len(told) <= 6
    for token in told:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        best = token.top_logprobs[0]
        assert (best.token, best.logprob) == (token.token, token.logprob), "greedy: the likeliest is written"
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        assert sum(math.exp(t.logprob) for t in token.top_logprobs) <= 1.0001
    plain = sdk.chat.completions.create(logprobs=True, temperature=0, **asked).choices[0]
    assert plain.logprobs is not None and plain.logprobs.content is not None
    assert [t.logprob for t in plain.logprobs.content] == [t.logprob for t in told]
    assert not any(token.top_logprobs for token in plain.logprobs.content)


def test_tokens_are_told_in_a_stream_with_the_text_they_made(client: httpx.Client) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    (whole,) = choices(client, **asked)
    parts = [chunk["choices"][0] for chunk in streamed(client, **asked)]
    tokens = [token for part in parts for token in (part["logprobs"] or {"content": []})["content"]]
    assert tokens == whole["logprobs"]["content"]
    for part in parts:
        assert bool(part["logprobs"]) == bool(part["delta"].get("content"))


def test_tokens_behind_a_stop_text_are_not_told(client: httpx.Client) -> None:
    (whole,) = choices(client, max_tokens=12, logprobs=True)
    content = whole["message"]["content"]
    (cut,) = choices(client, max_tokens=12, logprobs=True, stop=content[4:6])
    told = cut["logprobs"]["content"]
    assert told == whole["logprobs"]["content"][: len(told)] and len(told) < len(whole["logprobs"]["content"])
    assert "".join(token["token"] for token in told).startswith(cut["message"]["content"])


# ---------------------------------------------------------------- drawing


def test_penalties_keep_from_repeating(client: httpx.Client) -> None:
    def repeats(**fields: Any) -> int:
        (choice,) = choices(client, max_tokens=60, temperature=0.7, logprobs=True, **fields)
        tokens = [tuple(token["bytes"]) for token in choice["logprobs"]["content"]]
        return len(tokens) - len(set(tokens))

    free = repeats()
    assert repeats(frequency_penalty=2, presence_penalty=2) < free
    assert repeats(frequency_penalty=-2) > free
    assert repeats(frequency_penalty=0, presence_penalty=0) == free


def test_several_answers_come_in_one_stream(client: httpx.Client) -> None:
    hot = {"temperature": 1.0, "n": 3, "max_tokens": 12, "modalities": ["text", "audio"]}
    hot["audio"] = {"voice": "x", "format": "pcm16"}
    whole = [choice["message"]["audio"]["transcript"] for choice in choices(client, **hot)]
    chunks = [chunk["choices"][0] for chunk in streamed(client, **hot)]
    texts = ["", "", ""]
    for chunk in chunks:
        texts[chunk["index"]] += chunk["delta"].get("audio", {}).get("transcript", "")
    assert texts == whole
    ends = [place for place, chunk in enumerate(chunks) if chunk["finish_reason"]]
    begins = [[c["index"] for c in chunks].index(n) for n in range(3)]
    assert len(ends) == 3 and max(begins) < min(ends), "they come beside each other"


def test_the_last_seed_has_a_next_one(client: httpx.Client) -> None:
    both = choices(client, n=2, seed=2**63 - 1, temperature=1)
    assert both[1]["message"] == choices(client, seed=0, temperature=1)[0]["message"]


def test_usage_counts_what_was_heard_and_said(client: httpx.Client) -> None:
    heard = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}
    content = [heard, {"type": "text", "text": "What?"}]
    asked = {**ASK, "messages": [{"role": "user", "content": content}]}
    asked |= {"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "pcm16"}}
    usage = client.post(CHAT, json=asked).json()["usage"]
    prompt, made = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    assert prompt["audio_tokens"] == 12 and prompt["text_tokens"] == usage["prompt_tokens"] - 12  # 0.5 s
    assert made["audio_tokens"] > 0 and made["text_tokens"] == 6
    chunks = streamed(client, **{**asked, "stream_options": {"include_usage": True}})
    assert all("usage" in chunk for chunk in chunks) and not any(chunk["usage"] for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens_details"] == made
    assert all("usage" not in chunk for chunk in streamed(client, **asked))


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 2.1},
        {"frequency_penalty": -2.1},
        {"frequency_penalty": "1"},
        {"top_logprobs": 21, "logprobs": True},
        {"top_logprobs": 2},
        {"logprobs": 1},
        {"logit_bias": {"5": 100}},
        {"n": 9},
        {"n": 0},
        {"stop": ["a"] * 5},
        {"max_completion_tokens": 0},
        {"response_format": "json"},
        {"mm_processor_kwargs": {"use_audio_in_video": "no"}},
        {"response_format": {}},
        {"stream_options": {"include_usage": "yes"}, "stream": True},
    ],
)
def test_impossible_wishes_are_refused(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = client.post(CHAT, json={**ASK, **fields})
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_value"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "presence_penalty", "repetition_penalty", "zzzz"])
def test_numbers_that_are_none_are_refused(client: httpx.Client, field: str, number: str) -> None:
    body = json.dumps(ASK)[:-1] + f', "{field}": {number}}}'
    response = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400


def test_what_is_told_elsewhere_is_ignored(client: httpx.Client) -> None:
    extra = {"store": True, "metadata": {"a": "b"}, "user": "me", "service_tier": "auto", "zzzz": 5, "logit_bias": {}}
    assert choices(client, **extra) == choices(client)
    assert np.isfinite(choices(client, logprobs=True)[0]["logprobs"]["content"][0]["logprob"])
