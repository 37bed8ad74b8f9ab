"""DashScope's OmniRealtimeConversation: a spoken question about what the camera shows, and the end of the session."""

from __future__ import annotations

import queue
from base64 import b64decode, b64encode
from typing import Any

import common
from dashscope.audio.qwen_omni import MultiModality, OmniRealtimeCallback, OmniRealtimeConversation

RATE_HZ = 16_000  # of its microphone
WAIT_S = 60
FRAME_BLOCKS = 5  # blocks of sound between two frames: two frames a second


class Listener(OmniRealtimeCallback):
    """Keeps what comes, from the thread that the client reads on."""

    def __init__(self) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()

    def on_event(self, message: Any) -> None:
        self.events.put(message)

    def until(self, kind: str) -> list[dict[str, Any]]:
        """All events up to one of this type."""
        found: list[dict[str, Any]] = []
        while not found or found[-1]["type"] != kind:
            found.append(self.events.get(timeout=WAIT_S))
            assert found[-1]["type"] != "error", found[-1]
        return found


def joined(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [event["delta"] for event in events if event["type"] == kind]


def talk(sound: bytes, frame: bytes | None, frames: int) -> tuple[str, int]:
    """(answer, tokens of the prompt) of one session of one turn: sound, with frames of the camera, two a second."""
    listener = Listener()
    url = f"{common.SOCKET_URL}/api-ws/v1/realtime"
    talking = OmniRealtimeConversation("nano", listener, url=url, api_key=common.KEY)
    talking.connect()
    listener.until("session.created")
    talking.update_session([MultiModality.TEXT, MultiModality.AUDIO], voice="Cherry")
    listener.until("session.updated")
    for number, block in enumerate(common.blocks(sound, RATE_HZ)):
        talking.append_audio(b64encode(block).decode())
        if frame is not None and number % FRAME_BLOCKS == 0 and number // FRAME_BLOCKS < frames:
            talking.append_video(b64encode(frame).decode())
    events = listener.until("response.done")
    text = "".join(joined(events, "response.audio_transcript.delta"))
    common.check_sound(b"".join(map(b64decode, joined(events, "response.audio.delta"))))
    assert talking.get_last_first_audio_delay() is not None
    talking.end_session()
    talking.close()
    return text, events[-1]["response"]["usage"]["input_tokens"]


camera = (common.MEDIA / "stars.jpg").read_bytes()
common.check_text(talk(common.question_pcm(RATE_HZ), None, 0)[0])
colour = common.question_pcm(RATE_HZ, "colour")
answer, seen = talk(colour, camera, 1)
common.check_text(answer, common.COLOUR_ANSWER)
answer, filmed = talk(colour, camera, 3)
common.check_text(answer, common.COLOUR_ANSWER)
assert filmed > seen, f"{filmed} tokens with three frames, {seen} with one"
common.passed("dashscope", "OmniRealtimeConversation: a spoken question, one about a frame, one about video, the end")
