"""The main job: three stages, evaluation, and a folder with everything (chapter §1).

`train` goes from nothing to a Flamingo: contrastive pretraining, language pretraining, Flamingo
training. Each stage is a small object with `steps`, `optimiser`, `gradient(rng, step)` and
`result()`; the loop around them is the same. A run killed at any moment and resumed ends with the
same bits.

Not here: what the stages do (`contrastive_stage.py`, `language_stage.py`, `flamingo_stage.py`).
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import shlex
import shutil
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyflamingo import __version__
from tinyflamingo.data.store import Store
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.errors import UserError
from tinyflamingo.files import sole_writer, write_atomically
from tinyflamingo.model.tokenizer import train_tokenizer
from tinyflamingo.model.trained import CARD, WEIGHTS, TrainedFlamingo, save_checkpoint
from tinyflamingo.ops.team import keep_memory, one_team
from tinyflamingo.training.contrastive_stage import ContrastiveStage
from tinyflamingo.training.figures import draw_run
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.handwriting_stages import handwriting_stages
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.own_data import FOLDER, OwnData, fit, own_stages, prepare_store
from tinyflamingo.training.presets import Preset, get_preset
from tinyflamingo.training.ranks import world
from tinyflamingo.training.state import LOG, STATE, Log, NoLog, Progress, load_state, save_state

STAGES = (ContrastiveStage, LanguageStage, FlamingoStage)
TOKENIZER_SEED = 0  # one vocabulary for all runs of a preset, whatever their seed
LOG_EVERY = 10
EXPLODED = 1e4  # a loss that no batch has, however badly it is guessed at


def train(preset_name, folder, seed=None, resume=False, evaluate=None, data=None, own: OwnData | None = None):
    """Run all stages into `folder`; returns the `TrainedFlamingo`.

    seed: by default 0, or that of the run which is resumed.
    data: the folder of the data set, for presets that need one.
    own: data of the user's own, by default those of the run which is resumed, or none.
    evaluate: a function (model, queries a task, seed) -> report, called at the end; what it says is
    written to metrics.json. Raises `UserError` if the folder cannot be used.
    """
    folder = Path(folder)
    preset = get_preset(preset_name)
    keep_memory()
    stages = stages_of(preset, data)
    with _sole_run(folder, resume):
        progress, frozen, moments = _open_together(folder, preset, seed, resume, own)
        with nullcontext() if resume else _left_as_found(folder, progress):
            preset, tokenizer, stages = _material(preset, progress, folder, stages)
            log = Log(folder, progress.log_bytes) if world().rank == 0 else NoLog()
            for index in range(progress.stage, len(stages)):
                began = time.perf_counter()
                with one_team():
                    stage = stages[index](preset, step_rng(progress.seed, index, -1), tokenizer, frozen)
                    _restore(stage.optimiser, moments)
                    _run_stage(stage, preset, progress, frozen, folder, log, began)
                    frozen = frozen | stage.result()
                progress.stage, progress.step, moments = index + 1, 0, {}
                _save(folder, progress, log, frozen)
            log.close()
        params = frozen.pop("params")
        info = {
            "command": command_of(preset, progress),
            "preset": preset.name,
            "seed": progress.seed,
            "stages": progress.seconds,
            "versions": versions(),
            "cores": os.cpu_count(),
        } | ({"data": progress.data} if progress.data else {})
        model = TrainedFlamingo(preset.config, params, frozen, tokenizer, info)
        return _finish(model, preset, folder, evaluate) if world().rank == 0 else model


def _material(preset: Preset, progress: Progress, folder, stages):
    """What a run learns from: (preset with the sizes of the data, tokenizer, stages)."""
    if progress.data is None:
        lines = tokenizer_lines(np.random.default_rng(TOKENIZER_SEED))
        return preset, train_tokenizer(lines, preset.config.language.vocab_size), stages
    own, store = OwnData(**progress.data), Store(folder / FOLDER)
    preset, tokenizer = fit(own, preset, store)
    return preset, tokenizer, own_stages(own, store)


def stages_of(preset: Preset, data):
    """The stages of a preset, as functions (preset, rng, tokenizer, frozen) -> stage."""
    if preset.handwriting:
        return handwriting_stages(preset.handwriting, data)
    if data is not None:
        raise UserError(f"preset {preset.name!r} draws its own pictures: leave --data out, or choose --preset omniglot")
    return STAGES


def step_rng(seed, stage, step):
    """The Generator of one step of a stage; step -1: its data and first parameters.

    The user's seed comes last: however large, it cannot turn this into a stream of another split.
    """
    return split_rng("train", stage, step + 1, seed)


@contextmanager
def _sole_run(folder, resume):
    """The folder, made if need be, with nobody else writing to it; one that was made and stayed empty goes again."""
    if world().rank > 0:  # the first rank writes for all
        yield
        return
    made = not resume and not os.path.lexists(folder)
    try:
        if not resume:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    if not folder.is_dir():
        raise UserError(f"nothing to resume: {folder} does not exist; start a run without --resume")
    try:
        with sole_writer(folder):
            yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _open_together(folder, preset: Preset, seed, resume, own):
    """The state to start from; of ranks, the first makes or checks it and the others read it."""
    if world().rank == 0:
        found = _open_run(folder, preset, seed, resume, own)
    world().wait()
    return found if world().rank == 0 else load_state(folder)


def _open_run(folder, preset: Preset, seed, resume, own):
    """The state to start from. A folder that holds a run is never overwritten."""
    data = own and asdict(own)
    if resume:
        progress, frozen, moments = load_state(folder)
        if progress.preset != preset.name:
            raise UserError(f"{folder} holds a run of preset {progress.preset!r}, not {preset.name!r}")
        if seed not in (None, progress.seed):
            raise UserError(f"{folder} holds a run of seed {progress.seed}, not {seed}: leave --seed out")
        if data not in (None, progress.data):
            raise UserError(f"{folder} holds a run on other data or with other options of them: leave --data out")
        _sweep(folder)
        return progress, frozen, moments
    if (folder / STATE).exists():
        raise UserError(f"{folder} holds a run already: add --resume to go on with it, or choose another --out")
    for name in ("checkpoint", LOG, "metrics.json"):
        if (folder / name).exists():
            raise UserError(f"{folder} holds {name}, but no run that could be resumed: choose another --out")
    progress = Progress(preset.name, seed or 0, data=data)
    if own:
        prepare_store(own, preset, folder)
    save_state(folder, progress, {})  # from here on there is something to resume
    return progress, {}, {}


@contextmanager
def _left_as_found(folder, progress):
    """A run that is refused before its first step leaves nothing: the corrected command can be given at once."""
    try:
        yield
    except UserError:
        if not progress.seconds and world().rank == 0:
            for name in (STATE, LOG):
                (folder / name).unlink(missing_ok=True)
            if progress.data:
                shutil.rmtree(folder / FOLDER, ignore_errors=True)
        raise


def _sweep(folder):
    """Remove half-written temporary files (`write_atomically`) that a kill left behind."""
    for name in (STATE, "metrics.json", f"checkpoint/{WEIGHTS}", f"checkpoint/{CARD}"):
        path = folder / name
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _restore(optimiser, moments):
    """Put saved numbers into the optimiser's own arrays (its parameters are views into them)."""
    for name, saved in moments.items():
        mine = getattr(optimiser, name)
        if mine.shape != saved.shape:
            raise UserError(f"cannot resume: {name} has {saved.size} numbers, this version needs {mine.size}")
        mine[...] = saved


def _run_stage(stage, preset, progress, frozen, folder, log, began):
    """All remaining steps of a stage, with a bar, a log line every few steps, and checkpoints."""
    before = progress.seconds.get(stage.name, 0.0)
    index = progress.stage
    steps, title = range(progress.step, stage.steps), f"{stage.name:11s}"
    bar = tqdm(steps, initial=progress.step, total=stage.steps, desc=title, disable=world().rank > 0)
    for step in bar:
        loss, info = _one_step(stage, step_rng(progress.seed, index, step), step)
        progress.seconds[stage.name] = before + time.perf_counter() - began
        if step % LOG_EVERY == 0 or step == stage.steps - 1:
            bar.set_postfix_str(f"loss {loss:.3f}")
            log.write(stage=stage.name, step=step, **info)
        if (step + 1) % preset.save_every == 0 and step + 1 < stage.steps:
            progress.step = step + 1
            _save(folder, progress, log, frozen, stage.optimiser)


def _save(folder, progress, log, frozen, optimiser=None):
    """The log, then the state that knows its length; of ranks, the first alone writes."""
    if world().rank == 0:
        progress.log_bytes = log.flush()
        save_state(folder, progress, frozen, optimiser)


def _one_step(stage, rng, step):
    """Gradient and update; numbers that are not finite, or explode, end the run and keep the last checkpoint."""
    gradient, info = stage.gradient(rng, step)
    losses = {name.removeprefix("loss_"): value for name, value in info.items() if name.startswith("loss")}
    worst = max(losses, key=lambda name: losses[name] if math.isfinite(losses[name]) else math.inf)
    try:
        if not losses[worst] < EXPLODED:  # also of NaN
            raise FloatingPointError(f"the norm of the gradient is {np.sqrt(np.dot(gradient, gradient)):.3g}")
        norm = stage.optimiser.step(gradient, step, stage.steps)
    except FloatingPointError as error:
        where = f"the largest loss that of {worst!r}" if worst != "loss" else "the loss"
        told = f"stage {stage.name}, step {step}: {error}, {where}, {losses[worst]:.3g}; the last checkpoint is kept"
        raise UserError(told) from error
    return info["loss"], info | {"norm": norm}


def _finish(model, preset, folder, evaluate):
    """Evaluation, metrics, figures, and the finished checkpoint."""
    began = time.perf_counter()
    report = evaluate(model, preset.test_queries, model.info["seed"]) if evaluate else {"tasks": {}}
    stages = {name: round(seconds, 1) for name, seconds in model.info["stages"].items()}
    stages["evaluation"] = round(time.perf_counter() - began, 1)
    model.info |= {"stages": stages, "metrics": report, "peak_memory_mb": peak_memory_mb()}
    metrics = report | {"stages": stages, "seconds": round(sum(stages.values()), 1), "peak_memory_mb": peak_memory_mb()}
    metrics["checkpoint"] = str(folder / "checkpoint")
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1).encode())
    draw_run(folder)
    save_checkpoint(model, folder / "checkpoint")
    return model


def command_of(preset: Preset, progress: Progress) -> str:
    """The command that makes this run's checkpoint again; defaults are left out."""
    options = {"preset": preset.name if preset.name != "toy" else None, "seed": progress.seed or None}
    if preset.handwriting:
        options["data"] = "DIR"
    if progress.data:
        own = OwnData(**progress.data)
        defaults = asdict(OwnData(own.path))
        options["data"] = own.path
        options |= {n.replace("_", "-"): value for n, value in progress.data.items() if value != defaults[n]}
    parts = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(["python -m tinyflamingo train", *parts])


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def versions() -> dict:
    """Versions of what a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"tinyflamingo": __version__, "python": platform.python_version()}
    for name in ("numpy", "autograd", "numba", "sentencepiece"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
