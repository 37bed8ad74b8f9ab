"""Tools in OpenAI's forms <-> ours. The chat form nests a function, the form of responses and realtime is flat.

    chat   {"type": "function", "function": {"name", "description", "parameters"}}
    flat   {"type": "function", "name", "description", "parameters"}

Both are read everywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from descant.server.errors import wrong
from descant.tools import Tool, ToolCall, ToolUse

HOW_CHOSEN = 'tool_choice: "auto", "none", "required", or {"type": "function", "name": ...}'


def read_tool_use(tools: object, choice: object = None, parallel: object = None, where: str = "") -> ToolUse | None:
    """The tools of a request and how they may be used; None: there are none, or they are not to be used and unknown.

    where: the path of the fields, as "session." Raises RequestError and OptionError.
    """
    found = read_tools(tools, f"{where}tools")
    if parallel is not None and not isinstance(parallel, bool):
        raise wrong("parallel_tool_calls is true or false", f"{where}parallel_tool_calls")
    use = read_choice(ToolUse(found, parallel=parallel is not False), choice, f"{where}tool_choice")
    return use if use.tools else None


def read_tools(given: object, where: str = "tools") -> tuple[Tool, ...]:
    """The functions that a request describes. Raises RequestError and OptionError."""
    if given is None:
        return ()
    if not isinstance(given, list):
        raise wrong(f"{where} is a list of functions", where)
    return tuple(read_tool(row, f"{where}[{place}]") for place, row in enumerate(given))


def read_tool(row: object, where: str) -> Tool:
    """One function, in either form."""
    if not isinstance(row, Mapping) or row.get("type") != "function":
        raise wrong(f"{where}: only functions are called here: {{'type': 'function', ...}}", where)
    body = row.get("function", row)
    if not isinstance(body, Mapping):
        raise wrong(f"{where}.function is no object", where)
    strict = body.get("strict")
    if not isinstance(strict, bool | None):
        raise wrong(f"{where}: strict is true or false", where)
    return Tool(body.get("name"), body.get("description") or "", body.get("parameters"), bool(strict))  # type: ignore[arg-type]


def read_choice(use: ToolUse, choice: object, where: str = "tool_choice") -> ToolUse:
    """The use of tools as a tool_choice changes it; None changes nothing. Raises RequestError and OptionError."""
    if choice is None:
        return use
    if choice in ("auto", "none", "required"):
        return replace(use, choice=choice, name=None)
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or kind not in ("function", "allowed_tools"):
        raise wrong(HOW_CHOSEN, where)
    if kind == "function":
        return replace(use, choice="required", name=name_of(choice, where))
    body = choice.get("allowed_tools", choice)
    rows = body.get("tools") if isinstance(body, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise wrong(f"{where}: allowed_tools has no list of tools", where)
    names = {name_of(row, where) for row in rows}
    if unknown := names - {tool.name for tool in use.tools}:
        raise wrong(f"{where}: allowed_tools names a tool that is not in tools: {min(unknown)[:64]}", where)
    use = replace(use, tools=tuple(tool for tool in use.tools if tool.name in names), choice="auto", name=None)
    return read_choice(use, body.get("mode", "auto"), where)


def name_of(row: Mapping[str, Any], where: str) -> str:
    """The name of a function that is named in either form. Raises RequestError."""
    body = row.get("function", row)
    name = body.get("name") if isinstance(body, Mapping) else None
    if not isinstance(name, str):
        raise wrong(f"{where}: the function has no name", where)
    return name


def read_call(row: object, where: str) -> ToolCall:
    """A call that was made before, in the chat form or as an item ``function_call``. Raises RequestError."""
    body = row.get("function", row) if isinstance(row, Mapping) else None
    if not isinstance(row, Mapping) or not isinstance(body, Mapping):
        raise wrong(f"{where} is no call of a function", where)
    name = body.get("name")
    arguments = body.get("arguments", "{}")
    given_id = row.get("call_id", row.get("id")) or ""
    if not isinstance(name, str) or not isinstance(arguments, str) or not isinstance(given_id, str):
        raise wrong(f"{where}: name, arguments and id of a call are strings", where)
    return ToolCall(name, arguments, given_id)


def chat_call(call: ToolCall) -> dict[str, Any]:
    """A call in the chat form."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def call_item(call: ToolCall, status: str = "completed", item: str | None = None) -> dict[str, Any]:
    """A call as an item of a response or a realtime conversation. item: its id (None: a new one)."""
    return {
        "type": "function_call",
        "id": item or f"fc_{secrets.token_hex(12)}",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
