"""What every reader makes of a user's data: records, an ordered list of text, pictures and videos each.

Serves chapter §4 (interleaved documents) for data of one's own. Also here: the checks that all readers
share. A file named by a data set has to lie in the data set's folder and be no link; a text has to
be text. What fails a check is a `BadRecord`, with a reason that can be counted.

Not here: the formats (a file each beside this one) and decoding (`decode.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.video import is_video

OUTPUT = Quiet("Output:")  # the paper's prompt of a caption; what is asked for at the command line, too
DEPTH = 2  # how far below the root a named file is looked for


@dataclass(frozen=True)
class MediaFile:
    """A picture or video not yet decoded: kind "picture" or "video", its name, and a path or its bytes."""

    kind: str
    name: str
    source: Path | bytes


@dataclass(frozen=True)
class Record:
    """One document. where: file and line, for messages; items: str, `Quiet` and `MediaFile`, in order."""

    where: str
    items: list


@dataclass(frozen=True)
class Skipped:
    """A record that is not used. bad: it should have been usable; else it is left out on purpose."""

    where: str
    why: str
    detail: str = ""
    bad: bool = True


class BadRecord(Exception):
    """A record that cannot be used. why: the reason, the same words for every record of its kind."""

    def __init__(self, why: str, detail="", bad=True):
        super().__init__(why)
        self.why, self.detail, self.bad = why, str(detail), bad


def left_out(why: str, detail="") -> BadRecord:
    """For a record that nothing is wrong with, but that training should not see."""
    return BadRecord(why, detail, bad=False)


def each(rows: Iterable, build) -> Iterator[Record | Skipped]:
    """`build(row) -> items` of every (where, row), or why there are none; a row may itself be a `BadRecord`."""
    for where, row in rows:
        try:
            if isinstance(row, BadRecord):
                raise row
            yield Record(where, build(row))
        except BadRecord as error:
            yield Skipped(where, error.why, error.detail[:200], error.bad)


# ---- fields --------------------------------------------------------------------------------------


def field(row, name: str, kind: type):
    """`row[name]`, if the row is a dict and the value of this kind (a bool is no int)."""
    if not isinstance(row, dict):
        raise BadRecord("not an object", type(row).__name__)
    if name not in row:
        raise BadRecord(f"no {name!r}")
    value = row[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadRecord(f"{name!r} is no {kind.__name__}", type(value).__name__)
    return value


def words(row, name: str) -> str:
    """A field that holds text, on one line and not empty."""
    return text(field(row, name, str))


def text(value) -> str:
    """A text of the user's: valid Unicode, white space folded, not empty."""
    if not isinstance(value, str):
        raise BadRecord("a text is no str", type(value).__name__)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecord("text is no valid Unicode", ascii(value)) from None
    value = " ".join(value.split())
    if not value:
        raise BadRecord("no text")
    return value


# ---- files ---------------------------------------------------------------------------------------


def check_name(name: str):
    """`BadRecord` for a name that leads out of the folder it is in, or is no name at all."""
    if not name.strip() or "\0" in name:
        raise BadRecord("no file name", ascii(name))
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise BadRecord("absolute path", name)
    if ".." in PurePosixPath(name).parts + PureWindowsPath(name).parts:
        raise BadRecord("path outside the folder", name)


@dataclass(frozen=True)
class Root:
    """The folder of a data set: all its files have to lie in it, and none may be a link."""

    folder: Path

    @cached_property
    def folders(self) -> list:
        """The root and the folders in it, down to `DEPTH`, in the order of their names."""
        found, level = [self.folder], [self.folder]
        for _ in range(DEPTH):
            level = [d for f in level for d in sorted(f.iterdir()) if d.is_dir() and not d.is_symlink()]
            found += level
        return found

    def find(self, name: str, hint="") -> Path:
        """The file of this name: in the folder `hint`, in the root, or in exactly one folder below."""
        for part in (name, hint or name):
            check_name(part)
        for folder in (self.folder / hint, self.folder):
            if os.path.lexists(folder / name):
                return self._no_link(folder / name)
        found = [folder / name for folder in self.folders[1:] if os.path.lexists(folder / name)]
        if len(found) > 1:
            raise BadRecord("two files of this name", f"{found[0]} and {found[1]}")
        if not found:
            raise BadRecord("file missing", name)
        return self._no_link(found[0])

    def medium(self, name: str, hint="") -> MediaFile:
        """The picture or video of this name, by its content."""
        path = self.find(name, hint)
        return MediaFile("video" if is_video(path) else "picture", name, path)

    def _no_link(self, path: Path) -> Path:
        for part in (path, *path.parents):
            if part == self.folder:
                return path
            if part.is_symlink():
                raise BadRecord("a link", part)
        raise BadRecord("path outside the folder", path)
