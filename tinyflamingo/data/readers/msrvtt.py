"""MSR-VTT: one JSON object, `videos` [{video_id, split}] and `sentences` [{video_id, caption}].

Every sentence makes a record; its video is `video_id` with .mp4 after it. Training reads the split `train`;
where the splits are in a separate table, every video without one. In memory are the videos' splits. Not here:
cutting clips out of the original films (the published clips are cut already).
"""

from __future__ import annotations

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, Root, each, left_out, words
from tinyflamingo.data.readers.text_files import elements

FILES = ("*videodatainfo*.json", "MSRVTT*.json", "*.json")
SURE = ()
SHARDS = False


def matches(head) -> bool:
    """Whether the first element of an array of a JSON file, with the array's name, looks like it."""
    name, element = head
    return name in ("videos", "sentences") and isinstance(element, dict) and "video_id" in element


def read(path, root: Root):
    """Records of video and sentence."""
    splits = {}
    for _, video in elements(path, "videos"):
        try:
            name = words(video, "video_id")
            splits[name] = words(video, "split") if "split" in video else "train"
        except BadRecord:
            continue  # its sentences will miss it

    def build(row):
        name = words(row, "video_id")
        if name not in splits:
            raise BadRecord("no such video_id", name)
        if splits[name] != "train":
            raise left_out(f"of the split {splits[name][:20]!r}")
        caption = words(row, "caption")
        return [root.medium(f"{name}.mp4"), OUTPUT, caption]

    found = enumerate(elements(path, "sentences"))
    return each(((f"{path.name} sentence {i}", row) for i, (_, row) in found), build)
