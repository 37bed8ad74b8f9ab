"""Beyond the domain: questions and remarks of outside its domain, and what it honestly says to each kind.

The reply belongs to the kind of question, so that it can be learnt and still varies from question to question; each one
names something that nano does know. Written with this project, free to use (CC0).
"""

from __future__ import annotations

import random

from descant.train.nano import domain, prose

NOTHING_HEARD = "I heard nothing. Please say it again."
NOISE_HEARD = "I heard only noise. Please say it again."
NOTHING_SEEN = "I see nothing in the picture."
FIRST_REFUSAL = "I do not know that yet."  # of the first wording (`phrases.CHAT`)
NOT_SAID = "I have not said anything yet."

# kind -> (reply, questions); {x}: a word of the kind's own list
_KINDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "who": (
        "I do not know people. Ask me about numbers, words, pictures or sounds.",
        ("who was {x}", "who is {x}", "do you know {x}", "tell me about {x}", "when was {x} born", "what did {x} do",
         "where does {x} live", "how old is {x}", "is {x} famous", "what is {x} known for", "have you met {x}"),
        ("napoleon", "shakespeare", "the president", "the queen", "mozart", "my teacher", "einstein", "cleopatra",
         "my mother",
         "the mayor", "leonardo", "columbus", "the pope", "robin hood", "the first man on the moon", "peter", "anna"),
    ),
    "where": (
        "I do not know the world outside. I know numbers, days and months.",
        ("where is {x}", "how far is {x}", "what is the capital of {x}", "how do i get to {x}",
         "how many people live in {x}",
         "is {x} a nice place", "which language do they speak in {x}", "what is the weather in {x}", "how big is {x}",
         "have you been to {x}"),
        ("france", "london", "japan", "the station", "africa", "new york", "the nearest bank", "italy", "the moon",
         "berlin", "brazil", "the airport", "spain", "china", "the hospital", "canada", "my hotel", "greece"),
    ),
    "how": (
        "I never learnt how to do that. I can add, count and look at pictures.",
        ("how do i {x}", "how can i {x}", "teach me to {x}", "what do i need to {x}", "is it hard to {x}",
         "help me to {x}",
         "explain how to {x}", "what is the best way to {x}", "show me how to {x}", "how long does it take to {x}"),
        ("bake bread", "cook rice", "boil an egg", "fix my car", "learn french", "play chess", "build a house",
         "lose weight",
         "paint a wall", "write a letter", "grow tomatoes", "tie a knot", "ride a horse", "clean the oven",
         "make coffee"),
    ),
    "what": (
        "I do not know that yet. I know opposites, sums, shapes and colours.",
        ("what is {x}", "why is there {x}", "explain {x}", "what is {x} made of", "how does {x} work",
         "what is {x} good for",
         "who invented {x}", "what do you think of {x}", "do you like {x}", "what does {x} mean", "define {x}"),
        ("gravity", "love", "the internet", "a volcano", "music", "democracy", "electricity", "the sun", "money",
         "history",
         "a dinosaur", "chocolate", "football", "the sea", "philosophy", "a black hole", "war", "glass",
         "the price of gold"),
    ),
    "now": (
        "I can not see the clock or the news. Ask me what comes after Monday.",
        ("what time is it", "what day is it today", "what is the date", "what is the news", "who won the game",
         "what is the weather", "is it raining", "will it rain tomorrow", "how cold is it", "what year is it",
         "when does the train leave", "is it late", "what happened today", "when does the shop open",
         "is it warm outside", "what is on television"),
        ("",),
    ),
    "hard": (
        "That sum is too hard for me. I add and subtract up to twenty.",
        ("what is {x}", "how much is {x}", "{x}", "calculate {x}", "can you work out {x}", "what does {x} make"),
        ("three times four", "six times seven", "ten divided by two", "nine times nine", "half of eight",
         "fifty plus seventy", "ninety plus eighty", "sixty minus five", "the square root of nine",
         "eight divided by four",
         "two times two", "twenty percent of fifty", "thirty plus forty", "seven hundred minus one", "five squared"),
    ),
    "make": (
        "I can not make that. I can answer small questions and say short sentences.",
        ("write {x}", "please write {x}", "make me {x}", "i need {x}", "create {x}", "can you write {x}", "give me {x}",
         "compose {x}", "prepare {x}"),
        ("a poem", "a story", "a letter to my boss", "a program", "an essay", "a shopping list", "a speech", "a recipe",
         "an email", "a plan for my holiday", "a song about rain", "a summary", "some code", "a test for my class"),
    ),
    "do": (
        "I can not do that. I only listen, look and answer.",
        ("{x}", "please {x}", "can you {x}", "i want you to {x}", "could you {x}", "nano {x}"),
        ("turn on the light", "call my mother", "set an alarm", "open the door", "play some music", "order a pizza",
         "book a flight", "send a message", "stop the timer", "switch off the television", "buy some milk",
         "start the car", "remind me tomorrow", "take a photo", "search the web", "translate this into german"),
    ),
}  # fmt: skip
REMARK = "I only know a small world. Ask me about numbers, words, pictures or sounds."
KINDS = (*_KINDS, "remark")
ALL_REPLIES = (REMARK, *(reply for reply, _, _ in _KINDS.values()), NOTHING_HEARD, NOISE_HEARD, NOTHING_SEEN, NOT_SAID)


def draw_outside(rng: random.Random, split: domain.Split, kind: str = "") -> tuple[str, str]:
    """(words, reply) of a question or remark from outside the domain; a seventh of the combinations are held out."""
    while True:
        chosen = kind or rng.choice(KINDS)
        if chosen == "remark":
            words = domain.normalise_words(prose.draw_sentence(rng))
            reply = REMARK
        else:
            reply, forms, things = _KINDS[chosen]
            words = rng.choice(forms).replace("{x}", rng.choice(things))
        if (domain.fraction("outside", words) < 1 / 7) == (split == "test"):
            return words, reply


def is_honest(answer: str) -> bool:
    """True if an answer says that nano does not know, heard nothing, or saw nothing."""
    return domain.normalise_words(answer) in {domain.normalise_words(reply) for reply in (*ALL_REPLIES, FIRST_REFUSAL)}
