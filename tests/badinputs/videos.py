"""Sections F and G: videos, and addresses."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from tests.badinputs.case import Case, Http, fields, said
from tests.inputs import media

GREY = media.grey_frames([0, 60, 120, 180])
REFUSED = (400, 413, 415)


def shown(case: str, name: str, make: Callable[[], bytes], right: tuple[int, ...] = REFUSED, **more: Any) -> Case:
    """A case of one video, which is made when it is sent."""

    def body() -> bytes:
        address = "data:video/mp4;base64," + b64encode(make()).decode()
        content = [{"type": "video_url", "video_url": {"url": address}}]
        sent = Http({"messages": said(content), **more}).data("tiny")
        assert sent is not None
        return sent

    return Case(case, name, Http(body), right)


def video(form: str = "mp4", codec: str = "mpeg4", **options: Any) -> bytes:
    return media.video_file(GREY, 4, form=form, codec=codec, **options)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def patched(find: bytes, put: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """A video whose box ``find`` has another body, of the same length."""

    def make() -> bytes:
        data = bytearray(video())
        at = data.index(find)
        size = struct.unpack(">I", data[at - 4 : at])[0]
        body = bytes(data[at + 4 : at - 4 + size])
        data[at + 4 : at - 4 + size] = put(body)[: len(body)].ljust(len(body), b"\0")
        return bytes(data)

    return make


def with_sound(**options: Any) -> Callable[[], bytes]:
    return lambda: media.video_file(GREY, 4, codec="libx264", **options)


USE_SOUND = {"mm_processor_kwargs": {"use_audio_in_video": True}}
CASES = [
    shown("F1", "no bytes", lambda: b""),
    shown("F2", "a sound alone", lambda: media.sound_file("mp4", "aac", media.tone(0.5, 16000), 16000)),
    shown("F3", "no frames", lambda: box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov", box(b"mvhd", bytes(100)))),
    shown("F3", "half of the frames' data", lambda: video()[: len(video()) // 2]),
    *[shown("F4", f"{form} cut at {n}/8", lambda form=form, codec=codec, n=n: video(form, codec)[: len(video(form, codec)) * n // 8], (200, 400))  # type: ignore[misc]
      for form, codec in (("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx")) for n in (1, 4, 7)],
    shown("F5", "frames at uneven times", lambda: video("matroska", "libx264", times=[0.0, 0.01, 1.5, 3.0]), (200,)),
    shown("F5", "frames at the same time", lambda: video("matroska", "mpeg4", times=[0.0, 0.001, 0.002, 0.003]), (200, 400)),
    shown("F6", "sound longer than the pictures", with_sound(sound=media.tone(3.0, 48000)), (200,), **USE_SOUND),
    shown("F6", "sound shorter than the pictures", with_sound(sound=media.tone(0.2, 48000)), (200,), **USE_SOUND),
    shown("F6", "sound that begins later", with_sound(sound=media.tone(0.5, 48000), delay=2.0), (200,), **USE_SOUND),
    shown("F6", "no sound where it is asked for", video, (200,), **USE_SOUND),
    shown("F7", "no index", lambda: video().replace(b"moov", b"zzzz")),
    shown("F7", "no table of samples", lambda: video().replace(b"stbl", b"zzzz")),
    *[shown("F9", f"a frame every {units} units of time", patched(b"mdhd", lambda body, units=units: body[:12] + struct.pack(">I", units) + body[16:]), (200, 400))  # type: ignore[misc]
      for units in (0, 1, 2**31 - 1)],
    shown("F10", "frames of 5,000 x 3,000", lambda: media.video_file(media.grey_frames([0, 9], 3000, 5000), 2)),
    shown("F10", "frames of 4 x 4", lambda: media.video_file(media.grey_frames([0, 9], 4, 4), 2), (200, 400)),
    shown("F10", "frames of 2,000 x 4", lambda: media.video_file(media.grey_frames([0, 9], 4, 2000), 2)),
    shown("F12", "1,000 empty boxes", lambda: video() + box(b"free", b"") * 1000, (200, 400)),
    shown("F12", "boxes in boxes, 1,000 deep", lambda: _nested(1000)),
    shown("F13", "a size of 2^31 pixels", patched(b"tkhd", lambda body: body[:-8] + b"\x7f\xff\0\0\x7f\xff\0\0"), (200, 400)),
    shown("F13", "a codec that is none", lambda: video().replace(b"mp4v", b"zzzz"), (200, 400)),
    shown("F13", "raw frames", lambda: video("avi", "rawvideo")),
    shown("F14", "a table of 2^31 samples", patched(b"stsz", lambda body: body[:8] + b"\x7f\xff\xff\xff" + body[12:]), (200, 400)),
    shown("F14", "an edit list of 2^31", patched(b"mvhd", lambda body: body[:16] + b"\x7f\xff\xff\xff" + body[20:]), (200, 400)),
    shown("F15", "encrypted", lambda: video().replace(b"mp4v", b"encv"), (200, 400)),
    shown("F16", "AVI", lambda: video("avi")),
    shown("F16", "MPEG-TS", lambda: video("mpegts", "mpeg2video")),
    shown("F16", "FLV", lambda: b"FLV\1\5\0\0\0\x09" + bytes(300)),
    fields("F17", "a list of frames", {"messages": said([{"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + "/9j/,".join(["AAAA"] * 2000)}}])}),
    fields("F17", "three videos", {"messages": said([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}] * 3)}, 413),
    shown("F19", "a picture", lambda: media.image_file(media.picture(20, 20))),
    shown("F19", "text", lambda: b"hello" * 100),
]  # fmt: skip


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(b"moov", data)
    return box(b"ftyp", b"isom\0\0\2\0isom") + data


ADDRESSES = [
    ("G1", "file:///etc/passwd"), ("G1", "ftp://x/y"), ("G1", "gopher://x"), ("G1", "concat:a|b"), ("G1", "subfile:,,start,0,end,9:/etc/passwd"),
    ("G1", "crypto:x"), ("G1", "data:,x"), ("G1", "javascript:alert(1)"), ("G1", "/etc/passwd"), ("G1", "~/x.png"), ("G1", "../x.png"),
    ("G1", "\\\\host\\share"), ("G1", "fd:0"), ("G1", "pipe:0"), ("G1", "unix:///run/x.sock"), ("G2", "http://169.254.169.254/latest/meta-data"),
    ("G2", "http://[fd00:ec2::254]/"), ("G2", "http://metadata.google.internal/"), ("G3", "http://127.0.0.1/"), ("G3", "http://localhost/"),
    ("G3", "http://[::1]/"), ("G3", "http://0/"), ("G3", "http://127.1/"), ("G3", "http://2130706433/"), ("G3", "http://0x7f000001/"),
    ("G4", "http://[::ffff:127.0.0.1]/"), ("G4", "http://[::ffff:a9fe:a9fe]/"), ("G7", "http://localhost./"), ("G7", "HTTP://LOCALHOST/"),
    ("G7", "http://%6c%6f%63%61%6c%68%6f%73%74/"), ("G7", "http://localhost:0/"), ("G7", "http://localhost:65536/"), ("G7", "http://a@localhost/"),
    ("G15", "http://example.com.evil.example/"),
]  # fmt: skip
ADDRESS_CASES = [
    *[fields(case, f"a picture at {address}", {"messages": said([{"type": "image_url", "image_url": {"url": address}}])}, (400, 403))
      for case, address in ADDRESSES],
    *[fields("G18", f"{kind} at an address", {"messages": said([{"type": kind, kind: {"url": "http://127.0.0.1/"}}])}, (400, 403))
      for kind in ("audio_url", "video_url")],
    fields("G18", "a sound at an address", {"messages": said([{"type": "input_audio", "input_audio": {"data": "http://127.0.0.1/", "format": "wav"}}])}, (400, 403)),
    Case("G18", "an input picture at an address", Http({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/"}]}]}, "/v1/responses"), (400, 403)),
    Case("G18", "a voice at an address", Http({"input": "hi", "voice": "http://127.0.0.1/", "response_format": "pcm"}, "/v1/audio/speech"), (200, 400, 403)),
]  # fmt: skip
