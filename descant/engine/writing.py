"""The ids that the Thinker writes -> what becomes of them: text, which is spoken, or calls of tools, which are not.

    Let me look. \n <tool_call> \n {"name": "find", "arguments": {"what": "x"}} \n </tool_call>
    text: spoken |                         a call: read as JSON when it is complete

A call begins and ends with special ids, which no text can forge. Speech ends where the first call begins: what stands
behind it is told as text only. White space waits until it is known whether a call follows; then it is no text. What may
become a text that stops the answer waits as well, and so do the states of both.

A call that is no JSON object is given all the same, if it has a name, with its arguments as they were written: whoever
acts on arguments checks them anyway. Without a name it is told as text. One that was cut by the length limit is given
only if it is complete JSON.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Literal

from torch import Tensor

from descant.inputs.tokenizer import TOOL_CALL, TOOL_CALL_END, Tokenizer
from descant.tools import ToolCall, ToolUse, json_text

Written = str | ToolCall
NAME_IN_CALL = re.compile(r'"name"\s*:\s*"([^"\\]+)"')
ARGUMENTS_IN_CALL = re.compile(r'"(?:arguments|parameters)"\s*:\s*')


class Writing:
    """The writing of one answer. ``push`` takes an id and gives what is complete with it; ``finish`` gives the rest.

    silent: a call has begun, and nothing is spoken any more; complete: no more may be written, as a stop text came, or
    one call was all that was asked for; length: characters that were written as text, those that wait included.
    """

    def __init__(self, tokenizer: Tokenizer, use: ToolUse | None = None, stops: tuple[str, ...] = ()):
        self._tokenizer = tokenizer
        self._text = tokenizer.incremental()
        self._calls = use is not None and use.choice != "none"
        self._one = use is not None and not use.parallel
        self._begin = tokenizer.special(TOOL_CALL) if self._calls else -1
        self._end = tokenizer.special(TOOL_CALL_END) if self._calls else -1
        self._body: list[int] | None = None  # ids of the call that is being written
        self._stops = stops
        self._held = ""  # text that waits
        self._states: list[Tensor] = []  # of the ids of that text
        self._last: Literal["told", "waits", "stops"] = "told"  # the last id's text
        self.length = 0
        self.silent = False
        self.complete = False

    def push(self, index: int) -> list[Written]:
        """The text and the calls that one id completes."""
        if not self._calls:
            return self._tell(self._text.push(index))
        if index == self._begin:
            return self._begin_call()
        if index == self._end:
            return self._end_call(cut=False)
        if self._body is not None:
            self._body.append(index)
            return []
        return self._tell(self._text.push(index))

    def finish(self, reason: Literal["stop", "length"]) -> list[Written]:
        """The rest, when nothing more is written."""
        if self.complete:
            return []
        ended = self._end_call(cut=reason == "length")
        rest = self._tell(self._text.flush())
        held, self._held = self._held, ""
        told = "".join(piece for piece in [*rest, held] if isinstance(piece, str))
        return [*ended, *([told] if told and not (self.silent and told.isspace()) else [])]

    def heard(self, state: Tensor) -> list[Tensor]:
        """The states for the Talker to eat, now that the id that was pushed last has this one."""
        if self.silent or self._last == "stops":
            self._states.clear()
            return []
        if self._last == "waits":
            self._states.append(state)
            return []
        return [*self.rest(), state]

    def rest(self) -> list[Tensor]:
        """The states that waited, when it is known that they are spoken."""
        states = self._states
        self._states = []
        return states

    # ------------------------------------------------------------ inside

    def _tell(self, text: str) -> list[Written]:
        """Tell text, but for what must wait at its end."""
        self.length += len(text)
        if not (self._calls or self._stops):
            return [text] if text else []
        whole = self._held + text
        found = [place for stop in self._stops if (place := whole.find(stop)) >= 0]
        if found:
            self.complete = True
            told, self._held = whole[: min(found)], ""
            self._last = "told" if told else "stops"
        else:
            told = whole[: len(whole) - stop_begun(whole, self._stops)]
            told = told.rstrip() if self._calls else told
            self._held = whole[len(told) :]
            self._last = "told" if told else "waits"
        return [told] if told else []

    def _begin_call(self) -> list[Written]:
        """A call begins; one that was not ended is ended by it."""
        told = [*self._end_call(cut=False), *self._tell(self._text.flush())]
        if rest := self._held.rstrip():  # what waited was no stop text
            told.append(rest)
        self._held = ""
        self._states.clear()
        self.silent = True
        if not self.complete:
            self._body = []
        return told

    def _end_call(self, *, cut: bool) -> list[Written]:
        """The call that is being written, if any, has ended."""
        if self._body is None:
            return []
        text = self._tokenizer.decode(self._body).strip()
        self._body = None
        made: Written | None = call_of(text)
        if made is None and not cut:
            made = call_at_fault(text)
        if isinstance(made, ToolCall):
            self.complete = self._one
        return [made] if made else []


def stop_begun(text: str, stops: tuple[str, ...]) -> int:
    """Count the characters at the end of a text that may be the beginning of a stop text."""
    longest = max(map(len, stops), default=1) - 1
    begun = (n for n in range(min(longest, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in stops))
    return next(begun, 0)


def call_of(text: str) -> ToolCall | None:
    """The call that a JSON text is; None if it is none."""
    try:
        read = json.loads(text, strict=False)
        if not isinstance(read, dict) or not isinstance(name := read.get("name"), str) or not name:
            return None
        given = read.get("arguments", read.get("parameters", {}))
        arguments = given if isinstance(given, str) else json_text(given)
    except (ValueError, RecursionError):
        return None
    return ToolCall(name.encode(errors="replace").decode(), arguments, call_id())


def call_at_fault(text: str) -> Written:
    """Find in a call that is no JSON a name, and the text of its arguments; without a name it is only text."""
    name = NAME_IN_CALL.search(text)
    if name is None:
        return text
    arguments = ARGUMENTS_IN_CALL.search(text)
    rest = "" if arguments is None else text[arguments.end() :]
    try:
        rest = json_text(json.JSONDecoder(strict=False).raw_decode(rest)[0])
    except (ValueError, RecursionError):
        rest = rest.removesuffix("}").rstrip()  # that of the call itself
    return ToolCall(name[1], rest, call_id())


def call_id() -> str:
    """A new id of a call."""
    return f"call_{secrets.token_hex(12)}"


def begun_call(tokenizer: Tokenizer, use: ToolUse) -> list[int]:
    """The ids that an answer begins with: those of a call where one is required, and no further than the model may
    choose. The space behind a colon is part of the model's next id."""
    if use.choice != "required":
        return []
    begun = '\n{"name": "' if use.name is None else f'\n{{"name": "{use.name}", "arguments":'
    return [tokenizer.special(TOOL_CALL), *tokenizer.encode(begun)]
