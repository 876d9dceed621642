"""OBELICS: parquet, one page per row, `images` and `texts` of equal length; each position has exactly one of both.

The published rows hold addresses of pictures, which the user must fetch before. Here a picture is the name
of a file, or its bytes ({"bytes", "path"}, as some tools save it). Needs pyarrow, which is not a dependency
of the project. Not here: fetching.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import BadRecord, Record, Root, Skipped, each, field, media_file, text
from tinyflamingo.data.readers.text_files import reading
from tinyflamingo.errors import UserError

FILES = ("*.parquet",)
SURE = FILES
SHARDS = True
ROWS = 16  # pages in memory at a time


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
        missing = {"images", "texts"} - set(file.schema_arrow.names)
    if missing:
        raise UserError(f"cannot read {str(path)!r}: it has no column {sorted(missing)[0]!r}; is it OBELICS?")
    number = 0
    with reading(path):
        for batch in file.iter_batches(ROWS, columns=["images", "texts"]):
            for row in batch.to_pylist():
                yield f"{path.name} row {number}", row
                number += 1


def _items(row, root):
    pictures, texts = field(row, "images", list), field(row, "texts", list)
    if len(pictures) != len(texts):
        raise BadRecord("images and texts differ in length", f"{len(pictures)} and {len(texts)}")
    items = []
    for picture, sentence in zip(pictures, texts, strict=True):
        if (picture is None) == (sentence is None):
            raise BadRecord("a position without exactly one of image and text")
        items.append(text(sentence) if picture is None else _picture(picture, root))
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
