"""Few-shot episodes from the user's own data: pictures of some classes, each class with an invented word.

Chapter §4 and §5. Records of one class (the data name it, or their texts are equal) show different pictures of the same
thing. In an episode a class has an invented word, which means nothing in other episodes: the model can only read it
from the pictures before. So it learns to learn from few shots, not the names.

Not here: the classes of a store (`data/store.py`), episodes of handwriting (`handwriting/drawings.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.store import Store, Stored
from tinyflamingo.data.tinyworld.language import PICTURE_WORDS
from tinyflamingo.model.tokenizer import Tokenizer

WAYS = 2, 10  # fewest and most classes in an episode
PICTURES = 4  # at most 4 pictures of a class, on average
SHARE = 0.5  # of the documents, if all records have classes with several pictures


def classes_of(store: Store, numbers: np.ndarray) -> list[np.ndarray]:
    """The records of each class among `numbers`, one for each picture; classes with a single picture are left out."""
    members: dict[int, dict] = {}
    for number in numbers.tolist():
        if store.classes[number] >= 0:
            members.setdefault(int(store.classes[number]), {}).setdefault(int(store.same_picture[number]), number)
    return [np.array(list(pictures.values())) for pictures in members.values() if len(pictures) > 1]


def share_of_episodes(classes: list, records: int) -> float:
    """The share of documents that are episodes: smaller if few records have a class with several pictures."""
    return SHARE * min(1.0, sum(map(len, classes)) / max(1, records)) if len(classes) >= WAYS[0] else 0.0


def episode(rng: np.random.Generator, store: Store, classes: list, tokenizer: Tokenizer, length: int) -> list:
    """The items of an episode of at most `length` tokens: each class once, then classes in random order.

    No picture occurs twice. The first occurrence of a word has no loss, because it cannot be predicted.
    """
    ways = int(rng.integers(WAYS[0], min(WAYS[1], len(classes)) + 1))
    piles = [rng.permutation(classes[i]).tolist() for i in rng.choice(len(classes), ways, replace=False)]
    words = [f"{word}." for word in rng.choice(PICTURE_WORDS, ways, replace=False)]
    order = [*rng.permutation(ways), *rng.integers(ways, size=(PICTURES - 1) * ways)]
    items: list = []
    shown: set = set()
    left = length - 1  # `<BOS>`
    for way in order:
        left -= 2 + len(tokenizer.encode(words[way]))  # a tag and `<EOC>` beside the word
        if left < 0:
            break
        if piles[way]:
            items += [medium_of(store, piles[way].pop()), words[way] if way in shown else Quiet(words[way])]
            shown.add(way)
    return items


def medium_of(store: Store, number: int) -> Stored:
    """The first medium of a record."""
    return next(item for item in store.items(number) if isinstance(item, Stored))
