"""Diagrams of the architecture for the notebooks and for a projector: 1000 pixels wide, letters of 14 points.

Blue is frozen, orange is trained, white is data. `diagrams.show(diagrams.gated_block())` draws one in a notebook.
Not here: figures of results (they are in the notebooks).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FROZEN, TRAINED, DATA, LINE = "#A6D3F0", "#F5C38B", "white", "0.25"
SIZE = 14  # points; 19 pixels at 100 dpi


def show(figure: Figure) -> None:
    """Show a diagram in a notebook, with 64 colours: the file of the notebook stays small."""
    from IPython.display import Image, display
    from matplotlib import pyplot as plt
    from PIL import Image as Picture

    large, small = io.BytesIO(), io.BytesIO()
    figure.savefig(large, format="png")
    plt.close(figure)
    Picture.open(large).convert("RGB").quantize(64).save(small, format="png", optimize=True)
    display(Image(small.getvalue()))


def gated_block() -> Figure:
    """GATED XATTN-DENSE and the frozen block after it. The stream of the text rises on the left."""
    axis = _canvas(6.4)
    _line(axis, (2.6, 0.55), (2.6, 6.1))
    _box(axis, 2.6, 0.35, "text h (B, T, D)", DATA)
    _box(axis, 8.8, 1.75, "visual tokens\n(M, R, D)", DATA, width=1.9, height=0.8)
    _branch(axis, 1.0, "masked cross-attention", r"$\times\,\tanh(\alpha_{xattn})$")
    _line(axis, (7.85, 1.75), (6.6, 1.75))
    axis.text(7.25, 1.87, "K, V", ha="center", size=SIZE)
    axis.text(3.9, 1.12, "Q", ha="center", size=SIZE)
    _branch(axis, 3.1, "feed-forward", r"$\times\,\tanh(\alpha_{dense})$")
    _box(axis, 2.6, 5.45, "frozen decoder block", FROZEN)
    axis.text(0.1, 4.2, "both gates start at 0:\nh passes unchanged", size=SIZE, color="#B34700")
    return axis.figure


def _branch(axis, y, words, gate):
    """A layer beside the stream at x = 2.6: it reads the text at height y, and its gated result is added above."""
    _line(axis, (2.6, y), (5.0, y), (5.0, y + 0.5), head=True)
    _box(axis, 5.0, y + 0.75, words, TRAINED, width=3.2)
    _line(axis, (5.0, y + 1.0), (5.0, y + 1.6), (2.82, y + 1.6), head=True)
    _box(axis, 5.0, y + 1.6, gate, TRAINED, width=2.6)
    _dot(axis, 2.6, y + 1.6)


def resampler_layer() -> Figure:
    """One layer of the Perceiver resampler. The latents go from left to right; the features come from below."""
    axis = _canvas(4.6)
    _line(axis, (1.85, 3.9), (9.9, 3.9))
    _box(axis, 1.1, 3.9, "latents\n(R, D)", DATA, width=1.5, height=0.8)
    _box(axis, 1.6, 0.5, "features + time\n(F S, D)", DATA, width=2.4, height=0.8)
    _box(axis, 4.2, 1.4, "concatenate\n(F S + R, D)", DATA, width=2.2, height=0.8)
    _box(axis, 4.2, 2.8, "attention", TRAINED, width=2.2)
    _line(axis, (1.6, 0.9), (1.6, 1.4), (3.1, 1.4))
    _line(axis, (2.4, 3.9), (2.4, 1.55), (3.1, 1.55))
    _line(axis, (2.8, 3.9), (2.8, 2.8), (3.1, 2.8))
    _line(axis, (4.2, 1.8), (4.2, 2.55))
    _line(axis, (5.3, 2.8), (6.0, 2.8), (6.0, 3.68))
    _line(axis, (6.7, 3.9), (6.7, 2.8), (6.9, 2.8))
    _box(axis, 7.9, 2.8, "feed-forward", TRAINED, width=2.0)
    _line(axis, (8.9, 2.8), (9.3, 2.8), (9.3, 3.68))
    _dot(axis, 6.0, 3.9)
    _dot(axis, 9.3, 3.9)
    axis.text(2.95, 3.2, "Q", ha="left", size=SIZE)
    axis.text(4.35, 2.15, "K, V", ha="left", va="center", size=SIZE)
    axis.text(5.9, 0.9, "the next layer reads the same\nfeatures and the new latents", size=SIZE, color="#B34700")
    return axis.figure


def whole_model(left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]]) -> Figure:
    """Two towers of (words, colour), from below. Arrows lead from the top of the left one to all gated blocks."""
    axis = _canvas(0.62 * len(right) + 0.1)
    top = 0.62 * (len(right) - 0.5)
    for x, tower in ((2.2, left), (7.4, right)):
        step = (top - 0.4) / (len(tower) - 1)
        for place, (words, colour) in enumerate(tower):
            y, height = 0.4 + place * step, 0.42 + 0.28 * words.count("\n")
            if place:
                below = 0.21 + 0.14 * tower[place - 1][0].count("\n")
                _line(axis, (x, y - step + below), (x, y - height / 2))
            if words.startswith("gated"):
                _line(axis, (4.05, top), (4.6, top), (4.6, y), (5.55, y), colour="#D55E00")
            _box(axis, x, y, words, colour, width=3.7, height=height)
    return axis.figure


def _canvas(height):
    """An axis in inches, 10 wide."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(10, height), dpi=100, layout="none")
    figure.subplots_adjust(0, 0, 1, 1)
    axis.set(xlim=(0, 10), ylim=(0, height))
    axis.set_axis_off()
    return axis


def _box(axis, x, y, words, colour, width=3.0, height=0.5):
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={0.3 * min(height, 0.5)}"
    corner = (x - width / 2, y - height / 2)
    axis.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=colour, edgecolor=LINE, zorder=3))
    axis.text(x, y, words, ha="center", va="center", size=SIZE, zorder=4)


def _dot(axis, x, y):
    """A circle with a plus: two streams are added."""
    axis.plot(x, y, "o", markersize=26, color=DATA, markeredgecolor=LINE, zorder=3)
    axis.text(x, y, "+", ha="center", va="center", size=18, zorder=4)


def _line(axis, *points, colour=LINE, head=True):
    """A line through points, with an arrow's head at its end."""
    *_, before, last = points
    axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, solid_joinstyle="miter", zorder=1)
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    if head:
        axis.annotate("", last, before, arrowprops=arrow, zorder=2)
