"""MSR-VTT: one JSON object, `videos` [{video_id, split}] and `sentences` [{video_id, caption}].

Each sentence is a record; its video is the file `video_id`.mp4. Training reads the split `train`, and all
videos without a split (in some releases the splits are in a separate table). Only the splits are kept in
memory. Not here: cutting the clips out of the original films (the published clips are already cut).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Record, Root, Skipped, each, left_out, words
from tinyflamingo.data.readers.text_files import elements

FILES = ("*videodatainfo*.json", "MSRVTT*.json", "*.json")
SURE = ()
SHARDS = False


def matches(head: tuple) -> bool:
    """Whether (name, first element) of an array in a JSON file has this format."""
    name, element = head
    return name in ("videos", "sentences") and isinstance(element, dict) and "video_id" in element


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of video and sentence."""
    splits = {}
    for _, video in elements(path, "videos"):
        try:
            name = words(video, "video_id")
            splits[name] = words(video, "split") if "split" in video else "train"
        except BadRecord:
            continue  # its sentences are reported: no such video_id

    def build(row):
        name = words(row, "video_id")
        if name not in splits:
            raise BadRecord("no such video_id", name)
        if splits[name] != "train":
            raise left_out(f"of the split {splits[name][:20]!r}")
        caption = words(row, "caption")
        return [root.clip(name, (".mp4",)), OUTPUT, caption]

    rows = enumerate(elements(path, "sentences"))
    return each(((f"{path.name} sentence {i}", row) for i, (_, row) in rows), build)
