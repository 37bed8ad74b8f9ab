"""Errors as OpenAI's clients read them: ``{"error": {message, type, param, code}}`` with an HTTP status.

Messages are ours, of the error tree, or fixed; what a library says never reaches a client.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse

from descant.errors import BusyError, MediaError, OptionError, RequestError, SessionError

# The last word of a MediaError's code -> status and code of the response; any other is 400 and "invalid_media".
MEDIA_CODES: dict[str, tuple[int, str]] = {
    "too_large": (413, "media_too_large"),
    "too_many_pixels": (413, "media_too_large"),
    "too_long": (400, "media_too_long"),
    "too_many_frames": (400, "media_too_long"),
    "too_costly": (400, "media_too_costly"),
    "decode_failed": (400, "media_decode_failed"),
    "truncated": (400, "media_decode_failed"),
    "empty": (400, "media_decode_failed"),
    "unknown_format": (400, "unsupported_media"),
    "wrong_kind": (400, "unsupported_media"),
    "codec": (400, "unsupported_media"),
    "no_decoder": (503, "overloaded"),
}
FAULTS = ("failed while", "the engine failed")  # how the errors begin that are nobody's but ours
INTERNAL = "the server failed at this request; its log has the id of it"


def body_of_error(error: RequestError) -> dict[str, Any]:
    """The body of the response."""
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}


def response_of(error: RequestError) -> JSONResponse:
    return JSONResponse(body_of_error(error), error.status, error.headers)


def wrong(message: str, param: str | None) -> RequestError:
    """The refusal of a field (None: of the whole body)."""
    return RequestError(400, "invalid_value", message, param=param)


def request_error(error: BaseException) -> RequestError:
    """The error that a client is told."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BusyError):
        wait = 1 if error.retry_s is None else max(1, math.ceil(error.retry_s))
        return RequestError(429, "overloaded", str(error), "rate_limit_error", headers={"retry-after": str(wait)})
    if isinstance(error, MediaError):
        status, code = MEDIA_CODES.get(error.code.rpartition(".")[2], (400, "invalid_media"))
        return RequestError(status, code, str(error))
    if isinstance(error, OptionError):
        return RequestError(400, "invalid_value", str(error))
    if isinstance(error, SessionError):
        told = str(error)
        if "draining" in told or "the engine is closed" in told:
            return RequestError(503, "draining", "the server is about to stop; ask another one", "overloaded_error")
        if not told.startswith(FAULTS):
            return RequestError(400, "invalid_state", told)
    return RequestError(500, "internal", INTERNAL, "server_error")
