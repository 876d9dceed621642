"""How time and memory grow with the number of images and with the number of features.

Left: the cross-attention of one batch with more and more images, by segments and dense (chapter §4). Right: features
that attend to each other (quadratic), and latents that attend to the features (linear; chapter §3). Not here: the
comparison with PyTorch (`run.py`).
"""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.bench.clock import milliseconds
from tinyflamingo.bench.contest import Inputs
from tinyflamingo.bench.part_lines import HEADS, KEY_SIZE, LATENTS, ROWS, cross_attention
from tinyflamingo.figures import write_figure

IMAGES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
SECONDS = 1.0  # for each point


def measure_scaling(inputs: Inputs) -> dict:
    """Milliseconds for each number of images; milliseconds and megabytes for each number of features. One thread."""
    images: dict[str, list[float]] = {"ours": [], "dense": []}
    lengths: dict[str, list[tuple[float, float]]] = {"self": [], "latents": []}
    with ops.use_workers(1):
        for N in IMAGES:
            contest = cross_attention(inputs, N)
            ours, dense = milliseconds([contest.ours, contest.other or _dense(inputs, N)], SECONDS)
            images["ours"].append(ours)
            images["dense"].append(dense)
        for S in LENGTHS:
            for name, queries in (("self", S), ("latents", LATENTS)):
                lengths[name].append(_attention_cost(inputs.rng(), queries, S))
    return {"images": images, "lengths": lengths, "dense_is": "PyTorch" if inputs.torch else "the reference"}


def _dense(inputs, N):
    """The dense definition with a mask, on our reference floor, if PyTorch is not installed."""

    def run():
        with ops.use("reference"):
            cross_attention(inputs, N).ours()

    return run


def _attention_cost(rng, T, S):
    """(milliseconds, megabytes) of attention forward, T queries and S features, one example."""
    q, k, v = (rng.standard_normal((1, n, HEADS, KEY_SIZE), dtype=np.float32) for n in (T, S, S))
    (time,) = milliseconds([lambda: ops.attention(q, k, v)], SECONDS)
    tracemalloc.start()
    ops.attention(q, k, v)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return time, peak / 2**20


def draw_scaling(scaling: dict, path: Path) -> None:
    """Draw the result of `measure_scaling`: three panels, both axes logarithmic."""
    write_figure(path, partial(_figure, scaling), dpi=110)


def _figure(scaling):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _panel(left, IMAGES, "images in a row", "ms", f"cross-attention of {ROWS} rows, forward and backward: time")
    dense = f"dense with a mask ({scaling['dense_is']})"
    times = scaling["images"]
    _curves(left, IMAGES, times["ours"], "a token attends to its own image", times["dense"], dense)
    for axis, column, unit, what in ((middle, 0, "ms", "time"), (right, 1, "MB", "memory")):
        _panel(axis, LENGTHS, "features", unit, f"attention, forward: {what}")
        latents, each = ([cost[column] for cost in scaling["lengths"][name]] for name in ("latents", "self"))
        _curves(axis, LENGTHS, latents, f"{LATENTS} latents to features (resampler)", each, "features to each other")
    for axis in (left, middle, right):
        axis.legend(fontsize=8)
    return figure


def _panel(axis, numbers, xlabel, ylabel, title):
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    axis.set_xticks(numbers, [str(n) for n in numbers], minor=False)
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def _curves(axis, numbers, low, low_label, high, high_label):
    axis.plot(numbers, high, "s--", color="C1", label=high_label)
    axis.plot(numbers, low, "o-", color="C0", label=low_label)
