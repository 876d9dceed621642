"""Answers of a third round, by a stranger to the checks: of 501, those that a check judged wrongly at first, and those
that differ from every answer before.
"""

import functools
import itertools
import math

import numpy as np
from cards_more import card, softmax, turns, unit

# ---------------------------------------------------------------- 00 to 02


def copies(pictures, words, query):
    return turns([picture.copy() for picture in pictures], words, query.copy())


def without_dots(pictures, words, query):
    return turns(pictures, [word.rstrip(".") for word in words], query)


def order_behind(made_of, end):
    """Iterative, with a flag for names whose parts are done."""
    order, stack, done = [], [(end, False)], set()
    while stack:
        name, ready = stack.pop()
        if ready and name not in done:
            done.add(name)
            order.insert(0, name)
        elif name not in done:
            stack += [(name, True), *((part, False) for part in made_of.get(name, []))]
    return tuple(order)


def order_as_text(made_of, end):
    return "".join(order_behind(made_of, end))


def keys_only(made_of, end):
    return [name for name in order_behind(made_of, end) if name in made_of]


def half_steps(f, x, direction, eps=1e-5):
    return (f(x + eps / 2 * direction) - f(x - eps / 2 * direction)) / eps


def own_eps(f, x, direction, eps=1e-5):
    return (f(x + 1e-5 * direction) - f(x - 1e-5 * direction)) / 2e-5


def divides_by_own_eps(f, x, direction, eps=1e-5):
    return (f(x + eps * direction) - f(x - eps * direction)) / 2e-5


def one_by_one(f, x, direction, eps=1e-5):
    steps = eps * np.eye(x.size).reshape(x.size, *x.shape)
    return sum((f(x + step) - f(x - step)) / (2 * eps) for step in steps)


def fmax_kernel(x, out, slope):
    positive = np.fmax(x, 0)
    out[:], slope[:] = positive * positive, 2 * positive


def rows_kernel(x, out, slope):
    for m, row in enumerate(x):
        positive = np.where(row < 0, 0.0, row)
        out[m], slope[m] = positive**2, positive + positive


def by_wider_spread(w, gain):
    centred = w - w.mean((0, 1, 2))
    return gain * centred / (w.std((0, 1, 2), ddof=1) * math.sqrt(w[..., 0].size))


def betas_in_one_line(blocks, alpha):
    before = [0, *blocks]
    return np.sqrt([1 + (b or before[s]) * alpha**2 for s, n in enumerate(blocks) for b in range(n)])


def entries_cut(g, w, limit, eps=1e-3):
    length = np.maximum(np.sqrt((w**2).sum(tuple(range(g.ndim - 1)))), eps)
    return np.clip(g, -limit * length, limit * length)


# ---------------------------------------------------------------- 03 to 06


def by_pairs(pictures, captions, scale):
    cosines, total = scale * unit(pictures) @ unit(captions).T, 0.0
    for i, own in enumerate(np.diag(cosines)):
        total += math.log(sum(map(math.exp, cosines[i]))) + math.log(sum(map(math.exp, cosines[:, i]))) - 2 * own
    return total / len(cosines)


def one_side_unit(pictures, captions, scale):
    return by_pairs(pictures, captions * np.linalg.norm(captions, axis=1)[:, None], scale) * 1.3


def columns_turned(logits):
    return (softmax(logits, 1) + softmax(logits, 0).T - 2 * np.eye(len(logits))) / len(logits)


def upper_half(caption_ids):
    return np.triu(np.equal.outer(caption_ids, caption_ids), 1)


def votes(pictures, captions):
    nearest = np.einsum("bj,cpj->bcp", pictures, captions).argmax(1)
    return np.array([np.bincount(row, minlength=len(captions)).argmax() for row in nearest])


def between_frames(times, fps=1.0):
    """Places between two frames, whose whole part is right."""
    since = times - times[0]
    moments = np.arange(int(since[-1] * fps) + 1) / fps
    return [int(np.argmax(since >= moment)) + 0.25 for moment in moments]


def gap_after_gap(times, fps=1.0):
    taken = [0]
    for n in range(1, len(times)):
        if times[n] - times[taken[-1]] >= 1 / fps:
            taken.append(n)
    return taken


def hats(trained, F):
    return np.maximum(1 - np.abs(np.linspace(0, trained - 1, F)[:, None] - np.arange(trained)), 0)


def stretched_by_hats(table, F):
    return hats(len(table), F) @ table


def stretched_backwards(table, F):
    return hats(len(table), F)[::-1] @ table


def gradient_by_hats(g, trained):
    return hats(trained, len(g)).T @ g


def shrunk(g, trained):
    return hats(len(g), trained) @ g


def each_without_itself(latents, features, w_q, w_k, w_v):
    rows = []
    for r, latent in enumerate(latents):
        seen = np.vstack([features, np.delete(latents, r, 0)])
        rows.append(softmax((latent @ w_q) @ (seen @ w_k).T / math.sqrt(w_q.shape[1])) @ (seen @ w_v))
    return rows


def eps_as_a_floor(x, gain, eps=1e-6):
    return x / np.sqrt(np.maximum(np.mean(x * x, -1, keepdims=True), eps)) * gain


def first_axis_of_a_batch(x, gain, eps=1e-6):
    axis = 1 if x.ndim > 1 else 0
    return x / np.sqrt(np.mean(x * x, axis=axis, keepdims=True) + eps) * gain


def shifted_scores(q, k, r, u, v):
    """Transformer-XL's own shift."""
    T, K = q.shape
    far = np.hstack([np.zeros((T, 1)), (q + v) @ r[::-1].T]).reshape(T + 1, T)[1:]
    scores = ((q + u) @ k.T + far) / math.sqrt(K)
    scores[np.triu_indices(T, 1)] = -np.inf
    return scores


def itself_hidden(q, k, r, u, v):
    scores = shifted_scores(q, k, r, u, v)
    np.fill_diagonal(scores, -np.inf)
    return scores


def halves_the_interval(C, A, B, alpha, beta):
    low, high = 0.0, math.log(C / 6)
    for _ in range(200):
        middle = (low + high) / 2
        slope = beta * B * math.exp(beta * middle) * (6 / C) ** beta - alpha * A * math.exp(-alpha * middle)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(low), C / 6 / math.exp(low)


def twenty_tokens(C, A, B, alpha, beta):
    return math.sqrt(C / 120), 20 * math.sqrt(C / 120)


# ---------------------------------------------------------------- 07 to 09


def ends_after_text_only(items):
    row = ["<BOS>"]
    for place, item in enumerate(items):
        row += ["<EOC>", item] if item == "image" and place else [item]
    return row + ["<EOC>"] * (items[-1] == "text")


def by_triangle(is_image):
    return is_image.astype(int) @ np.triu(np.ones((is_image.shape[-1],) * 2, int))


def flat_sum(is_image):
    return np.cumsum(is_image).reshape(is_image.shape)


def one_hot_mask(phi, N, R):
    return np.eye(N + 1, dtype=bool)[phi][:, 1:].repeat(R, axis=1)


def wraps_to_the_last(phi, N, R):
    return np.eye(N, dtype=bool)[phi - 1].repeat(R, axis=1)


def row_by_row(scores, visible):
    out = np.zeros(scores.shape)
    for place in np.ndindex(scores.shape[:-1]):
        if visible[place].any():
            out[place][visible[place]] = softmax(scores[place][visible[place]])
    return out


def scores_cut(scores, visible):
    return row_by_row(np.clip(scores, -30, 30), visible)


def less_fifty(scores, visible):
    return softmax(np.where(visible, scores, scores - 50)) * visible.any(-1, keepdims=True)


def never_below_one(is_image):
    return np.minimum(np.cumsum(is_image) - is_image + 1, max(is_image.sum(), 1))


def hard_gate(h, branch, alpha):
    return h + np.clip(alpha, -1, 1) * branch


def attends_twice(h, attend, dense, a, b):
    for _ in range(2):
        h = h + np.tanh(a) * attend(h)
    return h + np.tanh(b) * dense(h)


def shut(params, change=lambda array: array):
    def part(block):
        return {k: np.zeros_like(v) if k.startswith("alpha") else change(v) for k, v in block.items()}

    return {name: part(block) if isinstance(block, dict) else block for name, block in params.items()}


def shut_in_float64(params):
    return shut(params, lambda array: array.astype(np.float64))


def slope_by_cosh(g, branch, alpha):
    return g.copy(), np.tanh(alpha) * g, np.vdot(g, branch) / np.cosh(alpha) ** 2


def product_of_sums(g, branch, alpha):
    return g, np.tanh(alpha) * g, (1 - np.tanh(alpha) ** 2) * np.sum(g) * np.sum(branch)


def medians(slopes, push):
    return -np.sign(np.median(slopes, axis=0)) * push


def averages(losses, weights, datasets, lambdas):
    total = 0.0
    for number, share in enumerate(lambdas):
        own = (datasets == number) & (weights > 0)
        total += share * np.average(losses[own], weights=weights[own]) if own.any() else 0.0
    return float(total)


def targets_moved(logits, targets, shares):
    one_hot = np.eye(logits.shape[-1])[np.roll(targets, -1, axis=1)]
    return (softmax(logits) - one_hot) * shares[..., None]


def reduced(gradient_of, batches, lambdas):
    return functools.reduce(np.add, (w * gradient_of(batch) for batch, w in zip(batches, lambdas, strict=True)))


def first_is_theirs(gradient_of, batches, lambdas):
    total = gradient_of(batches[0])
    total *= lambdas[0]
    for batch, weight in zip(batches[1:], lambdas[1:], strict=True):
        total += weight * gradient_of(batch)
    return total


def to_the_limit(gradients, limit):
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
    return {name: g * limit / norm for name, g in gradients.items()}


# ---------------------------------------------------------------- 10 to 12


def recursion(next_logits, prompt, eoc, limit, never=()):
    if limit == 0:
        return []
    logits = next_logits(prompt)
    best = max(set(range(len(logits))) - set(never), key=lambda i: logits[i])
    return [] if best == eoc else [best, *recursion(next_logits, [*prompt, best], eoc, limit - 1, never)]


def samples(next_logits, prompt, eoc, limit, never=()):
    rng, tokens = np.random.default_rng(), list(prompt)
    for _ in range(limit):
        logits = np.array(next_logits(tokens))
        logits[list(never)] = -np.inf
        token = int(rng.choice(len(logits), p=softmax(logits)))
        if token == eoc:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def dialogue(ask, picture, questions):
    items, answers = [picture], []
    for question in questions:
        items.append(question)
        answers.append(ask(items))
        items.append(answers[-1])
    return answers


def copied_picture(ask, picture, questions):
    return tuple(dialogue(ask, picture.copy(), questions))


def black_picture(ask, picture, questions):
    return dialogue(ask, np.zeros_like(picture), questions)


def last_turn_only(ask, picture, questions):
    answers = []
    for turn, question in enumerate(questions):
        before = [questions[turn - 1], answers[-1]] if turn else []
        answers.append(ask([picture, *before, question]))
    return answers


def over_heads(q, k, phi):
    own = k[np.maximum(phi, 1) - 1]
    return softmax(np.einsum("thk,trhk->thr", q, own) / math.sqrt(q.shape[-1]), 1) * (phi > 0)[:, None, None]


def latents_deleted(token_map, latent_map):
    return np.delete(token_map @ latent_map, np.s_[-len(latent_map) :], axis=1)


def onto_cells_twice(token_map, latent_map):
    R = len(latent_map)
    return (token_map + token_map @ latent_map[:, -R:]) @ latent_map[:, :-R]


def by_roots(hits, z=1.96):
    n, share = len(hits), np.mean(hits)
    return sorted(np.roots([1 + z * z / n, -2 * share - z * z / n, share * share]).real)


def one_less(hits, z=1.96):
    n, share = len(hits) - 1, np.mean(hits)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [(share + z * z / (2 * n) + way * half) / (1 + z * z / n) for way in (-1, 1)]


def classes_by_distance(support, labels, queries):
    means = [support[labels == c].mean(axis=0) for c in sorted(set(labels.tolist()))]
    return [int(np.argmin([np.linalg.norm(query - mean) for mean in means])) for query in queries]


def rescaled(support, labels, queries):
    spread = support.std(axis=0)
    return classes_by_distance(support / spread, labels, queries / spread)


def three_nearest(support, labels, queries):
    near = [labels[np.argsort(((query - support) ** 2).sum(1))[:3]] for query in queries]
    return np.array([np.bincount(own).argmax() for own in near])


def sigmoids(X, labels, W, decay):
    return X.T @ (1 / (1 + np.exp(-X @ W)) - np.eye(W.shape[1])[labels]) / len(X) + decay * W


def by_unit_distance(query, support, k):
    return np.argsort(-np.linalg.norm(unit(support) - unit(query), axis=1))[-k:].tolist()


def without_the_best(query, support, k):
    return np.argsort(unit(support) @ query)[-k - 1 : -1]


def every_other(layers, every):
    return itertools.islice(range(layers), 0, None, every)


def halfway(layers, every):
    return [number + 0.5 for number in range(0, layers, every)]


CARDS = [
    card("00.2", "few_shot_prompt", wrong=[(without_dots, "word of another")], right=[copies]),
    card(
        "01.1",
        "way_back",
        wrong=[(order_as_text, "one string; a list"), (keys_only, r"\. \w is missing\.")],
        right=[order_behind],
    ),
    card(
        "01.4",
        "measured_slope",
        wrong=[
            (own_eps, "eps is an argument"),
            (divides_by_own_eps, "eps is an argument"),
            (one_by_one, "along ones"),
        ],
        right=[half_steps],
    ),
    card("01.5", "kernel", wrong=[(fmax_kernel, "NaN goes in")], right=[rows_kernel]),
    card("02.1", "standardise", wrong=[(by_wider_spread, "Compare with the loops")]),
    card("02.4", "betas", right=[betas_in_one_line]),
    card("02.5", "clip_by_unit", wrong=[(entries_cut, "Each unit by itself")]),
    card("03.1", "contrastive_loss", wrong=[(one_side_unit, "Compare with the loops")], right=[by_pairs]),
    card("03.2", "logits_gradient", wrong=[(columns_turned, "Moving the logits")]),
    card("03.3", "duplicates", wrong=[(upper_half, "captions 0 and 3")]),
    card("03.4", "zero_shot", wrong=[(votes, "largest cosine")]),
    card("04.1", "frames_to_take", wrong=[(between_frames, "not whole"), (gap_after_gap, "first frame|moments|pause")]),
    card("04.2", "stretch", wrong=[(stretched_backwards, "Row by place")], right=[stretched_by_hats]),
    card("04.3", "stretch_gradient", wrong=[(shrunk, "Moving the table")], right=[gradient_by_hats]),
    card("05.1", "look", wrong=[(each_without_itself, "line by line")]),
    card("06.1", "rms_norm", wrong=[(eps_as_a_floor, "argument eps"), (first_axis_of_a_batch, "loops|last axis")]),
    card("06.4", "relative_scores", wrong=[(itself_hidden, "token itself")], right=[shifted_scores]),
    card("06.5", "optimal", wrong=[(twenty_tokens, "model of the same budget")], right=[halves_the_interval]),
    card("07.1", "with_marks", wrong=[(ends_after_text_only, "The last chunk ends")]),
    card("07.2", "phi", wrong=[(flat_sum, "counts for itself")], right=[by_triangle]),
    card("07.3", "mask", wrong=[(wraps_to_the_last, r"sees image \d: it may see nothing")], right=[one_hot_mask]),
    card(
        "07.4",
        "masked_softmax",
        wrong=[(scores_cut, "scores around 2000"), (less_fifty, "exactly 0")],
        right=[row_by_row],
    ),
    card("07.5", "phi_next", wrong=[(never_below_one, "page without images")]),
    card("08.1", "gate", wrong=[(hard_gate, "alpha is|alpha itself")]),
    card("08.2", "block", wrong=[(attends_twice, "one addition after the other")]),
    card("08.3", "shut_gates", wrong=[(shut_in_float64, "w_o has changed|latents has changed")], right=[shut]),
    card("08.4", "gate_backward", wrong=[(product_of_sums, "move it a little")], right=[slope_by_cosh]),
    card("08.5", "first_move", wrong=[(medians, "average the gradients")]),
    card("09.1", "mixture_loss", right=[averages]),
    card("09.2", "logits_gradient", wrong=[(targets_moved, "one token by hand")]),
    card("09.3", "accumulate", wrong=[(first_is_theirs, "write into the array itself")], right=[reduced]),
    card("09.4", "clip_globally", wrong=[(to_the_limit, "left as it is")]),
    card("10.1", "greedy", wrong=[(samples, "chosen behind|likeliest|limit of")], right=[recursion]),
    card(
        "10.2",
        "hold_dialogue",
        wrong=[(black_picture, "is another one"), (last_turn_only, "earlier answer is missing")],
        right=[copied_picture],
    ),
    card("10.3", "attention_weights", wrong=[(over_heads, "the map is")]),
    card("10.4", "onto_cells", wrong=[(onto_cells_twice, "the map is")], right=[latents_deleted]),
    card("11.1", "wilson", wrong=[(one_less, "into the quadratic")], right=[by_roots]),
    card(
        "11.2",
        "classify",
        wrong=[(rescaled, "the class is"), (three_nearest, "the class is")],
        right=[classes_by_distance],
    ),
    card("11.3", "probe_gradient", wrong=[(sigmoids, "the gradient is")]),
    card("11.4", "rices", wrong=[(without_the_best, "the choice is")], right=[by_unit_distance]),
    card("12.3", "gated_positions", wrong=[(halfway, "not whole")], right=[every_other]),
]
