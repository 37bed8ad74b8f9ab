"""The formats and codecs that the door admits, and how their first bytes tell them."""

from __future__ import annotations

from descant.types import MediaKind

# What Pillow and FFmpeg call the demuxer or decoder -> what a person calls it.
IMAGE_FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "GIF": "GIF"}
AUDIO_FORMATS = {
    "wav": "WAV", "flac": "FLAC", "mp3": "MP3", "ogg": "Ogg", "aac": "AAC", "aiff": "AIFF",
    "mov": "MP4/M4A", "matroska": "WebM/Matroska",
}  # fmt: skip
VIDEO_FORMATS = {"mov": "MP4/MOV", "matroska": "WebM/Matroska"}
FORMATS: dict[MediaKind, dict[str, str]] = {"image": IMAGE_FORMATS, "audio": AUDIO_FORMATS, "video": VIDEO_FORMATS}

AUDIO_CODECS = frozenset({"flac", "mp3", "mp3float", "vorbis", "opus", "aac", "alac"})  # and every pcm_*
VIDEO_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})


def sniff(head: bytes) -> str | None:
    """The format that the first 16 bytes announce, by the names of FORMATS; None when it is none of them."""
    if head.startswith((b"RIFF", b"FORM")):
        return {b"WAVE": "wav", b"WEBP": "WEBP", b"AIFF": "aiff", b"AIFC": "aiff"}.get(head[8:12])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        # HEIF and AVIF pictures share the box structure of MP4 but are no sound and no video
        return None if head[8:12] in _STILL_BRANDS else "mov"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # an MPEG audio frame without an ID3 tag
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"  # layer bits 00: ADTS
    return None


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\x1aE\xdf\xa3", "matroska"),
)
_STILL_BRANDS = frozenset({b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"crx "})
