"""A folder of pictures and videos with `captions.jsonl`: one {"file": …, "text": …} per line.

This is the project's own format, for the user's own data. The file of a line is in the folder or below it. A line can
also have a "class", by default its text, and a "group": an artist, a scene, or another source of several records.
Not here: formats in which text and pictures alternate (`mmc4.py`, `obelics.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import OUTPUT, Record, Root, Skipped, each, field, label, words
from tinyflamingo.data.readers.text_files import SHORT, json_lines

FILES = ("captions.jsonl", "*.jsonl")
SURE = ("captions.jsonl",)
SHARDS = False
FIELDS = ("file", "text", "class", "group")


def matches(head: object) -> bool:
    """Whether the first value of a JSONL file has this format."""
    return isinstance(head, dict) and {"file", "text"} <= set(head)


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of a picture or video, and its caption."""

    def build(row):
        unknown = tuple(name for name in row if name not in FIELDS) if isinstance(row, dict) else ()
        items = [root.medium(field(row, "file", str)), OUTPUT, words(row, "text")]
        return Record("", items, label(row, "class"), label(row, "group"), unknown=unknown)

    return each(json_lines(path, SHORT), build)
