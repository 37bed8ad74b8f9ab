"""A turn that is made bit by bit has the rows of the finished message; rows know what fills them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from descant.config import InputsConfig
from descant.errors import DescantError, MediaError, SessionError
from descant.inputs.prompt import build_prompt
from descant.inputs.rows import NOTHING, Rows, joined, page_keys, rows_of, text_rows, unchanged
from descant.inputs.turn import LiveTurn, Scribe
from descant.types import Audio, Clip, Image, Message, Part, Text, Video, assistant, system, user
from tests.engine import rig
from tests.inputs import media

INPUTS = InputsConfig(feature_size=8, video_min_pixels=3136, video_max_pixels=3136)
SCRIBE = Scribe(rig.TOKENIZER, INPUTS, rig.thinker_config())
PICTURE, SOUND = media.picture(56, 84), media.noise(16000)
CLIP = Clip(media.grey_frames([1, 2, 3, 4, 5], 56, 56), 2.0, media.noise(48000))
PARTS: dict[str, list[Part]] = {
    "text": [Text("hello"), Text(" there")],
    "picture": [Text("look"), Image(PICTURE)],
    "sound and text": [Audio(SOUND, 16000), Text("what is it?")],
    "video": [Video(CLIP, use_audio=True), Text("?")],
    "long sound": [Audio(media.noise(70000), 16000)],
}  # fmt: skip


def whole(messages: list[Message]) -> Rows:
    return rows_of(build_prompt(messages, rig.TOKENIZER, INPUTS, SCRIBE.cfg.ids, speech=True), SCRIBE.cfg)


def same(ours: Rows, theirs: Rows) -> None:
    assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.positions, theirs.positions)
    assert [u.digest for u in ours.units] == [u.digest for u in theirs.units]
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(ours.units, theirs.units, strict=True))
    assert ours.span == theirs.span


@pytest.mark.parametrize("case", PARTS)
def test_added_parts_are_the_message(case: str) -> None:
    turn = LiveTurn(SCRIBE)
    for part in PARTS[case]:
        turn.add([part])
        turn.rows()
    same(joined([SCRIBE.system(None, speech=True), turn.finish()]), whole([user(*PARTS[case])]))


def test_a_conversation_is_a_chain() -> None:
    first, second = LiveTurn(SCRIBE), LiveTurn(SCRIBE)
    first.add(PARTS["video"])
    second.add(PARTS["picture"])
    reply = text_rows(rig.TOKENIZER.encode("a cat"))
    chain = [SCRIBE.system("be kind", speech=True), first.finish(), reply, SCRIBE.closing(), second.finish()]
    wanted = [system("be kind"), user(*PARTS["video"]), assistant("a cat"), user(*PARTS["picture"])]
    same(joined(chain), whole(wanted))


def test_what_is_said_and_shown_stands_between_what_was_added_before_and_since() -> None:
    turn, frames = LiveTurn(SCRIBE), media.grey_frames([1, 2, 3, 4], 56, 56)
    turn.add([Text("see: ")])
    for start in range(0, 40000, 8000):
        turn.push_audio(SOUND[:8000] if start else SOUND[8000:], 16000)
        if start < 32000:
            turn.push_frame(frames[start // 8000], at=start / 16000)
        turn.add([Text(f"{start} ")])
        before = turn.rows()
    made = turn.finish()
    assert unchanged(before, made) >= len(before) - turn.growing
    sound = np.concatenate([SOUND[8000:], *[SOUND[:8000]] * 4])
    late = [Text(f"{start} ") for start in range(0, 40000, 8000)]
    message = user(Text("see: "), Video(Clip(frames, 2.0, sound), use_audio=True), *late)
    same(joined([SCRIBE.system("be kind", speech=True), made]), whole([system("be kind"), message]))


def test_what_is_refused_leaves_the_turn_as_it_was() -> None:
    turn = LiveTurn(SCRIBE)
    with pytest.raises(SessionError, match="nothing to answer"):
        turn.finish()
    turn.add([Text("hello")])
    with pytest.raises(MediaError):
        turn.add([Image(PICTURE), Image(b"no picture at all")])
    with pytest.raises(DescantError):
        turn.push_audio(b"\0", 16000)
    with pytest.raises(DescantError, match="no part of a message"):
        turn.add([3])  # type: ignore[list-item]
    same(joined([SCRIBE.system(None, speech=True), turn.finish()]), whole([user("hello")]))


def test_unchanged_sees_ids_positions_and_what_fills_them() -> None:
    one, other = whole([user(Audio(SOUND, 16000), "a")]), whole([user(Audio(SOUND[::-1].copy(), 16000), "a")])
    assert unchanged(one, one) == len(one) and unchanged(NOTHING, one) == 0
    assert unchanged(one, other) == int(one.units[0].rows[0])
    longer = whole([user(Audio(SOUND, 16000), "and")])
    assert unchanged(one, longer) == int(one.units[0].rows[-1]) + 3
    moved = Rows(one.ids, one.positions + 1, one.span, one.units)
    assert unchanged(one, moved) == 0


def keys(rows: Rows, salt: bytes = b"") -> list[bytes]:
    return list(page_keys(rows, 4, salt))


def test_a_page_s_key_tells_all_that_was_read_up_to_its_end() -> None:
    rows = whole([user(Audio(SOUND, 16000), "a question")])
    again = whole([user(Audio(SOUND.copy(), 16000), "a question")])
    assert keys(rows) == keys(again) and len(keys(rows)) == len(rows) // 4 == len(set(keys(rows)))
    assert not set(keys(rows)) & set(keys(rows, b"another tenant"))
    assert keys(rows)[3:] == list(page_keys(rows, 4, b"", keys(rows)[:3]))
    louder = whole([user(Audio(SOUND * np.float32(0.5), 16000), "a question")])
    first = int(rows.units[0].rows[0]) // 4
    assert keys(louder)[:first] == keys(rows)[:first]
    assert not set(keys(louder)[first:]) & set(keys(rows)[first:])


def test_pixels_count() -> None:
    dark = whole([user(Image(np.zeros_like(PICTURE)))])
    assert keys(dark) != keys(whole([user(Image(PICTURE))]))
