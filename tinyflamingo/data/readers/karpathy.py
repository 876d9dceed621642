"""Karpathy's splits of COCO and Flickr30k: one JSON object, `images` [{filename, split, sentences: [{raw}]}].

Every sentence makes a record. Training reads `train` and `restval` (the rest of COCO's validation set,
which these splits give to training); `val` and `test` are left out. COCO's images also name their folder,
`filepath`. Not here: features and tokens that such files carry, too.
"""

from __future__ import annotations

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Root, each, field, left_out, words
from tinyflamingo.data.readers.text_files import elements

FILES = ("dataset_*.json", "dataset.json", "*.json")
SURE = ()
SHARDS = False
TRAIN = ("train", "restval")


def matches(head) -> bool:
    """Whether the first element of an array of a JSON file, with the array's name, looks like it."""
    name, element = head
    return name == "images" and isinstance(element, dict) and {"filename", "sentences"} <= set(element)


def read(path, root: Root):
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
