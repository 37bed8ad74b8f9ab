"""The domain in many words, talks, and what is not known: right by construction, in disjoint splits."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from descant.errors import OptionError
from descant.train.nano import domain, phrases, pictures, prose, refusals, sayings, scenes, talks, videos, wide, wording
from descant.train.nano.domain import Split
from descant.train.nano.wording import Asked
from descant.types import Image, Part, Text

PLAIN = re.compile(r"[a-z']+( [a-z']+)*")
ALL = (*wording.ASKING, *wording.FOLLOWING, *wording.ABOUT, "outside", "sentence", "word")
VALUES = {domain.number(n): n for n in range(101)}


def numbers_in(text: str) -> list[int]:
    """The numbers that a text names, in words or digits, read without the generators' help."""
    found, words = [], re.findall(r"[a-z]+|\d+", text.lower())
    i = 0
    while i < len(words):
        pair = " ".join(words[i : i + 2])
        if pair in VALUES and len(pair.split()) == 2:
            found.append(VALUES[pair])
            i += 1
        elif words[i] in VALUES or words[i].isdigit():
            found.append(VALUES.get(words[i], int(words[i]) if words[i].isdigit() else 0))
        i += 1
    return found


# ---------------------------------------------------------------- words


def test_there_are_ten_ways_to_ask_everything() -> None:
    for forms in (*wording.PHRASINGS.values(), *wording.ABOUT.values()):
        assert forms == ("{q}",) or len(set(forms)) == len(forms) >= 10
    for intent, (_, asks) in wording.SMALL_TALK.items():
        assert len(set(asks)) == len(asks) >= 10, intent
    everything = [ask for _, asks in wording.SMALL_TALK.values() for ask in asks]
    assert not [ask for ask, count in Counter(everything).items() if count > 1]  # one sentence, one meaning


@pytest.mark.parametrize("task", ALL)
def test_what_is_asked_can_be_spoken_and_depends_on_the_seed_alone(task: str) -> None:
    for seed in range(150):
        asked, again = (wording.draw_asked(task, random.Random(seed), "train") for _ in range(2))
        assert asked == again and PLAIN.fullmatch(asked.words), asked.words
        assert bool(asked.reply) == (task in (*wording.ASKING, "outside"))


def test_an_unknown_task_is_told() -> None:
    with pytest.raises(OptionError, match="unknown task 'poem'"):
        wording.draw_asked("poem", random.Random(0), "train")


@pytest.mark.parametrize("task", ["plus", "minus", "next", "before"])
def test_numbers_are_answered_rightly(task: str) -> None:
    """By arithmetic on the words themselves, spoken or typed, and not by the core that made them."""
    for split in ("train", "test"):
        for seed in range(250):
            rng = random.Random(seed)
            asked = wording.draw_asked(task, rng, split)
            for words in (asked.words, wording.typed_out(asked.words, rng)):
                named = numbers_in(words.replace("quick question", ""))
                said = numbers_in(asked.reply)
                if task == "plus":
                    assert said == [max(named), min(named), sum(named)], words
                elif task == "minus":
                    assert said == [max(named), min(named), max(named) - min(named)], words
                else:
                    assert said == [named[0], named[0] + (1 if task == "next" else -1)], words


@pytest.mark.parametrize("task", ["day", "month", "opposite", "chat"])
def test_words_are_answered_rightly(task: str) -> None:
    after = {a: b for row in (phrases.DAYS, phrases.MONTHS) for a, b in zip(row, row[1:] + row[:1], strict=True)}
    opposite = {a: b for pair in phrases.OPPOSITES for a, b in (pair, pair[::-1])}
    for seed in range(200):
        asked = wording.draw_asked(task, random.Random(seed), "train")
        if task == "chat":
            reply, asks = wording.SMALL_TALK[str(asked.core[0])]
            assert asked.reply == reply and any(ask in asked.words for ask in asks)
            continue
        known = opposite if task == "opposite" else after
        words = [w for w in asked.words.split() if w == asked.core[0]]
        assert words and asked.reply.lower().rstrip(".").endswith(f" {known[str(asked.core[0])]}")


@pytest.mark.parametrize("task", [*wording.ASKING, *wording.FOLLOWING, *wording.ABOUT, "outside", "sentence"])
def test_what_is_held_out_is_never_trained(task: str) -> None:
    drawn: dict[Split, set[str]] = {
        split: {wording.draw_asked(task, random.Random(f"{split}{n}"), split).words for n in range(1200)}
        for split in ("train", "test")
    }
    assert drawn["test"] and drawn["train"] and not drawn["train"] & drawn["test"]


# ---------------------------------------------------------------- typing


def typed(words: str, count: int = 400) -> list[str]:
    return [wording.typed_out(words, random.Random(n)) for n in range(count)]


def test_sums_are_typed_with_signs_and_digits() -> None:
    forms = {text.rstrip(" ?.!").lower() for text in typed("three plus four")}
    assert {"3 + 4", "3+4", "three plus four", "3 plus 4"} <= forms
    assert {"7 - 2", "7-2"} <= {text.rstrip(" ?.!") for text in typed("seven minus two")}
    assert any(text.lower().startswith("what's 3 plus 4") for text in typed("what is three plus four", 1500))


def test_typing_varies_capitals_and_punctuation() -> None:
    texts = typed("what is the opposite of hot")
    assert any(t.isupper() for t in texts) and any(t[0].islower() for t in texts) and any(t.istitle() for t in texts)
    assert {t[-1] for t in texts} >= {"?", ".", "!", "t"}


def test_a_slip_changes_one_plain_word_by_one_letter_and_nothing_that_counts() -> None:
    words = "please tell me what number comes after seventy four"
    seen = set()
    for seed in range(300):
        slipped = wording.with_slip(words, random.Random(seed)).split()
        changed = [(a, b) for a, b in zip(words.split(), slipped, strict=True) if a != b]
        assert len(changed) <= 1 and slipped[-2:] == ["seventy", "four"]
        for a, b in changed:
            seen.add(b)
            assert abs(len(a) - len(b)) <= 1 and len(b) > 1
    assert len(seen) > 20
    assert wording.with_slip("hot", random.Random(0)) == "hot"


# ---------------------------------------------------------------- what is not known


def test_refusals_are_varied_name_what_is_known_and_are_never_an_answer() -> None:
    asked = [refusals.draw_outside(random.Random(n), "train") for n in range(600)]
    replies = Counter(reply for _, reply in asked)
    assert len(replies) >= 9 and max(replies.values()) < 0.25 * len(asked)
    assert all(refusals.is_honest(reply) for reply in refusals.ALL_REPLIES)
    for task in wording.ASKING:
        for seed in range(60):
            assert not refusals.is_honest(wording.draw_asked(task, random.Random(seed), "train").reply)
    known = {*domain.replies("train"), *scenes.scene_replies()} - {refusals.FIRST_REFUSAL}
    assert not any(refusals.is_honest(reply) for reply in known)


def test_no_question_of_the_domain_is_refused_in_training() -> None:
    """What is asked outside is nowhere asked inside."""
    outside = {refusals.draw_outside(random.Random(n), "train")[0] for n in range(3000)}
    inside = {wording.draw_asked(t, random.Random(n), "train").words for t in wording.ASKING for n in range(400)}
    assert not outside & inside


def test_sentences_are_many_and_plain() -> None:
    drawn = [prose.draw_sentence(random.Random(n)) for n in range(2000)]
    assert len(set(drawn)) > 1700
    assert all(re.fullmatch(r"[A-Z][A-Za-z, ]+\.", text) for text in drawn)
    assert not any(re.search(r"\b[Aa] [aeiou]", text) for text in drawn)


# ---------------------------------------------------------------- scenes


def test_scenes_count_to_nine_on_backgrounds_that_are_not_plain() -> None:
    drawn = [scenes.draw_scene(random.Random(n), "train") for n in range(300)]
    assert {s.count for s in drawn} == set(range(1, 10))
    assert {s.pattern for s in drawn} == set(pictures.BACKDROPS)
    assert 0.2 < np.mean([s.quality > 0 for s in drawn]) < 0.6 and len({s.size for s in drawn}) > 40
    assert not any(domain.held_out_pair(s.colour, s.shape) for s in drawn)
    for scene in drawn[:40]:
        pixels = pictures.render_scene(scene)
        assert pixels.shape == (scene.size[1], scene.size[0], 3) and pixels.dtype == np.uint8
        assert np.array_equal(pixels, pictures.render_scene(scene))


def test_a_background_stays_a_background() -> None:
    """Far nearer to its plain self than the shape is, so that shapes stand out."""
    for seed in range(40):
        plain = replace(scenes.draw_scene(random.Random(seed), "train"), grain=0, quality=0, pattern="plain")
        plain = replace(plain, background=plain.background[:1] * 2)
        for pattern in pictures.BACKDROPS[1:]:
            difference = pictures.render_scene(replace(plain, pattern=pattern, boxes=())).astype(int)
            difference -= pictures.render_scene(replace(plain, boxes=()))
            assert 0 < np.abs(difference).max() <= 30


def test_a_place_is_where_the_shape_is() -> None:
    rows, columns = ("top", "", "bottom"), ("left", "", "right")
    seen = set()
    for seed in range(150):
        scene, where = scenes.draw_placed(random.Random(seed), "train")
        bare = replace(scene, grain=0, quality=0, size=(120, 120), pattern="plain")
        ink = np.abs(pictures.render_scene(bare).astype(int) - pictures.render_scene(replace(bare, boxes=()))).sum(2)
        y, x = (ink > 0).nonzero()
        row, column = rows[int(y.mean() // 40)], columns[int(x.mean() // 40)]
        words = set(where.split()) & {"top", "bottom", "left", "right", "middle"}
        assert words == ({w for w in (row, column) if w} or {"middle"})
        seen.add(where)
    assert len(seen) == 9


def test_pairs_are_compared_rightly() -> None:
    kinds = Counter()
    for seed in range(200):
        first, second = scenes.draw_pair(random.Random(seed), "train")
        same = scenes.pair_reply("same", first, second)
        assert same.startswith("Yes") == (first.colour == second.colour)
        assert first.colour in same and second.colour in same
        more = scenes.pair_reply("compare", first, second)
        assert ("Both" in more) == (first.count == second.count)
        assert ("first" in more) == (first.count > second.count)
        kinds[more] += 1
        kinds[same[:2]] += 1
    assert min(kinds.values()) > 20 and len(kinds) == 5


def test_a_change_happens_once_and_is_told_in_order() -> None:
    for seed in range(60):
        change = scenes.draw_change(random.Random(seed))
        frames = scenes.change_frames(change)
        middles = [tuple(frame[28, 28].tolist()) for frame in frames]
        assert len(set(middles)) == 2 and sum(a != b for a, b in itertools.pairwise(middles)) == 1
        assert change.film.colours[0] == change.before != change.after == change.film.colours[-1]
        assert scenes.change_reply(change) == f"It turned from {change.before} to {change.after}."
        assert len(frames) == scenes.CHANGE_SECONDS * videos.VIDEO_FPS


def test_a_blank_picture_has_nothing_on_it() -> None:
    for seed in range(30):
        scene = scenes.draw_blank(random.Random(seed), "train")
        shown = replace(scene, boxes=((0.5, 0.5, 0.3, 0.0),))
        assert scene.count == 0
        assert not np.array_equal(pictures.render_scene(scene), pictures.render_scene(shown))
        assert scene.pattern == "plain" or scene.background[0] == scene.background[1]


def test_every_reply_about_scenes_is_listed() -> None:
    listed = {*scenes.scene_replies(), *domain.replies("train"), *domain.replies("test")}
    for seed in range(150):
        rng = random.Random(seed)
        first, second = scenes.draw_pair(rng, "train")
        said = [scenes.pair_reply(task, first, second) for task in ("same", "compare")]
        said += [scenes.place_reply(scenes.draw_placed(rng, "train")[1])]
        said += [scenes.change_reply(scenes.draw_change(rng))]
        said += [domain.picture_reply(t, first.colour, first.shape, first.count) for t in domain.IMAGE_TASKS]
        assert set(said) <= listed


# ---------------------------------------------------------------- talks


def utter(split: Split) -> talks.Utter:
    def say(task: str, rng: random.Random) -> tuple[Asked, Part]:
        fixed, _, name = task.partition(":")
        asked = talks.draw_fix(name, rng, split) if fixed == "fix" else wording.draw_asked(task, rng, split)
        return asked, Text(wording.typed_out(asked.words, rng))

    return say


def drawn_talks(count: int, split: Split = "train") -> list[talks.Talk]:
    return [talks.draw_talk(utter(split), random.Random(n), split) for n in range(count)]


def test_every_answer_of_a_talk_follows_from_what_was_said_and_shown() -> None:
    """Read anew from the words of the talk alone: the last answer, the number in it, the picture shown last."""
    kinds: Counter[str] = Counter()
    for talk in drawn_talks(500):
        last, shown = "", ""
        for turn in talk.turns:
            kinds[turn.kind] += 1
            if turn.kind == "again":
                assert turn.reply == (last or refusals.NOT_SAID)
            if turn.kind == "follow":
                before, added = numbers_in(last)[-1], numbers_in(turn.words)[-1]
                total = before + added if turn.task == "more" else before - added
                assert numbers_in(turn.reply)[-1] == total and 0 <= total <= domain.MAX_NUMBER
                assert set(numbers_in(turn.reply)[:2]) == {before, added}
            if turn.kind == "resume":
                assert turn.reply.lower() in (whole := RESTS[last]), whole
            if turn.kind == "picture":
                assert isinstance(turn.parts[0], Image)
                shown = turn.reply
            if turn.kind in ("ask", "fix", "outside"):
                assert turn.reply in (
                    wording.right_reply(turn.task, core) for core in cores(turn.task, turn.words)
                ) or (turn.kind == "outside" and refusals.is_honest(turn.reply))
            if turn.kind == "shown":
                assert shown
            last = turn.said
    assert min(kinds[kind] for kind in talks.SHARES) > 40


RESTS: dict[str, list[str]] = {}
for _reply, _ in wording.SMALL_TALK.values():
    for _heard, _rest in talks.cut_places(_reply):
        RESTS.setdefault(_heard, []).append(_reply[len(_heard) + 1 :].lower())


def cores(task: str, words: str) -> list[tuple[str | int, ...]]:
    """What the words of a question can mean, by looking for its things in them."""
    if task in ("plus", "minus"):
        a, b = numbers_in(words)[-2:]
        return [(max(a, b), min(a, b))]
    if task in ("next", "before"):
        return [(numbers_in(words)[-1],)]
    if task == "chat":
        return [
            (intent, i) for intent, (_, asks) in wording.SMALL_TALK.items() for i, a in enumerate(asks) if a in words
        ]
    known = {"opposite": [w for pair in phrases.OPPOSITES for w in pair], "day": phrases.DAYS, "month": phrases.MONTHS}
    return [(word,) for word in known.get(task, ()) if word in words.split()]


def test_about_a_picture_shown_before_is_answered_from_that_picture() -> None:
    """The colour of the picture two turns ago is in its own description."""
    checked = 0
    for talk in drawn_talks(900):
        described = ""
        for turn in talk.turns:
            if turn.kind == "picture":
                described = turn.reply if turn.task == "describe" and turn.said == turn.reply else ""
            if turn.kind == "shown" and described and turn.task in ("colour", "count"):
                checked += 1
                assert turn.reply.rstrip(".").split()[-1 if turn.task == "colour" else 2] in described
    assert checked > 30


def test_talks_are_as_long_and_as_wrong_as_they_should_be() -> None:
    made = drawn_talks(800)
    assert {len(t.turns) for t in made} == set(range(2, talks.LONGEST_TALK + 1))
    assert np.mean([bool(t.system) for t in made]) == pytest.approx(talks.SYSTEM_TALKS, abs=0.06)
    wrong = [any(not t.reply.startswith(t.said) for t in talk.turns) for talk in made]
    assert 0.03 < np.mean(wrong) < 0.13
    cut = [any(t.said != t.reply and t.reply.startswith(t.said) for t in talk.turns) for talk in made]
    assert np.mean(cut) > 0.05
    assert all(talk.turns[-1].said == talk.turns[-1].reply for talk in made)
    assert talks.draw_talk(utter("train"), random.Random(3), "train").turns[0].words == made[3].turns[0].words
    assert all(t.said == t.reply or t.reply.startswith(t.said) for k in drawn_talks(200, "test") for t in k.turns)


def test_only_right_and_whole_answers_are_learnt() -> None:
    for talk in drawn_talks(200):
        example = talk.example()
        assert example.reply == talk.turns[-1].reply and example.system == talk.system
        for past, turn in zip(example.before, talk.turns[:-1], strict=True):
            assert past.reply == turn.said and past.learnt == (turn.said == turn.reply)


def test_rests_of_interrupted_answers_are_listed() -> None:
    listed = set(talks.resumed_replies())
    said = {t.reply for talk in drawn_talks(500) for t in talk.turns if t.kind == "resume"}
    assert said and said <= listed


def test_a_talk_of_text_shows_nothing() -> None:
    for seed in range(60):
        example = wide.make_wide(wide.WideSource("train"), "talk:text", random.Random(seed))
        messages = [*(turn.question for turn in example.before), example.question]
        assert all(isinstance(part, Text) for message in messages for part in message.content)
    with_pictures = [wide.make_wide(wide.WideSource("train"), "talk", random.Random(seed)) for seed in range(30)]
    assert any(isinstance(p, Image) for e in with_pictures for t in e.before for p in t.question.content)


def test_systems_are_short() -> None:
    assert len(set(sayings.SYSTEMS)) >= 10 and all(len(text) < 60 for text in sayings.SYSTEMS)
