"""Checks of notebook 12: counting parameters, gated blocks and flops (the chapter's summary).

Not here: the library's own counts (`training/presets.py`), of which these checks make use.
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.language import _
from tinyflamingo.model.config import FlamingoConfig, LanguageConfig, ResamplerConfig, VisionConfig, XattnConfig
from tinyflamingo.model.gated_xattn import init_gated_xattn
from tinyflamingo.model.language_model import init_language_model
from tinyflamingo.ops.tree import count

from .core import check, fresh_rng, holds, shape_is, value_is, whole_numbers


@check(
    "12.1",
    where=(
        "List every array of the block with its shape: four matrices of attention, two of the feed-forward "
        "layer, three norms, two gates."
    ),
    formula="2 D I + 2 Dm I + 2 m D² + 4 D + 2 Dm + 2, with I = heads * key_size and Dm = media_width",
)
def check_12_1_count_gated_block(count_gated_block):
    """count_gated_block(width, media_width, heads, key_size, multiplier) -> a number."""
    sizes, want, mistakes = _told_apart(_gated_block, fresh_rng())
    _counted(count_gated_block(*sizes), want, mistakes)


def _told_apart(draw, rng):
    """Draw a case in which no two mistakes give the same number."""
    while True:
        sizes, want, mistakes = draw(rng)
        if len({want, *mistakes.values()}) == len(mistakes) + 1:
            return sizes, want, mistakes


def _gated_block(rng):
    D, media = 2 * int(rng.integers(5, 12)), 2 * int(rng.integers(12, 20))
    H, K, m = int(rng.integers(2, 5)), int(rng.integers(3, 8)), int(rng.integers(2, 6))
    config = FlamingoConfig(
        vision=VisionConfig(width=media),
        resampler=ResamplerConfig(input_width=media, width=media),
        language=LanguageConfig(width=D),
        xattn=XattnConfig(heads=H, key_size=K, ffw_multiplier=m),
    )
    want = count(init_gated_xattn(rng, config))
    inner, norms = H * K, 4 * D + 2 * media
    square = D * D
    mistakes = {
        "The two gates are missing: one number each, for cross-attention and feed-forward.": want - 2,
        "There are two gates: cross-attention has one and the feed-forward layer another.": want - 1,
        "The layer norms are missing: gain and bias for queries, for media and for the feed-forward.": want - norms,
        "Layer norms have a bias beside their gain.": want - norms // 2,
        "The norm of the media has the width of the media.": want - 2 * media + 2 * D,
        "Keys and values read visual tokens: their matrices have media_width rows.": want + 2 * inner * (D - media),
        "Keys AND values are read from the media: one matrix is missing.": want - media * inner,
        "The output matrix leads back to the width of the text.": want + inner * (media - D),
        "The attention's inner width is heads times key_size, whatever the width.": want
        - 2 * inner * (D + media)
        + 2 * D * (D + media),
        "The attention's inner width is heads times key_size, not D.": 4 * square + 2 * m * square + norms + 2,
        "The feed-forward layer has two matrices, up and down.": want - m * square,
        "There are no biases in the projections.": want + 3 * inner + D,
    }
    return (D, media, H, K, m), want, mistakes


@check(
    "12.2",
    where="List the arrays of one block with their shapes and multiply by `layers`. Then add what is there only once.",
    formula="V D + L (5 D I + 2 I + 2 m D² + D + m D + D + 2 D) + D, with I = heads * key_size",
)
def check_12_2_count_language_model(count_language_model):
    """count_language_model(vocab, width, layers, heads, key_size, multiplier) -> a number."""
    sizes, want, mistakes = _told_apart(_language_model, fresh_rng())
    _counted(count_language_model(*sizes), want, mistakes)


def _language_model(rng):
    V, D, L = int(rng.integers(40, 80)), 2 * int(rng.integers(5, 12)), int(rng.integers(3, 6))
    H, K, m = int(rng.integers(2, 5)), int(rng.integers(3, 8)), int(rng.integers(2, 6))
    sizes = LanguageConfig(vocab_size=V, width=D, layers=L, heads=H, key_size=K, ffw_multiplier=m)
    want, inner = count(init_language_model(rng, sizes)), H * K
    mistakes = {
        "Input and output share one table: the embedding is there once.": want + V * D,
        "The matrix of the relative positions is missing in every block.": want - L * D * inner,
        "The two vectors of heads x key_size, u and v, are missing in every block.": want - 2 * L * inner,
        "One vector of heads x key_size is missing: there are two, u and v.": want - L * inner,
        "The gain at the very end is missing.": want - D,
        "The biases are missing: output matrix and both feed-forward matrices.": want - L * (2 * D + m * D),
        "RMS norms have a gain and no bias.": want + 2 * L * D + D,
        "The gains of the norms in the blocks are missing.": want - 2 * L * D,
        "q, k, v and positions have no bias.": want + 4 * L * inner,
        "That is one block: there are `layers` of them.": V * D + D + (want - V * D - D) // L,
        "The embedding is missing.": want - V * D,
    }
    return (V, D, L, H, K, m), want, mistakes


def _counted(got, want, mistakes):
    shape_is(got, (), what="the count")
    holds(float(got) == int(got), _("the count is {got}; numbers of parameters are whole.").format(got=got))
    value_is(int(got), want, _distance(int(got), want), what="the count", mistakes=mistakes)


def _distance(got, want):
    hint = _("{count} too many.") if got > want else _("{count} too few.")
    return hint.format(count=abs(got - want))


@check(
    "12.3",
    where="The first number is 0, the step is `every`, and the last number is below `layers`.",
    formula="range(0, layers, every)",
)
def check_12_3_gated_positions(gated_positions):
    """gated_positions(layers, every) -> list of block numbers."""
    rng = fresh_rng()
    every = int(rng.integers(3, 8))
    layers = every * int(rng.integers(3, 8)) + int(rng.integers(1, every))
    for L, k in ((layers, every), (80, 7), (int(rng.integers(4, 9)), 1)):
        got = gated_positions(L, k)
        holds(got is not None, "the result is None: a `return` is missing.")
        got = whole_numbers(got)
        want = list(range(0, L, k))
        lead = _("of {L} blocks, every {k}:").format(L=L, k=k)
        holds(
            all(0 <= i < L for i in got),
            _("{lead} {got} names a block that does not exist; they are 0 to {last}.").format(
                lead=lead, got=got, last=L - 1
            ),
        )
        holds(0 in got, _("{lead} the first gated block stands before block 0, but 0 is missing.").format(lead=lead))
        holds(
            len(got) >= len(want),
            _("{lead} {number} came back, {wanted} was expected; the last group may be short.").format(
                lead=lead, number=len(got), wanted=len(want)
            ),
        )
        holds(got == want, _("{lead} {got} came back, but {want} was expected.").format(lead=lead, got=got, want=want))


@check(
    "12.4",
    where=(
        "Forward costs 2 for each weight. Ask for each of the three parts: does the gradient run through it? "
        "Does it get one of its own?"
    ),
    formula="6 * trained + 4 * language + 2 * vision",
)
def check_12_4_training_flops(training_flops):
    """training_flops(trained, language, vision) -> flops a token."""
    weights, want, mistakes = _told_apart(_step, fresh_rng())
    got = training_flops(*weights)
    shape_is(got, (), what="the number of flops")
    value_is(np.float64(got), float(want), what="the number of flops", mistakes=mistakes)


def _step(rng):
    trained, language, vision = (int(rng.integers(*bounds)) for bounds in ((50, 90), (300, 500), (1000, 2000)))
    want = 6 * trained + 4 * language + 2 * vision
    mistakes = {
        "Frozen weights are not free: the forward pass runs through them.": 6 * trained,
        "The gradient runs back through the frozen language model, to the first gated block: 2 more a weight.": want
        - 2 * language,
        "That is the price when everything trains: a frozen weight needs no gradient of its own.": 6
        * (trained + language + vision),
        "Nothing that trains lies before the vision encoder: no gradient runs back through it.": want + 2 * vision,
        "The vision encoder runs forward too.": want - 2 * vision,
        "A multiplication and an addition are two flops.": want / 2,
        "Weights that train cost 2 forward, 2 for the input's gradient and 2 for their own.": want - 2 * trained,
    }
    return (trained, language, vision), want, mistakes
