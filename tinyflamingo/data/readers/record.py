"""Records, the output of all readers: each is an ordered list of texts, pictures and videos.

Serves chapter §4 (interleaved documents) for own data. Also here: the checks that all readers use. A file of
a data set must be in the data set's folder and must not be a link; a text must be text. A failed check
raises `BadRecord`, with a reason that can be counted.

Not here: the formats (one module each in this folder) and decoding (`decode.py`).
"""

from __future__ import annotations

import hashlib
import io
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tinyflamingo.data.items import Quiet, text_of
from tinyflamingo.data.video import ANIMATED, is_video

OUTPUT = Quiet("Output:")  # the paper's prompt for a caption, as in the examples of the command line
LONGEST_TEXT = 100_000  # letters of all texts of a record; training reads its first hundreds
DEPTH = 2  # a file is searched for in folders up to this depth below the root


@dataclass(frozen=True)
class MediaFile:
    """A picture or video before decoding: kind "picture" or "video", its name, and its path or bytes."""

    kind: str
    name: str
    source: Path | bytes

    @cached_property
    def key(self) -> tuple:
        """Equal for the same file, and for equal bytes: then the medium is decoded only once."""
        if isinstance(self.source, bytes):
            return self.kind, hashlib.sha256(self.source).digest()
        return self.kind, os.path.normcase(self.source)


def media_file(name: str, source: Path | bytes) -> MediaFile:
    """The picture or video in a file or in bytes; the content shows which of both it is."""
    video = is_video(io.BytesIO(source), name) if isinstance(source, bytes) else is_video(source)
    return MediaFile("video" if video else "picture", name, source)


@dataclass(frozen=True)
class Record:
    """One document. where: file and line, for messages. items: str, `Quiet` and `MediaFile`, in order.

    label: its class, by the data; group: its artist, scene or other source, by the data. answers: of all people who
    were asked (VQA). written: what the user wrote, if the items have more; unknown: fields that no reader knows.
    "" and (): the data do not say.
    """

    where: str
    items: list
    label: str = ""
    group: str = ""
    answers: tuple = ()
    written: tuple = ()
    unknown: tuple = ()

    @property
    def media(self) -> list[MediaFile]:
        """The pictures and videos, in order."""
        return [item for item in self.items if isinstance(item, MediaFile)]

    @property
    def letters(self) -> int:
        """How many characters the user wrote: the prompt `OUTPUT` is not counted."""
        said = [item for item in self.items if not isinstance(item, MediaFile) and item != OUTPUT]
        return sum(map(len, self.written or map(text_of, said)))


@dataclass(frozen=True)
class Skipped:
    """A record that is not used. bad: it has a fault; else it is left out on purpose."""

    where: str
    why: str
    detail: str = ""
    bad: bool = True


class BadRecord(Exception):
    """A record that cannot be used. why: the reason without details, so that equal reasons can be counted."""

    def __init__(self, why: str, detail: object = "", bad: bool = True) -> None:
        super().__init__(why)
        self.why, self.detail, self.bad = why, str(detail), bad


def left_out(why: str) -> BadRecord:
    """The exception for a record that has no fault but is not for training."""
    return BadRecord(why, bad=False)


def each(rows: Iterable[tuple], build: Callable[[Any], list | Record]) -> Iterator[Record | Skipped]:
    """A `Record` for each (where, row), or a `Skipped`. A row can itself be a `BadRecord`.

    build(row): the items of the record, or the record without its place.
    """
    for where, row in rows:
        try:
            if isinstance(row, BadRecord):
                raise row
            built = build(row)
            record = replace(built, where=where) if isinstance(built, Record) else Record(where, built)
            require_short(record.letters)
            yield record
        except BadRecord as error:
            yield Skipped(where, error.why, error.detail[:200], error.bad)


# ---- fields --------------------------------------------------------------------------------------


def field(row: object, name: str, kind: type) -> Any:
    """`row[name]`. `BadRecord` if the row is not a dict or the value is not of this kind (a bool is not an int)."""
    if not isinstance(row, dict):
        raise BadRecord("not an object", type(row).__name__)
    if name not in row:
        raise BadRecord(f"no field {name!r}")
    value = row[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadRecord(f"{name!r} is not of type {kind.__name__}", type(value).__name__)
    return value


def words(row: object, name: str) -> str:
    """The text in a field, on one line."""
    return text(field(row, name, str))


def label(row: dict, name: str) -> str:
    """The text or the whole number in a field that need not be there; "": it is not there."""
    value = row.get(name, "")
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if value == "" or is_number else words(row, name)


def sentence(value: object) -> list[str]:
    """The text of a page as a list of items: [] if it is blank."""
    return [] if isinstance(value, str) and not value.strip() else [text(value)]


def require_short(letters: int) -> None:
    """`BadRecord` for too many letters of text."""
    if letters > LONGEST_TEXT:
        raise BadRecord(f"more than {LONGEST_TEXT} letters of text", letters)


def text(value: object) -> str:
    """The text with each run of white space as one space. `BadRecord` if it is empty, too long or not valid Unicode."""
    if not isinstance(value, str):
        raise BadRecord("a text is not of type str", type(value).__name__)
    require_short(len(value))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecord("text is not valid Unicode", ascii(value)) from None
    value = " ".join(value.split())
    if not value:
        raise BadRecord("no text")
    return value


# ---- files ---------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """`BadRecord` for an empty name, or one that leads out of the folder."""
    if not name.strip() or "\0" in name:
        raise BadRecord("no file name", ascii(name))
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise BadRecord("absolute path", name)
    if ".." in PurePosixPath(name).parts + PureWindowsPath(name).parts:
        raise BadRecord("path outside the folder", name)


def own_files(folder: Path, pattern: str) -> list[Path]:
    """The regular files in a folder whose path in it matches the pattern, sorted. No part of that path is a link.

    Files that macOS adds (`._name`) are left out.
    """
    return sorted(
        p for p in folder.glob(pattern) if p.is_file() and not p.name.startswith("._") and not _links(p, folder)
    )


def _links(path, folder):
    """The parts of a path below the folder that are links."""
    return [
        part for part in (path, *path.parents) if part.is_relative_to(folder) and part != folder and part.is_symlink()
    ]


def _plain(name):
    """The last part of a name. Equal for names that another system writes differently: case, accents, backslashes."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2]).casefold().strip()


@dataclass(frozen=True)
class Root:
    """The folder of a data set. All files must be in it, and none may be a link."""

    folder: Path

    @cached_property
    def folders(self) -> list[Path]:
        """The root and the folders below it, down to `DEPTH`, sorted by name."""
        folders, level = [self.folder], [self.folder]
        for _ in range(DEPTH):
            level = [d for f in level for d in sorted(f.iterdir()) if d.is_dir() and not d.is_symlink()]
            folders += level
        return folders

    def find(self, name: str, hint: str = "") -> Path:
        """The file of this name: in the folder `hint`, in the root, or in exactly one folder below."""
        for part in (name, hint or name):
            check_name(part)
        for folder in (self.folder / hint, self.folder):
            if os.path.lexists(folder / name):
                return self._no_link(folder / name)
        paths = [folder / name for folder in self.folders[1:] if os.path.lexists(folder / name)]
        if len(paths) > 1:
            raise BadRecord("more than one file of this name", f"{paths[0]} and {paths[1]}")
        if not paths:
            near = self._near.get(_plain(name))
            raise BadRecord("file missing", f"{name}; is {near} meant?" if near else name)
        return self._no_link(paths[0])

    @cached_property
    def _near(self) -> dict:
        """{plain name: name} of all files in the folders."""
        return {_plain(p.name): p.relative_to(self.folder) for folder in self.folders for p in folder.iterdir()}

    def medium(self, name: str, hint: str = "") -> MediaFile:
        """The picture or video of this name."""
        return media_file(name, self.find(name, hint))

    def clip(self, stem: str, extensions: tuple) -> MediaFile:
        """The video of this name, with the first of these extensions that exists. It can be an animated picture."""
        for extension in (*extensions, *ANIMATED):
            try:
                medium = self.medium(f"{stem}{extension}")
            except BadRecord as error:
                if error.why != "file missing":
                    raise
                continue
            if extension in extensions or medium.kind == "video":
                return medium
        return self.medium(f"{stem}{extensions[0]}")

    def _no_link(self, path: Path) -> Path:
        if links := _links(path, self.folder):
            raise BadRecord("a symbolic link", links[0])
        return path
