"""Answers by a schema: whatever the weights say, what is written validates."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers

from descant.engine.engine import Engine
from descant.engine.grammar import Constraint, GrammarCompiler
from descant.engine.session import Request
from descant.errors import OptionError, SessionError
from descant.inputs.tokenizer import TOOL_CALL, TOOL_CALL_END, Tokenizer, bpe_backend
from descant.tools import Tool, ToolUse
from descant.types import Called, Finished, Sampling
from tests.engine import rig, talks
from tests.engine.alone import run, stages_for

STAGES = stages_for(rig.models())
VOCAB = rig.models().thinker.cfg.text.vocab_size
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        "kind": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@cache
def compiler() -> GrammarCompiler:
    return GrammarCompiler(rig.TOKENIZER, VOCAB, {rig.STOP})


def is_person(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"name", "age", "kind"} <= set(value) <= set(PERSON["properties"])  # type: ignore[call-overload]
        and isinstance(value["name"], str)
        and len(value["name"]) <= 6
        and type(value["age"]) is int
        and 0 <= value["age"] <= 120
        and set(value.get("tags", [])) <= {"a", "b"}
        and len(value.get("tags", [])) <= 2
        and (value["kind"] is None or isinstance(value["kind"], bool))
    )


SCHEMAS: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "person": (PERSON, is_person),
    "object": ({"type": "object"}, lambda value: isinstance(value, dict)),
    "enum": ({"enum": ["red", 5, None, {"a": [1]}]}, lambda value: value in ("red", 5, None, {"a": [1]})),
    "date": ({"type": "string", "format": "date"}, lambda value: len(value.split("-")) == 3),
    "pattern": ({"type": "string", "pattern": "^[ab]{2}$"}, lambda value: value in ("aa", "ab", "ba", "bb")),
    "tree": (
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 2}}},
        lambda value: isinstance(value, list) and len(value) <= 2,
    ),
}


def asked(schema: Mapping[str, Any], seed: int = 0, limit: int = 200, **changes: object) -> Request:
    """Drawn from a flat distribution, so that every way through the grammar is taken."""
    text = Sampling(temperature=20.0, max_tokens=limit)
    given: dict[str, object] = {"text": text, "seed": seed, "voice": None, "grammar": compiler().compile(schema)}
    return rig.request(**(given | changes))


def written(request: Request) -> Finished:
    *_, end = run(STAGES, STAGES.open(request))
    assert isinstance(end, Finished)
    return end


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_random_weights_write_validates(name: str) -> None:
    schema, valid = SCHEMAS[name]
    ended = 0
    for seed in range(8):
        end = written(asked(schema, seed))
        if end.reason == "stop":
            value = json.loads(end.text)
            assert valid(value), end.text
            assert json.dumps(value) == end.text or not end.text.isascii() or "\\" in end.text or "." in end.text
            ended += 1
    assert ended >= 2, "nearly all were cut: this proves too little"


def test_greedy_answers_validate_too() -> None:
    end = written(asked(PERSON, text=Sampling(max_tokens=400)))
    assert end.reason == "length" or is_person(json.loads(end.text))


def test_answers_beside_each_other_are_those_alone() -> None:
    """Grammar, penalties and the notes of chances are each session's own."""
    penalties = Sampling(temperature=5.0, max_tokens=60, presence_penalty=1.0, frequency_penalty=0.5)
    requests = [asked(schema, seed, 60) for seed, (schema, _) in enumerate(SCHEMAS.values())]
    requests += [rig.request(text=penalties, seed=3, voice=None), rig.request(text=penalties, seed=4)]
    engine = Engine(talks.MODELS)
    together = talks.served(engine, *(engine.submit(request) for request in requests))
    alone = [talks.alone(request) for request in requests]
    assert [said.text for said in together] == [said.text for said in alone]
    talks.empty(engine)


def test_a_constraint_is_of_one_answer() -> None:
    grammar = compiler().compile({"enum": ["ab", "cd"]})
    one, other = Constraint(grammar), Constraint(grammar)
    for index in rig.TOKENIZER.encode('"a'):
        one.accept(index)
    assert names(one) == {"b"} and names(other) == {'"'}


def names(constraint: Constraint) -> set[str]:
    allowed = constraint.allowed()
    assert allowed is not None and allowed.shape == (VOCAB,)
    return {rig.TOKENIZER.decode([i]) if i != rig.STOP else "STOP" for i in allowed.nonzero()[:, 0].tolist()}


def test_word_pieces_are_followed_too() -> None:
    """A byte-level BPE with merges across quotes and colons, as the official tokenizer has."""
    alphabet = {s: i for i, s in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [('"', ":"), ("Ġ", '"'), ("{", '"'), ('"', "}")]
    vocab = dict(alphabet)
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    backend = bpe_backend(vocab, merges, ignore_merges=False)
    backend.add_special_tokens(["<|im_end|>"])
    tokenizer = Tokenizer(backend)
    stop = tokenizer.special("<|im_end|>")
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "a"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    grammar = GrammarCompiler(tokenizer, tokenizer.vocab_size + 4, {stop}).compile(schema)
    generator = torch.Generator().manual_seed(0)
    pieces = set()
    for _ in range(30):
        constraint, ids = Constraint(grammar), [-1]
        while ids[-1] != stop:
            allowed = constraint.allowed()
            assert allowed is not None and not allowed[tokenizer.vocab_size :].any()
            ids.append(int(torch.multinomial(allowed.float(), 1, generator=generator)))
            constraint.accept(ids[-1])
        assert json.loads(tokenizer.decode(ids[1:])) in ({"a": "x"}, {"a": "a"})
        pieces |= set(ids)
    assert {vocab['{"'], vocab['":'], vocab['"}']} <= pieces


# ---------------------------------------------------------------- with tools


BEGIN, END = rig.TOKENIZER.special(TOOL_CALL), rig.TOKENIZER.special(TOOL_CALL_END)


def test_a_call_may_stand_in_place_of_the_json_and_is_free() -> None:
    constraint = Constraint(compiler().compile({"enum": ["ab"]}), calls=True)
    assert constraint.allowed()[BEGIN] and not constraint.allowed()[rig.STOP]  # type: ignore[index]
    for index in (BEGIN, *rig.TOKENIZER.encode("anything")):
        constraint.accept(index)
    assert constraint.allowed() is None
    constraint.accept(END)
    assert constraint.allowed()[[BEGIN, rig.STOP]].all()  # type: ignore[index]  # another call, the end, or the JSON
    for index in rig.TOKENIZER.encode('"a'):
        constraint.accept(index)
    assert names(constraint) == {"b"}


def test_without_tools_no_call_is_written() -> None:
    assert not Constraint(compiler().compile({"enum": ["ab"]}), calls=False).allowed()[BEGIN]  # type: ignore[index]


def test_a_required_call_comes_before_the_json(monkeypatch: pytest.MonkeyPatch) -> None:
    use = ToolUse((Tool("f"),), "required", "f")
    request = asked({"enum": ["ab"]}, tools=use)
    session = STAGES.open(request)
    script = [*rig.TOKENIZER.encode(' {"a": 1}}\n'), END]
    session.text.sampler.forced.extend(script)
    *events, end = run(STAGES, session)
    assert isinstance(end, Finished) and [c.arguments for c in end.calls] == ['{"a": 1}']
    assert any(isinstance(event, Called) for event in events) and end.text in ("", '"ab"')


STRICT = ToolUse(
    (
        Tool("note", "", PERSON, strict=True),
        Tool("grow", "", {**SCHEMAS["tree"][0], "type": "array"}, strict=True),
        Tool("wait", strict=True),
        Tool("free", "", {"type": "object", "properties": {"x": {"not": {}}}}),
    ),
    "required",
)


def test_whatever_random_weights_call_follows_the_tool() -> None:
    """Of strict tools the arguments, of all the name; a $ref leads into its own tool's parameters."""
    grammar = compiler().compile_calls(STRICT.tools)
    check = {
        "note": is_person,
        "grow": SCHEMAS["tree"][1],
        "wait": lambda a: a == {},
        "free": lambda a: isinstance(a, dict),
    }
    called = set()
    for seed in range(9):
        text = Sampling(temperature=20.0, max_tokens=160)
        *_, end = run(STAGES, STAGES.open(rig.request(text=text, seed=seed, tools=STRICT, call_grammar=grammar)))
        assert isinstance(end, Finished) and not end.usage.codes
        for call in end.calls:
            arguments = json.loads(call.arguments)
            assert check[call.name](arguments), call
            called.add(call.name)
        assert end.calls or end.reason == "length"
    assert len(called) >= 2


def test_words_are_free_where_only_calls_are_strict() -> None:
    grammar = compiler().compile_calls(STRICT.tools)
    constraint = Constraint(None, grammar, calls=True)
    assert constraint.allowed() is None
    constraint.accept(rig.TOKENIZER.encode("x")[0])
    for _ in range(2):  # one call after another begins anew
        constraint.accept(BEGIN)
        assert names(constraint) == {"\n"}
        for index in rig.TOKENIZER.encode('\n{"name": "wait", "arguments": {}}\n'):
            constraint.accept(index)
        found = constraint.allowed()
        assert found is not None and found[END] and not found[rig.STOP] and int(found.sum()) == 1
        constraint.accept(END)
        assert constraint.allowed() is None


def test_a_strict_tool_that_cannot_be_followed_is_named() -> None:
    with pytest.raises(OptionError, match="the tool odd is strict, and .* keywords"):
        compiler().compile_calls((Tool("odd", "", {"not": {}}, strict=True),))


# ---------------------------------------------------------------- refusals


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"anyOf": [schema]}
    return schema


@pytest.mark.parametrize(
    "schema, why",
    [
        ({"type": "zzzz"}, "no JSON Schema"),
        ({"properties": 5}, "no JSON Schema"),
        ({"not": {}}, "keywords"),
        ({"type": "array", "uniqueItems": True}, "keywords"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "keywords"),
        ({"enum": []}, "nothing satisfies it"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "nothing satisfies it"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "nothing satisfies it"),
        ({"$ref": "#/zzzz"}, "leads nowhere"),
        ({"$ref": "http://127.0.0.1:9/zzzz"}, "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"type": "string", "pattern": "(zzzz"}, "no regular expression"),
        ({"type": "string", "format": "zzzz"}, "unknown format"),
        ({"enum": ["zzzz" * 20_000]}, "more than"),
        (deep(100), "nested too deep"),
        (deep(100_000), "no JSON"),
        ({"const": float("inf")}, "no JSON"),
        ({"const": {1, 2}}, "no JSON"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_kind(schema: dict[str, Any], why: str) -> None:
    """Nothing of the schema, and nothing that the library says, is repeated."""
    with pytest.raises(OptionError, match=why) as refused:
        compiler().compile(schema)
    assert "zzzz" not in str(refused.value)
    while "anyOf" in schema:  # Python frees what is nested this deep only piece by piece
        (schema,) = schema["anyOf"]


def test_a_grammar_that_grows_too_large_ends_its_answer_alone() -> None:
    many = {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(1500)}}
    with pytest.raises(SessionError, match="give a simpler one"):
        written(asked(many))
    assert is_person(json.loads(written(asked(PERSON, 1)).text))


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(OptionError, match=r"pip install 'descant\[grammar\]'"):
        GrammarCompiler(rig.TOKENIZER, VOCAB, {rig.STOP})
