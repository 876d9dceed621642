"""MSVD: lines of `video_start_end caption`; the clip is the file `video_start_end.avi` (or .mp4).

Lines that begin with # are comments. If `train_list.txt` is beside the file, only the clips in that list
are read. Some copies of the captions are a pickle. A pickle can run code, so it is not read: write its
entries as lines. Not here: other files of words and features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Record, Root, Skipped, each, left_out, own_files, text
from tinyflamingo.data.readers.text_files import SHORT, lines

FILES = ("AllVideoDescriptions.txt", "*.txt")
SURE = ("AllVideoDescriptions.txt",)
SHARDS = False
LINE = re.compile(r"([\w-]+_\d+_\d+)\s+(.+)")


def matches(head: object) -> bool:
    """Whether the first line of a text file has this format."""
    return isinstance(head, str) and bool(LINE.fullmatch(head))


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of video and caption."""
    only = None
    for train in own_files(path.parent, "train_list.txt"):
        only = {line.split()[0] for _, line in lines(train, SHORT) if isinstance(line, str)}

    def build(line):
        match = LINE.fullmatch(line)
        if not match:
            raise BadRecord("line is not clip and caption", line[:60])
        if only is not None and match[1] not in only:
            raise left_out("not in train_list.txt")
        return [root.clip(match[1], (".avi", ".mp4")), OUTPUT, text(match[2])]

    rows = (row for row in lines(path, SHORT) if isinstance(row[1], BadRecord) or not row[1].startswith("#"))
    return each(rows, build)
