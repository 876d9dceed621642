"""All figures that the package writes: in Matplotlib's own style, without a window, whole or not at all.

Not here: what is drawn (`training/figures.py`, `studies/report_figures.py`, `bench/scaling.py`, `demo.py` and
`data/readers/check.py`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflamingo.errors import UserError
from tinyflamingo.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(path: str | os.PathLike, draw: Callable[[], Figure | None], dpi: int = 100, **options: Any) -> bool:
    """Write the figure that `draw` makes; False if it makes none. A failure is a `UserError`, whatever its cause.

    draw: makes a `matplotlib.figure.Figure`, without pyplot, which would need the backend of the user.
    options: of `Figure.savefig`.
    """
    try:
        with _own_style():
            figure = draw()
            if figure is not None:
                with replacing(path) as file:
                    figure.savefig(file, format=Path(path).suffix[1:], dpi=dpi, **options)
    except UserError:
        raise
    except Exception as error:  # Matplotlib, its fonts and its settings can fail anywhere
        raise UserError(f"cannot draw {path}: {type(error).__name__}: {error}") from error
    return figure is not None


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    """A block with Matplotlib's defaults in place of the user's, and without warnings of letters that a font lacks."""
    _import_matplotlib()
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        yield


def _import_matplotlib():
    """Import it without MPLBACKEND: the name of a backend that is not installed would end the import."""
    if "matplotlib" in sys.modules or not (backend := os.environ.pop("MPLBACKEND", "")):
        return
    try:
        import matplotlib

        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for figures that the user draws later
    finally:
        os.environ["MPLBACKEND"] = backend
