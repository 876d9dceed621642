"""What the user's own data ask: records of one picture or video, with what is asked and the accepted answers.

Chapter §5. A record can be asked if it begins with its only medium and ends with a text that the model learns: a
caption, or the answer to a question. Of several records that ask the same about one picture, one question remains, with
all their answers.

Not here: the scores (`scores.py`), pages with several pictures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.store import Store, Stored

MOST = 4000  # records of training from which examples, captions and neighbours are taken
SMALL = 32  # side of the pictures that are compared by their pixels


class Side(NamedTuple):
    """Some records of a store: those of training, or those that are asked."""

    store: Store
    numbers: np.ndarray


@dataclass(frozen=True)
class Question:
    """A medium, the text after it, and the answer that the data give."""

    store: Store
    number: int  # of its record
    medium: Stored
    asked: str
    answer: str
    accepted: tuple  # all answers to the same question about the same picture
    people: tuple = ()  # answers of ten people, in the format of VQA

    @property
    def picture(self) -> int:
        """Equal for questions about the same picture."""
        return int(self.store.same_picture[self.number])

    @property
    def label(self) -> int:
        """The number of its class; -1: none."""
        return int(self.store.classes[self.number])

    def pixels(self) -> np.ndarray:
        """The frames of the medium, uint8 (F, Y, X, 3)."""
        return self.store.frames(self.medium)


def questions(side: Side, most: int = MOST) -> list[Question]:
    """At most `most` questions of a side, evenly spaced."""
    merged: dict[tuple, Question] = {}
    for number in side.numbers.tolist():
        if question := _question(side.store, number):
            key = question.picture, question.asked
            known = merged.setdefault(key, question)
            accepted = tuple(dict.fromkeys((*known.accepted, question.answer)))
            merged[key] = Question(**(vars(known) | {"accepted": accepted}))
    every = list(merged.values())
    return every[:: max(1, -(-len(every) // most))]


def _question(store, number) -> Question | None:
    medium, *texts = store.items(number) or [None]
    if not isinstance(medium, Stored) or not texts or not isinstance(texts[-1], str):
        return None
    if not all(isinstance(text, Quiet) for text in texts[:-1]):
        return None
    asked = " ".join(text.text for text in texts[:-1])
    return Question(store, number, medium, asked, texts[-1], (texts[-1],), store.answers(number))


def unseen(asked: Side, *training: Side) -> Side:
    """The asked records without those that show a picture of a training record: a separate test set can have copies."""
    others = [side for side in training if side.store is not asked.store]  # within a store nothing asked is trained
    shown = set().union(*(_shown(side.store, n) for side in others for n in side.numbers.tolist()))
    fresh = [n for n in asked.numbers.tolist() if not (shown and shown & _shown(asked.store, n))]
    return Side(asked.store, np.array(fresh, int))


def _shown(store, number) -> set[bytes]:
    """Hashes of all media of a record."""
    media = [item for item in store.items(number) if isinstance(item, Stored)]
    return set().union(*(_digests(store.frames(medium)) for medium in media))


def _digests(frames) -> set[bytes]:
    """Hashes of a medium and of its frames. Frames of one colour alone do not make two videos the same."""
    parts = [frames, *(frame for frame in frames if (frame != frame[0, 0]).any())]
    return {hashlib.sha256(part.tobytes()).digest() for part in parts}


def others(asked: list[Question]) -> list[int]:
    """For each question the number of one about another picture, of another class if there is one."""
    return [_other(asked, i) for i in range(len(asked))]


def _other(asked, i):
    circle = [*range(i - 1, -1, -1), *range(len(asked) - 1, i, -1)]
    different = [j for j in circle if asked[j].picture != asked[i].picture or asked[j].store is not asked[i].store]
    return next((j for j in different if asked[j].answer != asked[i].answer), different[0])


def small_pixels(some: list[Question]) -> np.ndarray:
    """The middle frame of each question as a vector, float32 (n, s * s * 3).

    s is from SMALL to 2 SMALL - 1, or the side of the store's pictures if that is smaller.
    """
    frames = np.stack([_middle(q) for q in some]).astype(np.float32)
    step = max(1, frames.shape[1] // SMALL)
    whole = frames.shape[1] // step * step
    cut = frames[:, :whole, :whole].reshape(len(frames), whole // step, step, whole // step, step, 3)
    return cut.mean(axis=(2, 4)).reshape(len(frames), -1)


def _middle(question):
    medium = question.medium
    return question.store.frames(Stored(medium.index, 1, medium.first + medium.frames // 2))[0]
