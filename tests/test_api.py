"""The public names are what they say, sorted and complete; importing them costs no torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing

import pytest

import descant
from descant import errors, types


def test_all_is_sorted_and_complete() -> None:
    assert descant.__all__ == sorted(set(descant.__all__))
    for name in descant.__all__:
        assert getattr(descant, name) is not None
    assert dir(descant) == descant.__all__


def test_every_public_name_is_documented() -> None:
    for name in descant.__all__:
        value = getattr(descant, name)
        assert typing.get_origin(value) is typing.Literal or inspect.getdoc(value), f"{name} has no docstring"
    for name, member in vars(descant.Omni).items():
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"Omni.{name} has no docstring"


def test_every_public_function_is_typed() -> None:
    for function in (descant.load, descant.user, descant.Omni.chat, descant.Omni.speak, descant.Omni.transcribe):
        parameters = inspect.signature(function).parameters.values()
        assert all(p.annotation is not p.empty for p in parameters if p.name != "self")
        assert inspect.signature(function).return_annotation is not inspect.Signature.empty
        typed = "Unpack[AnswerOptions]"
        assert all(p.kind is not p.VAR_KEYWORD or p.annotation == typed for p in parameters)


def test_an_unknown_name_is_an_attribute_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match=r"'lod'.*load"):
        descant.lod  # noqa: B018
    with pytest.raises(ImportError):
        exec("from descant import lod")


@pytest.mark.parametrize(
    "line", ["import descant", "import descant; descant.user('hi')", "from descant import Sampling"]
)
def test_importing_is_cheap(line: str) -> None:
    code = f"import sys; {line}; print([m for m in ('torch', 'numpy', 'tokenizers', 'av') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_first_answer_loads_no_compiler() -> None:
    """torch's compiler takes longer to import than nano to answer: nothing of an answer may bring it in."""
    code = (
        "import sys, descant; omni = descant.load('nano'); "
        "events = list(omni.chat('hello', max_tokens=2, seed=0)); assert events[-1].usage.samples; "
        "print([m for m in ('torch._dynamo', 'torch._inductor', 'sympy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_there_is_one_exception_tree() -> None:
    found = {value for value in vars(errors).values() if inspect.isclass(value)}
    assert all(issubclass(error, descant.DescantError) for error in found)
    drawn = {line.strip("├└─ ").split()[0] for line in _tree(errors.__doc__ or "")}
    assert drawn == {error.__name__ for error in found}


def _tree(doc: str) -> list[str]:
    return [line for line in doc.splitlines() if line.lstrip().startswith(("DescantError", "├", "└"))]


def test_messages_are_built_from_words_and_media() -> None:
    message = descant.user("What is this?", descant.Image("cat.png"))
    assert message == descant.Message("user", (descant.Text("What is this?"), descant.Image("cat.png")))
    assert descant.system("a").role == "system" and descant.assistant("b").role == "assistant"


def test_every_event_is_public() -> None:
    assert set(typing.get_args(types.Event)) == {
        descant.TextDelta, descant.AudioChunk, descant.Called, descant.Progress, descant.Finished,
    }  # fmt: skip
