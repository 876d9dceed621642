"""`demo`: the chapter's applications, completed by a checkpoint, with a figure (chapter §5).

A picture that takes the place of words, a video question, a visual dialogue, and a few-shot prompt
with words that no training text holds. Pictures are drawn fresh from the test stream.

Not here: scores (`evaluation/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from tinyflamingo.errors import UserError
from tinyflamingo.model.trained import TrainedFlamingo, complete

DEMO = 7  # number of the demo's own stream of pictures


@dataclass
class Panel:
    """One application: its prompt with the model's words added, and what would have been right."""

    title: str
    items: list  # str (prompt), `Said` (the model's words), pictures and videos
    right: list  # the right answers, in order


@dataclass(frozen=True)
class Said:
    text: str


def run_demo(model: TrainedFlamingo, figure: Path, seed=0):
    """Complete every panel, print it, and draw the figure. Returns the panels."""
    if not figure.parent.is_dir():
        raise UserError(f"cannot write {figure}: its folder does not exist")
    rng = split_rng("test", DEMO, seed)
    panels = [make(model, rng) for make in (picture_for_words, caption, video_question, visual_dialogue, few_shot)]
    for panel in panels:
        print(describe(panel))
    draw_panels(panels, figure)
    print(f"figure: {figure}")
    return panels


def _finish(model, title, parts, right):
    """Walk through a prompt; every `None` is completed by the model and stays in the prompt."""
    items = []
    for part in parts:
        if part is None:
            prompt = [item.text if isinstance(item, Said) else item for item in items]
            part = Said(complete(model, prompt)["text"])
        items.append(part)
    return Panel(title, items, right)


def picture_for_words(model, rng):
    """Two pictures stand where a text would name a thing; facts come from text alone."""
    first, second = (sample_single(rng, (pick(rng, ASKED),)) for _ in range(2))
    place = [say.knowledge(*s.things[0].kind)["place"] for s in (first, second)]
    parts = [draw_scene(rng, first), say.ask("place"), place[0], draw_scene(rng, second), say.ask("place"), None]
    return _finish(model, "a picture instead of words", parts, [place[1]])


def caption(model, rng):
    scene = sample_pair(rng)
    return _finish(model, "a caption", [draw_scene(rng, scene), "Output:", None], [say.caption(scene)])


def video_question(model, rng):
    clip = sample_clip(rng)
    parts = [draw_clip(rng, clip), say.ask("action"), None]
    return _finish(model, "a video", parts, [say.questions(clip)["action"]])


def visual_dialogue(model, rng):
    scene = sample_single(rng, ASKED)
    answers = say.questions(scene) | say.knowledge(*scene.things[0].kind)
    asked = ("shape", "color", "position", "animal")
    parts = [draw_scene(rng, scene), *(p for name in asked for p in (say.ask(name), None))]
    return _finish(model, "a visual dialogue", parts, [answers[name] for name in asked])


def few_shot(model, rng):
    """Two classes by colour, two pictures each, words that occur in no training text."""
    colours = [str(c) for c in rng.choice(say.COLOUR_NAMES, 2, replace=False)]
    words = [str(w) for w in rng.choice(say.NEW_WORDS, 2, replace=False)]
    classes = [[t for t in ASKED if t[1] == c] for c in colours]
    parts = []
    for i in shot_order(rng, 2, 4):
        parts += [draw_scene(rng, sample_single(rng, classes[i])), f"{words[i]}."]
    target = int(rng.integers(2))
    parts += [draw_scene(rng, sample_single(rng, classes[target])), None]
    return _finish(model, "new words from four pictures", parts, [f"{words[target]}."])


def describe(panel) -> str:
    """A panel as a line of text, the model's words in brackets."""
    words = []
    for item in panel.items:
        if isinstance(item, np.ndarray):
            words.append("<video>" if item.ndim == 4 else "<image>")
        else:
            words.append(f"[{item.text}]" if isinstance(item, Said) else item)
    said = [item.text for item in panel.items if isinstance(item, Said)]
    verdict = "right" if said == panel.right else f"right would be: {' '.join(panel.right)}"
    return f"{panel.title}\n  {' '.join(words)}\n  ({verdict})"


def draw_panels(panels, path):
    """The figure: pictures in a row, the words under them, the model's in colour."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(10, 2.0 * len(panels)), layout="constrained")
    for sub, panel in zip(figure.subfigures(len(panels), 1), panels, strict=True):
        sub.suptitle(panel.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        _draw_panel(sub, panel)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_panel(sub, panel):
    """One cell a medium; a video shows its frames in one strip."""
    cells = _cells(panel.items)
    widths = [max(3.2, 8.0 / len(cells)) if cell[0].ndim == 4 else 8.0 / len(cells) for cell in cells]
    for axis, (medium, texts) in zip(
        np.atleast_1d(sub.subplots(1, len(cells), width_ratios=widths)), cells, strict=True
    ):
        axis.imshow(np.concatenate(list(medium), axis=1) if medium.ndim == 4 else medium)
        axis.set_axis_off()
        lines = [_wrap(t.text if isinstance(t, Said) else t) for t in texts]
        height = 0.0
        for line, item in zip(lines, texts, strict=True):
            said = isinstance(item, Said)
            axis.text(
                0.0, -0.06 - height, line, transform=axis.transAxes, va="top", fontsize=8.5,
                color="#b03060" if said else "black", fontweight="bold" if said else "normal",
            )  # fmt: skip
            height += 0.13 * (line.count("\n") + 1)


def _wrap(text, width=44):
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _cells(items):
    """[(medium, texts after it)] in order."""
    cells = []
    for item in items:
        if isinstance(item, np.ndarray):
            cells.append((item, []))
        else:
            cells[-1][1].append(item)
    return cells
