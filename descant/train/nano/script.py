"""The whole script of the teacher voice: replies of the domain, sentences like them, plain English, lists of words."""

from __future__ import annotations

import random

import numpy as np

from descant.train.nano import domain, prose
from descant.train.nano.sentences import HELD_OUT_EVERY, SpeechLine, phrase_lines, word_lines
from descant.train.nano.wide import wide_replies


def wide_reply_lines() -> list[SpeechLine]:
    """All replies of the whole domain; those that only held-out questions ask for are held out."""
    train = wide_replies("train")
    unseen = sorted(set(wide_replies("test")) - set(train))
    return [SpeechLine(text, "reply", False) for text in train] + [SpeechLine(text, "reply", True) for text in unseen]


def sentence_lines(count: int, seed: int) -> list[SpeechLine]:
    """``count`` unique sentences of plain English."""
    lines: dict[str, SpeechLine] = {}
    number = 0
    while len(lines) < count:
        text = prose.draw_sentence(random.Random(f"script/{seed}/{number}"))
        held_out = domain.fraction("script", text) < 1 / HELD_OUT_EVERY
        lines.setdefault(text, SpeechLine(text, "sentence", held_out))
        number += 1
    return list(lines.values())


def wide_script(phrases: int, words: int, sentences: int, seed: int, longest: int = 8) -> list[SpeechLine]:
    """The whole script, shuffled so that every stretch of it has all kinds."""
    own = wide_reply_lines()
    lines = own + phrase_lines(phrases, seed, [line.text for line in own]) + word_lines(words, seed, longest)
    lines += sentence_lines(sentences, seed)
    order = np.random.default_rng([seed, 4]).permutation(len(lines))
    return [lines[i] for i in order]
