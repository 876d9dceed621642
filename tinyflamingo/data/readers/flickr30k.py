"""Flickr30k: lines of `name.jpg#k<TAB>caption`, or `name.jpg| k| caption` in another published copy.

Each caption is a record. The copy with bars has a heading line, and a few of its lines lack a field: these
are bad records. Not here: the JSON of Karpathy's split (`karpathy.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Record, Root, Skipped, each, text
from tinyflamingo.data.readers.text_files import SHORT, lines

FILES = ("*.token", "results.csv", "*.txt", "*.csv")
SURE = ()
SHARDS = False
TABBED = re.compile(r"([^\t|#]+)#\d+\t(.+)")
BARRED = re.compile(r"([^|]+)\|\s*\d+\s*\|(.+)")
HEADING = re.compile(r"image_name\s*\|")


def matches(head: object) -> bool:
    """Whether the first line of a text file has this format."""
    return isinstance(head, str) and any(form.match(head) for form in (TABBED, BARRED, HEADING))


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of picture and caption."""

    def build(line):
        match = TABBED.fullmatch(line) or BARRED.fullmatch(line)
        if not match:
            raise BadRecord("line is not name, number and caption", line[:60])
        return [root.medium(match[1].strip()), OUTPUT, text(match[2])]

    rows = lines(path, SHORT)
    return each((row for row in rows if isinstance(row[1], BadRecord) or not HEADING.match(row[1])), build)
