"""From records to pixels: every medium of a record decoded, and what cannot be used counted by reason.

Serves chapter §2 (what the encoder gets) for data of one's own. A record with a medium that cannot be
decoded is bad as a whole: its text may speak of what is missing. Not here: formats, and the store.
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

ALLOWED = 0.05  # share of bad records with which training still starts


def decoded(found: Iterable[Record | Skipped], side: int) -> Iterator[tuple[Record, list] | Skipped]:
    """(record, pixels of its media) or what is skipped; pixels are uint8 (F, side, side, 3), one frame of a picture."""
    for record in found:
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
    return load_video(source, side) if medium.kind == "video" else load_picture(source, side)[None]


@dataclass
class Tally:
    """How many records are good, how many bad, and how many left out, by reason."""

    good: int = 0
    bad: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)

    def add(self, skipped: Skipped | None = None):
        """Count a record that is skipped, or a good one."""
        if skipped is None:
            self.good += 1
        else:
            (self.bad if skipped.bad else self.left_out)[skipped.why] += 1

    @property
    def share(self) -> float:
        """Bad records of all that were wanted."""
        bad = self.bad.total()
        return bad / max(1, bad + self.good)

    def describe(self) -> str:
        """The counts on one line."""
        parts = [f"{self.good} good", f"{self.bad.total()} bad ({self.share:.1%})"]
        for title, counts in (("bad", self.bad), ("left out", self.left_out)):
            if counts:
                parts.append(f"{title}: " + ", ".join(f"{n} {why}" for why, n in counts.most_common()))
        return "; ".join(parts)

    def check(self, allowed=ALLOWED):
        """`UserError` with the counts if too many are bad, or none is good."""
        if not self.good:
            raise UserError(f"the data have no record that can be used: {self.describe()}")
        if self.share > allowed:
            raise UserError(
                f"more than {allowed:.0%} of the records are bad: {self.describe()}; "
                "'data check' lists them, --allow-bad SHARE lets them be skipped"
            )
