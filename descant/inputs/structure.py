"""Files that end before their own structure says, told without a decoder.

A stated length in seconds tells it badly: recorders patch a wall clock into it, count it from another start, or leave
it out. The sizes of boxes and of segments are exact, where they are given at all.
"""

from __future__ import annotations

import struct

EBML_HEADER_ID = 0x1A45DFA3
SEGMENT_ID = 0x18538067


def ends_early(data: bytes | memoryview, form: str) -> bool:
    """True if a file of format ``form`` is shorter than its structure says. Unknown sizes say nothing."""
    match form:
        case "mov":
            return boxes_end(data) > len(data)
        case "matroska":
            return segment_end(data) > len(data)
        case "aiff":
            return len(data) >= 8 and 8 + struct.unpack_from(">I", data, 4)[0] > len(data)
    return False


def boxes_end(data: bytes | memoryview) -> int:
    """Where the last top-level box of an MP4 or MOV file ends."""
    place = 0
    while place + 16 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, place + 8)
        if size < 8:  # 0: to the end of the file; else no box
            return len(data)
        place += size
    return place


def segment_end(data: bytes | memoryview) -> int:
    """Where the Segment of a WebM or Matroska file ends; 0 when that is unknown, as in a recording that is live."""
    place = 0
    while (element := ebml_element(data, place)) is not None:
        name, start, size = element
        if size is None:
            return 0
        if name == SEGMENT_ID:
            return start + size
        if name != EBML_HEADER_ID:
            return 0
        place = start + size
    return 0


def ebml_element(data: bytes | memoryview, place: int) -> tuple[int, int, int | None] | None:
    """(ID, where the content starts, its size or None when it is unknown) of the element at ``place``; RFC 8794."""
    if place + 12 > len(data):
        return None
    id_bytes = vint_bytes(data[place])
    size_bytes = vint_bytes(data[place + id_bytes])
    start = place + id_bytes + size_bytes
    mask = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(data[place + id_bytes : start], "big") & mask
    return int.from_bytes(data[place : place + id_bytes], "big"), start, None if size == mask else size


def vint_bytes(first: int) -> int:
    """Bytes of a variable-length integer that begins with byte ``first``: its leading zeros, and one."""
    return min(8, 9 - first.bit_length())
