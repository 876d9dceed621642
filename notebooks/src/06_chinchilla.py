# %% [markdown]
# # Smaller and longer: the Chinchilla block
#
# *chapter: §4, the language model · minutes: 130 to read and do, seconds to run · key: chinchilla*
#
# You need notebook 00, and a basic idea of a causal decoder.
#
# The block of Gopher and Chinchilla differs from that of GPT-2 in two things: RMSNorm and relative positions. In
# this notebook you build both, first with loops, then as the library has them. You derive one gradient, and you
# see where the heads of a trained model look. Then you use the formula that Chinchilla's authors fitted. It shows
# why their model is smaller than other models of the time, and why it was trained on more tokens. You do not train
# a language model. `python -m tinyflamingo train` does that, and notebook 09 shows it.
#
# Letters: `B` rows, `T` tokens, `D` width, `H` heads, `K` head size, `V` vocabulary. In the last section three
# letters have the meaning that is usual for scaling laws: `N` is the number of parameters, `D` is the number of
# training tokens, and `B` is a constant of the fitted formula.

# %%
import os

os.environ.setdefault("TINYFLAMINGO_OPS", "reference")  # plain NumPy: easy to step through, nothing to compile

import copy

import matplotlib.pyplot as plt
import numpy as np
from autograd.extend import defvjp, primitive

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import show
from tinyflamingo.data.tinyworld.text import episode, text_document
from tinyflamingo.model import language_model as library
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.tokenizer import BOS
from tinyflamingo.ops import reference

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # also distinct for colour-blind readers
plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
model = tinyflamingo.load()
config, language, tokenizer = model.config.language, model.frozen["language"], model.tokenizer
rng = np.random.default_rng(2022)


def softmax(s):
    """Weights along the last axis."""
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# %% [markdown]
# ## What a trained block does
#
# The next cell uses a few-shot episode in words. The language model of the toy was trained on such episodes: each
# colour has an invented name. The text ends at a place where the model must say the name for "red".

# %%
text = "red lofa. blue dimu. red lofa. blue dimu. red"
tokens = np.array([[BOS, *tokenizer.encode(text)]])
pieces = [tokenizer.piece(t).replace("▁", " ").strip() for t in tokens[0]]
T, H, K = len(pieces), config.heads, config.key_size
print("tokens (B, T) =", tokens.shape, " logits (B, T, V) =", library.language_model(language, tokens, config).shape)


def attention_of(language, tokens):
    """Attention weights of every block, each (B, H, T, T), by the formula of the reference."""
    B, T = tokens.shape
    h, looks = library.embed_tokens(language["embedding"], tokens), []
    visible_from = np.zeros((B, T), int)
    past = np.tril(np.ones((T, T), bool))
    for i in range(config.layers):
        block = language[f"block_{i}"]
        x = ops.rms_norm(h, block["attn_gain"])
        q, k = ((x @ block[name]).reshape(B, T, H, K) for name in ("w_q", "w_k"))
        r = library.projected_distances(block, T, config)
        content = np.einsum("bthk,bshk->bhts", q + block["u"], k)
        position = np.einsum("bthk,nhk->bhtn", q + block["v"], r)
        distance = np.maximum(np.arange(T)[:, None] - np.arange(T), 0)
        position = np.take_along_axis(position, np.broadcast_to(distance, content.shape), axis=-1)
        looks.append(softmax(np.where(past, (content + position) / K**0.5, -1e9)))
        h = library.decoder_block(block, h, visible_from, config)
    return looks


# %% [markdown]
# The figure shows two of the heads. The next cell finds them by measurement, among all heads of all blocks. One is
# the head with the largest mean weight on the token just before. The other is the copying head. For it we take
# every token that has occurred before in this text, and the token that followed its last earlier occurrence. The
# copying head has the largest mean weight on these followers. Each row of a square is a token that looks, and each
# column is a token that it looks at.
#
# *Figure: two squares of attention weights. Their upper right halves are empty, because these are the future. The
# left one is the head that looks at the token just before: it has a line right beside the diagonal. The right one
# is the copying head: its lower rows look far back, at tokens that followed an earlier copy of the same token. The
# titles give the block and the head.*

# %%
looks = np.stack([look[0] for look in attention_of(language, tokens)])  # (blocks, H, T, T)
row = tokens[0].tolist()
again = [t for t in range(T) if row[t] in row[:t]]  # tokens that have occurred before
follower = [max(s for s in range(t) if row[s] == row[t]) + 1 for t in again]
scores = {
    "on the token before": np.diagonal(looks, -1, axis1=2, axis2=3).mean(axis=-1),  # (blocks, H)
    "on the follower": looks[:, :, again, follower].mean(axis=-1),
}
heads = [np.unravel_index(score.argmax(), score.shape) for score in scores.values()]
figure, axes = plt.subplots(1, 2, figsize=(8, 4.2))
for axis, (block, head) in zip(axes, heads, strict=True):
    axis.imshow(looks[block, head], cmap="Purples", vmin=0, vmax=1)
    axis.set(title=f"block {block}, head {head}", xticks=range(T), yticks=range(T), yticklabels=pieces)
    axis.set_xticklabels(pieces, rotation=90)
plt.show()
for (title, score), (block, head) in zip(scores.items(), heads, strict=True):
    print(f"block {block}, head {head}: mean weight {title} {score[block, head]:.2f}")
copied = looks[(*heads[1], -1)].argmax()
print(f"the last {pieces[-1]!r} looks most at {pieces[copied]!r}, right after {pieces[copied - 1]!r}")

# %% [markdown]
# Such heads can work together if the left one is in an earlier block. The left head writes into every position
# which token was before it. So the right head can look for the positions *after* an earlier copy of its own token,
# and copy the token that is there. The left head needs distances: it looks one token back, whatever is there. The
# right head needs contents: it looks for a token, however far back it is. The rest of this notebook explains how
# one formula serves both.

# %% [markdown]
# ## RMSNorm
#
# GPT-2 normalises with LayerNorm: subtract the mean, divide by the standard deviation, multiply by a gain, add a
# bias. RMSNorm keeps the division and the gain. In practice this is enough:
#
# $$y_d = \frac{x_d}{\sqrt{\frac1D\sum_{e} x_e^2 + \varepsilon}}\; \gamma_d$$
#
# `γ` is the gain, a learned vector; in the code it is `gain`. `ε` is a small number, so that no division by zero
# can happen.


# %%
def rms_norm_with_loops(x, gain, eps=1e-6):
    """x (T, D), gain (D,) -> (T, D), one number at a time."""
    out = np.zeros_like(x)
    for t, row in enumerate(x):
        mean_square = sum(value * value for value in row) / len(row)
        for d, value in enumerate(row):
            out[t, d] = value / (mean_square + eps) ** 0.5 * gain[d]
    return out


x, gain = rng.standard_normal((3, 5)), rng.uniform(0.5, 2, 5)
agree = np.abs(rms_norm_with_loops(x, gain) - ops.rms_norm(x, gain)).max() < 1e-12
print("x (T, D) =", x.shape, " loops and library agree:", bool(agree))

# %% [markdown]
# ### Exercise 06.1 · RMSNorm in one line
# *difficulty: easy · minutes: 5*
#
# `x` may have any number of leading axes, `(..., D)`. Use the argument `eps`: it is not always `1e-6`.


# %% exercise 06.1
def rms_norm(x, gain, eps=1e-6):
    """x (..., D), gain (D,) -> (..., D)."""
    # solution
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * gain
    # end of solution


# %% check 06.1
from tinyflamingo.checks import check_06_1_rms_norm

check_06_1_rms_norm(rms_norm)

# %% [markdown]
# **Predict.** All of `x` is multiplied by 100. How much does the output change? And when 100 is added to all of
# it?

# %%
ones = np.ones(5)
for name, changed in (("times 100", 100 * x), ("plus 100", x + 100)):
    rms = np.abs(ops.rms_norm(changed, ones) - ops.rms_norm(x, ones)).max()
    layer = np.abs(ops.layer_norm(changed, ones, 0 * ones) - ops.layer_norm(x, ones, 0 * ones)).max()
    print(f"{name:10s} RMSNorm changes by {rms:.1e}   LayerNorm by {layer:.1e}")

# %% [markdown]
# ## The gradient of RMSNorm, by hand
#
# Write `r` for the root of the mean square, so that `y = x / r * gain`. Each `x_d` has two effects: a direct one,
# and one through `r`, which is the same for all entries. Write `g` for the gradient of the
# loss `L` at `y`, and `a = g * gain`:
#
# $$\frac{\partial L}{\partial x_d} = \frac{a_d}{r} - \frac{x_d}{D\,r^3}\sum_e a_e x_e$$
#
# (The second term is the sum of `a` times `x`, multiplied by the derivative of `1 / r`.)

# %% [markdown]
# ### Exercise 06.2 · Both ways through the norm
# *difficulty: medium · minutes: 10*
#
# Write it for `(T, D)` arrays. The check moves `x` along random directions and compares.


# %% exercise 06.2
def rms_norm_gradient(x, gain, g, eps=1e-6):
    """x (T, D), gain (D,), g (T, D): the gradient at the output -> the gradient at x, (T, D)."""
    # solution
    D = x.shape[-1]
    r = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    a = g * gain
    return a / r - x * np.sum(a * x, axis=-1, keepdims=True) / (D * r**3)
    # end of solution


# %% check 06.2
from tinyflamingo.checks import check_06_2_rms_norm_gradient

check_06_2_rms_norm_gradient(rms_norm_gradient)

# %% [markdown]
# The library has such a gradient for its fast kernel, and a function that checks it. `check_grad` moves every
# argument along random directions, in float64, and returns the largest relative error. A check must be able to
# fail. So the next cell also checks a wrong gradient, one without the second term.


# %%
@primitive
def forgetful(x):
    """RMSNorm without gain; its gradient leaves out the second term."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True))


defvjp(forgetful, lambda ans, x: lambda g: g / np.sqrt(np.mean(x * x, axis=-1, keepdims=True)))
print("the library's gradient is right:", ops.check_grad(ops.rms_norm, x, gain) < 1e-6)
try:
    ops.check_grad(forgetful, x)
except AssertionError as error:
    print("without the second term:", str(error).split(",")[-1].strip())

# %% [markdown]
# ## Relative positions
#
# Attention does not know the order of its keys. GPT-2 adds a learned vector to the first token, another to the
# second, and so on. The number of these vectors is fixed, so no text can be longer. Transformer-XL, and after it
# Gopher and Chinchilla, use only the **distance** from the query back to the key. The score of query `i` and key
# `j` is
#
# $$\text{score}(i,j) = \frac{(q_i + u)\cdot k_j \;+\; (q_i + v)\cdot r_{i-j}}{\sqrt{K}},
# \qquad r_n = W_R\, s_n$$
#
# The first term depends on *what* is at position `j`, the second on *how far away* it is. `u` and `v` are two
# learned vectors for each head. They add a part that is the same for all queries: `u` says which content is
# important, and `v` says which distances are important. `s_n` is a fixed vector for the distance `n`. It consists
# of sines and cosines of many wavelengths. `W_R` is a learned matrix. From `s_n`, which has the width of the model,
# it makes `r_n`, a vector of size `K` for each head.

# %% [markdown]
# ### Exercise 06.3 · Sines, then cosines
# *difficulty: easy · minutes: 10*
#
# The distances are `n = 0 .. S-1`, and the columns of one half are `m = 0 .. D/2-1`. The frequency of column `m`
# is `10000 ** (-2 m / D)`. The first half of the columns contains the sines of `n` times the frequency, the second
# half the cosines. (Some other papers alternate sines and cosines. Do not do that here.)


# %% exercise 06.3
def sinusoids(S, D):
    """A row for every distance 0..S-1 -> (S, D): D/2 sines, then D/2 cosines."""
    # solution
    frequency = 10000.0 ** (-2 * np.arange(D // 2) / D)
    angle = np.arange(S)[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    # end of solution


# %% check 06.3
from tinyflamingo.checks import check_06_3_sinusoids

check_06_3_sinusoids(sinusoids)

# %% [markdown]
# Why sines and cosines? If the distance changes by a fixed amount, the sine and cosine of each frequency are
# rotated. A rotation is a linear map. So `W_R` can learn to prefer "three back" as easily as "one back". Also,
# there is no table that ends at some length. The figure shows how similar the vectors of two distances are. Those
# of near distances are similar, those of far distances much less. The curve has the same form at every distance.
#
# *Figure: on the left the vectors of 96 distances as a heat map, fast waves on one side of each half and slow ones
# on the other. On the right the cosine between the vector of a distance and those of its neighbours: a peak at 0,
# with the same form around both distances.*

# %%
s = library.sinusoids(96, config.width)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6))
axes[0].imshow(s, cmap="cividis", aspect="auto")
axes[0].set(xlabel="column (sines | cosines)", ylabel="distance n", title="$s_n$")
for n, colour, style in ((30, BLUE, "-"), (60, ORANGE, "--")):
    alike = s @ s[n] / (np.linalg.norm(s, axis=1) * np.linalg.norm(s[n]))
    axes[1].plot(np.arange(96) - n, alike, style, color=colour, label=f"around {n}")
axes[1].set(xlabel="difference of distances", ylabel="cosine", xlim=(-30, 30))
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# Now the scores of one head with loops. Only the past is computed, as the formula says.


# %%
def scores_with_loops(q, k, r, u, v):
    """q, k, r (T, K), u, v (K,) -> (T, T): the score of query i and key j; the future is -inf."""
    T, K = q.shape
    scores = np.full((T, T), -np.inf)
    for i in range(T):
        for j in range(i + 1):
            what = (q[i] + u) @ k[j]
            how_far = (q[i] + v) @ r[i - j]
            scores[i, j] = (what + how_far) / K**0.5
    return scores


q, k, r = rng.standard_normal((3, 6, 4))
u, v = rng.standard_normal((2, 4))
print("q, k, r (T, K) =", q.shape, " scores (T, T) =", scores_with_loops(q, k, r, u, v).shape)
values = rng.standard_normal((6, 4))
by_hand = softmax(scores_with_loops(q, k, r, u, v)) @ values
one_head = [a[None, :, None] for a in (q, k, values)]
theirs = ops.relative_attention(*one_head, r[:, None], u[None], v[None], np.zeros((1, 6), int))[0, :, 0]
print("loops and library agree:", bool(np.abs(by_hand - theirs).max() < 1e-12))

# %% [markdown]
# Without loops there is one difficulty. The product of all queries with all `r` has a column for every *distance*,
# but we need a column for every *key*. In row `i`, distance `n` belongs to key `i - n`. So every row must be
# reversed, and each row must be moved one place further than the row above.

# %% [markdown]
# ### Exercise 06.4 · The relative shift
# *difficulty: hard · minutes: 20*
#
# Write the scores without loops. One way is indexing: `by_distance[i, i - j]`. The original code does it in
# another way. It orders the distances from largest to smallest and puts one empty column in front. Then it reads the
# same memory as an array with one row more, and drops the first row. You may use either of them, or another way. The
# future is `-inf`.


# %% exercise 06.4
def relative_scores(q, k, r, u, v):
    """q, k, r (T, K), u, v (K,) -> (T, T); row n of r belongs to distance n; the future is -inf."""
    # solution
    T, K = q.shape
    what = (q + u) @ k.T  # a column for every key
    by_distance = (q + v) @ r.T  # a column for every distance
    distance = np.arange(T)[:, None] - np.arange(T)
    how_far = np.take_along_axis(by_distance, np.maximum(distance, 0), axis=1)
    return np.where(distance >= 0, (what + how_far) / K**0.5, -np.inf)
    # end of solution


# %% check 06.4
from tinyflamingo.checks import check_06_4_relative_scores

check_06_4_relative_scores(relative_scores)

# %% [markdown]
# Here is the shift on small numbers. The entry `10 i + n` stands for query `i` and distance `n`.

# %%
T = 4
by_distance = 10 * np.arange(T)[:, None] + np.arange(T)
far_first = by_distance[:, ::-1]
shifted = np.concatenate([np.full((T, 1), -1), far_first], axis=1).reshape(T + 1, T)[1:]
print("by distance:\n", by_distance)
print("shifted, below the diagonal by key (row i, column j holds distance i - j):\n", np.tril(shifted))

# %% [markdown]
# ## The advantage of relative positions
#
# **Predict.** Twenty tokens of another text are put before a text and hidden by the mask. Do the logits of the
# text change? Would they change if a learned vector for every absolute position had been added to the embeddings?

# %%
document = np.array(encode_document(["a red circle is found in the"], tokenizer, complete=False).tokens)[None]
filler = np.array(tokenizer.encode("green house small yellow ring " * 6))[None, :20]
later = np.concatenate([filler, document], axis=1)
visible_from = np.full(later.shape, filler.shape[1])
visible_from[:, : filler.shape[1]] = 0
at_once = library.language_model(language, document, config)
moved = library.language_model(language, later, config, visible_from)[:, filler.shape[1] :]
print("tokens (B, T) =", document.shape, "->", later.shape)
print(f"relative positions: logits change by {np.abs(at_once - moved).max():.0e}")

embed_tokens = library.embed_tokens
places = rng.standard_normal((later.shape[1], config.width)).astype(np.float32) * 0.01


def with_absolute(tokens, visible_from=None):
    """The same model, with a small vector added for every absolute position."""
    library.embed_tokens = lambda table, ids: embed_tokens(table, ids) + places[: ids.shape[1]]
    try:
        return library.language_model(language, tokens, config, visible_from)
    finally:
        library.embed_tokens = embed_tokens


changed = with_absolute(later, visible_from)[:, filler.shape[1] :] - with_absolute(document)
print(f"absolute positions: logits change by {np.abs(changed).max():.0e}")

# %% [markdown]
# So several documents can share a row, prompts can be padded on the left, and a cache can continue beyond the
# length of the training texts. No absolute position is needed for this. Flamingo uses all three.
#
# ## Look inside: attention by distance
#
# The next cell takes fifty documents of TinyWorld, half of them few-shot episodes. For each head it computes the
# mean weight on a key at distance `n`.

# %%
documents = [encode_document(text_document(rng), tokenizer, complete=False).tokens for _ in range(25)]
documents += [encode_document(episode(rng), tokenizer, complete=False).tokens for _ in range(25)]
far = 24
by_distance, met = np.zeros((config.layers, H, far)), np.zeros(far)
for ids in documents:
    for i, look in enumerate(attention_of(language, np.array([ids]))):
        for n in range(min(far, len(ids))):
            by_distance[i, :, n] += np.diagonal(look[0], -n, axis1=1, axis2=2).sum(-1)
    met += np.maximum(len(ids) - np.arange(far), 0)
by_distance /= met
print("mean weight by distance (layers, H, distances) =", by_distance.shape)

# %% [markdown]
# *Figure: one panel for each block, the mean attention weight of each of its four heads against the distance back.
# Some heads have a high, narrow peak at a short distance. The curves of other heads are wide and low: their weight
# is spread over many distances.*

# %%
figure, axes = plt.subplots(1, config.layers, figsize=(10, 2.4), sharey=True)
for i, axis in enumerate(axes):
    for head, colour, mark in zip(range(H), (BLUE, ORANGE, GREEN, PINK), "osD^", strict=True):
        axis.plot(by_distance[i, head], color=colour, marker=mark, markersize=3, label=f"head {head}")
    axis.set(title=f"block {i}", xlabel="distance back")
axes[0].set_ylabel("mean weight")
axes[-1].legend(frameon=False)
plt.show()
for i in range(config.layers):
    n = by_distance[i].argmax(axis=1)
    print(f"block {i}: strongest distance of each head", n.tolist())
for title, (i, head) in zip(("previous-token", "copying"), heads, strict=True):
    print(f"{title} head (block {i}, head {head}): mean weight at distance 1 {by_distance[i, head, 1]:.2f}")

# %% [markdown]
# A head with a high peak at 1 is a "previous token" head, like the left one of the first figure. The copying head has
# no such peak. *What* is at a position decides where it looks. Both kinds of heads use the same formula. Training
# decides how important each of the two terms is.
#
# ## Break it
#
# The special part of the formula is the second term. First we remove `v` from the trained model, the part that
# prefers some distances for all queries. Then we remove all distances: `W_R` is set to zero. The score is the mean
# loss of a learned token, in nats.


# %%
def loss_of(weights_of_model, batch):
    """Mean cross-entropy over the tokens that are learned."""
    logits = library.language_model(weights_of_model, batch.tokens[:, :-1], config)
    losses = ops.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch.tokens[:, 1:].reshape(-1))
    weights = batch.weights[:, 1:].reshape(-1)
    return float((losses * weights).sum() / weights.sum())


kinds = {"facts and questions": text_document, "few-shot episodes": episode}
batches = {
    name: make_batch([encode_document(sample(rng), tokenizer, complete=False) for _ in range(40)])
    for name, sample in kinds.items()
}
models = {"as trained": language}
for name in ("v", "w_r"):
    models[f"without {name}"] = broken = copy.deepcopy(language)
    for i in range(config.layers):
        broken[f"block_{i}"][name] *= 0
print(f"{'':24s}" + "".join(f"{name:>22s}" for name in batches))
for name, weights in models.items():
    print(f"{name:24s}" + "".join(f"{loss_of(weights, batch):22.3f}" for batch in batches.values()))

# %% [markdown]
# Without `v`, both losses rise. Compare them as ratios: a loss can become several times as large and still be small.
# The model still knows the distances, because the query is also multiplied by `r`. Without any distances, the model
# cannot see the order of the words in a sentence. It was not trained for that, and its loss is much higher.
#
# ## Why smaller, and for longer
#
# The chapter says: Chinchilla has 70 billion parameters and GPT-3 has about 170 billion (175, to be exact).
# Chinchilla was trained on far more tokens, and it is better. Why?
#
# Training costs about `C = 6 N D` flops for `N` parameters and `D` tokens. With a fixed `C`, a bigger model sees
# fewer tokens. The authors trained over 400 models and fitted the final loss by
#
# $$L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}$$
#
# with the constants below (Hoffmann et al. 2022, section 3.3). The following figures and tables are computed from
# this formula. They are not measurements of ours.

# %%
E, A, B, alpha, beta = 1.69, 406.4, 410.7, 0.34, 0.28


def final_loss(N, D):
    """Nats per token that the fitted formula predicts for N parameters trained on D tokens."""
    return E + A / N**alpha + B / D**beta


rivals = {"GPT-3": (175e9, 300e9), "Gopher": (280e9, 300e9), "Chinchilla": (70e9, 1.4e12)}
print(f"{'':11s}{'parameters':>11s}{'tokens':>8s}{'per parameter':>14s}{'flops':>10s}{'predicted loss':>15s}")
for name, (N, D) in rivals.items():
    print(f"{name:11s}{N:11.3g}{D:8.3g}{D / N:14.1f}{6 * N * D:10.2g}{final_loss(N, D):15.3f}")

# %% [markdown]
# **Predict.** Plot the loss against the size of the model, for one fixed budget. What shape does the curve have?
# In which direction does its lowest point move when the budget grows?

# %%
sizes = np.logspace(8, 12.5, 400)
figure, axis = plt.subplots(figsize=(7, 3.4))
for C, colour in zip((1e21, 1e22, 1e23, 5.76e23, 1e25), plt.cm.viridis(np.linspace(0, 0.85, 5)), strict=True):
    curve = final_loss(sizes, C / (6 * sizes))
    best = curve.argmin()
    axis.semilogx(sizes, curve, color=colour, label=f"{C:.3g} flops")
    axis.plot(sizes[best], curve[best], "o", color=colour)
for (name, (N, D)), mark, place in zip(rivals.items(), "sD*", ((-34, 9), (8, -3), (-56, -12)), strict=True):
    axis.plot(N, final_loss(N, D), mark, color=ORANGE, markersize=8)
    axis.annotate(name, (N, final_loss(N, D)), xytext=place, textcoords="offset points")
axis.set(xlabel="parameters N", ylabel="predicted loss, nats per token", ylim=(1.75, 3.3))
axis.legend(frameon=False, title="budget", loc="upper left", ncols=2)
plt.show()

# %% [markdown]
# *Figure: predicted loss against parameters, one U-shaped curve for each of five budgets, each with its lowest
# point marked. With a larger budget the point is lower and further to the right. Gopher, GPT-3 and Chinchilla are
# marked: the first two are far to the right of the lowest point.*
#
# Gopher and Chinchilla cost about the same and are on about the same curve. Chinchilla is nearer to the lowest
# point. This is the statement of the chapter as a picture.

# %% [markdown]
# ### Exercise 06.5 · The bottom of the valley
# *difficulty: medium · minutes: 15*
#
# Find the lowest point of such a curve. Put `D = C / (6 N)` into the formula, set the derivative with respect to
# `N` to zero, and solve for `N`. Return `N` and `D`. (The condition says: one percent more parameters and one
# percent more tokens must reduce the loss by the same amount.)


# %% exercise 06.5
def optimal(C, A, B, alpha, beta):
    """(N, D) of the lowest loss among all with 6 N D = C."""
    # solution
    ratio = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = ratio * (C / 6) ** (beta / (alpha + beta))
    return N, C / (6 * N)
    # end of solution


# %% check 06.5
from tinyflamingo.checks import check_06_5_optimal

check_06_5_optimal(optimal)

# %% [markdown]
# The authors estimated the lowest point in three ways. The formula above is one of them. The rule that is mostly
# quoted, about 20 tokens for each parameter, comes from the other two. The constants of the formula are rounded in
# the paper. With them, the best
# models for large budgets are even smaller. (A later study found that these constants do not fit the paper's own
# points well. With better constants all three ways agree: [Besiroglu et al.
# 2024](https://arxiv.org/abs/2404.10102).) So use the curve for its shape, and do not trust its third digit.

# %%
print(f"{'flops':>9s}{'best N':>10s}{'best D':>10s}{'tokens a parameter':>20s}")
for C in (1e20, 1e21, 1e22, 1e23, 5.76e23):
    curve = final_loss(sizes, C / (6 * sizes))
    N = sizes[curve.argmin()]
    print(f"{C:9.3g}{N:10.2g}{C / (6 * N):10.2g}{C / (6 * N * N):20.0f}")

# %% [markdown]
# The library can also measure such curves, at toy size: `studies/isoflop.py` trains models of eight sizes on four
# budgets. For each budget it fits a parabola through the lowest losses.
#
# There is a second reason for a smaller model, and it is more important for Flamingo. A smaller model costs less
# for everybody who *uses* it afterwards. Flamingo reads every prompt with these 70 billion parameters, not with
# 280 billion.
#
# ## In the library
#
# With a cache (notebook 10), the keys and values of earlier tokens already exist. `extend` appends the new keys
# and values to the old ones, and `table` keeps the projected distances, which are the same for every text.

# %%
show(library.decoder_block, library.self_attention, library.projected_distances, library.sinusoids)
show(reference.relative_attention)

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("06")

# %%
check_quiz("06", ".....")

# %% [markdown]
# ## Summary
#
# Chinchilla's block is that of GPT-2 with two changes: the norm only divides by the root mean square, and
# positions are only distances. Because nothing in it uses absolute positions, text can be moved, padded and
# continued freely. The size of Chinchilla follows from its budget: with fewer parameters and more text, the same
# budget reaches a lower loss.
#
# **Try it.** Draw `attention_of` for a prompt of yours; find the head that copies; remove `u` instead of `v`.
# Notebook 08 puts gated blocks between these blocks.
#
# **Further reading.** [Chinchilla](https://arxiv.org/abs/2203.15556); [Gopher](https://arxiv.org/abs/2112.11446),
# section 3.1; [Transformer-XL](https://arxiv.org/abs/1901.02860), section 3.3;
# [RMSNorm](https://arxiv.org/abs/1910.07467); on copying in context, [induction
# heads](https://arxiv.org/abs/2209.11895). Where this code differs: `docs/deviations.md`, "The language model".
