"""What the notebooks use again and again: `picture`, `clip`, `ask`, `show`, `sliders`.

Also for notebooks: `diagrams.py`, `quiz.py`. For teachers: `pack.py`, `grade.py`.

Not here: the exercises (`notebooks/`) and what judges an answer (`checks/`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from tinyflamingo.model.flamingo import TrainedFlamingo
    from tinyflamingo.ops.types import Array


def picture(rng: np.random.Generator, shape: str, colour: str, position: str = "middle", size: str = "large") -> Array:
    """A picture of one thing of TinyWorld, uint8 (Y, X, 3)."""
    from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_single

    return draw_scene(rng, sample_single(rng, ((shape, colour),), size, position))


def clip(rng: np.random.Generator, action: str, frames: int = 8) -> Array:
    """A video of TinyWorld in which a thing does something, uint8 (F, Y, X, 3)."""
    from tinyflamingo.data.tinyworld.scenes import draw_clip, sample_clip

    return draw_clip(rng, sample_clip(rng, action=action), frames)


def ask(model: TrainedFlamingo, *prompt: Any, **options: Any) -> str:
    """The text with which the model continues a prompt of pictures, videos and strings."""
    import tinyflamingo

    return tinyflamingo.complete(model, list(prompt), **options)["text"]


def show(*functions: Callable) -> None:
    """Print the lines of the library's functions, each below the name of its file. Also of a primitive or a kernel."""
    for function in functions:
        plain = getattr(function, "fun", getattr(function, "py_func", function))
        print(f"# {plain.__module__.replace('.', '/')}.py: {plain.__name__}\n")
        print(inspect.getsource(plain))


def sliders(draw: Callable, **knobs: Any) -> None:
    """Call a function that draws or prints again whenever the reader moves a slider or chooses from a menu.

    knobs: for each argument of the function (least, largest), (least, largest, step), a list of choices, or a bool.
    The first call has the function's defaults. Without a running kernel there is nothing to move.
    """
    import ipywidgets
    from IPython.display import display

    turned = ipywidgets.interactive(draw, **knobs)
    for knob in turned.children[:-1]:  # the last one is the output
        knob.continuous_update = False  # a slider that is being moved does not call the function yet
    display(turned)
