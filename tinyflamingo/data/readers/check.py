"""`data check`: a report on a data set, its bad records with their reasons, and a contact sheet (chapter §2 and §4).

All records are read and decoded as in training, one at a time. Not here: the readers, and the store that
training makes (`data/store.py`).
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tinyflamingo.data.items import text_of
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.decode import ALLOWED, Tally, decoded, load
from tinyflamingo.data.readers.record import OUTPUT, MediaFile, Record, Skipped
from tinyflamingo.data.video import FPS
from tinyflamingo.errors import printable
from tinyflamingo.figures import escaped, find_fonts, write_figure
from tinyflamingo.language import _

SIDE = 32  # pixels of a side of a picture, as the preset `toy` has
TEXTS = 100_000  # most texts from which the vocabulary is counted
COLUMNS, ROWS = 6, 4
SHOWN = 160  # characters of a text on the sheet


def check_data(
    path: str | Path,
    name: str | None = None,
    sheet: str | Path | None = None,
    allowed: float = ALLOWED,
    side: int = SIDE,
    fps: float = FPS,
    least_pieces: Callable[[list[str]], int] | None = None,
) -> Iterator[str]:
    """Report lines: one for each bad record, then the totals. sheet: the path of the PNG, if one is wanted.

    side, fps: of the model. least_pieces: texts -> the fewest pieces of a tokenizer; None: they are not counted.

    Raises a `UserError` at the end, like training, if too many records are bad.
    """
    name, records = read_data(path, name)
    tally, rng = Tally(), np.random.default_rng(0)
    sample: list[tuple] = []
    counts = {"picture": 0, "video": 0}
    characters = 0
    texts: list[str] = []
    for outcome in decoded(records, side, fps=fps):
        if isinstance(outcome, Skipped):
            tally.add(outcome)
            if outcome.bad:
                yield _one_line(_(f"skipped: {outcome.where}: {outcome.why}"), outcome.detail)
            continue
        tally.add()
        record, media = outcome
        for medium, pixels in zip(record.media, media, strict=True):
            counts[medium.kind] += pixels is not None  # a picture counts once, also if it has several texts
        said = [text_of(item) for item in record.items if not isinstance(item, MediaFile)]
        characters += sum(map(len, said))
        texts += said if len(texts) < TEXTS else []
        if sheet:
            _sample(rng, sample, tally.good, record, media, partial(load, side=side, fps=fps))
    yield _(f"format: {name}")
    yield _(f"records: {tally.describe()}")
    yield _(f"content: {counts['picture']} pictures, {counts['video']} videos, {characters} characters of text")
    if texts and least_pieces:
        yield _(f"vocabulary: the letters need at least {least_pieces(texts)} pieces (--vocab; the preset toy has 662)")
    if sheet and sample:
        draw_sheet(sample, sheet)
        yield _(f"contact sheet: {sheet}")
    tally.check(allowed)


def _one_line(line: str, detail: str) -> str:
    detail = detail.encode("unicode_escape").decode()
    return printable(f"{line} ({detail})" if detail else line)


def _sample(rng, sample, count, record: Record, media, decode):
    """Keep each of the first `count` records with equal probability (Vitter's algorithm R)."""
    place = len(sample) if len(sample) < COLUMNS * ROWS else int(rng.integers(count))
    if place < COLUMNS * ROWS:
        parts = ("▣" if isinstance(item, MediaFile) else text_of(item) for item in record.items if item != OUTPUT)
        shown = " ".join(parts)
        if media and media[0] is None:  # an earlier record had the picture
            media = [decode(record.media[0])]
        sample[place : place + 1] = [(media[0][0] if media else None, shown[:SHOWN])]


def draw_sheet(sample: list[tuple], path: str | Path) -> None:
    """Write a PNG of pictures and texts. sample: [(uint8 (side, side, 3) or None, text)]."""
    write_figure(path, partial(_sheet, sample), bbox_inches="tight")


def _sheet(sample):
    from matplotlib.figure import Figure

    rows = -(-len(sample) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.6 * rows))
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    missing = find_fonts(frozenset("".join(shown for _pixels, shown in sample)))[1]
    for axis, (pixels, shown) in zip(axes.flat, sample, strict=False):
        if pixels is not None:
            axis.imshow(pixels, interpolation="nearest")
        is_wide = any(unicodedata.east_asian_width(c) in "FW" and c not in missing for c in shown)
        lines = textwrap.wrap(escaped(printable(shown), missing), 15 if is_wide else 26)[:4]
        axis.text(0, -0.03, "\n".join(lines), transform=axis.transAxes, va="top", fontsize=7, parse_math=False)
    return figure
