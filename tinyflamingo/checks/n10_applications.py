"""Checks of notebook 10: decoding, dialogue, attention weights and their way back onto the picture (chapter §5).

Not here: the library's own decoding (`model/generate.py`) and maps (`studies/attention_maps.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, holds, shape_is, value_is, whole_numbers


@check(
    "10.1",
    where="Each turn: ask for the logits of everything so far, forbid `never` in a copy, choose, test for eoc, append.",
    formula=(
        "tokens = list(prompt); repeat limit times: t = argmax of the allowed logits; stop at eoc; append t. "
        "Return tokens[len(prompt):]"
    ),
)
def check_10_1_greedy(greedy):
    """greedy(next_logits, prompt, eoc, limit, never) -> list of new tokens."""
    rng = fresh_rng()
    V, length = int(rng.integers(9, 14)), int(rng.integers(4, 7))
    eoc, *ids = (int(i) for i in rng.permutation(V))  # the id that ends an answer is not the last one
    never, ids = (V, *ids[:2]), ids[2:]
    prompt, answer = ([int(i) for i in rng.choice(ids, n)] for n in (4, length))

    def next_logits(tokens):
        """Logits that want the answer, token by token; a reserved id is always the likeliest of all."""
        holds(list(tokens[: len(prompt)]) == prompt, "the model must see the prompt and all that was written so far.")
        done = len(tokens) - len(prompt)
        holds(list(tokens[len(prompt) :]) == answer[:done], "each token is chosen behind all that were chosen before.")
        logits = rng.uniform(-1.0, 1.0, V + 1)
        logits[answer[done] if done < length else eoc] = 1.1  # a sample would often be another token
        logits[[int(i) for i in rng.permutation(reserved)[:1]]] = 5.0
        kept.append((logits, logits.copy()))
        return logits

    kept, reserved = [], never

    def written(limit):
        tokens = greedy(_stopping(next_logits, prompt, reserved), list(prompt), eoc, limit, reserved)
        holds(tokens is not None, "the result is None: a `return` is missing.")
        return whole_numbers(tokens)

    got = written(length + 4)
    holds(not set(got) & set(never), "a reserved id was written; set the logits in `never` to minus infinity.")
    holds(got[: len(prompt)] != prompt or got == answer, "return the new tokens alone, without the prompt.")
    holds(eoc not in got, "<EOC> ends the answer and is not part of it.")
    holds(got == answer, _("{got} was written, but the likeliest tokens were {answer}.").format(got=got, answer=answer))
    cut = written(length - 1)
    holds(
        len(cut) <= length - 1,
        _("{number} tokens were written, but the limit was {limit}.").format(number=len(cut), limit=length - 1),
    )
    holds(
        cut == answer[:-1],
        _("with a limit of {limit}, {cut} was written instead of {answer}.").format(
            limit=length - 1, cut=cut, answer=answer[:-1]
        ),
    )
    reserved = ()
    holds(written(length + 4) == answer, "with an empty `never` another text was written: then every id is allowed.")
    changed = any(not np.array_equal(now, then) for now, then in kept)
    holds(not changed, "the logits that you were handed have changed: work on a copy.")


def _stopping(next_logits, prompt, never):
    """The same, with an end: whoever writes on and on is stopped, and whoever writes a reserved id hears of it."""
    calls = []

    def ask(tokens):
        calls.append(len(tokens))
        holds(len(calls) < 50, "it never stops: `limit` is the largest number of new tokens.")
        reserved = set(tokens[len(prompt) :]) & set(never)
        holds(not reserved, "a reserved id was written; set the logits in `never` to minus infinity.")
        return next_logits(tokens)

    return ask


@check(
    "10.2",
    where="Keep one list. What must be in it when you ask question 2? Where do earlier questions and answers go?",
    formula="items = [picture]; for each question: append it, answer = ask(items), append the answer",
)
def check_10_2_hold_dialogue(hold_dialogue):
    """hold_dialogue(ask, picture, questions) -> list of answers."""
    rng = fresh_rng()
    picture = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    questions = [f"Question: {word}? Answer:" for word in rng.permutation(["what", "where", "who", "how"])[:3]]
    asked = []

    def ask(items):
        asked.append(list(items))
        return f"answer {len(asked)} of {rng.integers(1000)}."

    answers = []

    def keeping(items):
        answers.append(ask(items))
        return answers[-1]

    got = hold_dialogue(keeping, picture, list(questions))
    holds(got is not None, "the result is None: a `return` is missing.")
    holds(
        len(asked) == len(questions),
        _("the model was asked {times} times about {questions} questions.").format(
            times=len(asked), questions=len(questions)
        ),
    )
    for turn, items in enumerate(asked):
        pictures = [i for i, item in enumerate(items) if isinstance(item, np.ndarray)]
        holds(pictures, _("question {turn} was asked without the picture.").format(turn=turn + 1))
        holds(len(pictures) == 1, "the picture stands in the prompt once; a second one begins a new chunk.")
        holds(pictures == [0], "the picture comes first: text before it cannot see it.")
        hint = "the picture in the prompt is another one: the questions are about `picture`, as it is."
        holds(np.array_equal(items[0], picture), hint)
        said = _words(item for item in items if not isinstance(item, np.ndarray))
        for earlier in answers[:turn]:
            holds(
                earlier in said,
                _("at question {turn} an earlier answer is missing from the prompt.").format(turn=turn + 1),
            )
        for earlier in questions[: turn + 1]:
            holds(earlier in said, _("at question {turn} a question is missing from the prompt.").format(turn=turn + 1))
        want = [part for pair in zip(questions, answers[:turn], strict=False) for part in pair] + [questions[turn]]
        hint = "questions and answers must be in the order in which they were said, each once, with a space between."
        holds(said == _words(want), hint)
    holds(list(got) == answers, "return the answers, in order, as the model gave them.")


def _words(items):
    """The text of a prompt, however it is cut into strings."""
    return " ".join(" ".join(items).split())


@check(
    "10.3",
    where=(
        "Pick for each token the keys of its own medium, number phi - 1. Then it is a usual softmax over R. "
        "Set the rows of phi 0 to 0."
    ),
    formula="softmax over r of q[t, h] · k[phi[t] - 1, r, h] / sqrt(K), times (phi[t] > 0)",
)
def check_10_3_attention_weights(attention_weights):
    """attention_weights(q (T, H, K), k (M, R, H, K), phi (T,)) -> (T, H, R)."""
    rng = fresh_rng()
    T, M, R, H, K = 7, 3, int(rng.integers(4, 7)), int(rng.integers(2, 4)), int(rng.integers(5, 9))
    q, k = rng.standard_normal((T, H, K)), rng.standard_normal((M, R, H, K))
    phi = np.array([0, 1, 1, 2, 2, 3, 3])
    with np.errstate(all="ignore"):
        got = attention_weights(q, k, phi)
    shape_is(got, (T, H, R), "(T, H, R)", hint="Each token has weights over the R latents of one medium.")
    empty = np.asarray(got)[0]
    holds(not np.isnan(empty).any(), "a token with phi 0 has NaN: its row must be exactly 0.")
    holds(
        np.all(empty == 0), "a token with phi 0 looks at a picture; its row must be exactly 0, there is none before it."
    )
    want = _weights(q, k, phi, K**-0.5)
    before = np.concatenate([want[:1], _weights(q, k[np.arange(M) - 1], phi, K**-0.5)[1:]])
    clipped = _weights(q, k[np.minimum(np.arange(M) + 1, M - 1)], phi, K**-0.5)
    after = clipped if np.allclose(got, clipped) else _weights(q, k[(np.arange(M) + 1) % M], phi, K**-0.5)
    mistakes = {
        "Scores are divided by sqrt(K), the size of a head.": _weights(q, k, phi, 1.0),
        "Scores are divided by the square root of K, not by K.": _weights(q, k, phi, 1.0 / K),
        "A token looks at the wrong picture: phi counts from 1, the rows of k from 0.": after,
        "A token looks at the picture before its own.": before,
        "The weights of each head sum to 1 over the latents of one picture, not of all.": _over_all(q, k, phi),
    }
    value_is(got, want, what="the map", mistakes=mistakes)
    q[..., 0], k[..., 0] = np.resize([2e3, -2e3, -2e3, 2e3, -2e3], (T, H)) * K**0.5, 1.0  # exp ends at 709
    phi = np.maximum(phi - 1, 0)
    with np.errstate(all="ignore"):
        far = attention_weights(q, k, phi)
    holds(np.all(np.isfinite(far)), "exp overflows for large scores: subtract each row's largest score first.")
    hint = "The scores of a row are all around 2000 here, or all around -2000: subtract the row's own largest score."
    value_is(far, _weights(q, k, phi, K**-0.5), hint, what="the map")


def _weights(q, k, phi, scale):
    scores = np.einsum("thk,trhk->thr", q, k[np.maximum(phi, 1) - 1]) * scale
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) * (phi > 0)[:, None, None]


def _over_all(q, k, phi):
    scores = np.einsum("thk,mrhk->thmr", q, k) * q.shape[-1] ** -0.5
    e = np.exp(scores)
    e = e / e.sum((-1, -2), keepdims=True)
    return e[np.arange(len(q)), :, np.maximum(phi, 1) - 1] * (phi > 0)[:, None, None]


@check(
    "10.4",
    where=(
        "Both arrays have the axis R: sum over it. Which columns of latent_map belong to cells, and how many are they?"
    ),
    formula="S = latent_map.shape[1] - R; token_map @ latent_map[:, :S]",
)
def check_10_4_onto_cells(onto_cells):
    """onto_cells(token_map (T, R), latent_map (R, S + R)) -> (T, S)."""
    rng = fresh_rng()
    T, R = int(rng.integers(3, 6)), int(rng.integers(6, 9))
    S = R + int(rng.integers(2, 9))
    token_map = rng.dirichlet(np.ones(R), T)
    token_map[0] = 0.0
    latent_map = rng.dirichlet(np.ones(S + R), R)
    got = onto_cells(token_map, latent_map)
    hint = "The latents' own columns do not belong to the picture." if np.shape(got) == (T, S + R) else ""
    shape_is(got, (T, S), "(T, S)", hint=hint)
    want = token_map @ latent_map[:, :S]
    with np.errstate(all="ignore"):
        normalised = want / want.sum(-1, keepdims=True)
        share = latent_map[:, :S] / latent_map[:, :S].sum(-1, keepdims=True)
    message = _("What went to latents is left out, not shared out: rows need not sum to 1.")
    holds(not np.isnan(got).any(), _("a token that sees nothing has NaN. {message}").format(message=message))
    holds(not np.allclose(np.asarray(got)[1:], normalised[1:]), message)
    mistakes = {
        "The cells are the first S columns, the latents the last R.": token_map @ latent_map[:, R:],
        "Rows of the latents were made to sum to 1 over the cells; leave them as they are.": token_map @ share,
        "One latent after the other adds its share: sum over all R, do not take the strongest.": latent_map[
            token_map.argmax(-1), :S
        ],
    }
    value_is(got, want, what="the map", mistakes=mistakes)
