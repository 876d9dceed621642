"""Several texts for a picture, in all formats: no held-out record shows a picture that training sees.

Every data set here has PICTURES different pictures or videos and TEXTS records for each. The records of a picture are
not neighbours, and they name its file in different ways if the format allows it.
"""

import base64
import io
import json
import tarfile

import numpy as np
import pytest
from own_files import lines, member, text
from PIL import Image

from tinyflamingo.data.held_out import SEED
from tinyflamingo.data.readers import FORMATS, decode
from tinyflamingo.data.readers.check import check_data
from tinyflamingo.data.store import Stored, prepare
from tinyflamingo.data.video import write_video

PICTURES, TEXTS = 40, 3
EACH = [(k, i) for k in range(TEXTS) for i in range(PICTURES)]  # (number of the text, number of the picture)


def encoded(i, kind="png"):
    file = io.BytesIO()
    noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def files(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(PICTURES):
        (folder / name.format(i)).write_bytes(encoded(i, "jpeg" if name.endswith("jpg") else "png"))


def clips(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(PICTURES):
        write_video(folder / name.format(i), np.random.default_rng(i).integers(0, 256, (2, 16, 16, 3), np.uint8))


def words(k, i):
    return f"text {k} of picture {i}"


def folder(root):
    files(root / "in", "{}.png")
    names = ("in/{}.png", "./in//{}.png", "{}.png")
    lines(root / "captions.jsonl", [{"file": names[k].format(i), "text": words(k, i)} for k, i in EACH])


def coco(root):
    files(root / "train2017", "{}.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(PICTURES)]
    said = [{"id": k * PICTURES + i, "image_id": i, "caption": words(k, i)} for k, i in EACH]
    text(root / "annotations/captions_train2017.json", {"annotations": said, "images": images})


def karpathy(root):
    files(root / "val2014", "{}.jpg")
    images = []
    for half in range(2):  # each picture twice, once with its folder
        for i in range(PICTURES):
            said = [{"raw": words(k, i)} for k in range(half, half + 2)]
            images.append({"filename": f"{i}.jpg", "split": "train", "sentences": said})
            images[-1] |= {"filepath": "val2014"} if half else {}
    text(root / "dataset_coco.json", {"images": images})


def flickr30k(root):
    files(root / "flickr30k-images", "{}.jpg")
    text(root / "results.token", "".join(f"{i}.jpg#{k}\t{words(k, i)}\n" for k, i in EACH))


def vqav2(root):
    files(root / "train2014", "COCO_train2014_{:012d}.jpg")
    keys = [{"question_id": k * PICTURES + i, "image_id": i} for k, i in EACH]
    asked = [key | {"question": words(k, i)} for key, (k, i) in zip(keys, EACH, strict=True)]
    text(root / "v2_OpenEnded_mscoco_train2014_questions.json", {"questions": asked})
    answers = [key | {"multiple_choice_answer": "yes"} for key in keys]
    text(root / "v2_mscoco_train2014_annotations.json", {"annotations": answers})


def msrvtt(root):
    clips(root / "TrainValVideo", "video{}.mp4")
    videos = [{"video_id": f"video{i}", "split": "train"} for i in range(PICTURES)]
    said = [{"video_id": f"video{i}", "caption": words(k, i)} for k, i in EACH]
    text(root / "train_val_videodatainfo.json", {"sentences": said, "videos": videos})


def msvd(root):
    clips(root / "YouTubeClips", "v{}_0_9.avi")
    text(root / "AllVideoDescriptions.txt", "".join(f"v{i}_0_9 {words(k, i)}\n" for k, i in EACH))


def mmc4(root):
    files(root / "images", "{}.png")

    def page(k, i):
        info = {"matched_text_index": 0, "image_name": f"images/{i}.png"}
        inline = {"image_base64": base64.b64encode(encoded(i)).decode()} if k else {}
        return {"text_list": [words(k, i)], "image_info": [info | inline]}

    for k in range(TEXTS):
        lines(root / f"shard_{k}.jsonl", [page(k, i) for i in range(PICTURES)])


def obelics(root):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root.mkdir()
    rows = [
        {"images": [{"bytes": encoded(i), "path": None}, None], "texts": [None, words(k, i)]} for k, i in EACH
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "pages.parquet")


def webdataset(root):
    root.mkdir()
    for k in range(TEXTS):
        with tarfile.open(root / f"{k}.tar", "w") as archive:
            for i in range(PICTURES):
                member(archive, f"{k}-{i:04d}.png", encoded(i))
                member(archive, f"{k}-{i:04d}.json", json.dumps({"caption": words(k, i)}).encode())


WRITERS = (folder, coco, karpathy, flickr30k, vqav2, msrvtt, msvd, mmc4, obelics, webdataset)
each_format = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    sources = []
    for name in ("load_picture", "load_video"):
        load = getattr(decode, name)
        monkeypatch.setattr(decode, name, lambda *a, load=load, **o: sources.append(a[0]) or load(*a, **o))
    return sources


def shown(store, numbers):
    """Pixels of all pictures and videos of some records."""
    media = [item for number in numbers for item in store.items(int(number)) if isinstance(item, Stored)]
    return {store.frames(medium).tobytes() for medium in media}


def test_all_formats_are_here():
    assert {write.__name__ for write in WRITERS} == set(FORMATS)


@each_format
def test_held_out_records_show_no_picture_of_training(tmp_path, write):
    write(tmp_path / "source")
    store = prepare(tmp_path / "source", tmp_path / "store", 16)
    assert store.card["format"] == write.__name__ and len(shown(store, range(len(store)))) == PICTURES
    held_out = shown(store, store.held_out)
    assert len(held_out) == 2 and not held_out & shown(store, store.training)
    assert len(store.held_out) == len(store) // 20  # two of 40 pictures, with all their records
    assert sorted([*store.held_out, *store.training]) == list(range(len(store)))


@each_format
def test_a_picture_is_decoded_and_kept_once(tmp_path, write, decoded):
    write(tmp_path / "source")
    store = prepare(tmp_path / "source", tmp_path / "store", 16)
    # a picture of MMC4 is here a file and inline: both are decoded
    times = 2 if write is mmc4 else 1
    assert len(decoded) == times * PICTURES == len(store.firsts) - 1
    decoded.clear()
    report = list(check_data(tmp_path / "source"))
    assert len(decoded) == times * PICTURES
    kind = "videos" if write in (msrvtt, msvd) else "pictures"
    assert f" {times * PICTURES} {kind}," in next(line for line in report if line.startswith("content:"))


def test_copies_of_a_file_are_one_picture(tmp_path):
    """Training and held-out records differ in the pixels that the model sees, not only in names."""
    files(tmp_path / "source" / "a", "{}.png")
    files(tmp_path / "source" / "b", "copy-{}.png")
    rows = [{"file": f"{name}{i}.png", "text": "a"} for name in ("", "copy-") for i in range(PICTURES)]
    lines(tmp_path / "source" / "captions.jsonl", rows)
    store = prepare(tmp_path / "source", tmp_path / "store", 16)
    assert len(store.held_out) == 4 and not shown(store, store.held_out) & shown(store, store.training)


def test_a_picture_and_a_video_that_shows_it_stay_together(tmp_path):
    """The videos begin with a frame of one colour, which alone joins nothing."""
    files(tmp_path, "{}.png")
    for i in range(PICTURES):
        black, frame = (
            Image.fromarray(a) for a in (np.zeros((16, 16, 3), np.uint8), np.asarray(Image.open(tmp_path / f"{i}.png")))
        )
        black.save(tmp_path / f"clip{i}.png", save_all=True, append_images=[frame], duration=1000)
    rows = [{"file": f"{name}{i}.png", "text": "a"} for i in range(PICTURES) for name in ("", "clip")]
    lines(tmp_path / "captions.jsonl", rows)
    store = prepare(tmp_path, tmp_path / "store", 16)
    frames = [
        {frame.tobytes() for number in part for item in store.items(int(number)) for frame in _frames(store, item)}
        for part in (store.held_out, store.training)
    ]
    assert len(store.held_out) == 4 and len(frames[0] & frames[1]) == 1  # the black frame


def _frames(store, item):
    return store.frames(item) if isinstance(item, Stored) else []


def page_of(names):
    infos = [{"matched_text_index": j, "image_name": f"{name}.png"} for j, name in enumerate(names)]
    return {"text_list": ["a"] * len(names), "image_info": infos}


def test_pages_that_share_pictures_over_other_pages_stay_together(tmp_path):
    """30 pages in a chain: each shares a picture with the next. 30 more share no picture."""
    files(tmp_path / "images", "{}.png")
    chain = [page_of((i % 31, i % 31 + 1)) for i in np.random.default_rng(0).permutation(30)]
    alone = [{"text_list": ["a"], "image_info": [inline(i)]} for i in range(100, 130)]
    lines(tmp_path / "a.jsonl", chain + alone)
    store = prepare(tmp_path, tmp_path / "store", 16)
    assert len(set(store.same_picture[:30])) == 1 and len(set(store.same_picture)) == 31
    assert len(store.held_out) == 3 and min(store.held_out) >= 30  # the chain is too large


def inline(i):
    return {"matched_text_index": 0, "image_base64": base64.b64encode(encoded(i)).decode()}


def test_one_record_for_each_picture_is_held_out_as_ever(tmp_path):
    """The choice of earlier versions, if no picture occurs twice."""
    files(tmp_path / "source", "{}.png")
    lines(tmp_path / "source" / "captions.jsonl", [{"file": f"{i}.png", "text": "a"} for i in range(PICTURES)])
    store = prepare(tmp_path / "source", tmp_path / "store", 16)
    order = np.random.default_rng([SEED, 0]).permutation(PICTURES)
    assert list(store.held_out) == sorted(order[:2])


def test_nothing_is_held_out_of_too_few_pictures(tmp_path):
    """A hundred records, but 19 pictures: one of them with all its texts would be more than 1 in 20."""
    files(tmp_path / "source", "{}.png")
    rows = [{"file": f"{i % 19}.png", "text": "a"} for i in range(114)]
    lines(tmp_path / "source" / "captions.jsonl", rows)
    assert len(prepare(tmp_path / "source", tmp_path / "store", 16).held_out) == 0


def test_a_damaged_file_is_opened_once_and_all_its_records_are_bad(tmp_path, decoded):
    files(tmp_path, "{}.png")
    (tmp_path / "0.png").write_bytes(encoded(0)[:200])
    lines(tmp_path / "captions.jsonl", [{"file": f"{i % 2}.png", "text": "a"} for i in range(6)])
    report = list(check_data(tmp_path, allowed=0.5))
    assert len(decoded) == 2 and len([line for line in report if line.startswith("skipped:")]) == 3
    assert "records: 3 good; 3 bad (50.0%); bad: 3 picture: it is damaged or cut short" in report


def test_a_picture_of_a_bad_page_is_decoded_for_the_next_page(tmp_path):
    files(tmp_path, "{}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    lines(tmp_path / "a.jsonl", [page_of((0, 1)), page_of((0, 0, 2))])
    store = prepare(tmp_path, tmp_path / "store", 16, allowed=0.5)
    assert [item for item in store.items(0) if isinstance(item, Stored)] == [Stored(0, 1), Stored(0, 1), Stored(1, 1)]
