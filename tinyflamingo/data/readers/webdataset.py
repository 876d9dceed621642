"""Webdataset tars: the files of a record are consecutive, and their names are equal up to the first dot.

Example: 000001.jpg with 000001.txt, or with 000001.json that has a "caption". The content of a file shows whether it
is a picture or a video.
An archive is read from front to back, one member at a time, and nothing is extracted. A member that is a
link or a device, or whose name leads out of the folder, makes its record bad. Not here: shell pipes as addresses.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tinyflamingo.data.readers.record import (
    OUTPUT,
    BadRecord,
    Record,
    Root,
    Skipped,
    check_name,
    each,
    label,
    media_file,
    text,
    words,
)
from tinyflamingo.data.readers.text_files import reading
from tinyflamingo.data.video import EXTENSIONS as VIDEOS
from tinyflamingo.files import LARGEST_PART, LONGEST_NAME, open_regular, parse_json

FILES = ("*.tar", "*.tar.gz", "*.tgz")
SURE = FILES
SHARDS = True
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".apng")
LARGEST_MEMBER = 1 << 33  # bytes; one of more than LARGEST_PART is not read
BOMB = 100, 1 << 28  # an archive unpacks to at most 100 times its bytes and 256 MB
# {begin of a file: what unpacks it}
KINDS: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
TEXTS = (".txt", ".json", ".caption")


def matches(head: object) -> bool:
    """False: only the name of a file shows this format."""
    return False


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of a picture or video, and its caption."""
    return each(_groups(path), _items)


def _groups(path):
    """(where, {extension: bytes}) of consecutive members with the same key, or a `BadRecord` if one of them is bad."""
    key, group = None, {}
    with (
        reading(path),
        open_regular(path) as packed,
        _Unpacked(packed) as file,
        tarfile.open(fileobj=file, mode="r|", tarinfo=_Head) as archive,  # type: ignore[call-overload]
    ):
        for member in archive:
            archive.members.clear()  # else memory holds the heads of all members
            if member.size > LARGEST_MEMBER:  # `tarfile` would go to its end, also behind the end of the file
                raise tarfile.ReadError(f"a member has {member.size} bytes")
            folder, _, name = member.name.rpartition("/")
            if member.isdir() or name.startswith("._"):  # macOS adds a `._name` to every name
                continue
            stem, _, extension = name.partition(".")
            if key not in (None, f"{folder}/{stem}"):
                yield f"{path.name} {key.lstrip('/')}", group
                group = {}
            key = f"{folder}/{stem}"
            if isinstance(group, dict):
                group = _with(group, archive, member, f".{extension.lower()}")
        if key is not None:
            yield f"{path.name} {key.lstrip('/')}", group


class _Unpacked:
    """The unpacked bytes of an archive, packed by gzip, bzip2, xz or not at all; more than `BOMB` are an error.

    `tarfile` unpacks too, but what a small piece of a bomb unpacks to it copies again and again.
    """

    def __init__(self, packed: BinaryIO) -> None:
        times, more = BOMB
        self.left = times * packed.seek(0, os.SEEK_END) + more
        packed.seek(0)
        head = packed.read(6)
        packed.seek(0)
        self.file: Any = next((unpack(packed) for begin, unpack in KINDS.items() if head.startswith(begin)), packed)

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError("it unpacks to much more than the file has")
        return data


class _Head(tarfile.TarInfo):
    """The head of a member. `tarfile` reads long names and other facts (pax) whole, so their length is checked."""

    def _proc_member(self, archive: Any) -> Any:
        """The member behind this head; `tarfile` says that subclasses may override it."""
        if not self.isreg() and self.size > LONGEST_NAME:
            raise tarfile.ReadError(f"a member has a head of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _with(group, archive, member, extension):
    """The group with one more member, or the `BadRecord` that spoils the group."""
    try:
        check_name(member.name)
        if not member.isreg():
            raise BadRecord("a member that is not a file", member.name)
        if extension in group:
            raise BadRecord("two members of the same name", member.name)
        if extension not in PICTURES + VIDEOS + TEXTS:
            return group
        if member.size + sum(map(len, group.values())) > LARGEST_PART:
            raise BadRecord(f"files of more than {LARGEST_PART >> 20} MB", member.name)
    except BadRecord as error:
        return error
    return group | {extension: archive.extractfile(member).read()}


def _items(group):
    media = [e for e in group if e in PICTURES + VIDEOS]
    if len(media) != 1:
        raise BadRecord("no picture or video" if not media else "several pictures or videos", sorted(group))
    facts = _facts(group)
    items = [media_file(f"its {media[0]}", group[media[0]]), OUTPUT, _caption(group, facts)]
    return Record("", items, label(facts, "class"), label(facts, "group"))


def _facts(group) -> dict:
    """The object in the member .json, which can have a "caption", a "class" and a "group"; {} if there is none."""
    try:
        facts = parse_json(group.get(".json", b"{}"))
    except ValueError:
        if not group.keys() & {".txt", ".caption"}:
            raise BadRecord("member is not JSON") from None
        return {}
    return facts if isinstance(facts, dict) else {}


def _caption(group, facts) -> str:
    for extension in (".txt", ".caption"):
        if extension in group:
            try:
                return text(group[extension].decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise BadRecord("text is not UTF-8") from None
    if ".json" not in group:
        raise BadRecord("no text", sorted(group))
    return words(facts, "caption")
