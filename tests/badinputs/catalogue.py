"""The catalogue: all cases by section."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter

from tests.badinputs import doors, framing, parameters, pictures, sounds, videos
from tests.badinputs.case import ASK, CHAT, Case
from tests.inputs import media

__all__ = ["ASK", "CASES", "CHAT", "PICTURE", "SOUND", "by_section"]
SOUND = b64encode(media.wav(media.tone(0.5, 16000), 16000)).decode()
PICTURE = "data:image/png;base64," + b64encode(media.image_file(media.picture(56, 56))).decode()

CASES: list[Case] = [
    *framing.CASES, *parameters.CASES, *pictures.CASES, *sounds.CASES, *videos.CASES, *videos.ADDRESS_CASES, *doors.CASES,
    *doors.TALKS, *doors.LOAD,
]  # fmt: skip


def by_section() -> dict[str, int]:
    """How many cases each section has."""
    return dict(Counter(case.id[0] for case in CASES))
