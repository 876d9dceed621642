"""Text files of any length, read in pieces: lines, JSON lines, and arrays inside one JSON object.

Serves the readers (chapter §4). Memory holds one line or one element at a time, so an annotation file of
gigabytes needs the memory of its longest record. Compressed files are read, never extracted.

Not here: the meaning of the records (one module for each format).
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tinyflamingo.data.readers.record import BadRecord
from tinyflamingo.errors import UserError
from tinyflamingo.files import MOST_VALUES, check_values, open_regular, parse_json

LONGEST = 1 << 26  # most characters of a line or an element, which can hold pictures in base64
SHORT = 1 << 21  # most bytes of a line or a file of text alone: `LONGEST_TEXT` letters need less, also as \u1234
CHUNK = 1 << 20
# In a `BadRecord`, so that the catalogue of messages has it.
NOT_UTF8 = BadRecord("line is not UTF-8: save the file as UTF-8 (is it GBK or UTF-16?)").why
LONGEST_SKIPPED = 1 << 30  # bytes of a line that is too long
ENDS = ",]} \t\r\n"  # the characters that can follow a number
BLANKS = re.compile(r"[ \t\r\n]*")
BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside this context, each error of a file that cannot be read becomes a `UserError` with the file's name."""
    try:
        yield
    except BROKEN as error:
        why = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise UserError(f"cannot read {str(path)!r}: {why}; copy or download it again") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a plain file, a .gz, or the only member of a .zip."""
    file: Any
    with reading(path), open_regular(path) as plain:
        if path.suffix == ".gz":
            with gzip.open(plain) as file:
                yield file
        elif path.suffix == ".zip":
            with zipfile.ZipFile(plain) as archive:
                names = [n for n in archive.namelist() if not n.endswith("/")]
                if len(names) != 1:
                    raise ValueError(f"it holds {len(names)} files instead of one")
                with archive.open(names[0]) as file:
                    yield io.BufferedReader(file)
        else:
            yield plain


def lines(path: Path, longest: int = LONGEST) -> Iterator[tuple[str, str | BadRecord]]:
    """(where, line) for each line that is not blank. A line of `longest` bytes or not of UTF-8 is a `BadRecord`.

    Raises `UserError` for a file without end: more than `MOST_VALUES` blank lines, or a line of 1 GB.
    """
    with opened(path) as file:
        number = blank = 0
        while line := file.readline(longest):
            number += 1
            where = f"{path.name} line {number}"
            if len(line) == longest:
                _skip_line(file, line)
                yield where, BadRecord("line too long")
                continue
            try:
                content = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                content = "\0"
            if "\0" in content:  # UTF-16 has zeros
                yield where, BadRecord(NOT_UTF8)
                continue
            blank += not content
            if blank > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES} of its lines are blank")
            if content:
                yield where, content


def _skip_line(file, line):
    """Read on to the end of a line."""
    for _ in range(LONGEST_SKIPPED // SHORT):
        if not line or line.endswith(b"\n"):
            return
        line = file.readline(SHORT)
    raise ValueError(f"it has a line of more than {LONGEST_SKIPPED >> 20} MB")


def json_lines(path: Path, longest: int = LONGEST) -> Iterator[tuple[str, Any]]:
    """(where, value) for each line. A line that is not JSON is a `BadRecord`."""
    for where, line in lines(path, longest):
        yield where, line if isinstance(line, BadRecord) else _value(line)


def _value(line: str):
    try:
        return parse_json(line)
    except ValueError:
        return BadRecord("line is not JSON", line[:60])


# ---- one JSON object -----------------------------------------------------------------------------


def elements(path: Path, *names: str) -> Iterator[tuple[str, Any]]:
    """(name, element) for each element of the arrays `names` in a file's outermost object, in the file's order.

    Skips other fields. Raises `UserError` if the file is cut, is not an object, or one of the arrays is missing.
    """
    arrays: set = set()
    for name, value in top_level(path, arrays):
        if name in names:
            _require_arrays(path, [name], arrays)
            yield name, value
    _require_arrays(path, names, arrays)


def _require_arrays(path, names, arrays):
    """`UserError` for the first name that is no array of the file."""
    for name in (name for name in names if name not in arrays):
        raise UserError(f"cannot read {str(path)!r}: it has no list {name!r}; repair it, or choose another --format")


def top_level(path: Path, arrays: set | None = None) -> Iterator[tuple[str, Any]]:
    """(name, value) for each field of the outermost object; for an array, (name, element) for each element.

    arrays: gets the names of the arrays, also of empty ones.
    """
    with opened(path) as file:
        window = _Window(file)
        try:
            yield from window.fields(set() if arrays is None else arrays)
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeDecodeError) or "\0" in window.text[:100]:  # UTF-16 has zeros
                raise UserError(f"cannot read {str(path)!r}: it is not UTF-8; save it as UTF-8") from error
            place = f"its JSON is cut or damaged at character {window.at}"
            why = place if window.at else "it is not a JSON object"
            raise UserError(f"cannot read {str(path)!r}: {why}; copy or download it again") from error


class _Window:
    """The part of a JSON file that is in memory. `at`: the number of characters before it."""

    def __init__(self, file):
        self.file, self.decode = file, codecs.getincrementaldecoder("utf-8-sig")().decode
        self.text, self.place, self.at, self.ended = "", 0, 0, False
        self.decoder = json.JSONDecoder()

    def fields(self, arrays):
        self.expect("{")
        while self.peek() != "}":
            name = self.value()
            self.expect(":")
            if self.peek() == "[":
                arrays.add(name)
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
                raise ValueError("a comma before the closing bracket")

    def expect(self, character):
        if self.peek() != character:
            raise ValueError(f"expected {character}")
        self.place += 1

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            blanks: Any = BLANKS.match(self.text, self.place)  # it matches everywhere
            self.place = blanks.end()
            if self.place < len(self.text) or not self.more():
                return self.text[self.place : self.place + 1]

    def value(self):
        """The value that begins here. A number is complete only if the next character is in ENDS."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
                complete = not isinstance(value, int | float) or self.text[end : end + 1] in tuple(ENDS)
                if complete or self.ended:
                    self.place = end
                    return value
            except ValueError:
                if self.ended:
                    raise
            self.more()

    def more(self) -> bool:
        """Drop the characters already read, then at least double the text in memory. False at the end of the file."""
        if self.ended:
            return False
        self.at += self.place
        self.text, self.place = self.text[self.place :], 0
        if len(self.text) > LONGEST:
            raise ValueError("an element is too long")
        data = self.file.read(max(CHUNK, len(self.text)))
        self.ended = not data
        self.text += self.decode(data, self.ended)
        if len(self.text) > 2 * CHUNK:  # one long element
            check_values(self.text)
        return True
