"""Answers that nobody had in mind when the checks were written: right in other ways, and wrong in new ways."""

import itertools
import math
from fractions import Fraction

import numpy as np
from card import Card

from tinyflamingo import checks


def card(key, name, wrong=(), right=()):
    return Card(key, getattr(checks, f"check_{key.replace('.', '_')}_{name}"), list(wrong), list(right))


# ---------------------------------------------------------------- 00


def many(frames, side, latents, cells):
    return frames * cells**2, frames * cells**2 + latents, latents


def turns(pictures, words, query):
    prompt = [None] * (2 * len(pictures))
    prompt[::2], prompt[1::2] = pictures, words
    return prompt + [query]


def words_turned(pictures, words, query):
    return turns(pictures, words[::-1], query)


def query_with_a_word(pictures, words, query):
    return [*turns(pictures, words, query), words[0]]


def pops(pictures, words, query):
    prompt = []
    while pictures:
        prompt += [pictures.pop(0), words.pop(0)]
    return [*prompt, query]


# ---------------------------------------------------------------- 01


def kahn(made_of, end):
    needed, waiting = set(), [end]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += made_of.get(name, [])
    uses = dict.fromkeys(needed, 0)
    for name in needed:
        for part in made_of.get(name, []):
            uses[part] += 1
    order, free = [], [end]
    while free:
        name = free.pop()
        order.append(name)
        for part in made_of.get(name, []):
            uses[part] -= 1
            if uses[part] == 0:
                free.append(part)
    return order


def by_depth(made_of, end):
    """Right: the longest way from the end orders the names."""
    depth = {end: 0}
    for _ in range(len(made_of) + 2):
        for name in list(depth):
            for part in made_of.get(name, ()):
                depth[part] = max(depth.get(part, 0), depth[name] + 1)
    return sorted(depth, key=depth.get)


def by_shortest_way(made_of, end):
    depth, waiting = {end: 0}, [end]
    while waiting:
        name = waiting.pop(0)
        for part in made_of.get(name, ()):
            if part not in depth:
                depth[part] = depth[name] + 1
                waiting.append(part)
    return sorted(depth, key=depth.get)


def without_end(made_of, end):
    return kahn(made_of, end)[1:]


def jacobian(g, w):
    rows_g, rows_w = np.atleast_2d(g, w) if np.ndim(g) == 1 else (g, w)
    out = np.stack([(np.diag(p) - np.outer(p, p)) @ a for a, p in zip(rows_g, rows_w, strict=True)])
    return out.reshape(np.shape(g))


def four_points(f, x, direction, eps=1e-3):
    near, far = (f(x + s * direction) - f(x - s * direction) for s in (eps, 2 * eps))
    return (8 * near - far) / (12 * eps)


def backward_difference(f, x, direction, eps=1e-5):
    return (f(x) - f(x - eps * direction)) / eps


def not_divided(f, x, direction, eps=1e-5):
    return f(x + eps * direction) - f(x - eps * direction)


def moves_x(f, x, direction, eps=1e-5):
    x += eps * direction
    high = f(x)
    x -= 2 * eps * direction
    return (high - f(x)) / (2 * eps)


def whole_arrays(x, out, slope):
    np.maximum(x, 0, out=slope)
    np.multiply(slope, slope, out=out)
    np.multiply(slope, 2, out=slope)


def half_the_rows(x, out, slope):
    whole_arrays(x[::2], out[::2], slope[::2])


def exchanged_arrays(x, out, slope):
    whole_arrays(x, slope, out)


# ---------------------------------------------------------------- 02


def by_reshape(w, gain):
    flat = w.reshape(-1, w.shape[-1])
    flat = (flat - flat.mean(0)) / (flat.std(0) * np.sqrt(len(flat)))
    return (flat * gain).reshape(w.shape)


def over_space_only(w, gain):
    c = w - w.mean((0, 1))
    return gain * c / np.sqrt(np.sum(c**2, axis=(0, 1)))


def gradient_in_one_projection(w, gain, a):
    shape, flat, b = w.shape, w.reshape(-1, w.shape[-1]), a.reshape(-1, w.shape[-1])
    c = flat - flat.mean(0)
    n = np.linalg.norm(c, axis=0)
    b = b - b.mean(0)
    return (gain / n * (b - c * (c * b).sum(0) / n**2)).reshape(shape)


def two_means(w, gain, a):
    return gradient_in_one_projection(w, np.ones_like(gain), a)


def running_betas(blocks, alpha):
    return np.concatenate([
        [1.0 if s == 0 else math.sqrt(1 + blocks[s - 1] * alpha**2)]
        + [math.sqrt(1 + b * alpha**2) for b in range(1, n)]
        for s, n in enumerate(blocks)
    ])  # fmt: skip


def what_goes_out(blocks, alpha):
    return [math.sqrt(1 + (b + 1) * alpha**2) for n in blocks for b in range(n)]


def clip_in_loops(g, w, limit, eps=1e-3):
    out = np.array(g)
    for o in range(g.shape[-1]):
        n = np.linalg.norm(g[..., o])
        allowed = limit * max(np.linalg.norm(w[..., o]), eps)
        if n > allowed:
            out[..., o] *= allowed / n
    return out


def first_axis(g, w, limit, eps=1e-3):
    axes = tuple(range(1, g.ndim))
    n, m = (np.sqrt(np.sum(x**2, axis=axes, keepdims=True)) for x in (g, w))
    return g * np.minimum(1, limit * np.maximum(m, eps) / np.maximum(n, 1e-12))


def divides_by_zero(g, w, limit, eps=1e-3):
    axes = tuple(range(g.ndim - 1))
    n, m = (np.sqrt(np.sum(x**2, axis=axes)) for x in (g, w))
    with np.errstate(all="ignore"):
        return g * np.minimum(1, limit * np.maximum(m, eps) / n)


# ---------------------------------------------------------------- 03


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def loss_in_loops(pictures, captions, scale):
    logits = scale * unit(captions) @ unit(pictures).T
    pairs = [
        2 * logits[i, i] - np.logaddexp.reduce(logits[i]) - np.logaddexp.reduce(logits[:, i])
        for i in range(len(logits))
    ]
    return -sum(pairs) / len(pairs)


def negative_loss(pictures, captions, scale):
    return -loss_in_loops(pictures, captions, scale)


def own_left_out(pictures, captions, scale):
    logits = scale * unit(pictures) @ unit(captions).T
    others = np.where(np.eye(len(logits)) > 0, -np.inf, logits)
    return np.mean([2 * logits[i, i] - np.logaddexp.reduce(others[i]) - np.logaddexp.reduce(others[:, i])
                    for i in range(len(logits))]) * -1  # fmt: skip


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def by_two_softmaxes(logits):
    return (softmax(logits, 1) + softmax(logits, 0) - 2 * np.identity(len(logits))) / len(logits)


def half_of_it(logits):
    return by_two_softmaxes(logits) / 2


def rows_twice(logits):
    return 2 * (softmax(logits, 1) - np.identity(len(logits))) / len(logits)


def duplicates_in_loops(ids):
    return np.array([[a == b and i != j for j, b in enumerate(ids)] for i, a in enumerate(ids)])


def first_ones_stay(ids):
    return np.array([[a == b and j > 0 and i != j for j, b in enumerate(ids)] for i, a in enumerate(ids)])


def different_ones(ids):
    return ids[:, None] != ids


def by_distance_to_unit(pictures, captions):
    c = unit(captions.mean(1))
    return ((pictures[:, None] - c) ** 2).sum(-1).argmin(-1)


def by_distance_to_mean(pictures, captions):
    return ((pictures[:, None] - captions.mean(1)) ** 2).sum(-1).argmin(-1)


def the_cosines(pictures, captions):
    return (pictures @ unit(captions.mean(1)).T).max(1)


# ---------------------------------------------------------------- 04


def searched(times, fps=1.0):
    since = times - times[0]
    moments = np.arange(0, math.floor(since[-1] * fps) + 1) / fps
    return np.searchsorted(since, moments)


def walked(times, fps=1.0):
    frames, moment = [], 0
    for n, t in enumerate(times):
        if t - times[0] >= moment / fps:
            frames.append(n)
            moment += 1
    return frames


def walked_on(times, fps=1.0):
    """Not `walked`: one frame can be the first after several moments."""
    frames = []
    for n, t in enumerate(times):
        while t - times[0] >= len(frames) / fps:
            frames.append(n)
    return frames


def only_after(times, fps=1.0):
    return np.searchsorted(times - times[0], searched_moments(times, fps), side="right")


def searched_moments(times, fps):
    return np.arange(0, math.floor((times[-1] - times[0]) * fps) + 1) / fps


def times_themselves(times, fps=1.0):
    return [times[n] for n in searched(times, fps)]


def interpolated(table, F):
    places = np.arange(F) * (len(table) - 1) / (F - 1)
    return np.stack([np.interp(places, np.arange(len(table)), column) for column in table.T], axis=1)


def repeated(table, F):
    return table[np.arange(F) * len(table) // F]


def one_column_for_all(table, F):
    return np.repeat(interpolated(table[:, :1], F), table.shape[1], axis=1)


def as_a_matrix(g, trained):
    return interpolated(np.eye(trained), len(g)).T @ g


def as_a_mean(g, trained):
    matrix = interpolated(np.eye(trained), len(g)).T
    return matrix @ g / matrix.sum(1, keepdims=True)


def nearest_row(g, trained):
    out = np.zeros((trained, g.shape[1]))
    np.add.at(out, np.round(np.linspace(0, trained - 1, len(g))).astype(int), g)
    return out


# ---------------------------------------------------------------- 05


def latent_after_latent(latents, features, w_q, w_k, w_v):
    rows = np.vstack([latents, features])  # the order of what is seen does not count
    keys, values = rows @ w_k, rows @ w_v
    return [softmax(keys @ (latent @ w_q) / math.sqrt(w_q.shape[1])) @ values for latent in latents]


def scaled_by_width(latents, features, w_q, w_k, w_v):
    rows = np.vstack([features, latents])
    return softmax((latents @ w_q) @ (rows @ w_k).T / math.sqrt(len(w_q))) @ (rows @ w_v)


def values_are_keys(latents, features, w_q, w_k, w_v):
    return latent_after_latent(latents, features, w_q, w_k, w_k)


def in_a_list(features, time, latents):
    return [
        np.concatenate([*(frame + stamp for frame, stamp in zip(medium, time, strict=True)), own])
        for medium, own in zip(features, latents, strict=True)
    ]


def time_for_latents_too(features, time, latents):
    return np.asarray(in_a_list(features, time, latents + time[0]))


def time_twice(features, time, latents):
    return np.asarray(in_a_list(features, 2 * time, latents))


def price_of_add_and_multiply(T, S, H, K):
    return np.array([H * (T * S * K + T * S * K) * 2, H * T * S * np.dtype(np.float32).itemsize])


def price_turned(T, S, H, K):
    return price_of_add_and_multiply(T, S, H, K)[::-1]


def by_einsum(p, g, w_v, S):
    both = np.einsum("rs,rk,dk->sd", p, g, w_v)
    return [both[:S], both[S:]]


def by_outer_sums(p, g, w_v, S):
    back = g @ w_v.T
    rows = [sum(p[r, s] * back[r] for r in range(len(p))) for s in range(p.shape[1])]
    return np.array(rows[:S]), np.array(rows[S:])


def of_the_values(p, g, w_v, S):
    return (p.T @ g)[:S], (p.T @ g)[S:]


def mean_over_latents(p, g, w_v, S):
    a, b = by_einsum(p, g, w_v, S)
    return a / len(p), b / len(p)


# ---------------------------------------------------------------- 06


def norm_by_power(x, gain, eps=1e-6):
    return gain * x * (np.square(x).mean(-1)[..., None] + eps) ** -0.5


def norm_by_length(x, gain, eps=1e-6):
    D = x.shape[-1]
    return gain * x * math.sqrt(D) / np.sqrt(np.linalg.norm(x, axis=-1, keepdims=True) ** 2 + D * eps)


def fixed_eps(x, gain, eps=1e-6):
    return norm_by_power(x, gain, 1e-6)


def gain_inside(x, gain, eps=1e-6):
    return norm_by_power(x * gain, np.ones_like(gain), eps)


def matrices_of_derivatives(x, gain, g, eps=1e-6):
    out = []
    for row, a in zip(x, g * gain, strict=True):
        r = math.sqrt(np.mean(row * row) + eps)
        out.append((np.eye(len(row)) / r - np.outer(row, row) / (len(row) * r**3)) @ a)
    return np.array(out)


def r_squared(x, gain, g, eps=1e-6):
    a, r = g * gain, np.sqrt(np.mean(x * x, -1, keepdims=True) + eps)
    return a / r - x * (a * x).mean(-1, keepdims=True) / r**2


def mean_over_everything(x, gain, g, eps=1e-6):
    a, r = g * gain, np.sqrt(np.mean(x * x, -1, keepdims=True) + eps)
    return a / r - x * np.mean(a * x) / r**3


def complex_waves(S, D):
    z = np.exp(1j * np.outer(np.arange(S), 10000.0 ** (-np.arange(0, D, 2) / D)))
    return np.hstack([z.imag, z.real])


def without_powers(S, D):
    return np.hstack(
        [np.sin(np.outer(np.arange(S), np.arange(D // 2))), np.cos(np.outer(np.arange(S), np.arange(D // 2)))]
    )


def transposed_waves(S, D):
    return complex_waves(D, S + S % 2)


def scores_in_loops(q, k, r, u, v):
    T, K = q.shape
    return [
        [((q[i] + u) @ k[j] + (q[i] + v) @ r[i - j]) / math.sqrt(K) if j <= i else -math.inf for j in range(T)]
        for i in range(T)
    ]


def large_negative(q, k, r, u, v):
    return np.nan_to_num(np.array(scores_in_loops(q, k, r, u, v)), neginf=-1e9)


def only_far(q, k, r, u, v):
    return scores_in_loops(q, 0 * k, r, u, v)


def by_logarithms(C, A, B, alpha, beta):
    log_n = (math.log(alpha * A) - math.log(beta * B) + beta * math.log(C / 6)) / (alpha + beta)
    return np.array([math.exp(log_n), C / 6 * math.exp(-log_n)])


def turned(C, A, B, alpha, beta):
    return by_logarithms(C, A, B, alpha, beta)[::-1]


# ---------------------------------------------------------------- 07


def marks_by_joining(items):
    row = list(itertools.chain.from_iterable(["<EOC>", x] if x == "image" else [x] for x in items))
    return ["<BOS>", *row[items[:1] == ["image"] :], "<EOC>"]


def one_mark_for_two_images(items):
    row = ["<BOS>"]
    for i, item in enumerate(items):
        row += ["<EOC>"] * (item == "image" and i > 0 and items[i - 1] != "image") + [item]
    return [*row, "<EOC>"]


def a_string(items):
    return " ".join(marks_by_joining(items))


def phi_by_sum(is_image):
    T = is_image.shape[-1]
    return is_image @ np.triu(np.ones((T, T), int))


def phi_along_the_first_axis(is_image):
    return np.cumsum(is_image, axis=0)


def phi_is_true(is_image):
    return np.logical_or.accumulate(is_image, axis=-1).astype(int)


def by_kron(phi, N, R):
    return np.kron(phi[:, None] == np.arange(1, N + 1), np.ones((1, R))) > 0


def by_division(phi, N, R):
    return phi[:, None] - 1 == np.arange(N * R)[None] // R


def turned_mask(phi, N, R):
    return by_kron(phi, N, R).T


def first_token_only(phi, N, R):
    return by_kron(phi, N, R) & (np.arange(N * R) % R == 0)


def visible_softmax(scores, visible):
    covered = np.where(visible, scores, -np.inf)
    top = covered.max(-1, keepdims=True)
    e = np.exp(covered - np.where(np.isfinite(top), top, 0))
    return np.divide(e, e.sum(-1, keepdims=True), out=np.zeros_like(e), where=visible)


def maximum_over_hidden(scores, visible):
    e = np.exp(scores - scores.max(-1, keepdims=True)) * visible
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def covers_in_place(scores, visible):
    scores[~visible] = -1e9
    return visible_softmax(scores, visible)


def softmax_by_rows(scores, visible):
    out = np.zeros(scores.shape)
    for i, (row, see) in enumerate(zip(scores, visible, strict=True)):
        if see.any():
            out[i, see] = softmax(row[see])
    return out


def equal_shares(scores, visible):
    return visible / np.maximum(visible.sum(-1, keepdims=True), 1)


def turned_round(is_image):
    backwards = np.cumsum(is_image[::-1])[::-1]  # tags at the token or behind it
    N = is_image.sum()
    return np.where(backwards > 0, N - backwards + 1, N)


def by_search(is_image):
    tags = np.flatnonzero(is_image)
    return np.minimum(np.searchsorted(tags, np.arange(len(is_image))) + 1, len(tags))


def zero_at_the_end(is_image):
    numbers = by_search(is_image)
    numbers[np.cumsum(is_image) == is_image.sum()] = 0
    return numbers


# ---------------------------------------------------------------- 08


def gate_by_exp(h, branch, alpha):
    e = np.exp(2 * alpha)
    return np.add(np.multiply(branch, (e - 1) / (e + 1)), h)


def gate_of_size(h, branch, alpha):
    return h + np.tanh(abs(alpha)) * branch


def gate_in_place(h, branch, alpha):
    h += np.tanh(alpha) * branch
    return h


def h_is_missing(h, branch, alpha):
    return np.tanh(alpha) * branch


def gate_on_the_text(h, branch, alpha):
    return np.tanh(alpha) * h + branch


def block_by_gates(h, attend, dense, alpha_xattn, alpha_dense):
    return gate_by_exp(*(lambda x: (x, dense(x), alpha_dense))(gate_by_exp(h, attend(h), alpha_xattn)))


def block_of_size(h, attend, dense, a, b):
    h = gate_of_size(h, attend(h), a)
    return gate_of_size(h, dense(h), b)


def block_without_tanh(h, attend, dense, a, b):
    h = h + a * attend(h)
    return h + b * dense(h)


def block_in_place(h, attend, dense, a, b):
    h += np.tanh(a) * attend(h)
    return h + np.tanh(b) * dense(h)


def returns_attention_only(h, attend, dense, a, b):
    return h + np.tanh(a) * attend(h)


def shuts_in_a_deep_copy(params):
    import copy

    new = copy.deepcopy(params)
    for name in new:
        if name.startswith("xattn_"):
            for gate in new[name]:
                if gate.startswith("alpha"):
                    new[name][gate][...] = 0
    return new


def shuts_with_ints(params):
    return {k: {**v, "alpha_xattn": 0, "alpha_dense": 0} if "xattn" in k else v for k, v in params.items()}


def shuts_with_vectors(params):
    zero = np.zeros(1, np.float32)
    return {k: {**v, "alpha_xattn": zero, "alpha_dense": zero} if "xattn" in k else v for k, v in params.items()}


def gate_gradient(g, branch, alpha):
    return [g.copy(), g * np.tanh(alpha), np.vdot(g, branch) / np.cosh(alpha) ** 2]


def gate_gradient_of_size(g, branch, alpha):
    dh, dbranch, dalpha = gate_gradient(g, branch, abs(alpha))
    return dh, dbranch, dalpha


def gate_gradient_turned(g, branch, alpha):
    return gate_gradient(g, branch, alpha)[::-1]


def gate_gradient_mean(g, branch, alpha):
    dh, dbranch, dalpha = gate_gradient(g, branch, alpha)
    return dh, dbranch, dalpha / g.size


def gate_gradient_of_array(g, branch, alpha):
    dh, dbranch, dalpha = gate_gradient(g, branch, alpha)
    return dh, dbranch, np.array([dalpha])


def move_by_sum(slopes, push):
    return np.where(slopes.sum(0) > 0, -push, push)


def move_by_largest(slopes, push):
    return -push * np.ones(slopes.shape[1])


def move_by_last(slopes, push):
    return -np.sign(slopes[0]) * push


# ---------------------------------------------------------------- 09


def mixture_by_counts(losses, weights, datasets, lambdas):
    n = len(lambdas)
    keep = (datasets >= 0) & (weights > 0)
    sums = np.bincount(datasets[keep], losses[keep], n)
    return float(np.dot(lambdas, sums / np.maximum(np.bincount(datasets[keep], minlength=n), 1)))


def padding_is_the_last(losses, weights, datasets, lambdas):
    return mixture_by_counts(losses, weights, datasets % len(lambdas), lambdas)


def divided_by_lambdas(losses, weights, datasets, lambdas):
    return mixture_by_counts(losses, weights, datasets, lambdas) / sum(lambdas)


def gradient_by_onehot(logits, targets, shares):
    onehot = np.arange(logits.shape[-1]) == targets[..., None]
    return (softmax(logits) - onehot) * np.expand_dims(shares, -1)


def over_the_wrong_axis(logits, targets, shares):
    onehot = np.arange(logits.shape[-1]) == targets[..., None]
    return (softmax(logits, 1) - onehot) * shares[..., None]


def divided_by_all(logits, targets, shares):
    return gradient_by_onehot(logits, targets, shares / shares.sum())


def accumulate_by_dot(gradient_of, batches, lambdas):
    return np.array(lambdas) @ np.stack([gradient_of(b) for b in batches])


def accumulate_in_a_list(gradient_of, batches, lambdas):
    total = 0
    for batch, weight in zip(batches, lambdas, strict=True):
        gradient = gradient_of(batch).copy()
        gradient *= weight
        total = total + gradient
    return list(total)


def asks_twice(gradient_of, batches, lambdas):
    return sum(w * (gradient_of(b) + gradient_of(b)) / 2 for b, w in zip(batches, lambdas, strict=True))


def scales_theirs(gradient_of, batches, lambdas):
    total = 0
    for batch, weight in zip(batches, lambdas, strict=True):
        gradient = gradient_of(batch)
        gradient *= weight
        total = total + gradient
    return total


def clip_by_flat_norm(gradients, limit):
    norm = np.linalg.norm(np.concatenate([g.ravel() for g in gradients.values()]))
    return {name: g if norm <= limit else g * (limit / norm) for name, g in gradients.items()}


def clip_by_sum_of_norms(gradients, limit):
    norm = sum(np.linalg.norm(g) for g in gradients.values())
    return {name: g * min(1, limit / norm) for name, g in gradients.items()}


def clip_in_place(gradients, limit):
    for name, g in clip_by_flat_norm(gradients, limit).items():
        gradients[name] = g
    return gradients


def clip_to_a_list(gradients, limit):
    return list(clip_by_flat_norm(gradients, limit).values())


# ---------------------------------------------------------------- 10


def greedy_by_sorting(next_logits, prompt, eoc, limit, never=()):
    new = []
    while len(new) < limit:
        order = np.argsort(next_logits(prompt + new))[::-1]
        best = next(int(t) for t in order if t not in never)
        if best == eoc:
            return new
        new.append(best)
    return new


def greedy_into_the_prompt(next_logits, prompt, eoc, limit, never=()):
    start = len(prompt)
    for token in greedy_by_sorting(next_logits, prompt, eoc, limit, never):
        prompt.append(token)
    return prompt[start:]


def greedy_stops_at_reserved(next_logits, prompt, eoc, limit, never=()):
    new = []
    while len(new) < limit:
        best = int(np.argmax(next_logits(prompt + new)))
        if best == eoc or best in never:
            return new
        new.append(best)
    return new


def greedy_without_limit(next_logits, prompt, eoc, limit, never=()):
    return greedy_by_sorting(next_logits, prompt, eoc, 10**9, never)


def one_string(ask, picture, questions):
    history, answers = "", []
    for question in questions:
        history = f"{history} {question}".strip()
        answers.append(ask([picture, history]))
        history = f"{history} {answers[-1]}"
    return answers


def string_a_turn(ask, picture, questions):
    answers = []
    for n, question in enumerate(questions):
        said = [f"{q}\n{a}" for q, a in zip(questions, answers, strict=False)]
        answers.append(ask([picture, *said, question]))
        assert len(answers) == n + 1
    return tuple(answers)


def newest_first(ask, picture, questions):
    answers = []
    for n in range(len(questions)):
        said = [x for pair in zip(questions[:n], answers, strict=True) for x in pair]
        answers.append(ask([picture, questions[n], *said]))
    return answers


def answers_without_questions(ask, picture, questions):
    answers = []
    for question in questions:
        answers.append(ask([picture, *answers, question]))
    return answers


def answers_with_questions(ask, picture, questions):
    return [f"{q} {a}" for q, a in zip(questions, one_string(ask, picture, questions), strict=True)]


def weights_by_token(q, k, phi):
    out = np.zeros((*q.shape[:2], k.shape[1]))
    for t in np.flatnonzero(phi):
        out[t] = softmax(np.einsum("hk,rhk->hr", q[t], k[phi[t] - 1]) * q.shape[-1] ** -0.5)
    return out


def weights_over_heads(q, k, phi):
    own = k[np.maximum(phi, 1) - 1]
    return softmax(np.einsum("thk,trhk->thr", q, own) / math.sqrt(q.shape[-1]), 1) * (phi > 0)[:, None, None]


def raw_scores(q, k, phi):
    own = k[np.maximum(phi, 1) - 1]
    return np.einsum("thk,trhk->thr", q, own) / math.sqrt(q.shape[-1]) * (phi > 0)[:, None, None]


def cells_by_split(token_map, latent_map):
    R = len(latent_map)
    return np.einsum("tr,rs->ts", token_map, latent_map[:, :-R])


def latents_shared_out(token_map, latent_map):
    R = len(latent_map)
    cells, own = latent_map[:, :-R], latent_map[:, -R:]
    return token_map @ (cells + own @ cells)


# ---------------------------------------------------------------- 11


def wilson_by_roots(hits, z=1.96):
    n, s = np.size(hits), np.count_nonzero(hits) / np.size(hits)
    return sorted(np.roots([1 + z * z / n, -(2 * s + z * z / n), s * s]).real)


def wilson_by_counts(hits, z=1.96):
    n, x = len(hits), float(sum(hits))
    middle = (x + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(x * (n - x) / n + z**2 / 4)
    return np.array([middle - half, middle + half])


def wilson_partly_fixed(hits, z=1.96):
    n, s, c = len(hits), np.mean(hits), 1.96
    half = z * math.sqrt(s * (1 - s) / n + c * c / (4 * n * n)) / (1 + c * c / n)
    middle = (s + c * c / (2 * n)) / (1 + c * c / n)
    return max(0, middle - half), min(1, middle + half)


def wilson_middle_and_half(hits, z=1.96):
    low, high = wilson_by_counts(hits, z)
    return (low + high) / 2, (high - low) / 2


def wilson_in_percent(hits, z=1.96):
    return 100 * wilson_by_counts(hits, z)


def agresti(hits, z=1.96):
    n, p = len(hits) + z * z, (np.sum(hits) + z * z / 2) / (len(hits) + z * z)
    half = z * math.sqrt(p * (1 - p) / n)
    return max(0, p - half), min(1, p + half)


def prototypes(support, labels):
    return np.array([support[labels == c].mean(0) for c in np.unique(labels)])


def classify_by_products(support, labels, queries):
    p = prototypes(support, labels)
    return [int(np.argmax(2 * p @ q - (p * p).sum(1))) for q in queries]


def classify_by_cosine(support, labels, queries):
    return (queries @ unit(prototypes(support, labels)).T).argmax(1)


def classify_by_absolutes(support, labels, queries):
    return np.abs(queries[:, None] - prototypes(support, labels)).sum(-1).argmin(1)


def classify_distances(support, labels, queries):
    return ((queries[:, None] - prototypes(support, labels)) ** 2).sum(-1)


def classify_from_one(support, labels, queries):
    return classify_distances(support, labels, queries).argmin(-1) + 1


def probe_by_examples(X, labels, W, decay):
    total = decay * W
    for x, label in zip(X, labels, strict=True):
        p = softmax(x @ W)
        p[label] -= 1
        total = total + np.outer(x, p) / len(X)
    return total


def probe_softmax_over_examples(X, labels, W, decay):
    return X.T @ (softmax(X @ W, 0) - np.eye(W.shape[1])[labels]) / len(X) + decay * W


def probe_decay_over_n(X, labels, W, decay):
    return X.T @ (softmax(X @ W) - np.eye(W.shape[1])[labels]) / len(X) + decay * W / len(X)


def rices_by_units(query, support, k):
    order = np.argsort(-(unit(support) @ unit(query)), kind="stable")
    return [int(i) for i in order[:k][::-1]]


def rices_by_unit_distance(query, support, k):
    return np.argsort(((unit(support) - unit(query)) ** 2).sum(-1))[:k][::-1]


def rices_unordered(query, support, k):
    return np.argpartition(unit(support) @ query, -k)[-k:]


def rices_in_their_order(query, support, k):
    return np.sort(np.argsort(unit(support) @ query)[-k:])


def rices_rows(query, support, k):
    return support[np.argsort(unit(support) @ query)[-k:]]


# ---------------------------------------------------------------- 12


def gated_by_shapes(D, M, H, K, m):
    I = H * K  # noqa: E741
    shapes = [(D, I), (M, I), (M, I), (I, D), (D, m * D), (m * D, D), (D,), (D,), (M,), (M,), (D,), (D,), (), ()]
    return sum(math.prod(shape) for shape in shapes)


def gated_with_biases(D, M, H, K, m):
    return gated_by_shapes(D, M, H, K, m) + m * D + D


def language_by_shapes(V, D, L, H, K, m):
    I = H * K  # noqa: E741
    block = [(D,), *[(D, I)] * 4, (I,), (I,), (I, D), (D,), (D,), (D, m * D), (m * D,), (m * D, D), (D,)]
    return np.int64(V * D + D + L * sum(math.prod(shape) for shape in block))


def language_as_a_list(V, D, L, H, K, m):
    return [language_by_shapes(V, D, L, H, K, m)]


def positions_by_test(layers, every):
    return np.array([i for i in range(layers) if i % every == 0])


def positions_from_one(layers, every):
    return [i + 1 for i in range(0, layers, every)]


def positions_counted(layers, every):
    return len(range(0, layers, every))


def flops_by_fractions(trained, language, vision):
    forward = 2 * (trained + language + vision)
    return Fraction(forward + 2 * (trained + language) + 2 * trained)


def flops_by_steps(trained, language, vision):
    return 2.0 * vision + 4.0 * language + 6.0 * trained


CARDS = [
    card(
        "00.1",
        "how_many",
        wrong=[
            (lambda f, s, r: many(f, s, r, round(s / 8)), "round up"),
            (lambda f, s, r: many(f, s, r, s // 8 + 1), "was expected"),
            (lambda f, s, r: many(f, s, r, s), "was expected"),
        ],
        right=[lambda f, s, r: many(f, s, r, math.ceil(s / 8)), lambda f, s, r: list(many(f, s, r, (s + 7) // 8))],
    ),
    card(
        "00.2",
        "few_shot_prompt",
        wrong=[
            (words_turned, "word of another one"),
            (query_with_a_word, "query comes last"),
            (pops, "`pictures`, which was passed in, has changed"),
        ],
        right=[turns],
    ),
    card(
        "01.1",
        "way_back",
        wrong=[(by_shortest_way, "has not got all of its slope yet"), (without_end, "is missing")],
        right=[kahn, by_depth, lambda made_of, end: iter(kahn(made_of, end))],
    ),
    card(
        "01.2",
        "linear_vjp",
        wrong=[
            (lambda g, x, w: (g @ w.T, (x.T @ g) * 2), "was expected"),
            (lambda g, x, w: (w @ g.T, g.T @ x), "has shape"),
        ],
        right=[
            lambda g, x, w: [np.einsum("te,de->td", g, w), np.einsum("td,te->de", x, g)],
            lambda g, x, w: ((w @ g.T).T, (g.T @ x).T),
        ],
    ),
    card(
        "01.3",
        "softmax_vjp",
        wrong=[
            (lambda g, w: w * (g - (g * w).sum(0)), "was expected"),
            (lambda g, w: w * ((g * w).sum(-1, keepdims=True) - g), "The sign is wrong"),
            (lambda g, w: w * (g - g.mean(-1, keepdims=True)), "not its plain mean"),
        ],
        right=[
            jacobian,
            lambda g, w: w * g - w * np.einsum("...s,...s->...", g, w)[..., None],
            lambda g, w: (w * (g - np.sum(g * w, -1, keepdims=True))).astype(np.float32),
        ],
    ),
    card(
        "01.4",
        "measured_slope",
        wrong=[
            (backward_difference, "one-sided difference"),
            (not_divided, "was expected"),
            (moves_x, "`x`, which was passed in, has changed"),
        ],
        right=[four_points],
    ),
    card(
        "01.5",
        "kernel",
        wrong=[(half_the_rows, "some entries were not filled"), (exchanged_arrays, "out is max")],
        right=[whole_arrays],
    ),
    card("02.1", "standardise", wrong=[(over_space_only, "was expected")], right=[by_reshape]),
    card(
        "02.2",
        "standardise_gradient",
        wrong=[(two_means, "gain over the length|was expected")],
        right=[gradient_in_one_projection],
    ),
    card(
        "02.3",
        "unit_gain",
        wrong=[
            (lambda f, x: np.std(x) / np.mean(f(x)), "Var|was expected"),
            (lambda f, x: 1 / np.std(np.maximum(x, 0)), "was expected"),
        ],
        right=[
            lambda f, x: np.var(f(x)) ** -0.5,
            lambda f, x: (np.mean(f(x) ** 2) - np.mean(f(x)) ** 2) ** -0.5,
            lambda f, x: 1 / np.std(f(x), ddof=1),
        ],
    ),
    card("02.4", "betas", wrong=[(what_goes_out, "was expected")], right=[running_betas]),
    card(
        "02.5",
        "clip_by_unit",
        wrong=[(first_axis, "was expected")],
        right=[clip_in_loops, divides_by_zero],
    ),
    card(
        "03.1",
        "contrastive_loss",
        wrong=[(negative_loss, "was expected"), (own_left_out, "was expected")],
        right=[loss_in_loops],
    ),
    card(
        "03.2",
        "logits_gradient",
        wrong=[(half_of_it, "was expected"), (rows_twice, "was expected")],
        right=[by_two_softmaxes],
    ),
    card(
        "03.3",
        "duplicates",
        wrong=[(first_ones_stay, "captions 0 and 3"), (different_ones, "captions 0 and 3")],
        right=[duplicates_in_loops],
    ),
    card(
        "03.4",
        "zero_shot",
        wrong=[(by_distance_to_mean, "was expected"), (the_cosines, "numbers of classes")],
        right=[by_distance_to_unit],
    ),
    card(
        "04.1",
        "frames_to_take",
        wrong=[(only_after, "the first number is 0"), (times_themselves, "first number is 0|was expected|not whole")],
        right=[searched],
    ),
    card(
        "04.2",
        "stretch",
        wrong=[(repeated, "was expected"), (one_column_for_all, "was expected")],
        right=[interpolated],
    ),
    card(
        "04.3",
        "stretch_gradient",
        wrong=[(as_a_mean, "was expected"), (nearest_row, "was expected")],
        right=[as_a_matrix],
    ),
    card(
        "05.1",
        "look",
        wrong=[(scaled_by_width, "was expected"), (values_are_keys, "was expected")],
        right=[latent_after_latent],
    ),
    card(
        "05.2",
        "what_is_seen",
        wrong=[(time_for_latents_too, "was expected"), (time_twice, "was expected")],
        right=[in_a_list],
    ),
    card(
        "05.3",
        "price",
        wrong=[(price_turned, "K is gone|half of the flops|each of the H")],
        right=[price_of_add_and_multiply],
    ),
    card(
        "05.4",
        "through_values",
        wrong=[(of_the_values, r"dfeatures has shape .* but \(S, D\)"), (mean_over_latents, "not a mean")],
        right=[by_einsum, by_outer_sums],
    ),
    card(
        "06.1",
        "rms_norm",
        wrong=[(fixed_eps, "Use the argument eps"), (gain_inside, "was expected")],
        right=[norm_by_power, norm_by_length],
    ),
    card(
        "06.2",
        "rms_norm_gradient",
        wrong=[(r_squared, "was expected"), (mean_over_everything, "was expected")],
        right=[matrices_of_derivatives],
    ),
    card(
        "06.3",
        "sinusoids",
        wrong=[(without_powers, "was expected"), (transposed_waves, "has shape")],
        right=[complex_waves],
    ),
    card(
        "06.4",
        "relative_scores",
        wrong=[(large_negative, "that score is -inf"), (only_far, "was expected")],
        right=[scores_in_loops],
    ),
    card("06.5", "optimal", wrong=[(turned, "model of the same budget|change|N is|exponent")], right=[by_logarithms]),
    card(
        "07.1",
        "with_marks",
        wrong=[(one_mark_for_two_images, "<EOC> stands before"), (a_string, "opens with")],
        right=[marks_by_joining],
    ),
    card(
        "07.2",
        "phi",
        wrong=[(phi_along_the_first_axis, "counts for itself"), (phi_is_true, "number of its own image")],
        right=[phi_by_sum, lambda is_image: np.add.accumulate(is_image.astype(int), axis=-1)],
    ),
    card(
        "07.3",
        "mask",
        wrong=[(turned_mask, "has shape"), (first_token_only, "only a part of image")],
        right=[by_kron, by_division],
    ),
    card(
        "07.4",
        "masked_softmax",
        wrong=[
            (maximum_over_hidden, "a hidden score of 2000"),
            (covers_in_place, "`scores`, which was passed in, has changed"),
            (equal_shares, "was expected"),
        ],
        right=[visible_softmax, softmax_by_rows],
    ),
    card(
        "07.5", "phi_next", wrong=[(zero_at_the_end, "was expected|points to image")], right=[turned_round, by_search]
    ),
    card(
        "08.1",
        "gate",
        wrong=[
            (gate_of_size, "lost the sign"),
            (gate_in_place, "`h`, which was passed in, has changed"),
            (h_is_missing, "h is missing"),
            (gate_on_the_text, "was expected"),
        ],
        right=[gate_by_exp],
    ),
    card(
        "08.2",
        "block",
        wrong=[
            (block_of_size, "lost the sign"),
            (block_without_tanh, "not the numbers"),
            (block_in_place, "`h`, which was passed in, has changed"),
            (returns_attention_only, "was expected"),
        ],
        right=[block_by_gates],
    ),
    card(
        "08.3",
        "shut_gates",
        wrong=[(shuts_with_ints, "keep float32"), (shuts_with_vectors, "a gate is a scalar")],
        right=[shuts_in_a_deep_copy],
    ),
    card(
        "08.4",
        "gate_backward",
        wrong=[
            (gate_gradient_of_size, "lost the sign"),
            (gate_gradient_turned, "has shape"),
            (gate_gradient_mean, "a sum, not a mean"),
            (gate_gradient_of_array, "dalpha has shape"),
        ],
        right=[gate_gradient],
    ),
    card(
        "08.5",
        "first_move",
        wrong=[(move_by_largest, "average the gradients|uphill"), (move_by_last, "average the gradients")],
        right=[move_by_sum],
    ),
    card(
        "09.1",
        "mixture_loss",
        wrong=[(padding_is_the_last, "was expected"), (divided_by_lambdas, "was expected")],
        right=[mixture_by_counts],
    ),
    card(
        "09.2",
        "logits_gradient",
        wrong=[(over_the_wrong_axis, "was expected"), (divided_by_all, "was expected")],
        right=[gradient_by_onehot],
    ),
    card(
        "09.3",
        "accumulate",
        wrong=[(asks_twice, "gradient only once"), (scales_theirs, "write into the array")],
        right=[accumulate_by_dot, accumulate_in_a_list],
    ),
    card(
        "09.4",
        "clip_globally",
        wrong=[
            (clip_by_sum_of_norms, "was expected"),
            (clip_in_place, "`gradients`, which was passed in, has changed"),
            (clip_to_a_list, "same names"),
        ],
        right=[clip_by_flat_norm],
    ),
    card(
        "10.1",
        "greedy",
        wrong=[
            (greedy_into_the_prompt, "`prompt`, which was passed in, has changed"),
            (greedy_stops_at_reserved, "was written"),
            (greedy_without_limit, "the limit was"),
        ],
        right=[greedy_by_sorting],
    ),
    card(
        "10.2",
        "hold_dialogue",
        wrong=[
            (newest_first, "in the order"),
            (answers_without_questions, "a question is missing"),
            (answers_with_questions, "return the answers"),
        ],
        right=[one_string, string_a_turn],
    ),
    card(
        "10.3",
        "attention_weights",
        wrong=[(weights_over_heads, "was expected"), (raw_scores, "was expected")],
        right=[weights_by_token],
    ),
    card("10.4", "onto_cells", wrong=[(latents_shared_out, "was expected")], right=[cells_by_split]),
    card(
        "11.1",
        "wilson",
        wrong=[
            (wilson_partly_fixed, "Every z in the formula"),
            (wilson_middle_and_half, "was expected"),
            (wilson_in_percent, "was expected"),
            (agresti, "was expected"),
        ],
        right=[wilson_by_roots, wilson_by_counts, lambda hits, z=1.96: wilson_by_counts(list(hits), z)],
    ),
    card(
        "11.2",
        "classify",
        wrong=[
            (classify_by_cosine, "largest cosine"),
            (classify_by_absolutes, "absolute differences"),
            (classify_distances, "has shape"),
            (classify_from_one, "was expected"),
        ],
        right=[classify_by_products],
    ),
    card(
        "11.3",
        "probe_gradient",
        wrong=[(probe_softmax_over_examples, "was expected"), (probe_decay_over_n, "was expected")],
        right=[probe_by_examples],
    ),
    card(
        "11.4",
        "rices",
        wrong=[
            (rices_unordered, "not from less to more similar"),
            (rices_in_their_order, "not from less to more similar"),
            (rices_rows, "has shape"),
        ],
        right=[rices_by_units, rices_by_unit_distance],
    ),
    card("12.1", "count_gated_block", wrong=[(gated_with_biases, "was expected")], right=[gated_by_shapes]),
    card("12.2", "count_language_model", wrong=[(language_as_a_list, "has shape")], right=[language_by_shapes]),
    card(
        "12.3",
        "gated_positions",
        wrong=[(positions_from_one, "0 is missing|does not exist"), (positions_counted, "wrong type")],
        right=[positions_by_test, lambda layers, every: range(0, layers, every)],
    ),
    card(
        "12.4",
        "training_flops",
        wrong=[
            (lambda t, n, v: [6 * t, 4 * n, 2 * v], "has shape"),
            (lambda t, n, v: 6 * t + 2 * n + 2 * v, "first gated"),
        ],
        right=[flops_by_steps],
    ),
]


# ---------------------------------------------------------------- a third round


def frames_once(times, fps=1.0):
    since = np.asarray(times) - times[0]
    return sorted({int(np.argmax(since >= m / fps)) for m in range(int(since[-1] * fps) + 1)})


def frames_by_search(times, fps=1.0):
    since = np.asarray(times) - times[0]
    return np.searchsorted(since, np.arange(int(since[-1] * fps) + 1) / fps)


def clip_with_eps_added(g, w, limit, eps=1e-3):
    axes = tuple(range(g.ndim - 1))
    norm_g, norm_w = (np.sqrt(np.sum(x**2, axis=axes)) for x in (g, w))
    return g * np.minimum(1, limit * (norm_w + eps) / np.maximum(norm_g, 1e-12))


def look_with(latents, features, w_q, w_k, w_v, size):
    seen = np.concatenate([latents, features])
    e = np.exp((latents @ w_q) @ (seen @ w_k).T / np.sqrt(size))
    return e / e.sum(1, keepdims=True) @ (seen @ w_v)


def logits_gradient_over_tokens(logits, targets, shares):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (p - np.eye(logits.shape[-1])[targets]) * shares[..., None]


def gate_with_alpha_squared(g, branch, alpha):
    return g, np.tanh(alpha) * g, (1 - alpha**2) * np.vdot(g, branch)


def gate_by_cosh(g, branch, alpha):
    return g.copy(), math.tanh(alpha) * g, np.vdot(g, branch) / math.cosh(alpha) ** 2


def mixture_by_selection(losses, weights, datasets, lambdas):
    chosen = [losses[(datasets == i) & (weights > 0)] for i in range(len(lambdas))]
    return sum(share * x.mean() for share, x in zip(lambdas, chosen, strict=True) if x.size)


def mixture_with_padding(losses, weights, datasets, lambdas):
    return np.sum(np.asarray(lambdas)[datasets] * losses * weights)


CARDS_OF_ROUND_THREE = [
    card("02.5", "clip_by_unit", wrong=[(clip_with_eps_added, "eps is added")]),
    card(
        "04.1",
        "frames_to_take",
        wrong=[(frames_once, "numbers repeat"), (walked, "numbers repeat")],
        right=[walked_on, frames_by_search],
    ),
    card(
        "05.1",
        "look",
        wrong=[
            (lambda z, x, q, k, v: look_with(z, x, q, k, v, len(q)), "root of D"),
            (lambda z, x, q, k, v: look_with(z, x, q, v, k, q.shape[1]), "are exchanged"),
        ],
        right=[lambda z, x, q, k, v: look_with(z, x, q, k, v, q.shape[1]).astype(np.float32)],
    ),
    card("08.4", "gate_backward", wrong=[(gate_with_alpha_squared, "alpha itself is squared")], right=[gate_by_cosh]),
    card(
        "09.1",
        "mixture_loss",
        wrong=[
            (lambda x, w, d, shares: mixture_by_selection(x, w, d, shares) / np.sum(shares), "divided by their sum"),
            (lambda x, w, d, shares: mixture_by_selection(x, w, d, shares) / len(shares), "they are added"),
            (mixture_with_padding, "belongs to no data set"),
        ],
        right=[mixture_by_selection],
    ),
    card("09.2", "logits_gradient", wrong=[(logits_gradient_over_tokens, "over the tokens of a row")]),
    card("11.1", "wilson", wrong=[(lambda hits, z=1.96: wilson_by_counts(hits, z / 2), "into the quadratic")]),
]

CARDS += CARDS_OF_ROUND_THREE
