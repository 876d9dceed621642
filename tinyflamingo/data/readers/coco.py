"""COCO captions: one JSON object, `images` [{id, file_name}] and `annotations` [{image_id, caption}].

Each caption is a record. `file_name` is relative to a folder with the name of the split, which is part of
the annotation file's name (`captions_train2017.json`: `train2017`). Only the file names are kept in memory.
Not here: boxes, masks, and Karpathy's split (`karpathy.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Record, Root, Skipped, each, field, words
from tinyflamingo.data.readers.text_files import elements

FILES = ("captions_*.json", "annotations/captions_*.json", "*.json", "annotations/*.json")
SURE = ()
SHARDS = False


def matches(head: tuple) -> bool:
    """Whether (name, first element) of an array in a JSON file has this format."""
    name, element = head
    keys = set(element) if isinstance(element, dict) else set()
    return (name == "images" and {"id", "file_name"} <= keys) or (
        name == "annotations" and {"image_id", "caption"} <= keys
    )


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of picture and caption."""
    names = {}
    for _, image in elements(path, "images"):
        try:
            names[field(image, "id", int)] = field(image, "file_name", str)
        except BadRecord:
            continue  # its captions are reported: no such image_id
    split = path.name.split(".")[0].removeprefix("captions_")

    def build(row):
        number = field(row, "image_id", int)
        if number not in names:
            raise BadRecord("no such image_id", number)
        return [root.medium(names[number], split), OUTPUT, words(row, "caption")]

    rows = enumerate(elements(path, "annotations"))
    return each(((f"{path.name} annotation {i}", row) for i, (_, row) in rows), build)
