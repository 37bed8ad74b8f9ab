"""The protocols as clients speak them: httpx byte for byte, and OpenAI's own client unmodified."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from descant.inputs import door
from descant.types import Budget
from tests.badinputs.catalogue import ASK, PICTURE, SOUND
from tests.inputs import media
from tests.server.conftest import KEY, Running


def chunks(response: httpx.Response) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture
def sdk(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
    assert server.idle()


# ---------------------------------------------------------------- chat


def test_a_whole_answer_and_a_streamed_one_are_the_same(client: httpx.Client) -> None:
    whole = client.post("/v1/chat/completions", json=ASK).json()
    streamed = chunks(client.post("/v1/chat/completions", json={**ASK, "stream": True}))
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in streamed)  # type: ignore[index]
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["choices"][0]["finish_reason"] == streamed[-1]["choices"][0]["finish_reason"]  # type: ignore[index]
    assert whole["usage"]["completion_tokens_details"] == {"text_tokens": 6, "audio_tokens": 0}
    assert whole["object"] == "chat.completion" and streamed[0]["object"] == "chat.completion.chunk"


@pytest.mark.parametrize("form", ["wav", "pcm16", "mp3", "flac", "opus", "aac"])
def test_text_and_sound_come_together(client: httpx.Client, form: str) -> None:
    spoken = {**ASK, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": form}}
    whole = client.post("/v1/chat/completions", json=spoken).json()["choices"][0]["message"]
    streamed = chunks(client.post("/v1/chat/completions", json={**spoken, "stream": True}))
    deltas = [c["choices"][0]["delta"].get("audio", {}) for c in streamed]  # type: ignore[index]
    assert "".join(d.get("transcript", "") for d in deltas) == whole["audio"]["transcript"] and whole["content"] is None
    assert len({d["id"] for d in deltas if "id" in d}) == 1 and any("expires_at" in d for d in deltas)
    pieces = [b"".join(b64decode(d.get("data", "")) for d in deltas), b64decode(whole["audio"]["data"])]
    if form == "pcm16":
        sounds = [np.frombuffer(piece, "<i2") / 32768 for piece in pieces]
    else:
        sounds = [door.open_audio(piece, 24000, Budget()) for piece in pieces]
    assert len(sounds[0]) == len(sounds[1]) > 2400
    np.testing.assert_allclose(sounds[0], sounds[1], atol=0.02)


def test_a_follow_up_turn_names_the_spoken_answer_by_its_id(client: httpx.Client) -> None:
    spoken = {**ASK, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    first = client.post("/v1/chat/completions", json=spoken).json()["choices"][0]["message"]["audio"]
    by_id = [*ASK["messages"], {"role": "assistant", "audio": {"id": first["id"]}}, {"role": "user", "content": "x"}]
    by_text = [*ASK["messages"], {"role": "assistant", "content": first["transcript"]}, by_id[-1]]
    answers = [client.post("/v1/chat/completions", json={**ASK, "messages": m}).json() for m in (by_id, by_text)]
    assert answers[0]["choices"] == answers[1]["choices"]
    lost = [*ASK["messages"], {"role": "assistant", "audio": {"id": "audio_none"}}, by_id[-1]]
    refused = client.post("/v1/chat/completions", json={**ASK, "messages": lost})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "audio_not_found"


def test_pictures_sounds_and_videos_are_read(client: httpx.Client) -> None:
    video = b64encode(media.video_file(media.grey_frames([9, 90, 170, 250], 56, 56), 2)).decode()
    content = [
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{SOUND}"}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{video}"}},
        {"type": "text", "text": "What?"},
    ]
    used = [
        client.post("/v1/chat/completions", json={**ASK, "messages": [{"role": "user", "content": part}]}).json()[
            "usage"
        ]
        for part in (content[-1:], content)
    ]
    assert used[1]["prompt_tokens"] > used[0]["prompt_tokens"] + 20


def test_files_are_the_media_that_they_say(client: httpx.Client) -> None:
    """A file of a chat, or of a response, is read as the part of its medium is; and counted as one."""
    sound = f"data:audio/wav;base64,{SOUND}"
    files = [
        ({"file_data": PICTURE, "filename": "x.png"}, {"type": "image_url", "image_url": {"url": PICTURE}}),
        ({"file_data": sound}, {"type": "audio_url", "audio_url": sound}),
    ]  # fmt: skip
    for file, part in files:
        asked = [{**ASK, "messages": [{"role": "user", "content": [one, {"type": "text", "text": "What?"}]}]}
                 for one in ({"type": "file", "file": file}, part)]  # fmt: skip
        answers = [client.post("/v1/chat/completions", json=body).json() for body in asked]
        assert answers[0]["choices"] == answers[1]["choices"] and answers[0]["usage"]["prompt_tokens"] > 10
        item = {"role": "user", "content": [{"type": "input_file", **file}, {"type": "input_text", "text": "What?"}]}
        response = client.post("/v1/responses", json={"input": [item], "max_output_tokens": 6, "seed": 1}).json()
        assert response["usage"]["input_tokens"] == answers[0]["usage"]["prompt_tokens"]
    many = {"role": "user", "content": [{"type": "file", "file": files[0][0]}] * 17}
    assert client.post("/v1/chat/completions", json={**ASK, "messages": [many]}).status_code == 413
    for wrong in ({"file_id": "file_1"}, {"file_data": "data:application/pdf;base64,AAAA"}, {"file_data": "AAAA"}, 5):
        lost = {"role": "user", "content": [{"type": "file", "file": wrong}]}
        assert client.post("/v1/chat/completions", json={**ASK, "messages": [lost]}).status_code == 400


def test_stop_texts_end_the_answer_and_are_no_part_of_it(client: httpx.Client) -> None:
    whole = client.post("/v1/chat/completions", json={**ASK, "max_tokens": 12}).json()["choices"][0]["message"][
        "content"
    ]
    stop = whole[3:5]
    asked = {**ASK, "max_tokens": 12, "stop": [stop]}
    cut = client.post("/v1/chat/completions", json=asked).json()["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(stop)] and cut["finish_reason"] == "stop"
    streamed = chunks(client.post("/v1/chat/completions", json={**asked, "stream": True}))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in streamed) == cut["message"]["content"]  # type: ignore[index]


def test_a_stop_text_ends_the_sound_with_the_text(client: httpx.Client) -> None:
    """All that is told is spoken, and counted."""
    spoken = {**ASK, "max_tokens": 12, "modalities": ["text", "audio"], "audio": {"voice": "x", "format": "pcm16"}}
    whole = client.post("/v1/chat/completions", json=spoken).json()["choices"][0]["message"]["audio"]["transcript"]
    cut = client.post("/v1/chat/completions", json={**spoken, "stop": whole[6:8]}).json()
    audio = cut["choices"][0]["message"]["audio"]
    assert audio["transcript"] == whole[:6] and len(b64decode(audio["data"])) > 2400
    assert cut["usage"]["prompt_tokens"] > 10 and cut["usage"]["completion_tokens_details"]["audio_tokens"] > 0


def test_several_answers_are_those_of_the_next_seeds(client: httpx.Client) -> None:
    hot = {**ASK, "temperature": 1.0}
    both = client.post("/v1/chat/completions", json={**hot, "n": 2}).json()["choices"]
    alone = [client.post("/v1/chat/completions", json={**hot, "seed": seed}).json()["choices"][0] for seed in (1, 2)]
    assert [c["message"] for c in both] == [c["message"] for c in alone] and [c["index"] for c in both] == [0, 1]


# ---------------------------------------------------------------- OpenAI's client, unmodified


def test_the_openai_client_talks(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["tiny"]
    assert sdk.models.retrieve("tiny").id == "tiny"
    asked = sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "pcm16"},
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=6,
        seed=1,
    )
    sound, text, usage = b"", "", None
    for chunk in asked:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            audio = choice.delta.audio
            if audio is not None:
                sound += b64decode(audio.data or "")
                text += audio.transcript or ""
    assert text and len(sound) > 4800 and usage is not None and usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.audio_tokens


def test_the_openai_client_asks_for_responses(sdk: openai.OpenAI) -> None:
    content = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PICTURE}]
    asked: dict[str, Any] = {"model": "tiny", "max_output_tokens": 6, "extra_body": {"seed": 1}, "temperature": 0}
    given: Any = [{"role": "user", "content": content}]
    whole = sdk.responses.create(input=given, instructions="Be kind.", **asked)
    assert whole.output_text and whole.usage is not None and whole.usage.output_tokens == 6
    assert whole.status == "incomplete" and whole.incomplete_details is not None
    streamed = list(sdk.responses.create(input=given, instructions="Be kind.", stream=True, **asked))
    assert [event.sequence_number for event in streamed] == list(range(len(streamed)))
    text = "".join(event.delta for event in streamed if event.type == "response.output_text.delta")
    assert text == whole.output_text and streamed[-1].type == "response.incomplete"
    assert sdk.responses.create(input="hello", **asked).output_text


def test_the_openai_client_speaks_and_writes_down(sdk: openai.OpenAI) -> None:
    with sdk.audio.speech.with_streaming_response.create(
        model="tiny", voice="alloy", input="Good morning.", response_format="wav"
    ) as response:
        sound = response.read()
    assert sound[:4] == b"RIFF" and response.headers["content-type"] == "audio/wav"
    written = sdk.audio.transcriptions.create(model="tiny", file=("said.wav", sound))
    streamed = sdk.audio.transcriptions.create(model="tiny", file=("said.wav", sound), stream=True)
    events = list(streamed)
    assert events[-1].type == "transcript.text.done" and events[-1].text == written.text


def test_the_openai_client_gets_typed_errors(sdk: openai.OpenAI, server: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="functions"):
        sdk.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], functions=[{"name": "f"}]
        )
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


# ---------------------------------------------------------------- speech as events, voices, operators


def test_speech_as_events(client: httpx.Client) -> None:
    said = {"input": "hi", "voice": {"id": "x"}, "response_format": "pcm", "stream_format": "sse", "seed": 1}
    events = [json.loads(line[6:]) for line in client.post("/v1/audio/speech", json=said).text.split("\n\n") if line]
    plain = client.post("/v1/audio/speech", json={**said, "stream_format": "audio"})
    assert b"".join(b64decode(e["audio"]) for e in events[:-1]) == plain.content
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["usage"]["output_tokens"] > 0
    assert client.get("/v1/audio/voices").json()["voices"] == ["Chelsie", "Ethan"]


def test_refusals_are_counted_by_their_code(client: httpx.Client, server: Running) -> None:
    def refused() -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("descant_rejects_total{")]
        return {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}

    before = refused()
    client.post("/v1/chat/completions", json={**ASK, "temperature": 5})
    client.get("/v1/nowhere")
    httpx.get(f"{server.url}/v1/models")
    new = {code: count - before.get(code, 0) for code, count in refused().items()}
    assert {code for code, count in new.items() if count} == {"invalid_value", "not_found", "invalid_api_key"}


def test_what_operators_ask(client: httpx.Client, server: Running) -> None:
    client.post("/v1/chat/completions", json=ASK)
    metrics = client.get("/metrics").text
    assert 'descant_requests_total{route="/v1/chat/completions",status="200"}' in metrics
    assert "descant_first_text_seconds_count" in metrics and "descant_loop_lag_seconds" in metrics
    assert all(f'descant_stage_seconds_count{{stage="{s}"}}' in metrics for s in ("queue", "read", "think", "decode"))
    assert 'descant_tokens_total{kind="text"}' in metrics and "descant_waiting 0.0" in metrics
    assert "descant_thinker_pages " in metrics and "descant_sessions 0.0" in metrics
    assert client.get("/version").json()["model"] == "tiny"
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_the_work_before_an_answer_is_told_in_comments(client: httpx.Client, sdk: openai.OpenAI) -> None:
    long = {**ASK, "stream": True, "messages": [{"role": "user", "content": "one two three " * 200}]}
    notes = [line for line in client.post("/v1/chat/completions", json=long).text.splitlines() if line.startswith(":")]
    stages = [re.fullmatch(r": reading (\d+) (\d+)", note) for note in notes]
    done = [int(stage[1]) for stage in stages if stage is not None]
    assert done and len(done) == len(notes) and done == sorted(done)
    assert all(stage is not None and int(stage[1]) <= int(stage[2]) for stage in stages)
    created = sdk.chat.completions.create(**{**long, "model": "tiny"})  # type: ignore[call-overload]
    assert list(created)  # and OpenAI's own client reads over them


def test_the_dial_of_one_answer(client: httpx.Client) -> None:
    spoken = {**ASK, "modalities": ["text", "audio"], "audio": {"voice": "x", "format": "pcm16"}}
    sounds = {
        dial: client.post("/v1/chat/completions", json={**spoken, "latency": dial}).json()["choices"][0]["message"][
            "audio"
        ]
        for dial in ("low", "quality")
    }
    assert (
        sounds["low"]["transcript"] == sounds["quality"]["transcript"]
        and sounds["low"]["data"] != sounds["quality"]["data"]
    )
    answer = client.post("/v1/chat/completions", json={**ASK, "latency": "soon"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "latency"
