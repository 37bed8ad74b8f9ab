"""OpenAI's Python client: chat with sound in and out, responses, speech, transcriptions, realtime."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import common
import openai

PICTURE = "data:image/png;base64," + b64encode((common.MEDIA / "stars.png").read_bytes()).decode()
SPOKEN_QUESTION = b64encode((common.MEDIA / "question.wav").read_bytes()).decode()


def chat(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    sound, text, usage = b"", "", None
    streamed = client.chat.completions.create(
        model="nano",
        messages=[{"role": "user", "content": common.QUESTION}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "pcm16"},
        stream=True,
        stream_options={"include_usage": True},
        seed=1,
    )
    for chunk in streamed:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            audio = choice.delta.audio
            if audio is not None:
                sound += b64decode(audio.data or "")
                text += audio.transcript or ""
    common.check_text(text)
    common.check_sound(sound)
    assert usage is not None and usage.completion_tokens_details and usage.completion_tokens_details.audio_tokens
    content: list[Any] = [
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "input_audio", "input_audio": {"data": SPOKEN_QUESTION, "format": "wav"}},
    ]
    whole = client.chat.completions.create(
        model="nano",
        messages=[{"role": "user", "content": content}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        seed=1,
    )
    spoken = whole.choices[0].message.audio
    assert spoken is not None and spoken.id
    common.check_text(spoken.transcript, common.PICTURE_ANSWER)
    data = b64decode(spoken.data)
    assert data[:4] == b"RIFF"
    common.check_sound(data[44:])


def responses(client: openai.OpenAI) -> None:
    common.check_text(client.responses.create(model="nano", input=common.QUESTION, temperature=0).output_text)
    content: list[Any] = [
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        {"type": "input_text", "text": "How many shapes are there?"},
    ]
    with client.responses.stream(model="nano", input=[{"role": "user", "content": content}], temperature=0) as told:
        text = "".join(event.delta for event in told if event.type == "response.output_text.delta")
        assert told.get_final_response().output_text == text
    common.check_text(text, common.PICTURE_ANSWER)


def speech_and_transcription(client: openai.OpenAI) -> None:
    made = client.audio.speech.with_streaming_response.create(
        model="nano", voice="alloy", input=common.QUESTION, response_format="pcm"
    )
    with made as response:
        common.check_sound(b"".join(response.iter_bytes()))
    sound = common.MEDIA / "sum-24000.wav"
    # nano's ears are not on trial here: a transcription is what it writes when it is asked to write down the sound
    content: list[Any] = [
        {"type": "input_audio", "input_audio": {"data": b64encode(sound.read_bytes()).decode(), "format": "wav"}},
        {"type": "text", "text": "Write down what you hear."},
    ]
    written = client.chat.completions.create(
        model="nano", messages=[{"role": "user", "content": content}], modalities=["text"], temperature=0
    )
    heard = common.plain(written.choices[0].message.content or "")
    assert "plus nine" in heard, heard
    with sound.open("rb") as file:
        common.check_text(client.audio.transcriptions.create(model="nano", file=file).text, heard)
    with sound.open("rb") as file:
        events = list(client.audio.transcriptions.create(model="nano", file=file, stream=True))
    assert events[-1].type == "transcript.text.done"
    common.check_text(events[-1].text, heard)


def realtime(client: openai.OpenAI) -> None:
    """Said, and ended by the server's ear; then typed, with a picture."""
    with client.realtime.connect(model="nano") as talk:
        talk.session.update(session={"type": "realtime", "output_modalities": ["audio"]})
        for block in common.blocks(common.question_pcm()):
            talk.input_audio_buffer.append(audio=b64encode(block).decode())
        text, sound, kinds = told(talk)
        common.check_text(text)
        common.check_sound(sound)
        assert {"session.updated", "input_audio_buffer.speech_started", "input_audio_buffer.committed"} <= kinds
    content: list[Any] = [
        {"type": "input_image", "image_url": PICTURE},
        {"type": "input_text", "text": "How many shapes are there?"},
    ]
    with client.realtime.connect(model="nano") as talk:
        talk.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        talk.response.create()
        text, sound, kinds = told(talk)
        common.check_text(text, common.PICTURE_ANSWER)
        common.check_sound(sound)


def told(talk: Any) -> tuple[str, bytes, set[str]]:
    """(text, sound, kinds of events) of one answer."""
    text, sound, kinds = "", b"", set()
    for event in talk:
        kinds.add(event.type)
        assert event.type != "error", event.error
        if event.type == "response.output_audio_transcript.delta":
            text += event.delta
        elif event.type == "response.output_audio.delta":
            sound += b64decode(event.delta)
        elif event.type == "response.done":
            assert event.response.status == "completed", event.response.status_details
            break
    return text, sound, kinds


def refused() -> None:
    stranger = openai.OpenAI(base_url=f"{common.URL}/v1", api_key="wrong", max_retries=0)
    try:
        stranger.models.list()
    except openai.AuthenticationError:
        return
    raise AssertionError("a wrong key was let in")


with openai.OpenAI(base_url=f"{common.URL}/v1", api_key=common.KEY, max_retries=0) as given:
    chat(given)
    responses(given)
    speech_and_transcription(given)
    realtime(given)
    refused()
common.passed("openai", "chat with sound, responses, speech, transcriptions, realtime, a wrong key")
