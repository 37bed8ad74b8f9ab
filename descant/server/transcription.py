"""POST /v1/audio/transcriptions: a recording written down, whole or as it is written.

The model tells no times, so there are no words, segments and subtitles to give; they are refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from descant.engine.answer import Answer
from descant.server.errors import wrong
from descant.server.media import check_format
from descant.server.schema import Body, Name, checked
from descant.server.spoken import chance_record
from descant.server.sse import sse
from descant.server.state import ServerState
from descant.types import TRANSCRIBE, AnswerOptions, Audio, Finished, TextDelta, TokenChance, Usage, user

LISTS = ("include", "timestamp_granularities")  # fields that stand several times, with [] behind the name or without
SOUND_TOKENS_PER_S = 25  # of the model's audio encoder
NO_TIMES = "this model tells no times: response_format is json, text or verbose_json"


class TranscriptionForm(Body):
    """The fields beside the file. Values are read from text. language, prompt and chunking_strategy are hints that this
    model needs not, and are ignored."""

    model_config = ConfigDict(extra="ignore", strict=False, frozen=True)

    model: Name | None = None
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt", "diarized_json"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    language: Annotated[str, Field(max_length=64)] | None = None
    stream: bool = False
    include: tuple[str, ...] = ()
    timestamp_granularities: tuple[str, ...] = ()


@dataclass
class FileTranscription:
    """A recording that is being written down. text, chances: so far."""

    answer: Answer
    form: TranscriptionForm
    text: str = ""
    chances: tuple[TokenChance, ...] = ()
    finished: Finished | None = None

    async def whole(self, state: ServerState) -> FileTranscription:
        """The same, written to its end. Leaving it cancels the answer."""
        async for _ in self.deltas(state):
            pass
        return self

    async def events(self, state: ServerState) -> AsyncGenerator[bytes, None]:
        """Server-sent events, as it is written."""
        async for delta in self.deltas(state):
            yield sse({"type": "transcript.text.delta", "delta": delta.text, **self.logprobs(delta.tokens)})
        yield sse({"type": "transcript.text.done", "text": self.text, **self.logprobs(self.chances), **self.usage()})
        yield b"data: [DONE]\n\n"

    async def deltas(self, state: ServerState) -> AsyncGenerator[TextDelta, None]:
        try:
            async for event in self.answer:
                if isinstance(event, TextDelta):
                    self.text += event.text
                    self.chances += event.tokens
                    yield event
                elif isinstance(event, Finished):
                    self.finished = event
                    state.figures.add(event)
        finally:
            self.answer.cancel()

    def record(self) -> dict[str, Any]:
        """The JSON of all that was said."""
        if self.form.response_format != "verbose_json":
            return {"text": self.text, **self.logprobs(self.chances), **self.usage()}
        seconds = 0.0 if self.finished is None else self.finished.usage.audio_tokens / SOUND_TOKENS_PER_S
        said = {"task": "transcribe", "language": self.form.language or "unknown", "duration": seconds}
        return {**said, "text": self.text, "usage": {"type": "duration", "seconds": seconds}}

    def logprobs(self, chances: tuple[TokenChance, ...]) -> dict[str, Any]:
        """The tokens' chances, where they are asked for."""
        if "logprobs" not in self.form.include:
            return {}
        return {"logprobs": [chance_record(one.text, one.logprob) for one in chances]}

    def usage(self) -> dict[str, Any]:
        return {} if self.finished is None else {"usage": usage_tokens(self.finished.usage)}


async def begin_transcription(state: ServerState, form: FormData) -> FileTranscription:
    """The writing of a form's recording, begun. Raises RequestError, OptionError and MediaError."""
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise wrong("send the recording as the form's field file", "file")
    fields = read_form(form)
    if fields.response_format in ("srt", "vtt", "diarized_json"):
        raise wrong(NO_TIMES, "response_format")
    if fields.timestamp_granularities:
        raise wrong(NO_TIMES, "timestamp_granularities[]")
    if set(fields.include) - {"logprobs"}:
        raise wrong("include: logprobs is all that can be included", "include[]")
    options: AnswerOptions = {"speech": False, "logprobs": 0 if fields.include else None}
    if fields.temperature is not None:
        options["sampling"] = replace(state.omni.checkpoint.generation.text, temperature=fields.temperature)
    data = await file.read()
    check_format(data, "file", "audio")
    asked = [user(Audio(data), TRANSCRIBE)]
    return FileTranscription(await state.omni.achat(asked, **options), fields)


def read_form(form: FormData) -> TranscriptionForm:
    """The fields of a form, its file left out. Raises RequestError with the first that is wrong."""
    given: dict[str, Any] = {}
    for name, value in form.multi_items():
        name = name.removesuffix("[]")
        if not isinstance(value, str):
            continue
        if name in LISTS:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    return checked(TranscriptionForm, given)


def usage_tokens(usage: Usage) -> Mapping[str, Any]:
    """The counts of one transcript."""
    details = {"audio_tokens": usage.audio_tokens, "text_tokens": usage.prompt_tokens - usage.audio_tokens}
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": details,
        "output_tokens": usage.text_tokens,
        "total_tokens": usage.prompt_tokens + usage.text_tokens,
    }
