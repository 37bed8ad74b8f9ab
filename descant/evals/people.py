"""Recordings of a person, where the machine has them: Debian's asterisk-core-sounds-en-g722 (CC BY-SA 3.0).

They are for measuring only. Nothing of them is shipped, and no training reads this module. The words are told by the
names of the files; the phrases are written out here, as they are spoken.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np

from descant.train.nano import domain, phrases

FOLDER = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
PEOPLE_RATE_HZ = 16000  # of G.722
GAP_S = 0.15  # between the words of a spliced sum
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SUNDAY_FIRST = (phrases.DAYS[-1], *phrases.DAYS[:-1])

WORDS: Mapping[str, str] = {  # file -> word
    **{f"digits/{n}": domain.number(n) for n in range(21)},
    **{f"digits/{10 * n}": word for n, word in enumerate(_TENS, 3)},
    **{f"digits/day-{n}": word for n, word in enumerate(_SUNDAY_FIRST)},
    **{f"digits/mon-{n}": word for n, word in enumerate(phrases.MONTHS)},
    "digits/today": "today", "digits/tomorrow": "tomorrow", "digits/yesterday": "yesterday", "hello": "hello",
    "goodbye": "goodbye", "sorry": "sorry",
}  # fmt: skip
PHRASES: Mapping[str, str] = {
    "auth-thankyou": "thank you", "all-circuits-busy-now": "all circuits are busy now",
    "cannot-complete-as-dialed": "your call cannot be completed as dialed",
    "check-number-dial-again": "please check the number and dial again",
    "conf-now-muted": "the conference is now muted", "conf-lockednow": "the conference is now locked",
    "conf-onlyperson": "you are currently the only person in this conference", "conf-muted": "you are now muted",
    "conf-kicked": "you have been kicked from this conference", "im-sorry": "i'm sorry",
    "conf-waitforleader": "the conference will begin when the leader arrives", "hello-world": "hello world",
    "please-try-again": "please try again", "vm-deleted": "message deleted", "vm-isonphone": "is on the phone",
    "vm-msgsaved": "your message has been saved",
    "vm-nobodyavail": "nobody is available to take your call at the moment",
    "vm-nomore": "no more messages", "vm-passchanged": "your passwords have been changed",
    "vm-tooshort": "your message is too short",
}  # fmt: skip


def is_installed() -> bool:
    """True where the recordings are on this machine."""
    return (FOLDER / "hello.g722").is_file()


def recording(name: str) -> np.ndarray:
    """One recording: float32 (W,) at 16 kHz."""
    with av.open(str(FOLDER / f"{name}.g722"), format="g722") as file:
        pieces = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
    return np.concatenate(pieces).astype(np.float32) / 32768


def spliced_sum(rng: random.Random) -> tuple[np.ndarray, str]:
    """(samples, reply): "seven plus five" from three recordings; a sum or difference that nano was taught."""
    task = rng.choice(("plus", "minus"))
    a, b = (int(x) for x in rng.choice(domain.cores(task)))
    sign = "letters/plus" if task == "plus" else "digits/minus"
    pause = np.zeros(round(GAP_S * PEOPLE_RATE_HZ), np.float32)
    said = [recording(f"digits/{a}"), pause, recording(sign), pause, recording(f"digits/{b}")]
    return np.concatenate(said), domain.reply(task, (a, b))
