"""`doctor`: prints the properties of this machine and runs a short self-test.

Implements no section of the chapter. Prints one line for each property; a failed test is a `UserError`. Not here: the
tests of the package (`tests/`).
"""

from __future__ import annotations

import os
import time
from functools import partial

import autograd.numpy as anp
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.bench.flops import gemm_rate
from tinyflamingo.errors import UserError
from tinyflamingo.language import _
from tinyflamingo.ops.team import blas_libraries
from tinyflamingo.system import machine_memory_gb, number, peak_memory_mb
from tinyflamingo.training.conditions import versions

DOCTOR = 11  # number of its own stream of pictures


def run_doctor() -> None:
    """Print versions, BLAS, threads, memory and kernels; then test gradients and the shipped model."""
    for name, version in versions().items():
        print(f"{name:14s} {version}")
    for library in blas_libraries():
        print(f"{'BLAS':14s} {library}, {gemm_rate():.0f} GFLOP/s in float32")
    variables = ("TINYFLAMINGO_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    chosen = "".join(f"; {v}={os.environ[v]}" for v in variables if v in os.environ)
    cores, workers = os.cpu_count(), ops.workers()
    threads = _(f"cores: {cores}; workers in training: {workers}")
    print(f"{'threads':14s} {threads}{chosen}")
    memory = number(machine_memory_gb(), "GB", 1)
    print(f"{'memory':14s} {_(f'{memory} in the machine')}")
    print(f"{'ops':14s} {ops.engine()}")
    checks = {_("gradients"): _check_gradients, _("a prompt"): _check_prompt}
    for name, check in checks.items():
        began = time.perf_counter()
        result = check()
        print(f"{name:14s} {result} ({time.perf_counter() - began:.1f} s)")
    print(_(f"everything works; peak memory {number(peak_memory_mb(), 'MB')}"))


def _check_gradients() -> str:
    """Compare the gradients of two attentions with finite differences."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 5, 2, 3)) for _ in range(3))
    r, u, b = rng.standard_normal((5, 2, 3)), rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    visible_from = np.zeros((1, 5), int)
    media_k, media_v = (rng.standard_normal((1, 2, 3, 2, 3)) for _ in range(2))
    phi = np.array([[0, 1, 1, 2, 2]])
    try:
        relative = partial(ops.relative_attention, visible_from=visible_from)
        ops.check_grad(lambda *a: anp.sum(relative(*a) ** 2), q, k, v, r, u, b)
        ops.check_grad(lambda q, k, v: anp.sum(ops.segment_attention(q, k, v, phi) ** 2), q, media_k, media_v)
    except AssertionError as error:
        raise UserError(f"self-test: a gradient is wrong ({error}); report this error with the lines above") from error
    return _("correct")


def _check_prompt() -> str:
    """The shipped model names a drawn picture."""
    from tinyflamingo.data.tinyworld.pool import split_rng
    from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_single

    rng = split_rng("test", DOCTOR)
    picture = draw_scene(rng, sample_single(rng, (("circle", "red"),)))
    answer = tinyflamingo.complete(tinyflamingo.load(), [picture, "Output:"])["text"]
    if answer != "a red circle.":
        raise UserError(f"self-test: the shipped model calls a red circle {answer!r}: is the package complete?")
    return _(f"answered: {answer}")
