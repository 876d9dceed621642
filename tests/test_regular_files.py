"""Pipes and devices in folders from others: one clear line, no waiting and no memory. Links lead to no other folder."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from card_files import write_sealed
from own_files import coco, msvd, picture, text, vqav2

from tinyflamingo.array_files import read_arrays
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.check import check_data
from tinyflamingo.data.store import Store, prepare
from tinyflamingo.errors import UserError
from tinyflamingo.interop.convert import Options, convert_from, convert_to
from tinyflamingo.studies.growing_report import open_report
from tinyflamingo.studies.report import report
from tinyflamingo.studies.report_read import read_runs
from tinyflamingo.training.run import train
from tinyflamingo.training.state import Log, Progress, load_state, save_state

EXAMPLE = Path(__file__).parents[1] / "docs/results/suite_3.json"
pytestmark = pytest.mark.posix


@pytest.fixture(autouse=True)
def alarm():
    """A test that waits for a pipe fails after 5 seconds."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for a pipe"))
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def empty_device(path):
    """A link to a device. Its end comes at once, so that the old code of a test takes no memory."""
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/null")


def stored(folder):
    data = folder.parent / "data"
    picture(data / "red.png", "red")
    text(data / "captions.jsonl", json.dumps({"file": "red.png", "text": "red"}))
    return prepare(data, folder, 8)


PLACES = {  # name of the file: what reads it in a folder
    "model.json": load_checkpoint,
    "weights.npz": load_checkpoint,
    "weights.safetensors": load_checkpoint,
    "tokenizer.json": load_checkpoint,
    "a.safetensors": lambda folder: read_arrays(folder / "a.safetensors"),
    "state.npz": load_state,
    "log.jsonl": lambda folder: Log(folder, 10),
    "a.json": lambda folder: read_runs([folder / "a.json"]),
    "ablations.json": lambda folder: open_report(folder / "ablations.json", "ablations", {}),
    "store.json": Store,
    "index.npz": Store,
    "pixels.u8": Store,
    "records.jsonl": Store,
    "part.json": lambda folder: convert_to("open_flamingo", folder / "part.npz", folder / "out.npz"),
    "config.json": lambda folder: convert_from("transformers", [folder], folder / "out.npz", Options()),
    "captions.jsonl": lambda folder: list(read_data(folder / "captions.jsonl", "folder")[1]),
    "a.tar": lambda folder: list(read_data(folder, "webdataset")[1]),
}


@pytest.mark.parametrize("spoil", [pipe, empty_device])
@pytest.mark.parametrize("name", PLACES)
def test_a_pipe_or_a_device_is_one_clear_line(tmp_path, name, spoil):
    folder = tmp_path / "folder"
    if PLACES[name] is Store:
        stored(folder)
    elif name in ("a.safetensors", "config.json", "part.json"):
        folder.mkdir()
        shutil.copy(shipped_checkpoint() / "weights.npz", folder / "part.npz")
    else:
        shutil.copytree(shipped_checkpoint(), folder)
    if name == "tokenizer.json":
        card = json.loads((folder / "model.json").read_bytes())
        card["tokenizer"] = {"size": 300, "eos": 1, "image": 2, "eoc": 3}
        write_sealed(folder / "model.json", card)
    spoil(folder / name)
    with pytest.raises(UserError) as caught:
        PLACES[name](folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["p.png", "p.mp4", "p"])
def test_a_pipe_among_pictures_is_a_bad_record(tmp_path, name):
    pipe(tmp_path / name)
    text(tmp_path / "captions.jsonl", json.dumps({"file": name, "text": "t"}))
    with pytest.raises(UserError, match="no usable record.*it is not a regular file"):
        list(check_data(tmp_path))


# ---- files that are written ------------------------------------------------------------------------


def resumed(folder):
    save_state(folder, Progress("smoke", 0), {})
    train("smoke", folder, resume=True)


def reported(folder):
    folder = folder.rename(folder.with_name("figures"))
    shutil.copy(EXAMPLE, folder.parent / "run.json")
    report([folder.parent / "run.json"], folder.parent / "results.md")


WRITTEN = {  # name of the file: what writes it, or its neighbours, in a folder
    "weights.npz": lambda folder: save_checkpoint(load_checkpoint(shipped_checkpoint()), folder),
    "model.json": lambda folder: save_checkpoint(load_checkpoint(shipped_checkpoint()), folder),
    "metrics.json": resumed,
    "losses.png": resumed,
    "checkpoint/model.json": resumed,
    "results_few_shot.png": reported,
}


@pytest.mark.parametrize("spoil", [pipe, empty_device])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_pipe_or_a_device_where_a_run_writes_is_one_clear_line(tmp_path, name, spoil):
    folder = tmp_path / "run"
    (folder / name).parent.mkdir(parents=True)
    spoil(folder / name)
    with pytest.raises(UserError, match=rf"{(folder / name).name} in it is not a regular file; remove it first"):
        WRITTEN[name](folder)


# ---- links -----------------------------------------------------------------------------------------


def outside(tmp_path, path):
    """Move a file or folder out of the data, and put a link in its place."""
    (tmp_path / "outside").mkdir()
    target = tmp_path / "outside" / path.name
    path.rename(target)
    path.symlink_to(target)


def test_a_linked_folder_of_annotations_is_not_read(tmp_path):
    path = coco(tmp_path / "data")
    outside(tmp_path, path / "annotations")
    with pytest.raises(UserError, match="links are not read"):
        read_data(path)


def test_a_linked_file_of_answers_is_not_read(tmp_path):
    path = vqav2(tmp_path / "data")
    (answers,) = path.rglob("*annotations.json")
    outside(tmp_path, answers)
    with pytest.raises(UserError, match="there are 0"):
        list(read_data(path)[1])


def test_a_linked_list_of_clips_is_not_read(tmp_path):
    path = msvd(tmp_path / "data")
    text(path / "train_list.txt", "v-_x1_0_10 7\n")
    outside(tmp_path, path / "train_list.txt")
    assert len(list(read_data(path)[1])) == 3
