"""The session object of the realtime protocol: its fields, its updates, and what of it can be had here.

Unknown fields are ignored. An update is merged at every depth, and null clears: it takes away what may be absent, and
gives anything else its default.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from descant.config import OUTPUT_RATE_HZ
from descant.errors import RequestError
from descant.server.errors import wrong
from descant.server.schema import MAX_ID_CHARACTERS, VoiceId, checked
from descant.server.strict import strict_json
from descant.server.voice_formats import SoundCoding

MAX_INSTRUCTIONS = 100_000  # characters
Modalities = list[Literal["text", "audio"]]
LAYOUT = "item.layout"  # of ``include``: an extension


class SessionPart(BaseModel):
    """Base of the session's objects."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    ABSENT: ClassVar[frozenset[str]] = frozenset()  # fields that null takes away although their default is something

    @model_validator(mode="before")
    @classmethod
    def _clear(cls, given: Any) -> Any:
        """Null is the default."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name in cls.ABSENT}


class ServerVad(SessionPart):
    """Turns are told by whether somebody speaks."""

    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5_000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=20, le=10_000)] = 500
    idle_timeout_ms: Annotated[int, Field(ge=100, le=600_000)] | None = None
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(SessionPart):
    """Turns end where what was said sounds complete."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class Format(SessionPart):
    """A coding of sound. rate: Hz; of pcmu and pcma always 8000."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Annotated[int, Field(ge=8_000, le=48_000)] = OUTPUT_RATE_HZ

    @property
    def coding(self) -> SoundCoding:
        return SoundCoding(self.type, self.rate if self.type == "audio/pcm" else 8000)


class TranscriptWish(SessionPart):
    """The wish to have written down what was said. The model itself writes, whichever is named."""

    model: Annotated[str, Field(max_length=MAX_ID_CHARACTERS)] | None = None
    language: Annotated[str, Field(max_length=MAX_ID_CHARACTERS)] | None = None
    prompt: Annotated[str, Field(max_length=MAX_INSTRUCTIONS)] | None = None


class NoiseReduction(SessionPart):
    """A wish that nothing here depends on: the model hears the sound as it is."""

    type: Annotated[str, Field(max_length=MAX_ID_CHARACTERS)] | None = None


class AudioIn(SessionPart):
    ABSENT = frozenset({"turn_detection"})
    format: Format = Format()
    transcription: TranscriptWish | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = ServerVad()


VoiceName = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]


class AudioOut(SessionPart):
    format: Format = Format()
    voice: VoiceName | VoiceId = "default"
    speed: Annotated[float, Field(ge=0.25, le=1.5)] = 1.0


class SessionAudio(SessionPart):
    input: AudioIn = AudioIn()
    output: AudioOut = AudioOut()


class SamplingWish(SessionPart):
    """The drawing of words, as the older protocol asks for it; it counts from the first input on."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**20)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = None


class RealtimeSession(SessionPart):
    """A session. ``tools`` and ``tool_choice`` are checked by ``server.tools``."""

    type: Literal["realtime", "transcription"] = "realtime"
    output_modalities: Annotated[Modalities, Field(min_length=1, max_length=2)] = ["audio"]
    instructions: Annotated[str, Field(max_length=MAX_INSTRUCTIONS)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31)] | Literal["inf"] = "inf"
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] = []
    tool_choice: str | dict[str, Any] = "auto"
    truncation: Literal["auto", "disabled"] | dict[str, Any] = "auto"
    include: Annotated[list[str], Field(max_length=16)] | None = None
    audio: SessionAudio = SessionAudio()
    sampling: SamplingWish | None = None

    @property
    def voice(self) -> str:
        """The name of the voice that was asked for."""
        voice = self.audio.output.voice
        return voice if isinstance(voice, str) else voice.id

    @property
    def spoken(self) -> bool:
        return "audio" in self.output_modalities

    @property
    def detection(self) -> ServerVad | SemanticVad | None:
        return self.audio.input.turn_detection

    @property
    def tells_layout(self) -> bool:
        """True where the client wants to be told where the tokens of its items stand."""
        return LAYOUT in (self.include or ())

    @property
    def most_tokens(self) -> int | None:
        """max_output_tokens; None: as many as the model was made for."""
        return None if self.max_output_tokens == "inf" else int(self.max_output_tokens)

    def updated(self, given: dict[str, Any]) -> RealtimeSession:
        """The session after an update. Raises RequestError with the field that is wrong."""
        merged = deep_merged(self.model_dump(), given)
        detection = merged.get("audio", {}).get("input", {}) if isinstance(merged.get("audio"), dict) else {}
        if isinstance(detection, dict) and isinstance(turn := detection.get("turn_detection"), dict):
            turn.setdefault("type", "server_vad")
        after = checked(RealtimeSession, merged, "session")
        out = after.audio.output
        if out.format.type == "audio/pcm" and out.format.rate != OUTPUT_RATE_HZ:
            raise wrong(f"output: audio/pcm is of {OUTPUT_RATE_HZ} Hz here", "session.audio.output.format")
        return after

    def record(self, name: str, model: str, expires_at: int) -> dict[str, Any]:
        """The session object as clients read it."""
        fields = self.model_dump(exclude={"sampling"} if self.sampling is None else None)
        if self.type == "transcription":
            fields = {"type": self.type, "audio": {"input": fields["audio"]["input"]}}
        return {"id": name, "object": "realtime.session", "model": model, "expires_at": expires_at, **fields}


def deep_merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A nested update: what is not named stays."""
    both = dict(old)
    for key, value in new.items():
        before = old.get(key)
        both[key] = deep_merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


def event_of(text: str) -> dict[str, Any]:
    """A client's event. Raises RequestError."""
    event = strict_json(text.encode("utf-8", "surrogatepass"))
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise RequestError(400, "invalid_json", "an event is a JSON object with a type")
    return event
