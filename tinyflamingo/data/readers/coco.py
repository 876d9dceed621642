"""COCO captions: one JSON object, `images` [{id, file_name}] and `annotations` [{image_id, caption}].

Every caption makes a record. `file_name` is relative to a folder named after the split, which the
annotation file's own name tells (`captions_train2017.json`: `train2017`). Only the names of the files
are kept in memory. Not here: boxes, masks, and the split of Karpathy (`karpathy.py`).
"""

from __future__ import annotations

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Root, each, field, words
from tinyflamingo.data.readers.text_files import elements

FILES = ("captions_*.json", "annotations/captions_*.json", "*.json", "annotations/*.json")
SURE = ()
SHARDS = False


def matches(head) -> bool:
    """Whether the first element of an array of a JSON file, with the array's name, looks like it."""
    name, element = head
    keys = set(element) if isinstance(element, dict) else set()
    return (name == "images" and {"id", "file_name"} <= keys) or (
        name == "annotations" and {"image_id", "caption"} <= keys
    )


def read(path, root: Root):
    """Records of picture and caption."""
    names = {}
    for _, image in elements(path, "images"):
        try:
            names[field(image, "id", int)] = field(image, "file_name", str)
        except BadRecord:
            continue  # its captions will miss it
    split = path.name.split(".")[0].removeprefix("captions_")

    def build(row):
        number = field(row, "image_id", int)
        if number not in names:
            raise BadRecord("no such image_id", number)
        return [root.medium(names[number], split), OUTPUT, words(row, "caption")]

    found = enumerate(elements(path, "annotations"))
    return each(((f"{path.name} annotation {i}", row) for i, (_, row) in found), build)
