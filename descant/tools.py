"""Functions that a model may call: how they are described, called and answered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from descant.errors import OptionError, shortened

MOST_TOOLS = 128
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
CHOICES = ("auto", "none", "required")


@dataclass(frozen=True)
class Tool:
    """A function. name: 1 to 64 of A-Z a-z 0-9 _ . -; parameters: the JSON Schema of its arguments (None: it has
    none); strict: the model cannot write others (needs the extra ``grammar``). Raises OptionError."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise OptionError(f"a tool's name is {shortened(self.name)}; write 1 to 64 of A-Z a-z 0-9 _ . -")
        if not isinstance(self.description, str):
            raise OptionError(f"the description of the tool {self.name} is no string; write what it does")
        if not isinstance(self.parameters, Mapping | None):
            raise OptionError(f"the parameters of the tool {self.name} are no JSON Schema; write {{'type': 'object'}}")
        if not isinstance(self.strict, bool):
            raise OptionError(f"strict={shortened(self.strict)} of the tool {self.name}; write True or False")
        self.as_json()

    def as_json(self) -> str:
        """The function as the model reads it."""
        record = {"name": self.name, "description": self.description, "parameters": self.parameters}
        function = {key: dict(value) if isinstance(value, Mapping) else value for key, value in record.items() if value}
        try:
            return json_text({"type": "function", "function": function})
        except (TypeError, ValueError, RecursionError):
            raise OptionError(
                f"the parameters of the tool {self.name} are no JSON; write a JSON Schema as Python's dicts and lists"
            ) from None


@dataclass(frozen=True)
class ToolCall:
    """A call. arguments: the text of a JSON object, as the model wrote it: check it before you act on it. id: joins
    it with its result."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class ToolResult:
    """The result of a call, as text; the model reads it in a turn of the user."""

    content: str
    id: str = ""


@dataclass(frozen=True)
class ToolUse:
    """The tools of an answer. choice: the model decides ("auto"), calls none, or calls one before it says anything
    ("required"); name: the one that is required (None: any); parallel: several calls in one answer. Raises
    OptionError."""

    tools: tuple[Tool, ...]
    choice: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    parallel: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.tools, tuple) or not all(isinstance(tool, Tool) for tool in self.tools):
            raise OptionError(f"tools={shortened(self.tools)}; write a list of Tool(name, description, parameters)")
        names = [tool.name for tool in self.tools]
        if len(names) > MOST_TOOLS or len(set(names)) < len(names):
            raise OptionError(f"tools: at most {MOST_TOOLS}, each with a name of its own")
        if self.choice not in CHOICES:
            raise OptionError(f"choice={shortened(self.choice)} is unknown; choose {', '.join(CHOICES)}")
        if self.name is not None and self.name not in names:
            raise OptionError(f"there is no tool {shortened(self.name)}; there are {', '.join(names) or 'none'}")
        if self.choice == "required" and not names:
            raise OptionError("choice='required' without a tool; give one, or leave choice out")
        if self.name is not None and self.choice != "required":
            raise OptionError("name is the tool that is required; write choice='required' too")
        if not isinstance(self.parallel, bool):
            raise OptionError(f"parallel={shortened(self.parallel)}; write True or False")


def json_text(value: object) -> str:
    """A value as JSON that is valid Unicode. Raises ValueError, TypeError or RecursionError if there is none."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can only escape
        return json.dumps(value, allow_nan=False)
    return text
