"""`complete`: one prompt in, one continuation out (chapter §5).

A prompt is a list of strings, pictures and videos, in order. Not here: how they are read from files
(`data/prompt.py`), and the loops over tokens (`model/generate.py`, `beams.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinyflamingo.data.images import prepare_picture
from tinyflamingo.data.items import EOC, Quiet, text_of
from tinyflamingo.decoding.beams import beam_search, score_continuations
from tinyflamingo.decoding.sampling import GREEDY, Sampling, sampler
from tinyflamingo.errors import UserError
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_and_resample
from tinyflamingo.model.generate import generate
from tinyflamingo.model.interleave import Sequence, encode_document, make_batch
from tinyflamingo.ops.types import Array


def complete(
    model: TrainedFlamingo,
    items: list,
    max_tokens: int = 24,
    beams: int = 1,
    sampling: Sampling | None = None,
    rng: np.random.Generator | None = None,
) -> dict:
    """Continue a prompt: a list of strings, `EOC`, pictures and videos, in order.

    Pictures are uint8 (Y, X, 3), videos uint8 (F, Y, X, 3). Those of the encoder's size are used as they are; others
    are prepared like files, as the encoder needs them (`data/preparation.py`). A string is text: a literal "<image>"
    in it is not a tag. beams: width of the search, 1: greedy. sampling: how tokens are drawn, with the generator `rng`.

    Returns {"text", "tokens", "log_probs", "phi", "prompt_tokens", "finished", "probability", "threshold", "unlike"}.
    log_probs has a number for each token; with beams it is one sum, with that of `<EOC>`. finished says whether the
    answer ends with `<EOC>`, and not at max_tokens. probability is that of the answer, with that of `<EOC>` if it is
    finished. threshold comes from `calibrate`; it is None for a prompt of another kind (`_threshold`), for an answer
    that is not finished, and for a sampled one. unlike says whether the probability is below the threshold: the picture
    may then be unlike those of training.

    Raises `UserError` for a prompt that is too long, for an item or an option of another type, and for options that
    exclude each other.
    """
    _check_options(model, items, max_tokens, beams, sampling, rng)
    items = list(items)
    sequence = encode_document([_checked(item, model.config.vision) for item in items], model.tokenizer, complete=False)
    if not sequence.tokens:  # a public port without `<BOS>`
        raise UserError("the prompt is empty: give some text, or a picture")
    batch = make_batch([sequence], left=True)
    visual = encode_and_resample(model, batch.media)
    tokens, log_probs = _continued(model, batch, visual, max_tokens, beams, sampling, rng)
    finished = len(tokens) < max_tokens
    probability = answer_probability(model, sequence, [*tokens, *[model.tokenizer.eoc] * finished], visual)
    threshold = _threshold(model, items) if finished and sampling in (None, GREEDY) else None
    return {
        "text": model.tokenizer.decode(tokens).strip(),
        "tokens": [model.tokenizer.piece(t) for t in tokens],
        "log_probs": log_probs,
        "phi": [int(p) for p in batch.phi[0]],
        "prompt_tokens": [model.tokenizer.piece(t) for t in sequence.tokens],
        "finished": finished,
        "probability": probability,
        "threshold": threshold,
        "unlike": None if threshold is None else probability < threshold,
    }


def _check_options(model, items, max_tokens, beams, sampling, rng):
    """`UserError` for an argument of another type, and for two that exclude each other."""
    for name, value, *kinds in (
        ("model", model, TrainedFlamingo),
        ("max_tokens", max_tokens, int, np.integer),
        ("beams", beams, int, np.integer),
        ("sampling", sampling, Sampling, type(None)),
        ("rng", rng, np.random.Generator, type(None)),
    ):
        if not isinstance(value, tuple(kinds)) or isinstance(value, bool):
            raise UserError(f"{name} is of type {type(value).__name__} but must be of type {kinds[0].__name__}")
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise UserError(f"a prompt is a list, such as [picture, 'Output:'], not of type {type(items).__name__}")
    if beams != 1 and sampling not in (None, GREEDY):
        raise UserError("give beams or sampling, but not both: beams search, sampling draws")


def _continued(model, batch, visual, max_tokens, beams, sampling, rng):
    """(ids, their log probabilities) of the continuation; with beams the sum of these."""
    if beams == 1:
        (tokens,), (log_probs,) = generate(model, batch, visual, max_tokens, sampling and sampler(sampling, rng))
    else:
        (tokens,), log_probs = beam_search(model, batch, visual, beams, max_tokens)
    return tokens, log_probs


def answer_probability(model: TrainedFlamingo, prompt: Sequence, answer: list[int], visual: Array) -> float:
    """The probability of an answer, a list of ids, after a prompt; 1 for no id. visual: the prompt's media."""
    if not answer:
        return 1.0
    weights = [0.0] * len(prompt.tokens) + [1.0] * len(answer)
    whole = Sequence([*prompt.tokens, *answer], weights, prompt.media)
    return float(np.exp(score_continuations(model, make_batch([whole]), visual)[0]))


def _threshold(model, items):
    """The threshold in the card, if the prompt is one picture or video and the text of the calibration; else None.

    A calibration with several texts (`asked` is "") holds for every text.
    """
    fact = model.info.get("unlike")
    texts = [text_of(item) for item in items[1:]]
    is_like = fact and len(items) == 2 and _is_medium(items[0]) and isinstance(texts[0], str)
    return fact["threshold"] if is_like and fact["asked"] in ("", texts[0].strip()) else None


def _checked(item, vision):
    """An item of a prompt, its pictures prepared for the encoder; `UserError` for an item of another kind."""
    if item is EOC or isinstance(item, str | Quiet):
        return item
    if _is_medium(item):
        return item if item.shape[-3:-1] == (vision.side, vision.side) else _prepared(item, vision)
    raise UserError(
        "a prompt is a list of strings, EOC, pictures (uint8, shape (Y, X, 3)) and videos (uint8, shape (F, Y, X, 3)); "
        f"found {type(item).__name__}" + (f" {item.dtype} {item.shape}" if isinstance(item, np.ndarray) else "")
    )


def _is_medium(item):
    """Whether an item is a picture or a video, with at least one pixel."""
    is_bytes = isinstance(item, np.ndarray) and item.dtype == np.uint8
    return is_bytes and item.ndim in (3, 4) and item.size > 0 and item.shape[-1] == 3


def _prepared(item, vision):
    """A picture or video of another size, prepared for the encoder."""
    frames = [prepare_picture(f, vision.side, vision.preparation) for f in item.reshape(-1, *item.shape[-3:])]
    return frames[0] if item.ndim == 3 else np.stack(frames)
