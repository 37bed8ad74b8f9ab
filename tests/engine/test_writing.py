"""Calls of tools among the words that a model writes: found, never spoken, and not lost where they are wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.engine.conversation import ids_within
from descant.engine.engine import Engine
from descant.engine.sampling import reciting
from descant.engine.session import Session
from descant.engine.stages import Stages
from descant.engine.writing import Writing, Written, begun_call
from descant.errors import OptionError
from descant.inputs.tokenizer import IM_START, TOOL_CALL, TOOL_CALL_END
from descant.tools import Tool, ToolCall, ToolResult, ToolUse
from descant.types import AudioChunk, Called, Event, Finished, Sampling, TextDelta, assistant, system, user
from tests.engine import rig, talks
from tests.engine.alone import run, stages_for

ENCODE = rig.TOKENIZER.encode
BEGIN, END = rig.TOKENIZER.special(TOOL_CALL), rig.TOKENIZER.special(TOOL_CALL_END)
FIND = Tool("find", "Finds.", {"type": "object", "properties": {"what": {"type": "string"}}})
USE = ToolUse((FIND, Tool("wait")))
STAGES = stages_for(rig.models())
CALL = '\n{"name": "find", "arguments": {"what": "the ünïcode 🙂"}}\n'
ARGUMENTS = '{"what": "the ünïcode 🙂"}'


def ids_of(*pieces: str | int) -> list[int]:
    """Text, and special ids as they are."""
    return [index for piece in pieces for index in (ENCODE(piece) if isinstance(piece, str) else [piece])]


def written(ids: list[int], use: ToolUse | None = USE, cut: bool = False) -> list[Written]:
    writing = Writing(rig.TOKENIZER, use)
    told = [piece for index in ids for piece in writing.push(index)]
    return told + writing.finish("length" if cut else "stop")


def text_of(told: list[Written]) -> str:
    return "".join(piece for piece in told if isinstance(piece, str))


def calls_of(told: list[Written]) -> list[tuple[str, str]]:
    return [(piece.name, piece.arguments) for piece in told if isinstance(piece, ToolCall)]


LAW = settings(deadline=None, derandomize=True, database=None)


# ---------------------------------------------------------------- what is found


def test_text_then_calls_then_text() -> None:
    told = written(ids_of("Let me look.\n", BEGIN, CALL, END, "\n", BEGIN, CALL, END, "\n", "So."))
    assert calls_of(told) == [("find", ARGUMENTS)] * 2
    assert text_of(told) == "Let me look.\nSo."
    ids = [piece.id for piece in told if isinstance(piece, ToolCall)]
    assert len(set(ids)) == 2 and all(ids)


@LAW
@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_text_is_what_it_is_without_tools(text: str) -> None:
    """White space waits for what follows, and nothing of it is lost or told twice."""
    assert text_of(written(ENCODE(text))) == text_of(written(ENCODE(text), None)) == rig.TOKENIZER.decode(ENCODE(text))


@LAW
@given(st.lists(st.sampled_from([BEGIN, END, *ENCODE('{"name": "f"}\n ,x\xff'[:-1]), 999]), max_size=30), st.booleans())
def test_whatever_ids_come_nothing_breaks(ids: list[int], cut: bool) -> None:
    told = written(ids, cut=cut)
    assert all(piece for piece in told) and BEGIN not in ENCODE(text_of(told))
    if BEGIN not in ids:
        assert text_of(told) == rig.TOKENIZER.decode(ids) and not calls_of(told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@LAW
@given(st.dictionaries(st.text(), JSON, max_size=3), st.booleans())
def test_arguments_come_out_as_they_went_in(arguments: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=ascii_only)
    try:
        ids = ENCODE(body)
    except OptionError:  # a lone surrogate: as text there is no such thing; escaped there is
        ids = ENCODE(json.dumps({"name": "f", "arguments": arguments}))
    ((name, given_back),) = calls_of(written([BEGIN, *ids, END]))
    assert name == "f" and json.loads(given_back) == json.loads(rig.TOKENIZER.decode(ids))["arguments"]
    given_back.encode()


@pytest.mark.parametrize(
    "body, arguments",
    [
        ('{"name": "f", "arguments": {"a": 1, }}', '{"a": 1, }'),  # no JSON: as it was written
        ('{"name": "f", "arguments": {"a": {"b": 1}}', '{"a": {"b": 1}}'),  # the last brace forgotten
        ('{"name": "f", "arguments": {"a": NaN}}', '{"a": NaN}'),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),  # JSON in a string
        ('{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": {"a": "line\nbreak"}}', '{"a": "line\\nbreak"}'),
        ('{"name": "f", "arguments": ' + "[" * 5000, "[" * 5000),
        ('{"name": "f", ', ""),
    ],
)
def test_what_is_wrong_with_a_call_is_left_to_who_acts_on_it(body: str, arguments: str) -> None:
    assert calls_of(written(ids_of(BEGIN, body, END))) == [("f", arguments)]


@pytest.mark.parametrize("body", ["find the cat", "[1]", '{"name": 5}', '{"name": ""}', "", "null"])
def test_a_call_without_a_name_is_text(body: str) -> None:
    told = written(ids_of("Hm. ", BEGIN, body, END))
    assert not calls_of(told) and text_of(told) == "Hm." + body


def test_a_call_that_is_cut_is_given_only_if_it_is_complete() -> None:
    assert calls_of(written(ids_of(BEGIN, CALL), cut=True)) == [("find", ARGUMENTS)]
    for end in range(1, len(CALL.strip()) + 1):
        told = written(ids_of("Hm.", BEGIN, CALL[:end]), cut=True)
        assert not calls_of(told) and text_of(told) == "Hm."
    assert calls_of(written(ids_of(BEGIN, CALL))) == [("find", ARGUMENTS)]  # it stopped by itself


def test_special_ids_without_tools_are_no_calls() -> None:
    for use in (None, ToolUse((FIND,), "none")):
        assert text_of(written(ids_of("a", BEGIN, "b", END, "c"), use)) == "abc"


# ---------------------------------------------------------------- what stops it


@LAW
@given(st.text("aab <>é", max_size=30), st.lists(st.text("aab <>é", min_size=1, max_size=4), max_size=4), st.booleans())
def test_an_answer_ends_where_a_stop_text_begins(text: str, stops: list[str], tools: bool) -> None:
    writing = Writing(rig.TOKENIZER, USE if tools else None, tuple(stops))
    told: list[Written] = []
    for index in ENCODE(text):
        told += writing.push(index)
        assert len(text_of(told)) <= writing.length
        if writing.complete:
            break
    told += writing.finish("stop")
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert writing.complete == bool(ends)
    if not ends:
        assert text_of(told) == text
    else:  # the stop text that is complete first is found; of those that end together, the one that begins first
        first = [text.find(stop) for stop in stops if stop in text and text.find(stop) + len(stop) == min(ends)]
        assert text_of(told) == text[: min(first)]


def test_a_stop_text_is_not_spoken() -> None:
    """The sound is that of the text before it; what only begins like it is spoken like any other."""
    alone = list(run(STAGES, session_of(ENCODE("Let me look"))))
    session = session_of(ENCODE("Let me look END now"), None, stops=(" END",))
    events = list(run(STAGES, session))
    np.testing.assert_array_equal(sound_of(events), sound_of(alone))
    end = events[-1]
    assert isinstance(end, Finished) and end.text == "Let me look" and not end.usage.text_cut
    begun, plain = (list(run(STAGES, session_of(ENCODE("an EN here"), None, stops=s))) for s in ((" END",), ()))
    np.testing.assert_array_equal(sound_of(begun), sound_of(plain))
    assert begun[-1].text == plain[-1].text == "an EN here"  # type: ignore[union-attr]


def test_tokens_are_told_with_the_text_that_they_begin() -> None:
    text = "so é <b> it is STOP not"
    for use, stops in ((None, ()), (None, ("STOP",)), (USE, ("STOP", "<br>"))):
        session = session_of(ENCODE(text), use, stops=stops, logprobs=2, voice=None)
        deltas = [event for event in run(STAGES, session) if isinstance(event, TextDelta)]
        told = b"".join(token.text for delta in deltas for token in delta.tokens)
        assert told.decode() == "".join(delta.text for delta in deltas) == text.partition("STOP" if stops else "?")[0]
        assert all(delta.tokens for delta in deltas)


# ---------------------------------------------------------------- what is spoken


def session_of(ids: list[int], use: ToolUse | None = USE, limit: int = 200, **changes: object) -> Session:
    how = {"text": Sampling(max_tokens=limit), "speech": Sampling(max_tokens=30)} | changes
    return STAGES.open(rig.request(forced=tuple(ids), tools=use, **how))


def sound_of(events: list[Event]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(e.samples for e in events if isinstance(e, AudioChunk))])


@pytest.mark.parametrize("space", [" \n", ""])
@pytest.mark.parametrize("before", ["Let me look.", "Hm", ""])
def test_a_call_is_never_spoken(before: str, space: str) -> None:
    """The sound and the text of an answer with calls are those of the answer without them."""
    alone = list(run(STAGES, session_of(ENCODE(before))))
    session = session_of(ids_of(before, space, BEGIN, CALL, END, "\n", BEGIN, CALL, END))
    events = list(run(STAGES, session))
    assert session.speech is not None and not session.speech.states
    np.testing.assert_array_equal(sound_of(events), sound_of(alone))
    assert [type(e) for e in events].count(Called) == 2
    end, end_alone = events[-1], alone[-1]
    assert isinstance(end, Finished) and isinstance(end_alone, Finished)
    assert end.text == end_alone.text == before and end.usage.codes == end_alone.usage.codes
    assert end.calls == tuple(e.call for e in events if isinstance(e, Called)) and end.reason == end_alone.reason


@pytest.mark.parametrize("text", ["Two  words", " led by space", "ended by it \n ", "\n"])
def test_offered_tools_change_no_sound_of_text(text: str) -> None:
    with_tools, without = (list(run(STAGES, session_of(ENCODE(text), use))) for use in (USE, None))
    np.testing.assert_array_equal(sound_of(with_tools), sound_of(without))
    assert with_tools[-1].text == without[-1].text == text  # type: ignore[union-attr]


def test_the_sound_of_what_stands_before_a_call_does_not_wait_for_its_end() -> None:
    session = session_of(ids_of("Hm", BEGIN, CALL * 20, END), limit=2000)
    events = [(type(e), session.phase.value) for e in run(STAGES, session) if not isinstance(e, TextDelta)]
    assert (AudioChunk, "thinking") in events and session.text.calls


# ---------------------------------------------------------------- what may be written


def test_a_required_call_is_begun_for_the_model() -> None:
    for use, begun in (
        (ToolUse((FIND,), "required"), '\n{"name": "'),
        (ToolUse((FIND,), "required", "find"), '\n{"name": "find", "arguments":'),
    ):
        assert begun_call(rig.TOKENIZER, use) == [BEGIN, *ENCODE(begun)]
        session = STAGES.open(rig.request(tools=use, text=Sampling(max_tokens=40)))
        list(run(STAGES, session))
        assert session.text.ids[: len(ENCODE(begun)) + 1] == [BEGIN, *ENCODE(begun)] and len(session.text.ids) > 35
        assert session.speech is not None and not session.speech.codes


def test_none_writes_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calling is the likeliest of all, with the choice "none" it is not drawn."""
    thinker = rig.models().thinker
    logits = type(thinker).logits

    def eager(self: object, hidden: object) -> object:
        scores = logits(self, hidden)  # type: ignore[arg-type]
        scores[..., BEGIN] = 1e4
        return scores

    monkeypatch.setattr(type(thinker), "logits", eager)
    drawn = {}
    for choice in ("auto", "none"):
        session = STAGES.open(rig.request(tools=ToolUse((FIND,), choice), text=Sampling(max_tokens=1)))
        list(run(STAGES, session))
        drawn[choice] = session.text.ids
    assert drawn["auto"] == [BEGIN] and BEGIN not in drawn["none"]


def test_one_call_only() -> None:
    use = ToolUse((FIND,), parallel=False)
    events = list(run(STAGES, session_of(ids_of("Hm.", BEGIN, CALL, END, BEGIN, CALL, END, "more"), use)))
    end = events[-1]
    assert isinstance(end, Finished) and len(end.calls) == 1 and end.text == "Hm." and not end.usage.text_cut


# ---------------------------------------------------------------- in a conversation


def test_tools_calls_and_results_are_written_as_the_model_was_taught() -> None:
    builder = talks.FORMATTER.builder
    parts = [
        system("Be kind."),
        user("Find it."),
        assistant("I look.", ToolCall("find", '{"what":"x"}'), ToolCall("wait", "{}")),
        user(ToolResult("found\n"), ToolResult("waited")),
    ]
    read = builder.build(parts, speech=True, tools=USE.tools)
    names = {rig.TOKENIZER.special(name): name for name in (IM_START, "<|im_end|>", TOOL_CALL, TOOL_CALL_END)}
    told = "".join(names.get(i) or rig.TOKENIZER.decode([i]) for i in read.ids.tolist())
    tools = "\n".join(tool.as_json() for tool in USE.tools)
    shape = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    assert told == (
        "<|im_start|>system\nBe kind.\n\n# Tools\n\nYou may call one or more functions to assist with the user query."
        "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        + tools
        + "\n</tools>"
        "\n\nFor each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n" + shape + "<|im_end|>\n<|im_start|>user\nFind it.<|im_end|>\n"
        '<|im_start|>assistant\nI look.\n<tool_call>\n{"name": "find", "arguments": {"what": "x"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "wait", "arguments": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n'
        "found\n\n</tool_response>\n<tool_response>\nwaited\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert FIND.as_json() == (
        '{"type": "function", "function": {"name": "find", "description": "Finds.", '
        '"parameters": {"type": "object", "properties": {"what": {"type": "string"}}}}}'
    )


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(talks.MODELS)
    yield engine
    talks.empty(engine)


def test_a_live_session_calls_and_reads_the_result(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law of live sessions holds with tools: both caches are as if the whole had been read at once."""
    terms = talks.terms()
    terms = type(terms)(rig.settings(speech=talks.SPEECH, tools=USE, text=Sampling(max_tokens=300)), "be kind")
    session = talks.opened(engine, terms)
    script = iter([ids_of("Hm.", BEGIN, CALL, END), ENCODE("Done.")])
    stop = rig.STOP
    monkeypatch.setattr(Stages, "text_sampler", lambda *_: reciting((*next(script), stop)))
    session.add("Find it.")
    answer = session.respond()
    (said,) = talks.served(engine, answer)
    assert said.text == "Hm." and len(said.sound)
    assert session.truncate(0.0) == ""  # nobody heard a word; the call was made all the same
    session.add(ToolResult("found"))
    (said,) = talks.served(engine, session.respond())
    assert said.text == "Done."
    context = engine.worker.slots[session._number].session.context
    call = ToolCall("find", ARGUMENTS)
    builder = talks.FORMATTER.builder
    parts = [system("be kind"), user("Find it."), assistant(call), user(ToolResult("found")), assistant("Done.")]
    whole = builder.build(parts, speech=True, generate=False, tools=USE.tools)
    assert context.tokens.ids.tolist() == whole.ids.tolist()
    with pytest.raises(OptionError, match="ToolResult"):
        session.add(call)
    session.close()


def test_what_was_heard_cuts_words_and_keeps_calls() -> None:
    ids = ids_of("Let me look.", BEGIN, CALL, END)
    assert ids_within(rig.TOKENIZER, ids, 6) == ids_of("Let me", BEGIN, CALL, END)
    assert ids_within(rig.TOKENIZER, ENCODE("Let me"), 3) == ENCODE("Let")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: Tool("a b"), "name"),
        (lambda: Tool("x" * 65), "name"),
        (lambda: Tool("f", 5), "no string"),  # type: ignore[arg-type]
        (lambda: Tool("f", "", [1]), "JSON Schema"),  # type: ignore[arg-type]
        (lambda: Tool("f", "", {"a": {1, 2}}), "no JSON"),
        (lambda: Tool("f", "", {"a": float("nan")}), "no JSON"),
        (lambda: ToolUse((FIND, FIND)), "a name of its own"),
        (lambda: ToolUse(tuple(Tool(f"t{n}") for n in range(129))), "at most 128"),
        (lambda: ToolUse([FIND]), "a list of Tool"),  # type: ignore[arg-type]
        (lambda: ToolUse((FIND,), "must"), "unknown"),  # type: ignore[arg-type]
        (lambda: ToolUse((FIND,), "required", "lose"), "no tool 'lose'"),
        (lambda: ToolUse((FIND,), "auto", "find"), "choice='required'"),
        (lambda: ToolUse((), "required"), "without a tool"),
        (lambda: ToolUse((FIND,), parallel=1), "True or False"),  # type: ignore[arg-type]
        (lambda: talks.FORMATTER.builder.build([user(ToolCall("f", "{}"))], speech=False), "turn of the assistant"),
        (lambda: talks.FORMATTER.builder.build([assistant(ToolResult(""))], speech=False), "turn of the user"),
        (lambda: talks.FORMATTER.builder.build([user(ToolResult(5))], speech=False), "content of a ToolResult"),  # type: ignore[arg-type]
    ],
)
def test_impossible_tools_are_refused(make: object, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        make()  # type: ignore[operator]
