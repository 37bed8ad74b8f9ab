"""Section D: pictures."""

from __future__ import annotations

import io
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.badinputs.case import Case, Http, fields, said
from tests.inputs import media

PIXELS = media.picture(56, 56)
FORMS = ("PNG", "JPEG", "WEBP", "GIF")
REFUSED = (400, 413, 415)
DECODE = ("media_decode_failed", "unsupported_media", "invalid_media", "media_too_large", "media_too_costly")


def part(data: bytes, mime: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{b64encode(data).decode()}"}}


def seen(
    case: str, name: str, make: Callable[[], bytes], right: tuple[int, ...] = REFUSED, mime: str = "image/png"
) -> Case:
    """A case of one picture, which is made when it is sent."""

    def body() -> bytes:
        sent = Http({"messages": said([part(make(), mime), {"type": "text", "text": "what?"}])}).data("tiny")
        assert sent is not None
        return sent

    return Case(case, name, Http(body), right)


def url(case: str, name: str, address: object, right: int | tuple[int, ...] = (400, 403)) -> Case:
    return fields(case, name, {"messages": said([{"type": "image_url", "image_url": {"url": address}}])}, right)


def file(form: str, **options: Any) -> bytes:
    return media.image_file(PIXELS, form, **options)


def cut(form: str, sixteenth: int) -> Callable[[], bytes]:
    return lambda: file(form)[: len(file(form)) * sixteenth // 16]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, rows: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey(*more: bytes) -> bytes:
    return png(56, 56, *more, rows=(b"\0" + bytes(56)) * 56)


def mode(name: str) -> bytes:
    picture = Image.fromarray(PIXELS)
    return media.image_file(picture.convert("L").convert("I;16") if name == "I;16" else picture.convert(name))


def animated(form: str, count: int) -> bytes:
    frames = [Image.new("L", (30, 30), n % 256) for n in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def scans(count: int) -> bytes:
    """A progressive JPEG of 25 megapixels whose last scan stands there again and again."""
    data = media.image_file(Image.new("L", (5000, 5000), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


OTHERS = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "PDF": b"%PDF-1.7\n%x",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run", "FITS": b"SIMPLE  =                    T", "MSP": b"DanM" + bytes(40),
    "PSD": b"8BPS\0\1" + bytes(40), "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "ICO": b"\0\0\1\0\1\0" + bytes(40),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(40), "XML": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
    "ZIP": b"PK\3\4" + bytes(60), "a program": b"\x7fELF\2\1\1" + bytes(60), "HTML": b"<html><script>1</script>",
}  # fmt: skip
SIXTEEN = [part(file("PNG"))] * 16
CASES = [
    seen("D1", "no bytes", lambda: b""),
    seen("D2", "one byte", lambda: b"\x89"),
    seen("D3", "text", lambda: b"this is no picture" * 20),
    *[seen("D4", f"{form} cut at {n}/16", cut(form, n)) for form in FORMS for n in (1, 4, 8, 12, 15)],
    seen("D5", "a PNG that says 65,535 x 65,535", lambda: png(65535, 65535)),
    seen("D5", "a PNG that says 2^31 x 1", lambda: png(2**31 - 1, 1)),
    seen("D5", "a PNG of no size", lambda: png(0, 0)),
    seen("D6", "80 megapixels of one colour", lambda: media.image_file(Image.new("1", (10_000, 8_000)))),
    seen("D7", "1 x 100,000", lambda: png(1, 100_000)),
    seen("D7", "100,000 x 1", lambda: png(100_000, 1)),
    seen("D7", "1 x 300", lambda: png(300, 1, rows=b"\0" + bytes(300))),
    *[seen("D9", f"{form} of {count} frames", lambda form=form, count=count: animated(form, count), (200,))  # type: ignore[misc]
      for form, count in (("GIF", 1000), ("WEBP", 100), ("PNG", 200))],
    *[seen("D12", f"PNG of mode {name}", lambda name=name: mode(name), (200,))  # type: ignore[misc]
      for name in ("1", "L", "LA", "P", "RGBA", "I;16")],
    seen("D12", "JPEG of CMYK", lambda: media.image_file(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"), (200,)),
    seen("D13", "a damaged colour profile", lambda: file("JPEG", icc_profile=b"no profile" * 9), (200,)),
    seen("D13", "a colour profile of 5 MB", lambda: file("PNG", icc_profile=bytes(5 << 20)), (200, 400)),
    *[seen("D14", f"{kind} of 60 MB", lambda kind=kind: grey(chunk(kind.encode(), b"x\0\0" + zlib.compress(bytes(60 << 20)))), (200, 400))  # type: ignore[misc]
      for kind in ("zTXt", "iTXt", "iCCP")],
    seen("D14", "a data chunk of 200 MB", lambda: png(56, 56, rows=bytes(200 << 20)), (200, 400)),
    Case("D15", "a JPEG of 20,000 scans", seen("D15", "", lambda: scans(20_000)).sends, REFUSED, slow=True),
    *[seen("D16", name, lambda data=data: data) for name, data in OTHERS.items()],  # type: ignore[misc]
    *[seen("D16", form, lambda form=form: file(form)) for form in ("BMP", "TIFF", "PPM", "TGA")],  # type: ignore[misc]
    seen("D17", "a JPEG that is a ZIP, too", lambda: file("JPEG") + b"PK\3\4" + bytes(100) + b"PK\5\6" + bytes(18), (200,)),
    seen("D18", "a PNG of wrong sums", lambda: file("PNG").replace(b"IDAT", b"IDAU", 1)),
    url("D19", "a data URL of HTML", "data:text/html;base64,PGI+"),
    url("D19", "a data URL without a comma", "data:image/png;base64"),
    url("D19", "a data URL of percents", "data:image/png,%89PNG"),
    url("D19", "no base64", "data:image/png;base64,***"),
    url("D19", "base64 cut in the middle", "data:image/png;base64,AAA"),
    url("D19", "padding in the middle", "data:image/png;base64,AA==AAAA"),
    url("D19", "a mime of newlines", "data:image/png\r\nx: y;base64,AAAA"),
    url("D19", "a mime of 1 MB", "data:" + "x" * (1 << 20) + ";base64,AAAA"),
    seen("D19", "another mime", lambda: file("PNG"), (200,), mime="image/jpeg"),
    *[url("D19", f"an address that is {value!r}", value) for value in (5, None, [], "", {})],
    seen("D20", "a data URL of 21 MiB", lambda: b"\x89PNG\r\n\x1a\n" + bytes(21 << 20)),
    fields("D21", "200 pictures", {"messages": said([part(file("PNG"))] * 200)}, 413, "too_many_parts"),
    fields("D22", "the same picture 16 times", {"messages": said(SIXTEEN)}, (200, 400)),
    seen("D23", "a sound", lambda: media.wav(media.tone(0.5, 16000), 16000)),
    seen("D23", "noise behind a magic", lambda: b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(500)),
]  # fmt: skip
