"""OBELICS: parquet, one page per row, `images` and `texts` of equal length; each position has exactly one of both.

The published rows hold addresses of pictures, which the user must fetch before. Here a picture is the name
of a file, or its bytes ({"bytes", "path"}, as some tools save it). Needs pyarrow, which is not a dependency
of the project. Not here: fetching.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.parquet_pages import check_pages
from tinyflamingo.data.readers.record import BadRecord, Record, Root, Skipped, each, field, media_file, sentence
from tinyflamingo.data.readers.text_files import LONGEST, reading
from tinyflamingo.errors import UserError

FILES = ("*.parquet",)
SURE = FILES
SHARDS = True
ROWS = 16  # pages in memory at a time
COLUMNS = ["images", "texts"]


def matches(head: object) -> bool:
    """False: only the name of a file shows this format."""
    return False


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of pages: pictures and texts in order."""
    return each(_rows(path), lambda row: _items(row, root))


def _rows(path):
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError("reading parquet needs pyarrow, which is missing: pip install pyarrow") from None
    with reading(path):
        whole = parquet.ParquetFile(path)
        missing = set(COLUMNS) - set(whole.schema_arrow.names)
    if missing:
        raise UserError(f"cannot read {str(path)!r}: it has no column {sorted(missing)[0]!r}; is it OBELICS?")
    number = 0
    with reading(path):
        check_pages(path, whole, COLUMNS)
        leaves = [whole.schema.column(i) for i in range(len(whole.schema))]
        # values that repeat stay numbers of a dictionary: a short page can repeat a long text a million times
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        for batch in parquet.ParquetFile(path, read_dictionary=texts).iter_batches(ROWS, columns=COLUMNS):
            for place in range(batch.num_rows):
                yield f"{path.name} row {number}", _row(batch, place)
                number += 1


def _row(batch, place):
    """{column: value} of a row, or a `BadRecord` for a row with more than `LONGEST` bytes."""
    row, left = {}, LONGEST
    for name in COLUMNS:
        scalar = batch.column(name)[place]
        values = getattr(scalar, "values", None) if scalar.is_valid else None
        if not hasattr(values, "__iter__"):  # not a list
            row[name] = scalar.as_py()
            continue
        row[name] = []
        for value in values:
            row[name].append(value.as_py())
            left -= _size(row[name][-1])
            if left < 0:
                return BadRecord("row too long")
    return row


def _size(value):
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return len(value) if isinstance(value, str | bytes) else 1


def _items(row, root):
    pictures, texts = field(row, "images", list), field(row, "texts", list)
    if len(pictures) != len(texts):
        raise BadRecord("images and texts differ in length", f"{len(pictures)} and {len(texts)}")
    items = []
    for picture, value in zip(pictures, texts, strict=True):
        if (picture is None) == (value is None):
            raise BadRecord("a position without exactly one of image and text")
        items += sentence(value) if picture is None else [_picture(picture, root)]
    if pictures and not any(isinstance(item, str) for item in items):
        raise BadRecord("no text")
    return items


def _picture(picture, root):
    if isinstance(picture, dict) and isinstance(picture.get("bytes"), bytes):
        return media_file(str(picture.get("path") or "inline"), picture["bytes"])
    name = picture.get("path") if isinstance(picture, dict) else picture
    if not isinstance(name, str):
        raise BadRecord("a picture is neither a name nor bytes", type(name).__name__)
    if "://" in name:
        raise BadRecord("a picture is an address: fetch it and give the name of the file", name)
    return root.medium(name)
