"""From records to pixels: all media of a record are decoded, and bad records are counted by reason.

Serves chapter §2 (the input of the encoder) for own data. A record with a medium that cannot be decoded is
bad as a whole, because its text may describe the lost medium. Not here: formats, and the store.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tinyflamingo.data.images import Unreadable, load_picture
from tinyflamingo.data.readers.record import MediaFile, Record, Skipped
from tinyflamingo.data.video import load_video
from tinyflamingo.errors import UserError

ALLOWED = 0.05  # largest share of bad records with which training starts


def decoded(records: Iterable[Record | Skipped], side: int) -> Iterator[tuple[Record, list] | Skipped]:
    """(record, pixels of its media) or `Skipped`. Pixels of a medium: uint8 (F, side, side, 3); F = 1: a picture."""
    for record in records:
        if isinstance(record, Skipped):
            yield record
            continue
        name = ""
        try:
            media = []
            for item in record.items:
                if isinstance(item, MediaFile):
                    name = item.name
                    media.append(_load(item, side))
        except Unreadable as error:
            yield Skipped(record.where, error.reason, name)
        else:
            yield record, media


def _load(medium: MediaFile, side: int):
    source = io.BytesIO(medium.source) if isinstance(medium.source, bytes) else medium.source
    return load_video(source, side, shorten=True) if medium.kind == "video" else load_picture(source, side)[None]


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

    def describe(self) -> str:
        """The counts on one line."""
        parts = [f"{self.good} good", f"{self.bad.total()} bad ({self.share:.1%})"]
        for title, counts in (("bad", self.bad), ("left out", self.left_out)):
            if counts:
                parts.append(f"{title}: " + ", ".join(f"{n} {why}" for why, n in counts.most_common()))
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
