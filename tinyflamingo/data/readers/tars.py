"""Tar archives of unknown origin, read from front to back, one member at a time. Nothing is extracted to the disk.

Serves the readers (chapter §4). Not here: which members form a record (`webdataset.py`), the packages of emoji
(`emoji/packages.py`).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tinyflamingo.data.readers.text_files import reading
from tinyflamingo.files import LONGEST_NAME, open_regular

LARGEST_MEMBER = 1 << 33  # bytes; a larger one is an error
BOMB = 100, 1 << 28  # an archive unpacks to at most 100 times its bytes and 256 MB
# {begin of a file: what unpacks it}
KINDS: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """(member, function that reads its bytes) for each member, in order. Call it before the next member comes.

    An archive that cannot be read is a `UserError`. Folders, and the `._name` that macOS adds to every name, are left
    out.
    """
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
            if not member.isdir() and not member.name.rpartition("/")[2].startswith("._"):
                yield member, partial(_bytes, path, archive, member)


def _bytes(path, archive, member):
    with reading(path):
        return archive.extractfile(member).read()


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
