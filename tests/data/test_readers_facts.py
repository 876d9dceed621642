"""What records say beside pictures and texts: class, group, answers; blank sentences; animated pictures; frames."""

import io
import json
import tarfile

import numpy as np
import pytest
from own_files import lines, member, msrvtt, msvd, page, picture, video
from PIL import Image

from tinyflamingo import cli
from tinyflamingo.data.prompt import read_prompt
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.check import SIDE, check_data
from tinyflamingo.data.readers.decode import decoded
from tinyflamingo.data.readers.record import Record
from tinyflamingo.data.store import Stored, prepare
from tinyflamingo.model.tokenizer import SMALLEST, fit_tokenizer, least_pieces
from tinyflamingo.own_data.options import about_texts

ANIMATED = {"gif": "GIF", "webp": "WEBP", "png": "PNG", "apng": "PNG"}


def animation(kind, frames=4, shade=0):
    """The bytes of an animated picture: one frame each second."""
    rng, file = np.random.default_rng(shade), io.BytesIO()
    pictures = [Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(frames)]
    options = {"lossless": True} if kind == "WEBP" else {}
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:], duration=1000, loop=0, **options)
    return file.getvalue()


def records(path):
    return list(read_data(path)[1])


# ---- class, group --------------------------------------------------------------------------------


def folder_with(tmp_path, *rows):
    picture(tmp_path / "red.png", "red")
    lines(tmp_path / "captions.jsonl", [{"file": "red.png", "text": "a red thing."} | row for row in rows])
    return tmp_path


def test_a_line_can_have_a_class_and_a_group(tmp_path):
    path = folder_with(tmp_path, {"class": "red", "group": 3}, {"class": 7}, {})
    assert [(r.label, r.group) for r in records(path)] == [("red", "3"), ("7", ""), ("", "")]


@pytest.mark.parametrize("wrong", [{"class": ["a"]}, {"group": 1.5}, {"class": True}, {"group": " "}])
def test_a_class_or_group_of_another_type_makes_its_record_bad(tmp_path, wrong):
    good, bad = records(folder_with(tmp_path, {}, wrong))
    assert isinstance(good, Record) and not isinstance(bad, Record)


def test_the_json_of_a_tar_can_have_them_beside_a_text(tmp_path):
    picture(tmp_path / "red.png", "red")
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        member(archive, "1.png", (tmp_path / "red.png").read_bytes())
        member(archive, "1.txt", b"a red thing.")
        member(archive, "1.json", json.dumps({"class": "red", "group": "ann"}).encode())
    (record,) = records(tmp_path / "0.tar")
    assert (record.label, record.group) == ("red", "ann") and record.items[-1] == "a red thing."


def test_records_of_one_class_or_of_equal_texts_have_one_number(tmp_path):
    rows = ({"class": "x", "text": "one"}, {"class": "x", "text": "two"}, {"text": "one"}, {"text": "one"}, {})
    store = prepare(folder_with(tmp_path / "a", *rows), tmp_path / "store", 16)
    a, b, c, d, e = store.classes
    assert a == b and c == d and len({a, c, e}) == 3
    again = prepare(folder_with(tmp_path / "b", *rows[::-1]), tmp_path / "other", 16)
    assert again.classes.tolist() == store.classes.tolist()[::-1]  # also in another store


# ---- pages ---------------------------------------------------------------------------------------


def test_a_blank_sentence_does_not_spoil_its_page(tmp_path):
    picture(tmp_path / "red.png", "red")
    infos = [{"matched_text_index": i, "image_name": "red.png"} for i in range(3)]
    pages = [
        page("red") | {"text_list": ["a", " \n", "c"], "image_info": infos},
        page("red") | {"text_list": ["", " "], "image_info": infos[:1]},
        page("red") | {"text_list": ["a", 3], "image_info": infos[:1]},
    ]
    good, blank, number = records(lines(tmp_path / "a.jsonl", pages))
    assert [item for item in good.items if isinstance(item, str)] == ["a", "c"] and len(good.media) == 3
    assert blank.why == "no text" and number.why == "a text is not of type str"


def test_a_blank_text_does_not_spoil_a_row_of_obelics(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    picture(tmp_path / "red.png", "red")
    rows = [{"images": ["red.png", None, None], "texts": [None, " ", "a red thing."]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pages.parquet")
    (record,) = records(tmp_path)
    assert record.items[1:] == ["a red thing."]


# ---- animated pictures and frames ----------------------------------------------------------------


def test_animated_pictures_in_a_tar_are_videos(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for i, (extension, kind) in enumerate(ANIMATED.items()):
            member(archive, f"{i}.{extension}", animation(kind, shade=i))
            member(archive, f"{i}.txt", b"a film.")
    outcomes = list(decoded(read_data(tmp_path)[1], 8))
    assert [record.media[0].kind for record, _ in outcomes] == ["video"] * 4
    assert [media[0].shape for _, media in outcomes] == [(4, 8, 8, 3)] * 4


@pytest.mark.parametrize("write, suffix", [(msrvtt, ".mp4"), (msvd, ".avi")])
@pytest.mark.parametrize("extension", ANIMATED)
def test_formats_of_videos_accept_animated_pictures(tmp_path, write, suffix, extension):
    path = write(tmp_path / "source")
    for file in sorted((tmp_path / "source").rglob(f"*{suffix}")):
        file.with_suffix(f".{extension}").write_bytes(animation(ANIMATED[extension]))
        file.unlink()
    good = [record for record in records(path) if isinstance(record, Record)]
    assert [record.media[0].kind for record in good] == ["video"] * 3


def test_a_still_picture_is_no_video_of_a_format_of_videos(tmp_path):
    path = msrvtt(tmp_path / "source")
    for file in sorted((tmp_path / "source").rglob("*.mp4")):
        Image.new("RGB", (8, 8)).save(file.with_suffix(".png"))
        file.unlink()
    assert [record.why for record in records(path)].count("file missing") == 3


@pytest.mark.parametrize("extension", ANIMATED)
def test_a_prompt_takes_so_many_frames_a_second(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    path.write_bytes(animation(ANIMATED[extension]))
    for fps, frames in ((1.0, 4), (0.5, 2), (2.0, 7)):
        (clip,) = read_prompt("<video>", [path], 8, fps=fps)
        assert clip.shape == (frames, 8, 8, 3)


def test_a_data_set_takes_so_many_frames_a_second(tmp_path):
    video(tmp_path / "a.mp4", "blue", 4)
    lines(tmp_path / "captions.jsonl", [{"file": "a.mp4", "text": "a film."}])
    for fps, frames in ((1.0, 4), (2.0, 7)):
        store = prepare(tmp_path, tmp_path.parent / f"store{fps}", 16, fps=fps)
        assert store.items(0)[0] == Stored(0, frames)


@pytest.mark.parametrize("fps", ["0", "-1", "nan", "inf"])
def test_frames_that_cannot_be_are_one_line(tmp_path, capsys, fps):
    (tmp_path / "a.gif").write_bytes(animation("GIF"))
    assert cli.main(["complete", "<video>", str(tmp_path / "a.gif"), "--fps", fps]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- data check ----------------------------------------------------------------------------------


def test_the_sheet_has_the_pixels_that_the_model_gets(tmp_path, monkeypatch):
    from tinyflamingo.data.readers import check

    path, sheets = folder_with(tmp_path, {}, {}), []
    monkeypatch.setattr(check, "draw_sheet", lambda sample, sheet: sheets.append(sample))
    for side in (SIDE, 48):
        list(check_data(path, sheet=tmp_path / "sheet.png", side=side))
        assert {pixels.shape for pixels, _ in sheets.pop()} == {(side, side, 3)}


def test_the_report_says_how_many_pieces_the_letters_need(tmp_path):
    path = folder_with(tmp_path, {"text": "天地玄黄宇宙洪荒日月盈昃辰宿列张"})
    report = list(check_data(path, about=about_texts))
    (line,) = [line for line in report if line.startswith("vocabulary:")]
    needed = int(line.split("at least ")[1].split()[0])
    texts = ["Output:", "天地玄黄宇宙洪荒日月盈昃辰宿列张"]
    assert needed > SMALLEST and len(fit_tokenizer(lambda: texts, needed)) == needed
    with pytest.raises(Exception, match=f"give --vocab {needed} or more"):
        fit_tokenizer(lambda: texts, needed - 1)
    assert least_pieces(["a"]) == SMALLEST + 1  # the letter and the sign for the beginning of a word


def test_a_vocabulary_that_is_too_small_is_refused_before_a_picture_is_decoded(tmp_path, capsys, monkeypatch):
    from tinyflamingo.data.readers import decode

    path = folder_with(tmp_path / "source", {"text": "天地玄黄宇宙洪荒日月盈昃辰宿列张"})
    monkeypatch.setattr(decode, "load", lambda *a, **o: pytest.fail("decoded"))
    line = ["train", "--preset", "smoke", "--data", str(path), "--vocab", "262", "--out", str(tmp_path / "run")]
    assert cli.main(line) == 2
    assert "a vocabulary of 262 is too small" in capsys.readouterr().err and not (tmp_path / "run").exists()
