"""MSVD: lines of `video_start_end caption`, the clip being `video_start_end.avi` (or .mp4).

Lines that begin with # are remarks. If `train_list.txt` lies beside the file, only the clips it names
are read. The captions are also passed around as a pickle; pickles run code, so none is opened here:
write its entries as lines instead. Not here: other files of words and features.
"""

from __future__ import annotations

import re

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Root, each, left_out, text
from tinyflamingo.data.readers.text_files import lines

FILES = ("AllVideoDescriptions.txt", "*.txt")
SURE = ("AllVideoDescriptions.txt",)
SHARDS = False
LINE = re.compile(r"([\w-]+_\d+_\d+)\s+(.+)")


def matches(head) -> bool:
    """Whether the first line of a text file looks like it."""
    return isinstance(head, str) and bool(LINE.fullmatch(head))


def read(path, root: Root):
    """Records of video and caption."""
    train = path.parent / "train_list.txt"
    only = {line.split()[0] for _, line in lines(train) if isinstance(line, str)} if train.is_file() else None

    def build(line):
        found = LINE.fullmatch(line)
        if not found:
            raise BadRecord("line is not clip and caption", line[:60])
        if only is not None and found[1] not in only:
            raise left_out("not in train_list.txt")
        return [_clip(root, found[1]), OUTPUT, text(found[2])]

    rows = (row for row in lines(path) if isinstance(row[1], BadRecord) or not row[1].startswith("#"))
    return each(rows, build)


def _clip(root, name):
    try:
        return root.medium(f"{name}.avi")
    except BadRecord as error:
        if error.why != "file missing":
            raise
        return root.medium(f"{name}.mp4")
