"""Scores of a model on the user's own data: on records that training never saw.

Chapter §5. Two numbers: the perplexity of the learned text, and the same after every record has got the
media of a record that shows other pictures. If both are equal, the model does not use the media.

Not here: TinyWorld's tasks (`evaluation/run.py`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyflamingo.data.store import Store, Stored
from tinyflamingo.evaluation.metrics import checked
from tinyflamingo.evaluation.run import evaluate
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_and_resample, flamingo
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.own_data.options import FOLDER
from tinyflamingo.training.flamingo_stage import cut
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.run import Evaluate

LONGEST = 256  # scored tokens of a record, at most


def evaluate_run(folder: str | Path) -> Evaluate:
    """The evaluation at the end of the run in a folder, on TinyWorld, on the user's own data, or on both."""

    def score(model, n, seed):
        own = model.info.get("data")
        report = {"tasks": {}} if own and own["mix"] == 1 else evaluate(model, n, seed)
        return report | ({"own": held_out(model, Store(Path(folder) / FOLDER), n)} if own else {})

    return score


def held_out(model: TrainedFlamingo, store: Store, most: int) -> dict:
    """{"n", "perplexity", "perplexity_exchanged"} over at most `most` held-out records with media."""
    numbered = [(store.groups[number], store.items(int(number))) for number in store.held_out]
    numbered = [(group, items) for group, items in numbered if any(isinstance(item, Stored) for item in items)][:most]
    groups, records = [group for group, _ in numbered], [items for _, items in numbered]
    if len(set(groups)) < 2:
        return {"n": len(records), "perplexity": None, "perplexity_exchanged": None}
    exchanged = [_with_media(items, records[_other(groups, i)]) for i, items in enumerate(records)]
    right, wrong = (_perplexity(model, store, chosen) for chosen in (records, exchanged))
    return {"n": len(records), "perplexity": right, "perplexity_exchanged": wrong}


def _other(groups, i) -> int:
    """The record nearest before record i, in a circle, whose group is another: it shows no picture of record i."""
    return next(j for j in range(i - 1, i - len(groups), -1) if groups[j] != groups[i])


def _with_media(items, other) -> list:
    """A record with the media of another record, repeated if they are too few."""
    media = [item for item in other if isinstance(item, Stored)]
    places = [i for i, item in enumerate(items) if isinstance(item, Stored)]
    return [media[places.index(i) % len(media)] if i in places else item for i, item in enumerate(items)]


def _perplexity(model, store, records) -> float:
    total, count = 0.0, 0.0
    for items in records:
        sequence = cut(encode_document(items, model.tokenizer), LONGEST)
        batch = make_batch([sequence])
        visual = encode_and_resample(model, [store.frames(medium) for medium in batch.media])
        tokens, phi = batch.tokens[:, :-1], model.parts.visible(batch)[:, :-1]
        logits = flamingo(model.params, model.frozen, tokens, phi, visual, model.config, parts=model.parts)
        weights = batch.weights[:, 1:]
        total += float(np.sum(token_losses(logits, batch.tokens[:, 1:]) * weights))
        count += float(weights.sum())
    return float(checked(np.exp(total / max(count, 1))))
