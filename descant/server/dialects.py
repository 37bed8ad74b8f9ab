"""The older names of the realtime protocol, as DashScope's clients have them: ``/v1/realtime?dialect=dashscope``.

    client's session: flat, sound in at 16 kHz   -->  the session of OpenAI's protocol
    our events                                   -->  response.audio.delta, conversation.item.created, ...

Source: dashscope 2.0.2, OmniRealtimeConversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from descant.errors import RequestError
from descant.server.realtime_session import RATE_HZ

ServerEvent = tuple[str, dict[str, Any]]
OLD_NAMES = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
UNKNOWN_BEFORE = frozenset({"conversation.item.done"})  # events that the older protocol does not have
OLD_PARTS = {"output_audio": "audio", "output_text": "text"}


@dataclass(frozen=True)
class Dialect:
    """OpenAI's own protocol: nothing is translated. rate_hz: of the client's sound."""

    rate_hz: int = RATE_HZ

    def session(self, given: dict[str, Any]) -> dict[str, Any]:
        """A client's session in OpenAI's words."""
        return given

    def event(self, kind: str, fields: dict[str, Any]) -> ServerEvent | None:
        """An event as the client knows it; None: it knows no such event."""
        return kind, fields


@dataclass(frozen=True)
class DashScope(Dialect):
    """The older names, and sound in at 16 kHz."""

    rate_hz: int = 16_000

    def session(self, given: dict[str, Any]) -> dict[str, Any]:
        heard: dict[str, Any] = {}
        if "turn_detection" in given:
            heard["turn_detection"] = given["turn_detection"]
        if "input_audio_transcription" in given:
            heard["transcription"] = given["input_audio_transcription"]
        session: dict[str, Any] = {"audio": {"input": heard}}
        if "voice" in given:
            session["audio"]["output"] = {"voice": given["voice"]}
        if "instructions" in given:
            session["instructions"] = given["instructions"]
        if "modalities" in given:
            modalities = given["modalities"]
            if not isinstance(modalities, list) or "text" not in modalities or not {*modalities} <= {"text", "audio"}:
                message = 'modalities: ["text"] or ["text", "audio"]'
                raise RequestError(400, "invalid_value", message, param="session.modalities")
            session["output_modalities"] = ["audio"] if "audio" in modalities else ["text"]
        return session

    def event(self, kind: str, fields: dict[str, Any]) -> ServerEvent | None:
        if kind in UNKNOWN_BEFORE:
            return None
        if "session" in fields:
            fields = {**fields, "session": flat(fields["session"])}
        return OLD_NAMES.get(kind, kind), older(fields)


def flat(session: dict[str, Any]) -> dict[str, Any]:
    """A session as the older protocol shows it."""
    sound = session["audio"]
    return {
        "id": session["id"],
        "object": "realtime.session",
        "model": session["model"],
        "modalities": ["text", "audio"] if "audio" in session["output_modalities"] else ["text"],
        "instructions": session["instructions"],
        "voice": sound["output"].get("voice"),
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm24",
        "input_audio_transcription": sound["input"].get("transcription"),
        "turn_detection": sound["input"].get("turn_detection"),
    }


def older(value: Any) -> Any:
    """The same with the older types of content parts."""
    if isinstance(value, list):
        return [older(one) for one in value]
    if not isinstance(value, dict):
        return value
    translated = {key: older(one) for key, one in value.items()}
    if translated.get("type") in OLD_PARTS:
        translated["type"] = OLD_PARTS[translated["type"]]
    return translated


DIALECTS: dict[str, Dialect] = {"openai": Dialect(), "dashscope": DashScope()}
