"""Checks of notebook 00: what flows through Flamingo, and how a prompt is written (the whole chapter).

Not here: the shapes themselves (`model/flamingo.py`), prompts as tokens (`model/interleave.py`).
"""

from __future__ import annotations

import numpy as np

from .core import check, fresh_rng, holds, shape_is, value_is


@check(
    "00.1",
    where=(
        "Count for one frame first: cells in one direction, then in both. Then all frames. Section §3 says "
        "what a latent looks at."
    ),
    formula="cells = ceil(side / 8); features = frames * cells²; keys = features + latents; visual tokens = latents",
)
def check_00_1_how_many(how_many):
    """how_many(frames, side, latents) -> (features, keys, visual tokens)."""
    rng = fresh_rng()
    even = 8 * int(rng.integers(3, 9))
    for side in (even, even + int(rng.integers(1, 4)), even + int(rng.integers(5, 8))):
        F, R = int(rng.integers(2, 9)), int(rng.integers(5, 20))
        got = how_many(F, side, R)
        shape_is(got, (3,), "(features, keys, visual tokens)")
        cells, below = -(-side // 8), side // 8
        want = np.array([F * cells * cells, F * cells * cells + R, R])
        mistakes = {
            "Keys are features AND latents: the latents look at each other too.": want - [0, R, 0],
            "However many frames there are, R visual tokens come out of the resampler.": want + [0, 0, F * R - R],
            "Every frame has a grid of its own.": np.array([cells * cells, cells * cells + R, R]),
            "A grid has cells in both directions.": np.array([F * cells, F * cells + R, R]),
            "The last cell sees what is left of the side: round up.": np.array([F * below**2, F * below**2 + R, R]),
        }
        case = f"{F} frames of {side} x {side}, {R} latents."
        value_is(got, want, case, what="(features, keys, visual tokens)", mistakes=mistakes)


@check(
    "00.2",
    where=(
        "The definition of phi: a word sees the last picture before it. The prompt of the cell above has the "
        "same build."
    ),
    formula="[picture_1, word_1, picture_2, word_2, ..., query]",
)
def check_00_2_few_shot_prompt(few_shot_prompt):
    """few_shot_prompt(pictures, words, query) -> list."""
    rng = fresh_rng()
    n = int(rng.integers(2, 6))
    pictures = [rng.integers(0, 256, (2, 2, 3)).astype(np.uint8) for _ in range(n)]
    words = [f"word {i}." for i in rng.permutation(100)[:n]]
    query = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    got = few_shot_prompt(list(pictures), list(words), query)
    holds(isinstance(got, list), "a prompt is a list of pictures and strings.")
    kinds = ["picture" if isinstance(item, np.ndarray) else "word" for item in got]
    holds(any(_equal(item, query) for item in got), "the query is missing: the model must see what it is asked about.")
    holds(_equal(got[-1], query), "the query comes last: the answer is what the model writes behind it.")
    holds(kinds[0] == "picture", "a word sees the picture before it, so each picture stands before its word.")
    order = ["picture", "word"] * n + ["picture"]
    hint = "pictures and words take turns: a word sees the last picture before it, and no other."
    holds(kinds == order, hint)
    right = all(_equal(got[2 * i], pictures[i]) and got[2 * i + 1] == words[i] for i in range(n))
    holds(right, "a picture has the word of another one.")
    alone = few_shot_prompt([], [], query)
    hint = "without pictures and words (zero shots) the prompt is the query alone."
    holds(isinstance(alone, list) and len(alone) == 1 and _equal(alone[0], query), hint)


def _equal(item, picture):
    """Whether an item of a prompt is this picture, or a copy of it."""
    return isinstance(item, np.ndarray) and np.array_equal(item, picture)
