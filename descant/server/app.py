"""The application: its routes over one ``ServerState``, behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from descant.errors import DescantError, RequestError
from descant.omni import Omni, load
from descant.server.chat import answers_of, read_wish, stream_completion, whole_completion
from descant.server.errors import request_error, response_of
from descant.server.fetch import fetch_media
from descant.server.gate import Gate
from descant.server.media import SERVER_BUDGET
from descant.server.page import page_response
from descant.server.realtime_routes import add_realtime_routes
from descant.server.responses import begin_response
from descant.server.schema import Body, ChatBody, ResponsesBody, SpeechBody, checked
from descant.server.settings import ServerSettings
from descant.server.speech import speak_bytes, speak_events, speech_of
from descant.server.sse import guarded
from descant.server.state import ServerState, ServerStores
from descant.server.strict import strict_json
from descant.server.transcription import begin_transcription

Made = TypeVar("Made")
AnyBody = TypeVar("AnyBody", bound=Body)
EVENT_STREAM = "text/event-stream"
LARGE_BODY_BYTES = 1 << 16  # from here on a body is read on a thread
WAITING_THREADS = 128  # that wait for media, models and encoders: more than may be asked at once by one key
CLIENT_POLL_S = 0.1  # between two looks at whether a client that waits for a whole answer is still there
FORM_FILES = 1
FORM_FIELDS = 20


def make_app(settings: ServerSettings, omni: Omni | None = None, stores: ServerStores | None = None) -> Gate:
    """The server as an ASGI application. omni: a model that is loaded already; else it is loaded when the server
    starts. It is closed when the server stops. stores: of what later requests may name."""
    state = ServerState(settings, stores)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WAITING_THREADS, "server"))
        state.watch_lag()
        loading = asyncio.create_task(begin(state, omni))
        yield
        loading.cancel()
        await state.stop()

    app = FastAPI(title="descant", version=version("descant"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.descant = state
    add_routes(app, state)
    add_page_routes(app, state)
    for kind in (Exception, DescantError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, error_response)
    return Gate(app, state)


async def begin(state: ServerState, omni: Omni | None) -> None:
    """Load the model, if need be, and warm it; then the server is ready."""
    if state.loaded is not None:
        return
    settings = state.settings
    if omni is None:
        options: dict[str, Any] = {"dtype": settings.dtype, "device": settings.device, "latency": settings.latency}
        options["budget"] = SERVER_BUDGET
        omni = await asyncio.to_thread(partial(load, settings.model, **options))
    await state.warm_up(omni)


async def error_response(request: Request, error: Exception) -> Response:
    """Tell any error by the body that clients read. What is not ours goes on to the gate, which logs it."""
    if isinstance(error, HTTPException):
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "invalid_request")
        request.state.code = code
        return response_of(RequestError(error.status_code, code, str(error.detail)))
    refusal = request_error(error)
    if refusal.status == 500:
        raise error
    request.state.code = refusal.code  # for the gate, which logs and counts it
    return response_of(refusal)


async def body_of(request: Request, kind: type[AnyBody]) -> AnyBody:
    """The JSON body of a request. Raises RequestError with the first field that is wrong."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "unsupported_content_type", "send application/json")
    data = await request.body()
    if len(data) < LARGE_BODY_BYTES:
        return read_body(data, kind)
    return await asyncio.to_thread(read_body, data, kind)


def told_body(kind: type[Body]) -> dict[str, Any]:
    """A body as /openapi.json tells it; it is read by ``body_of``, whose refusals have our form."""
    schema = kind.model_json_schema()
    schema = inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def inlined(schema: Any, parts: dict[str, Any]) -> Any:
    """A JSON schema with its parts where they are referred to, as it will stand inside of another document."""
    if isinstance(schema, list):
        return [inlined(one, parts) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inlined(parts[schema["$ref"].removeprefix("#/$defs/")], parts)
    return {key: inlined(value, parts) for key, value in schema.items()}


def read_body(data: bytes, kind: type[AnyBody]) -> AnyBody:
    """JSON in UTF-8 -> a body. Raises RequestError."""
    return checked(kind, strict_json(data))


async def unless_gone(request: Request, made: Awaitable[Made]) -> Made:
    """Wait for what is made, unless the client leaves before: then the making is cancelled."""
    making = asyncio.ensure_future(made)
    try:
        while not making.done():
            await asyncio.wait([making], timeout=CLIENT_POLL_S)
            if not making.done() and await request.is_disconnected():
                raise RequestError(499, "client_closed", "the client left")
        return await making
    finally:
        making.cancel()


def event_stream(events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    return StreamingResponse(guarded(events), media_type=EVENT_STREAM)


def add_routes(app: FastAPI, state: ServerState) -> None:
    """All routes; what they have in common is in the gate."""
    add_model_routes(app, state)
    add_operator_routes(app, state)
    add_audio_routes(app, state)
    add_realtime_routes(app, state)

    @app.post("/v1/chat/completions", openapi_extra=told_body(ChatBody))
    async def chat(request: Request) -> Response:
        body = await body_of(request, ChatBody)
        await fetch_media(state.fetcher, body.messages)
        wish = await asyncio.to_thread(read_wish, state, body)
        if not body.stream:
            return JSONResponse(await unless_gone(request, whole_completion(state, wish)))
        begun = await answers_of(state, wish)  # what is wrong is error_response by a status, before the stream begins
        usage = body.stream_options is not None and body.stream_options.include_usage
        return event_stream(stream_completion(state, wish, begun, include_usage=usage))

    @app.post("/v1/responses", openapi_extra=told_body(ResponsesBody))
    async def responses(request: Request) -> Response:
        body = await body_of(request, ResponsesBody)
        await fetch_media(state.fetcher, body.input)
        begun = await begin_response(state, body)
        if body.stream:
            return event_stream(begun.events(state))
        return JSONResponse(await unless_gone(request, begun.whole(state)))

    @app.get("/v1/responses/{name}")
    async def response(name: str) -> dict[str, Any]:
        return (await asyncio.to_thread(state.responses.get, name)).record

    @app.delete("/v1/responses/{name}")
    async def forget_response(name: str) -> dict[str, Any]:
        await asyncio.to_thread(state.responses.remove, name)
        return {"id": name, "object": "response", "deleted": True}


def add_audio_routes(app: FastAPI, state: ServerState) -> None:
    """Routes that speak and write down."""

    @app.post("/v1/audio/speech", openapi_extra=told_body(SpeechBody))
    async def speech(request: Request) -> Response:
        body = await body_of(request, SpeechBody)
        answer, media_type = await speech_of(state, body)
        if body.stream_format == "sse":
            return event_stream(speak_events(state, answer, body))
        return StreamingResponse(speak_bytes(state, answer, body), media_type=media_type)

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        async with request.form(max_files=FORM_FILES, max_fields=FORM_FIELDS) as form:
            begun = await begin_transcription(state, form)
        if begun.form.stream:
            return event_stream(begun.events(state))
        made = await unless_gone(request, begun.whole(state))
        if begun.form.response_format == "text":
            return Response(made.text + "\n", media_type="text/plain")
        return JSONResponse(made.record())

    @app.post("/v1/audio/translations")
    async def translations() -> Response:
        message = "translations are not made here; ask /v1/chat/completions with the sound, and say what you want"
        raise RequestError(400, "not_supported", message)


def add_page_routes(app: FastAPI, state: ServerState) -> None:
    """Routes of the page."""

    @app.get("/")
    async def page(request: Request) -> Response:
        return page_response(state.page, request)

    @app.get("/assets/{name}")
    async def page_asset(request: Request, name: str) -> Response:
        return page_response(state.page, request)


def add_model_routes(app: FastAPI, state: ServerState) -> None:
    """Routes that tell what there is to ask."""

    def model_record() -> dict[str, Any]:
        return {"id": state.settings.model, "object": "model", "created": state.created, "owned_by": "descant"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_record()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != state.settings.model:
            raise RequestError(404, "model_not_found", "this server has another model; see /v1/models", param="model")
        return model_record()

    @app.get("/v1/audio/voices")
    async def voices() -> dict[str, Any]:
        return {"voices": list(state.omni.voices)}


def add_operator_routes(app: FastAPI, state: ServerState) -> None:
    """Routes for operators and load balancers."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        faults = () if state.loaded is None else state.loaded.engine.step_faults
        return {"status": "ok", "decoder": state.decoder} | ({"eager_steps": list(faults)} if faults else {})

    @app.get("/ready")
    async def ready() -> Response:
        assert state.omni is not None  # or the refusal says why not
        return JSONResponse({"status": "ready"})

    @app.get("/version")
    async def versions() -> dict[str, Any]:
        return {"descant": version("descant"), "torch": version("torch"), "model": state.settings.model}

    @app.get("/metrics")
    async def metrics() -> Response:
        if state.loaded is not None:
            ledger = vars(state.loaded.engine.ledger())
            for name, gauge in state.figures.ledger.items():
                gauge.set(ledger[name])
        return Response(generate_latest(state.figures.registry), media_type="text/plain; version=0.0.4")
