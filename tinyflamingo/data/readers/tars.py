"""Tar archives of unknown origin, read from front to back, one member at a time. Nothing is extracted to the disk.

Serves the readers (chapter §4). Not here: which members form a record (`webdataset.py`), the packages of emoji
(`emoji/packages.py`).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tinyflamingo.data.readers.text_files import reading
from tinyflamingo.files import LONGEST_NAME, open_regular


class _Head(tarfile.TarInfo):
    """The head of a member. `tarfile` reads long names and other facts (pax) whole, so their length is checked."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Head:
        """The head in 512 bytes."""
        head = super().frombuf(buf, encoding, errors)
        if not head.isreg() and head.size > LONGEST_NAME:
            raise tarfile.ReadError(f"a member has a head of {head.size} bytes")
        return head


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """(member, function that reads its bytes) for each member, in order. Call it before the next member comes.

    An archive that cannot be read is a `UserError`. Folders, and the `._name` that macOS adds to every name, are left
    out.
    """
    with reading(path), open_regular(path) as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Head) as tar:
        archive: Any = tar  # the type hints of tarfile do not have `members`
        for member in archive:
            archive.members.clear()  # else memory holds the heads of all members
            if not member.isdir() and not member.name.rpartition("/")[2].startswith("._"):
                yield member, partial(_bytes, path, archive, member)


def _bytes(path, archive, member):
    with reading(path):
        return archive.extractfile(member).read()
