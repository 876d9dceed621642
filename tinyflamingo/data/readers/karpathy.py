"""Karpathy's splits of COCO and Flickr30k: one JSON object, `images` [{filename, split, sentences: [{raw}]}].

Each sentence is a record. Training reads `train` and `restval` (the part of COCO's validation set that
belongs to training in these splits); `val` and `test` are left out. Images of COCO also give their folder,
`filepath`. Not here: the features and tokens in such files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Record, Root, Skipped, each, field, left_out, words
from tinyflamingo.data.readers.text_files import elements

FILES = ("dataset_*.json", "dataset.json", "*.json")
SURE = ()
SHARDS = False
TRAIN = ("train", "restval")


def matches(head: tuple) -> bool:
    """Whether (name, first element) of an array in a JSON file has this format."""
    name, element = head
    return name == "images" and isinstance(element, dict) and {"filename", "sentences"} <= set(element)


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of picture and sentence."""

    def rows():
        for i, (_, image) in enumerate(elements(path, "images")):
            where = f"{path.name} image {i}"
            try:
                for k, sentence in enumerate(field(image, "sentences", list)):
                    yield f"{where} sentence {k}", (image, sentence)
            except BadRecord as error:
                yield where, error

    def build(row):
        image, sentence = row
        split = words(image, "split")
        if split not in TRAIN:
            raise left_out(f"of the split {split[:20]!r}")
        hint = field(image, "filepath", str) if "filepath" in image else ""
        return [root.medium(field(image, "filename", str), hint), OUTPUT, words(sentence, "raw")]

    return each(rows(), build)
