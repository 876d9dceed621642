"""Every mistake of a user: exit code 2, one line on stderr, no file lost or partly written."""

import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from card_files import write_sealed
from PIL import Image

import tinyflamingo
from tinyflamingo import cli
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.model.interleave import check_media
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import named_leaves

av = pytest.importorskip("av")


def png(width, height):
    """A PNG file with the header of a picture of any size and almost no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def no_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()


@pytest.fixture
def files(tmp_path, media, checkpoint):
    """A folder of the user: good files, every kind of bad file, and damaged checkpoints."""
    for name in ("red.png", "clip.mp4"):
        shutil.copy(media / name, tmp_path)
    good, video = (media / "red.png").read_bytes(), (media / "clip.mp4").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "huge.png").write_bytes(png(30000, 30000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    for percent in (10, 50, 95):
        (tmp_path / f"cut{percent}.mp4").write_bytes(video[: len(video) * percent // 100])
    sound_only(tmp_path / "sound.mp4")
    no_frames(tmp_path / "zero.mp4")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    damaged_checkpoints(tmp_path, checkpoint)
    own_data(tmp_path)
    return tmp_path


def own_data(folder):
    """The user's own data sets: a good one, some with bad records, and damaged files."""
    for name, captioned in (("good", ["red.png"]), ("bad", ["none.png"]), ("half", ["red.png", "none.png"])):
        (folder / name).mkdir()
        shutil.copy(folder / "red.png", folder / name)
        rows = [json.dumps({"file": file, "text": "a red thing"}) for file in captioned]
        (folder / name / "captions.jsonl").write_text("\n".join(rows))
    (folder / "folder.png").mkdir()
    (folder / "cut.json").write_text('{"images": [{"id": 1, "file_name": "red.png"}], "annotations": [{"im')
    (folder / "list.json").write_text("[1, 2]")
    with tarfile.open(folder / "cut.tar", "w") as archive:
        archive.add(folder / "red.png", "1.png")
    (folder / "cut.tar").write_bytes((folder / "cut.tar").read_bytes()[:600])
    (folder / "noise.tar").write_bytes(bytes(range(256)) * 8)
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}")[:8])
    with zipfile.ZipFile(folder / "two.jsonl.zip", "w") as archive:
        archive.writestr("a", "{}")
        archive.writestr("b", "{}")
    (folder / "v2_train2014_questions.json").write_text('{"questions": [{"question_id": 1}]}')


def damaged_checkpoints(folder, checkpoint):
    def copy(name):
        shutil.copytree(checkpoint, folder / name)
        return folder / name

    (copy("no_card") / "model.json").unlink()
    (copy("no_weights") / "weights.npz").unlink()
    for name in ("weights.npz", "model.json"):
        path = copy(f"cut_{name[:5]}") / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    path = copy("other_config") / "model.json"
    card = json.loads(path.read_text())
    card["config"]["language"]["layers"] = 3
    write_sealed(path, card)
    path = copy("changed_card") / "model.json"
    path.write_text(json.dumps(card))
    path = copy("unsealed") / "model.json"
    card = json.loads(path.read_text())
    del card["card_sha256"]
    path.write_text(json.dumps(card))
    path = copy("old_format") / "model.json"
    old_card(path)
    shutil.copytree(folder / "old_format", folder / "old_run/checkpoint")
    path = copy("other_weights") / "weights.npz"
    np.savez(path, nothing=np.zeros(3))


def old_card(path):
    """A card as written by version 0.1: format 1, in which no part has a kind."""
    card = json.loads(path.read_text())
    config = {name: {k: v for k, v in part.items() if k != "kind"} for name, part in card["config"].items()}
    config["vision"] |= {"activation": "gelu", "se_activation": "gelu", "pixels": [110, 80]}
    config["xattn"] |= {"start": 0, "gated": True, "kind": "dense", "attend": "last"}
    write_sealed(path, card | {"format": 1, "config": config})


TEMPLATE = "<image>Output:"
OWN = ("train", "--preset", "smoke", "--out", "@run", "--data")

# The command line, and words that the error line must contain. A leading "@" is the folder of the user's files, and
# "CHECKPOINT" adds the good checkpoint. Commands without --checkpoint fail before they need one.
BAD = {
    # marks and files
    "more marks": (("complete", "<image>a<image>b", "@red.png", "CHECKPOINT"), ("2 marks", "1 file:")),
    "fewer marks": (("complete", "hello", "@red.png", "CHECKPOINT"), ("0 marks", "1 file:")),
    "no file": (("complete", TEMPLATE, "CHECKPOINT"), ("1 mark ", "0 files:")),
    "video as picture": (("complete", TEMPLATE, "@clip.mp4", "CHECKPOINT"), ("clip.mp4", "<video>")),
    "picture as video": (("complete", "<video>a", "@red.png", "CHECKPOINT"), ("red.png", "its mark is <video>")),
    "empty prompt": (("complete", "", "CHECKPOINT"), ("empty",)),
    "blank prompt": (("complete", "  ", "CHECKPOINT"), ("empty",)),
    "prompt too long": (("complete", "word " * 3000, "CHECKPOINT"), ("context is 1024",)),
    "continuation too long": (("complete", "a", "--max-tokens", "99999", "CHECKPOINT"), ("context is 1024",)),
    "no unicode": (("complete", "a\udcff", "CHECKPOINT"), ("not valid Unicode",)),
    # pictures
    "missing picture": (("complete", TEMPLATE, "@none.png", "CHECKPOINT"), ("none.png", "no such file")),
    "empty picture": (("complete", TEMPLATE, "@empty.png", "CHECKPOINT"), ("empty.png", "empty")),
    "cut picture": (("complete", TEMPLATE, "@cut.png", "CHECKPOINT"), ("cut.png", "damaged or cut")),
    "text as picture": (("complete", TEMPLATE, "@text.png", "CHECKPOINT"), ("text.png", "not a picture")),
    "huge picture": (("complete", TEMPLATE, "@huge.png", "CHECKPOINT"), ("huge.png", "million pixels")),
    "folder as picture": (("complete", TEMPLATE, "@folder", "CHECKPOINT"), ("folder",)),
    "second picture bad": (("complete", "<image><image>", "@red.png", "@cut.png", "CHECKPOINT"), ("cut.png",)),
    # videos
    "missing video": (("complete", "<video>a", "@none.mp4", "CHECKPOINT"), ("none.mp4", "no such file")),
    "empty video": (("complete", "<video>a", "@empty.mp4", "CHECKPOINT"), ("empty.mp4", "empty")),
    "video cut at 10%": (("complete", "<video>a", "@cut10.mp4", "CHECKPOINT"), ("cut10.mp4", "cut short")),
    "video cut at 50%": (("complete", "<video>a", "@cut50.mp4", "CHECKPOINT"), ("cut50.mp4", "cut short")),
    "video cut at 95%": (("complete", "<video>a", "@cut95.mp4", "CHECKPOINT"), ("cut95.mp4", "cut short")),
    "video without pictures": (("complete", "<video>a", "@sound.mp4", "CHECKPOINT"), ("sound.mp4", "no video")),
    "video of zero seconds": (("complete", "<video>a", "@zero.mp4", "CHECKPOINT"), ("zero.mp4",)),
    # numbers
    "temperature nan": (("complete", "a", "--temperature", "nan"), ("temperature is nan",)),
    "temperature inf": (("complete", "a", "--temperature", "inf"), ("temperature is inf",)),
    "temperature negative": (("complete", "a", "--temperature=-1"), ("temperature is -1",)),
    "temperature word": (("complete", "a", "--temperature", "hot"), ("--temperature", "'hot'")),
    "top-p 0": (("complete", "a", "--top-p", "0"), ("top_p is 0",)),
    "top-p 2": (("complete", "a", "--top-p", "2"), ("top_p is 2",)),
    "top-p nan": (("complete", "a", "--top-p", "nan"), ("top_p is nan",)),
    "top-k negative": (("complete", "a", "--top-k=-1"), ("--top-k",)),
    "max-tokens 0": (("complete", "a", "--max-tokens", "0"), ("--max-tokens must be at least 1",)),
    "beams 0": (("complete", "a", "--beams", "0"), ("--beams",)),
    "beams without end": (("complete", "a", "--beams", "1000000000"), ("--beams", "from 1 to 64")),
    "beams and sampling": (("complete", "a", "--beams", "3", "--temperature", "1"), ("choose one",)),
    "greedy top-k": (("complete", "a", "--temperature", "0", "--top-k", "5"), ("--top-k has no effect",)),
    "greedy top-p": (("complete", "a", "--temperature", "0", "--top-p", "0.5"), ("--top-p has no effect",)),
    "greedy seed": (("complete", "a", "--seed", "0"), ("--seed has no effect", "--temperature")),
    "beams and top-k": (("complete", "a", "--beams", "3", "--top-k", "5"), ("choose one",)),
    "seed -1": (("complete", "a", "--seed=-1"), ("--seed", "'-1'")),
    "seed 1.5": (("complete", "a", "--seed", "1.5"), ("--seed", "'1.5'")),
    "seed too long": (("train", "--seed", "9" * 5000), ("--seed", "at most 100 digits")),
    "queries 0": (("evaluate", "--queries", "0"), ("--queries is 0 but must be from 1 to",)),
    "queries without end": (("evaluate", "--queries", "9" * 14, "CHECKPOINT"), ("--queries is 9", "from 1 to")),
    "runs without their task": (("evaluate", "--task", "vqa", "--runs", "@x", "CHECKPOINT"), ("add it, or remove",)),
    "queries of the suite": (("evaluate", "--suite", "--quick", "--queries", "3"), ("--queries has no effect",)),
    "queries of runs": (("evaluate", "--task", "omniglot", "--runs", "@x", "--queries", "3"), ("--queries has",)),
    "suite of runs": (("evaluate", "--suite", "--task", "omniglot", "--runs", "@x"), ("remove --suite",)),
    "emoji without its packages": (("evaluate", "--task", "emoji"), ("--task emoji and --data DIR belong together",)),
    "emoji beside another task": (
        ("evaluate", "--task", "emoji", "--task", "caption", "--data", "@folder"),
        ("without another task",),
    ),
    "emoji in an empty folder": (("evaluate", "--task", "emoji", "--data", "@folder"), ("npm pack emoji-datasource",)),
    "emoji preset without data": (("train", "--preset", "emoji", "--out", "@new"), ("the packages with --data",)),
    "Chinese emoji without data": (
        ("train", "--preset", "emoji", "--language", "zh", "--out", "@new"),
        ("preset 'emoji-zh' learns from emoji", "the packages with --data"),
    ),
    "language of the toy": (("train", "--language", "zh", "--out", "@new"), ("--language", "add --preset emoji")),
    "language of a preset without names": (
        ("train", "--preset", "smoke", "--language", "en", "--out", "@new"),
        ("--language", "add --preset emoji"),
    ),
    "language that emoji have not": (("train", "--preset", "emoji", "--language", "fr"), ("--language", "'fr'")),
    # checkpoints
    "no checkpoint": (("complete", "a", "--checkpoint", "@none"), ("none", "no such folder")),
    "file as checkpoint": (("complete", "a", "--checkpoint", "@file"), ("it is a file; give the folder",)),
    "checkpoint without card": (("complete", "a", "--checkpoint", "@no_card"), ("no model.json",)),
    "checkpoint without weights": (("evaluate", "--checkpoint", "@no_weights"), ("weights.npz cannot be read",)),
    "checkpoint with cut weights": (("demo", "--checkpoint", "@cut_weigh", "--out", "@a.png"), ("cut or changed",)),
    "checkpoint with cut card": (("complete", "a", "--checkpoint", "@cut_model"), ("model.json",)),
    "checkpoint of another format": (("complete", "a", "--checkpoint", "@old_format"), ("json is not of format 3",)),
    "run of another format": (("evaluate", "--checkpoint", "@old_run"), ("old_run/checkpoint", "not of format 3")),
    "checkpoint with a changed card": (("complete", "a", "--checkpoint", "@changed_card"), ("model.json was changed",)),
    "card without its checksum": (("complete", "a", "--checkpoint", "@unsealed"), ("no card_sha256 in it",)),
    "checkpoint of another configuration": (("complete", "a", "--checkpoint", "@other_config"), ("do not fit",)),
    "weights of another checkpoint": (("complete", "a", "--checkpoint", "@other_weights"), ("cut or changed",)),
    "name too long": (("complete", "a", "--checkpoint", "@" + "x" * 5000), ("too long",)),
    # training
    "unknown preset": (("train", "--preset", "giant", "--out", "@run"), ("'giant'", "smoke, toy")),
    "unknown preset of params": (("params", "giant"), ("'giant'", "smoke, toy", "flamingo-80b", "chinchilla-44m")),
    "out is empty": (("train", "--preset", "smoke", "--out", ""), ("--out", "an empty path")),
    "start is empty": (("train", "--from", "", "--out", "@new"), ("--from", "an empty path")),
    "test set is empty": (("train", "--data", "@good", "--test", "", "--out", "@new"), ("--test", "an empty path")),
    "data to evaluate are empty": (("evaluate", "--data", "", "CHECKPOINT"), ("--data", "an empty path")),
    "test set to evaluate is empty": (("evaluate", "--test", "", "CHECKPOINT"), ("--test", "an empty path")),
    "other pictures are empty": (("calibrate", "--unlike", "", "CHECKPOINT"), ("--unlike", "an empty path")),
    "mix with data of the preset's own": (
        ("train", "--preset", "omniglot", "--data", "folder", "--mix", "0.5", "--out", "run"),
        ("--mix", "preset 'omniglot' has its own data"),
    ),
    "out at a file": (("train", "--preset", "smoke", "--out", "@file"), ("cannot write",)),
    "out below a file": (("train", "--preset", "smoke", "--out", "@file/below"), ("cannot write",)),
    "out in /proc": (("train", "--preset", "smoke", "--out", "/proc/tinyflamingo"), ("cannot write",)),
    "nothing to resume": (("train", "--preset", "smoke", "--out", "@folder", "--resume"), ("nothing to resume",)),
    "resume in no folder": (("train", "--preset", "smoke", "--out", "@none", "--resume"), ("nothing to resume",)),
    # own data
    "data without action": (("data",), ("action",)),
    "data of unknown action": (("data", "paint", "@folder"), ("'paint'", "check")),
    "data without path": (("data", "check"), ("path",)),
    "no such data": (("data", "check", "@none"), ("none", "no such file or folder")),
    "empty folder of data": (("data", "check", "@folder"), ("folder", "captions.jsonl")),
    "picture as data": (("data", "check", "@red.png"), ("red.png", "no data in a known format")),
    "data of unknown format": (("data", "check", "@good", "--format", "xml"), ("'xml'", "folder, coco")),
    "data of another format": (("data", "check", "@good", "--format", "coco"), ("no data in the format 'coco'",)),
    "sheet of no kind": (("data", "check", "@good", "--sheet", "@a.jpg"), ("must end in .png",)),
    "sheet on a picture of the data": (("data", "check", "@good", "--sheet", "@good/red.png"), ("a file of the data",)),
    "sheet at a folder": (("data", "check", "@good", "--sheet", "@folder.png"), ("folder",)),
    "sheet in no folder": (("data", "check", "@good", "--sheet", "@none/a.png"), ("folder does not exist",)),
    "share of bad above 1": (("data", "check", "@good", "--allow-bad", "2"), ("--allow-bad", "from 0 to 1")),
    "share of bad word": (("data", "check", "@good", "--allow-bad", "some"), ("--allow-bad", "'some'")),
    "share of bad nan": (("data", "check", "@good", "--allow-bad", "nan"), ("--allow-bad", "'nan'")),
    "cut annotations": (("data", "check", "@cut.json", "--format", "coco"), ("cut.json", "cut or damaged")),
    "annotations that are a list": (("data", "check", "@list.json", "--format", "coco"), ("not a JSON object",)),
    "cut archive": (("data", "check", "@cut.tar"), ("cut.tar",)),
    "noise as archive": (("data", "check", "@noise.tar"), ("noise.tar",)),
    "cut gzip": (("data", "check", "@cut.jsonl.gz", "--format", "mmc4"), ("cut.jsonl.gz",)),
    "zip of two files": (("data", "check", "@two.jsonl.zip", "--format", "mmc4"), ("2 files instead of one",)),
    "questions without answers": (("data", "check", "@v2_train2014_questions.json"), ("one file of answers",)),
    "only bad records": ((*OWN, "@bad"), ("no usable record", "1 file missing")),
    "too many bad records": ((*OWN, "@half"), ("more than 5%", "1 file missing", "--allow-bad")),
    "training on no data": ((*OWN, "@none"), ("no such file or folder",)),
    "training on an empty folder": ((*OWN, "@folder"), ("captions.jsonl",)),
    "mix without data": (("train", "--preset", "smoke", "--out", "@run", "--mix", "0.5"), ("--mix", "add --data")),
    "format without data": (("train", "--preset", "smoke", "--out", "@run", "--format", "coco"), ("--format",)),
    "allowance without data": (("train", "--out", "@run", "--allow-bad", "0.5"), ("--allow-bad", "add --data")),
    "mix of nothing": ((*OWN, "@good", "--mix", "0"), ("--mix is 0",)),
    "mix above 1": ((*OWN, "@good", "--mix", "1.5"), ("--mix", "from 0 to 1")),
    "side too small": ((*OWN, "@good", "--side", "3"), ("--side is 3", "from 16 to 512")),
    "side without end": ((*OWN, "@good", "--side", "100000"), ("--side is 100000",)),
    "vocabulary too small": ((*OWN, "@good", "--vocab", "10"), ("--vocab is 10",)),
    "context 0": ((*OWN, "@good", "--context", "0"), ("--context is 0",)),
    "context word": ((*OWN, "@good", "--context", "long"), ("--context", "'long'")),
    "run in the folder of the data": ((*OWN, "@good", "--out", "@good"), ("is the folder of your data", "choose")),
    "run beside the captions": ((*OWN, "@good/captions.jsonl", "--out", "@good"), ("is the folder of your data",)),
    "run in the folder of the test set": ((*OWN, "@good", "--test", "@bad", "--out", "@bad"), ("of your data",)),
    "archives in the folder of the run": (
        ("train", "--preset", "emoji", "--data", "@folder", "--out", "@folder"),
        ("is the folder of your data",),
    ),
    "address of a picture": (
        ("complete", "<image>a", "http://example.com/a.png"),
        ("'http://example.com/a.png'", "download the file first"),
    ),
    "frames of no video": (("complete", TEMPLATE, "@red.png", "--fps", "3"), ("--fps has no effect",)),
    # reports and figures
    "figure in no folder": (("demo", "--out", "@none/a.png", "CHECKPOINT"), ("folder does not exist",)),
    "figure at a folder": (("demo", "--out", "@folder", "CHECKPOINT"), ("folder",)),
    "figure of no kind": (("demo", "--out", "@a.xyz", "CHECKPOINT"), (".png, .pdf, .svg",)),
    "report at a folder": (("evaluate", "--json", "@folder", "CHECKPOINT"), ("folder",)),
    "report below a file": (("evaluate", "--json", "@file/a.json", "CHECKPOINT"), ("cannot write",)),
    "report in no folder": (("evaluate", "--json", "@none/a.json", "CHECKPOINT"), ("folder does not exist",)),
    "scores on a picture": (("evaluate", "--json", "@red.png", "CHECKPOINT"), ("must end in .json",)),
    "counts on a picture": (("params", "smoke", "--json", "@red.png"), ("must end in .json",)),
    "times on a picture": (("bench", "--json", "@red.png"), ("must end in .json",)),
    "ablations on a picture": (("ablate", "--json", "@red.png", "CHECKPOINT"), ("must end in .json",)),
    "threshold on a picture": (("calibrate", "--json", "@red.png", "CHECKPOINT"), ("must end in .json",)),
    "page on a picture": (("explore", "--out", "@red.png", "CHECKPOINT"), ("must end in .html",)),
    "results on a picture": (("report", "@folder", "--out", "@red.png"), ("must end in .md",)),
    "zip of a class on a picture": (("class", "pack", "@red.png"), ("must end in .zip",)),
    "quiz on a picture": (("class", "quiz", "@red.png"), ("must end in .gift",)),
    "threshold that nothing reaches": (("calibrate", "--kept", "0", "CHECKPOINT"), ("--kept is 0",)),
    "counts at a folder": (("params", "smoke", "--json", "@folder"), ("folder",)),
    "counts in no folder": (("params", "smoke", "--json", "@none/a.json"), ("folder does not exist",)),
    "times at a folder": (("bench", "--json", "@folder"), ("folder",)),
    "times in no folder": (("bench", "--json", "@none/a.json"), ("folder does not exist",)),
    "costs of no kind": (("bench", "--figure", "@a.xyz"), (".png, .pdf, .svg",)),
    "costs in no folder": (("bench", "--figure", "@none/a.png"), ("folder does not exist",)),
    "unknown line": (("bench", "--only", "warp"), ("'warp'", "flamingo_step")),
    "threads 0": (("bench", "--only", "import", "--threads", "0"), ("--threads is 0", "from 1 to")),
    "threads without end": (("bench", "--only", "import", "--threads", "99999"), ("--threads is 99999", "from 1 to")),
    "threads word": (("bench", "--threads", "all"), ("--threads", "'all'")),
    "unknown task": (("evaluate", "--task", "chess", "CHECKPOINT"), ("unknown task 'chess'", "caption")),
    "unknown ablation": (("ablate", "--only", "wings", "CHECKPOINT"), ("'wings'", "baseline", "isoflop")),
    "ablations without a preset": (
        ("ablate", "--json", "@a.json", "CHECKPOINT"),
        ("does not name its preset",),
    ),
    "ablations in no folder": (("ablate", "--json", "@none/a.json", "CHECKPOINT"), ("folder does not exist",)),
    "no seeds": (("ablate", "--seeds", "0"), ("at least 1",)),
    "no steps": (("ablate", "--steps", "0"), ("at least 1",)),
    "report of nothing": (("report", "@none", "--out", "@r.md"), ("no such file or folder",)),
    "report of a picture": (("report", "@red.png", "--out", "@r.md"), ("red.png", "cannot be read")),
    "report without runs": (("report",), ("RUN",)),
    "results in no folder": (("report", "@folder", "--out", "@none/r.md"), ("folder does not exist",)),
    # the command line itself
    "no command": ((), ("COMMAND",)),
    "unknown command": (("paint",), ("'paint'", "complete")),
    "unknown option": (("complete", "a", "--colour", "red"), ("--colour",)),
    "no template": (("complete",), ("required: template (see",)),
    "no preset": (("params",), ("preset",)),
    "option without value": (("complete", "a", "--seed"), ("--seed",)),
}
if os.name != "posix":  # it has no such folder
    del BAD["out in /proc"]


def typed(words, folder, checkpoint):
    line = [str(folder / w[1:]) if w.startswith("@") else w for w in words if w != "CHECKPOINT"]
    return line + (["--checkpoint", str(checkpoint)] if "CHECKPOINT" in words else [])


def everything(folder):
    """All files of a folder with their bytes, and all folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in Path(folder).rglob("*")}


def assert_one_line(err, words):
    assert err.startswith("tinyflamingo: ") and err.endswith("\n") and err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_the_list_is_long():
    assert len(BAD) >= 100


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(name, files, checkpoint, command, monkeypatch):
    words, expected = BAD[name]
    monkeypatch.chdir(files)
    before = everything(files)
    code, out, err = command(*typed(words, files, checkpoint))
    assert code == 2 and out == ""
    assert_one_line(err, expected)
    assert everything(files) == before


@pytest.mark.parametrize("name", ["cut picture", "no command", "seed -1", "checkpoint with cut card", "out at a file"])
def test_a_mistake_in_a_shell_is_one_line(name, files, checkpoint):
    words, expected = BAD[name]
    before = everything(files)
    line = [sys.executable, "-m", "tinyflamingo", *typed(words, files, checkpoint)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=Path(cli.__file__).parents[2])
    assert done.returncode == 2 and done.stdout == ""
    assert_one_line(done.stderr, expected)
    assert everything(files) == before


@pytest.mark.parametrize("name, value", [("TINYFLAMINGO_THREADS", "0"), ("TINYFLAMINGO_OPS", "quick")])
def test_a_mistake_in_the_environment_is_one_line_too(name, value):
    line = [sys.executable, "-m", "tinyflamingo", "complete", "Output:"]
    env, root = {**os.environ, name: value}, Path(cli.__file__).parents[2]
    done = subprocess.run(line, capture_output=True, text=True, cwd=root, env=env)
    assert done.returncode == 2 and done.stdout == ""
    assert_one_line(done.stderr, (name, repr(value)))


@pytest.mark.posix
def test_a_closed_stdout_is_one_line(tmp_path):
    line = ["sh", "-c", '"$0" -m tinyflamingo complete a >&-', sys.executable]
    done = subprocess.run(line, stderr=subprocess.PIPE, text=True, cwd=Path(cli.__file__).parents[2])
    assert done.returncode == 2
    assert_one_line(done.stderr, ("stdout is closed",))


def test_a_finished_run_is_neither_overwritten_nor_taken_over(files, command):
    from tinyflamingo.training.state import Progress, save_state

    save_state(files / "folder", Progress("smoke", 0, 1), {})
    before = everything(files)
    for words, message in (
        (("--preset", "smoke"), "already holds a run"),
        (("--preset", "toy", "--resume"), "preset 'smoke', not 'toy'"),
    ):
        code, out, err = command("train", "--out", files / "folder", *words)
        assert code == 2 and out == ""
        assert_one_line(err, (message,))
        assert everything(files) == before


def test_a_resumed_run_has_its_preset_in_its_folder(files, command):
    from tinyflamingo.training.state import Progress, save_state

    save_state(files / "folder", Progress("smoke", 0), {})
    code, _, err = command("train", "--out", files / "folder", "--resume", "--mix", "0.5")
    assert code == 2
    assert_one_line(err, ("--mix is an option for your own data",))
    save_state(files / "folder", Progress("omniglot", 0), {})
    code, _, err = command("train", "--out", files / "folder", "--resume")
    assert code == 2 and "preset 'omniglot' learns from Omniglot" in err


def test_a_damaged_state_is_refused(files, command):
    (files / "folder/state.npz").write_bytes(b"PK not a state")
    code, _, err = command("train", "--preset", "smoke", "--out", files / "folder", "--resume")
    assert code == 2
    assert_one_line(err, ("damaged", "state.npz"))


def test_a_report_that_cannot_be_written_at_the_end_leaves_the_old_one(files, checkpoint, command, monkeypatch):
    (files / "report.json").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = command(
        "evaluate", "--checkpoint", checkpoint, "--json", files / "report.json", "--queries", "1", "--task", "vqa"
    )
    assert code == 2
    assert_one_line(err, ("No space left on device",))
    assert (files / "report.json").read_text() == "old" and not list(files.glob(".*"))


def test_no_permission_is_one_line_too(files, checkpoint, command, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    code, _, err = command("evaluate", "--checkpoint", checkpoint, "--json", files / "a.json")
    assert code == 2
    assert_one_line(err, ("no permission",))


@pytest.mark.parametrize(
    "module, name, arguments", [(cli.studies, "params", ["smoke"]), (cli.train, "train", ["--preset", "smoke"])]
)
def test_ctrl_c_is_one_line(module, name, arguments, command, monkeypatch):
    """Only a command that trains speaks of --resume."""

    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, f"_{name}", stopped)
    code, _, err = command(name, *arguments)
    assert code == 130 and err.count("\n") == 1 and ("--resume" in err) == (name == "train")


# ---- the Python API --------------------------------------------------------------------------


def test_a_literal_tag_in_text_is_text(checkpoint):
    answer = tinyflamingo.complete(tinyflamingo.load(checkpoint), ["a literal <image> and <EOC>"], max_tokens=2)
    assert "<image>" not in answer["prompt_tokens"] and "<EOC>" not in answer["prompt_tokens"]
    pieces = "".join(answer["prompt_tokens"]).replace("▁", " ")
    words = re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), pieces)  # letters that are in no piece
    assert words == "<BOS> a literal <image> and <EOC>"
    assert set(answer["phi"]) == {0}


@pytest.mark.parametrize(
    "item",
    [
        None,
        7,
        b"bytes",
        Path("a.png"),
        [np.zeros((4, 4, 3), np.uint8)],
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("RGB", (4, 4)),
    ],
)
def test_an_item_of_another_kind_is_a_user_error(checkpoint, item):
    with pytest.raises(UserError, match="a prompt is a list of strings") as error:
        tinyflamingo.complete(tinyflamingo.load(checkpoint), ["a", item])
    assert "\n" not in str(error.value)


def test_more_or_fewer_tags_than_media_gives_both_numbers():
    with pytest.raises(UserError, match="2 .*marks but 1 media"):
        check_media([1, IMAGE, 9, IMAGE], ["one"])


@pytest.mark.parametrize("more", [(), ("--beams", "3"), ("--temperature", "1")])
def test_numbers_that_overflow_give_no_answer(checkpoint, tmp_path, media, command, more):
    """The weights are finite, so the checkpoint loads."""
    model = load_checkpoint(checkpoint)
    for leaf in named_leaves(model.frozen["language"]).values():
        leaf *= np.float32(1e3)
    for leaf in named_leaves(model.params).values():
        leaf *= np.float32(1e30)
        leaf += np.float32(1e30)
    save_checkpoint(model, tmp_path / "large")
    code, out, err = command("complete", "<image>Output:", media / "red.png", "--checkpoint", tmp_path / "large", *more)
    assert (code, out, err.count("\n")) == (2, "", 1) and "NaN or infinite logits" in err
