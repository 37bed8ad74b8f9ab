"""The formats and codecs that the door admits, and how their first bytes tell them."""

from __future__ import annotations

from descant.types import MediaKind

# What Pillow and FFmpeg call the demuxer or decoder -> what a person calls it.
IMAGE_FORMATS = {
    "JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF", "AVIF": "AVIF",
}  # fmt: skip
VIDEO_FORMATS = {
    "mov": "MP4/MOV/3GP", "matroska": "WebM/Matroska", "avi": "AVI", "mpegts": "MPEG-TS", "asf": "WMV/WMA",
}  # fmt: skip
AUDIO_FORMATS = {
    "wav": "WAV", "flac": "FLAC", "mp3": "MP3", "ogg": "Ogg", "aac": "AAC", "aiff": "AIFF", "caf": "CAF", "au": "AU",
    "w64": "W64", "amr": "AMR", **VIDEO_FORMATS, "mov": "MP4/M4A",
}  # fmt: skip
FORMATS: dict[MediaKind, dict[str, str]] = {"image": IMAGE_FORMATS, "audio": AUDIO_FORMATS, "video": VIDEO_FORMATS}

# By FFmpeg's canonical names; of sound every pcm_* too.
AUDIO_CODECS = frozenset(
    "flac mp3 mp2 vorbis opus speex aac alac ac3 eac3 wmav1 wmav2 adpcm_ima_wav adpcm_ima_qt adpcm_ms gsm gsm_ms "
    "amr_nb amr_wb".split()
)
VIDEO_CODECS = frozenset("h264 hevc vp8 vp9 av1 mpeg4 h263 mjpeg mpeg1video mpeg2video msmpeg4v3 wmv2 wmv3 vc1".split())

HEAD_BYTES = 189  # that `sniff` looks at: two packets of MPEG-TS
_TS_PACKET_BYTES = 188


def sniff(head: bytes) -> str | None:
    """The format that the first HEAD_BYTES announce, by the names of FORMATS; None when it is none of them."""
    if head.startswith((b"RIFF", b"RF64", b"FORM")):
        forms = {b"WAVE": "wav", b"WEBP": "WEBP", b"AVI ": "avi", b"AIFF": "aiff", b"AIFC": "aiff"}
        return forms.get(head[8:12])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        # HEIF and AVIF pictures share the box structure of MP4 but are no sound and no video
        return _STILL_BRANDS.get(head[8:12], "mov")
    if head[:1] == b"G" and head[_TS_PACKET_BYTES : _TS_PACKET_BYTES + 1] == b"G":
        return "mpegts"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # an MPEG audio frame
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"  # layer bits 00: ADTS
    return None


def conversion(head: bytes) -> str:
    """The advice for a file that `sniff` does not know."""
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return "It is a HEIC picture; convert it: heif-convert IN.heic OUT.jpg"
    if head.lstrip()[:5].lower() in (b"<svg ", b"<?xml"):
        return "It is a drawing (SVG); export it as PNG."
    return "Convert it."


def past_tags(data: bytes) -> bytes:
    """A file without the ID3v2 tags that stand before its sound: they belong to MP3, and FLAC and AAC bear them too."""
    while data[:3] == b"ID3" and len(data) > 10:
        size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
        if size >= len(data):
            return data
        data = data[size:]
    return data


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"caff", "caf"),
    (b".snd", "au"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"#!AMR", "amr"),
)
_STILL_BRANDS: dict[bytes, str | None] = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"mif1", b"msf1", b"crx "), None),
}
