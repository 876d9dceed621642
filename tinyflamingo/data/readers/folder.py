"""A plain folder of pictures and videos with `captions.jsonl`: one {"file": …, "text": …} a line.

The format for data of one's own; every other one is somebody else's. A line's file lies in the folder
or below it. Not here: formats in which text and pictures alternate (`mmc4.py`, `obelics.py`).
"""

from __future__ import annotations

from tinyflamingo.data.readers.record import OUTPUT, Root, each, field, words
from tinyflamingo.data.readers.text_files import json_lines

FILES = ("captions.jsonl", "*.jsonl")
SURE = ("captions.jsonl",)
SHARDS = False


def matches(head) -> bool:
    """Whether the first value of a JSONL file looks like it."""
    return isinstance(head, dict) and {"file", "text"} <= set(head)


def read(path, root: Root):
    """Records of picture or video, and caption."""
    return each(json_lines(path), lambda row: [root.medium(field(row, "file", str)), OUTPUT, words(row, "text")])
