"""litellm: a streamed completion with sound, a whole one with a picture, and speech."""

from __future__ import annotations

import logging
import os
from base64 import b64decode, b64encode
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for a price list

import common
import litellm

PICTURE = "data:image/png;base64," + b64encode((common.MEDIA / "stars.png").read_bytes()).decode()
WHERE: dict[str, Any] = {"api_base": f"{common.URL}/v1", "api_key": common.KEY}


def streamed() -> None:
    asked = [{"role": "user", "content": common.QUESTION}]
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    text, sound = "", b""
    for chunk in litellm.completion("openai/nano", asked, stream=True, seed=1, **spoken, **WHERE):
        audio = chunk.choices[0].delta.audio
        if audio is not None:
            given = dict(audio)  # an object in some chunks, a dict in others
            text += given.get("transcript") or ""
            sound += b64decode(given.get("data") or "")
    common.check_text(text)
    common.check_sound(sound)


def whole() -> None:
    content = [
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "text", "text": "How many shapes are there?"},
    ]
    answer = litellm.completion("openai/nano", [{"role": "user", "content": content}], temperature=0, **WHERE)
    common.check_text(answer.choices[0].message.content, common.PICTURE_ANSWER)
    assert answer.usage.completion_tokens > 3


def speech() -> None:
    said = litellm.speech(model="openai/nano", voice="alloy", input=common.QUESTION, response_format="pcm", **WHERE)
    common.check_sound(said.content)


# 1.110.2 logs an error of its own at the end of a streamed sound: it takes openai 3's typed audio for a dict
logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
streamed()
whole()
speech()
common.passed("litellm", "a streamed completion with sound, one about a picture, speech")
