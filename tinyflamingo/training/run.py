"""The main job: three stages, evaluation, and a folder with everything (chapter §1).

`train` goes from nothing to a Flamingo: contrastive pretraining, language pretraining, Flamingo
training. Each stage is a small object (`stage.py`); the loop around them is the same. A run that is
killed at any moment and resumed ends with the same bits. A source says what a run learns from:
`TinyWorld` here, data of the user's own (`own_data/`), handwriting (`handwriting/`).

Not here: what the stages do (`contrastive_stage.py`, `language_stage.py`, `flamingo_stage.py`).
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import shlex
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyflamingo import __version__
from tinyflamingo.checkpoint import CARD, IN_RUN, WEIGHTS, save_checkpoint
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.errors import UserError
from tinyflamingo.files import sole_writer, write_atomically
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.tokenizer import Tokenizer, train_tokenizer
from tinyflamingo.ops.team import keep_memory, one_team
from tinyflamingo.training.contrastive_stage import ContrastiveStage
from tinyflamingo.training.figures import draw_run
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Preset, get_preset
from tinyflamingo.training.ranks import world
from tinyflamingo.training.stage import step_rng
from tinyflamingo.training.state import LOG, STATE, Log, NoLog, Progress, load_state, save_state
from tinyflamingo.variants.registry import parts_of

STAGES = (ContrastiveStage, LanguageStage, FlamingoStage)
TOKENIZER_SEED = 0  # one vocabulary for all runs of a preset, whatever their seed
LOG_EVERY = 10
EXPLODED = 1e4  # a loss that no batch has, however badly it is guessed at


class TinyWorld:
    """What a run learns from by default. Other sources have the same attribute and methods."""

    options: dict | None = None  # what the state of a run keeps of its source

    def prepare(self, preset: Preset, folder):
        """Called once, when a run begins: what has to be in its folder."""

    def clear(self, folder):
        """Take back what `prepare` made."""

    def material(self, preset: Preset, folder):
        """(preset that fits the data, tokenizer, stages: functions (preset, rng, tokenizer, frozen) -> stage)."""
        if preset.handwriting:
            raise UserError(f"preset {preset.name!r} learns from Omniglot: give its folder with --data")
        return preset, tinyworld_tokenizer(preset), STAGES

    def arguments(self) -> dict:
        """{option of the command line: value} that names this source."""
        return {}


TINYWORLD = TinyWorld()


def tinyworld_tokenizer(preset: Preset) -> Tokenizer:
    """The tokenizer of TinyWorld's texts."""
    lines = tokenizer_lines(np.random.default_rng(TOKENIZER_SEED))
    return train_tokenizer(lines, preset.config.language.vocab_size)


def train(preset_name, folder, seed=None, resume=False, evaluate=None, source=TINYWORLD):
    """Run all stages into `folder`; returns the `TrainedFlamingo`.

    seed: by default 0, or that of the run which is resumed. source: what the run learns from; a resumed
    run needs the source that it began with. evaluate: a function (model, queries for each task, seed) ->
    report, called at the end; its report goes into metrics.json. Raises `UserError` if the folder
    cannot be used.
    """
    folder = Path(folder)
    preset = get_preset(preset_name)
    keep_memory()
    with _sole_run(folder, resume):
        progress, frozen, moments = _open_together(folder, preset, seed, resume, source)
        with nullcontext() if resume else _left_as_found(folder, progress, source):
            preset, tokenizer, stages = source.material(preset, folder)
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
        info = _info(preset, progress, source)
        model = TrainedFlamingo(preset.config, params, frozen, tokenizer, info, parts_of(preset.config))
        return _finish(model, preset, folder, evaluate) if world().rank == 0 else model


def _info(preset, progress, source) -> dict:
    """What a checkpoint tells about its run."""
    found = {
        "command": command_of(preset, progress, source),
        "preset": preset.name,
        "seed": progress.seed,
        "stages": progress.seconds,
        "versions": versions(),
        "cores": os.cpu_count(),
    }
    return found | ({"data": progress.data} if progress.data else {})


@contextmanager
def _sole_run(folder, resume):
    """The folder, made if need be, with no other writer. A folder that was made here and stayed empty is removed."""
    if world().rank > 0:  # rank 0 writes for all
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


def _open_together(folder, preset: Preset, seed, resume, source):
    """The state to start from. Rank 0 makes or checks it, and the other ranks read it."""
    if world().rank == 0:
        opened = _open_run(folder, preset, seed, resume, source)
    world().wait()
    return opened if world().rank == 0 else load_state(folder)


def _open_run(folder, preset: Preset, seed, resume, source):
    """The state to start from. A folder that holds a run is never overwritten."""
    if resume:
        progress, frozen, moments = load_state(folder)
        if progress.preset != preset.name:
            raise UserError(f"{folder} holds a run of preset {progress.preset!r}, not {preset.name!r}")
        if seed not in (None, progress.seed):
            raise UserError(f"{folder} holds a run of seed {progress.seed}, not {seed}: leave --seed out")
        if source.options != progress.data:
            raise UserError(f"{folder} holds a run on other data or with other options of them: leave --data out")
        _sweep(folder)
        return progress, frozen, moments
    if (folder / STATE).exists():
        raise UserError(f"{folder} holds a run already: add --resume to go on with it, or choose another --out")
    for name in (IN_RUN, LOG, "metrics.json"):
        if (folder / name).exists():
            raise UserError(f"{folder} holds {name}, but no run that could be resumed: choose another --out")
    progress = Progress(preset.name, seed or 0, data=source.options)
    source.prepare(preset, folder)
    save_state(folder, progress, {})  # from here on there is something to resume
    return progress, {}, {}


@contextmanager
def _left_as_found(folder, progress, source):
    """A run that is refused before its first step leaves nothing, so the corrected command works at once."""
    try:
        yield
    except UserError:
        if not progress.seconds and world().rank == 0:
            for name in (STATE, LOG):
                (folder / name).unlink(missing_ok=True)
            source.clear(folder)
        raise


def _sweep(folder):
    """Remove half-written temporary files (`write_atomically`) that a kill left behind."""
    for name in (STATE, "metrics.json", f"{IN_RUN}/{WEIGHTS}", f"{IN_RUN}/{CARD}"):
        path = folder / name
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _restore(optimiser, moments):
    """Put saved numbers into the optimiser's own arrays (its parameters are views into them)."""
    for name, saved in moments.items():
        own = getattr(optimiser, name)
        if own.shape != saved.shape:
            raise UserError(f"cannot resume: {name} has {saved.size} numbers, this version needs {own.size}")
        own[...] = saved


def _run_stage(stage, preset, progress, frozen, folder, log, began):
    """All remaining steps of a stage, with a bar, a log line every few steps, and checkpoints."""
    before = progress.seconds.get(stage.name, 0.0)
    index = progress.stage
    steps, title = range(progress.step, stage.steps), f"{stage.name:11s}"
    bar = tqdm(steps, initial=progress.step, total=stage.steps, desc=title, disable=world().rank > 0)
    for step in bar:
        rng = step_rng(progress.seed, index, step)
        if step == 0:
            stage.prepare(rng)
        loss, info = _one_step(stage, rng, step)
        progress.seconds[stage.name] = before + time.perf_counter() - began
        if step % LOG_EVERY == 0 or step == stage.steps - 1:
            bar.set_postfix_str(f"loss {loss:.3f}")
            log.write(stage=stage.name, step=step, **info)
        if (step + 1) % preset.save_every == 0 and step + 1 < stage.steps:
            progress.step = step + 1
            _save(folder, progress, log, frozen, stage.optimiser)


def _save(folder, progress, log, frozen, optimiser=None):
    """The log, then the state, which holds the log's length. Only rank 0 writes."""
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
        where = f"the largest loss is that of {worst!r}" if worst != "loss" else "the loss is"
        raise UserError(
            f"stage {stage.name}, step {step}: {error}, {where}, {losses[worst]:.3g}; the last checkpoint is kept"
        ) from error
    return info["loss"], info | {"norm": norm}


def _finish(model, preset, folder, evaluate):
    """Evaluation, metrics, figures, and the finished checkpoint."""
    began = time.perf_counter()
    report = evaluate(model, preset.test_queries, model.info["seed"]) if evaluate else {"tasks": {}}
    stages = {name: round(seconds, 1) for name, seconds in model.info["stages"].items()}
    stages["evaluation"] = round(time.perf_counter() - began, 1)
    model.info |= {"stages": stages, "metrics": report, "peak_memory_mb": peak_memory_mb()}
    metrics = report | {"stages": stages, "seconds": round(sum(stages.values()), 1), "peak_memory_mb": peak_memory_mb()}
    metrics["checkpoint"] = str(folder / IN_RUN)
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1).encode())
    draw_run(folder)
    save_checkpoint(model, folder / IN_RUN)
    return model


def command_of(preset: Preset, progress: Progress, source) -> str:
    """The command that makes this run's checkpoint again; defaults are left out."""
    options = {"preset": preset.name if preset.name != "toy" else None, "seed": progress.seed or None}
    options |= source.arguments()
    given = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(["python -m tinyflamingo train", *given])


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
