"""Answers, and calls of tools, that are JSON of a given schema: which ids may come next, by llguidance (the extra
``grammar``).

    GrammarCompiler.compile(schema) -> Grammar        on the thread that asks; what cannot be followed is refused there
    Constraint(grammar of text, grammar of calls)     of one answer: allowed ids before a draw, the drawn one after it

JSON is written on one line, with one space behind a comma and a colon: white space that may go on for ever is where a
constrained model gets lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from descant.errors import OptionError, SessionError
from descant.inputs.tokenizer import TOOL_CALL, TOOL_CALL_END, Tokenizer
from descant.tools import Tool

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

SCHEMA_CHARACTERS = 1 << 16
COMPILING = {  # fixed here, so that a schema cannot change them
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
}
ANY_ARGUMENTS = {"type": "object"}
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
REASONS = (  # how llguidance's reasons begin -> what is told
    ("Unimplemented keys", "it has keywords that cannot be followed here"),
    ("Unsatisfiable", "nothing satisfies it"),
    ("recursion limit", "it is nested too deep"),
    ("Pointer", "a $ref leads nowhere"),
    ("Resource", "a $ref leads outside, and nothing is fetched"),
    ("regex", "a pattern is no regular expression that can be followed"),
    ("Unknown format", "it names an unknown format"),
    ("schema too large", "it is too large"),
    ("Parser Error", "it is too large"),
    ("NoExtension", "nothing satisfies it"),
)
NO_SCHEMA = "it is no JSON Schema"
WANTS_EXTRA = "answers by a schema need llguidance: pip install 'descant[grammar]'"


class GrammarCompiler:
    """Compiles schemas for one tokenizer. vocab_size: rows of the logits; stop_ids: that end an answer.

    Raises OptionError where llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Iterable[int]):
        try:
            import llguidance
        except ImportError:
            raise OptionError(WANTS_EXTRA) from None
        self._library = llguidance
        self._begin, self._end = (
            tokenizer.special(name) if tokenizer.has_special(name) else -1 for name in (TOOL_CALL, TOOL_CALL_END)
        )
        self._vocab = vocab_size
        self._stops = tuple(sorted(stop_ids))
        view = llguidance.TokenizerWrapper(TokenizerView(tokenizer, vocab_size, self._stops[0]))
        self._tokenizer: LLTokenizer = llguidance.LLTokenizer(view, n_vocab=vocab_size, eos_token=list(self._stops))

    def compile(self, schema: Mapping[str, Any]) -> Grammar:
        """The grammar of a JSON Schema. Raises OptionError with the kind of what is wrong, and nothing of its text."""
        return self._made(self._library.LLMatcher.grammar_from_json_schema(schema_text(schema)))

    def compile_calls(self, tools: Sequence[Tool]) -> Grammar:
        """The grammar of what stands between the ids around a call: one of the tools, by its name, and arguments that
        follow its schema if it is strict, any object else. Raises OptionError."""
        lines = ['start: "\\n" call "\\n"', "call: " + " | ".join(f"call{n}" for n in range(len(tools)))]
        for place, tool in enumerate(tools):
            schema = (tool.parameters or NO_ARGUMENTS) if tool.strict else ANY_ARGUMENTS
            try:
                self.compile(schema)
            except OptionError as error:
                raise OptionError(f"the tool {tool.name} is strict, and {error}; or leave strict out") from None
            head = f'"{{\\"name\\": \\"{tool.name}\\", \\"arguments\\": "'
            lines += [f'call{place}: {head} args{place} "}}"', f"args{place}: %json {schema_text(schema)}"]
        return self._made("\n".join(lines))

    def _made(self, grammar: str) -> Grammar:
        """A grammar in the library's own form, tried once."""
        matcher = self._library.LLMatcher
        failed, told = matcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        if failed:
            raise unfollowable(reason_of(told[0]))
        first = matcher(self._tokenizer, grammar, log_level=0)
        first.compute_bitmask()  # some faults are only found here
        if first.is_error():
            raise unfollowable(reason_of(first.get_error()))
        return Grammar(first, self._vocab, self._stops, self._begin, self._end)


class TokenizerView:
    """A tokenizer as llguidance looks at it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop: int):
        self._encode = tokenizer.encode
        self.eos_token_id = stop
        self.bos_token_id = None
        self.tokens = [tokenizer.token_bytes(index) for index in range(vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids())

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


@dataclass(frozen=True)
class Grammar:
    """A compiled grammar; any number of answers may begin with it. begin_call, end_call: ids around a tool's call."""

    first: LLMatcher
    vocab_size: int
    stop_ids: tuple[int, ...]
    begin_call: int
    end_call: int


class Constraint:
    """The ids that one answer may go on with. Calls of tools come before its text, or in place of it.

    text: the grammar of the text, body: that of a call (None: it is free); calls: tools may be called.
    """

    def __init__(self, text: Grammar | None, body: Grammar | None = None, *, calls: bool = False):
        ids = text or body
        assert ids is not None
        self._ids = ids
        self._text = None if text is None else text.first.deep_copy()
        self._body = body
        self._call: LLMatcher | None = None  # of the call that is being written
        self._calls = calls and ids.begin_call >= 0
        self._calling = False
        self._called = False

    def allowed(self) -> Tensor | None:
        """The ids that may come next, (V,) bool on the CPU; None: all. Raises SessionError."""
        stops = list(self._ids.stop_ids)
        if self._calling:
            if self._call is None:
                return None
            found = self._read(self._call)
            found[self._ids.end_call] = found[stops].any()  # the call is complete
            found[stops] = False
        elif self._text is None:
            return None
        else:
            found = self._read(self._text)
            if self._calls:
                found[self._ids.begin_call] = True
                found[stops] |= self._called
        return torch.from_numpy(found)

    def accept(self, index: int) -> None:
        """This id came. Raises SessionError."""
        if self._calling:
            self._calling = index != self._ids.end_call
            if self._calling and self._call is not None:
                self._consume(self._call, index)
        elif self._calls and index == self._ids.begin_call:
            self._calling = self._called = True
            self._call = None if self._body is None else self._body.first.deep_copy()
        elif self._text is not None and not (self._called and index in self._ids.stop_ids):
            self._calls = False
            self._consume(self._text, index)

    def _read(self, matcher: LLMatcher) -> npt.NDArray[np.bool_]:
        """The ids that a grammar allows."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        check_matcher(matcher)
        return np.unpackbits(bits, count=self._ids.vocab_size, bitorder="little").astype(bool)

    def _consume(self, matcher: LLMatcher, index: int) -> None:
        matcher.consume_token(index)
        check_matcher(matcher)


def check_matcher(matcher: LLMatcher) -> None:
    """Refuse to go on with a grammar that failed; one that is complete may say so by an error."""
    if matcher.is_error() and not matcher.is_accepting():
        raise SessionError("the schema cannot be followed further: it is too large; give a simpler one")


def schema_text(schema: Mapping[str, Any]) -> str:
    """A schema as JSON, with our settings of the library in place of its own. Raises OptionError."""
    try:
        text = json.dumps({**schema, "x-guidance": COMPILING}, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise unfollowable("it is no JSON") from None
    if len(text) > SCHEMA_CHARACTERS:
        raise unfollowable(f"it has more than {SCHEMA_CHARACTERS:,} characters")
    return text


def reason_of(told: str) -> str:
    """The kind of what llguidance says of a schema."""
    for place in ("failed to compile JSON schema: ", 'failed to parse "%json": '):  # of a grammar with schemas in it
        told = told.partition(place)[2] or told
    return next((reason for begin, reason in REASONS if told.startswith(begin)), NO_SCHEMA)


def unfollowable(why: str) -> OptionError:
    """The refusal of a schema."""
    return OptionError(f"the schema cannot be followed: {why}; give a JSON Schema of types and enums")
