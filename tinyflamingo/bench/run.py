"""Runs the benchmark: both sides of a line in turns (A B A B), on the same inputs.

The speed of a machine changes from minute to minute, so only times measured in turns can be compared, and only as a
ratio. Outputs are compared before any time is measured. Both sides get the same number of cores. We use one worker for
each, with BLAS on one thread: a process in training steps, as in `train`, otherwise a thread of `ops/team.py`. PyTorch
uses its own threads. Not here: the lines (`lines.py`) and the clock (`clock.py`).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tinyflamingo import ops
from tinyflamingo.bench.clock import milliseconds
from tinyflamingo.bench.contest import Contest, Inputs, Line, NotRun
from tinyflamingo.bench.lines import LINES
from tinyflamingo.bench.scaling import draw_scaling, measure_scaling
from tinyflamingo.errors import UserError
from tinyflamingo.ops.team import blas_libraries, keep_memory, one_team
from tinyflamingo.training.conditions import conditions, versions
from tinyflamingo.training.processes import on_workers
from tinyflamingo.training.ranks import world


def bench(
    only: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    figure: Path | None = None,
    say: Callable[[str], Any] = print,
    keep: Callable[[dict], Any] = lambda report: None,
) -> dict:
    """Run all lines, or those in `only`, with each number of `threads` (by default 1 and 2).

    Returns {"lines": {NAME or NAME@threads: ...}, "machine": ...}; NAME alone is one thread. With `figure`, also
    measures how costs grow (`scaling.py`), draws it there and returns it as "scaling". keep: gets the report before the
    figure, which may fail. A line that this machine cannot run has "not_run" with the reason. Raises `UserError` for an
    unknown name or a wrong number, and if the outputs of the two sides of a line differ.
    """
    names, counts = list(only or LINES), list(threads or _counts())
    _check(names, counts)
    torch = _torch()
    if torch is None:
        say("PyTorch is not installed (pip install torch): lines that compare with it show only our time")
    keep_memory()
    inputs = Inputs(torch is not None)
    report: dict[str, Any] = {"lines": {}, "machine": machine(torch, inputs)}
    for line in (*_head(report["machine"]), *(_compilation(names, len(counts)) if torch else ()), HEAD):
        say(line)
    for n in counts:
        for name in names:
            row = _run(LINES[name], inputs, n, torch)
            report["lines"][name if n == 1 else f"{name}@{n}"] = row
            say(format_row(name, LINES[name], row))
    if figure:
        if torch is not None:
            torch.set_num_threads(1)
        with one_team():
            report["scaling"] = measure_scaling(inputs)
    keep(report)
    if figure:
        draw_scaling(report["scaling"], figure)
    return report


def _check(names, threads):
    unknown = sorted(set(names) - set(LINES))
    if unknown:
        raise UserError(f"unknown line {unknown[0]!r}: choose from {', '.join(LINES)}")
    cores = os.cpu_count() or 1
    for n in threads:
        if not 1 <= n <= cores:
            raise UserError(f"--threads is {n} but must be from 1 to {cores}, the number of cores")


def _torch():
    try:
        import torch
    except ImportError:
        return None
    return torch


def _counts():
    return [n for n in (1, 2) if n <= (os.cpu_count() or 1)]


def _head(machine):
    """What the times depend on, before the first of them."""
    yield f"{machine['processor']}, {machine['cores']} cores; NumPy: {', '.join(machine['blas'])}; {machine['engine']}"
    if "torch" in machine:
        yield f"PyTorch {machine['versions']['torch']}: {machine['torch']}"


def _compilation(names, counts):
    """How long PyTorch compiles, if it does."""
    minutes = counts * sum(LINES[name].minutes for name in names)
    if minutes:
        compiled = ", ".join(name for name in names if LINES[name].minutes)
        yield f"{compiled}: PyTorch compiles for about {minutes:.0f} minutes, not timed (--only leaves it out)"


def _run(line, inputs, n, torch):
    """The row of a line with n threads on each side."""
    with ops.use_workers(n), one_team():
        if torch is not None:
            torch.set_num_threads(n)
        try:
            return compare(line, inputs) | {"threads": n}
        except NotRun as reason:
            nothing = dict.fromkeys(("ours_ms", "torch_ms", "ratio", "max_abs_diff"))
            return nothing | {"threads": n, "not_run": str(reason)}


def compare(line: Line, inputs: Inputs) -> dict:
    """Compare the outputs of the sides of a line, then measure their times in turns."""
    return on_workers(_on_rank, line, inputs) if line.processes else _measure(line, line.build(inputs))


CALLS = ("", "ours", "other", "difference")  # what rank 0 tells the other ranks to call; "": the line has ended


def _on_rank(line, inputs):
    """Every rank builds the line. Rank 0 measures it. Before each call it tells the other ranks to call the same."""
    contest = line.build(inputs)
    while world().rank > 0 and (name := CALLS[int(world().allreduce(np.zeros(1))[0])]):
        call = getattr(contest, name)
        if call:
            call()

    def by_all(name):
        call = getattr(contest, name)
        return call and (lambda: (world().allreduce(np.array([float(CALLS.index(name))])), call())[1])

    if world().rank == 0:
        row = _measure(line, Contest(*map(by_all, CALLS[1:])))
        world().allreduce(np.zeros(1))
        return row


def _measure(line, contest):
    difference = contest.difference() if contest.difference else None
    if difference is not None and not difference <= line.tolerance:
        raise UserError(f"the outputs of the sides differ by {difference:.2g}, more than {line.tolerance:g}: not timed")
    sides = [side for side in (contest.ours, contest.other) if side]
    ours, *rest = milliseconds(sides, rounds=line.rounds)
    other = rest[0] if rest else None
    return {
        "ours_ms": ours,
        "torch_ms": other if line.against_torch else None,
        "ratio": line.ratio(ours, other),
        "max_abs_diff": difference,
    } | ({} if line.against_torch else {"other_ms": other})


HEAD = (
    f"{'line':20s} {'threads':>7s} {'ours ms':>9s} {'other ms':>9s} {'ratio':>7s} {'wanted':>10s} {'difference':>10s}"
)


def format_row(name: str, line: Line, row: dict) -> str:
    """One line of the table."""
    start = f"{name:20s} {row['threads']:7d}"
    if "not_run" in row:
        return f"{start} not run: {row['not_run']}"
    other = row["torch_ms"] if line.against_torch else row["other_ms"]
    cells = [f"{row['ours_ms']:9.2f}", f"{other:9.2f}" if other else f"{'-':>9s}"]
    cells += [f"{row['ratio']:7.2f}" if row["ratio"] else f"{'-':>7s}", f"{line.wanted_with(row['threads']):>10s}"]
    cells += [f"{row['max_abs_diff']:10.1e}" if row["max_abs_diff"] is not None else f"{'-':>10s}"]
    return f"{start} {' '.join(cells)}  {line.what}"


def machine(torch: Any, inputs: Inputs) -> dict:
    """Properties of the machine that the times depend on. torch: the module, or None."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "blas": blas_libraries(),
        "engine": ops.engine(),
        "versions": versions() | {"torch": torch.__version__ if torch else "not installed"} | _jax(),
    } | ({"torch": inputs.torch.libraries()} if torch else {})


def _jax():
    with contextlib.suppress(PackageNotFoundError):
        return {"jax": version("jax")}
    return {}


def processor() -> str:
    """The processor's name, and the kind for which Numba compiles: several kinds have the same name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{re.sub(r'[(](R|TM)[)]| Processor', '', name)} ({conditions()['processor'].partition(' ')[2]})"
