"""What a user of `train` waits for: whole training steps with their data, and commands in a new process.

Implements no section of the chapter. Not here: steps on a batch that is ready (`step_lines.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinyflamingo import ops
from tinyflamingo.bench.contest import Contest, Inputs, NotRun, largest
from tinyflamingo.system import end_group
from tinyflamingo.training.stage import step_rng

PLACES, IN_A_ROW = 5, 4  # the measured steps: 4 in a row, at 5 places of a stage
FIRST_LOSS = b"loss "  # what the progress bar of `train` shows after the first step


# ---------------------------------------------------------------- steps of `train`


def measured_steps(steps: int) -> list[int]:
    """Numbers of steps from all of a stage, so that short and long ones occur about as often as in training."""
    starts = [steps * (2 * i + 1) // (2 * PLACES) for i in range(PLACES)]
    return [start + i for start in starts for i in range(IN_A_ROW)]


def job(stage_of: Callable[[Inputs], Any], index: int, inner: str) -> Callable[[Inputs], Contest]:
    """The builder of a line: real steps of a stage, and the same steps with batches that were made before.

    index: number of the stage; inner: the method of the stage that gets a batch and returns its gradient.
    """

    def build(inputs):
        stage = stage_of(inputs)
        steps = measured_steps(stage.steps)
        batches = {step: _batch(stage, inner, step_rng(0, index, step), step) for step in steps}

        def real(step):
            return stage.gradient(step_rng(0, index, step), step)[0]

        def ready(step):
            gradient = getattr(stage, inner)(*batches[step])[1]
            if hasattr(stage, "clip"):
                stage.clip(gradient)
            return gradient

        def run(gradient_of):
            for step in steps:
                stage.optimiser.step(gradient_of(step), step, stage.steps)

        return Contest(
            lambda: run(real), lambda: run(ready), lambda: largest(map(real, steps[:2]), map(ready, steps[:2]))
        )

    return build


def _batch(stage, inner, rng, step):
    """The batch of a step: the arguments with which the stage calls its method `inner`."""
    calls, plain = [], getattr(stage, inner)

    def recorded(*arguments):
        calls.append(arguments)
        return plain(*arguments)

    setattr(stage, inner, recorded)
    stage.gradient(rng, step)
    delattr(stage, inner)  # the method of the class is visible again
    return calls[0]


# ---------------------------------------------------------------- new processes


def python(*arguments: str) -> Contest:
    """A new interpreter, as from the shell."""
    return Contest(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def first_completion(inputs: Inputs) -> Contest:
    """Read a picture from a file and write its caption, all in a new process."""
    picture = Path(tempfile.mkdtemp()) / "noise.png"
    Image.fromarray(inputs.rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    return python("-m", "tinyflamingo", "complete", "<image>Output:", str(picture))


def cold_start(inputs: Inputs, preset: str = "toy") -> Contest:
    """`train` in a new process, without compiled kernels on the disk, until the first step has ended."""
    return Contest(lambda: _until_first_step(preset))


def _until_first_step(preset):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = {"NUMBA_CACHE_DIR": f"{folder}/kernels", "TINYFLAMINGO_THREADS": str(ops.workers())}
        command = [sys.executable, "-m", "tinyflamingo", "train", "--preset", preset, "--out", f"{folder}/run"]
        process = subprocess.Popen(
            command,
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _read_until(process.stderr, FIRST_LOSS)
        finally:
            end_group(process)
            process.stderr.close()


def _read_until(pipe, text):
    """Read until a text appears."""
    seen = b""
    while text not in seen:
        new = os.read(pipe.fileno(), 1 << 16)
        if not new:
            raise NotRun(f"train ended before its first step: {seen[-200:].decode(errors='replace').strip()}")
        seen += new
