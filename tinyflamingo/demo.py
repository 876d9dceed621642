"""`demo`: a checkpoint completes prompts of the chapter's applications (§5) and draws them in a figure.

There are six prompts: a picture in place of words; a caption; a question about a video; a visual dialogue; a few-shot
prompt with words that are in no training text; a task without a question. The pictures are new ones from the test
stream.

Not here: scores (`evaluation/`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import (
    ASKED,
    draw_clip,
    draw_scene,
    pick,
    sample_clip,
    sample_pair,
    sample_single,
)
from tinyflamingo.data.tinyworld.text import shot_order
from tinyflamingo.decoding.complete import complete
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.run import require_tinyworld
from tinyflamingo.figures import label, use_fonts, write_figure
from tinyflamingo.language import _
from tinyflamingo.model.flamingo import TrainedFlamingo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEMO = 7  # number of its own stream of pictures


@dataclass(frozen=True)
class Said:
    """The answer of the model, and the right answer."""

    text: str
    right: str

    @property
    def shown(self) -> str:
        """The answer; if it is wrong, also the right answer."""
        return self.text if self.text == self.right else label(f"{self.text} (right: {self.right})")


@dataclass
class Panel:
    """One application: its prompt with the answers of the model."""

    title: str
    items: list  # str (prompt), `Said`, pictures and videos


def run_demo(model: TrainedFlamingo, figure: Path, seed: int = 0) -> list[Panel]:
    """Complete every panel, print it, and draw the figure. Returns the panels."""
    if not figure.parent.is_dir():
        raise UserError(f"cannot write {figure}: its folder does not exist")
    require_tinyworld(model)
    rng = split_rng("test", DEMO, seed)
    panels = [make(model, rng) for make in PANELS]
    draw_panels(panels, figure)  # before the lines, which a closed stdout refuses
    for panel in panels:
        print(describe(panel))
    print(_(f"figure: {figure}"))
    return panels


def _finish(model, title, parts, right):
    """The panel of a prompt. Every `None` in parts is completed by the model, and the answer stays in the prompt.

    right: the right answers, in order.
    """
    items, right = [], iter(right)
    for part in parts:
        if part is None:
            prompt = [item.text if isinstance(item, Said) else item for item in items]
            part = Said(complete(model, prompt)["text"], next(right))
        items.append(part)
    return Panel(title, items)


def _draw(model, rng, scene):
    return draw_scene(rng, scene, model.config.vision.side)


def picture_for_words(model: TrainedFlamingo, rng: np.random.Generator) -> Panel:
    """Pictures in place of the names of two things. The model knows the answers from texts."""
    first, second = (sample_single(rng, (pick(rng, ASKED),)) for _ in range(2))
    place = [say.knowledge(*s.things[0].kind)["place"] for s in (first, second)]
    parts = [_draw(model, rng, first), say.ask("place"), place[0], _draw(model, rng, second), say.ask("place"), None]
    return _finish(model, label("a picture instead of words"), parts, [place[1]])


def caption(model: TrainedFlamingo, rng: np.random.Generator) -> Panel:
    """Two things and their relation."""
    scene = sample_pair(rng)
    return _finish(model, label("a caption"), [_draw(model, rng, scene), "Output:", None], [say.caption(scene)])


def video_question(model: TrainedFlamingo, rng: np.random.Generator) -> Panel:
    """A question about the action in a video of eight frames."""
    clip = sample_clip(rng)
    parts = [draw_clip(rng, clip, side=model.config.vision.side), say.ask("action"), None]
    return _finish(model, label("a video"), parts, [say.questions(clip)["action"]])


def visual_dialogue(model: TrainedFlamingo, rng: np.random.Generator) -> Panel:
    """A caption and then questions, as in the dialogues of the paper. The last answer is only in texts."""
    scene = sample_single(rng, ASKED)
    answers = say.questions(scene) | say.knowledge(*scene.things[0].kind)
    asked = ("size", "position", "animal")
    parts = [_draw(model, rng, scene), "Output:", None, *(p for name in asked for p in (say.ask(name), None))]
    return _finish(model, label("a visual dialogue"), parts, [say.caption(scene), *(answers[name] for name in asked)])


def few_shot(model: TrainedFlamingo, rng: np.random.Generator) -> Panel:
    """Two classes (colours), two pictures of each, and class names that are in no training text."""
    colours = [str(c) for c in rng.choice(say.COLOUR_NAMES, 2, replace=False)]
    words = [str(w) for w in rng.choice(say.NEW_WORDS, 2, replace=False)]
    classes = [[t for t in ASKED if t[1] == c] for c in colours]
    parts = []
    for i in shot_order(rng, 2, 4):
        parts += [_draw(model, rng, sample_single(rng, classes[i])), f"{words[i]}."]
    target = int(rng.integers(2))
    parts += [_draw(model, rng, sample_single(rng, classes[target])), None]
    return _finish(model, label("new words from four pictures"), parts, [f"{words[target]}."])


def without_question(model: TrainedFlamingo, rng: np.random.Generator) -> Panel:
    """Four examples explain the task: the position alone. No training has this task (`held_out` of the tasks)."""
    scenes = [sample_single(rng, ASKED) for _ in range(5)]
    answers = [f"{scene.things[0].position}." for scene in scenes]
    parts = [part for scene, text in zip(scenes, answers, strict=True) for part in (_draw(model, rng, scene), text)]
    return _finish(model, label("a task without a question"), [*parts[:-1], None], answers[-1:])


PANELS = (picture_for_words, caption, video_question, visual_dialogue, few_shot, without_question)


def describe(panel: Panel) -> str:
    """A panel as text, with the answers of the model in brackets."""
    words = []
    for item in panel.items:
        if isinstance(item, np.ndarray):
            words.append("<video>" if item.ndim == 4 else "<image>")
        else:
            words.append(f"[{item.shown}]" if isinstance(item, Said) else item)
    return f"{panel.title}\n  {' '.join(words)}"


def draw_panels(panels: list[Panel], path: Path) -> None:
    """Write the figure to a file."""

    def draw():
        from matplotlib.figure import Figure

        return panels_figure(panels, Figure)

    write_figure(path, draw)


def panels_figure(panels: list[Panel], new: Callable[..., Figure] | None = None) -> Figure:
    """The figure: pictures from left to right, their texts below, with the answers of the model in colour.

    new: makes the empty figure; by default pyplot's `figure`, which a notebook shows.
    """
    if new is None:
        import matplotlib.pyplot as plt

        new = plt.figure

    rows = [_cells(panel.items) for panel in panels]
    heights = [TITLE + PICTURE + LINE * max(_lines(texts) for _, texts in cells) for cells in rows]
    figure = new(figsize=(WIDTH, sum(heights)))
    figure.set_layout_engine("none")  # every position is set here, also if the reader has chosen a layout
    top = sum(heights)
    for panel, cells, height in zip(panels, rows, heights, strict=True):
        figure.text(0.15 / WIDTH, (top - 0.18) / sum(heights), panel.title, fontweight="bold", fontsize=11, va="center")
        _draw_row(figure, cells, top - TITLE, sum(heights))
        top -= height
    use_fonts(figure)
    return figure


def _draw_row(figure, cells, top, total):
    """One panel: its media side by side, their top edge `top` inches from the bottom. A video is a strip of frames."""
    left = 0.15
    room = (WIDTH - 0.15) / len(cells)
    for medium, texts in cells:
        strip = np.concatenate(list(medium), axis=1) if medium.ndim == 4 else medium
        width = PICTURE * strip.shape[1] / strip.shape[0]
        scale = min(1.0, (WIDTH - 0.3) / width)
        width, height = width * scale, PICTURE * scale
        axis = figure.add_axes((left / WIDTH, (top - height) / total, width / WIDTH, height / total))
        axis.imshow(strip)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
        y = top - height - 0.05
        for item in texts:
            style = {"color": "#b03060", "fontweight": "bold"} if isinstance(item, Said) else {}
            for line in _wrapped(item):
                figure.text(left / WIDTH, y / total, line, va="top", fontsize=9, parse_math=False, **style)
                y -= LINE
        left += room


WIDTH, PICTURE, TITLE, LINE = 9.6, 1.15, 0.4, 0.17  # inches


def _wrapped(item, width=44):
    return textwrap.wrap(item.shown if isinstance(item, Said) else item, width)


def _lines(texts) -> int:
    return sum(len(_wrapped(item)) for item in texts) + 1


def _cells(items):
    """[(medium, texts after it)] in order."""
    cells = []
    for item in items:
        if isinstance(item, np.ndarray):
            cells.append((item, []))
        else:
            cells[-1][1].append(item)
    return cells
