"""The older names of the realtime protocol, as DashScope's clients have them: ``/v1/realtime?dialect=dashscope``.

    client's session: flat, or nested with sample_rate; sound in at 16 kHz   -->  the session of OpenAI's protocol
    our events                                                               -->  response.audio.delta, and others

Source: dashscope 2.0.2, OmniRealtimeConversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from descant.server.errors import wrong
from descant.server.realtime_session import AudioIn, Format, RealtimeSession, ServerVad, SessionAudio, deep_merged

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
DASHSCOPE_RATE_HZ = 16_000  # of the client's sound, unless it says another
DASHSCOPE_SILENCE_MS = 800
SAME_FIELDS = ("instructions", "tools", "tool_choice")
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "seed")


@dataclass(frozen=True)
class Dialect:
    """OpenAI's own protocol: nothing is translated."""

    def defaults(self) -> RealtimeSession:
        """The session before the first update."""
        return RealtimeSession()

    def session(self, given: dict[str, Any]) -> dict[str, Any]:
        """A client's session in OpenAI's words."""
        return given

    def response(self, given: Any) -> Any:
        """A client's response.create in OpenAI's words."""
        return given

    def event(self, kind: str, fields: dict[str, Any]) -> ServerEvent | None:
        """An event as the client knows it; None: it knows no such event."""
        return kind, fields


@dataclass(frozen=True)
class DashScope(Dialect):
    """The older names, and sound in at 16 kHz."""

    def defaults(self) -> RealtimeSession:
        heard = AudioIn(
            format=Format(rate=DASHSCOPE_RATE_HZ),
            turn_detection=ServerVad(silence_duration_ms=DASHSCOPE_SILENCE_MS),
        )
        return RealtimeSession(audio=SessionAudio(input=heard))

    def session(self, given: dict[str, Any]) -> dict[str, Any]:
        nested = given.get("audio")
        if isinstance(nested, dict):
            nested = {side: with_rate(value) for side, value in nested.items()}
        heard = {ours: given[name] for name, ours in HEARD_FIELDS.items() if name in given}
        session: dict[str, Any] = {name: given[name] for name in SAME_FIELDS if name in given}
        session["audio"] = deep_merged({"input": heard}, nested or {})
        if "voice" in given:
            session["audio"] = deep_merged({"output": {"voice": given["voice"]}}, session["audio"])
        if "max_tokens" in given:
            session["max_output_tokens"] = given["max_tokens"]
        if sampling := {name: given[name] for name in SAMPLING_FIELDS if name in given}:
            session["sampling"] = sampling
        if (modalities := given.get("modalities", given.get("output_modalities"))) is not None:
            session["output_modalities"] = newer_modalities(modalities)
        return session

    def response(self, given: Any) -> Any:
        if not isinstance(given, dict) or "modalities" not in given:
            return given
        return {**given, "output_modalities": newer_modalities(given["modalities"])}

    def event(self, kind: str, fields: dict[str, Any]) -> ServerEvent | None:
        if kind in UNKNOWN_BEFORE:
            return None
        if "session" in fields:
            fields = {**fields, "session": flat(fields["session"])}
        return OLD_NAMES.get(kind, kind), older(fields)


HEARD_FIELDS = {"turn_detection": "turn_detection", "input_audio_transcription": "transcription"}


def with_rate(side: Any) -> Any:
    """One side of a nested session: its format is {type: pcm, sample_rate} there."""
    form = side.get("format") if isinstance(side, dict) else None
    if not isinstance(form, dict):
        return side
    kind = form.get("type", "pcm")
    rate = form.get("sample_rate", form.get("rate"))
    named = {"type": f"audio/{kind}" if kind in ("pcm", "pcmu", "pcma") else kind}
    return {**side, "format": named if rate is None else {**named, "rate": rate}}


def newer_modalities(given: Any) -> list[str]:
    """["audio"] or ["text"]. Raises RequestError."""
    if not isinstance(given, list) or "text" not in given or not all(one in ("text", "audio") for one in given):
        raise wrong('modalities: ["text"] or ["text", "audio"]', "session.modalities")
    return ["audio"] if "audio" in given else ["text"]


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
        "tools": session["tools"],
        **(session.get("sampling") or {}),
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
