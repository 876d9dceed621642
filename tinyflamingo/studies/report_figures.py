"""The figures of docs/results.md (chapter §5).

Not here: reading the files (`report_read.py`), the text (`report_text.py`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tinyflamingo.errors import UserError, complain
from tinyflamingo.figures import label, write_figure
from tinyflamingo.model.tokenizer import SPACE
from tinyflamingo.studies.ablations import differences
from tinyflamingo.studies.report_read import LEVEL_SHOTS, SHOTS, Runs, best_of, cell_of, task_names


def draw_all(runs: Runs, folder: Path) -> list[Path]:
    """Draw all figures for which there are data, as folder/results_NAME.png. Returns their paths.

    A figure that fails is one line on stderr, and the others are drawn.
    """
    paths = []
    for name, draw in FIGURES.items():
        path = folder / f"results_{name}.png"
        try:
            paths += [path] if write_figure(path, partial(draw, runs), dpi=90) else []
        except UserError as error:
            complain(error)
    return paths


def _new(*size):
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _panels(n, columns, width=3.0, height=2.4):
    """A figure with n panels in rows of `columns`; the other axes are hidden."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = _new(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[n:]:
        axis.axis("off")
    return figure, list(axes.flat[:n])


def _few_shot(runs):
    names = task_names(runs.suites)
    if not names:
        return None
    figure, axes = _panels(len(names), 4)
    for axis, name in zip(axes, names, strict=True):
        shots = LEVEL_SHOTS if name in task_names(runs.suites, with_level=True) else SHOTS
        cells = [cell_of(runs.suites, "tasks", name, "shots", n) for n in shots]
        have = [i for i, cell in enumerate(cells) if cell]
        _curve(axis, have, [cells[i] for i in have], label("few-shot"))
        for who, style in (("finetuned", ":"), ("whole", "--")):
            if rival := cell_of(runs.suites, "tasks", name, "specialists", who):
                axis.axhline(rival["score"], ls=style, color="0.4", lw=1, label=who)
        axis.set_xticks(range(len(shots)), shots)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, 1.05 * best_of(runs.suites, "tasks", name))
    axes[0].legend(fontsize=7, frameon=False)
    figure.supxlabel(label("shots"))
    return figure


def _curve(axis, x, cells, name):
    """Scores with their intervals as bars."""
    scores = np.array([cell["score"] for cell in cells])
    ends = [cell.get("ci95") or (cell["score"], cell["score"]) for cell in cells]
    bars = np.abs(np.array(ends).T.reshape(2, -1) - scores)
    axis.errorbar(x, scores, bars, marker="o", ms=3, capsize=2, lw=1.2, label=name)


def _ablations(runs):
    rows = differences(runs.others["ablations"]) if "ablations" in runs.others else {}
    if not rows:
        return None
    figure = _new(9, 0.28 * len(rows) + 1.2)
    ours, paper = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    y = np.arange(len(rows))[::-1]
    scores = np.array([row["score"] for row in rows.values()])
    ends = np.array([row["ci95"] or (row["score"], row["score"]) for row in rows.values()]).T
    ours.errorbar(scores, y, xerr=np.abs(ends - scores), fmt="o", ms=4, capsize=2)
    paper.barh(y, [row["paper"] for row in rows.values()], color="0.7", height=0.6)
    ours.set_yticks(y, [runs.others["ablations"]["rows"][name]["what"] for name in rows], fontsize=8)
    ours.set_title(label("here: difference in overall score"), fontsize=9)
    paper.set_title(label("paper: difference in points"), fontsize=9)
    for axis in (ours, paper):
        axis.axvline(0, color="0.3", lw=0.8)
    return figure


def _isoflop(runs):
    raw = runs.others.get("isoflop", {})
    if not raw.get("fits"):
        return None
    figure = _new(6, 4)
    axis = figure.subplots()
    for i, fit in enumerate(raw["fits"]):
        points = [p for p in raw["points"] if p["budget"] == fit["budget"]]
        sizes = np.array([p["parameters"] for p in points])
        axis.plot(sizes, [p["loss"] for p in points], "o", color=f"C{i}", label=f"{fit['budget']:.1e} flops")
        x = np.linspace(*np.log(fit["between"]), 50)
        axis.plot(np.exp(x), np.polyval(fit["coefficients"], x), color=f"C{i}", lw=1)
        axis.plot(fit["parameters"], fit["loss"], "*", color=f"C{i}", ms=12, mec="black")
    axis.set(xscale="log", xlabel=label("parameters"), ylabel=label("loss on the validation text"))
    axis.legend(fontsize=8, frameon=False)
    return figure


def _quadratic(runs):
    raw = runs.others.get("quadratic")
    done = len(raw["kinds"]["transformer"]["ms"]) if raw else 0
    if not done:
        return None
    frames = raw["frames"][:done]
    figure, axes = _panels(3, 3, 3.6, 3.0)
    kinds = {"perceiver": label("resampler"), "transformer": label("self-attention, all to all")}
    for kind, name in kinds.items():
        values = raw["kinds"][kind]
        axes[0].plot(frames, values["ms"][:done], "o-", label=name)
        axes[1].plot(frames, values["mb"][:done], "o-", label=name)
        have = [i for i, cell in enumerate(values["accuracy"][:done]) if cell]
        _curve(axes[2], [frames[i] for i in have], [values["accuracy"][i] for i in have], name)
    titles = label("ms, forward and backward"), label("MB, forward and backward"), label("accuracy")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xscale="log", xlabel=label("frames"), title=title)
        axis.set_xticks(frames, [str(n) for n in frames])
        axis.minorticks_off()
    for axis in axes[:2]:
        axis.set_yscale("log")
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def _induction(runs):
    curves = runs.others.get("induction", {}).get("curves")
    if not curves:
        return None
    figure, axes = _panels(2 + len(curves), 4, 3.2, 2.8)
    titles = label("repeats predicted"), label("text few-shot")
    for axis, what, title in zip(axes, ("repeat", "few_shot"), titles, strict=False):
        for name, curve in curves.items():
            axis.plot(curve["steps"], curve[what], label=name)
        axis.set(title=title, xlabel=label("step"), ylim=(0, 1))
    axes[0].legend(fontsize=8, frameon=False)
    for axis, (name, curve) in zip(axes[2:], curves.items(), strict=True):
        drawn = axis.imshow(curve["heads"], vmin=0, vmax=1, cmap="viridis")
        axis.set(title=label(f"heads, {name}"), xlabel=label("head"), ylabel=label("block"))
    figure.colorbar(drawn, ax=axes[-1], label=label("prefix matching"))
    return figure


def _gates(runs):
    logs = [log for log in runs.logs if log[1]]
    if not logs:
        return None
    figure, axes = _panels(len(logs), 3, 5.2, 3.0)
    for axis, (run, records) in zip(axes, logs, strict=True):
        for i, name in enumerate(records[0]["gates"]):
            style = "-" if name.endswith("alpha_xattn") else ":"
            steps, values = [-1, *(r["step"] for r in records)], [0.0, *(r["gates"][name] for r in records)]
            axis.plot(steps, values, style, color=f"C{i // 2}", label=name)
        axis.set_title(run, parse_math=False)
        axis.set(xlabel=label("step of stage three"), ylabel="|tanh(alpha)|", ylim=(0, 1))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return figure


def _attention(runs):
    prompts = runs.others.get("attention", {}).get("prompts")
    if not prompts:
        return None
    columns = max(len(p["tokens"]) for p in prompts)
    figure, axes = _panels(len(prompts) * columns, columns, 1.3, 1.5)
    for p, prompt in enumerate(prompts):
        for axis, token, index, grid in zip(
            axes[p * columns :], prompt["tokens"], prompt["sees"], prompt["maps"], strict=False
        ):
            picture = np.array(prompt["pictures"][index], np.uint8)
            axis.imshow(picture)
            extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
            axis.imshow(grid, extent=extent, cmap="magma", alpha=0.55, interpolation="bilinear")
            axis.set_title(token.replace(SPACE, " "), fontsize=8, parse_math=False)
    for axis in axes:
        axis.axis("off")
    return figure


FIGURES = {
    "few_shot": _few_shot,
    "ablations": _ablations,
    "isoflop": _isoflop,
    "quadratic": _quadratic,
    "induction": _induction,
    "gates": _gates,
    "attention": _attention,
}
