"""From records to pixels: all media of a record are decoded, and bad records are counted by reason.

Serves chapter §2 (the input of the encoder) for own data. A record with a medium that cannot be decoded is
bad as a whole, because its text may describe the lost medium. Not here: formats, and the store.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tinyflamingo.data.images import Unreadable, load_picture
from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation
from tinyflamingo.data.readers.record import MediaFile, Record, Skipped
from tinyflamingo.data.video import FPS, load_video
from tinyflamingo.errors import UserError
from tinyflamingo.language import _
from tinyflamingo.ops.types import Array

ALLOWED = 0.05  # largest share of bad records with which training starts


def decoded(
    records: Iterable[Record | Skipped], side: int, preparation: Preparation = PAD_TO_SQUARE, fps: float = FPS
) -> Iterator[tuple[Record, list] | Skipped]:
    """(record, pixels of its media) or `Skipped`. Pixels of a medium: uint8 (F, side, side, 3); F = 1: a picture.

    A medium is decoded once: if it came before, in this record or in an earlier one, None is in place of its pixels.
    """
    done: set = set()  # keys of decoded media
    failed: dict = {}  # key of a medium that cannot be decoded: the reason
    decode = partial(load, side=side, preparation=preparation, fps=fps)
    for record in records:
        if isinstance(record, Skipped):
            yield record
            continue
        new = _new(record, done, failed, decode)
        if isinstance(new, Skipped):
            yield new
        else:
            done.update(new)
            yield record, [new.pop(medium.key, None) for medium in record.media]


def _new(record, done, failed, decode):
    """{key: pixels} of the media of a record that are not in `done`, or a `Skipped`."""
    new = {}
    for medium in record.media:
        if medium.key in done or medium.key in new:
            continue
        try:
            if medium.key not in failed:
                new[medium.key] = decode(medium)
        except Unreadable as error:
            failed[medium.key] = error.reason
        if medium.key in failed:
            return Skipped(record.where, failed[medium.key], medium.name)
    return new


def load(medium: MediaFile, side: int, preparation: Preparation = PAD_TO_SQUARE, fps: float = FPS) -> Array:
    """Pixels of a medium. fps: frames for each second of a video. Raises `Unreadable`."""
    source = io.BytesIO(medium.source) if isinstance(medium.source, bytes) else medium.source
    if medium.kind == "video":
        return load_video(source, side, fps, preparation=preparation, shorten=True)
    return load_picture(source, side, preparation)[None]


@dataclass
class Tally:
    """Counts of good records, and of bad and left-out records by reason."""

    good: int = 0
    bad: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)

    def add(self, skipped: Skipped | None = None) -> None:
        """Count a skipped record, or a good one (None)."""
        if skipped is None:
            self.good += 1
        else:
            (self.bad if skipped.bad else self.left_out)[skipped.why] += 1

    @property
    def share(self) -> float:
        """Bad records / (bad and good records)."""
        bad = self.bad.total()
        return bad / max(1, bad + self.good)

    def describe(self, _: Callable[[str], str] = _) -> str:
        """The counts on one line, in the language of the reader. _: translates; with `str`, they stay English."""
        parts = [_(f"{self.good} good"), _(f"{self.bad.total()} bad ({self.share:.1%})")]
        for title, counts in ((_("bad"), self.bad), (_("left out"), self.left_out)):
            if counts:
                parts.append(f"{title}: " + ", ".join(f"{n} {_(why)}" for why, n in counts.most_common()))
        return "; ".join(parts)

    def check(self, allowed: float = ALLOWED) -> None:
        """Raises a `UserError` with the counts if too many records are bad, or none is good."""
        if not self.good:
            raise UserError(f"the data have no usable record: {self.describe()}")
        if self.share > allowed:
            raise UserError(
                f"more than {allowed:.0%} of the records are bad: {self.describe()}; "
                "'data check' lists them, --allow-bad SHARE skips them"
            )
