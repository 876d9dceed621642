"""Figures of a run, drawn from its log: the losses of the three stages, and the gates over time.

Serves chapter §4 (the paper's figure 6 shows the same gates). Not here: figures of completions (`demo.py`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyflamingo.training.state import read_log


def draw_run(folder: str | Path) -> None:
    """Write losses.png and gates.png into the folder of a run."""
    import matplotlib

    matplotlib.use("Agg")
    records = read_log(folder)
    _draw_losses(records, Path(folder) / "losses.png")
    _draw_gates([r for r in records if r["stage"] == "flamingo"], Path(folder) / "gates.png")


def _draw_losses(records, path):
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["stage"] for r in records))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        rows = [r for r in records if r["stage"] == name]
        parts = [k for k in rows[0] if k.startswith("loss_")] or ["loss"]
        for part in parts:
            axis.plot([r["step"] for r in rows if part in r], smooth([r[part] for r in rows if part in r]), label=part)
        axis.set(title=f"stage: {name}", xlabel="step", ylabel="loss", yscale="log")
        if len(parts) > 1:
            axis.legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def smooth(values: list[float], width: int = 9) -> np.ndarray:
    """Running mean over the last `width` values."""
    sums = np.cumsum([0.0, *values])
    starts = np.maximum(np.arange(1, len(values) + 1) - width, 0)
    ends = np.arange(1, len(values) + 1)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _draw_gates(rows, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    names = list(rows[0]["gates"])
    for axis, gate, title in zip(
        axes, ("alpha_xattn", "alpha_dense"), ("cross-attention", "feed-forward"), strict=True
    ):
        own = [n for n in names if n.endswith(gate)]
        for i, name in enumerate(own):
            steps = [-1] + [r["step"] for r in rows]
            axis.plot(
                steps,
                [0.0] + [r["gates"][name] for r in rows],
                label=name.split("/")[0],
                color=plt.cm.viridis(i / len(own)),
            )
        axis.set(title=f"gate of the {title}", xlabel="step", ylabel="|tanh(alpha)|", ylim=(0, 1))
    axes[1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)
