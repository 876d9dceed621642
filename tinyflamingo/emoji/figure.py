"""The figure of a run on emoji: one prompt with the model's answers, and all scores beside simpler answers.

Chapter §5. The figure shows drawings of the packages, so it goes into the folder of the run and not into the project.

Not here: the prompts and the scores (`scores.py`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyflamingo.errors import UserError, complain
from tinyflamingo.figures import label, write_figure

if TYPE_CHECKING:
    from tinyflamingo.emoji.scores import Prompt

BARS = ("score", "ensemble", "class_means", "neighbours")


def draw_emoji(prompt: Prompt, report: dict, path: Path) -> None:
    """Write the figure. prompt: with one example of each concept. A figure that fails is one line on stderr."""
    try:
        write_figure(path, partial(_figure, prompt, report))
    except UserError as error:
        complain(error)


def _figure(prompt, report):
    from matplotlib.figure import Figure

    W = len(prompt.words)
    figure = Figure(figsize=(9, 7), layout="constrained")
    grid = figure.add_gridspec(3, W, height_ratios=(1, 1, 2))
    for i, (word, example, query) in enumerate(zip(prompt.words, prompt.examples, prompt.queries, strict=True)):
        _picture(figure.add_subplot(grid[0, i]), example[0], word, "black")
        answer = int(prompt.answers[0, i])
        title = label(f"answer: {prompt.words[answer]}")
        _picture(figure.add_subplot(grid[1, i]), query, title, "green" if answer == i else "red")
    _bars(figure.add_subplot(grid[2, :]), report)
    figure.supxlabel(label("drawings: Noto (Apache 2.0), Twemoji (CC BY 4.0), Fluent (MIT)"), fontsize=6)
    return figure


def _picture(axes, pixels, title, colour):
    axes.imshow(pixels)
    axes.set_title(title, fontsize=10, color=colour)
    axes.set_axis_off()


def _bars(axes, report):
    places = np.arange(len(report))
    names = (
        label("Flamingo, one prompt"),
        label("Flamingo, six prompts"),
        label("class means of its features"),
        label("raw pixels"),
    )
    for i, (key, name) in enumerate(zip(BARS, names, strict=True)):
        axes.bar(places + 0.2 * (i - 1.5), [row.get(key, 0) for row in report.values()], 0.18, label=name)
    axes.set_xticks(places, [name.replace(" ", "\n", 1) for name in report], fontsize=8)
    axes.set_ylabel(label("share of right answers"))
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8)
