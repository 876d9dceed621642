# %% [markdown]
# # Masking: which word may look at which picture
#
# *minutes: 110 · chapter §4 · key: masking*
#
# A page holds words and pictures in one order. The sentence "A red house" describes the picture before it, and no
# other picture. Flamingo knows this from a mask. The mask is computed from one small vector of integers, `phi`.
# The rule is short, but it is easy to get wrong. This notebook shows the rule and two common mistakes.
#
# **You will build** the tags and chunks of a page, `phi`, the mask, a softmax for rows that see nothing, the
# gradient of the attention, and the "next" mode of training.
#
# **You will not build** the projections and gates around the attention (notebook 08), nor the resampler that
# turns a picture into `R` tokens (notebook 05).
#
# **You can change it by hand**: `python -m tinyflamingo explore` opens a page in your browser. Its first view
# shows the mask of any prompt, token by token. It also has a quiz, and buttons that break the mask. Add
# `#show=mask&m=quiz` to the address of the page, and it opens with the quiz.
#
# You need NumPy, and attention as softmax of scores times values. The letters are those of the code: `T` text
# tokens, `N` pictures in the page, `R` visual tokens per picture, `H` heads, `K` size of a head. The chapter
# calls the text tokens `Y` and the image tokens `X`.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from autograd import make_vjp
from matplotlib.colors import ListedColormap

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import picture, show, sliders
from tinyflamingo.model import interleave
from tinyflamingo.model.flamingo import encode_and_resample, flamingo
from tinyflamingo.model.interleave import cross_attention_mask, encode_document, make_batch
from tinyflamingo.ops import reference
from tinyflamingo.variants.ablations import AllPreviousXattnConfig
from tinyflamingo.variants.registry import in_form, parts_of

plt.rcParams.update({"figure.dpi": 80, "font.size": 9, "figure.constrained_layout.use": True})
COLOURS = ["#DDDDDD", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442"]  # of phi 0, 1, 2, ...
model = tinyflamingo.load()
rng = np.random.default_rng(7)


# %% [markdown]
# ## A page becomes a row of tokens
#
# The chapter's example is a page about two pets: a line of welcome, a picture with its sentence, and another
# picture with its sentence. Here is a page of the same structure from our own world. In Python a page is a list.

# %%
house, star = picture(rng, "house", "red", "top"), picture(rng, "star", "blue", "middle", "small")
page = ["here are my two pictures.", house, "a red house at the top.", star, "a small blue star."]

sequence = encode_document(page, model.tokenizer)
tokens, media = np.array(sequence.tokens), sequence.media
T, N, R = len(tokens), len(media), model.config.resampler.latents
pieces = [model.tokenizer.piece(t) for t in tokens]
print("T =", T, " N =", N, " R =", R)
print(" ".join(pieces))

# %% [markdown]
# `encode_document` has added three kinds of marks to the words. `<BOS>` (beginning of sequence) opens the page.
# An `<image>` tag stands in the place of a picture. The pixels themselves are never in this row. `<EOC>` (*end of
# chunk*) stands before every picture, except before a picture that opens the page. It also stands at the very
# end. These marks cut the page into **chunks**. A chunk has at most one picture, and the picture comes first in
# its chunk.

# %%
chunks, rows = np.cumsum(tokens == interleave.IMAGE), []
for chunk in range(N + 1):
    rows.append([p for p, c in zip(pieces, chunks, strict=True) if c == chunk])

figure, axes = plt.subplots(N + 1, 2, figsize=(7.4, 2.4), width_ratios=(1, 9))
for chunk, (left, right) in enumerate(axes):
    if chunk:
        left.imshow(media[chunk - 1])
    x = 0
    for piece in rows[chunk]:
        right.text(x, 0, piece, family="monospace", fontsize=9, bbox={"fc": COLOURS[chunk], "ec": "none", "pad": 2})
        x += len(piece) + 1.2
    right.set(xlim=(0, 64), ylim=(-1, 1))
    left.set_axis_off()
    right.set_axis_off()
plt.show()

# %% [markdown]
# *Figure: the page, one chunk per line. The first line, grey, has no picture. The second, orange, has the picture
# of a red house and runs from its `<image>` tag to the `<EOC>` after "top." The third, blue, has the blue star
# and its sentence.*
#
# The pieces come from the toy's tokenizer. The sign `▁` marks the beginning of a word. The tokenizer has one
# piece for each word of its small world. It spells all other words.

# %% [markdown]
# ### Exercise 07.1 · Where chunks end
# *difficulty: easy · minutes: 8*
#
# Write the rule as code. A page is a list of the strings `"text"` and `"image"`. Return the row of tokens: first
# `"<BOS>"`, then the items, with an `"<EOC>"` before every image **except an image that opens the page**, and an
# `"<EOC>"` at the end. Two images may follow each other. Then an `<EOC>` stands between them too.
# A page may also be empty.


# %% exercise 07.1
def with_marks(items):
    """["text", "image", "text"] -> ["<BOS>", "text", "<EOC>", "image", "text", "<EOC>"]."""
    row = ["<BOS>"]
    # solution
    for place, item in enumerate(items):
        if item == "image" and place > 0:
            row.append("<EOC>")
        row.append(item)
    row.append("<EOC>")
    # end of solution
    return row


# %% check 07.1
from tinyflamingo.checks import check_07_1_with_marks

check_07_1_with_marks(with_marks)

# %% [markdown]
# ## phi: the number of the picture a token sees
#
# For every token `l`, `phi[l]` is the number of the last picture that stands at `l` or before it. The first
# picture has the number 1. The number 0 means: no picture yet.
#
# **Predict.** Answer before you run the next cell. What is `phi` of the first `<image>` tag itself, 0 or 1? What
# is `phi` of the `<EOC>` just *before* the second tag, 1 or 2?


# %%
def phi_by_hand(tokens):
    """phi with a loop: walk along the row and remember the last tag."""
    last, numbers = 0, []
    for token in tokens:
        if token == interleave.IMAGE:
            last = last + 1
        numbers.append(last)
    return np.array(numbers)


phi = phi_by_hand(tokens)
print("phi (T,) =", phi.shape)
for place in np.flatnonzero(np.isin(tokens, (interleave.IMAGE, model.tokenizer.eoc))):
    print(f"token {place:2d}  {pieces[place]:8s} phi {phi[place]}")

# %% [markdown]
# A tag has the number of its own picture. The `<EOC>` that closes a chunk still belongs to that chunk. The paper
# prints `phi` under its own example in the same way.
#
# **Two readings.** The chapter says that `phi` is 0 where there is no earlier picture *in the chunk*. The paper
# says that `phi` is the number of the last picture *in the sequence*, and 0 only if there is none. Usually both
# rules give the same numbers, because every chunk after the first begins with a picture. They differ if a chunk
# without a picture stands later in the page. By the chapter's sentence its words see nothing. By the paper's rule
# its words see the last picture. The paper's figure has no such chunk: it has 0 only before the first picture.
# The library follows the paper.

# %% [markdown]
# ### Exercise 07.2 · phi in one line
# *difficulty: easy · minutes: 5*
#
# Write it without a loop: one NumPy function does it. `is_image` is a boolean array `(T,)` that is true at the
# tags. Make the function work for a batch `(B, T)` too. Each row is counted separately.


# %% exercise 07.2
def phi_in_one_line(is_image):
    """is_image (..., T) bool -> (..., T) int."""
    # solution
    return np.cumsum(is_image, axis=-1)
    # end of solution


# %% check 07.2
from tinyflamingo.checks import check_07_2_phi

check_07_2_phi(phi_in_one_line)

# %% [markdown]
# The library uses the same line. The loop and the line agree on this page and on a thousand rows of random tags:

# %%
print("on the page:     ", np.array_equal(phi_by_hand(tokens), interleave.phi(tokens)))
random_rows = np.where(rng.random((1000, 12)) < 0.3, interleave.IMAGE, 9)
print("on 1000 rows:    ", all(np.array_equal(phi_by_hand(row), interleave.phi(row)) for row in random_rows))

# %% [markdown]
# ## The mask
#
# The visual tokens of all pictures form one row of `N * R` tokens: first all `R` tokens of picture 1, then those
# of picture 2. The mask has one row for every text token and one column for every visual token. With loops the
# rule is one line: token `l` may look at the tokens of picture `phi[l]`.


# %%
def mask_by_hand(phi, N, R):
    """(T, N * R): may token l look at visual token r of picture n?"""
    mask = np.zeros((len(phi), N * R), bool)
    for place in range(len(phi)):
        for n in range(1, N + 1):
            for r in range(R):
                mask[place, (n - 1) * R + r] = phi[place] == n
    return mask


# %% [markdown]
# ### Exercise 07.3 · The mask without loops
# *difficulty: medium · minutes: 10*
#
# Write the mask with one comparison. Give every column the number of its picture, `1 1 ... 2 2 ...`. Broadcasting
# then compares these numbers with the `phi` of every row.


# %% exercise 07.3
def mask_by_broadcasting(phi, N, R):
    """phi (T,) int -> (T, N * R) bool."""
    # solution
    owner = np.repeat(np.arange(1, N + 1), R)
    return phi[:, None] == owner[None, :]
    # end of solution


# %% check 07.3
from tinyflamingo.checks import check_07_3_mask

check_07_3_mask(mask_by_broadcasting)

# %%
mask = cross_attention_mask(phi, N, R)
print("mask (T, N * R) =", mask.shape)
print("loops and library agree:", np.array_equal(mask_by_hand(phi, N, R), mask))


def draw_mask(axis, mask, pieces, phi, N, R):
    """The mask cell by cell, its cells coloured by picture; words at the left with their phi."""
    shown = mask * np.repeat(np.arange(1, N + 1), R)
    colours = ListedColormap(["white", *COLOURS[1 : N + 1]]) if N else ListedColormap(["white"])
    axis.pcolormesh(shown, cmap=colours, vmin=0, vmax=max(N, 1), edgecolors="lightgrey", linewidth=0.5)
    labels = [f"{piece}   {n}" for piece, n in zip(pieces, phi, strict=True)]
    axis.set(yticks=np.arange(len(pieces)) + 0.5, yticklabels=labels, xticks=(np.arange(N) + 0.5) * R)
    axis.set_xticklabels([f"picture {n + 1}" for n in range(N)])
    axis.invert_yaxis()
    axis.xaxis.tick_top()
    axis.tick_params(length=0)


figure, axis = plt.subplots(figsize=(0.24 * N * R + 1.8, 0.19 * T + 0.5))
draw_mask(axis, mask, pieces, phi, N, R)
plt.show()

# %% [markdown]
# *Figure: the mask of the page, one row per token with its phi, one column per visual token. The rows of the
# first chunk are empty. From the first `<image>` tag to the second the columns of picture 1 are filled, from the
# second tag to the end those of picture 2.*
#
# **Turn it.** Run the next cell. A slider appears. It goes through the page token by token and shows which picture
# the token may see.


# %%
def show_token(token=0):
    figure, axes = plt.subplots(1, N + 1, figsize=(9, 0.19 * T + 0.5), width_ratios=(3, *[1] * N))
    draw_mask(axes[0], mask[: token + 1], pieces[: token + 1], phi[: token + 1], N, R)
    axes[0].set(ylim=(T, 0), title=f"token {token}: {pieces[token]}, phi = {phi[token]}")
    for n, (axis, image) in enumerate(zip(axes[1:], media, strict=True), start=1):
        axis.imshow(image, alpha=1.0 if phi[token] == n else 0.15)
        axis.set(xticks=(), yticks=(), title=f"picture {n}")
    plt.show()


sliders(show_token, token=(0, T - 1))

# %% [markdown]
# Read the mask by rows: which visual tokens may this text token look at? The answer is always the tokens of one
# picture, or none. Read it by columns: which text tokens look at picture 1? They form one continuous stretch.
# Therefore the library does not need to compute the white cells at all:

# %%
print("cells that are needed:", int(mask.sum()), "of", mask.size, f"= {mask.mean():.0%}")

# %% [markdown]
# Now use your own page. Change it as you like. Put a picture first, or put two pictures in a row, and run the
# cell again.

# %%
own_page = [star, "a blue star.", house, house, "two red houses."]

row = encode_document(own_page, model.tokenizer)
my_pieces, my_phi = [model.tokenizer.piece(t) for t in row.tokens], interleave.phi(row.tokens)
my_N = len(row.media)
figure, axis = plt.subplots(figsize=(0.24 * max(my_N, 1) * R + 1.8, 0.19 * len(my_pieces) + 0.5))
draw_mask(axis, cross_attention_mask(my_phi, my_N, R), my_pieces, my_phi, my_N, R)
plt.show()

# %% [markdown]
# *Figure: the mask of a page that opens with a picture and has two pictures in a row. Only one row is empty, that
# of `<BOS>`. The second picture is seen by its own tag and an `<EOC>`, but by no word.*

# %% [markdown]
# ## Attention under the mask
#
# The text token gives a query. The visual tokens give keys and values. With loops, for one head, there are three
# steps. Compute the scores of the `R` tokens of the text token's own picture. Turn the scores into shares with a
# softmax. Take the mean of the values with these shares as weights. A text token without a picture gets zeros.


# %%
def attend_by_hand(q, k, v, phi):
    """q (T, K), k and v (N, R, K), phi (T,) -> (T, K)."""
    T, K = q.shape
    out = np.zeros((T, K))
    for place in range(T):
        if phi[place] == 0:
            continue  # it sees no picture: the row stays 0
        keys, values = k[phi[place] - 1], v[phi[place] - 1]
        scores = [sum(q[place] * keys[r]) / np.sqrt(K) for r in range(len(keys))]
        shares = np.exp(scores - max(scores))
        shares = shares / sum(shares)
        for r in range(len(keys)):
            out[place] += shares[r] * values[r]
    return out


K = 6
q, k, v = rng.standard_normal((T, K)), rng.standard_normal((N, R, K)), rng.standard_normal((N, R, K))
by_hand = attend_by_hand(q, k, v, phi)
print("q (T, K) =", q.shape, " k, v (N, R, K) =", k.shape, " out (T, K) =", by_hand.shape)

# %% [markdown]
# The paper uses matrices: it computes all `N * R` scores of every text token. It covers the scores that the mask
# forbids and takes the softmax of the rest. This works for every row that sees a picture. It does not work for
# rows with `phi` 0.
#
# **Predict.** The usual method writes a very large negative number, for example -1e9, where the mask forbids. In
# the row of a token with `phi` 0, *every* score is then -1e9. What does the softmax return: zeros, equal shares,
# or NaN? And what does it return with -infinity?


# %%
def plain_softmax(scores):
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


forbidden = np.array([False, False, False, False])
scores = np.array([0.3, -1.2, 2.0, 0.1])
with np.errstate(invalid="ignore"):
    for cover in (-1e9, -np.inf):
        print(f"{cover:8g}: shares", np.round(plain_softmax(np.where(forbidden, scores, cover)), 3))

# %% [markdown]
# The result is equal shares, or NaN. NaN is the better of the two, because someone will notice it. With equal
# shares, a word before all pictures looks at *all* of them, although they come later. A softmax always returns
# shares that sum to 1. Therefore a mask that only covers scores cannot express "sees nothing". The code has to
# treat the empty row separately.

# %% [markdown]
# ### Exercise 07.4 · A softmax with a mask
# *difficulty: medium · minutes: 12*
#
# Write a softmax over the last axis that uses the visible scores only. What is not visible gets exactly 0. The
# shares of a row that sees something sum to 1. A row that sees nothing is all 0: no NaN, and no warning from
# NumPy. Scores may be around 2000 or around -2000, both visible and hidden scores.


# %% exercise 07.4
def masked_softmax(scores, visible):
    """scores (..., S) float, visible (..., S) bool -> shares (..., S)."""
    # solution
    covered = np.where(visible, scores, -1e9)
    shares = np.exp(covered - covered.max(-1, keepdims=True)) * visible
    total = shares.sum(-1, keepdims=True)
    return shares / np.where(total == 0, 1.0, total)  # 0 / 1 in an empty row
    # end of solution


# %% check 07.4
from tinyflamingo.checks import check_07_4_masked_softmax

check_07_4_masked_softmax(masked_softmax)


# %% [markdown]
# With the library's masked softmax, the matrix version has three lines. It gives the same result as the loops.
# The model uses `ops.segment_attention`, which also gives the same result. It computes one stretch after another
# and never computes a white cell.


# %%
def attend(q, k, v, visible):
    """The same as matrices: q (T, K), k and v (N, R, K), visible (T, N * R) -> (T, K)."""
    K = q.shape[-1]
    keys, values = k.reshape(-1, K), v.reshape(-1, K)
    return reference.masked_softmax(q @ keys.T / np.sqrt(K), visible) @ values


as_matrices = attend(q, k, v, mask)
in_the_library = ops.segment_attention(q[None, :, None], k[None, :, :, None], v[None, :, :, None], phi[None])[0, :, 0]
print("loops and matrices differ by at most", f"{np.abs(by_hand - as_matrices).max():.0e}")
print("loops and library differ by at most ", f"{np.abs(by_hand - in_the_library).max():.0e}")
print("rows with phi 0 are exactly 0:      ", not as_matrices[phi == 0].any())

# %% [markdown]
# ## The gradient by hand
#
# The backward pass receives `g`, the gradient of the loss at the output. Let `w` be the shares. Then the gradient
# has these parts:
#
# - `out = w v` gives `dv = wᵀ g` and `dw = g vᵀ`,
# - the softmax gives `ds = w (dw - Σ w dw)`,
# - the scores give `dq = ds k / √K` and `dk = dsᵀ q / √K`.
#
# **Predict.** Where do these formulas need the mask?
#
# They do not need it. A hidden visual token has the share `w = 0`. Every gradient through it is multiplied by
# this share, so it is 0. A visual token gets no gradient from a text token that does not see it. No second mask
# is needed.


# %%
def attend_backward(g, q, k, v, visible):
    """Gradients of q, k and v from the gradient g (T, K) of the output."""
    K = q.shape[-1]
    keys, values = k.reshape(-1, K), v.reshape(-1, K)
    w = reference.masked_softmax(q @ keys.T / np.sqrt(K), visible)  # (T, N R)
    dw = g @ values.T
    ds = w * (dw - (w * dw).sum(-1, keepdims=True)) / np.sqrt(K)
    return ds @ keys, (ds.T @ q).reshape(k.shape), (w.T @ g).reshape(v.shape)


g = rng.standard_normal((T, K))
gradients = attend_backward(g, q, k, v, mask)
step = 1e-6
for name, place, by_hand in zip("qkv", range(3), gradients, strict=True):
    along = rng.standard_normal(by_hand.shape)  # a random direction
    there, back = ([x + s * along if i == place else x for i, x in enumerate((q, k, v))] for s in (step, -step))
    measured = np.sum(g * (attend(*there, mask) - attend(*back, mask))) / (2 * step)
    print(f"d{name} {str(by_hand.shape):10s} measured {measured:+.6f}   by hand {np.sum(by_hand * along):+.6f}")
print("dq of rows with phi 0 is exactly 0:", not gradients[0][phi == 0].any())

# %% [markdown]
# Autograd computes the gradient of the reference one operation after another. It finds the same numbers:

# %%
for place, (name, by_hand) in enumerate(zip("qkv", gradients, strict=True)):
    arguments = [x[None, ..., None, :] for x in (q, k, v)]  # B and H are 1
    pull, _ = make_vjp(reference.segment_attention, place)(*arguments, phi[None])
    theirs = pull(g[None, :, None])[0].reshape(by_hand.shape)
    print(f"d{name} by hand and by autograd differ by at most {np.abs(theirs - by_hand).max():.0e}")

# %% [markdown]
# ## Break it
#
# Two small changes look harmless, but they are errors. To see this, we replace the picture of the star by another
# picture. The output of the tokens before the star's tag must not change. Each bar shows how much the output of
# one token changes.

# %%
other = k.copy()
other[1] = rng.standard_normal((R, K))  # picture 2 is a different one now


def all_images(q, k, v):
    """Without the mask: every token sees every picture."""
    return attend(q, k, v, np.ones_like(mask))


def covered_only(q, k, v):
    """Without a rule for empty rows: scores are covered with -1e9 only."""
    K = q.shape[-1]
    scores = np.where(mask, q @ k.reshape(-1, K).T / np.sqrt(K), -1e9)
    return plain_softmax(scores) @ v.reshape(-1, K)


ways = {
    "the mask as it should be": lambda q, k, v: attend(q, k, v, mask),
    "every picture seen by every word": all_images,
    "empty rows left to the softmax": covered_only,
}
figure, axes = plt.subplots(3, 1, figsize=(8, 4.6), sharex=True, sharey=True)
for axis, (title, way) in zip(axes, ways.items(), strict=True):
    moved = np.abs(way(q, other, v + (other - k)) - way(q, k, v)).max(-1)
    axis.bar(np.arange(T), moved, color=[COLOURS[n] for n in phi], edgecolor="grey", linewidth=0.5)
    axis.set_title(f"{title}: {int(np.sum(moved[phi < 2] > 0))} tokens before the picture have moved", loc="left")
axes[1].set_ylabel("how much the output moves")
axes[2].set_xticks(np.arange(T), pieces, rotation=90)
plt.show()

# %% [markdown]
# *Figure: three rows of bars, one bar per token, after the second picture was exchanged. With the right mask only
# the tokens of the last chunk move. With no mask all tokens move. With empty rows left to the softmax the last
# chunk moves, and so do the tokens of the first chunk, which stand before every picture.*
#
# The third case is dangerous, because it is hard to notice. It passes every test in which a picture comes first.
# The loss falls, and the captions are right. But a word has seen a picture from its future. In training the model
# can read the answer from that picture. When the model writes text itself, that picture is not there yet.
#
# The other error, every picture seen by every word, also changes the final output of the trained model. The paper
# has an ablation in which a text token sees all previous images at once. For this ablation the library has
# another gated block with the same parameters. Its `phi` has two numbers for each token, `(B, T, 2)`: the first
# and the last picture that the token sees. With 1 and `N` for all tokens, the mask hides nothing.

# %%
batch = make_batch([sequence])
visual = encode_and_resample(model, [house, star])  # (M, R, D)
changed = encode_and_resample(model, [house, picture(rng, "circle", "pink")])
wide = replace(model.config, xattn=in_form(model.config.xattn, AllPreviousXattnConfig))


def logits(visual, config=model.config, phi=batch.phi):
    return flamingo(model.params, model.frozen, batch.tokens, phi, visual, config, parts=parts_of(config))[0]


early = phi < 2
first, last = np.ones_like(batch.phi), np.full_like(batch.phi, N)
everything = {"config": wide, "phi": np.stack([first, last], axis=-1)}
for name, more in {"own picture only": {}, "all pictures": everything}.items():
    moved = np.abs(logits(changed, **more) - logits(visual, **more)).max(-1)
    before, after = moved[early].max(), moved[~early].max()
    print(f"{name:17s} logits before picture 2 move by at most {before:.3g}, those after by {after:.3g}")

# %% [markdown]
# **Predict.** Use the right mask and exchange picture **1** instead. Do the logits of the last chunk change,
# although its words cannot look at picture 1?

# %%
first_changed = encode_and_resample(model, [picture(rng, "circle", "pink"), star])
moved = np.abs(logits(first_changed) - logits(visual)).max(-1)
for n in range(N + 1):
    print(f"picture 1 exchanged: logits of tokens with phi {n} move by at most {moved[phi == n].max():.3g}")

# %% [markdown]
# They do change. The words of chunk 1 saw picture 1. The self-attention of the language model reads those words.
# So an earlier picture reaches a later word through the text. This is how Flamingo learns from examples in its
# prompt, although every word looks at one picture only. For the same reason it can use more pictures in a prompt
# than in training.

# %% [markdown]
# ## "Next" mode: a caption may stand before its picture
#
# On a web page, a sentence may belong to the picture above it or to the picture below it. The page does not say
# which. Therefore training reads pages from the web in "next" mode with probability `p_next`, one half. In this
# mode every token points to the *coming* picture. A tag still has the number of its own picture. After the last
# tag there is no coming picture, so these tokens keep the last one.

# %% [markdown]
# ### Exercise 07.5 · phi in next mode
# *difficulty: hard · minutes: 12*
#
# Write it for a boolean row `(T,)` that is true at the tags. Do not use a loop. If a page has no picture, `phi`
# is 0 everywhere, in this mode too.


# %% exercise 07.5
def phi_ahead(is_image):
    """is_image (T,) bool -> (T,) int: the coming picture, its own at a tag, the last one at the end."""
    # solution
    before = np.cumsum(is_image) - is_image  # tags strictly before a token
    return np.minimum(before + 1, is_image.sum())
    # end of solution


# %% check 07.5
from tinyflamingo.checks import check_07_5_phi_next

check_07_5_phi_next(phi_ahead)

# %%
captions_first = ["a red house.", house, "a blue star.", star]
row = encode_document(captions_first, model.tokenizer)
names = [model.tokenizer.piece(t) for t in row.tokens]
modes = {"usual": interleave.phi(row.tokens), "next": interleave.phi_next(row.tokens)}

figure, axis = plt.subplots(figsize=(8, 1.7))
axis.pcolormesh(np.stack(list(modes.values())), cmap=ListedColormap(COLOURS[: N + 1]), vmin=0, vmax=N, edgecolors="w")
for y, mode in enumerate(modes.values()):
    for x, n in enumerate(mode):
        axis.text(x + 0.5, y + 0.5, n, ha="center", va="center")
axis.set(yticks=(0.5, 1.5), yticklabels=modes)
axis.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
axis.invert_yaxis()
axis.tick_params(length=0)
plt.show()

# %% [markdown]
# *Figure: two strips of numbers over a page whose captions stand before their pictures. In the usual mode "a red
# house." has phi 0 and "a blue star." has phi 1, the wrong picture. In next mode they have 1 and 2, the right
# ones.*
#
# On this page, the usual mode would teach the model that the picture of the house is "a blue star". In training
# the model meets both modes, so it learns to use both.

# %% [markdown]
# ## In the library
#
# The library has the same functions under the same names. Solve the exercises first. Then open the output of the
# next cell. It is folded: click on the bar or the dots at its left. It shows the lines of the library as they are
# now.


# %% folded
show(interleave.phi, interleave.phi_next, cross_attention_mask)
show(reference.masked_softmax, reference.segment_attention)

# %% [markdown]
# The tests of this section are `python -m pytest -m masking`. They test, for example: a later image changes no
# earlier logit; an empty row is exactly 0 in the forward and in the backward pass; padding changes nothing; more
# tags than pictures is an error.
#
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("07")

# %%
check_quiz("07", ".....")

# %% [markdown]
# ## In three sentences
#
# `phi` counts the image tags up to and including a token, and the mask follows from this one vector. A text token
# looks at the `R` tokens of its own picture, and a token before any picture gets exactly 0, which the softmax
# must handle separately. Earlier pictures still have an effect, because later words read the words that saw them.
#
# **Further reading.** [Flamingo](https://arxiv.org/abs/2204.14198): section 2.3 and figure 7 for the mask,
# appendix A.3.2 for "next" mode, table 10 for the results when a token sees all previous images.
# [Perceiver](https://arxiv.org/abs/2103.03206): attention to a fixed number of latents. `docs/deviations.md` says
# what the paper does not define about `phi`, and what this project does in these cases.
