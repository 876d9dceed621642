"""OBELICS: parquet, a page a row, `images` and `texts` of one length, exactly one of the two at each place.

The published rows hold addresses of pictures, which have to be fetched beforehand: here a picture is
the name of a file, or its bytes ({"bytes", "path"}, as some tools save it). Needs pyarrow, which is no
dependency of the project's. Not here: fetching.
"""

from __future__ import annotations

from tinyflamingo.data.readers.record import BadRecord, MediaFile, Root, each, field, text
from tinyflamingo.data.readers.text_files import told
from tinyflamingo.errors import UserError

FILES = ("*.parquet",)
SURE = FILES
SHARDS = True
ROWS = 16  # pages in memory at once


def matches(head) -> bool:
    """Parquet is told by its name alone."""
    return False


def read(path, root: Root):
    """Records of pages: pictures and texts in their order."""
    return each(_rows(path), lambda row: _items(row, root))


def _rows(path):
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError("reading parquet needs pyarrow, which is missing: pip install pyarrow") from None
    with told(path):
        file = parquet.ParquetFile(path)
        missing = {"images", "texts"} - set(file.schema_arrow.names)
    if missing:
        raise UserError(f"cannot read {str(path)!r}: it has no column {sorted(missing)[0]!r}; is it OBELICS?")
    number = 0
    with told(path):
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
            raise BadRecord("not exactly one of image and text")
        items.append(text(sentence) if picture is None else _picture(picture, root))
    return items


def _picture(picture, root):
    if isinstance(picture, dict) and isinstance(picture.get("bytes"), bytes):
        return MediaFile("picture", str(picture.get("path") or "inline"), picture["bytes"])
    name = picture.get("path") if isinstance(picture, dict) else picture
    if not isinstance(name, str):
        raise BadRecord("a picture is neither a name nor bytes", type(name).__name__)
    if "://" in name:
        raise BadRecord("a picture is an address: fetch it and put the file's name in its place", name)
    return root.medium(name)
