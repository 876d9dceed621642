"""How much the pages of a parquet file unpack to, by the pages' own heads, before any page is read.

The facts at the end of the file can be wrong. A library believes the head in front of each page: it says the size of
the page and the number of its values. A head is a struct in Thrift's compact protocol: for each field a byte with the
kind of the value and the step to the field's number, and the value. A number is written in groups of 7 bits.

Serves the reader `obelics.py`. Not here: the values (pyarrow reads them).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tinyflamingo.files import MOST_VALUES, UNPACKED, open_regular

LONGEST_TEXT = 1 << 20  # bytes of a text in a head: the smallest and the largest value of the page
UNPACKED_SIZE, PACKED_SIZE, COUNTS = 2, 3, (5, 7, 8)  # fields of a head; COUNTS: data page, dictionary, data page 2
DEPTH = 8  # structs in structs; a head has 3
TRUE, FALSE, BYTE, DOUBLE, TEXT, STRUCT = 1, 2, 3, 7, 8, 12  # kinds of values
NUMBERS = 4, 5, 6


def check_pages(path: Path, file: Any, columns: list[str]) -> None:
    """`ValueError` if these columns of an open `ParquetFile` unpack to much more than they take in the file."""
    times, more = UNPACKED
    widths = [file.schema.column(i).length for i in range(len(file.schema))]  # of values of a fixed length
    with open_regular(path) as plain:
        for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
            leaves = [(group.column(i), widths[i]) for i in range(group.num_columns)]
            leaves = [leaf for leaf in leaves if leaf[0].path_in_schema.split(".")[0] in columns]
            packed = times * sum(leaf.total_compressed_size for leaf, _ in leaves)
            size, count = 0, group.num_rows
            for leaf, width in leaves:
                for unpacked, values in _pages(plain, leaf):
                    size, count = size + unpacked + values * max(width, 0), count + 1 + values
                    if size > packed + more or count > packed + MOST_VALUES:
                        raise ValueError("its pages are much larger than the file; write it again with plain values")


def _pages(file: BinaryIO, leaf) -> Iterator[tuple[int, int]]:
    """(bytes after unpacking, number of values) of each page of a column."""
    place = leaf.data_page_offset
    if leaf.has_dictionary_page and 0 < leaf.dictionary_page_offset < place:
        place = leaf.dictionary_page_offset
    end = place + leaf.total_compressed_size
    while place < end:
        head = _head(file, place)
        parts = [head[number] for number in COUNTS if number in head]
        counts = [part.get(1, 0) for part in parts if isinstance(part, dict)]
        sizes = [head[UNPACKED_SIZE], head[PACKED_SIZE], *counts]
        if len(counts) < len(parts) or not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("a page has a size that is not a number or is below 0")
        yield head[UNPACKED_SIZE], sum(counts)
        place = file.tell() + head[PACKED_SIZE]


def _head(file, place) -> dict:
    file.seek(place)
    try:
        head = _struct(file)
        if {UNPACKED_SIZE, PACKED_SIZE} <= head.keys():
            return head
    except LookupError:
        pass
    raise ValueError(f"no page begins at byte {place}")


def _struct(file, depth=DEPTH) -> dict:
    """{number of a field: its value}. Raises `LookupError` at the end of the file, or `ValueError`."""
    if not depth:
        raise ValueError("a page has no head")
    fields, number = {}, 0
    while head := file.read(1)[0]:
        number = number + (head >> 4) if head >> 4 else _signed(file)
        fields[number] = _value(file, head & 15, depth - 1)
    return fields


def _value(file, kind, depth):
    if kind in (FALSE, TRUE):
        return kind == TRUE
    if kind in NUMBERS:
        return _signed(file)
    if kind == STRUCT:
        return _struct(file, depth)
    length = _number(file) if kind == TEXT else {BYTE: 1, DOUBLE: 8}.get(kind, LONGEST_TEXT + 1)
    if length > LONGEST_TEXT:
        raise ValueError("a page has no head")
    return file.read(length)


def _number(file) -> int:
    """A number of at most ten groups of 7 bits, the lowest first; the highest bit says that another group follows."""
    number = 0
    for place in range(0, 70, 7):
        byte = file.read(1)[0]
        number |= (byte & 127) << place
        if byte < 128:
            return number
    raise ValueError("a number in the head of a page has no end")


def _signed(file) -> int:
    number = _number(file)
    return -(number >> 1) - 1 if number & 1 else number >> 1
