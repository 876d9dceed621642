"""MMC4-style pages: JSONL, a document a line, `text_list` [str] and `image_info` [{matched_text_index, …}].

A picture stands before the sentence it is matched with. It is a file, `image_name`, or is inline,
`image_base64`. Pictures that match badly and those whose files are not there (addresses die) are
left out of their page; a page that loses all of them is left out itself. Not here: fetching pictures.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict

from tinyflamingo.data.readers.record import BadRecord, MediaFile, Root, each, field, left_out, text
from tinyflamingo.data.readers.text_files import json_lines

FILES = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zip")
SURE = ()
SHARDS = True
LEAST_SIMILAR = 0.24  # below this cosine of picture and sentence, OpenFlamingo leaves a picture out


def matches(head) -> bool:
    """Whether the first value of a JSONL file looks like it."""
    return isinstance(head, dict) and {"text_list", "image_info"} <= set(head)


def read(path, root: Root):
    """Records of pages: pictures and sentences in their order."""

    def build(page):
        sentences = field(page, "text_list", list)
        before = defaultdict(list)
        for info in field(page, "image_info", list):
            index = field(info, "matched_text_index", int)
            if not 0 <= index < len(sentences):
                raise BadRecord("matched_text_index out of range", index)
            before[index] += _picture(info, root)
        if not any(before.values()):
            raise left_out("no picture of the page is there")
        items = []
        for i, sentence in enumerate(sentences):
            items += before[i] + [text(sentence)]
        return items

    return each(json_lines(path), build)


def _picture(info, root) -> list:
    """The picture in a list, or an empty one."""
    similarity = info.get("matched_sim", 1.0)
    if not isinstance(similarity, int | float):
        raise BadRecord("'matched_sim' is no number", type(similarity).__name__)
    if not similarity >= LEAST_SIMILAR:  # also of NaN
        return []
    if "image_base64" in info:
        try:
            inline = base64.b64decode(field(info, "image_base64", str), validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRecord("'image_base64' is no base64") from error
        return [MediaFile("picture", str(info.get("image_name", "inline")), inline)]
    try:
        return [root.medium(field(info, "image_name", str))]
    except BadRecord as error:
        if error.why != "file missing":
            raise
        return []
