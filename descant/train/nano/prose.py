"""Plain English sentences by a small grammar: to read aloud, to write down, and to be no question of the domain.

Pure functions of a random state. Written with this project, free to use (CC0).
"""

from __future__ import annotations

import random

_PEOPLE = ("farmer", "teacher", "doctor", "girl", "boy", "woman", "man", "child", "sailor", "baker", "driver",
           "painter",
           "nurse", "singer", "neighbour", "uncle", "sister", "brother", "grandmother", "father", "stranger", "captain",
           "student", "gardener", "judge", "cook", "soldier", "writer", "guest", "shepherd")  # fmt: skip
_THINGS = ("basket", "letter", "bottle", "garden", "window", "bridge", "ship", "chair", "blanket", "mirror", "candle",
           "ladder", "bicycle", "suitcase", "hammer", "piano", "newspaper", "umbrella", "kettle", "lantern", "carpet",
           "ticket", "wallet", "button", "fence", "rope", "barrel", "camera", "jacket", "pencil", "trumpet", "vase",
           "parcel", "shovel", "pillow", "saddle", "whistle", "engine", "clock", "feather")  # fmt: skip
_ANIMALS = ("dog", "cat", "horse", "sheep", "goat", "fox", "rabbit", "goose", "pigeon", "donkey", "mouse", "frog",
            "bear", "squirrel", "spider", "turtle")  # fmt: skip
_QUALITIES = ("old", "young", "quiet", "heavy", "bright", "broken", "gentle", "strange", "clever", "tired", "proud",
              "brave",
              "narrow", "wooden", "rusty", "lovely", "empty", "curious", "honest", "famous", "shy", "jolly", "polite",
              "thirsty", "golden", "frozen", "dusty", "round", "rough", "smooth")  # fmt: skip
_DID = ("carried", "found", "painted", "sold", "bought", "lost", "borrowed", "cleaned", "watched", "repaired", "hid",
        "brought", "forgot", "measured", "dropped", "opened", "washed", "lifted", "followed", "needed", "wrapped",
        "chose", "kept", "threw", "caught", "pushed", "noticed", "described", "collected", "burned")  # fmt: skip
_WENT = ("walked", "ran", "travelled", "hurried", "sailed", "drove", "climbed", "returned", "moved", "wandered")
_PLACES = ("market", "village", "harbour", "forest", "station", "kitchen", "church", "river", "mountain", "library",
           "castle", "valley", "beach", "factory", "school", "island", "theatre", "hospital", "cellar",
           "meadow")  # fmt: skip
_TIMES = ("yesterday", "last night", "this morning", "every winter", "after lunch", "before sunrise", "on Friday",
          "in June",
          "at midnight", "last week", "during the storm", "a year ago", "in the afternoon", "long ago")  # fmt: skip
_WEATHER = ("The wind blew from the {place} all day", "It rained over the {place} {time}",
            "The sun shone on the {thing}", "Snow covered the {place} {time}", "Fog hung over the {place}")  # fmt: skip
_SHAPES = (
    "The {quality} {person} {did} a {thing} {time}", "The {person} {went} to the {place} {time}",
    "My {person} {did} the {quality} {thing}", "A {quality} {animal} sat behind the {thing}",
    "The {animal} {went} across the {place}", "Nobody {did} the {thing} in the {place}",
    "The {person} gave the {thing} to a {quality} {person}", "There is a {thing} under the {quality} {thing}",
    "She {did} her {thing} and {went} to the {place}", "We {went} past the {place} {time}",
    "They {did} it because the {thing} was {quality}", "The {thing} in the {place} is {quality}",
    "He wanted a {quality} {thing}, but the {person} {did} it", "Please bring the {quality} {thing} to the {place}",
    "I once {did} a {thing} for my {person}", "When the {person} came home, the {animal} was {quality}", *_WEATHER,
)  # fmt: skip
_WORDS = {"person": _PEOPLE, "thing": _THINGS, "animal": _ANIMALS, "quality": _QUALITIES, "did": _DID, "went": _WENT,
          "place": _PLACES, "time": _TIMES}  # fmt: skip


def draw_sentence(rng: random.Random) -> str:
    """One sentence, with a capital and a full stop."""
    text = rng.choice(_SHAPES)
    for kind, words in _WORDS.items():
        while f"{{{kind}}}" in text:
            text = text.replace(f"{{{kind}}}", rng.choice(words), 1)
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text + "."
