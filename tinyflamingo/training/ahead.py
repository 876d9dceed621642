"""Compiles the kernels of the first stage while its scenes and captions are sampled, so that a new user waits less.

Numba keeps compiled kernels on the disk. So another process can make them: it computes one small step of the stage, and
the run then finds them there. Serves chapter §1. Not here: the kernels (`ops/`), the workers (`processes.py`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinyflamingo import ops
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.training.contrastive_stage import FAMILY
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.processes import start_process, without_ctrl_c
from tinyflamingo.training.ranks import Alone, joined, world

FEW = 8  # families of pictures in the small step
MANY = 1000  # families; fewer are sampled before a new process could compile anything


def compile_ahead(stage_of: Callable, preset: Preset, tokenizer: Tokenizer) -> Callable[[], None]:
    """Start to compile what a step of stage one needs. Returns a function that waits until it is done, on all ranks."""
    needless = preset.contrastive.families < MANY or ops.engine() != "numba"
    if needless or world().rank > 0 or multiprocessing.current_process().daemon:
        return world().wait
    with without_ctrl_c():
        process = start_process("compiler", _small_step, stage_of, preset, tokenizer)

    def wait():
        process.join()
        world().wait()

    return wait


def _small_step(stage_of, preset, tokenizer):
    """One step on few pictures. The run itself reports errors of the data or the machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes
    small = replace(preset.contrastive, families=FEW, batch=FEW * FAMILY)
    with contextlib.suppress(Exception), joined(Alone()):
        stage = stage_of(replace(preset, contrastive=small), np.random.default_rng(0), tokenizer, {})
        gradient, _ = stage.gradient(np.random.default_rng(0), 0)
        stage.optimiser.step(gradient, 0, stage.steps)
