"""Answers that are JSON of a given schema: which ids may come next, by llguidance (the extra ``grammar``).

    GrammarCompiler.compile(schema) -> Grammar        on the thread that asks; what cannot be followed is refused there
    Grammar.begin() -> Constraint                     of one answer: allowed ids before a draw, the drawn one after it

JSON is written on one line, with one space behind a comma and a colon: white space that may go on for ever is where a
constrained model gets lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from descant.errors import OptionError, SessionError
from descant.inputs.tokenizer import TOOL_CALL, TOOL_CALL_END, Tokenizer

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
REASONS = (  # how llguidance's reasons begin -> what is told
    ("Unimplemented keys", "it has keywords that cannot be followed here"),
    ("Unsatisfiable", "nothing satisfies it"),
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
        matcher = self._library.LLMatcher
        body = {key: value for key, value in schema.items() if key != "x-guidance"}  # settings of the library
        try:
            text = json.dumps(body, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise unfollowable("it is no JSON") from None
        if len(text) > SCHEMA_CHARACTERS:
            raise unfollowable(f"it has more than {SCHEMA_CHARACTERS:,} characters")
        try:
            grammar = matcher.grammar_from_json_schema(text, overrides=COMPILING)  # type: ignore[arg-type]
        except ValueError:  # nested too deep, as JSON was checked
            raise unfollowable("it is nested too deep") from None
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
    """A compiled schema; any number of answers may begin with it. begin_call, end_call: ids around a tool's call."""

    first: LLMatcher
    vocab_size: int
    stop_ids: tuple[int, ...]
    begin_call: int
    end_call: int

    def begin(self, *, calls: bool) -> Constraint:
        """The constraint of one answer. calls: it may call tools instead."""
        return Constraint(self, calls=calls)


class Constraint:
    """The ids that one answer may go on with. Calls of tools come before the JSON, or in place of it, and are free."""

    def __init__(self, grammar: Grammar, *, calls: bool):
        self._grammar = grammar
        self._matcher = grammar.first.deep_copy()
        self._calls = calls and grammar.begin_call >= 0
        self._calling = False
        self._called = False

    def allowed(self) -> Tensor | None:
        """The ids that may come next, (V,) bool on the CPU; None: all. Raises SessionError."""
        if self._calling:
            return None
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        found = np.unpackbits(bits, count=self._grammar.vocab_size, bitorder="little").astype(bool)
        if self._calls:
            found[self._grammar.begin_call] = True
            found[list(self._grammar.stop_ids)] |= self._called
        return torch.from_numpy(found)

    def accept(self, index: int) -> None:
        """This id came. Raises SessionError."""
        grammar = self._grammar
        if self._calling:
            self._calling = index != grammar.end_call
        elif self._calls and index == grammar.begin_call:
            self._calling = self._called = True
        elif not (self._called and index in grammar.stop_ids):
            self._calls = False
            self._matcher.consume_token(index)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error() and not self._matcher.is_accepting():
            raise SessionError("the schema cannot be followed further: it is too large; give a simpler one")


def reason_of(told: str) -> str:
    """The kind of what llguidance says of a schema."""
    return next((reason for begin, reason in REASONS if told.startswith(begin)), NO_SCHEMA)


def unfollowable(why: str) -> OptionError:
    """The refusal of a schema."""
    return OptionError(f"the schema cannot be followed: {why}; give a JSON Schema of types and enums")
