"""Is a video file cut short? The lengths of its parts show it, not the durations in its header.

A file that lost its end in a copy can still be decoded, to fewer frames. A whole file can have a wrong duration.
So the parts are followed: a container is a row of parts (boxes, chunks, pages, packets), and each part begins with
its own length. The file is cut if the last part does not end within it. Other bytes behind the parts do no harm.

Some files do not know their own length. A cut exactly between two of their parts leaves no trace. The parts are:
frames of an MPEG transport or program stream or of raw MPEG; fragments of an mp4; blocks of a live Matroska; tags of an
FLV without the field "filesize". Not here: frames that are damaged (`video.py`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from tinyflamingo.files import LARGEST_PART

MOST_PARTS = 1 << 24  # that are followed, half a minute: 3 GB of the smallest packets
HEAD = 512  # bytes of a part that are read; the header of an Ogg page has up to 282


def is_cut(file: BinaryIO) -> bool:
    """Whether the end of a video file is missing. False for a file of an unknown kind."""
    file.seek(0)
    head = file.read(8 * HEAD)
    total, last = file.seek(0, os.SEEK_END), b""
    if head.startswith(b"GIF8"):
        file.seek(0)
        return total <= LARGEST_PART and _is_cut_gif(file.read())  # a larger GIF is not checked
    place = 0
    for part in _walk(file, head, total):
        last, place = part
    return place > total or (last.startswith(b"OggS") and not last[5] & 4) or _is_cut_flv(head, last, total)


def is_chained(file: BinaryIO) -> bool:
    """Whether an Ogg file holds several recordings, one after the other: a first page comes after a last one."""
    file.seek(0)
    head, flags = file.read(8 * HEAD), 0
    if not head.startswith(b"OggS"):
        return False
    for page, _ in _walk(file, head, file.seek(0, os.SEEK_END)):
        if page[5] & 2 and flags & 4:
            return True
        flags = page[5]
    return False


def _walk(file, head, total):
    """(the begin of a part, the place after its end) for each part, in order."""
    length_of, place = _parts(head)
    for _ in range(MOST_PARTS):
        if place >= total:
            return
        file.seek(place)
        part = file.read(HEAD)
        length = length_of(part, total - place)
        if not length:
            return
        place += length
        yield part, place


def transport_packet(head: bytes) -> tuple[int, int] | None:
    """(length of a packet, position of its first letter G) of an MPEG transport stream; None for another file."""
    for length, at in ((188, 0), (192, 4), (204, 0)):  # 192: cameras put a time before each packet
        if len(head) > at + length and set(head[at::length]) == {ord("G")}:
            return length, at
    return None


def _parts(head) -> tuple[Callable[[bytes, int], int], int]:
    """The function that gives the length of a part (0: it is none), and where the first part begins."""
    starts = {b"\x1aE\xdf\xa3": _element, b"RIFF": _chunk, b"OggS": _page, b"0&\xb2u": _asf_object,
              b"\0\0\1\xba": _pack}  # fmt: skip
    if head[:4] in starts:
        return starts[head[:4]], 0
    if head.startswith(b"FLV\1"):
        return _tag, 9
    if head[4:8] in _BOXES:
        return _box, 0
    if packet := transport_packet(head[:HEAD]):
        return partial(_packet, *packet), 0
    if head.startswith(b"YUV4MPEG2 "):
        return _raw_frames(head), head.index(b"\n") + 1
    return lambda part, left: 0, 0


# ---- lengths of parts. left: number of bytes from the begin of the part to the end of the file ------

_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp", b"free", b"skip", b"wide", b"pnot")


def _box(part, left):
    """mp4 and QuickTime. A box of an unknown kind that does not fit is text or noise behind the last box."""
    length = int.from_bytes(part[:4]) or left
    if length == 1:  # the length needs 64 bits, which follow
        length = int.from_bytes(part[8:16])
    return length if length >= 8 and (part[4:8] in _BOXES or length <= left) else 0


def _element(part, left):
    """Matroska and WebM: a number and a length; the leading zero bits of both tell how many bytes they have."""
    width = 9 - part[0].bit_length()
    size_width = 9 - part[width : width + 1].ljust(1, b"\0")[0].bit_length()
    name, size = part[:width].hex(), part[width : width + size_width]
    if name not in _ELEMENTS or len(size) < size_width:
        return 0
    head, length, most = width + size_width, int.from_bytes(size), 1 << 7 * size_width
    length -= most  # without the bit that ends the leading zeros
    if length == most - 1:  # unknown, as in a live stream: what it contains comes next
        return head
    return max(head + length, left) if name == _SEGMENT else head + length


_SEGMENT = "18538067"
_ELEMENTS = {_SEGMENT, "1a45dfa3", "114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1043a770", "1254c367",
             "1941a469", "e7", "a3", "a0", "a7", "ab", "ec", "bf"}  # fmt: skip


def _chunk(part, left):
    """AVI. The length of the whole RIFF is often wrong, so the chunks inside are followed."""
    if part[:4] == b"RIFF":
        return 12
    length = int.from_bytes(part[4:8], "little")
    return 8 + length + length % 2 if part[:4] in (b"LIST", b"idx1", b"JUNK") else 0


def _page(part, left):
    count = part[26] if len(part) > 26 else 0
    return 27 + count + sum(part[27 : 27 + count]) if part[:4] == b"OggS" else 0


def _asf_object(part, left):
    known = part[:4] in (b"0&\xb2u", b"6&\xb2u", b"\x90\x08\x003", b"\xd3)\xe2\xd6")  # header, data, two indices
    return int.from_bytes(part[16:24], "little") if known else 0


def _pack(part, left):
    """MPEG program stream: headers of packs, and packets with a length."""
    if part[:3] != b"\0\0\1" or part[3:4] < b"\xb9":
        return 0
    if part[3] == 0xB9:
        return 4
    if part[3] > 0xBA:
        return 6 + int.from_bytes(part[4:6])
    is_mpeg2 = part[4:5].ljust(1, b"\0")[0] >> 6 == 1
    return 14 + (part[13:14].ljust(1, b"\0")[0] & 7) if is_mpeg2 else 12


def _packet(length, at, part, left):
    """MPEG transport stream. A packet has the letter G, and two bits that are never both 0."""
    return length * (part[at : at + 1] == b"G" and all(flags & 0x30 for flags in part[at + 3 : at + 4]))


def _tag(part, left):
    """FLV: the length of the tag before, and a tag. 8, 9 and 18 are sound, pictures and facts."""
    if part[4:5] not in (b"\x08", b"\x09", b"\x12") or part[12:15] != b"\0\0\0":
        return 0
    return 15 + int.from_bytes(part[5:8])


def _raw_frames(head):
    """yuv4mpeg: a line and three planes, whose lengths follow from the line at the begin of the file."""
    facts = {word[:1]: word[1:] for word in head.partition(b"\n")[0].split()}
    width, height, colours = int(facts[b"W"]), int(facts[b"H"]), facts.get(b"C", b"420")
    across, down, planes = {b"mon": (1, 1, 0), b"411": (4, 1, 2), b"422": (2, 1, 2), b"444": (1, 1, 2)}.get(
        colours[:3], (2, 2, 2)
    )
    values = width * height + planes * -(-width // across) * -(-height // down) + (b"alpha" in colours) * width * height
    size = values * (2 if colours[3:].strip(b"o").startswith((b"p1", b"1")) else 1)
    return lambda part, left: part.startswith(b"FRAME") and part.find(b"\n") + 1 + size


# ---- containers with a mark or a field for their end --------------------------------------------------


def _is_cut_flv(head, last, total) -> bool:
    """Whether both facts in the header, the length in bytes and in seconds, promise more than the file holds.

    The last tag can be half a second before the end of the last frame.
    """
    size, seconds = (_fact(head, name) for name in (b"filesize", b"duration"))
    shown = int.from_bytes(last[11:12] + last[8:11]) / 1000  # time of the last tag
    return head.startswith(b"FLV\1") and size > total and seconds > shown + 0.5


def _fact(head, name) -> float:
    _, separator, value = head.partition(name + b"\0")
    return struct.unpack(">d", value[:8])[0] if separator and len(value) >= 8 else 0.0


def _is_cut_gif(data) -> bool:
    """Whether the blocks end without the semicolon that closes a GIF. Bytes behind it do no harm."""
    place = 13 + _colours(data[10:11])
    while (mark := data[place : place + 1]) != b";":
        if not mark:
            return True
        if mark not in b",!":  # some programs write zeros between blocks
            place += 1
            continue
        place += 11 + _colours(data[place + 9 : place + 10]) if mark == b"," else 2
        while data[place : place + 1] > b"\0":
            place += 1 + data[place]
        place += 1
    return False


def _colours(flags) -> int:
    """Bytes of the table of colours that follows."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0
