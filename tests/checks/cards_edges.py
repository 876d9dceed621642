"""Wrong answers at the edges of an exercise: an argument is ignored, `exp` overflows or underflows, an index is a
float, an empty input fails. A check notices them only if it varies the arguments and asks for such inputs.
"""

import numpy as np
from cards_more import card, clip_in_loops, kahn, weights_by_token
from cards_strangers import row_by_row

# ---------------------------------------------------------------- 00 to 04


def first_pair_outside(pictures, words, query):
    prompt = [pictures[0], words[0]]
    for picture, word in zip(pictures[1:], words[1:], strict=True):
        prompt += [picture, word]
    return [*prompt, query]


def nothing_for_an_input(made_of, end):
    return kahn(made_of, end) if end in made_of else []


def reset_in_the_second_block(blocks, alpha):
    deviations, variance = [], 1.0
    for number in blocks:
        for b in range(number):
            variance = 1 + alpha**2 if b == 1 else variance
            deviations.append(variance**0.5)
            variance += alpha**2
    return deviations


def eps_fixed(g, w, limit, eps=1e-3):
    return clip_in_loops(g, w, limit)


def frames_as_floats(times, fps=1.0):
    since = times - times[0]
    return [float(np.argmax(since >= m)) for m in np.arange(int(since[-1] * fps) + 1) / fps]


def frames_before_the_end(times, fps=1.0):
    since = times - times[0]
    return [int(np.argmax(since >= moment)) for moment in np.arange(0, since[-1], 1 / fps)]


# ---------------------------------------------------------------- 07


def open_empty_page(items):
    row = ["<BOS>"]
    for place, item in enumerate(items):
        row += ["<EOC>", item] if item == "image" and place else [item]
    return [*row, "<EOC>"] if items else row


def phi_as_floats(is_image):
    return np.cumsum(is_image, axis=-1).astype(float)


def phi_next_as_floats(is_image):
    return np.minimum(np.cumsum(is_image) - is_image + 1.0, is_image.sum())


def shares_of(covered, visible, axis=-1):
    shares = np.exp(covered - covered.max(axis, keepdims=True)) * visible
    total = shares.sum(-1, keepdims=True)
    return shares / np.where(total == 0, 1.0, total)


def covers_with_zero(scores, visible):
    return shares_of(scores * visible, visible)


def covers_with_a_thousand(scores, visible):
    return shares_of(np.where(visible, scores, -1000.0), visible)


def largest_of_all_rows(scores, visible):
    return shares_of(np.where(visible, scores, -1e9), visible, axis=None)


def cut_below(scores, visible):
    return row_by_row(np.maximum(scores, -700), visible)


# ---------------------------------------------------------------- 09 and 10


def with_largest(logits, targets, shares, largest):
    e = np.exp(logits - largest)
    return (e / e.sum(-1, keepdims=True) - np.eye(logits.shape[-1])[targets]) * shares[..., None]


def largest_of_the_batch(logits, targets, shares):
    return with_largest(logits, targets, shares, logits.max())


def largest_above_zero(logits, targets, shares):
    return with_largest(logits, targets, shares, np.maximum(logits.max(-1, keepdims=True), 0))


def places_as_batches(gradient_of, batches, lambdas):
    return sum(weight * gradient_of(place) for place, weight in enumerate(lambdas))


def greedy(next_logits, prompt, eoc, limit, never):
    new = []
    while len(new) < limit:
        logits = np.array(next_logits(prompt + new))
        logits[never] = -np.inf
        if logits.argmax() == eoc:
            break
        new.append(int(logits.argmax()))
    return new


def never_fixed(next_logits, prompt, eoc, limit, never=()):
    return greedy(next_logits, prompt, eoc, limit, [0, 1, 2])


def never_as_an_array(next_logits, prompt, eoc, limit, never=()):
    return greedy(next_logits, prompt, eoc, limit, np.array(never))


def last_id_ends(next_logits, prompt, eoc, limit, never=()):
    last = len(next_logits(prompt)) - 1
    return greedy(next_logits, prompt, last, limit, list(never))


def map_by(q, k, phi, exponentials):
    own = k[np.maximum(phi, 1) - 1]
    e = exponentials(np.einsum("thk,trhk->thr", q, own) / np.sqrt(q.shape[-1]))
    return e / e.sum(-1, keepdims=True) * (phi > 0)[:, None, None]


def map_with_cut_scores(q, k, phi):
    return map_by(q, k, phi, lambda scores: np.exp(np.clip(scores, -700, 700)))


def map_with_one_largest(q, k, phi):
    return map_by(q, k, phi, lambda scores: np.exp(scores - scores.max()))


def map_of_a_fixed_phi(q, k, phi):
    return weights_by_token(q, k, np.array([0, 1, 1, 2, 2, 3, 3]))


CARDS = [
    card("00.2", "few_shot_prompt", wrong=[(first_pair_outside, "in first_pair_outside, stops with IndexError")]),
    card("01.1", "way_back", wrong=[(nothing_for_an_input, r"order is \[\]\. \w is missing")]),
    card("02.4", "betas", wrong=[(reset_in_the_second_block, "one block only|was expected")]),
    card("02.5", "clip_by_unit", wrong=[(eps_fixed, "other values than 1e-3 come too")]),
    card(
        "04.1",
        "frames_to_take",
        wrong=[
            (frames_as_floats, "float64; it should hold integers"),
            (frames_before_the_end, "exactly at the moments"),
        ],
    ),
    card("07.1", "with_marks", wrong=[(open_empty_page, r"page \[\] your row is .*<EOC> stands at the end")]),
    card("07.2", "phi", wrong=[(phi_as_floats, "float64; it should hold integers")]),
    card(
        "07.4",
        "masked_softmax",
        wrong=[
            (covers_with_zero, "scores around -2000"),
            (covers_with_a_thousand, "scores around -2000"),
            (cut_below, "scores around -2000"),
            (largest_of_all_rows, "around 2000 and another around -2000"),
        ],
        right=[lambda scores, visible: shares_of(np.where(visible, scores, -1e9), visible)],
    ),
    card("07.5", "phi_next", wrong=[(phi_next_as_floats, "float64; it should hold integers")]),
    card(
        "09.2",
        "logits_gradient",
        wrong=[
            (largest_of_the_batch, "each token's own largest logit"),
            (largest_above_zero, "each token's own largest logit"),
        ],
    ),
    card("09.3", "accumulate", wrong=[(places_as_batches, "an entry of `batches`")]),
    card(
        "10.1",
        "greedy",
        wrong=[
            (never_fixed, "reserved id|likeliest|chosen behind|every id"),
            (never_as_an_array, "stops with IndexError"),
            (last_id_ends, "limit|likeliest|chosen behind|<EOC>|reserved"),
        ],
    ),
    card(
        "10.3",
        "attention_weights",
        wrong=[
            (map_with_cut_scores, "the row's own largest score"),
            (map_with_one_largest, "exp overflows"),
            (map_of_a_fixed_phi, "the map is"),
        ],
    ),
]
