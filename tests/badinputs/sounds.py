"""Section E: sounds."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable

import numpy as np

from tests.badinputs.case import Case, Http, said
from tests.inputs import media

RATE = 16_000
TONE = media.tone(0.5, RATE)
REFUSED = (400, 413, 415)


def heard(case: str, name: str, make: Callable[[], bytes], right: tuple[int, ...] = REFUSED) -> Case:
    """A case of one sound, which is made when it is sent."""

    def body() -> bytes:
        data = b64encode(make()).decode()
        sent = Http({"messages": said([{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}])}).data(
            "tiny"
        )
        assert sent is not None
        return sent

    return Case(case, name, Http(body), right)


def header(
    channels: int = 1, rate: int = RATE, bits: int = 16, coding: int = 1, *, claim: int = 1000, body: int = 1000
) -> bytes:
    """A WAV by its header; claim: the bytes of sound that it says it has."""
    fmt = struct.pack("<HHIIHH", coding, channels % 65536, rate, 0, 2, bits)
    return (
        b"RIFF\xff\xff\xff\x7fWAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", claim) + bytes(body)
    )


def coded(form: str, codec: str, rate: int = RATE) -> Callable[[], bytes]:
    return lambda: media.sound_file(form, codec, media.tone(0.5, rate), rate)


def half(form: str, codec: str, rate: int = RATE) -> Callable[[], bytes]:
    return lambda: coded(form, codec, rate)()[: len(coded(form, codec, rate)()) // 2]


def tagged(size: int) -> bytes:
    size_bytes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size_bytes + bytes(size) + coded("mp3", "libmp3lame")()


def many_streams(count: int) -> bytes:
    page = coded("ogg", "libopus", 48000)()
    first = page[: page.index(b"OggS", 4)]
    return b"".join(first[:14] + struct.pack("<I", n) + first[18:] for n in range(count)) + page


SILENCE = np.zeros(RATE // 2, np.float32)
STEREO = np.stack([TONE, -TONE], 1)
OTHERS = {
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://169.254.169.254/\n", "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    "a list of files": b"ffconcat version 1.0\nfile '/etc/passwd'\n", "a tracker's module": b"Extended Module: " + bytes(300),
    "AMR": b"#!AMR\n" + bytes(300), "APE": b"MAC \x96\x0f" + bytes(300), "MIDI": b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + bytes(40),
    "IAMF": b"\xf8\6iamf\0\0" + bytes(300), "text": b"hello" * 50, "zeros": bytes(5000),
}  # fmt: skip
CASES = [
    heard("E1", "no bytes", lambda: b""),
    heard("E2", "a header and no sound", lambda: media.wav(TONE[:0], RATE)),
    heard("E2", "RIFF and nothing else", lambda: b"RIFF\4\0\0\0WAVE"),
    heard("E3", "one sample", lambda: media.wav(TONE[:1], RATE), (200, 400)),
    heard("E4", "10 ms", lambda: media.wav(TONE[:160], RATE), (200, 400)),
    heard("E6", "no format chunk", lambda: b"RIFF\x10\0\0\0WAVEdata\4\0\0\0\0\0\0\0"),
    *[heard("E6", f"a coding of number {coding}", lambda coding=coding: header(coding=coding, bits=8)) for coding in (0, 0x999, 0xFFFE)],  # type: ignore[misc]
    *[heard("E6", f"{bits} bits", lambda bits=bits: header(bits=bits), (200, 400)) for bits in (0, 1, 7, 65535)],  # type: ignore[misc]
    *[heard("E6", codec, coded("wav", codec), (200,)) for codec in ("pcm_s24le", "pcm_f64le", "pcm_mulaw", "adpcm_ms")],
    *[heard("E7", f"{rate:,} Hz", lambda rate=rate: header(rate=rate)) for rate in (0, 1, 7_999, 192_000, 2**32 - 1)],  # type: ignore[misc]
    *[heard("E10", f"{rate:,} Hz", lambda rate=rate: media.wav(media.tone(0.5, rate), rate), (200,))  # type: ignore[misc]
      for rate in (8_000, 11_025, 44_100, 48_000, 96_000)],
    *[heard("E11", f"{channels} channels", lambda channels=channels: header(channels)) for channels in (0, 3, 8, 255, 65535)],  # type: ignore[misc]
    heard("E12", "stereo", lambda: media.wav(np.stack([TONE, TONE], 1), RATE), (200,)),
    heard("E12", "stereo of opposite phase", lambda: media.wav(STEREO, RATE), (200,)),
    heard("E14", "full scale", lambda: media.wav(np.sign(TONE), RATE), (200,)),
    heard("E14", "denormals", lambda: media.wav(np.full(RATE // 2, 1e-40, np.float32), RATE), (200,)),
    heard("E14", "silence", lambda: media.wav(SILENCE, RATE), (200,)),
    heard("E14", "NaN", lambda: media.wav(np.full(RATE // 2, np.nan, np.float32), RATE)),
    heard("E14", "infinity", lambda: media.wav(np.full(RATE // 2, np.inf, np.float32), RATE)),
    heard("E14", "samples of 1e38", lambda: media.wav(np.full(RATE // 2, 1e38, np.float32), RATE), (200, 400)),
    heard("E15", "a length of 10 hours with 1,000 bytes", lambda: header(claim=2**31 - 1), (200, 400)),
    heard("E16", "a million empty chunks", lambda: b"RIFF\xff\xff\xff\x7fWAVE" + b"junk\0\0\0\0" * 10**6),
    heard("E17", "a tag of 2 MB", lambda: tagged(2 << 20), (200, 400)),
    heard("E17", "a tag longer than the file", lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + coded("mp3", "libmp3lame")()),
    heard("E18", "1,000 streams of Ogg", lambda: many_streams(1000), (200, 400)),
    heard("E18", "WebM of opus", coded("webm", "libopus", 48000), (200,)),
    heard("E19", "MP4 of sound alone", coded("mp4", "aac"), (200,)),
    heard("E19", "MP4 of pictures alone", lambda: media.video_file(media.grey_frames([0, 90]), 4)),
    *[heard("E20", name, lambda data=data: data) for name, data in OTHERS.items()],  # type: ignore[misc]
    *[heard("E20", form, coded(form, codec)) for form, codec in (("aiff", "pcm_s16be"), ("au", "pcm_s16be"), ("caf", "pcm_s16le"))],
    *[heard("E22", f"half of {form}", half(form, codec, rate), (200, 400)) for form, codec, rate in (
        ("flac", "flac", RATE), ("mp3", "libmp3lame", RATE), ("ogg", "libopus", 48000), ("webm", "libopus", 48000), ("mp4", "aac", RATE))],
    heard("E23", "300.1 s", lambda: media.wav(np.zeros(2_400_800, np.uint8) + np.uint8(128), 8000)),
    Case("E24", "300 s of silence", heard("E24", "", lambda: media.wav(np.zeros(2_400_000, np.uint8) + np.uint8(128), 8000)).sends, (200, 400, 413), slow=True),
    heard("E25", "a picture", lambda: media.image_file(media.picture(20, 20))),
    *[Case("E26", f"a form with {name}", Http(body, "/v1/audio/transcriptions", headers={"content-type": "multipart/form-data; boundary=x"}))
      for name, body in {
          "nothing": b"", "no end": b"--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc",
          "no file": b"--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--\r\n",
          "a file that is a word": b"--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nb\r\n--x--\r\n",
          "text for sound": b"--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"../../a\"\r\n\r\nabc\r\n--x--\r\n",
          "1,000 fields": b"".join(b"--x\r\ncontent-disposition: form-data; name=\"f%d\"\r\n\r\nb\r\n" % n for n in range(1000)) + b"--x--\r\n",
      }.items()],
]  # fmt: skip
