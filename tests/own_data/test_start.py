"""`train --from`: only stage three trains, from the checkpoint's numbers; other sizes are one line; same bits again."""

import json
import shutil

import numpy as np
import pytest
from killed_runs import killed_in_step
from own_files import COLOURS, lines, pixels
from PIL import Image

from tinyflamingo import cli
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.own_data.options import OwnSource, own_data, source_of
from tinyflamingo.own_data.scores import evaluate_run
from tinyflamingo.own_data.start import knows_tinyworld, load_start
from tinyflamingo.training import run
from tinyflamingo.training.presets import get_preset
from tinyflamingo.training.run import tinyworld_tokenizer
from tinyflamingo.training.state import STATE
from tinyflamingo.variants.registry import untrained

EVERY = {"frozen": True, "params": False}  # whether a tree of the checkpoint stays as it is


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """60 pictures in three classes: records of one class have equal texts."""
    root, rows = tmp_path_factory.mktemp("source"), []
    for i in range(60):
        name = list(COLOURS)[i % 3]
        Image.fromarray(pixels(name) + np.uint8(i // 3)).save(root / f"{i}.png")
        rows.append({"file": f"{i}.png", "text": f"a {name} thing."})
    lines(root / "captions.jsonl", rows)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint of the preset smoke with open gates."""
    preset = get_preset("smoke")
    model = untrained(np.random.default_rng(0), preset.config, tinyworld_tokenizer(preset))
    for name in model.params:
        if name.startswith("xattn_"):
            model.params[name]["alpha_xattn"] += np.float32(0.3)
            model.params[name]["alpha_dense"] += np.float32(0.3)
    model.info["preset"] = "smoke"
    folder = tmp_path_factory.mktemp("start") / "checkpoint"
    save_checkpoint(model, folder)
    return folder


def options(source, start, **more):
    return own_data(str(source), None, {"start": str(start), "steps": 4} | more)


@pytest.fixture(scope="module")
def finished(source, start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    run.train("smoke", folder, evaluate=evaluate_run(folder), source=OwnSource(options(source, start)))
    return folder


def test_frozen_parts_and_tokenizer_stay_and_the_others_train(finished, start):
    before, after = load_checkpoint(start), load_checkpoint(finished)
    assert after.tokenizer.model == before.tokenizer.model and after.config == before.config
    for tree, stays in EVERY.items():
        old, new = (named_leaves(getattr(model, tree)) for model in (before, after))
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[name], new[name]) for name in old) == stays
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in log} == {"flamingo"} and "loss_episodes" in log[0] and "loss_pages" in log[0]


def test_training_goes_on_from_the_numbers_of_the_checkpoint(source, start, tmp_path, rng):
    own = OwnSource(options(source, start))
    own.prepare(get_preset("smoke"), tmp_path)
    preset, tokenizer, (stage,) = own.material(get_preset("smoke"), tmp_path)
    made, model = stage(preset, rng, tokenizer, {}), load_checkpoint(start)
    made.prepare(rng)  # gates that are open stay as they are
    for name, leaf in named_leaves(model.params).items():
        np.testing.assert_array_equal(named_leaves(made.optimiser.params)[name], leaf)


@pytest.mark.parametrize("at", [1, 3])
def test_killed_it_ends_with_the_same_bits(finished, source, start, tmp_path, monkeypatch, at):
    with killed_in_step(monkeypatch, at):
        run.train("smoke", tmp_path / "run", source=OwnSource(options(source, start)))
    again = source_of(None, tmp_path / "run", True)
    assert again.preset == "smoke"
    run.train("smoke", tmp_path / "run", resume=True, source=again)
    for name in ("checkpoint/weights.npz", "log.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_resume_from_another_checkpoint_is_refused(finished, source, start, tmp_path):
    folder = tmp_path / "start"
    shutil.copytree(start, folder)
    run_folder = tmp_path / "run"
    run.train("smoke", run_folder, source=OwnSource(options(source, folder)))
    model = load_checkpoint(folder)
    model.params["eoc"] += np.float32(1)
    save_checkpoint(model, folder)
    with pytest.raises(UserError, match="began from another checkpoint"):
        source_of(None, run_folder, True)
    assert (run_folder / STATE).exists()


@pytest.mark.parametrize("more, message", [
    (("--side", "64"), "--side 64 does not fit"),
    (("--vocab", "700"), "--vocab 700 does not fit"),
    (("--preset", "toy"), "--preset toy does not fit: it has another"),
    (("--preset", "nothing"), "unknown preset 'nothing'"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_one_line(source, start, tmp_path, capsys, more, message):
    line = ["train", "--from", str(start), "--data", str(source), "--out", str(tmp_path / "run"), *more]
    assert cli.main(line) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_not_there_is_one_line(source, tmp_path, capsys):
    line = ["train", "--from", str(tmp_path / "none"), "--data", str(source), "--out", str(tmp_path / "run")]
    assert cli.main(line) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_from_needs_data(start, capsys):
    assert cli.main(["train", "--from", str(start)]) == 2
    assert "--from is an option for your own data: add --data PATH" in capsys.readouterr().err


def test_tinyworld_is_mixed_in_if_the_checkpoint_knows_it(source, start, finished):
    assert options(source, start).mix == 0.7 and options(source, start, mix=1.0).mix == 1.0
    assert knows_tinyworld(load_start("toy")) and knows_tinyworld(load_start(str(finished)))
    alone = load_start(str(finished))
    alone.info["data"] = alone.info["data"] | {"mix": 1.0}
    assert not knows_tinyworld(alone)


def test_the_command_of_the_run_names_the_checkpoint(finished, start, source):
    command = load_checkpoint(finished).info["command"]
    assert f"--from {start} --data {source}" in command and "sha256" not in command
