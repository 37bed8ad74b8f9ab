"""A turn that is made bit by bit has the tokens of the finished message; spans know what fills them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from descant.config import InputsConfig
from descant.errors import DescantError, MediaError, SessionError
from descant.inputs.prompt import PromptBuilder
from descant.inputs.turn import LiveTurn, TurnFormatter
from descant.tokens import NO_TOKENS, PromptTokens, concatenate, page_keys, text_tokens, unchanged
from descant.types import Audio, Clip, Image, Message, Part, Text, Video, assistant, system, user
from tests.engine import rig
from tests.inputs import media

INPUTS = InputsConfig(feature_size=8, video_min_pixels=3136, video_max_pixels=3136)
BUILDER = PromptBuilder(rig.TOKENIZER, INPUTS, rig.thinker_config())
FORMATTER = TurnFormatter(BUILDER)
PICTURE, SOUND = media.picture(56, 84), media.noise(16000)
CLIP = Clip(media.grey_frames([1, 2, 3, 4, 5], 56, 56), 2.0, media.noise(48000))
PARTS: dict[str, list[Part]] = {
    "text": [Text("hello"), Text(" there")],
    "picture": [Text("look"), Image(PICTURE)],
    "sound and text": [Audio(SOUND, 16000), Text("what is it?")],
    "video": [Video(CLIP, use_audio=True), Text("?")],
    "long sound": [Audio(media.noise(70000), 16000)],
}  # fmt: skip


def whole(messages: list[Message]) -> PromptTokens:
    return BUILDER.build(messages, speech=True)


def same(ours: PromptTokens, theirs: PromptTokens) -> None:
    assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.positions, theirs.positions)
    assert [s.source.digest for s in ours.spans] == [s.source.digest for s in theirs.spans]
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(ours.spans, theirs.spans, strict=True))
    assert ours.extent == theirs.extent


@pytest.mark.parametrize("case", PARTS)
def test_added_parts_are_the_message(case: str) -> None:
    turn = LiveTurn(BUILDER)
    for part in PARTS[case]:
        turn.add([part])
        turn.tokens()
    same(concatenate([FORMATTER.system(None, speech=True), turn.finish()]), whole([user(*PARTS[case])]))


def test_a_conversation_is_a_chain() -> None:
    first, second = LiveTurn(BUILDER), LiveTurn(BUILDER)
    first.add(PARTS["video"])
    second.add(PARTS["picture"])
    reply = text_tokens(rig.TOKENIZER.encode("a cat"))
    chain = [FORMATTER.system("be kind", speech=True), first.finish(), reply, FORMATTER.closing(), second.finish()]
    wanted = [system("be kind"), user(*PARTS["video"]), assistant("a cat"), user(*PARTS["picture"])]
    same(concatenate(chain), whole(wanted))


def test_what_is_said_and_shown_stands_between_what_was_added_before_and_since() -> None:
    turn, frames = LiveTurn(BUILDER), media.grey_frames([1, 2, 3, 4], 56, 56)
    turn.add([Text("see: ")])
    for start in range(0, 40000, 8000):
        turn.push_audio(SOUND[:8000] if start else SOUND[8000:], 16000)
        if start < 32000:
            turn.push_frame(frames[start // 8000], at=start / 16000)
        turn.add([Text(f"{start} ")])
        before, settled = turn.tokens(), turn.tokens(settled=True)
    made = turn.finish()
    assert unchanged(before, made) >= len(settled)
    sound = np.concatenate([SOUND[8000:], *[SOUND[:8000]] * 4])
    late = [Text(f"{start} ") for start in range(0, 40000, 8000)]
    message = user(Text("see: "), Video(Clip(frames, 2.0, sound), use_audio=True), *late)
    same(concatenate([FORMATTER.system("be kind", speech=True), made]), whole([system("be kind"), message]))


def test_what_is_refused_leaves_the_turn_as_it_was() -> None:
    turn = LiveTurn(BUILDER)
    with pytest.raises(SessionError, match="nothing to answer"):
        turn.finish()
    turn.add([Text("hello")])
    with pytest.raises(MediaError):
        turn.add([Image(PICTURE), Image(b"no picture at all")])
    with pytest.raises(DescantError):
        turn.push_audio(b"\0", 16000)
    with pytest.raises(DescantError, match="no part of a message"):
        turn.add([3])  # type: ignore[list-item]
    same(concatenate([FORMATTER.system(None, speech=True), turn.finish()]), whole([user("hello")]))


def test_unchanged_sees_ids_positions_and_what_fills_them() -> None:
    one, other = whole([user(Audio(SOUND, 16000), "a")]), whole([user(Audio(SOUND[::-1].copy(), 16000), "a")])
    assert unchanged(one, one) == len(one) and unchanged(NO_TOKENS, one) == 0
    assert unchanged(one, other) == one.spans[0].first
    longer = whole([user(Audio(SOUND, 16000), "and")])
    assert unchanged(one, longer) == one.spans[0].last + 3
    moved = replace(one, positions=one.positions + 1)
    assert unchanged(one, moved) == 0


def keys(tokens: PromptTokens, salt: bytes = b"") -> list[bytes]:
    return list(page_keys(tokens, 4, salt))


def test_a_page_s_key_tells_all_that_was_read_up_to_its_end() -> None:
    rows = whole([user(Audio(SOUND, 16000), "a question")])
    again = whole([user(Audio(SOUND.copy(), 16000), "a question")])
    assert keys(rows) == keys(again) and len(keys(rows)) == len(rows) // 4 == len(set(keys(rows)))
    assert not set(keys(rows)) & set(keys(rows, b"another tenant"))
    assert keys(rows)[3:] == list(page_keys(rows, 4, b"", keys(rows)[:3]))
    louder = whole([user(Audio(SOUND * np.float32(0.5), 16000), "a question")])
    first = rows.spans[0].first // 4
    assert keys(louder)[:first] == keys(rows)[:first]
    assert not set(keys(louder)[first:]) & set(keys(rows)[first:])


def test_pixels_count() -> None:
    dark = whole([user(Image(np.zeros_like(PICTURE)))])
    assert keys(dark) != keys(whole([user(Image(PICTURE))]))
