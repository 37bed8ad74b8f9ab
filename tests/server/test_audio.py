"""Speech in every format, at every speed, as bytes and as events; recordings written down in every form."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from descant.config import OUTPUT_RATE_HZ
from descant.inputs import door
from descant.server.encode import SOUND_FORMATS, SoundEncoder, SoundFormat
from descant.server.tempo import Tempo
from descant.types import Budget
from tests.badinputs.catalogue import SOUND
from tests.server.conftest import KEY, Running, Script

SAY: dict[str, Any] = {"input": "Good morning.", "voice": "alloy", "seed": 1}
FORMATS = [form for form in SOUND_FORMATS if form != "pcm16"]


@pytest.fixture
def sdk(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
    assert server.idle()


def heard(data: bytes, form: str) -> np.ndarray:
    if form.startswith("pcm"):
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return np.asarray(door.open_audio(data, OUTPUT_RATE_HZ, Budget()))


# ---------------------------------------------------------------- speech


@pytest.mark.parametrize("form", FORMATS)
def test_speech_is_the_same_in_every_format(client: httpx.Client, form: str) -> None:
    plain = heard(client.post("/v1/audio/speech", json={**SAY, "response_format": "pcm"}).content, "pcm")
    response = client.post("/v1/audio/speech", json={**SAY, "response_format": form})
    sound = heard(response.content, form)
    assert response.headers["content-type"].startswith("audio/") and len(plain) > 2400
    assert abs(len(sound) - len(plain)) <= 2 * 1152, "no more than the padding of a frame or two"
    size = 2 * max(len(sound), len(plain))
    both = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(plain, size).conj())
    assert both.max() > 0.7 * np.linalg.norm(sound) * np.linalg.norm(plain), "alike, at some delay of the codec"


def test_speech_comes_as_events_too(sdk: openai.OpenAI, client: httpx.Client) -> None:
    said = {**SAY, "response_format": "wav", "stream_format": "sse"}
    events = [json.loads(line[6:]) for line in client.post("/v1/audio/speech", json=said).text.split("\n\n") if line]
    kinds = [event["type"] for event in events]
    assert set(kinds[:-1]) == {"speech.audio.delta"} and kinds[-1] == "speech.audio.done"
    usage = events[-1]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and usage["output_tokens"] > 0
    data = b"".join(b64decode(event["audio"]) for event in events[:-1])
    with sdk.audio.speech.with_streaming_response.create(
        model="tiny", voice="alloy", input=SAY["input"], response_format="wav", extra_body={"seed": 1}
    ) as response:
        assert response.read() == data and response.headers["content-type"] == "audio/wav"


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.0, 1.5, 2.0, 4.0])
def test_another_speed_keeps_the_pitch(speed: float) -> None:
    """In whatever cuts the sound comes, its length is that over the speed, and its tone is what it was."""
    seconds = 2.0
    tone = np.sin(2 * np.pi * 440 * np.arange(int(seconds * OUTPUT_RATE_HZ)) / OUTPUT_RATE_HZ).astype(np.float32) / 2
    for cut in (997, 5760, len(tone)):
        tempo = Tempo(speed)
        cuts = [*range(0, len(tone), cut), len(tone)]
        parts = [tempo.push(tone[begin:end]) for begin, end in pairwise(cuts)]
        sound = np.concatenate([*parts, tempo.finish()])
        assert len(sound) == pytest.approx(len(tone) / speed, rel=0.03)
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
        assert spectrum.argmax() * OUTPUT_RATE_HZ / len(sound) == pytest.approx(440, abs=2)
        if speed == 1:
            np.testing.assert_array_equal(sound, tone)


def test_speed_is_heard_in_what_is_said(client: httpx.Client) -> None:
    lengths = []
    for speed in (1, 2):
        asked = {**SAY, "response_format": "pcm", "speed": speed}
        lengths.append(len(client.post("/v1/audio/speech", json=asked).content))
    assert lengths[1] == pytest.approx(lengths[0] / 2, rel=0.1)


@pytest.mark.parametrize("form", SOUND_FORMATS)
def test_no_sound_at_all_is_a_file_too(form: SoundFormat) -> None:
    """An answer without a sound ends its stream properly, and so does one that is shorter than a frame."""
    for count in (0, 1):
        encoder = SoundEncoder(form, 1.0)
        data = encoder.push(np.zeros(count, np.float32)) + encoder.finish()
        assert bool(data) or not count


@pytest.mark.parametrize(
    "fields",
    [
        {"speed": 0.2},
        {"speed": 4.1},
        {"speed": "fast"},
        {"response_format": "mid"},
        {"stream_format": "json"},
        {"input": ""},
        {"input": " \n"},
        {"voice": 5},
        {"voice": {"name": "x"}},
        {"seed": -1},
    ],
)
def test_impossible_speech_is_refused(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = client.post("/v1/audio/speech", json={**SAY, **fields})
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_value"


# ---------------------------------------------------------------- transcriptions


def file() -> tuple[str, bytes]:
    return "said.wav", b64decode(SOUND)


def test_the_openai_client_gets_a_transcript_in_every_form(sdk: openai.OpenAI, script: Script) -> None:
    script("what was säid")
    plain = sdk.audio.transcriptions.create(model="tiny", file=file())
    assert plain.text == "what was säid" and plain.logprobs is None
    assert plain.usage is not None and plain.usage.type == "tokens"
    details = plain.usage.input_token_details
    assert details is not None and details.audio_tokens == 12 and plain.usage.output_tokens > 5
    assert sdk.audio.transcriptions.create(model="tiny", file=file(), response_format="text") == "what was säid\n"
    verbose = sdk.audio.transcriptions.create(
        model="tiny", file=file(), response_format="verbose_json", language="de", temperature=0.5, prompt="x"
    )
    assert (verbose.text, verbose.language) == ("what was säid", "de")
    assert verbose.duration == pytest.approx(0.5, abs=0.04) and verbose.segments is None


def test_a_transcript_is_streamed_as_it_is_written(sdk: openai.OpenAI, script: Script) -> None:
    script("what was säid")
    asked: Any = {"model": "tiny", "file": file(), "stream": True}
    events = list(sdk.audio.transcriptions.create(**asked))
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    assert "".join(event.delta for event in deltas) == "what was säid" and len(deltas) > 3
    last = events[-1]
    assert last.type == "transcript.text.done" and last.text == "what was säid"
    assert last.usage is not None and last.usage.total_tokens > last.usage.output_tokens and last.logprobs is None


def test_a_transcript_tells_how_sure_it_is(sdk: openai.OpenAI) -> None:
    """Of the model's own words here: what a script says has no chance of its own."""
    asked: Any = {"model": "tiny", "file": file(), "include": ["logprobs"]}
    whole = sdk.audio.transcriptions.create(**asked)
    assert whole.logprobs and all(one.logprob is not None and one.logprob <= 0 for one in whole.logprobs)
    events = list(sdk.audio.transcriptions.create(**asked, stream=True))
    told = [one for event in events[:-1] for one in event.logprobs or ()]  # type: ignore[union-attr]
    last = events[-1]
    assert last.type == "transcript.text.done" and last.logprobs
    assert [one.logprob for one in told] == [one.logprob for one in last.logprobs]
    assert [one.logprob for one in told] == [one.logprob for one in whole.logprobs]


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"response_format": "srt"}, "response_format"),
        ({"response_format": "vtt"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "xml"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
        ({"include[]": "everything"}, "include[]"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "1.5"}, "temperature"),
        ({"stream": "maybe"}, "stream"),
        ({"language": "x" * 100}, "language"),
    ],
)
def test_impossible_transcripts_are_refused(client: httpx.Client, fields: dict[str, str], param: str) -> None:
    response = client.post("/v1/audio/transcriptions", data=fields, files={"file": file()})
    assert response.status_code == 400 and response.json()["error"]["param"] == param, response.text


def test_what_is_no_recording_is_refused(client: httpx.Client) -> None:
    lost = client.post("/v1/audio/transcriptions", data={"file": "x"})
    assert lost.status_code == 400 and lost.json()["error"]["param"] == "file"
    noise = client.post("/v1/audio/transcriptions", files={"file": ("x.wav", b"no sound")})
    assert noise.status_code == 400
    translation = client.post("/v1/audio/translations", files={"file": file()})
    assert translation.status_code == 400 and "chat/completions" in translation.json()["error"]["message"]
