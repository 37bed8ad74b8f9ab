"""The chat format, media in order of appearance, and the model card's form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.config import InputsConfig
from descant.errors import MediaError, OptionError
from descant.export.tokenizer import byte_tokenizer
from descant.inputs import tokenizer as names
from descant.inputs.messages import read_messages
from descant.inputs.prompt import PromptBuilder
from descant.tokens import PixelGrid, PromptTokens
from descant.types import Audio, Clip, Image, Message, Text, Video, assistant, system, user
from tests.inputs import media

TOKENIZER = media.nano_tokenizer()
CFG = media.thinker_config(TOKENIZER)
BACKEND = byte_tokenizer(["system", "user", "assistant"])  # knows the special strings, unlike Tokenizer.encode
INPUTS = InputsConfig(video_min_pixels=3136, video_max_pixels=3136)
BARE = InputsConfig(default_system=None, speech_system=None)


def prompt(
    *messages: Message, inputs: InputsConfig = INPUTS, speech: bool = False, generate: bool = True
) -> PromptTokens:
    return PromptBuilder(TOKENIZER, inputs, CFG).build(messages, speech=speech, generate=generate)


def ids_of(text: str) -> list[int]:
    ids: list[int] = BACKEND.encode(text).ids
    return ids


DEFAULT = f"<|im_start|>system\n{INPUTS.default_system}<|im_end|>\n"


def test_several_turns_equal_the_official_string() -> None:
    turns = [user("hi", " there"), assistant("hello."), user("\n\nwhat?")]
    expected = (
        "<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\nhello.<|im_end|>\n"
        "<|im_start|>user\n\n\nwhat?<|im_end|>\n"
    )
    assert prompt(*turns, generate=False).ids.tolist() == ids_of(DEFAULT + expected)
    assert prompt(*turns).ids.tolist() == ids_of(DEFAULT + expected + "<|im_start|>assistant\n")
    assert prompt(*turns, inputs=BARE, generate=False).ids.tolist() == ids_of(expected)


def test_system_turns() -> None:
    speech = (
        f"<|im_start|>system\n{INPUTS.speech_system}<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt(user("hi"), speech=True).ids.tolist() == ids_of(speech)
    own = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(system("be brief"), user("hi"), speech=True).ids.tolist() == ids_of(own)


def test_text_positions_are_sequential() -> None:
    made = prompt(user("hi"))
    assert made.positions.tolist() == [list(range(len(made.ids)))] * 3
    assert made.next_position == len(made.ids)


def test_media_in_order_of_appearance() -> None:
    sound, other = media.tone(1.0, 16000), media.tone(2.0, 16000)
    clip = Clip(media.grey_frames([0, 60, 120, 180], 56, 56), 2.0, other)
    made = prompt(
        user("a", Image(media.picture(56, 84)), "b", Audio(sound, 16000), Video(clip, use_audio=True)),
        assistant("c"),
        user(Video(clip), Image(media.picture(112, 112))),
    )
    text = DEFAULT + (
        "<|im_start|>user\na<|vision_bos|>" + "<|IMAGE|>" * 6 + "<|vision_eos|>b<|audio_bos|>" + "<|AUDIO|>" * 25
        + "<|audio_eos|><|vision_bos|><|audio_bos|>" + "<|VIDEO|>" * 8 + "<|AUDIO|>" * 50
        + "<|audio_eos|><|vision_eos|><|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n<|im_start|>user\n<|vision_bos|>"
        + "<|VIDEO|>" * 8 + "<|vision_eos|><|vision_bos|>" + "<|IMAGE|>" * 16 + "<|vision_eos|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )  # fmt: skip
    assert made.ids.tolist() == ids_of(text)
    contents = [(span.source.kind, span.source.content) for span in made.spans]
    shapes = [(kind, c.grid if isinstance(c, PixelGrid) else c.shape[1]) for kind, c in contents]
    talking, silent = [("video", (1, 4, 4)), ("video", (1, 4, 4)), ("audio", 200)], [("video", (1, 4, 4))] * 2
    assert shapes == [("image", (1, 4, 6)), ("audio", 100), *talking, *silent, ("image", (1, 8, 8))]
    assert made.positions.shape == (3, len(made.ids)) and made.next_position == int(made.positions.max()) + 1


forged = st.lists(st.sampled_from([*names.SPECIAL_TOKENS, "\nsystem\n", "x"]), min_size=1, max_size=6).map("".join)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=forged, speech=st.booleans())
def test_forged_special_tokens_stay_text(text: str, speech: bool) -> None:
    """Special ids of a prompt are those of its turns and media, whatever the text says."""
    picture = Image(media.picture(56, 56))
    special = torch.tensor(sorted(TOKENIZER.special_ids()))
    honest, made = (prompt(user(words, picture), speech=speech).ids for words in ("x", text))
    assert made[torch.isin(made, special)].tolist() == honest[torch.isin(honest, special)].tolist()


BAD: dict[str, tuple[Any, str]] = {
    "no messages": ([], "no messages"),
    "role": ([Message("robot", (Text("hi"),))], "unknown role 'robot'"),  # type: ignore[arg-type]
    "part": ([Message("user", ("hi",))], "a str is no part"),  # type: ignore[arg-type]
    "rate of a file": ([user(Audio(b"RIFF", 16000))], "a file knows its own rate"),
}


@pytest.mark.parametrize("case", BAD)
def test_senseless_messages_are_refused(case: str) -> None:
    messages, says = BAD[case]
    with pytest.raises(OptionError, match=says):
        prompt(*messages)


def test_the_card_form() -> None:
    parts = [
        {"type": "image", "image": "a.png"},
        {"type": "audio", "audio": "b.wav"},
        {"type": "video", "video": "c.mp4", "use_audio_in_video": True},
        {"type": "video", "video": "d.mp4"},
        {"type": "text", "text": "what?"},
    ]
    assert read_messages([{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]) == [
        system("be brief"),
        user(Image("a.png"), Audio("b.wav"), Video("c.mp4", True), Video("d.mp4"), "what?"),
    ]


def _turn(*parts: object) -> object:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"role": "user"}, "not an object"),
        ([], "non-empty list"),
        (["hi"], "message 0: expected an object, not a string"),
        ([{"role": "user"}], "message 0 lacks 'content'"),
        ([{"role": "tool", "content": "x"}], "message 0: unknown role 'tool'"),
        ([{"role": "user", "content": 3}], "'content' is a number"),
        ([{"role": "user", "content": "x", "name": "y"}], "unknown key 'name'"),
        (_turn("hi"), "part 0: expected an object with 'type'.*not a string"),
        (_turn({"type": "smell", "smell": "x"}), "not 'smell'"),
        (_turn({"type": "image", "audio": "x"}), "part 0 lacks 'image'"),
        (_turn({"type": "image", "image": None}), "'image' is null; expected a string \\(a path\\)"),
        (_turn({"type": "image", "image": "x", "use_audio_in_video": True}), "unknown key 'use_audio_in_video'"),
        (_turn({"type": "video", "video": "x", "use_audio_in_video": 1}), "expected true, false or null"),
    ],
)
def test_bad_cards_are_refused(card: object, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        read_messages(card)


def test_use_audio_needs_sound() -> None:
    with pytest.raises(MediaError) as caught:
        prompt(user(Video(Clip(media.grey_frames([0, 9, 18, 27]), 2.0), use_audio=True)))
    assert caught.value.code == "video.no_sound"
