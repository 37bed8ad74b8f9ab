"""The session object of the realtime protocol: its defaults, its updates, and what of it can be had here."""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from typing import Any

import numpy as np

from descant.errors import RequestError
from descant.server.encode import whole
from descant.server.vad import VadSettings

RATE_HZ = 24_000  # of sound in both directions
MAX_AUDIO_BYTES = 15 << 20  # of one append
DEFAULTS: dict[str, Any] = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": None,
    "max_output_tokens": "inf",
    "tools": [],
    "tool_choice": "auto",
    "truncation": "auto",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": RATE_HZ},
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {"format": {"type": "audio/pcm", "rate": RATE_HZ}, "voice": "default", "speed": 1.0},
    },
}


def deep_merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A nested update: what is not named stays, null clears."""
    both = dict(old)
    for key, value in new.items():
        before = old.get(key)
        both[key] = deep_merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


def at(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a place of a nested object; None where there is none."""
    value: Any = config
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def check_session(config: dict[str, Any]) -> None:
    """Refuse a session that cannot be had. Raises RequestError."""
    audio = config["audio"]
    if not isinstance(audio, dict) or not all(isinstance(audio.get(side), dict) for side in ("input", "output")):
        raise RequestError(400, "invalid_value", "audio is {input: {...}, output: {...}}", param="session.audio")
    for side in ("input", "output"):
        form = audio[side].get("format") or {}
        if not isinstance(form, dict) or (form.get("type", "audio/pcm"), form.get("rate", RATE_HZ)) != (
            "audio/pcm",
            RATE_HZ,
        ):
            message = f"{side}: the format is audio/pcm of {RATE_HZ} Hz here"
            raise RequestError(400, "invalid_value", message, param=f"session.audio.{side}.format")
    instructions = config["instructions"]
    if instructions is not None and not isinstance(instructions, str):
        raise RequestError(400, "invalid_value", "instructions is a string", param="session.instructions")
    modalities = config["output_modalities"]
    if modalities not in (["audio"], ["text"]):
        raise RequestError(400, "invalid_value", 'output_modalities: ["audio"] or ["text"]', param="session")
    if config["tools"]:
        raise RequestError(400, "invalid_value", "tools are not supported here", param="session.tools")
    detection = audio["input"].get("turn_detection")
    if detection is not None:
        vad_settings(detection)


def vad_settings(detection: object) -> VadSettings:
    """Settings of the detector. semantic_vad is told by silence too, which may be longer. Raises RequestError."""
    if not isinstance(detection, dict) or detection.get("type", "server_vad") not in ("server_vad", "semantic_vad"):
        raise RequestError(400, "invalid_value", "turn_detection: server_vad, semantic_vad or null", param="session")
    patience = {"high": 300, "medium": 600, "auto": 600, "low": 1200}.get(str(detection.get("eagerness", "auto")), 600)
    silence_ms = detection.get("silence_duration_ms", patience if detection.get("type") == "semantic_vad" else 500)
    numbers = (detection.get("threshold", 0.5), silence_ms, detection.get("prefix_padding_ms", 300))
    bounds = ((0, 1), (20, 10_000), (0, 5_000))
    for value, (least, most) in zip(numbers, bounds, strict=True):
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise RequestError(400, "invalid_value", "turn_detection has a number beyond its bounds", param="session")
    return VadSettings(numbers[0], numbers[1] / 1000, numbers[2] / 1000)


def samples_of(given: object) -> np.ndarray:
    """Base64 of 16-bit PCM -> (W,) float32. Raises RequestError."""
    if not isinstance(given, str) or len(given) * 3 // 4 > MAX_AUDIO_BYTES:
        raise RequestError(400, "invalid_value", "audio is base64 of at most 15 MiB", param="audio")
    try:
        data = b64decode(given, validate=True)
    except ValueError:
        raise RequestError(400, "invalid_base64", "audio is no base64", param="audio") from None
    if len(data) % 2:
        raise RequestError(400, "invalid_value", "audio ends in half a sample; cut between samples", param="audio")
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def renamed(part: object) -> object:
    """A part of a realtime item in the words of chat completions."""
    if isinstance(part, dict) and part.get("type") == "input_image":
        return {"type": "image_url", "image_url": part.get("image_url")}
    if isinstance(part, dict) and part.get("type") == "input_audio":
        return {"type": "input_audio", "input_audio": {"data": wav_of(samples_of(part.get("audio")))}}
    return part


def wav_of(samples: np.ndarray) -> str:
    """Samples as base64 of a WAV file."""
    return b64encode(whole(samples, "wav")).decode()
