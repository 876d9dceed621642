"""`data check`: a report on a data set, its bad records with their reasons, and a contact sheet (chapter §2 and §4).

All records are read and decoded as in training, one at a time. Not here: the readers, and the store that
training makes (`data/store.py`).
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections import Counter
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
TEXTS, LETTERS = 100_000, 10_000_000  # most records, and letters, from which the vocabulary is counted
FIELDS = 20  # most unknown fields that are named
COLUMNS, ROWS = 6, 4
SHOWN = 160  # characters of a text on the sheet


def check_data(
    path: str | Path,
    name: str | None = None,
    sheet: str | Path | None = None,
    allowed: float = ALLOWED,
    side: int = SIDE,
    fps: float = FPS,
    about: Callable[[list[list]], Iterator[str]] | None = None,
) -> Iterator[str]:
    """Report lines: one for each bad record, then the totals. sheet: the path of the PNG, if one is wanted.

    side, fps: of the model. about: the items of records, without their media -> lines about their texts.

    Raises a `UserError` at the end, like training, if too many records are bad.
    """
    name, records = read_data(path, name)
    tally, content, rng = Tally(), _Content(), np.random.default_rng(0)
    sample: list[tuple] = []
    for outcome in decoded(records, side, fps=fps):
        if isinstance(outcome, Skipped):
            tally.add(outcome)
            if outcome.bad:
                yield _one_line(_(f"skipped: {outcome.where}: {outcome.why}"), outcome.detail)
            continue
        tally.add()
        content.add(*outcome)
        if sheet:
            _sample(rng, sample, tally.good, *outcome, partial(load, side=side, fps=fps))
    yield _(f"format: {name}")
    yield _(f"records: {tally.describe()}")
    yield from content.lines()
    yield from about(content.documents) if about else ()
    if sheet and sample:
        draw_sheet(sample, sheet)
        yield _(f"contact sheet: {sheet}")
    tally.check(allowed)


class _Content:
    """What the good records hold: media, letters, fields that no reader knows, and the first texts."""

    def __init__(self):
        self.media: Counter = Counter()
        self.unknown: Counter = Counter()
        self.documents: list[list] = []  # items, with None for a medium
        self.letters = 0

    def add(self, record, media):
        """The next record. media: pixels; None for a medium that came before, which is not counted again."""
        self.media.update(medium.kind for medium, pixels in zip(record.media, media, strict=True) if pixels is not None)
        self.letters += record.letters
        for name in (name[:SHOWN] for name in record.unknown):
            if name in self.unknown or len(self.unknown) < FIELDS:
                self.unknown[name] += 1
        if len(self.documents) < TEXTS and self.letters < LETTERS:
            self.documents.append([None if isinstance(item, MediaFile) else item for item in record.items])

    def lines(self):
        """The lines of the report."""
        pictures, videos = self.media["picture"], self.media["video"]
        yield _(f"content: {pictures} pictures, {videos} videos, {self.letters} characters of text")
        if self.unknown:
            names = ", ".join(f"{name} ({_records(count)})" for name, count in sorted(self.unknown.items()))
            yield _one_line(_(f"unknown fields: {names}"), "")


def _records(count):
    return _("1 record" if count == 1 else f"{count} records")


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
