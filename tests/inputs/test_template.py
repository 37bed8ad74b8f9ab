"""The pieces of the chat format: text between two special tokens is one run, so that the tokenizer sees it whole."""

from __future__ import annotations

from descant.config import InputsConfig
from descant.inputs.template import Special, render
from descant.inputs.tokenizer import IM_END, IM_START
from descant.types import Image, assistant, user

BARE = InputsConfig(default_system=None, speech_system=None)
START, END = Special(IM_START), Special(IM_END)


def test_neighbouring_texts_are_one_run() -> None:
    """A BPE joins a newline of the template with those of the user: encoded apart they would be other ids."""
    pieces = render([user("\n", "hi", "", " there")], BARE, speech=False, generate=False)
    assert pieces == [START, "user\n\nhi there", END, "\n"]


def test_media_cut_the_runs_and_the_assistant_is_opened() -> None:
    picture = Image("a.png")
    pieces = render([user("a", picture, picture, "b"), assistant("c")], BARE, speech=True, generate=True)
    opened = [END, "\n", START]
    assert pieces == [START, "user\na", picture, picture, "b", *opened, "assistant\nc", *opened, "assistant\n"]
