"""A data set on disk: same records and pixels, each record once per epoch, held-out records, damage reported."""

import json
import os

import numpy as np
import pytest
from own_files import COLOURS, lines, picture, video

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.store import CARD, INDEX, PIXELS, RECORDS, Store, Stored, prepare, remove, shuffled
from tinyflamingo.errors import UserError


@pytest.fixture
def source(tmp_path):
    """41 records. One is a video, one is bad."""
    root = tmp_path / "source"
    for name in COLOURS:
        picture(root / f"{name}.png", name)
    video(root / "moving.mp4", "blue", frames=5)
    files = [f"{name}.png" for name in COLOURS] * 13 + ["moving.mp4", "none.png"]
    lines(root / "captions.jsonl", [{"file": file, "text": f"number {i}, ä"} for i, file in enumerate(files)])
    return root


@pytest.fixture
def store(source, tmp_path):
    return prepare(source, tmp_path / "store", 8)


def test_records_and_pixels_come_back(store):
    assert len(store) == 40 and store.side == 8
    assert store.items(4) == [Stored(1, 1), Quiet("Output:"), "number 4, ä"]  # the file of record 1 again
    assert np.abs(store.frames(Stored(1, 1)).mean((0, 1, 2)) - COLOURS["green"]).max() < 2
    (clip, _, words) = store.items(39)
    assert clip == Stored(3, 5) and words == "number 39, ä" and store.frames(clip).shape == (5, 8, 8, 3)
    assert store.frames(Stored(3, 2, first=3)).shape == (2, 8, 8, 3)
    assert list(store.texts(100))[:2] == ["Output:", "number 0, ä"] and len(list(store.texts(10))) == 20


def test_a_store_opened_again_is_the_same(store):
    again = Store(store.folder)
    assert again.fingerprint == store.fingerprint and [again.items(i) for i in range(40)] == [
        store.items(i) for i in range(40)
    ]


def test_the_fingerprint_depends_on_texts_pixels_and_size(source, store, tmp_path):
    def fingerprint(side=8):
        return prepare(source, tmp_path / "other", side).fingerprint

    assert fingerprint() == store.fingerprint
    assert fingerprint(9) != store.fingerprint
    picture(source / "red.png", "blue")
    other = fingerprint()
    assert other != store.fingerprint
    (source / "captions.jsonl").write_text((source / "captions.jsonl").read_text().replace("number 7", "number 8"))
    assert fingerprint() not in (store.fingerprint, other)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_each_epoch_has_all_records_in_another_order(n):
    epochs = [[shuffled(n, 5, e * n + i) for i in range(n)] for e in range(4)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert n < 7 or len({tuple(epoch) for epoch in epochs}) == 4
    assert n < 7 or epochs[0] != [shuffled(n, 6, i) for i in range(n)]


def test_one_in_twenty_is_held_out_the_same_in_all_runs(store, source, tmp_path):
    assert list(store.held_out) == [39]  # the video: each picture has more than 1 in 20 of the records
    assert list(store.training) == list(range(39))
    again = prepare(source, tmp_path / "again", 16)
    np.testing.assert_array_equal(again.held_out, store.held_out)


def test_too_many_bad_records_leave_no_store(source, tmp_path):
    with open(source / "captions.jsonl", "a") as file:
        file.write("{\n" * 9)
    with pytest.raises(UserError, match="more than 5%.*9 line is not JSON, 1 file missing"):
        prepare(source, tmp_path / "store", 8)
    assert not (tmp_path / "store").exists()
    assert len(prepare(source, tmp_path / "store", 8, allowed=0.3)) == 40


def test_an_unfinished_store_is_made_again(source, store, tmp_path):
    (store.folder / CARD).unlink()
    (store.folder / ".pixels.u8.77.tmp").write_bytes(b"half")
    assert prepare(source, store.folder, 8).fingerprint == store.fingerprint
    assert sorted(os.listdir(store.folder)) == [INDEX, PIXELS, RECORDS, CARD]


@pytest.mark.parametrize("name", [CARD, INDEX, PIXELS, RECORDS])
@pytest.mark.parametrize("how", ["gone", "cut", "noise"])
def test_damage_is_reported(store, name, how):
    path = store.folder / name
    if how == "gone":
        path.unlink()
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif name == PIXELS:
        return  # only the size of the pixels is checked: a checksum would read gigabytes at each resume
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Store(store.folder)


def test_a_card_with_a_wrong_side_is_reported(store):
    card = json.loads((store.folder / CARD).read_text())
    (store.folder / CARD).write_text(json.dumps(card | {"side": 10**6}))
    with pytest.raises(UserError, match="damaged"):
        Store(store.folder)


def test_a_folder_with_other_files_is_not_changed(source, tmp_path):
    folder = tmp_path / "out" / "data"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="other files are in it; choose another --out"):
        prepare(source, folder, 8)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="the data are in it"):
        prepare(source, source, 8)
    assert (source / "captions.jsonl").exists()
    # an old store is replaced
    assert len(prepare(source, tmp_path / "store", 8)) == len(prepare(source, tmp_path / "store", 8))


def test_half_written_files_of_a_store_are_removed(source, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / f".{PIXELS}.123.tmp").write_bytes(b"half")
    assert len(prepare(source, folder, 8)) == 40 and sorted(os.listdir(folder)) == sorted(
        (CARD, INDEX, PIXELS, RECORDS)
    )


@pytest.mark.parametrize("name", [RECORDS, "notes.txt"])
def test_a_folder_of_the_user_is_not_taken_for_a_store(source, tmp_path, name):
    """Records without pixels are no store: the pixels get their name first."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_text("precious")
    remove(folder)
    with pytest.raises(UserError, match="other files are in it; choose another --out"):
        prepare(source, folder, 8)
    assert (folder / name).read_text() == "precious"
    remove(prepare(source, tmp_path / "store", 8).folder)
    assert not (tmp_path / "store").exists()
