"""All figures that the package writes: in Matplotlib's own style, without a window, whole or not at all.

Not here: what is drawn (`training/figures.py`, `studies/report_figures.py`, `bench/scaling.py`, `demo.py` and
`data/readers/check.py`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflamingo.errors import UserError, complain
from tinyflamingo.files import replacing
from tinyflamingo.language import _

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHINESE = ("cjk", "sourcehan", "wqy", "yahei", "msyh", "simsun", "simhei", "pingfang", "hei", "song")


def write_figure(path: str | os.PathLike, draw: Callable[[], Figure | None], dpi: int = 100, **options: Any) -> bool:
    """Write the figure that `draw` makes; False if it makes none. A failure is a `UserError`, whatever its cause.

    draw: makes a `matplotlib.figure.Figure`, without pyplot, which would need the backend of the user.
    options: of `Figure.savefig`.
    """
    try:
        with _own_style():
            figure = draw()
            if figure is not None:
                use_fonts(figure)
                with replacing(path) as file:
                    figure.savefig(file, format=Path(path).suffix[1:], dpi=dpi, **options)
    except UserError:
        raise
    except Exception as error:  # Matplotlib, its fonts and its settings can fail anywhere
        raise UserError(f"cannot draw {path}: {type(error).__name__}: {error}") from error
    return figure is not None


def label(text: str) -> str:
    """The label of a figure in the language of the reader, if this machine has a font for it, else in English."""
    shown = _(text)
    return text if shown == text or _search_fonts(frozenset(shown))[1] else shown


def use_fonts(figure: Figure) -> None:
    """Give the texts of a figure fonts that have their letters."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families, missing = find_fonts(frozenset("".join(text.get_text() for text in texts)))
    for text in texts if missing or len(families) > 1 else ():
        if not text.get_text().isascii():  # the family has no bold letters, of which Matplotlib would warn
            text.set(family=families, weight="normal", text=escaped(text.get_text(), missing))


def escaped(text: str, letters: Set[str]) -> str:
    """The text with escapes in place of these letters."""
    return "".join(c.encode("unicode_escape").decode() if c in letters else c for c in text)


@functools.cache
def find_fonts(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """(families of fonts on this machine that together have the letters, the letters that none has).

    Matplotlib's own font has no Chinese letters. One line says how many letters are missing.
    """
    families, missing = _search_fonts(letters)
    if missing:
        count, first = len(missing), min(missing)
        what = _("1 letter of the figure" if count == 1 else f"{count} letters of the figure")
        complain(
            f"warning: no font here has {what}, such as {first}: "
            "escapes are drawn instead; Noto Sans CJK has Chinese letters"
        )
    return families, missing


def _search_fonts(letters):
    """As `find_fonts`, without the line."""
    from matplotlib.font_manager import fontManager

    families, missing = ["DejaVu Sans"], {c for c in letters if c.isprintable()}
    missing -= _letters_of(fontManager.findfont(families[0]))
    for path in _fonts() if missing else ():
        if missing & _letters_of(path):
            fontManager.addfont(path)
            names = [font.name for font in fontManager.ttflist if font.fname == path]
            families.append(min(names, key=lambda name: (not name.endswith(" SC"), "Mono" in name)))
            missing -= _letters_of(path)
    return families, frozenset(missing)


def _fonts():
    """The files of fonts on this machine; first those whose names promise Chinese letters in a regular weight."""
    from matplotlib.font_manager import findSystemFonts

    def promise(path):
        name = Path(path).stem.lower()
        return not any(word in name for word in CHINESE), "bold" in name, path

    return sorted(findSystemFonts(), key=promise)


@functools.lru_cache(2)
def _letters_of(path):
    """The letters of a font; none for one that Matplotlib cannot draw, such as bitmaps of emoji."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return set(map(chr, font.get_charmap())) if font.scalable else set()
    except Exception:  # a font of another kind, or a damaged one
        return set()


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
