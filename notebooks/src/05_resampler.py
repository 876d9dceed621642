# %% [markdown]
# # Eight tokens for any input
#
# *chapter: §3, the Perceiver resampler · minutes: 95 to read and do, seconds to run · key: resampler*
#
# You need notebook 00, and a basic idea of attention.
#
# In this notebook you build one attention step in which the latents look at a picture, first with loops and then
# without. You count how much work it saves. You derive the gradient that goes back through its softmax, and you
# see where the trained latents look. You do not train a resampler (notebook 09 does). The feed-forward part of the
# layer is only mentioned.
#
# Letters: `M` media, `F` frames, `S` features of a frame, `R` latents, `D` width, `H` heads, `K` head size, `T`
# queries of any kind.
#
# The chapter uses two more letters: X for visual data and Y for text. The resampler makes the visual tokens X, and
# the text tokens Y look at them later, in the language model (notebook 07). In the code, and in the shapes printed
# here, `Y` and `X` have another meaning: they are the height and the width of a picture in pixels.

# %%
import os

os.environ.setdefault("TINYFLAMINGO_OPS", "reference")  # plain NumPy: easy to step through, nothing to compile

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.bench.flops import gemm_flops
from tinyflamingo.classroom import diagrams, show, sliders
from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import draw_clip, draw_scene, sample_clip, sample_single
from tinyflamingo.decoding.beams import score_continuations
from tinyflamingo.model import perceiver_resampler as library
from tinyflamingo.model.flamingo import encode_media, resample
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.studies.attention_maps import resampler_maps

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # also distinct for colour-blind readers
plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
model = tinyflamingo.load()
config, resampler = model.config, model.params["resampler"]
rng = np.random.default_rng(2022)

# %% [markdown]
# ## The problem, drawn to scale
#
# A picture is a grid of features, and a video is several grids. Suppose every feature attends to every other
# feature, as the tokens of a text do. The table of scores has one row for each query and one column for each key.
# So it is a square, and its side grows with the input.
#
# The chapter gives the example of BERT, a Transformer encoder. Every token of BERT attends to every token, so the
# memory for the scores grows with the square of the length. With twice as many tokens, the table is four times as
# large. This is one reason why such models limit their input: BERT takes at most 512 tokens. The features of a
# video can be more than that, and their number is not known in advance. It depends on the size of the picture and
# on the number of frames.

# %%
star = draw_scene(rng, sample_single(rng, (("star", "blue"),), "medium", "top right"))
clip = draw_clip(rng, sample_clip(rng, (("heart", "green"),), action="moves left"))
media = {"a picture": star[None], "doubled": star.repeat(2, 0).repeat(2, 1)[None], "a video": clip}
lengths = {}
for name, medium in media.items():
    features = encode_media(model.frozen, medium[None], config)
    _, F, S, _ = features.shape
    lengths[name] = F * S
    print(f"{name:10s} features (M, F, S, D) = {str(features.shape):18s} F * S = {F * S}")
R = len(resampler["latents"])
print("latents R =", R)

# %% [markdown]
# *Figure: two panels with tables of scores drawn to scale. On the left three squares, for a picture, a picture of
# doubled side and a video. The square of the video fills the panel. On the right the same three inputs give flat
# strips along the upper edge, as many rows high as there are latents.*

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharex=True, sharey=True)
for name, shade in zip(reversed(lengths), ("#cfe3f1", "#7fb5d9", BLUE), strict=True):
    n = lengths[name]
    axes[0].add_patch(Rectangle((0, 0), n, n, facecolor=shade, label=name))
    axes[1].add_patch(Rectangle((0, 0), n + R, R, facecolor=shade, label=name))
longest = max(lengths.values())
axes[0].set(xlim=(0, longest + R), ylim=(longest, 0), title="every feature looks at all features", ylabel="queries")
axes[1].set(title=f"{R} latents look at everything")
for axis in axes:
    axis.set(xlabel="keys", aspect="equal")
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# The right panel shows the resampler. Its queries are `R` learned vectors, the latents. They look at the input.
# The output has `R` rows, for an input of any length.
#
# **Predict.** How many numbers are in the left table of the video, and how many in the right one? What happens to
# both when the video is twice as long?

# %%
for name, n in lengths.items():
    print(f"{name:14s} self-attention {n * n:8,d} scores    latents {R * (n + R):6,d} scores")
n = 2 * lengths["a video"]
print(f"{'twice as long':14s} self-attention {n * n:8,d} scores    latents {R * (n + R):6,d} scores")

# %% [markdown]
# For one small picture of the toy, the latents save little. The important point is how the two columns grow.
#
# ## One layer of the resampler
#
# The diagram shows one layer. White boxes are data, orange boxes are trained. The latents go through it from left
# to right. First they look at the input, then a feed-forward layer computes with what they have found. Both results
# are added to the latents. The features do not change.
#
# *Figure: the latents go along a line from left to right. Two branches leave the line. One leads to the attention
# as queries Q. The other is concatenated with the features, to which the time was added, and leads to the attention
# as keys K and values V. The result is added to the line. Then a third branch goes through a feed-forward layer,
# and its result is added too.*

# %%
diagrams.show(diagrams.resampler_layer())

# %% [markdown]
# ## One look, with loops
#
# Take one head and one medium. Each latent has a query. Everything that it can look at has a key and a value. The
# products of the query with the keys, divided by $\sqrt{K}$, are the scores. Their softmax gives the weights.
# The result for this latent is the sum of the values, each multiplied by its weight. Why do we divide? Each product
# is a sum of `K` terms. Without the division, a large `K` would make the scores large, and the softmax would give
# nearly all the weight to one key.
#
# A latent can look at the features **and at the latents themselves**. So each latent also knows what the other
# latents contain. The paper found this slightly better than features alone (appendix A.1.1).


# %%
def look_with_loops(latents, features, w_q, w_k, w_v):
    """latents (R, D), features (S, D), three matrices (D, K) -> the result of each latent, (R, K)."""
    everything = [*features, *latents]  # S + R vectors that can be seen
    taken = []
    for latent in latents:
        query = latent @ w_q
        scores = np.array([query @ (seen @ w_k) for seen in everything]) / len(query) ** 0.5
        weights = np.exp(scores - scores.max())
        weights = weights / weights.sum()
        taken.append(sum(weight * (seen @ w_v) for weight, seen in zip(weights, everything, strict=True)))
    return np.array(taken)


D, K, small_R, small_S = 6, 4, 3, 5
latents, features = rng.standard_normal((small_R, D)), rng.standard_normal((small_S, D))
w_q, w_k, w_v = rng.standard_normal((3, D, K))
print("latents (R, D) =", latents.shape, " features (S, D) =", features.shape)
print("result (R, K) =", look_with_loops(latents, features, w_q, w_k, w_v).shape)

# %% [markdown]
# ### Exercise 05.1 · One look, without loops
# *difficulty: medium · minutes: 10*
#
# Write the same without a loop. Four or five lines are enough, and each of them works on all latents at once. The
# arguments and the result are the same.


# %% exercise 05.1
def look(latents, features, w_q, w_k, w_v):
    """latents (R, D), features (S, D), three matrices (D, K) -> (R, K)."""
    # solution
    everything = np.concatenate([features, latents])  # (S + R, D)
    scores = (latents @ w_q) @ (everything @ w_k).T / w_q.shape[1] ** 0.5  # (R, S + R)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = weights / weights.sum(axis=1, keepdims=True)
    return weights @ (everything @ w_v)
    # end of solution


# %% check 05.1
from tinyflamingo.checks import check_05_1_look

check_05_1_look(look)

# %% [markdown]
# The library has one function for every attention of this kind. It needs axes for the batch and the heads. It takes
# the keys and values as arguments. It does not know that they were computed from features and latents.

# %%
everything = np.concatenate([features, latents])
q, k, v = (x[None, :, None, :] for x in (latents @ w_q, everything @ w_k, everything @ w_v))
print("q (B, T, H, K) =", q.shape, " k and v (B, S, H, K) =", k.shape)
difference = ops.attention(q, k, v)[0, :, 0] - look_with_loops(latents, features, w_q, w_k, w_v)
print("loops and library agree:", bool(np.abs(difference).max() < 1e-12))

# %% [markdown]
# ## Many media, many frames
#
# A video has one more axis. Each frame has its own learned vector, the temporal embedding, which is added to all
# `S` features of that frame (see notebook 04). Then the features of all frames become one long sequence, and the
# latents are put at its end.

# %% [markdown]
# ### Exercise 05.2 · What keys and values are made of
# *difficulty: easy · minutes: 5*
#
# You get features `(M, F, S, D)`, the temporal embedding of each frame `(F, D)` and the latents `(M, R, D)`. Make
# the sequence from which the keys and values are computed: `(M, F * S + R, D)`. The features come first, frame
# after frame.


# %% exercise 05.2
def what_is_seen(features, time, latents):
    """features (M, F, S, D), time (F, D), latents (M, R, D) -> (M, F * S + R, D)."""
    # solution
    M, F, S, D = features.shape
    timed = features + time[None, :, None, :]
    return np.concatenate([timed.reshape(M, F * S, D), latents], axis=1)
    # end of solution


# %% check 05.2
from tinyflamingo.checks import check_05_2_what_is_seen

check_05_2_what_is_seen(what_is_seen)

# %% [markdown]
# The library never builds this sequence. The keys and values are the sequence times a matrix, and the product of a
# sum with a matrix is the sum of two products. So the library multiplies the features, the time vectors and the
# latents separately, and concatenates only the products:
#
# $$[\text{features} + \text{time}\,;\;\text{latents}]\;W
# = [\text{features}\,W + \text{time}\,W\,;\;\text{latents}\,W]$$
#
# The result is the same. The forward pass multiplies `F` more rows, but the backward pass has less work. First, the
# features are frozen, so nobody needs the gradient of the long product with respect to them. Second, the gradient of
# the time vectors is first summed over the `S` features of each frame. So only `F` rows are multiplied by the matrix,
# and not `F * S`.

# %%
M, F, S, D, inner = 2, 3, 4, 6, 8
features, time, latents = (rng.standard_normal(shape) for shape in ((M, F, S, D), (F, D), (M, small_R, D)))
w = rng.standard_normal((D, inner))
row = np.concatenate([(features + time[None, :, None]).reshape(M, F * S, D), latents], axis=1)
one_by_one = library.project_both(features, time, latents, w)
print("row (M, F S + R, D) =", row.shape, " keys (M, F S + R, inner) =", one_by_one.shape)
print("the same:", bool(np.abs(row @ w - one_by_one).max() < 1e-12))
show(library.project_both)

# %% [markdown]
# ## What it costs
#
# Attention consists of two matrix products for each head: queries times keys, and weights times values. A product
# of `(T, K)` and `(K, S)` takes `T * K * S` multiplications and as many additions. Between the two products is the
# table of scores. It has `T` times `S` numbers of 4 bytes for every head.

# %% [markdown]
# ### Exercise 05.3 · The price of a look
# *difficulty: easy · minutes: 5*
#
# How many floating-point operations do the two products take, for `T` queries, `S` keys, and `H` heads of size
# `K`? How many bytes does the table of scores have in float32? Return both numbers in this order.


# %% exercise 05.3
def price(T, S, H, K):
    """(flops of the two products, bytes of the scores)."""
    # solution
    products = 2 * H * (2 * T * S * K)
    scores = 4 * H * T * S
    return products, scores
    # end of solution


# %% check 05.3
from tinyflamingo.checks import check_05_3_price

check_05_3_price(price)

# %% [markdown]
# We also measure the numbers. The function `gemm_flops` of the library records the shapes of every matrix product in
# a call. The bytes are those of an array of scores that the next cell really makes.

# %%
H, K = config.resampler.heads, config.resampler.key_size


def measured(T, S):
    """(flops, bytes) of an attention from T queries to S keys, measured while it runs."""
    q, k, v = (np.ones((1, n, H, K), np.float32) for n in (T, S, S))
    scores = np.einsum("bthk,bshk->bhts", q, k)
    return gemm_flops(lambda: ops.attention(q, k, v)), scores.nbytes


sizes = (64, 128, 256, 512, 1024, 2048)
by_self = np.array([measured(n, n) for n in sizes])
by_latents = np.array([measured(R, n + R) for n in sizes])
print(f"{'features':>9s} {'self: Mflop':>12s} {'MB':>7s} {'latents: Mflop':>15s} {'MB':>7s}")
for n, a, b in zip(sizes, by_self / 1e6, by_latents / 1e6, strict=True):
    print(f"{n:9d} {a[0]:12.1f} {a[1]:7.2f} {b[0]:15.2f} {b[1]:7.3f}")

# %% [markdown]
# *Figure: flops and bytes against the number of features, both axes logarithmic. If features look at features, the
# lines rise with slope two. If latents look, the lines rise with slope one and are far below.*

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
for axis, column, label in ((axes[0], 0, "flops"), (axes[1], 1, "bytes of scores")):
    axis.loglog(sizes, by_self[:, column], "s--", color=ORANGE, label="features look at features")
    axis.loglog(sizes, by_latents[:, column], "o-", color=BLUE, label=f"{R} latents look")
    axis.set(xlabel="number of features", ylabel=label)
    axis.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axis.minorticks_off()
axes[0].legend(frameon=False)
plt.show()
steep, flat = (np.polyfit(np.log(sizes), np.log(c[:, 0]), 1)[0] for c in (by_self, by_latents))
print(f"slopes: {steep:.2f} (a square), {flat:.2f} (a line)")

# %% [markdown]
# The paper has 100 features for a picture of 320 pixels, 800 for a training video of 8 frames and 3000 for a test
# video of 30 frames. 64 latents look at them. The resampler also saves work after itself: every cross-attention in
# the language model reads `R` tokens for each medium, not `F * S`.

# %% [markdown]
# ## The gradient of a look, by hand
#
# Write `s` for the scores of one latent, `p = softmax(s)` for its weights, and `g` for the gradient that arrives
# at `p`. Every score changes every weight, because the weights are divided by the same sum:
#
# $$\frac{\partial p_i}{\partial s_j} = p_i(\delta_{ij} - p_j)
# \qquad\Rightarrow\qquad
# \frac{\partial L}{\partial s_j} = \sum_i g_i\, p_i(\delta_{ij} - p_j)$$
#
# The loops below multiply `g` by the whole matrix of derivatives. Finite differences show whether the result is
# right. (In exercise 01.3 you wrote it without loops.)


# %%
def softmax(s):
    """Weights along the last axis."""
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_gradient_with_loops(p, g):
    """Weights p (T, S) and the gradient g (T, S) that arrives at them -> gradient of the scores (T, S)."""
    out = np.zeros_like(p)
    for t in range(p.shape[0]):
        for j in range(p.shape[1]):
            for i in range(p.shape[1]):
                out[t, j] += g[t, i] * p[t, i] * ((i == j) - p[t, j])
    return out


s, g, way = rng.standard_normal((3, 2, 5))  # scores, arriving gradient, a direction to move in
by_hand = np.sum(softmax_gradient_with_loops(softmax(s), g) * way)
moved = np.sum(g * (softmax(s + 1e-6 * way) - softmax(s - 1e-6 * way))) / 2e-6
print(f"by hand {by_hand:.8f}   by moving the scores {moved:.8f}")

# %% [markdown]
# ### Exercise 05.4 · Who gets the gradient
# *difficulty: medium · minutes: 10*
#
# Now the gradient goes back on the other path, through the values. One look is `out = p @ values`, with `values =
# E @ w_v`. `E` contains everything the latents look at: the `S` features, then the `R` latents, as rows of one
# array `(S + R, D)`. The weights `p` are `(R, S + R)`. The gradient `g` that arrives at `out` is `(R, K)`. Return
# two gradients: with respect to the features `(S, D)`, and with respect to the latents `(R, D)` as a part of `E`.
# (The latents get one more gradient, because the queries are computed from them. Leave that one out.)


# %% exercise 05.4
def through_values(p, g, w_v, S):
    """p (R, S + R), g (R, K), w_v (D, K), S: number of features -> (dfeatures (S, D), dlatents (R, D))."""
    # solution
    seen = p.T @ g @ w_v.T  # (S + R, D)
    return seen[:S], seen[S:]
    # end of solution


# %% check 05.4
from tinyflamingo.checks import check_05_4_through_values

check_05_4_through_values(through_values)

# %% [markdown]
# If no latent looks at a feature, its column of `p` is zero, and the feature gets no gradient through the values.
# Each row of the gradient of the softmax sums to zero. The reason: if all scores rise by the same amount, the
# weights do not change.
#
# ## Why the latents start at random
#
# **Predict.** Before training, two latents are set to the same vector. What will their two visual tokens be, for
# any picture? And after a thousand steps of training?

# %%
fresh = library.init_resampler(np.random.default_rng(0), config.resampler)
fresh["latents"][3] = fresh["latents"][2]
picture = encode_media(model.frozen, star[None, None], config)
tokens = library.perceiver_resampler(fresh, picture, config.resampler)[0]
_, gradient = ops.value_and_grad(lambda p: library.perceiver_resampler(p, picture, config.resampler)[0, :, 0].sum())(
    fresh
)
apart = [np.abs(x[2] - x[3]).max() for x in (tokens, gradient["latents"])]
others = [np.abs(x[2] - x[4]).max() for x in (tokens, gradient["latents"])]
print(f"latents 2 and 3, the same:   tokens apart by {apart[0]:.1e}, gradients by {apart[1]:.1e}")
print(f"latents 2 and 4, different:  tokens apart by {others[0]:.1e}, gradients by {others[1]:.1e}")

# %% [markdown]
# The two latents stay equal. They have the same query, so they get the same result and the same gradient. The
# resampler does not use the number of a latent. Two latents differ only if their vectors differ. So the latents
# start at random.
#
# ## Look inside: what each latent looks at
#
# The layers do not keep their attention weights. The library can compute them again, in the order in which the
# latents go through the layers. For every layer it gives what each latent looks at: first the cells, then the
# latents themselves.

# %%
looks = resampler_maps(resampler, picture, config.resampler)[:, 0]
S, side = picture.shape[2], int(picture.shape[2] ** 0.5)
print("weights (layers, H, R, S + R) =", looks.shape, " rows sum to 1:", bool(np.allclose(looks.sum(-1), 1, atol=1e-5)))
for i, layer in enumerate(looks):
    print(f"layer {i}: share of the weight on the S features {layer[:, :, :S].sum(-1).mean():.2f},", end=" ")
    print(f"on the R latents {layer[:, :, S:].sum(-1).mean():.2f}")

# %% [markdown]
# *Figure: two rows, one for each layer. On the left the picture with its star, then one map for each latent,
# averaged over heads, each with its own scale. Bright cells get the largest weights. Some latents look at the
# cells of the star, some at everything except those.*

# %%
figure, axes = plt.subplots(len(looks), R + 1, figsize=(9.5, 2.6))
for i, (row, layer) in enumerate(zip(axes, looks, strict=True)):
    row[0].imshow(star)
    row[0].set_title(f"layer {i}")
    for r, axis in enumerate(row[1:]):
        axis.imshow(layer[:, r, :S].mean(0).reshape(side, side), cmap="magma")
        axis.set_title(f"latent {r}")
for axis in axes.flat:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# **Turn it.** Run the next cell. Move from latent to latent and choose another picture. Does a latent follow the
# thing, a colour, a place, or something else?

# %%
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, NAMED, POSITIONS


def look_at(shape="star", colour="blue", position="top right", latent=0, layer=0):
    image = draw_scene(np.random.default_rng(3), sample_single(rng, ((shape, colour),), "medium", position))
    weights = resampler_maps(resampler, encode_media(model.frozen, image[None, None], config), config.resampler)
    figure, axes = plt.subplots(1, 2, figsize=(5, 2.4))
    axes[0].imshow(image)
    axes[1].imshow(weights[layer, 0, :, latent, :S].mean(0).reshape(side, side), cmap="magma", vmin=0)
    plt.show()


where = {"latent": (0, R - 1), "layer": (0, len(looks) - 1)}
sliders(look_at, shape=list(NAMED), colour=list(COLOUR_NAMES), position=list(POSITIONS), **where)

# %% [markdown]
# Nobody told the latents what to look for. Is one of them now the latent for the colour? Be careful with such
# conclusions. A map shows where a token takes its information from. It does not show which information the token
# contains. To find out, we remove things and measure the effect.
#
# ## Break it
#
# First we make a small change in the trained model: `[features ; latents]` becomes `[features]`. Then we pass
# fewer and fewer of the `R` visual tokens to the language model. The score is the probability of the right answer,
# over fresh pictures.

# %%
questions = ("color", "shape", "position")
scenes = [sample_single(rng) for _ in range(40)]
pictures = encode_media(model.frozen, np.stack([draw_scene(rng, s) for s in scenes])[:, None], config)
batches = {
    name: make_batch(
        # The 0 marks the place of a medium. Its features are passed separately. Quiet: not learned (notebook 09).
        [encode_document([0, Quiet(say.ask(name)), say.questions(scene)[name]], model.tokenizer) for scene in scenes]
    )
    for name in questions
}


def right(visual):
    """Mean probability of the right answer to each question, given visual tokens (M, R, D)."""
    scores = [score_continuations(model, batch, visual) for batch in batches.values()]
    return np.exp(scores).mean(axis=1)


def without_latents(features, time, latents, w):
    """`project_both` without the latents: keys and values of the features alone."""
    return whole(features, time, latents, w)[:, : -latents.shape[1]]


whole = library.project_both
visual = resample(model.params, [pictures], config)
library.project_both = without_latents
try:
    broken = resample(model.params, [pictures], config)
finally:
    library.project_both = whole
print(f"{'':28s}" + "".join(f"{name:>10s}" for name in questions))
for name, tokens in (("features and latents", visual), ("features alone", broken)):
    print(f"{name:28s}" + "".join(f"{p:10.2f}" for p in right(tokens)))

# %% [markdown]
# Compare the two rows of the table. The model was trained with the latents among the keys. In the second row they are
# missing, so the weights of the softmax change, and the visual tokens change too. Some answers suffer more from this
# than others: compare the columns. This does not show that a resampler needs the latents for these
# answers. For that, one must train a second model with the features alone and compare the two, as the paper did.
#
# *Figure: the probability of the right answer against the number of visual tokens that are passed on, one line each
# for colour, shape and position. With all tokens, all three are high. With fewer tokens, each line falls at its own
# place: one question needs only a few tokens, another needs more.*

# %%
kept = np.array([right(visual[:, :r]) for r in range(1, R + 1)])
figure, axis = plt.subplots(figsize=(5, 2.4))
for column, name, colour, mark in zip(kept.T, questions, (BLUE, ORANGE, GREEN), "osD", strict=True):
    axis.plot(range(1, R + 1), column, color=colour, marker=mark, label=name)
axis.set(xlabel="visual tokens passed on", ylabel="P(right answer)", ylim=(0, 1.02))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# The information about a picture is spread over the tokens, and the model was trained with all of them. Without some
# of them its answers are worse. How much worse depends on the question and on the tokens that are missing.
#
# ## In the library
#
# The whole layer is two short functions. Exercise 05.1 is `ops.attention`. Exercise 05.2 is inside `project_both`,
# which `project` calls. After the attention there is a feed-forward with a squared ReLU.

# %%
show(library.resampler_layer, library.project)
paper = {"layers": 6, "latents": 64, "width": 1536, "heads": 16}
print(f"{'':10s}{'here':>8s}{'paper':>8s}")
for name, number in paper.items():
    print(f"{name:10s}{getattr(config.resampler, name):8d}{number:8d}")

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("05")

# %%
check_quiz("05", ".....")

# %% [markdown]
# ## Summary
#
# The queries come from the latents, and the keys and values come from features and latents. So the cost grows
# linearly with the input, while the cost of self-attention grows with its square. For an input of any length, `R`
# tokens come out, so the language model never needs to know how large a picture was. Only their vectors make the
# latents different, and training decides where each of them looks.
#
# **Try it.** Change `config.resampler` to one latent and train the smoke preset; draw `resampler_maps` of a video
# and see which frames get the largest weights. Notebook 04 explains the frames, and notebook 07 explains which text
# may read the tokens.
#
# **Further reading.** [Flamingo](https://arxiv.org/abs/2204.14198), section 2.1 and figure 5;
# [Perceiver](https://arxiv.org/abs/2103.03206) and [Perceiver IO](https://arxiv.org/abs/2107.14795), where latents
# come from; [Set Transformer](https://arxiv.org/abs/1810.00825), which had the idea for sets. Where this code
# differs from the paper: `docs/deviations.md`, "The Perceiver resampler".
