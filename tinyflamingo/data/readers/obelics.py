"""OBELICS: parquet, one page per row, `images` and `texts` of equal length; each position has exactly one of both.

The published rows hold addresses of pictures, which the user must fetch before. Here a picture is the name
of a file, or its bytes ({"bytes", "path"}, as some tools save it). Needs pyarrow, which is not a dependency
of the project. Not here: fetching.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import BadRecord, Record, Root, Skipped, each, field, media_file, sentence
from tinyflamingo.data.readers.text_files import reading
from tinyflamingo.errors import UserError
from tinyflamingo.files import MOST_VALUES, UNPACKED

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
        file = parquet.ParquetFile(path)
        missing = set(COLUMNS) - set(file.schema_arrow.names)
    if missing:
        raise UserError(f"cannot read {str(path)!r}: it has no column {sorted(missing)[0]!r}; is it OBELICS?")
    _check_sizes(path, file.metadata)
    number = 0
    with reading(path):
        for batch in file.iter_batches(ROWS, columns=COLUMNS):
            for place in range(batch.num_rows):
                yield f"{path.name} row {number}", batch.slice(place, 1).to_pylist()[0]
                number += 1


def _check_sizes(path, metadata):
    """`UserError` for columns that unpack to much more than they take in the file, before they are read."""
    times, more = UNPACKED
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        leaves = [group.column(i) for i in range(group.num_columns)]
        leaves = [leaf for leaf in leaves if leaf.path_in_schema.split(".")[0] in COLUMNS]
        packed = times * sum(leaf.total_compressed_size for leaf in leaves)
        unpacked = sum(leaf.total_uncompressed_size for leaf in leaves)
        values = group.num_rows + sum(leaf.num_values for leaf in leaves)
        if unpacked > packed + more or values > packed + MOST_VALUES:
            why = "its pages are much larger than the file; write the file again with plain values"
            raise UserError(f"cannot read {str(path)!r}: {why}")


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
