"""All of `train`: its files, its refusals, and most of all: a run killed at any moment ends with the same bits."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from killed_runs import Killed, killed_in_step
from matplotlib.figure import Figure

import tinyflamingo
from tinyflamingo import cli, ops
from tinyflamingo.checkpoint import load_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.ops import team
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training import conditions, run
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.presets import PRESETS, get_preset, parameter_counts
from tinyflamingo.training.stage import step_rng
from tinyflamingo.training.state import LOG, STATE, Progress, load_state, read_log, save_state

WEIGHTS = "checkpoint/weights.npz"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of an undisturbed run of the smoke preset."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run.train("smoke", folder)
    return folder


def same(one, other, *names):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names or (WEIGHTS, LOG))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- an undisturbed run ----------------------------------------------------------------------


def test_a_run_writes_its_files(undisturbed):
    assert sorted(files(undisturbed)) == [
        "checkpoint/model.json",
        WEIGHTS,
        "gates.png",
        LOG,
        "losses.png",
        "metrics.json",
        STATE,
    ]
    metrics = json.loads((undisturbed / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"contrastive", "language", "flamingo", "evaluation"}
    assert metrics["seconds"] == pytest.approx(sum(metrics["stages"].values()), abs=0.1)
    assert metrics["checkpoint"] == str(undisturbed / "checkpoint")
    model = load_checkpoint(undisturbed / "checkpoint")
    assert model.info["seed"] == 0 and model.info["preset"] == "smoke"
    assert {"numpy", "autograd", "python", "tinyflamingo"} <= set(model.info["versions"])


def test_the_folder_of_a_run_is_read_as_its_checkpoint(undisturbed):
    expected = named_leaves(load_checkpoint(undisturbed / "checkpoint").params)
    for model in (load_checkpoint(undisturbed), tinyflamingo.load(undisturbed), tinyflamingo.load(str(undisturbed))):
        assert model.info["preset"] == "smoke"
        for name, leaf in named_leaves(model.params).items():
            np.testing.assert_array_equal(leaf, expected[name])


def test_the_folder_of_a_run_that_is_not_finished_has_no_checkpoint_yet(tmp_path, monkeypatch):
    folder = interrupted(tmp_path, monkeypatch, at=1)
    with pytest.raises(UserError, match="no model.json in it") as error:
        tinyflamingo.load(folder)
    assert "\n" not in str(error.value)


def test_every_stage_is_prepared_once_with_the_generator_of_its_first_step(tmp_path, monkeypatch):
    """A run that is resumed in the middle of a stage does not prepare this stage again."""
    calls = []

    def watch(kind):
        prepare, gradient = kind.prepare, kind.gradient

        def prepared(self, rng):
            calls.append((self.name, "prepare", rng, rng.bit_generator.state))
            prepare(self, rng)

        def stepped(self, rng, step):
            calls.append((self.name, step, rng, None))
            return gradient(self, rng, step)

        monkeypatch.setattr(kind, "prepare", prepared)
        monkeypatch.setattr(kind, "gradient", stepped)

    for kind in run.STAGES:
        watch(kind)
    folder = interrupted(tmp_path, monkeypatch, at=18)  # the fifth step of the last stage
    run.train("smoke", folder, resume=True)
    p = get_preset("smoke")
    steps = {"contrastive": p.contrastive.steps, "language": p.language.steps}
    expected = [(name, what) for name, n in steps.items() for what in ("prepare", *range(n))]
    expected += [("flamingo", what) for what in ("prepare", 0, 1, 2, 3, 4, 5)]
    assert [(name, what) for name, what, _, _ in calls] == expected
    for index, kind in enumerate(run.STAGES):
        first, second = [call for call in calls if call[0] == kind.name][:2]
        assert first[2] is second[2] and first[3] == step_rng(0, index, 0).bit_generator.state


def test_a_run_says_what_it_does(tmp_path, capfd):
    run.train("smoke", tmp_path / "run")
    lines = capfd.readouterr().err.splitlines()
    start = lines.index("three stages, then an evaluation:")
    assert [line.split()[:3] for line in lines[start + 1 : start + 4]] == [
        ["contrastive,", "6", "steps:"], ["language,", "8", "steps:"], ["flamingo,", "6", "steps:"],
    ]  # fmt: skip


def test_a_forecast_is_the_time_of_all_stages():
    smoke = get_preset("smoke")
    assert run.forecast(smoke, 1.0) == ""  # its pace is not known
    text = run.forecast(dataclasses.replace(smoke, pace=(1, 2, 3)), 60.0)
    assert text == "about 40 minutes on this machine: contrastive 6.0, language 16.0, flamingo 18.0"


def test_the_forecast_is_made_after_some_steps_of_stage_one(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(PRESETS, "smoke", dataclasses.replace(get_preset("smoke"), pace=(1, 1, 1)))
    monkeypatch.setattr(run, "PACE_STEPS", range(2, 4))
    run.train("smoke", tmp_path / "run")
    assert capfd.readouterr().err.count("minutes on this machine: contrastive 0.") == 1


def test_the_log_has_every_stage_in_order(undisturbed):
    steps = [(r["stage"], r["step"]) for r in read_log(undisturbed)]
    p = get_preset("smoke")
    stages = {"contrastive": p.contrastive.steps, "language": p.language.steps, "flamingo": p.flamingo.steps}
    assert steps == [(s, i) for s, n in stages.items() for i in range(n) if i % run.LOG_EVERY == 0 or i == n - 1]
    assert all(np.isfinite(r["loss"]) and np.isfinite(r["norm"]) for r in read_log(undisturbed))


def test_metrics_hold_the_evaluation_and_the_stages(tmp_path):
    asked = []

    def evaluate(model, queries, seed):
        asked.append((model.config, queries, seed))
        return {"tasks": {"caption": {"metric": "exact match", "score": 1.0, "ci95": [0.7, 1.0], "n": 8}}}

    run.train("smoke", tmp_path / "run", seed=4, evaluate=evaluate)
    assert asked == [(get_preset("smoke").config, 8, 4)]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["tasks"]["caption"]["ci95"] == [0.7, 1.0]
    assert {"tasks", "stages", "seconds", "checkpoint"} <= set(metrics)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(undisturbed, tmp_path):
    run.train("smoke", tmp_path / "same", seed=0)
    assert same(undisturbed, tmp_path / "same")
    run.train("smoke", tmp_path / "other", seed=1)
    assert not same(undisturbed, tmp_path / "other", WEIGHTS)
    assert not same(undisturbed, tmp_path / "other", LOG)


@pytest.mark.parametrize("seed", [2, 3, 10**40])
def test_other_seeds_run_to_the_end(tmp_path, seed):
    """Also when a batch of pages has no picture."""
    model = run.train("smoke", tmp_path / "run", seed=seed)
    assert model.info["seed"] == seed == load_checkpoint(tmp_path / "run/checkpoint").info["seed"]


# ---- refusals --------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_not_overwritten(undisturbed):
    before = files(undisturbed)
    with pytest.raises(UserError, match="already holds a run: add --resume"):
        run.train("smoke", undisturbed)
    assert files(undisturbed) == before


@pytest.mark.parametrize("name", ["checkpoint", "log.jsonl", "metrics.json"])
def test_files_of_a_run_without_a_state_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=f"holds {name}, but no run to resume"):
        run.train("smoke", tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "precious")]


def test_a_run_that_is_refused_before_its_first_step_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "abc")
    with pytest.raises(UserError, match="TINYFLAMINGO_THREADS"):
        run.train("smoke", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_resume_that_is_refused_loses_nothing(undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed, tmp_path / "run")
    save_state(tmp_path / "run", Progress("smoke", 0), {})  # as before the first step
    before = files(tmp_path / "run")
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "abc")
    with pytest.raises(UserError, match="TINYFLAMINGO_THREADS"):
        run.train("smoke", tmp_path / "run", resume=True)
    assert set(files(tmp_path / "run")) == set(before)


def test_a_resume_with_another_preset_is_refused(undisturbed):
    before = files(undisturbed)
    with pytest.raises(UserError, match="holds a run of preset 'smoke', not 'toy'"):
        run.train("toy", undisturbed, resume=True)
    assert files(undisturbed) == before


def test_a_resume_needs_no_preset(undisturbed, tmp_path):
    """The folder of the run has it."""
    shutil.copytree(undisturbed, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/metrics.json").exists() and same(undisturbed, tmp_path / "run")


def test_a_resume_with_another_seed_is_refused(undisturbed):
    before = files(undisturbed)
    with pytest.raises(UserError, match="holds a run with seed 0, not 3"):
        run.train("smoke", undisturbed, seed=3, resume=True)
    assert files(undisturbed) == before


def test_a_resume_of_nothing_is_refused_and_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        run.train("smoke", tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_is_refused_and_makes_no_folder(tmp_path):
    with pytest.raises(
        UserError,
        match="unknown preset 'huge': choose one of emoji, emoji-zh, no-tasks, omniglot, .*, quick, smoke, toy",
    ):
        run.train("huge", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.posix
@pytest.mark.parametrize("name", ["file", "file/below", "file/below/deeper", "/proc/tinyflamingo", "x" * 300])
def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, name, monkeypatch):
    (tmp_path / "file").write_text("precious")
    monkeypatch.setattr(run, "train_tokenizer", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(UserError, match="cannot write"):
        run.train("smoke", tmp_path / name)
    assert files(tmp_path) == {"file": b"precious"}


def test_a_state_that_does_not_fit_this_version_is_refused(tmp_path, undisturbed, monkeypatch):
    folder = interrupted(tmp_path, monkeypatch, at=4)
    progress, frozen, moments = load_state(folder)
    assert progress.step == 4
    arrays = {name: saved[:-1] for name, saved in moments.items()}
    monkeypatch.setattr(run, "load_state", lambda _: (progress, frozen, arrays))
    with pytest.raises(UserError, match="cannot resume: vector has"):
        run.train("smoke", folder, resume=True)


# ---- figures, and a damaged log, never stop a run ------------------------------------------------


def test_a_run_without_figures_is_complete(tmp_path, undisturbed, monkeypatch, capsys):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
    run.train("smoke", tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tinyflamingo: ")]
    assert len(lines) == 2 and all("cannot draw" in line and ".png: ZeroDivisionError" in line for line in lines)
    assert same(undisturbed, tmp_path / "run")
    assert set(files(tmp_path / "run")) == set(files(undisturbed)) - {"gates.png", "losses.png"}


@pytest.mark.parametrize("name", ["draw_run", "evaluate"])
def test_the_checkpoint_is_saved_first(tmp_path, monkeypatch, name):
    def dies(*_):
        raise Killed

    monkeypatch.setattr(run, "draw_run", dies)
    with pytest.raises(Killed):
        run.train("smoke", tmp_path / "run", evaluate=dies if name == "evaluate" else None)
    assert load_checkpoint(tmp_path / "run").info["preset"] == "smoke"


@pytest.mark.parametrize("data", [b"", bytes(3000), bytes(range(256)) * 10])
def test_a_finished_run_with_a_damaged_log_resumes(tmp_path, undisturbed, capsys, data):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / LOG).write_bytes(data)
    run.train("smoke", folder, resume=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tinyflamingo: ")]
    assert len(lines) == 1 and "0 whole records are kept" in lines[0]
    assert same(undisturbed, folder, WEIGHTS, "losses.png", "gates.png")


# ---- other conditions ------------------------------------------------------------------------


def warnings_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("tinyflamingo: warning")]


def test_a_resume_takes_the_number_of_workers_of_the_run(tmp_path, monkeypatch, capsys):
    with ops.use_workers(3):
        run.train("smoke", tmp_path / "clean")
        interrupted(tmp_path, monkeypatch, at=13)
    monkeypatch.setattr(team, "_cores", lambda: 2)
    monkeypatch.delenv("TINYFLAMINGO_THREADS", raising=False)
    counts = []
    model = run.train(
        "smoke", tmp_path / "run", resume=True, evaluate=lambda *_: counts.append(ops.workers()) or {"tasks": {}}
    )
    assert same(tmp_path / "clean", tmp_path / "run") and warnings_of(capsys) == []
    assert [c["workers"] for c in model.info["conditions"]] == [3] == counts  # the evaluation has as many
    assert load_checkpoint(tmp_path / "run").info["conditions"] == model.info["conditions"]


def test_another_number_of_workers_is_one_warning(tmp_path, monkeypatch, capsys):
    with ops.use_workers(1):
        interrupted(tmp_path, monkeypatch, at=13)
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "2")
    model = run.train("smoke", tmp_path / "run", resume=True)
    (line,) = warnings_of(capsys)
    assert "its bits will be different" in line and line.endswith(": workers 1, now 2")
    assert [c["workers"] for c in model.info["conditions"]] == [1, 2] and model.info["workers"] == 2


@pytest.mark.parametrize("name", ["numpy", "autograd", "numba", "llvmlite", "sentencepiece", "python", "tinyflamingo"])
def test_another_version_is_a_warning(undisturbed, tmp_path, monkeypatch, capsys, name):
    now = conditions.versions()
    monkeypatch.setattr(conditions, "versions", lambda: now | {name: "0.1"})
    kept = load_state(undisturbed)[0].conditions
    with conditions.going_on("run", kept):
        (line,) = warnings_of(capsys)
    assert line.endswith(f": {name} {now[name]}, now 0.1") and [c[name] for c in kept] == [now[name], "0.1"]
    with conditions.going_on("run", kept):
        assert warnings_of(capsys) == []


@pytest.mark.parametrize("name", ["processor", "BLAS", "numpy kernels", "system"])
def test_another_machine_is_a_warning(undisturbed, capsys, name):
    kept = load_state(undisturbed)[0].conditions
    assert kept[0][name]
    kept[0][name] = "something else"
    with conditions.going_on("run", kept):
        (line,) = warnings_of(capsys)
    assert f": {name} something else, now " in line


def test_the_reference_floor_is_another_condition(undisturbed, capsys):
    with ops.use("reference"), conditions.going_on("run", load_state(undisturbed)[0].conditions):
        (line,) = warnings_of(capsys)
    assert "now autograd" in line


def test_a_state_without_conditions_is_a_warning(capsys):
    with conditions.going_on("run", []):
        (line,) = warnings_of(capsys)
    assert "workers unknown, now" in line


# ---- numbers that are not finite -------------------------------------------------------------


@pytest.mark.parametrize("stage, name, last", [(1, "LanguageStage", 2), (2, "FlamingoStage", 2)])
def test_a_gradient_of_nan_stops_with_stage_and_step_and_keeps_the_state(
    tmp_path, undisturbed, monkeypatch, stage, name, last
):
    kind = getattr(run, name)
    real = kind.gradient

    def poisoned(self, rng, step):
        gradient, info = real(self, rng, step)
        if step == 3:
            gradient = gradient * np.float32(np.nan)
        return gradient, info

    with monkeypatch.context() as patch:
        patch.setattr(kind, "gradient", poisoned)
        with pytest.raises(UserError, match=f"stage {kind.name}, step 3: .*nan.*the last saved state is kept"):
            run.train("smoke", tmp_path / "run")
    progress, _, moments = load_state(tmp_path / "run")
    assert (progress.stage, progress.step) == (stage, last)
    assert all(np.isfinite(m).all() for m in moments.values())
    assert not (tmp_path / "run/checkpoint").exists()
    run.train("smoke", tmp_path / "run", resume=True)  # without the NaN it ends with the bits of an undisturbed run
    assert same(undisturbed, tmp_path / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_a_loss_that_explodes_stops_with_its_dataset_and_the_norm(tmp_path, monkeypatch, value):
    """Its gradient is finite."""
    real = FlamingoStage.gradient

    def poisoned(self, rng, step):
        gradient, info = real(self, rng, step)
        return gradient, info | ({"loss_pairs": value} if step == 3 else {})

    monkeypatch.setattr(FlamingoStage, "gradient", poisoned)
    message = r"stage flamingo, step 3: the norm of the gradient is \d.*'pairs', is (nan|inf|1e\+09); the last saved"
    with pytest.raises(UserError, match=message):
        run.train("smoke", tmp_path / "run")
    assert load_state(tmp_path / "run")[0].step == 2


@pytest.mark.parametrize("step", [0, 1])
def test_what_is_saved_is_kept_if_the_first_steps_explode(tmp_path, undisturbed, monkeypatch, step):
    real = run.ContrastiveStage.gradient

    def poisoned(self, rng, number):
        gradient, info = real(self, rng, number)
        return gradient, info | ({"loss": float("nan")} if number == step else {})

    with monkeypatch.context() as patch:
        patch.setattr(run.ContrastiveStage, "gradient", poisoned)
        with pytest.raises(UserError, match=f"stage contrastive, step {step}: .* the last saved state is kept"):
            run.train("smoke", tmp_path / "run")
    run.train("smoke", tmp_path / "run", resume=True)
    assert same(undisturbed, tmp_path / "run")


# ---- killed and resumed, in this process -----------------------------------------------------


def interrupted(tmp_path, monkeypatch, at, name="run", resume=False):
    """A run that is killed in its `at`-th step; returns its folder."""
    with killed_in_step(monkeypatch, at):
        run.train("smoke", tmp_path / name, resume=resume)
    return tmp_path / name


@pytest.mark.parametrize("at", [0, 1, 5, 6, 9, 13, 14, 19])
def test_killed_in_any_step_it_ends_with_the_same_bits(tmp_path, undisturbed, monkeypatch, at):
    folder = interrupted(tmp_path, monkeypatch, at)
    run.train("smoke", folder, resume=True)
    assert same(undisturbed, folder)


def test_killed_again_and_again(tmp_path, undisturbed, monkeypatch):
    folder = interrupted(tmp_path, monkeypatch, 3)
    for _ in range(4):
        interrupted(tmp_path, monkeypatch, 3, resume=True)
    run.train("smoke", folder, resume=True)
    assert same(undisturbed, folder)


def test_resuming_a_finished_run_changes_no_weight(tmp_path, undisturbed):
    folder = tmp_path / "run"
    run.train("smoke", folder)
    run.train("smoke", folder, resume=True)
    assert same(undisturbed, folder)


@pytest.mark.parametrize("save", range(1, 12, 3))
@pytest.mark.parametrize("moment", ["half the file", "before the rename", "after the rename"])
def test_killed_while_it_saves(tmp_path, undisturbed, monkeypatch, save, moment):
    """The file holds the old or the new state, and the run ends with the same bits."""
    folder, count, replace = tmp_path / "run", iter(range(10**6)), os.replace

    def dies(source, target):
        if str(target).endswith(STATE) and next(count) == save:
            if moment == "half the file":
                os.truncate(source, os.path.getsize(source) // 2)
            elif moment == "after the rename":
                replace(source, target)
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(Killed):
            run.train("smoke", folder)
    load_state(folder)
    run.train("smoke", folder, resume=True)
    assert same(undisturbed, folder)
    assert not [p for p in folder.rglob("*") if p.name.endswith(".tmp")]  # files that the kill left are removed


# ---- killed and resumed, for real ------------------------------------------------------------

COMMAND = [sys.executable, "-m", "tinyflamingo", "train", "--preset", "smoke"]


def command(folder, *more):
    """Start `train` as a user does."""
    environment = {**os.environ, "TINYFLAMINGO_CHECK": ""}
    return subprocess.Popen(
        [*COMMAND, "--out", str(folder), *more], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process):
    error = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, error


def kill_when(process, due):
    """SIGKILL as soon as `due()` is true; False if the process ended before."""
    while process.poll() is None:
        if due():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.0005)
    process.communicate()
    return False


def go_on(folder):
    return command(folder, "--resume") if (folder / STATE).exists() else command(folder)


def working_time(folder):
    """Seconds that an undisturbed run takes from its first progress bar to its end."""
    process = command(folder)
    process.stderr.read(1)
    began = time.monotonic()
    finish(process)
    return time.monotonic() - began


@pytest.mark.posix
@pytest.mark.slow
def test_kill_9_at_40_random_moments_ends_bit_equal(tmp_path):
    """In all stages: a run is killed, resumed and killed again, until it reaches its end."""
    chance, clean, kills, number = random.Random(0), tmp_path / "clean", 0, 0
    finish(command(tmp_path / "warm"))  # compiles the kernels
    work, stages = working_time(clean), set()
    for _ in range(120):  # some runs end before they are killed
        folder = tmp_path / str(number)
        process = go_on(folder)
        process.stderr.read(1)  # the first progress bar: from here on the time counts
        moment, missing = time.monotonic() + chance.random() * work * 0.4, {0, 1, 2} - stages

        def due(folder=folder, moment=moment, missing=missing, kills=kills):
            """At random; after 40 kills in a stage that was not hit yet: the language stage takes a 25th of the run."""
            return time.monotonic() > moment if kills < 40 else load_state(folder)[0].stage in missing

        if kill_when(process, due):
            kills += 1
            stages.add(load_state(folder)[0].stage)
        else:
            assert same(clean, folder)
            number, work = number + 1, 0.9 * work
        if kills >= 40 and stages >= {0, 1, 2}:
            break
    finish(go_on(folder))
    assert kills >= 40 and stages >= {0, 1, 2} and same(clean, folder)


@pytest.mark.posix
@pytest.mark.slow
def test_kill_9_during_10_saves_ends_bit_equal(tmp_path):
    clean, kills, number = tmp_path / "clean", 0, 0
    finish(command(clean))
    for _ in range(60):
        folder = tmp_path / str(number)
        known = {p.name for p in folder.rglob(".*.tmp")} if folder.exists() else set()

        def saving(folder=folder, known=known):  # there is a new temporary file of the state or the checkpoint
            return folder.exists() and bool({p.name for p in folder.rglob(".*.tmp")} - known)

        if kill_when(go_on(folder), saving):
            kills += 1
        else:
            assert same(clean, folder)
            number += 1
        if (folder / STATE).exists():
            load_state(folder)
        if kills == 10:
            break
    finish(go_on(folder))
    assert kills == 10 and same(clean, folder)


# ---- a full disk, a second writer ----------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A folder on its own file system of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], check=False).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.posix
def test_a_full_disk_is_reported_and_the_last_state_stays(small_disk, undisturbed, monkeypatch):
    folder = interrupted(small_disk, monkeypatch, at=9)
    before = load_state(folder)[0]
    with pytest.raises(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    with pytest.raises(UserError, match="cannot write .*No space left on device.* untouched"):
        run.train("smoke", folder, resume=True)
    assert load_state(folder)[0].step == before.step and not [p for p in folder.rglob("*.tmp")]
    (small_disk / "filler").unlink()
    run.train("smoke", folder, resume=True)
    assert same(undisturbed, folder)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    folder = tmp_path / "run"
    process = command(folder)
    try:
        while not (folder / STATE).exists():
            time.sleep(0.01)
        for resume in (False, True):
            with pytest.raises(UserError, match="another process is writing to"):
                run.train("smoke", folder, resume=resume)
    finally:
        process.kill()
        process.communicate()
    assert load_state(folder)[0].preset == "smoke"


@pytest.mark.slow
def test_new_kernels_and_cached_kernels_give_the_same_bits(tmp_path, monkeypatch):
    """A run may start with kernels that are just compiled, and resume with kernels from the disk."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    finish(command(tmp_path / "compiled"))
    finish(command(tmp_path / "kept"))
    assert same(tmp_path / "compiled", tmp_path / "kept")


@pytest.mark.posix
def test_one_kill_9_for_real(tmp_path, undisturbed):
    """The short version of the tests above: one kill in the second stage."""
    folder = tmp_path / "run"

    def in_stage_two():
        return (folder / LOG).exists() and b'"language"' in (folder / LOG).read_bytes()

    assert kill_when(command(folder), in_stage_two)
    assert load_state(folder)[0].stage >= 1 and not (folder / "checkpoint").exists()
    finish(command(folder, "--resume"))
    assert same(undisturbed, folder)


# ---- presets ---------------------------------------------------------------------------------


def test_parameter_counts_add_up():
    for name in PRESETS:
        counts = parameter_counts(get_preset(name).config)
        parts = ("vision encoder", "language model", "resampler", "gated blocks", "<EOC>")
        assert counts["total"]["parameters"] == sum(counts[p]["parameters"] for p in parts)
        assert [counts[p]["state"] for p in parts] == ["frozen", "frozen", "trained", "trained", "trained"]
    assert FlamingoStage.name == "flamingo"
