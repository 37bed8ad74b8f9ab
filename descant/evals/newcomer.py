"""Forty things that a newcomer types first, in words of their own: (text, task, what is asked)."""

from __future__ import annotations

from descant.train.nano import wording

NEWCOMER: tuple[tuple[str, str, tuple[str | int, ...]], ...] = (
    ("hi", "chat", ("hello",)), ("Hi!", "chat", ("hello",)), ("hey", "chat", ("hello",)),
    ("Hello nano", "chat", ("hello",)), ("good morning!", "chat", ("morning",)), ("how are you?", "chat", ("how",)),
    ("How are you doing today?", "chat", ("how",)), ("what's your name?", "chat", ("name",)),
    ("who are u", "chat", ("name",)), ("What can you do?", "chat", ("help",)), ("help", "chat", ("help",)),
    ("thx", "chat", ("thanks",)), ("Thanks!", "chat", ("thanks",)), ("thank you very much", "chat", ("thanks",)),
    ("tell me a joke", "chat", ("joke",)), ("a joke pls", "chat", ("joke",)), ("bye", "chat", ("bye",)),
    ("are you a robot?", "chat", ("kind",)), ("who made you", "chat", ("maker",)),
    ("can you hear me", "chat", ("hear",)),
    ("2+2", "plus", (2, 2)), ("what's 2+2?", "plus", (2, 2)), ("2 + 2 = ?", "plus", (2, 2)),
    ("3 + 4", "plus", (3, 4)), ("WHAT IS SEVEN PLUS FIVE?", "plus", (7, 5)), ("what is 7 plus 5", "plus", (7, 5)),
    ("add 6 and 8", "plus", (6, 8)), ("Whats nine plus one", "plus", (9, 1)), ("10-3", "minus", (10, 3)),
    ("what is 9 minus 4?", "minus", (9, 4)), ("15 - 6 = ?", "minus", (15, 6)),
    ("opposite of hot", "opposite", ("hot",)),
    ("whats the opposite of big?", "opposite", ("big",)), ("The opposite of summer?", "opposite", ("summer",)),
    ("What's the opposite of early", "opposite", ("early",)), ("which number follows 20?", "next", (20,)),
    ("what comes after 41?", "next", (41,)), ("number before 10", "before", (10,)),
    ("what day comes after monday", "day", ("monday",)), ("Which month comes after May?", "month", ("may",)),
)  # fmt: skip


def newcomer_reply(number: int) -> str:
    """The right answer to the n-th of them."""
    _, task, core = NEWCOMER[number]
    return wording.right_reply(task, core)
