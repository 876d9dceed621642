"""MMC4 pages: JSONL, one document per line, `text_list` [str] and `image_info` [{matched_text_index, …}].

A picture comes before its matched sentence. It is a file, `image_name`, or inline, `image_base64`. Pictures
that match badly or have no file (many addresses no longer work) are left out of their page; a page that
loses all its pictures is left out itself. A blank sentence is left out too. Not here: fetching pictures.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import (
    BadRecord,
    Record,
    Root,
    Skipped,
    each,
    field,
    left_out,
    media_file,
    sentence,
)
from tinyflamingo.data.readers.text_files import json_lines

FILES = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zip")
SURE = ()
SHARDS = True
LEAST_SIMILAR = 0.24  # OpenFlamingo leaves a picture out if its cosine with the sentence is below this


def matches(head: object) -> bool:
    """Whether the first value of a JSONL file has this format."""
    return isinstance(head, dict) and {"text_list", "image_info"} <= set(head)


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of pages: pictures and sentences in order."""

    def build(page):
        sentences = field(page, "text_list", list)
        before = defaultdict(list)
        for info in field(page, "image_info", list):
            index = field(info, "matched_text_index", int)
            if not 0 <= index < len(sentences):
                raise BadRecord("matched_text_index out of range", index)
            before[index] += _picture(info, root)
        if not any(before.values()):
            raise left_out("no picture of the page is present")
        items = []
        for i, value in enumerate(sentences):
            items += before[i] + sentence(value)
        if not any(isinstance(item, str) for item in items):
            raise BadRecord("no text")
        return items

    return each(json_lines(path), build)


def _picture(info, root) -> list:
    """[picture], or [] if it is left out."""
    similarity = info.get("matched_sim", 1.0)
    if not isinstance(similarity, int | float):
        raise BadRecord("'matched_sim' is not a number", type(similarity).__name__)
    if not similarity >= LEAST_SIMILAR:  # also true for NaN
        return []
    if "image_base64" in info:
        try:
            inline = base64.b64decode(field(info, "image_base64", str), validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRecord("'image_base64' is not base64") from error
        return [media_file(str(info.get("image_name", "inline")), inline)]
    try:
        return [root.medium(field(info, "image_name", str))]
    except BadRecord as error:
        if error.why != "file missing":
            raise
        return []
