"""One line of JSON for each thing that happens, without content: no prompt, no sound, no key, no words of an exception.

Every line that is written while a request is served bears its id.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType

REQUEST: ContextVar[str] = ContextVar("request", default="")  # the id of the request that is being served
QUIET = ("uvicorn.error", "uvicorn.access", "websockets", "httpx", "httpcore")  # their lines have addresses and queries
EVENT_CHARACTERS = 500


class JsonLines(logging.Formatter):
    """Formats a record as JSON. ``extra={"record": {...}}`` gives fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:EVENT_CHARACTERS],
        }
        if request := REQUEST.get():
            line["id"] = request
        fields = vars(record).get("record")
        line |= fields if isinstance(fields, dict) else {}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["where"] = places(record.exc_info[2])
        return json.dumps(line)


def places(trace: TracebackType | None) -> list[str]:
    """The lines of code that an exception went through; what it says may be a client's, and is left out."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def set_up_logs() -> None:
    """Write all logs of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a full disk or a closed stderr stops no answer
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every write to a client who has gone
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
