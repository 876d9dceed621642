"""Readers of users' data: good records are read, bad ones are skipped with a reason, no path leads outside."""

import base64
import gzip
import json
import os
import sys
import tarfile
import time
import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import COLOURS, WRITERS, encoded, flickr30k_csv, lines, member, obelics, page, picture, pixels, text
from PIL import Image
from video_files import encoded as encoded_video
from video_files import greys, rate_of

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.prompt import read_prompt
from tinyflamingo.data.readers import FORMATS, check, read_data, text_files, webdataset
from tinyflamingo.data.readers import record as module
from tinyflamingo.data.readers.check import check_data
from tinyflamingo.data.readers.decode import Tally, decoded
from tinyflamingo.data.readers.parquet_pages import check_pages
from tinyflamingo.data.readers.record import OUTPUT, BadRecord, MediaFile, Record, Root, Skipped, media_file
from tinyflamingo.data.readers.text_files import elements, top_level
from tinyflamingo.errors import UserError
from tinyflamingo.own_data.options import about_texts


def write(name, folder):
    if name == "obelics":
        pytest.importorskip("pyarrow")
    return WRITERS[name](folder)


def everything(path, name=None, side=8):
    """(good records with their pixels, skipped records)."""
    records = list(decoded(read_data(path, name)[1], side))
    return [r for r in records if not isinstance(r, Skipped)], [r for r in records if isinstance(r, Skipped)]


def reasons(path, name=None):
    return [skipped.why for skipped in everything(path, name)[1]]


def words(record):
    return " ".join(i.text if isinstance(i, Quiet) else i for i in record.items if not isinstance(i, MediaFile))


# ---- all formats: good records -------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_three_records_with_the_right_picture_each(tmp_path, name):
    path = write(name, tmp_path)
    assert read_data(path)[0] == name and set(WRITERS) == set(FORMATS)
    good, skipped = everything(path)
    assert len(good) == 3 and not [s for s in skipped if s.bad]
    for record, media in good:
        (frames,) = media
        (colour,) = [c for c in COLOURS if c in words(record)]
        assert frames.dtype == np.uint8 and frames.shape[1:] == (8, 8, 3)
        assert len(frames) == (3 if "video" in [i.kind for i in record.items if isinstance(i, MediaFile)] else 1)
        assert np.abs(frames.mean((0, 1, 2)) - COLOURS[colour]).max() < 16
        assert os.fspath(tmp_path) not in record.where


@pytest.mark.parametrize("name", WRITERS)
def test_reading_is_lazy_and_repeatable(tmp_path, name):
    path = write(name, tmp_path)
    assert next(read_data(path)[1]) == next(read_data(path)[1])
    assert [r.where for r in read_data(path)[1]] == [r.where for r in read_data(path, name)[1]]


def test_captions_have_the_prompt_of_the_command_line(tmp_path):
    (record, _), *_ = everything(write("folder", tmp_path))[0]
    assert record.items[1:] == [OUTPUT, "a red thing."] and record.where == "captions.jsonl line 1"


def test_questions_are_read_and_answers_learned(tmp_path):
    (record, _), *_ = everything(write("vqav2", tmp_path))[0]
    assert record.items[1:] == [Quiet("Question: what color is it? Answer:"), "red."]


def test_pages_keep_their_order(tmp_path):
    (record, _), *_ = everything(write("mmc4", tmp_path))[0]
    assert [i if isinstance(i, str) else i.kind for i in record.items] == [
        "once upon a time,", "picture", "a red thing.",
    ]  # fmt: skip


def test_splits_that_are_not_for_training_are_left_out_not_bad(tmp_path):
    for name in ("karpathy", "msrvtt"):
        _, skipped = everything(write(name, tmp_path / name))
        assert [(s.why, s.bad) for s in skipped] == [("of the split 'test'", False)]


def test_msvd_reads_only_the_clips_of_its_list(tmp_path):
    path = write("msvd", tmp_path)
    text(tmp_path / "train_list.txt", "v-_x1_0_10 7\n")
    good, skipped = everything(path / "AllVideoDescriptions.txt")
    assert [words(r) for r, _ in good] == ["Output: a green thing."]
    assert {(s.why, s.bad) for s in skipped} == {("not in train_list.txt", False)}


@pytest.mark.posix
def test_a_clip_of_msvd_is_an_avi_or_else_an_mp4(tmp_path):
    """Only a missing .avi is replaced: a link is a bad record, also if the .mp4 is there."""
    path = write("msvd", tmp_path)
    clips = tmp_path / "YouTubeClips"
    (clips / "v-_x0_0_10.avi").rename(clips / "v-_x0_0_10.mp4")
    (clips / "v-_x1_0_10.avi").rename(clips / "v-_x1_0_10.mp4")
    (clips / "v-_x1_0_10.avi").symlink_to(clips / "v-_x2_0_10.avi")
    good, skipped = everything(path)
    assert [(words(r), r.media[0].source.suffix) for r, _ in good] == [
        ("Output: a red thing.", ".mp4"), ("Output: a blue thing.", ".avi"),
    ]  # fmt: skip
    assert [s.why for s in skipped] == ["a symbolic link"]


def test_pictures_that_match_badly_or_are_missing_are_left_out_of_their_page(tmp_path):
    picture(tmp_path / "red.png", "red")
    infos = [page("red")["image_info"][0], page("gone")["image_info"][0], page("red", matched_sim=0.1)["image_info"][0]]
    lines(tmp_path / "a.jsonl", [{"text_list": ["one", "two"], "image_info": infos}])
    ((record, media),), skipped = everything(tmp_path)
    assert len(media) == 1 and len(record.items) == 3 and not skipped


def test_flickr30k_with_bars(tmp_path):
    path = flickr30k_csv(tmp_path)
    path.write_text(path.read_text() + "red.jpg\n")
    good, skipped = everything(path)
    assert len(good) == 3 and [s.why for s in skipped] == ["line is not name, number and caption"]


@pytest.mark.parametrize("ending", ["gz", "zip"])
def test_compressed_lines_are_read_not_extracted(tmp_path, ending):
    picture(tmp_path / "red.png", "red")
    data = (json.dumps(page("red")) + "\n").encode()
    path = tmp_path / f"shard.jsonl.{ending}"
    if ending == "gz":
        path.write_bytes(gzip.compress(data))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("shard.jsonl", data)
    assert len(everything(tmp_path)[0]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["red.png", path.name]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot read .*shard.jsonl"):
        everything(path, "mmc4")


def test_a_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    picture(tmp_path / "red.png", "red")
    row = json.dumps({"file": "red.png", "text": "rött"}, ensure_ascii=False)
    (tmp_path / "captions.jsonl").write_bytes(f"\ufeff{row}\r\n\r\n{row}".encode())
    good, skipped = everything(tmp_path)
    assert len(good) == 2 and not skipped


def test_paths_are_relative_to_the_folder_of_the_given_file(tmp_path):
    path = write("coco", tmp_path) / "annotations/captions_train2017.json"
    assert len(everything(path)[0]) == 3


# ---- all formats: bad records --------------------------------------------------------------------

GOOD = {"file": "red.png", "text": "red"}
BAD_LINES = {
    "line is not JSON": ("{", "{'file': 1}", "[" * 100_000),
    "not an object": ("[]", "3", '"a"', "null"),
    "no field 'file'": ('{"text": "a"}',),
    "no field 'text'": ('{"file": "red.png"}',),
    "'file' is not of type str": ('{"file": 3, "text": "a"}',),
    "'text' is not of type str": ('{"file": "red.png", "text": null}', '{"file": "red.png", "text": ["a"]}'),
    "no text": ('{"file": "red.png", "text": " \\n"}',),
    "text is not valid Unicode": ('{"file": "red.png", "text": "\\ud800"}',),
    "file missing": ('{"file": "none.png", "text": "a"}',),
    "no file name": ('{"file": "a\\u0000b", "text": "a"}',),
    "absolute path": ('{"file": "/etc/passwd", "text": "a"}', '{"file": "C:\\\\a.png", "text": "a"}'),
    "path outside the folder": ('{"file": "../red.png", "text": "a"}', '{"file": "a/..\\\\..\\\\b", "text": "a"}'),
    "a symbolic link": ('{"file": "link.png", "text": "a"}', '{"file": "elsewhere/red.png", "text": "a"}'),
    "more than one file of this name": ('{"file": "twice.png", "text": "a"}',),
    "picture: it is damaged or cut short": ('{"file": "cut.png", "text": "a"}',),
    "picture: it is not a picture": ('{"file": "text.png", "text": "a"}',),
    "picture: it is empty": ('{"file": "empty.png", "text": "a"}',),
    "picture: it is a folder": ('{"file": "one", "text": "a"}',),
    "video: it is damaged or cut short": ('{"file": "cut.mp4", "text": "a"}',),
}


@pytest.mark.posix
@pytest.mark.parametrize("why", BAD_LINES)
def test_a_bad_line_is_skipped_with_its_reason_and_the_others_are_read(tmp_path, why):
    root = tmp_path / "root"
    for path in (tmp_path / "red.png", root / "red.png", root / "one/twice.png", root / "two/twice.png"):
        picture(path, "red")
    (root / "link.png").symlink_to(tmp_path / "red.png")
    (root / "elsewhere").symlink_to(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "whole.png")
    (root / "cut.png").write_bytes((root / "whole.png").read_bytes()[:4000])
    (root / "text.png").write_text("no picture")
    (root / "empty.png").write_bytes(b"")
    (root / "cut.mp4").write_bytes(b"\0\0\0 ftypisom")
    rows = [json.dumps(GOOD), *BAD_LINES[why], json.dumps(GOOD)]
    (root / "captions.jsonl").write_text("\n".join(rows))
    good, skipped = everything(root)
    assert len(good) == 2 and {s.why for s in skipped} == {why} and len(skipped) == len(BAD_LINES[why])
    assert [s.where for s in skipped] == [f"captions.jsonl line {i + 2}" for i in range(len(skipped))]
    assert all(s.bad and len(s.detail) <= 200 for s in skipped)


def test_lines_that_are_not_text(tmp_path):
    picture(tmp_path / "red.png", "red")
    (tmp_path / "captions.jsonl").write_bytes(b"\xff\xfe\n" + json.dumps(GOOD).encode())
    assert reasons(tmp_path) == ["line is not UTF-8: save the file as UTF-8 (is it GBK or UTF-16?)"]


def spoilt(name, path, change):
    """Change the JSON of a data set by a function of the parsed object."""
    path = path if path.is_file() else next(p for p in sorted(path.rglob("*.json")) if "annotations.json" not in p.name)
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


BAD_ELEMENTS = {
    ("coco", "no such image_id"): lambda d: d["annotations"][0].update(image_id=77),
    ("coco", "'image_id' is not of type int"): lambda d: d["annotations"][0].update(image_id=True),
    ("coco", "not an object"): lambda d: d["annotations"].append(3),
    ("coco", "'caption' is not of type str"): lambda d: d["annotations"][0].update(caption=None),
    ("coco", "path outside the folder"): lambda d: d["images"][0].update(file_name="../a.png"),
    ("karpathy", "no field 'sentences'"): lambda d: d["images"][0].pop("sentences"),
    ("karpathy", "no field 'raw'"): lambda d: d["images"][0].update(sentences=[{}]),
    ("karpathy", "no field 'split'"): lambda d: d["images"][0].pop("split"),
    ("karpathy", "path outside the folder"): lambda d: d["images"][0].update(filepath="../.."),
    ("vqav2", "no answer to the question"): lambda d: d["questions"][0].update(question_id=5),
    ("vqav2", "'question_id' is not of type int"): lambda d: d["questions"][0].update(question_id=[5]),
    ("vqav2", "no field 'question_id'"): lambda d: d["questions"][0].pop("question_id"),
    ("vqav2", "'question' is not of type str"): lambda d: d["questions"][0].update(question=[]),
    ("vqav2", "file missing"): lambda d: d["questions"][0].update(image_id=999),
    ("msrvtt", "no such video_id"): lambda d: d["sentences"][1].update(video_id="video77"),
    ("msrvtt", "path outside the folder"): lambda d: [
        x.update(video_id="../v") for x in (d["videos"][1], d["sentences"][1])
    ],
    ("msrvtt", "no field 'caption'"): lambda d: d["sentences"][1].pop("caption"),
}


@pytest.mark.parametrize("name, why", BAD_ELEMENTS)
def test_a_bad_element_is_skipped_with_its_reason(tmp_path, name, why):
    path = write(name, tmp_path)
    spoilt(name, path, BAD_ELEMENTS[name, why])
    good, skipped = everything(path)
    assert [s.why for s in skipped if s.bad] == [why] and len(good) >= 2


def test_a_video_that_is_not_an_object_does_not_spoil_the_others(tmp_path):
    path = write("msrvtt", tmp_path)
    good, skipped = everything(path)
    spoilt("msrvtt", path, lambda d: d["videos"].append(3))
    good_now, skipped_now = everything(path)
    assert len(good_now) == len(good) and skipped_now == skipped
    spoilt("msrvtt", path, lambda d: d["videos"].__setitem__(1, 3))
    assert [s.why for s in everything(path)[1] if s.bad] == ["no such video_id"]


BAD_PAGES = {
    "matched_text_index out of range": page("red", matched_text_index=2),
    "'matched_text_index' is not of type int": page("red", matched_text_index="1"),
    "'matched_sim' is not a number": page("red", matched_sim="high"),
    "'image_base64' is not base64": page("red", image_base64="***"),
    "picture: it is not a picture": page("red", image_base64=base64.b64encode(b"text").decode()),
    "'text_list' is not of type list": {"text_list": "a", "image_info": []},
    "a text is not of type str": {"text_list": ["a", 3], "image_info": page("red")["image_info"]},
    "absolute path": page("red", image_name="/etc/passwd"),
}


@pytest.mark.parametrize("why", BAD_PAGES)
def test_a_bad_page_is_skipped_with_its_reason(tmp_path, why):
    picture(tmp_path / "red.png", "red")
    lines(tmp_path / "a.jsonl", [page("red"), BAD_PAGES[why]])
    good, skipped = everything(tmp_path)
    assert len(good) == 1 and [(s.why, s.bad) for s in skipped] == [(why, True)]


def test_bad_rows_of_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    picture(tmp_path / "red.png", "red")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [
        ([{"bytes": encoded("red"), "path": None}, None], [None, "a"]),
        ([{"bytes": None, "path": "red.png"}, None], [None, "a"]),
        ([{"bytes": None, "path": "red.png"}], ["a"]),
        ([None], [None]),
        ([None], ["a", "b"]),
        ([{"bytes": None, "path": None}], [None]),
        ([{"bytes": None, "path": "https://a.b/c.png"}], [None]),
        (None, ["a"]),
    ]
    columns = {
        "images": pyarrow.array([r[0] for r in rows], pyarrow.list_(kind)),
        "texts": pyarrow.array([r[1] for r in rows], pyarrow.list_(pyarrow.string())),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    good, skipped = everything(tmp_path)
    assert len(good) == 2
    assert [s.why.split(":")[0] for s in skipped] == [
        "a position without exactly one of image and text",
        "a position without exactly one of image and text",
        "images and texts differ in length",
        "a picture is neither a name nor bytes",
        "a picture is an address",
        "'images' is not of type list",
    ]
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column 'images'"):
        everything(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot read .*a.parquet"):
        everything(tmp_path)


BOMBS = {  # images and texts of a page in a file of less than 100 KB: more than the limits
    "a long text": ([None], ["x" * (80 << 20)]),
    "many nothings": ([None] * 3_000_000, ["a"]),
    "many equal names": (["a.png"] * 3_000_000, [None] * 3_000_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_parquet_that_unpacks_to_much_more_is_refused(tmp_path, name):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = zip(("images", "texts"), BOMBS[name], strict=True)
    table = {column: pyarrow.array([page], pyarrow.list_(pyarrow.string())) for column, page in columns}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(UserError, match="its pages are much larger than the file"):
        everything(tmp_path)


@pytest.mark.parametrize("column", ["images", "texts"])
def test_a_long_value_that_repeats_in_a_parquet_stays_a_number(tmp_path, column):
    """1 MB of text, 100,000 times: 100 GB in a file of less than 100 KB."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    numbers = pyarrow.array(np.zeros(100_000, np.int32))
    repeated = pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array(["x" * (1 << 20)]))
    rows = {name: pyarrow.array([[None]] * 2, pyarrow.list_(pyarrow.string())) for name in ("images", "texts")}
    rows[column] = pyarrow.ListArray.from_arrays([0, 1, 100_000], repeated)
    options = {"compression": "zstd", "dictionary_pagesize_limit": 4 << 20}
    parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet", **options)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    usual, own = pyarrow.default_memory_pool(), pyarrow.system_memory_pool()
    pyarrow.set_memory_pool(own)
    _, skipped = everything(tmp_path)
    pyarrow.set_memory_pool(usual)
    assert "row too long" in [s.why for s in skipped] and 0 < own.max_memory() < 100 << 20


@pytest.mark.parametrize("name", BOMBS)
def test_the_sizes_at_the_end_of_a_parquet_are_not_believed(tmp_path, name):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = zip(("images", "texts"), BOMBS[name], strict=True)
    table = {column: pyarrow.array([page], pyarrow.list_(pyarrow.string())) for column, page in columns}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    whole = parquet.ParquetFile(tmp_path / "a.parquet")
    names = ("path_in_schema", "total_compressed_size", "data_page_offset", "has_dictionary_page")
    group = whole.metadata.row_group(0)
    lies = {"num_values": 1, "total_uncompressed_size": 1, "dictionary_page_offset": None}
    leaves = [{n: getattr(group.column(i), n) for n in names} | lies for i in range(2)]
    row_group = SimpleNamespace(num_columns=2, num_rows=1, column=lambda i: SimpleNamespace(**leaves[i]))
    metadata = SimpleNamespace(num_row_groups=1, row_group=lambda i: row_group)
    with pytest.raises(ValueError, match="its pages are much larger than the file"):
        check_pages(
            tmp_path / "a.parquet", SimpleNamespace(schema=whole.schema, metadata=metadata), ["images", "texts"]
        )


HEADS = {  # a head of a page whose fields have other kinds of values than they must have
    "a text in place of the counts": b"\x15\x00\x15\x02\x15\x02\x28\x01x\x00",
    "a struct in place of a count": b"\x15\x00\x15\x02\x15\x02\x2c\x1c\x00\x00\x00",
    "a text in place of a size": b"\x15\x00\x18\x01x\x15\x02\x00",
    "a size below 0": b"\x15\x00\x15\x01\x15\x02\x00",
    "structs in structs": b"\x1c" * 5000,
    "no end": b"\x15\x00\x15",
}


class Columns(list):
    """What a reader asks of the schema of a parquet file."""

    column = list.__getitem__


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_a_page_with_wrong_values_is_a_value_error(tmp_path, name):
    (tmp_path / "a.parquet").write_bytes(HEADS[name])
    leaf = SimpleNamespace(
        path_in_schema="texts", total_compressed_size=9, data_page_offset=0, has_dictionary_page=False
    )
    group = SimpleNamespace(num_columns=1, num_rows=1, column=lambda i: leaf)
    metadata = SimpleNamespace(num_row_groups=1, row_group=lambda i: group)
    file = SimpleNamespace(schema=Columns([SimpleNamespace(length=0)]), metadata=metadata)
    with pytest.raises(ValueError, match="page"):
        check_pages(tmp_path / "a.parquet", file, ["texts"])


def test_a_file_of_blanks_ends_soon(tmp_path):
    picture(tmp_path / "red.png", "red")
    line = b'{"file": "red.png", "text": "red"}\n'
    (tmp_path / "captions.jsonl").write_bytes(b"\n" * 3_000_000 + line)
    with pytest.raises(UserError, match="of its lines are blank"):
        everything(tmp_path)
    with open(tmp_path / "captions.jsonl", "wb") as file:
        file.write(line)
        file.truncate(100 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(UserError, match="a line of more than 1024 MB"):
        everything(tmp_path)


def test_blanks_in_a_json_are_skipped_at_once(tmp_path):
    (tmp_path / "captions_a.json").write_bytes(b"{" + b" " * (50 << 20) + b"}")
    began = time.process_time()
    assert list(top_level(tmp_path / "captions_a.json")) == []
    assert time.process_time() - began < 5  # character by character it takes longer


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_in_a_parquet_never_give_another_error(tmp_path, seed):
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(seed)
    (path,) = obelics(tmp_path / "data").glob("*.parquet")
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data), size=1 + seed % 5):
        data[place] = rng.integers(256)
    path.write_bytes(data[: rng.integers(len(data))] if seed % 4 == 0 else data)
    try:
        everything(path.parent)
    except UserError as error:
        assert "\n" not in str(error)


def test_parquet_without_pyarrow_is_reported(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="needs pyarrow, which is missing: pip install pyarrow"):
        everything(tmp_path)


BAD_MEMBERS = {
    "path outside the folder": [("../x.jpg", encoded("red"), {}), ("../x.txt", b"a", {})],
    "absolute path": [("/x.jpg", encoded("red"), {}), ("/x.txt", b"a", {})],
    "a member that is not a file": [
        ("x.jpg", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("x.txt", b"a", {}),
    ],
    "no picture or video": [("x.txt", b"a", {})],
    "no text": [("x.jpg", encoded("red"), {}), ("x.cls", b"3", {})],
    "text is not UTF-8: save it as UTF-8 (is it GBK or UTF-16?)": [
        ("x.jpg", encoded("red"), {}),
        ("x.txt", b"\xff\xfe", {}),
    ],
    "member is not JSON": [("x.jpg", encoded("red"), {}), ("x.json", b"{", {})],
    "no field 'caption'": [("x.jpg", encoded("red"), {}), ("x.json", b"{}", {})],
    "several pictures or videos": [("x.jpg", encoded("red"), {}), ("x.png", encoded("red"), {}), ("x.txt", b"a", {})],
    "two members of the same name": [("x.jpg", encoded("red"), {}), ("x.jpg", encoded("red"), {}), ("x.txt", b"a", {})],
    "picture: it is not a picture": [("x.jpg", b"text", {}), ("x.txt", b"a", {})],
    "video: it is damaged or cut short": [("x.mp4", b"\0\0\0 ftypisom", {}), ("x.txt", b"a", {})],
}


@pytest.mark.parametrize("why", BAD_MEMBERS)
def test_a_bad_member_spoils_only_its_record_and_nothing_is_extracted(tmp_path, why):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data, fields in (("a.jpg", encoded("red"), {}), ("a.txt", b"a", {}), *BAD_MEMBERS[why]):
            member(archive, name, data, **fields)
        member(archive, "z.png", encoded("red"))
        member(archive, "z.txt", b"z")
    good, skipped = everything(tmp_path)
    assert [words(r) for r, _ in good] == ["Output: a", "Output: z"] and [s.why for s in skipped] == [why]
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_members_of_one_record_that_are_not_consecutive(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("a.jpg", encoded("red")), ("b.jpg", encoded("red")), ("a.txt", b"a"), ("b.txt", b"b")):
            member(archive, name, data)
    assert reasons(tmp_path) == ["no text", "no text", "no picture or video", "no picture or video"]


def test_a_line_or_an_element_of_millions_of_values_is_bad(tmp_path):
    picture(tmp_path / "red.png", "red")
    many = "[" + "[]," * 1_500_000 + "1]"
    text(tmp_path / "a.jsonl", json.dumps(page("red")) + "\n" + json.dumps(page("red"))[:-1] + f', "z": {many}}}')
    assert reasons(tmp_path) == ["line is not JSON"]
    text(tmp_path / "captions.json", f'{{"images": [{many}], "annotations": []}}')
    with pytest.raises(UserError, match="damaged at character"):
        everything(tmp_path / "captions.json", "coco")


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_packed_tars(tmp_path, packing):
    with tarfile.open(tmp_path / "a.tar", f"w:{packing}") as archive:
        member(archive, "1.png", encoded("red"))
        member(archive, "1.txt", b"red")
    good, skipped = everything(tmp_path)
    assert len(good) == 1 and skipped == [] and good[0][0].items[-1] == "red"


def test_a_tar_that_lies_about_the_size_of_a_member(tmp_path):
    head, lie = tarfile.TarInfo("1.png"), tarfile.TarInfo("1.png")
    lie.pax_headers = {"size": str(1 << 50)}
    data = {f"a member has {1 << 50} bytes": lie.tobuf(tarfile.PAX_FORMAT)}
    for size, why in ((1 << 40, f"a member has {1 << 40} bytes"), (1 << 32, "unexpected end of data")):
        head.size = size
        data[why] = head.tobuf(tarfile.GNU_FORMAT)
    for why, begin in data.items():
        (tmp_path / "a.tar").write_bytes(begin + bytes(2048))
        began = time.process_time()
        with pytest.raises(UserError, match=why):
            list(check_data(tmp_path))
        assert time.process_time() - began < 10


@pytest.mark.posix
def test_a_tar_that_unpacks_to_much_more_than_it_has(tmp_path):
    """500 MB of zeros in a file of 500 KB. `tarfile` would need minutes."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("1.txt")
        info.size = 500 << 20
        archive.addfile(info, open("/dev/zero", "rb"))
    began = time.process_time()
    with pytest.raises(UserError, match="it unpacks to much more than the file has"):
        list(check_data(tmp_path))
    assert time.process_time() - began < 30


def test_heads_and_groups_of_a_tar_have_limits(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member(archive, "a.jpg", encoded("red"), pax_headers={"comment": "x" * (1 << 19)})
    with pytest.raises(UserError, match="cannot read .*a member has a head of 524"):
        everything(tmp_path)
    monkeypatch.setattr(webdataset, "LARGEST_PART", 3000)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.txt", "a.caption", "b.txt"):
            member(archive, name, b"word " * 400)
        member(archive, "b.jpg", encoded("red"))
    assert reasons(tmp_path)[0] == "files of more than 0 MB"


# ---- bad files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coco", "karpathy", "vqav2", "msrvtt", "webdataset"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_file_is_an_error(tmp_path, name, share):
    path = write(name, tmp_path)
    for file in tmp_path.rglob("*"):
        if file.suffix in (".json", ".tar", ".gz"):
            file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(UserError) as error:
        everything(path, name)
    assert "\n" not in str(error.value) and "cannot read" in str(error.value)


def test_no_format_several_formats_several_files(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path, name, message in (
        (tmp_path, None, "no data in a known format"),
        (tmp_path, "coco", "no data in the format 'coco'"),
        (tmp_path / "notes.txt", None, "no data in a known format"),
        (tmp_path / "none", None, "no such file or folder"),
        (tmp_path, "parquet", "unknown format 'parquet': choose one of folder, coco"),
    ):
        with pytest.raises(UserError, match=message):
            read_data(path, name)
    write("folder", tmp_path)
    write("coco", tmp_path)
    with pytest.raises(UserError, match="in several formats, folder and coco: add --format"):
        read_data(tmp_path)
    assert read_data(tmp_path, "coco")[0] == "coco"
    copy = tmp_path / "annotations/captions_val2017.json"
    copy.write_bytes((tmp_path / "annotations/captions_train2017.json").read_bytes())
    with pytest.raises(UserError, match="several data sets, captions_train2017.json and captions_val2017.json"):
        read_data(tmp_path, "coco")


@pytest.mark.parametrize("name, content", [
    ("labels.json", b"[1, 2]"), ("empty.json", b""), ("x.json", bytes(range(256))), ("x.jsonl.gz", b"none"),
    ("annotations/a.json", b"[]"),
])  # fmt: skip
def test_a_file_that_is_no_part_of_the_data_does_not_matter(tmp_path, name, content):
    write("folder", tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert read_data(tmp_path)[0] == "folder"
    for file in tmp_path.glob("captions*"):
        file.unlink()
    with pytest.raises(UserError):
        read_data(tmp_path)


def test_questions_without_answers_are_reported(tmp_path):
    path = write("vqav2", tmp_path)
    (tmp_path / "v2_mscoco_train2014_annotations.json").unlink()
    with pytest.raises(UserError, match="needs one file of answers in its folder"):
        everything(path)


# ---- one JSON object, read in pieces -------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=st.dictionaries(st.text(), JSON, max_size=5), chunk=st.integers(1, 9), indent=st.sampled_from([None, 1]))
def test_an_object_read_in_pieces_is_the_object(tmp_path, whole, chunk, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=indent), "utf-8")
    fields, before = {}, text_files.CHUNK
    text_files.CHUNK = chunk
    try:
        for name, value in top_level(path):
            fields.setdefault(name, []).append(value)
    finally:
        text_files.CHUNK = before
    for name, value in whole.items():
        assert fields.get(name, []) == (value if isinstance(value, list) else [value])


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"{", b'{"a": [1, 2}', b'{"a": [1,]}', b'{"a" 1}', b"{\xff}", b"{}}x"[:1]]
)
def test_a_file_that_is_not_an_object(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*a.json"):
        list(top_level(tmp_path / "a.json"))


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "CHUNK", 1 << 16)
    path = tmp_path / "captions_a.json"
    row = {"image_id": 1, "caption": "x" * 200}
    with open(path, "w") as file:
        file.write('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [')
        file.write(",".join([json.dumps(row)] * 20_000) + "]}")
    assert path.stat().st_size > 4_000_000
    tracemalloc.start()
    assert sum(1 for _ in elements(path, "annotations")) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


# ---- mutated files -------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_a_mutated_file_gives_records_or_reasons_or_one_line(tmp_path, name, data):
    """Any bytes of any file are changed, cut or repeated."""
    root = tmp_path / str(len(list(tmp_path.iterdir())))
    path = write(name, root)
    file = data.draw(st.sampled_from(sorted(p for p in root.rglob("*") if p.is_file())))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "double"]))
        if how == "change":
            content[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del content[place : place + data.draw(st.integers(1, 50))]
        else:
            content[place:place] = content[place : place + 20]
        if not content:
            break
    file.write_bytes(content)
    try:
        good, skipped = everything(path, name)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(r, Record) and len(m) >= 1 for r, m in good)
        assert all(s.why and "\n" not in s.why for s in skipped)


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.posix
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(["..", ".", "a", "", "/", "\\", "out", "~", "C:"]) | st.text(max_size=5), max_size=5)
)
def test_no_name_leads_outside(tmp_path, parts):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True, exist_ok=True)
    (root / "out").unlink(missing_ok=True)
    (root / "out").symlink_to(tmp_path)
    (tmp_path / "a.png").touch()
    try:
        path = Root(root).find("/".join(parts))
    except (BadRecord, OSError, ValueError):
        return
    assert path.resolve().is_relative_to(root.resolve())


# ---- counting ------------------------------------------------------------------------------------


def tally(good, bad, left_out=0):
    counts = Tally()
    for _ in range(good):
        counts.add()
    for _ in range(bad):
        counts.add(Skipped("a", "file missing"))
    for _ in range(left_out):
        counts.add(Skipped("a", "of the split 'test'", bad=False))
    return counts


def test_more_than_one_bad_record_in_twenty_is_an_error_with_the_counts():
    tally(95, 5, 900).check()
    with pytest.raises(
        UserError, match=r"more than 5% .* 94 good; 6 bad \(6.0%\); bad: 6 file missing; left out: 9 of"
    ):
        tally(94, 6, 9).check()
    tally(94, 6).check(0.06)
    tally(1, 99).check(1.0)
    for counts in (tally(0, 0), tally(0, 3), tally(0, 0, 3)):
        with pytest.raises(UserError, match="no usable record"):
            counts.check(1.0)


def test_check_reports_all_bad_records_and_draws_a_sheet(tmp_path):
    path = write("folder", tmp_path)
    rows = [
        json.dumps({"file": "red.png", "text": "costs $5 and $6, ▣ 漢字"}),
        '{"file": "x\\n\\u001b[31m.png", "text": "a"}',
    ]
    with open(path / "captions.jsonl", "a") as file:
        file.write("\n".join(rows))
    report = list(check_data(path, None, tmp_path / "sheet.png", allowed=0.5))
    assert report == [
        r"skipped: captions.jsonl line 5: file missing (x\n\x1b[31m.png)",
        "format: folder",
        "records: 4 good; 1 bad (20.0%); bad: 1 file missing",
        "content: 3 pictures, 0 videos, 60 characters of text",
        f"contact sheet: {tmp_path / 'sheet.png'}",
    ]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG" and len(set(np.asarray(sheet.convert("L")).ravel())) > 3
    with pytest.raises(UserError, match="more than 5%"):
        list(check_data(path))
    assert pixels("red").shape == (24, 32, 3)


@pytest.mark.parametrize("name", WRITERS)
def test_no_format_takes_a_text_without_end(tmp_path, name, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_TEXT", 12)
    good, skipped = everything(write(name, tmp_path))
    assert {words(r).removeprefix("Output: ") for r, _ in good} <= {"a red thing."} | {
        f"Question: what color is it? Answer: {c}." for c in COLOURS
    }
    assert {s.why for s in skipped if s.bad} == {"more than 12 letters of text"}


def test_a_text_of_hundreds_of_megabytes_is_bad_in_little_time_and_memory(tmp_path):
    """In a tar, and in a line. Neither is read whole."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        member(archive, "0.png", encoded("red"))
        member(archive, "0.txt", b"a")
        for number, end in enumerate(("txt", "caption", "json"), 1):
            member(archive, f"{number}.png", encoded("red"))
            member(archive, f"{number}.{end}", b"word " * (8 << 20))
    tracemalloc.start()
    good, skipped = everything(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    assert len(good) == 1 and [s.why for s in skipped] == ["text of more than 2 MB"] * 3
    picture(tmp_path / "red.png", "red")
    row = json.dumps({"file": "red.png", "text": "x" * 50_000_000})
    text(tmp_path / "captions.jsonl", row + "\n" + json.dumps(GOOD))
    del row
    tracemalloc.reset_peak()
    good, skipped = everything(tmp_path, "folder")
    peak = max(peak, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert len(good) == 1 and [s.why for s in skipped] == ["line too long"] and peak < 30_000_000


def test_the_longest_text_is_good_in_any_letters(tmp_path):
    """Also written as JSON escapes; one letter more is bad, and so is a page with too much text."""
    picture(tmp_path / "red.png", "red")
    rows = [{"file": "red.png", "text": "😀" * n} for n in (module.LONGEST_TEXT, module.LONGEST_TEXT + 1)]
    lines(tmp_path / "captions.jsonl", rows)
    good, skipped = everything(tmp_path)
    assert len(good) == 1 and [s.why for s in skipped] == ["more than 100000 letters of text"]
    lines(tmp_path / "b.jsonl", [{**page("red"), "text_list": ["x" * 60_000] * 2}])
    assert reasons(tmp_path / "b.jsonl") == ["more than 100000 letters of text"]


def content_of(path):
    (line,) = [line for line in check_data(path) if line.startswith("content:")]
    return line


@pytest.mark.parametrize("name, letters", [("coco", 39), ("vqav2", 63), ("mmc4", 90), ("webdataset", 39)])
def test_only_what_the_user_wrote_is_counted(tmp_path, name, letters):
    assert content_of(write(name, tmp_path)).endswith(f" {letters} characters of text")


def test_fields_that_no_reader_knows_are_named(tmp_path):
    picture(tmp_path / "red.png", "red")
    rows = [
        GOOD | more for more in ({"Class": "a"}, {"Class": "b", "grop": 1}, {"class": "c", "group": 2}, {"a\x1b": 1})
    ]
    lines(tmp_path / "captions.jsonl", rows)
    (line,) = [line for line in check_data(tmp_path) if "unknown" in line]
    assert line == r"unknown fields: Class (2 records), a\x1b (1 record), grop (1 record)"
    lines(tmp_path / "captions.jsonl", [GOOD | {str(n): 1 for n in range(5000)}])
    (line,) = [line for line in check_data(tmp_path) if "unknown" in line]
    assert line.count("record") == check.FIELDS
    lines(tmp_path / "captions.jsonl", [GOOD])
    assert not [line for line in check_data(tmp_path) if "unknown" in line]


def test_texts_that_the_context_cuts_are_counted(tmp_path):
    picture(tmp_path / "red.png", "red")
    said = ["a red thing.", "all kinds of letters, none of them twice, by anybody: " + " ".join(map(str, range(300)))]
    lines(tmp_path / "captions.jsonl", [{"file": "red.png", "text": text} for text in said])
    report = list(check_data(tmp_path, about=about_texts))
    assert (
        "texts that are longer than the context of training (96 tokens) and will be cut: 1 of 2 (--context)" in report
    )
    lines(tmp_path / "captions.jsonl", [{"file": "red.png", "text": said[0]}])
    assert not [line for line in check_data(tmp_path, about=about_texts) if "context" in line]


WRONG = [
    ("coco", '{"images": 5, "annotations": []}', "images"),
    ("coco", '{"images": [], "annotations": {}}', "annotations"),
    ("coco", '{"images": []}', "annotations"),
    ("msrvtt", '{"a": [1]}', "videos"),
    ("msrvtt", '{"videos": []}', "sentences"),
    ("karpathy", '{"images": null}', "images"),
    ("vqav2", '{"annotations": []}', "questions"),
]


@pytest.mark.parametrize("name, content, missing", WRONG)
def test_a_list_that_is_missing_or_no_list_is_named(tmp_path, name, content, missing):
    text(tmp_path / "questions.json", content)
    text(tmp_path / "v_annotations.json", '{"annotations": []}')
    with pytest.raises(UserError, match=f"questions.json': it has no list '{missing}'; repair it, or choose another"):
        everything(tmp_path / "questions.json", name)


def test_the_missing_file_of_answers_has_one_star(tmp_path):
    text(tmp_path / "questions.json", '{"questions": [{"question_id": 1}]}')
    with pytest.raises(UserError, match=r"in its folder, \*annotations.json; there are 0"):
        everything(tmp_path)


# ---- animations and long videos ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gif", "webp", "apng"])
def test_animations_are_videos_wherever_they_come_from(tmp_path, kind):
    moving, still = encoded_video(kind, greys(5)), encoded_video(kind, greys(1))
    for number, data in enumerate((moving, still)):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for suffix in (kind, "png", "jpg"):
                member(archive, f"{suffix}.{suffix}", data)
                member(archive, f"{suffix}.txt", b"it moves")
        (tmp_path / f"{number}.{kind}").write_bytes(data)
        kinds = {i.kind for r, _ in everything(tmp_path / f"{number}.tar")[0] for i in r.items if hasattr(i, "kind")}
        assert kinds == {"picture" if number else "video"}
        assert Root(tmp_path).medium(f"{number}.{kind}").kind == media_file("inline", data).kind == kinds.pop()


def test_a_picture_in_a_tar_whose_name_says_video_is_a_picture_and_the_reverse(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("a.mp4", encoded("red")), ("b.jpg", encoded_video("mp4", greys(15)))):
            member(archive, name, data)
            member(archive, f"{name[0]}.txt", b"text")
    good, skipped = everything(tmp_path)
    assert [len(media[0]) for _, media in good] == [1, 2] and not skipped


@pytest.mark.parametrize("kind", ["mts", "ts", "mpg", "vob", "flv", "wmv", "ogv"])
def test_videos_of_all_kinds_in_a_folder_and_a_tar(tmp_path, kind):
    """Also with an extension that tells nothing."""
    data = encoded_video(kind, greys(rate_of(kind) * 3 // 2))
    for name in (f"a.{kind.upper()}", "b.bin"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "captions.jsonl").write_bytes(
        b"".join(json.dumps({"file": f, "text": "a"}).encode() + b"\n" for f in (f"a.{kind.upper()}", "b.bin"))
    )
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member(archive, f"a.{kind.upper()}", data)
        member(archive, "a.txt", b"a")
    good, skipped = everything(tmp_path, "folder")
    good += everything(tmp_path / "a.tar")[0]
    assert [len(media[0]) for _, media in good] == [2, 2, 2] and not skipped


def test_a_long_video_gives_its_first_32_frames(tmp_path):
    data = encoded_video("mp4", greys(40, step=5).repeat(10, 0))
    (tmp_path / "a.mp4").write_bytes(data)
    (tmp_path / "captions.jsonl").write_text('{"file": "a.mp4", "text": "a"}')
    ((_, (frames,)),) = everything(tmp_path)[0]
    np.testing.assert_allclose(frames.mean((1, 2, 3)), 5 * np.arange(32), atol=4)
    _, shown = read_prompt("<video>Output:", [tmp_path / "a.mp4"], 8)[::-1]
    np.testing.assert_array_equal(shown, frames)
