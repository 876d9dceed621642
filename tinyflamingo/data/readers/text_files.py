"""Text files of any length, read a piece at a time: lines, JSON lines, and arrays inside one JSON object.

Serves the readers. Nothing here holds more of a file than one line or one element: an annotation file
of gigabytes takes the memory of its longest record. Compressed files are read, never extracted.

Not here: what the records mean (a file for each format).
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyflamingo.data.readers.record import BadRecord
from tinyflamingo.errors import UserError

LONGEST = 1 << 26  # characters of a line or an element: pictures may stand in them, in base64
CHUNK = 1 << 20
ENDS = ",]} \t\r\n"  # what may follow a number
BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError)


@contextmanager
def told(path: Path):
    """Any failure of reading a whole file as one `UserError` with its name."""
    try:
        yield
    except BROKEN as error:
        why = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise UserError(f"cannot read {str(path)!r}: {why}; copy or download it again") from error


@contextmanager
def opened(path: Path):
    """A file of bytes: plain, .gz, or the only member of a .zip."""
    with told(path):
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                yield file
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if not n.endswith("/")]
                if len(names) != 1:
                    raise ValueError(f"it has {len(names)} files in it, not one")
                with archive.open(names[0]) as file:
                    yield io.BufferedReader(file)
        else:
            with open(path, "rb") as file:
                yield file


def lines(path: Path) -> Iterator[tuple[str, str | BadRecord]]:
    """(where, line) for every line that is not blank; a line that is no text or has no end is a `BadRecord`."""
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST):
            number += 1
            where = f"{path.name} line {number}"
            if len(line) == LONGEST:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST)
                yield where, BadRecord("line too long")
                continue
            try:
                content = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield where, BadRecord("line is no UTF-8")
                continue
            if content:
                yield where, content


def json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """(where, value) for every line; one that is no JSON is a `BadRecord`."""
    for where, line in lines(path):
        yield where, line if isinstance(line, BadRecord) else _value(line)


def _value(line: str):
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return BadRecord("line is no JSON", line[:60])


# ---- one JSON object -----------------------------------------------------------------------------


def elements(path: Path, *names: str) -> Iterator[tuple[str, object]]:
    """(name, element) for every element of the arrays `names` of a file's outermost object, in its order.

    Other fields are passed over. Raises `UserError` for a file that is no object or is cut.
    """
    for name, value in top_level(path):
        if name in names:
            yield name, value


def top_level(path: Path) -> Iterator[tuple[str, object]]:
    """(name, value) of the outermost object's fields; of an array, (name, element) for each element."""
    with opened(path) as file:
        window = _Window(file)
        try:
            yield from window.fields()
        except (ValueError, RecursionError) as error:
            why = "it is no JSON object" if window.at == 0 else f"its JSON is cut or damaged at character {window.at}"
            raise UserError(f"cannot read {str(path)!r}: {why}; copy or download it again") from error


class _Window:
    """The part of a JSON file that is being looked at; `at` counts the characters before it."""

    def __init__(self, file):
        self.file, self.decode = file, codecs.getincrementaldecoder("utf-8-sig")().decode
        self.text, self.place, self.at, self.ended = "", 0, 0, False
        self.decoder = json.JSONDecoder()

    def fields(self):
        self.expect("{")
        while self.peek() != "}":
            name = self.value()
            self.expect(":")
            if self.peek() == "[":
                for element in self.array():
                    yield name, element
            else:
                yield name, self.value()
            self.comma("}")
        self.expect("}")

    def array(self):
        self.expect("[")
        while self.peek() != "]":
            yield self.value()
            self.comma("]")
        self.expect("]")

    def comma(self, end):
        if self.peek() != end:
            self.expect(",")
            if self.peek() == end:
                raise ValueError("a comma before the end")

    def expect(self, character):
        if self.peek() != character:
            raise ValueError(f"expected {character}")
        self.place += 1

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in " \t\r\n":
                self.place += 1
            if self.place < len(self.text) or not self.more():
                return self.text[self.place : self.place + 1]

    def value(self):
        """The value that begins here. A number is whole only where something that ends it is seen."""
        self.peek()
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.place)
                whole = not isinstance(found, int | float) or self.text[end : end + 1] in tuple(ENDS)
                if whole or self.ended:
                    self.place = end
                    return found
            except ValueError:
                if self.ended:
                    raise
            self.more()

    def more(self) -> bool:
        """Read on, at least as much again as is there, and drop what was passed; False at the end."""
        if self.ended:
            return False
        self.at += self.place
        self.text, self.place = self.text[self.place :], 0
        if len(self.text) > LONGEST:
            raise ValueError("an element without end")
        data = self.file.read(max(CHUNK, len(self.text)))
        self.ended = not data
        self.text += self.decode(data, self.ended)
        return True
