"""The form that the text of an answer is to have, in OpenAI's words -> the schema that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from descant.server.errors import wrong

ANY_OBJECT = {"type": "object"}


def read_schema(given: Mapping[str, Any] | None, where: str) -> Mapping[str, Any] | None:
    """The schema of ``response_format`` (which nests it in ``json_schema``) or of ``text.format`` (which does not);
    None: any text. Raises RequestError."""
    if given is None:
        return None
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return ANY_OBJECT
        case "json_schema":
            body = given.get("json_schema", given)
            schema = body.get("schema") if isinstance(body, Mapping) else None
            if not isinstance(schema, Mapping):
                raise wrong(f"{where}: there is no schema, a JSON object, in it", where)
            return schema
        case _:
            raise wrong(f"{where}: its type is text, json_object or json_schema", where)
