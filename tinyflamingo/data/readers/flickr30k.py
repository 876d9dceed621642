"""Flickr30k: lines of `name.jpg#k<TAB>caption`, or the copy of it that has `name.jpg| k| caption`.

Every caption makes a record. The copy with bars has a line of headings and a few lines that lack a
field; those are skipped as bad. Not here: the JSON of Karpathy's split (`karpathy.py`).
"""

from __future__ import annotations

import re

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Root, each, text
from tinyflamingo.data.readers.text_files import lines

FILES = ("*.token", "results.csv", "*.txt", "*.csv")
SURE = ()
SHARDS = False
TABBED = re.compile(r"([^\t|#]+)#\d+\t(.+)")
BARRED = re.compile(r"([^|]+)\|\s*\d+\s*\|(.+)")
HEADING = re.compile(r"image_name\s*\|")


def matches(head) -> bool:
    """Whether the first line of a text file looks like it."""
    return isinstance(head, str) and any(form.match(head) for form in (TABBED, BARRED, HEADING))


def read(path, root: Root):
    """Records of picture and caption."""

    def build(line):
        found = TABBED.fullmatch(line) or BARRED.fullmatch(line)
        if not found:
            raise BadRecord("line is not name, number and caption", line[:60])
        return [root.medium(found[1].strip()), OUTPUT, text(found[2])]

    return each((row for row in lines(path) if isinstance(row[1], BadRecord) or not HEADING.match(row[1])), build)
