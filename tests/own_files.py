"""Small data sets in each format that the readers know, with real PNG, JPEG and mp4 files.

`WRITERS` maps a format to a function (folder) -> the path for `read_data`. Each data set has three good
records, about the same red, green and blue things. The tests of readers, store and commands use them.
"""

import base64
import io
import json
import tarfile

import numpy as np
from PIL import Image

from tinyflamingo.data.video import write_video

COLOURS = {"red": (220, 30, 40), "green": (20, 180, 60), "blue": (30, 60, 220)}
CAPTIONS = [f"a {name} thing." for name in COLOURS]


def pixels(colour, height=24, width=32):
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(colour)).save(path)


def video(path, colour, frames=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack([pixels(colour)] * frames))


def encoded(colour, kind="png"):
    file = io.BytesIO()
    Image.fromarray(pixels(colour)).save(file, kind)
    return file.getvalue()


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def folder(root):
    for name in COLOURS:
        picture(root / f"{name}.png", name)
    lines(root / "captions.jsonl", [{"file": f"{n}.png", "text": f"a {n} thing."} for n in COLOURS])
    return root


def coco(root):
    for name in COLOURS:
        picture(root / "train2017" / f"{name}.jpg", name)
    images = [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(COLOURS)]
    said = [{"id": 9 + i, "image_id": i, "caption": CAPTIONS[i]} for i in (2, 0, 1)]
    text(root / "annotations/captions_train2017.json", {"info": {}, "annotations": said, "images": images})
    return root


def karpathy(root):
    images = []
    for name, split in zip(COLOURS, ("train", "restval", "train"), strict=True):
        picture(root / "val2014" / f"{name}.jpg", name)
        said = [{"raw": f"a {name} thing.", "tokens": []}]
        images.append({"filename": f"{name}.jpg", "filepath": "val2014", "split": split, "sentences": said})
    images.append({"filename": "none.jpg", "split": "test", "sentences": [{"raw": "unseen"}]})
    return text(root / "dataset_coco.json", {"images": images, "dataset": "coco"})


def flickr30k(root):
    for name in COLOURS:
        picture(root / "flickr30k-images" / f"{name}.jpg", name)
    text(root / "results.token", "".join(f"{n}.jpg#0\ta {n} thing.\n" for n in COLOURS))
    return root


def flickr30k_csv(root):
    for name in COLOURS:
        picture(root / f"{name}.jpg", name)
    rows = "".join(f"{n}.jpg| 0| a {n} thing.\n" for n in COLOURS)
    return text(root / "results.csv", "image_name| comment_number| comment\n" + rows)


def vqav2(root):
    questions, answers = [], []
    for i, name in enumerate(COLOURS):
        picture(root / "train2014" / f"COCO_train2014_{i:012d}.jpg", name)
        questions.append({"question_id": 10 * i, "image_id": i, "question": "what color is it?"})
        answers.append({"question_id": 10 * i, "image_id": i, "multiple_choice_answer": name})
    text(root / "v2_OpenEnded_mscoco_train2014_questions.json", {"info": {}, "questions": questions})
    text(root / "v2_mscoco_train2014_annotations.json", {"annotations": answers[::-1]})
    return root


def msrvtt(root):
    videos, said = [{"video_id": "video9", "split": "test"}], [{"video_id": "video9", "caption": "unseen"}]
    for i, name in enumerate(COLOURS):
        video(root / "TrainValVideo" / f"video{i}.mp4", name)
        videos.append({"video_id": f"video{i}", "split": "train", "start time": 1.0})
        said.append({"video_id": f"video{i}", "sen_id": i, "caption": CAPTIONS[i]})
    return text(root / "train_val_videodatainfo.json", {"sentences": said, "videos": videos})


def msvd(root):
    rows = ["# remarks"]
    for i, name in enumerate(COLOURS):
        video(root / "YouTubeClips" / f"v-_x{i}_0_10.avi", name)
        rows.append(f"v-_x{i}_0_10 {CAPTIONS[i]}")
    text(root / "AllVideoDescriptions.txt", "\n".join(rows) + "\n")
    return root


def page(name, **more):
    info = {"matched_text_index": 1, "matched_sim": 0.3, "image_name": f"{name}.png", **more}
    return {"text_list": ["once upon a time,", f"a {name} thing."], "image_info": [info]}


def mmc4(root):
    picture(root / "images" / "red.png", "red")
    picture(root / "images" / "green.png", "green")
    inline = base64.b64encode(encoded("blue")).decode()
    lines(root / "shard_0.jsonl", [page("red"), page("green")])
    lines(root / "shard_1.jsonl", [page("blue", image_base64=inline), page("gone"), page("red", matched_sim=0.1)])
    return root


def obelics(root):
    import pyarrow
    import pyarrow.parquet

    for name in COLOURS:
        picture(root / f"{name}.png", name)
    rows = [{"images": [f"{n}.png", None], "texts": [None, f"a {n} thing."]} for n in COLOURS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "pages.parquet")
    return root


def member(archive, name, data, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def webdataset(root):
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "0.tar", "w") as archive:
        member(archive, "0001.jpg", encoded("red", "jpeg"))
        member(archive, "0001.txt", b"a red thing.")
        member(archive, "part.one/0002.PNG", encoded("green"))
        member(archive, "part.one/0002.json", json.dumps({"caption": "a green thing."}).encode())
    video(root / "blue.mp4", "blue")
    with tarfile.open(root / "1.tar.gz", "w:gz") as archive:
        member(archive, "0003.mp4", (root / "blue.mp4").read_bytes())
        member(archive, "0003.seg.txt", b"not the caption")
        member(archive, "0003.txt", b"a blue thing.")
    (root / "blue.mp4").unlink()
    return root


WRITERS = {f.__name__: f for f in (
    folder, coco, karpathy, flickr30k, vqav2, msrvtt, msvd, mmc4, obelics, webdataset,
)}  # fmt: skip
