"""Figures of a run, drawn from its log: the losses of the three stages, and the gates over time.

Serves chapter §4 (the paper's figure 6 shows the same gates). Not here: figures of completions (`demo.py`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tinyflamingo.errors import UserError, complain
from tinyflamingo.figures import label, write_figure
from tinyflamingo.training.state import read_log


def draw_run(folder: str | Path) -> None:
    """Write losses.png and gates.png into the folder of a run. A figure that fails is one line, and the run goes on."""
    for name, figure in (("losses.png", _losses), ("gates.png", _gates)):
        try:
            write_figure(Path(folder) / name, partial(figure, Path(folder)))
        except UserError as error:
            complain(error)


def _losses(folder):
    from matplotlib.figure import Figure

    records = read_log(folder)
    names = list(dict.fromkeys(r["stage"] for r in records))
    if not names:
        return None
    figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        rows = [r for r in records if r["stage"] == name]
        parts = [k for k in rows[0] if k.startswith("loss_")] or ["loss"]
        for part in parts:
            axis.plot([r["step"] for r in rows if part in r], smooth([r[part] for r in rows if part in r]), label=part)
        axis.set(title=label(f"stage: {name}"), xlabel=label("step"), ylabel=label("loss"), yscale="log")
        if len(parts) > 1:
            axis.legend(frameon=False)
    return figure


def smooth(values: list[float], width: int = 9) -> np.ndarray:
    """Running mean over the last `width` values."""
    sums = np.cumsum([0.0, *values])
    starts = np.maximum(np.arange(1, len(values) + 1) - width, 0)
    ends = np.arange(1, len(values) + 1)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _gates(folder):
    import matplotlib
    from matplotlib.figure import Figure

    rows = [r for r in read_log(folder) if "gates" in r]
    if not rows:
        return None
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    names = list(rows[0]["gates"])
    closed = len(set(rows[0]["gates"].values())) == 1  # the first step moves closed gates by the same distance
    titles = label("gate of the cross-attention"), label("gate of the feed-forward")
    for axis, gate, title in zip(axes, ("alpha_xattn", "alpha_dense"), titles, strict=True):
        own = [n for n in names if n.endswith(gate)]
        for i, name in enumerate(own):
            steps, values = [r["step"] for r in rows], [r["gates"].get(name, np.nan) for r in rows]
            axis.plot(
                [-1] * closed + steps,
                [0.0] * closed + values,
                label=name.split("/")[0],
                color=matplotlib.colormaps["viridis"](i / len(own)),
            )
        axis.set(title=title, xlabel=label("step"), ylabel="|tanh(alpha)|", ylim=(0, 1))
    axes[1].legend(frameon=False, fontsize=8)
    return figure
