"""docs/http.md names every field that is read, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from descant.server.schema import (
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_STOP_CHARACTERS,
    MAX_STOPS,
    ChatBody,
    ResponsesBody,
    SpeechBody,
)
from descant.server.transcription import TranscriptionForm

PAGE = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text(encoding="utf-8")
BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/responses": ResponsesBody,
    "/v1/audio/speech": SpeechBody,
    "/v1/audio/transcriptions": TranscriptionForm,
}


@pytest.mark.parametrize("route", BODIES)
def test_every_field_is_in_the_table_of_its_route(route: str) -> None:
    section = PAGE.partition(f"## POST {route}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(BODIES[route].model_fields)


def test_the_limits_are_those_that_hold() -> None:
    for told in (
        f"at most {MAX_MESSAGES}",
        f"parts {MAX_PARTS} each",
        f"up to {MAX_STOPS} texts of up to {MAX_STOP_CHARACTERS}",
    ):
        assert told in PAGE
