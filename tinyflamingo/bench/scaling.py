"""How time and memory grow: with the number of images, and with the length of what is looked at.

Left, the cross-attention of one batch with more and more images, by segments and dense (chapter
§4). Right, a row of features that attends to itself against latents that attend to it (chapter §3):
a square against a line. Not here: the race against PyTorch (`run.py`).
"""

from __future__ import annotations

import tracemalloc

import numpy as np

from tinyflamingo import ops
from tinyflamingo.bench.clock import milliseconds
from tinyflamingo.bench.lines import HEADS, KEY_SIZE, LATENTS, ROWS, cross_attention

IMAGES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
SECONDS = 1.0  # spent on a point


def measure_scaling(inputs) -> dict:
    """Milliseconds by number of images, milliseconds and megabytes by length; one thread."""
    with ops.use_workers(1):
        images = {"ours": [], "dense": []}
        for N in IMAGES:
            contest = cross_attention(inputs, N)
            ours, dense = milliseconds([contest.ours, contest.other or _dense(inputs, N)], SECONDS)
            images["ours"].append(ours)
            images["dense"].append(dense)
        lengths = {"self": [], "latents": []}
        for S in LENGTHS:
            for name, queries in (("self", S), ("latents", LATENTS)):
                lengths[name].append(_attention_cost(inputs.rng(), queries, S))
    return {"images": images, "lengths": lengths, "dense_is": "PyTorch" if inputs.twins else "the reference"}


def _dense(inputs, N):
    """The dense masked definition of our own reference floor, where there is no PyTorch."""

    def run():
        with ops.use("reference"):
            cross_attention(inputs, N).ours()

    return run


def _attention_cost(rng, T, S):
    """(milliseconds, megabytes) of attention forward, from T queries to S features, one example."""
    q, k, v = (rng.standard_normal((1, n, HEADS, KEY_SIZE), dtype=np.float32) for n in (T, S, S))
    (time,) = milliseconds([lambda: ops.attention(q, k, v)], SECONDS)
    tracemalloc.start()
    ops.attention(q, k, v)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return time, peak / 2**20


def draw_scaling(found, path):
    """The figure: three panels, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    _panel(left, IMAGES, "images in a row", "ms", f"cross-attention of {ROWS} rows, forward and backward: time")
    dense = f"dense, then masked ({found['dense_is']})"
    _curves(left, IMAGES, found["images"]["ours"], "a token meets its own image", found["images"]["dense"], dense)
    for axis, column, unit, what in ((middle, 0, "ms", "time"), (right, 1, "MB", "memory")):
        _panel(axis, LENGTHS, "features looked at", unit, f"attention, forward: {what}")
        latents, each = ([cost[column] for cost in found["lengths"][name]] for name in ("latents", "self"))
        _curves(axis, LENGTHS, latents, f"{LATENTS} latents to features (resampler)", each, "features to each other")
    for axis in (left, middle, right):
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis, numbers, xlabel, ylabel, title):
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    axis.set_xticks(numbers, [str(n) for n in numbers], minor=False)
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def _curves(axis, numbers, cheap, cheap_label, dear, dear_label):
    axis.plot(numbers, dear, "s--", color="C1", label=dear_label)
    axis.plot(numbers, cheap, "o-", color="C0", label=cheap_label)
