"""Regions about time and memory: the main commands, the race against PyTorch, workers, a checkpoint of real size.

Not here: what is measured (`docs/make_tables.py --measure`, `docs/measure_*.py`).
"""

from __future__ import annotations

from tables.common import NOT_RUN, ROOT, STAGES, card, duration, gigabytes, read, table

MEASURED = ROOT / "docs" / "measured"
BENCH = ROOT / "docs" / "bench"
WORKERS = ROOT / "docs" / "workers.json"
REAL_SIZE = ROOT / "docs" / "real_size.json"
# The commands whose times are in docs/commands.md; `--measure` runs them.
TIMED = {
    "tests": "-m pytest",
    "demo": "-m tinyflamingo demo --out docs/figures/demo.png",
    "doctor": "-m tinyflamingo doctor",
}
MAKERS = ("AMD", "Intel")  # of processors; one without a file in docs/bench/ is "not run"
REAL_RUNS = {  # measurement: its name in `docs/real_size.json`
    "`convert --from open_flamingo`": "convert",
    "`complete`, a picture and 2 tokens, from the disk": "disk, 2 tokens",
    "`complete`, a picture and 2 tokens, from memory": "memory, 2 tokens",
    "`complete`, a picture and 34 tokens, from memory": "memory, 34 tokens",
}


def measured() -> list[dict]:
    """What `make_tables.py --measure` wrote on each machine."""
    return [read(path) for path in sorted(MEASURED.glob("*.json"))]


def minutes() -> str:
    """The minutes of `train`: "9 to 12" on several machines."""
    return _minutes(sum(report["train"]["stages"].values()) for report in measured())


def test_minutes() -> str:
    """The minutes of all tests."""
    return _minutes(report["seconds"]["tests"] for report in measured() if "tests" in report["seconds"])


def _minutes(seconds) -> str:
    return " to ".join(sorted({f"{s / 60:.0f}" for s in seconds}, key=int))


def times() -> str:
    """Times of the main commands, one column for each machine."""
    reports = measured()
    columns = [f"{report['cores']} cores, {report['processor']}" for report in reports]
    rows = [["`python -m tinyflamingo train`", *(sum(report["train"]["stages"].values()) for report in reports)]]
    rows += [[f"&nbsp;&nbsp;{name}", *(r["train"]["stages"][n] for r in reports)] for n, name in STAGES.items()]
    rows += [[f"`python {command}`", *(r["seconds"].get(n) for r in reports)] for n, command in TIMED.items()]
    cells = [[name, *(duration(s) if s else NOT_RUN for s in seconds)] for name, *seconds in rows]
    return table(["time of a command", *columns], cells)


def memory() -> str:
    """The peak memory of `train`: of the run that made the checkpoint, and on each machine."""
    return gigabytes(card(), *(report["train"] for report in measured()))


def fastest_rate() -> float:
    """GFLOP/s of large matrix products on the machine where they are fastest."""
    return max(report["gflops"] for report in measured())


def rate() -> str:
    """`fastest_rate` as text."""
    return f"{fastest_rate():.0f} GFLOP/s"


def machines() -> dict[str, dict]:
    """{name of the processor: report of the benchmark, or {} if it was not run there}."""
    reports = [read(path) for path in sorted(BENCH.glob("*.json"))]
    named = {report["machine"]["processor"]: report for report in reports}
    return named | {maker: {} for maker in MAKERS if not any(maker in name for name in named)}


def race() -> str:
    """The benchmark: one row for each line, two columns for each machine."""
    from tinyflamingo.bench.lines import LINES

    reports, rows = machines(), []
    for name, line in LINES.items():
        keys = ((name, line.wanted), (f"{name}@2", line.wanted_with(2)))
        cells = [_cell(report, *key) for report in reports.values() for key in keys]
        rows.append([f"`{name}`", line.what, line.wanted or "–", *cells])
    columns = [f"{cpu}, {threads}" for cpu in reports for threads in ("1 thread", "2 threads")]
    return table(["line", "what", "wanted", *columns], rows)


def reaches(row: dict, goal: str) -> bool:
    """Whether a row of the benchmark reaches a goal: ">= 1.3" of its ratio, "<= 500 ms" or "<= 10 s" of our time."""
    if not goal:
        return False
    sign, number, *unit = goal.split()
    value = row["ours_ms"] / {"ms": 1, "s": 1000}[unit[0]] if unit else row["ratio"]
    return value >= float(number) if sign == ">=" else value <= float(number)


def _cell(report, key, goal) -> str:
    """The ratio, then both times: "1.45 (513 / 354 ms)", the other side's first. Bold if the goal is reached."""
    row = report["lines"].get(key, {}) if report else {}
    if not row.get("ours_ms"):
        return NOT_RUN
    other = row["torch_ms"] or row.get("other_ms")
    what = f"{row['ratio']:.2f}" if other and row["ratio"] else _ms(row["ours_ms"])
    shown = f"**{what}**" if reaches(row, goal) else what
    return f"{shown} ({_ms(other)} / {_ms(row['ours_ms'])})" if other and row["ratio"] else shown


def _ms(value) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms" if value < 2_000 else f"{value / 1e3:.1f} s"


def speed() -> str:
    """The comparison with PyTorch, one sentence for each machine."""
    return "; ".join(
        _speed(name, report["lines"]) if report else f"{name}: {NOT_RUN}" for name, report in machines().items()
    )


def _speed(processor, lines) -> str:
    steps = [lines[f"{stage}_step"]["ratio"] for stage in ("contrastive", "language", "flamingo")]
    each = ", ".join(f"{ratio:.2f}" for ratio in steps[:-1]) + f" and {steps[-1]:.2f}"
    return (
        f"on one thread of an {processor} PyTorch takes {each} times as long for a training step of the three stages, "
        f"{lines['decode']['ratio']:.1f} times as long for a decoded token"
    )


def machine() -> str:
    """The machines and the versions of the benchmark."""
    return "\n".join(_machine(name, report) for name, report in machines().items())


def _machine(processor, report) -> str:
    if not report:
        return f"- {processor}: {NOT_RUN}."
    info = report["machine"]
    versions = [f"{n} {v}" for n, v in info["versions"].items() if n in ("numpy", "autograd", "numba", "torch", "jax")]
    libraries = [*info["blas"], *([f"PyTorch with {info['torch']}"] if "torch" in info else [])]
    return f"- {processor}: {info['cores']} cores, {', '.join([*versions, *libraries])}."


def workers() -> str:
    """A training step by one worker, by threads and by processes."""
    measured, rows = read(WORKERS), []
    for stage, seconds in measured["stages"].items():
        name = f"{stage}, {seconds['parameters'] / 1e6:.2f} million parameters"
        several = [seconds[kind] for kind in ("threads", "processes")]
        rows.append([name, f"{1000 * seconds['one']:.0f} ms"])
        rows[-1] += [f"{1000 * time:.0f} ms ({seconds['one'] / time:.2f})" for time in several]
        rows[-1] += [f"{1000 * seconds['sum']:.1f} ms"]
    n = measured["workers"]
    return table(["stage", "1 worker", f"{n} threads", f"{n} processes", "one sum of the gradient"], rows)


def real_size() -> str:
    """A checkpoint of OpenFlamingo-3B's size: conversion and completions."""
    runs, rows = read(REAL_SIZE), []
    for what, name in REAL_RUNS.items():
        row = runs[name]
        rows.append([what, f"{row['seconds']:.1f}", f"{row['own_gib']:.2f} GiB", f"{row['file_gib']:.1f} GiB"])
    token = (runs["memory, 34 tokens"]["seconds"] - runs["memory, 2 tokens"]["seconds"]) / (34 - 2)
    rows.append(["each further token", f"{token:.2f}", "", ""])
    return table(["command", "seconds", "own memory, peak", "pages of the mapped file, peak"], rows)


REGIONS = (minutes, test_minutes, times, memory, rate, race, speed, machine, workers, real_size)
