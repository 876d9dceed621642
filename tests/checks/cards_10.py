"""Wrong answers to the exercises of notebook 10, and the hints they must get."""

import numpy as np
from card import Card

from tinyflamingo.checks import (
    check_10_1_greedy,
    check_10_2_hold_dialogue,
    check_10_3_attention_weights,
    check_10_4_onto_cells,
)


def written(next_logits, prompt, eoc, limit, never, keep_eoc=False, stop=True, with_prompt=False):
    tokens = list(prompt)
    for _ in range(limit):
        logits = np.array(next_logits(tokens), float)
        logits[list(never)] = -np.inf
        chosen = int(logits.argmax())
        if chosen == eoc and not keep_eoc:
            break
        tokens.append(chosen)
        if chosen == eoc:
            break
    return tokens if with_prompt else tokens[len(prompt) :]


def with_eoc(*args):
    return written(*args, keep_eoc=True)


def with_prompt(*args):
    return written(*args, with_prompt=True)


def anything_goes(next_logits, prompt, eoc, limit, never=()):
    return written(next_logits, prompt, eoc, limit, ())


def endless(next_logits, prompt, eoc, limit, never=()):
    return written(next_logits, prompt, eoc, limit + 5, never)


def always_the_prompt(next_logits, prompt, eoc, limit, never=()):
    tokens = []
    for _ in range(limit):
        logits = np.array(next_logits([tokens[-1]] if tokens else prompt), float)
        logits[list(never)] = -np.inf
        tokens.append(int(logits.argmax()))
    return tokens


def in_place(next_logits, prompt, eoc, limit, never=()):
    def spoiled(tokens):
        logits = next_logits(tokens)
        logits[list(never)] = -np.inf
        return logits

    return written(spoiled, prompt, eoc, limit, never)


def forgetful(ask, picture, questions):
    return [ask([picture, question]) for question in questions]


def deaf(ask, picture, questions):
    return [ask([picture, *questions[: i + 1]]) for i in range(len(questions))]


def picture_each_time(ask, picture, questions):
    items, answers = [], []
    for question in questions:
        items += [picture, question]
        answers.append(ask(items))
        items.append(answers[-1])
    return answers


def picture_last(ask, picture, questions):
    items, answers = [], []
    for question in questions:
        items += [question]
        answers.append(ask([*items, picture]))
        items.append(answers[-1])
    return answers


def last_answer_only(ask, picture, questions):
    items = [picture]
    for question in questions:
        items.append(question)
        items.append(ask(items))
    return items[-1:]


def weights(q, k, phi, scale=None, shift=1, zero=True, stable=True):
    own = k[np.maximum(phi, 1) - shift if shift else np.minimum(phi, len(k) - 1)]
    scores = np.einsum("thk,trhk->thr", q, own) * (q.shape[-1] ** -0.5 if scale is None else scale)
    e = np.exp(scores - (scores.max(-1, keepdims=True) if stable else 0))
    shares = e / e.sum(-1, keepdims=True)
    return shares * (phi > 0)[:, None, None] if zero else shares


def unscaled(q, k, phi):
    return weights(q, k, phi, scale=1.0)


def from_zero(q, k, phi):
    return weights(q, k, phi, shift=0)


def never_empty(q, k, phi):
    return weights(q, k, phi, zero=False)


def overflowing(q, k, phi):
    return weights(q, k, phi, stable=False)


def over_all(q, k, phi):
    scores = np.einsum("thk,mrhk->thmr", q, k) * q.shape[-1] ** -0.5
    e = np.exp(scores)
    e = e / e.sum((-1, -2), keepdims=True)
    return e[np.arange(len(q)), :, np.maximum(phi, 1) - 1] * (phi > 0)[:, None, None]


def all_media(q, k, phi):
    return np.einsum("thk,mrhk->thmr", q, k)


def all_columns(token_map, latent_map):
    return token_map @ latent_map


def last_columns(token_map, latent_map):
    return token_map @ latent_map[:, token_map.shape[1] :]


def normalised(token_map, latent_map):
    joined = token_map @ latent_map[:, : latent_map.shape[1] - token_map.shape[1]]
    return joined / np.maximum(joined.sum(-1, keepdims=True), 1e-9)


def strongest(token_map, latent_map):
    S = latent_map.shape[1] - token_map.shape[1]
    return latent_map[token_map.argmax(-1), :S]


CARDS = [
    Card(
        "10.1",
        check_10_1_greedy,
        wrong=[
            (with_eoc, "not part of it"),
            (with_prompt, "without the prompt"),
            (anything_goes, "reserved id"),
            (endless, "the limit was"),
            (always_the_prompt, "must see the prompt"),
            (in_place, "work on a copy"),
        ],
    ),
    Card(
        "10.2",
        check_10_2_hold_dialogue,
        wrong=[
            (forgetful, "an earlier answer is missing"),
            (deaf, "an earlier answer is missing"),
            (picture_each_time, "begins a new chunk"),
            (picture_last, "the picture comes first"),
            (last_answer_only, "return the answers"),
        ],
    ),
    Card(
        "10.3",
        check_10_3_attention_weights,
        wrong=[
            (unscaled, r"divided by sqrt\(K\)"),
            (from_zero, "phi counts from 1"),
            (never_empty, "phi 0 looks at a picture"),
            (overflowing, "exp overflows"),
            (over_all, "not of all"),
            (all_media, r"\(T, H, R\)"),
        ],
    ),
    Card(
        "10.4",
        check_10_4_onto_cells,
        wrong=[
            (all_columns, "own columns"),
            (last_columns, "first S columns"),
            (normalised, "left out, not shared out"),
            (strongest, "sum over all R"),
        ],
    ),
]
