"""The main job: three stages, evaluation, and a folder with all results (chapter §1).

`train` makes a Flamingo from nothing: contrastive pretraining, language pretraining, Flamingo
training. Each stage is a small object (`stage.py`); one loop runs all of them. A run that is killed
at any moment and then resumed ends with the same bits as an undisturbed one. A source gives the data
of a run: `TinyWorld` here, the user's own data (`own_data/`), handwriting (`handwriting/`), or emoji (`emoji/`).

Not here: the stages (`contrastive_stage.py`, `language_stage.py`, `flamingo_stage.py`).
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyflamingo.checkpoint import CARD, IN_RUN, WEIGHTS, save_checkpoint
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.errors import Stopped, UserError
from tinyflamingo.files import check_name, require_regular, sole_writer, write_atomically
from tinyflamingo.language import _
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.tokenizer import Tokenizer, train_tokenizer
from tinyflamingo.ops.team import keep_memory, one_team
from tinyflamingo.system import peak_memory_mb
from tinyflamingo.training.ahead import compile_ahead
from tinyflamingo.training.conditions import conditions, going_on, versions
from tinyflamingo.training.contrastive_stage import ContrastiveStage
from tinyflamingo.training.figures import draw_run
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Preset, get_preset
from tinyflamingo.training.processes import on_workers
from tinyflamingo.training.ranks import world
from tinyflamingo.training.stage import step_rng
from tinyflamingo.training.state import LOG, STATE, Log, NoLog, Progress, load_state, save_state
from tinyflamingo.variants.registry import parts_of

Evaluate = Callable[[TrainedFlamingo, int, int], dict]  # (model, queries for each task, seed) -> report

STAGES = (ContrastiveStage, LanguageStage, FlamingoStage)
TOKENIZER_SEED = 0  # all runs of a preset have the same vocabulary, whatever their seed
LOG_EVERY = 10  # steps between lines of the log
PACE_STEPS = range(60, 80)  # steps of stage one from which the length of the run is forecast: most pictures are drawn
EXPLODED = 1e4  # far above the loss of a random guess: the run has diverged


class TinyWorld:
    """The source of a run's data, by default. Other sources have the same attributes and methods."""

    options: dict | None = None  # the options that the state of a run keeps, to find its source again
    preset = "toy"  # its usual preset

    def files(self) -> dict:
        """{name: SHA-256} of the files that a resumed run reads again."""
        return {}

    def prepare(self, preset: Preset, folder: str | Path) -> None:
        """Called once, at the start of a run: write the data that the run needs into its folder."""

    def clear(self, folder: str | Path) -> None:
        """Remove the data that `prepare` wrote."""

    def material(self, preset: Preset, folder: str | Path) -> tuple[Preset, Tokenizer, tuple]:
        """(preset that fits the data, tokenizer, stages: functions (preset, rng, tokenizer, frozen) -> stage)."""
        if preset.reads_archives:
            what, files = ("Omniglot", "of Omniglot") if preset.handwriting else ("emoji", "with the packages")
            raise UserError(f"preset {preset.name!r} learns from {what}: give the folder {files} with --data")
        return preset, tinyworld_tokenizer(preset), STAGES

    def plan(self, preset: Preset) -> str:
        """What the run does, one line for each stage."""
        return plan(preset)

    def arguments(self) -> dict:
        """{option of the command line: value} that selects this source."""
        return {}


TINYWORLD = TinyWorld()


def plan(preset: Preset) -> str:
    """What a run does, one line for each stage."""
    return _(
        f"three stages, then an evaluation:\n"
        f"  contrastive, {preset.contrastive.steps} steps: the vision encoder learns from pictures and captions\n"
        f"  language, {preset.language.steps} steps: the language model learns from text\n"
        f"  flamingo, {preset.flamingo.steps} steps: resampler and gated blocks learn from pages with pictures"
    )


def forecast(preset: Preset, seconds: float) -> str:
    """How long the stages take, from the seconds of a step of stage one; "" if the preset does not know its pace."""
    if not preset.pace:
        return ""
    names = [stage.name for stage in STAGES]
    steps = [getattr(preset, name).steps for name in names]
    minutes = [seconds * n * pace / 60 for n, pace in zip(steps, preset.pace, strict=True)]
    each = ", ".join(f"{name} {time:.1f}" for name, time in zip(names, minutes, strict=True))
    return _(f"about {sum(minutes):.0f} minutes on this machine: {each}")


def say(text: str) -> None:
    """Print a text above the progress bar. Only rank 0 prints."""
    if text and world().rank == 0:
        tqdm.write(_(text), file=sys.stderr)


def tinyworld_tokenizer(preset: Preset) -> Tokenizer:
    """The tokenizer of TinyWorld's texts."""
    lines = tokenizer_lines(np.random.default_rng(TOKENIZER_SEED))
    return train_tokenizer(lines, preset.config.language.vocab_size)


def train(
    preset_name: str,
    folder: str | Path,
    seed: int | None = None,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    source: TinyWorld = TINYWORLD,
) -> TrainedFlamingo:
    """Run all stages; every file goes into `folder`.

    seed: by default 0, or the seed of the resumed run. source: the data of the run; a resumed run needs
    the source of its start. evaluate: called at the end; its report goes into metrics.json. Raises
    `UserError` if the folder cannot be used.
    """
    folder = Path(folder)
    preset = get_preset(preset_name)
    keep_memory()
    with _sole_run(folder, resume):
        progress, frozen, moments = _open_together(folder, preset, seed, resume, source)
        undone = nullcontext() if resume else _undone_if_refused(folder, progress, source)
        with going_on(folder, progress.conditions), undone:
            model = on_workers(_all_stages, preset, folder, progress, frozen, moments, source)
            return _finish(model, preset, folder, evaluate) if world().rank == 0 else model


def _all_stages(preset, folder, progress, frozen, moments, source) -> TrainedFlamingo:
    """The stages that are left, on all ranks."""
    preset, tokenizer, stages = source.material(preset, folder)
    say(source.plan(preset))
    new = progress.stage == progress.step == 0
    compiled = compile_ahead(stages[0], preset, tokenizer) if new else world().wait
    log: Log | NoLog = Log(folder, progress.log_bytes) if world().rank == 0 else NoLog()
    with closing(log):  # also after an error: Windows removes no open file
        for index in range(progress.stage, len(stages)):
            began = time.perf_counter()
            with one_team():
                stage = stages[index](preset, step_rng(progress.seed, index, -1), tokenizer, frozen)
                _restore(stage.optimiser, moments)
                compiled()
                _run_stage(stage, preset, progress, frozen, folder, log, began)
                frozen = frozen | stage.result()
            progress.stage, progress.step, moments = index + 1, 0, {}
            _save(folder, progress, log, frozen)
    params = frozen.pop("params")
    info = _info(preset, progress, source)
    return TrainedFlamingo(preset.config, params, frozen, tokenizer, info, parts_of(preset.config))


def _info(preset, progress, source) -> dict:
    """Facts about the run, for the card of its checkpoint."""
    info = {
        "command": command_of(preset, progress, source),
        "preset": preset.name,
        "seed": progress.seed,
        "stages": progress.seconds,
        "versions": versions(),
        "cores": os.cpu_count(),
        "workers": progress.conditions[-1]["workers"],
        "conditions": progress.conditions,
    }
    return info | ({"data": progress.data} if progress.data else {})


@contextmanager
def _sole_run(folder, resume):
    """Make the folder and lock it against other writers. A new folder that is still empty at the end is removed."""
    if world().rank > 0:  # rank 0 writes for all
        yield
        return
    check_name(folder)
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
            require_regular(folder)
            yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _open_together(folder, preset: Preset, seed, resume, source):
    """The state at the start. Rank 0 makes or checks it; the other ranks read it."""
    if world().rank == 0:
        opened = _open_run(folder, preset, seed, resume, source)
    world().wait()
    return opened if world().rank == 0 else load_state(folder)


def _open_run(folder, preset: Preset, seed, resume, source):
    """The state at the start. A folder that holds a run is never overwritten."""
    if resume:
        progress, frozen, moments = load_state(folder)
        if progress.preset != preset.name:
            raise UserError(f"{folder} holds a run of preset {progress.preset!r}, not {preset.name!r}")
        if seed not in (None, progress.seed):
            raise UserError(f"{folder} holds a run with seed {progress.seed}, not {seed}: leave out --seed")
        if source.options != progress.data:
            raise UserError(f"{folder} holds a run on other data, or with other options for them: leave out --data")
        if progress.files and source.files() != progress.files:
            raise UserError(f"{folder} holds a run that read other files: give the folder of its start with --data")
        _sweep(folder)
        return progress, frozen, moments
    if (folder / STATE).exists():
        raise UserError(f"{folder} already holds a run: add --resume to continue it, or choose another --out")
    for name in (IN_RUN, LOG, "metrics.json"):
        if (folder / name).exists():
            raise UserError(f"{folder} holds {name}, but no run to resume: choose another --out")
    progress = Progress(preset.name, seed or 0, data=source.options, files=source.files(), conditions=[conditions()])
    source.prepare(preset, folder)
    save_state(folder, progress, {})  # from here on the run can be resumed
    return progress, {}, {}


@contextmanager
def _undone_if_refused(folder, progress, source):
    """A run that is refused before its first step leaves no file, so the corrected command works at once."""
    try:
        yield
    except Stopped:
        raise
    except UserError:
        if not progress.seconds and world().rank == 0:
            for name in (STATE, LOG):
                (folder / name).unlink(missing_ok=True)
            source.clear(folder)
        raise


def _sweep(folder):
    """Remove half-written temporary files (`write_atomically`) of a killed run."""
    for name in (STATE, "metrics.json", f"{IN_RUN}/{WEIGHTS}", f"{IN_RUN}/{CARD}"):
        path = folder / name
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _restore(optimiser, moments):
    """Copy saved numbers into the arrays of the optimiser (its parameters are views into them)."""
    for name, saved in moments.items():
        own = getattr(optimiser, name)
        if own.shape != saved.shape:
            raise UserError(f"cannot resume: {name} has {saved.size} numbers, but this version needs {own.size}")
        own[...] = saved


def _run_stage(stage, preset, progress, frozen, folder, log, began):
    """All remaining steps of a stage, with a progress bar, lines of the log, and saved states."""
    before = progress.seconds.get(stage.name, 0.0)
    index, first = progress.stage, progress.step
    with tqdm(initial=first, total=stage.steps, desc=f"{stage.name:11s}", disable=world().rank > 0) as bar:
        for step in range(first, stage.steps):
            rng = step_rng(progress.seed, index, step)
            if step == 0:
                stage.prepare(rng)
            loss, info = _one_step(stage, rng, step)
            if step == first:
                bar.initial = first + 1  # its rate counts from here: the first step compiles kernels
                bar.unpause()
            if index == 0 and step == first + PACE_STEPS.start:
                pace_began = time.perf_counter()
            if index == 0 and step == first + PACE_STEPS.stop:
                say(forecast(preset, (time.perf_counter() - pace_began) / len(PACE_STEPS)))
            bar.update()
            progress.seconds[stage.name] = before + time.perf_counter() - began
            if step % LOG_EVERY == 0 or step == stage.steps - 1:
                bar.set_postfix_str(f"loss {loss:.3f}")
                log.write(stage=stage.name, step=step, **info)
            if (step + 1) % preset.save_every == 0 and step + 1 < stage.steps:
                progress.step = step + 1
                _save(folder, progress, log, frozen, stage.optimiser)


def _save(folder, progress, log, frozen, optimiser=None):
    """Write the log, then the state, which contains the length of the log. Only rank 0 writes."""
    if world().rank == 0:
        progress.log_bytes = log.flush()
        save_state(folder, progress, frozen, optimiser)


def _one_step(stage, rng, step):
    """Gradient and update. A loss or a gradient that is not finite or explodes ends the run; the last state is kept."""
    gradient, info = stage.gradient(rng, step)
    losses = {name.removeprefix("loss_"): value for name, value in info.items() if name.startswith("loss")}
    worst = max(losses, key=lambda name: losses[name] if math.isfinite(losses[name]) else math.inf)
    try:
        if not losses[worst] < EXPLODED:  # true for NaN too
            raise FloatingPointError(f"the norm of the gradient is {np.sqrt(np.dot(gradient, gradient)):.3g}")
        norm = stage.optimiser.step(gradient, step, stage.steps)
    except FloatingPointError as error:
        which = _("the loss" if worst == "loss" else f"the largest loss, that of {worst!r},")
        raise Stopped(
            f"stage {stage.name}, step {step}: {error}; {which} is {losses[worst]:.3g}; the last saved state is kept"
        ) from error
    return info["loss"], info | {"norm": norm}


def _finish(model, preset, folder, evaluate):
    """The checkpoint, evaluation, the checkpoint with its metrics, and last the figures, which may fail."""
    save_checkpoint(model, folder / IN_RUN)
    began = time.perf_counter()
    report = evaluate(model, preset.test_queries, model.info["seed"]) if evaluate else {"tasks": {}}
    stages = {name: round(seconds, 1) for name, seconds in model.info["stages"].items()}
    stages["evaluation"] = round(time.perf_counter() - began, 1)
    memory = {"peak_memory_mb": peak_memory_mb(model.info["workers"])}
    model.info |= {"stages": stages, "metrics": report, **memory}
    metrics = report | {"stages": stages, "seconds": round(sum(stages.values()), 1), **memory}
    metrics["checkpoint"] = str(folder / IN_RUN)
    save_checkpoint(model, folder / IN_RUN)
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1).encode())
    draw_run(folder)
    return model


def command_of(preset: Preset, progress: Progress, source: TinyWorld) -> str:
    """The command that makes the checkpoint of this run again, without options that have their default."""
    options: dict = {"preset": preset.name if preset.name != "toy" else None, "seed": progress.seed or None}
    options |= source.arguments()
    given = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(["python -m tinyflamingo train", *given])
