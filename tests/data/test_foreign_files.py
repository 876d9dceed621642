"""Good files as other programs and systems write them: they are read, or the line names the reason."""

import io
import json
import struct
import tarfile
import unicodedata
import zlib

import numpy as np
import pytest
from own_files import encoded, lines, member, picture
from PIL import Image

from tinyflamingo.data.images import load_picture
from tinyflamingo.data.prompt import read_prompt
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.check import check_data
from tinyflamingo.data.readers.decode import decoded
from tinyflamingo.data.readers.record import Skipped
from tinyflamingo.errors import UserError

BLOCK = b"Exif\0\0II*\0\x08\0\0\0"
EXIF = {
    "only the word": b"Exif\0\0",
    "twice": b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0",
    "no TIFF header": b"Exif\0\0nothing here",
    "cut": BLOCK + b"\x05\0\x12\x01\x03\0\x01\0",
    "orientation as text": BLOCK + b"\x01\0\x12\x01\x02\0\x02\0\0\0" + b"6\0\0\0" + b"\0\0\0\0",
}
OVER_ZERO = (
    b"\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    + b"\x1a\x01\x05\0\x01\0\0\0\x26\0\0\0\0\0\0\0"
    + struct.pack("<II", 72, 0)
)


def half(folder, suffix, exif):
    """White over black, with this EXIF: the pixels, and what is read."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    Image.fromarray(pixels).save(folder / f"a.{suffix}", exif=exif)
    return pixels, load_picture(folder / f"a.{suffix}").astype(int)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("name", EXIF)
def test_a_picture_with_odd_exif_is_read_as_it_is(tmp_path, name, suffix):
    pixels, read = half(tmp_path, suffix, EXIF[name])
    assert np.abs(read - pixels).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_is_turned_also_if_another_field_is_odd(tmp_path, suffix):
    pixels, read = half(tmp_path, suffix, BLOCK + OVER_ZERO)
    assert np.abs(read - np.rot90(pixels, -1)).mean() < 4


@pytest.mark.parametrize("size", [3 << 20, 80 << 20])
@pytest.mark.parametrize("kind, head", [(b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"icc\0\0")])
def test_a_png_with_a_large_text(tmp_path, kind, head, size):
    plain, data = encoded("red"), head + zlib.compress(bytes(size))
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])
    (tmp_path / "b.png").write_bytes(plain)
    expected = load_picture(tmp_path / "b.png")
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png"), expected)
    (tmp_path / "c.png").write_bytes(plain[:-12] + chunk + plain[-12:])  # after the pixels
    np.testing.assert_array_equal(load_picture(io.BytesIO((tmp_path / "c.png").read_bytes())), expected)


def test_a_png_with_too_many_texts(tmp_path):
    plain, data = encoded("red"), b"a\0" + bytes(70 << 20)
    chunk = struct.pack(">I", len(data)) + b"tEXt" + data + struct.pack(">I", zlib.crc32(b"tEXt" + data))
    (tmp_path / "a.png").write_bytes(plain[:33] + 2 * chunk + plain[33:])
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png"), load_picture(io.BytesIO(plain)))


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1"])
def test_heic_has_its_name(tmp_path, brand):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    with pytest.raises(UserError, match="it is HEIC; export it as JPEG or PNG first"):
        load_picture(tmp_path / "a.heic")


def test_a_picture_for_the_mark_of_a_video(tmp_path):
    picture(tmp_path / "a.png", "red")
    with pytest.raises(UserError, match="is a picture but its mark is <video>: write <image>"):
        read_prompt("<video>a", [tmp_path / "a.png"], 8)


def test_frames_per_second_without_a_video(tmp_path):
    picture(tmp_path / "a.png", "red")
    for template, files in (("<image>a", [tmp_path / "a.png"]), ("a", [])):
        with pytest.raises(UserError, match="--fps has no effect without a <video> in the template: remove it"):
            read_prompt(template, files, 8, fps=3)
    assert len(read_prompt("<image>a", [tmp_path / "a.png"], 8)) == 2


def test_a_damaged_animation_for_the_mark_of_a_video(tmp_path):
    """Its first frame can be read as a picture."""
    packed, frames = io.BytesIO(), [Image.effect_noise((64, 64), 50 + n) for n in range(3)]
    frames[0].save(packed, "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "a.gif").write_bytes(packed.getvalue()[:-200])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_prompt("<video>a", [tmp_path / "a.gif"], 8)
    with pytest.raises(UserError, match="is a video but its mark is <image>: write <video>"):
        read_prompt("<image>a", [tmp_path / "a.gif"], 8)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_in_another_encoding(tmp_path, encoding):
    picture(tmp_path / "a.png", "red")
    image, caption = {"id": 1, "file_name": "a.png"}, {"image_id": 1, "caption": "红色的圆"}
    coco = json.dumps({"info": "数据", "images": [image], "annotations": [caption]}, ensure_ascii=False)
    (tmp_path / "captions_a.json").write_bytes(coco.encode(encoding))
    with pytest.raises(UserError, match="it is not UTF-8; save it as UTF-8"):
        list(read_data(tmp_path)[1])
    (tmp_path / "captions_a.json").unlink()
    row = json.dumps({"file": "a.png", "text": "红色的圆"}, ensure_ascii=False)
    (tmp_path / "captions.jsonl").write_bytes(row.encode(encoding))
    with pytest.raises(UserError, match=r"1 line is not UTF-8: save the file as UTF-8 \(is it GBK or UTF-16\?\)"):
        list(check_data(tmp_path))


LINES = {
    "results.token": "a.png#0\t红色的圆\n",
    "results.csv": "a.png| 0| 红色的圆\n",
    "clips.txt": "a_1_2 红色的圆\n",
    "pages.jsonl": '{"a": "红"}\n',
}


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", LINES)
def test_lines_in_another_encoding(tmp_path, name, encoding):
    picture(tmp_path / "a.png", "red")
    (tmp_path / name).write_bytes(LINES[name].encode(encoding))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=rf"{name}': it is not UTF-8; save it as UTF-8 \(is it GBK or UTF-16\?\)"):
            read_data(path)


NAMES = {  # name in the folder: name in the list
    unicodedata.normalize("NFD", "café.png"): unicodedata.normalize("NFC", "café.png"),
    "sub/a.png": "sub\\a.png",
    "B.JPG": "B.jpg",
    "c.png": " c.png",
}


@pytest.mark.parametrize("there", NAMES)
def test_a_missing_name_has_the_near_one_beside_it(tmp_path, there):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(encoded("red"))
    lines(tmp_path / "captions.jsonl", [{"file": NAMES[there], "text": "t"}])
    (record,) = read_data(tmp_path)[1]
    assert isinstance(record, Skipped) and record.why == "file missing"
    assert record.detail == f"{NAMES[there]}; is {there} meant?"


def test_files_that_macos_adds_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("a.png", encoded("red")), ("a.txt", b"red")):
            member(archive, f"./._{name}", b"\0\5\x16\7")
            member(archive, f"./{name}", data)
    (tmp_path / "._a.tar").write_bytes(b"\0\5\x16\7" + bytes(4000))
    assert [isinstance(r, Skipped) for r in decoded(read_data(tmp_path)[1], 8)] == [False]


def test_no_control_character_of_a_name_reaches_the_terminal(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member(archive, "\x1b]0;红\x07a.txt", b"red")
    report = []
    with pytest.raises(UserError):
        for line in check_data(tmp_path):
            report.append(line)
    assert report and all(line.isprintable() for line in report) and "红" in report[0]
