"""The lines of the benchmark: one `Line` for each row of the table.

The builder of a line makes the inputs of both sides from the same arrays; this is not timed. Implements no section of
the chapter. Not here: our side of the lines (`step_lines.py`, `part_lines.py`, `job_lines.py`), the clock (`clock.py`).
"""

from __future__ import annotations

from functools import partial

from tinyflamingo.bench.contest import Line
from tinyflamingo.bench.job_lines import cold_start, first_completion, job, python
from tinyflamingo.bench.part_lines import (
    DECODED,
    FRAMES,
    PICTURES,
    ROWS,
    TOKENS,
    VIDEOS,
    cross_attention,
    decode,
    encode,
    growth,
    resampler,
)
from tinyflamingo.bench.step_lines import (
    compiled,
    contrastive_stage,
    contrastive_step,
    eager,
    flamingo_stage,
    flamingo_step,
    gemm_share,
    jitted,
    language_stage,
    language_step,
    race,
)

FEW_FLAMINGO, FEW_LANGUAGE = partial(flamingo_step, few=True), partial(language_step, few=True)
FEW_ROUNDS, ONE_ROUND = (3, 5), (1, 1)  # for lines whose sides take seconds


def _ours_over_other(ours, other):
    return ours / other


def _race(what, wanted, step_of, opponent, **more):
    return Line(what, wanted, race(step_of, opponent), processes=True, **more)


def _job(what, stage_of, index, inner):
    build = job(stage_of, index, inner)
    return Line(what, "<= 1.05", build, _ours_over_other, False, rounds=FEW_ROUNDS, processes=True)


LINES = {
    "flamingo_step": _race("training step of stage three: loss, gradients, optimiser", ">= 1.3", flamingo_step, eager),
    "language_step": _race("training step of stage two", ">= 1.4", language_step, eager),
    "contrastive_step": _race("training step of stage one", ">= 1.05", contrastive_step, eager, on_two=">= 1.0"),
    "flamingo_step_rows": _race(
        "PyTorch too leaves out the work for tokens without a loss", ">= 1.3", FEW_FLAMINGO, eager
    ),
    "language_step_rows": _race("the same for stage two", ">= 1.2", FEW_LANGUAGE, eager),
    "flamingo_compile": _race("flamingo_step_rows against torch.compile", "", FEW_FLAMINGO, compiled, minutes=2.0),
    "language_compile": _race("the same for stage two", "", FEW_LANGUAGE, compiled, minutes=1.0),
    "contrastive_compile": _race("the same for stage one", "", contrastive_step, compiled, minutes=2.0),
    "flamingo_jax": _race("flamingo_step_rows against JAX with jit", "", FEW_FLAMINGO, jitted, against_torch=False),
    "language_jax": _race("the same for stage two", "", FEW_LANGUAGE, jitted, against_torch=False),
    "encode": Line(f"vision encoder forward, {PICTURES} pictures", ">= 1.0", encode),
    "resampler": Line(f"forward and backward, {VIDEOS} videos of {FRAMES} frames", ">= 1.2", resampler),
    "xattn_1": Line(f"cross-attention, {ROWS} x {TOKENS} tokens, 1 image", ">= 1.2", partial(cross_attention, N=1)),
    "xattn_8": Line("the same, 8 images in each row", ">= 4", partial(cross_attention, N=8)),
    "xattn_8_runs": Line(
        "PyTorch too computes each run of tokens with its own image", "", partial(cross_attention, N=8, by_runs=True)
    ),
    "xattn_32": Line("dense again, 32 images", ">= 12", partial(cross_attention, N=32)),
    "xattn_scaling": Line("our time with 32 images over that with 1", "<= 1.5", growth, _ours_over_other, False),
    "decode": Line(f"{DECODED} tokens of one sequence, both caches", ">= 2", decode),
    "gemm_share": Line(
        "matrix products at this machine's rate over flamingo_step",
        ">= 0.6",
        gemm_share,
        against_torch=False,
        processes=True,
    ),
    "job_step_flamingo": _job(
        "20 real steps of `train` over the same steps with batches that are ready",
        flamingo_stage,
        2,
        "losses_and_gradient",
    ),
    "job_step_language": _job("the same for stage two", language_stage, 1, "loss_and_gradient"),
    "job_step_contrastive": _job("the same for stage one", contrastive_stage, 0, "loss_and_gradient"),
    "import": Line(
        "`import tinyflamingo` in a new process",
        "<= 500 ms",
        lambda inputs: python("-c", "import tinyflamingo"),
        against_torch=False,
    ),
    "completion": Line("`complete` from the shell, one picture", "<= 3000 ms", first_completion, against_torch=False),
    "cold_start": Line(
        "`train` without compiled kernels, until its first step has ended",
        "<= 10 s",
        cold_start,
        against_torch=False,
        rounds=ONE_ROUND,
    ),
}
