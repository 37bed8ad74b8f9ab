"""The bodies of requests, as OpenAI's clients send them. Unknown fields are ignored; known ones are strict."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from descant.server.encode import SoundFormat
from descant.server.errors import wrong
from descant.types import Latency

Model = TypeVar("Model", bound=BaseModel)
MAX_MESSAGES = 512
MAX_PARTS = 64  # of one message
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256
MAX_ID_CHARACTERS = 256


def checked(kind: type[Model], given: object, where: str = "") -> Model:
    """An object of the protocol, from what a client sent. where: the field that it is; "": it is the body. Raises
    RequestError with the first field that is wrong."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join([*filter(None, [where]), *map(str, first["loc"])])
        raise wrong(f"{place or 'the body'}: {first['msg']}", place or None) from None
    except RecursionError:
        raise wrong(f"{where or 'the body'} is nested too deep", where or None) from None


class Body(BaseModel):
    """Base of all bodies: numbers are numbers, and not strings of digits."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataText = Annotated[str, Field(max_length=512)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class VoiceId(Body):
    """A voice as an object."""

    id: Name


class AudioWish(Body):
    """The wish for sound: whose voice, in which format."""

    voice: Name | VoiceId = "default"
    format: SoundFormat = "wav"


class StreamOptions(Body):
    include_usage: bool = False


class ProcessorWish(Body):
    """The reading of media. use_audio_in_video: a video's sound too, if it has one."""

    use_audio_in_video: bool = True


class ChatBody(Body):
    """POST /v1/chat/completions. ``messages`` are read by ``server.conversation``, tools by ``server.tools``.

    latency: of this answer; descant's own field, as top_k and repetition_penalty are.
    """

    model: Name | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES)]
    modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioWish | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**20)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    latency: Latency | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    mm_processor_kwargs: ProcessorWish | None = None
    user: Name | None = None


class TextWish(Body):
    """The form of a response's text."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesBody(Body):
    """POST /v1/responses. Items of ``input`` are read by ``server.responses``."""

    model: Name | None = None
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    stream: bool = False
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: Name | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    store: bool | None = None
    metadata: Annotated[dict[MetadataKey, MetadataText], Field(max_length=16)] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    text: TextWish | None = None


class SpeechBody(Body):
    """POST /v1/audio/speech. ``instructions`` are ignored: a voice has one manner."""

    model: Name | None = None
    input: Annotated[str, Field(min_length=1)]
    voice: Name | VoiceId = "default"
    response_format: SoundFormat = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
