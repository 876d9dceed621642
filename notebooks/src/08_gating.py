# %% [markdown]
# # Gates: learning to look without forgetting how to speak
#
# *minutes: 95 · chapter §4 · key: gating*
#
# A language model has been trained for a long time. Now it is frozen, and new layers are put between its own
# layers. At first the output of the new layers is noise. If this noise is added to the text at once, the language
# model no longer writes sensible text. If nothing is ever added, the language model gets no information from the
# picture. Flamingo solves this with one number per layer, `alpha`. It multiplies the output of the new layer by
# `tanh(alpha)`, which is exactly zero at the start.
#
# **You will build** the gate, the block around it (GATED XATTN-DENSE), its gradient by hand, and a short training
# run in which the gates open.
#
# **You will not build** the mask inside the block (notebook 07), and you will not train the whole model (notebook
# 09).
#
# **You can change it by hand**: `python -m tinyflamingo explore` opens a page in your browser. Its third view has
# a slider for every gate of the trained model and shows how the answer changes. Add `#show=gates,next` to the address
# of the page, and it shows this view beside the next words.
#
# You need NumPy, residual connections, and the chain rule. Letters: `T` text tokens, `M` pictures, `R` visual
# tokens per picture, `D` width, `H` heads, `K` size of a head.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import diagrams, picture, show, sliders

plt.rcParams.update({"figure.dpi": 80, "font.size": 9, "figure.constrained_layout.use": True})
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
model = tinyflamingo.load()
config, trained, frozen, tokenizer = model.config, model.params, model.frozen, model.tokenizer
blocks = [name for name in trained if name.startswith("xattn_")]
GATES = ("alpha_xattn", "alpha_dense")

# %% [markdown]
# ## A number that opens a layer
#
# A gated block has two gates: one for its cross-attention and one for its feed-forward layer. The output of each
# layer is multiplied by `tanh(alpha)`. The value 0 means shut; 1 or -1 means fully open. The figure shows the
# curve of `tanh` and the gates of the trained toy on it.

# %%
alpha = np.linspace(-2, 2, 201)
figure, axis = plt.subplots(figsize=(6, 2.8))
axis.axhline(0, color="lightgrey", linewidth=1)
axis.plot(alpha, np.tanh(alpha), color=GREY, label="tanh(alpha): how far it is open")
axis.plot(alpha, 1 - np.tanh(alpha) ** 2, color=GREY, linestyle=":", label="its slope: how fast it learns")
for gate, colour, marker, label in zip(GATES, (BLUE, ORANGE), "os", ("cross-attention", "feed-forward"), strict=True):
    alphas = np.array([trained[block][gate] for block in blocks])
    axis.plot(alphas, np.tanh(alphas), marker, color=colour, label=f"trained, {label}")
axis.set(xlabel="alpha", ylabel="tanh(alpha)")
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# *Figure: the curve of tanh through the origin, between -1 and 1, and its slope, a hill with its top of 1 at 0.
# The eight gates of the trained model are marked on the curve. They have left 0; a gate on the negative side is open
# too.*
#
# The sign of a gate alone has no meaning, because the layer behind it can also change the sign of its own output.
# The slope of `tanh` is largest at 0. So a shut gate can still learn.

# %% [markdown]
# ### Exercise 08.1 · The gate
# *difficulty: easy · minutes: 5*
#
# `h` is the text that comes into the layer. `branch` is the output of the new layer. Multiply the branch by the
# opening of the gate and add it to `h`. With `alpha = 0` the text must come out unchanged, bit for bit.


# %% exercise 08.1
def gate(h, branch, alpha):
    """h and branch (T, D), alpha a scalar -> (T, D)."""
    # solution
    return h + np.tanh(alpha) * branch
    # end of solution


# %% check 08.1
from tinyflamingo.checks import check_08_1_gate

check_08_1_gate(gate)

# %% [markdown]
# ## The block, by hand
#
# The block has two steps. First, cross-attention: every token looks at its picture, and the result is added to
# the token. Second, a feed-forward layer computes a new vector from this sum, and its result is added too. Each
# addition has its own gate. In the diagram, the text rises on the line at the left. Orange boxes are trained, the
# blue box is the frozen block of the language model that comes next.
#
# *Figure: a line rises from the text h. A branch goes through masked cross-attention, which also gets keys and
# values from the visual tokens, is multiplied by tanh of alpha_xattn, and is added to the line. A second branch
# goes through a feed-forward layer, is multiplied by tanh of alpha_dense, and is added to the line. Then the line
# enters a frozen decoder block.*

# %%
diagrams.show(diagrams.gated_block())

# %% [markdown]
# The next cell does this token by token and head by head. `phi` says which picture a token sees; 0 means none.


# %%
from tinyflamingo.model.gated_xattn import gated_xattn_dense


def layer_norm_by_hand(x, gain, bias):
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * gain + bias


def block_by_hand(p, h, visual, phi, H, K):
    """h (T, D), visual (M, R, D), phi (T,) -> (T, D)."""
    out = np.zeros_like(h)
    for place, word in enumerate(h):
        seen = np.zeros(H * K)
        if phi[place] > 0:
            q = layer_norm_by_hand(word, p["query_gain"], p["query_bias"]) @ p["w_q"]
            media = [layer_norm_by_hand(x, p["media_gain"], p["media_bias"]) for x in visual[phi[place] - 1]]
            for head in range(H):
                part = slice(head * K, (head + 1) * K)
                scores = np.array([q[part] @ (x @ p["w_k"])[part] for x in media]) / np.sqrt(K)
                shares = np.exp(scores - scores.max())
                shares = shares / shares.sum()
                for share, x in zip(shares, media, strict=True):
                    seen[part] += share * (x @ p["w_v"])[part]
        word = word + np.tanh(p["alpha_xattn"]) * (seen @ p["w_o"])
        inner = layer_norm_by_hand(word, p["ffw_gain"], p["ffw_bias"]) @ p["w_1"]
        out[place] = word + np.tanh(p["alpha_dense"]) * (np.maximum(inner, 0) ** 2 @ p["w_2"])
    return out


rng = np.random.default_rng(8)
T, M, R, D = 5, 2, config.resampler.latents, config.language.width
H, K = config.xattn.heads, config.xattn.key_size
p = {name: array.astype(np.float64) for name, array in trained["xattn_0"].items()}
h, visual = rng.standard_normal((T, D)), rng.standard_normal((M, R, D))
phi = np.array([0, 1, 1, 2, 2])

by_hand = block_by_hand(p, h, visual, phi, H, K)
in_the_library = gated_xattn_dense(p, h[None], visual, phi[None], config.xattn)[0]
print("h (T, D) =", h.shape, " visual (M, R, D) =", visual.shape, " out (T, D) =", by_hand.shape)
print("loops and library differ by at most", f"{np.abs(by_hand - in_the_library).max():.0e}")

# %% [markdown]
# The library's version has no loops. Both give the same result. Note one detail: the feed-forward layer reads the
# text *after* the result of the cross-attention has been added.

# %% [markdown]
# ### Exercise 08.2 · The block
# *difficulty: easy · minutes: 8*
#
# `attend` and `dense` are functions of the text. Call them, and put the two gates at the right places.


# %% exercise 08.2
def gated_block(h, attend, dense, alpha_xattn, alpha_dense):
    """h (T, D); attend and dense take (T, D) to (T, D) -> (T, D)."""
    # solution
    h = h + np.tanh(alpha_xattn) * attend(h)
    return h + np.tanh(alpha_dense) * dense(h)
    # end of solution


# %% check 08.2
from tinyflamingo.checks import check_08_2_block

check_08_2_block(gated_block)

# %% [markdown]
# ## At the start: nothing, to the last bit
#
# We take the frozen language model and put new, untrained blocks between its layers. We give it a picture. Then
# we compare its output with the output of the language model alone.
#
# **Predict.** The new blocks hold many random numbers. How large is the difference of the logits: about 1, about
# 1e-7, or exactly 0? And what happens if we use another picture?


# %%
from tinyflamingo.model.flamingo import encode_media, flamingo, init_flamingo, resample
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.language_model import language_model
from tinyflamingo.ops.tree import named_leaves

circle, star = picture(rng, "circle", "red"), picture(rng, "star", "blue")
fresh = init_flamingo(np.random.default_rng(0), config)
asked = make_batch([encode_document([circle, "Output: a red circle."], tokenizer, complete=False)])
features = encode_media(frozen, np.stack([circle, star])[:, None], config)


def say_logits(params, image):
    """Logits (T, V) of the words, with picture 0 or 1 in the prompt."""
    seen = resample(params, [features[image : image + 1]], config)
    return flamingo(params, frozen, asked.tokens, asked.phi, seen, config)[0, :, : len(tokenizer)]


alone = language_model(frozen["language"], asked.tokens, config.language)[0]
print("logits (T, V) =", alone.shape)
print("random numbers in the new layers:    ", sum(a.size for a in named_leaves(fresh).values()))
print("equal to the language model alone:   ", np.array_equal(say_logits(fresh, 0), alone))
print("equal with the other picture:        ", np.array_equal(say_logits(fresh, 0), say_logits(fresh, 1)))

# %% [markdown]
# The logits are equal, bit for bit. Zero times a finite number is zero, and adding zero changes no bit. So the
# training of Flamingo starts from a model that handles text exactly as the language model does, and that gets no
# information from pictures yet.

# %% [markdown]
# ### Exercise 08.3 · Shut the gates
# *difficulty: medium · minutes: 10*
#
# Take a trained tree of parameters and return a tree in which all gates are shut. The gates are called
# `alpha_xattn` and `alpha_dense`. They are in the blocks, whose names begin with `xattn_`. Do not change the tree
# that was passed in. Keep everything else. Keep `float32`: one float64 scalar makes every layer after it float64.


# %% exercise 08.3
def shut_gates(params):
    """{"resampler": {...}, "eoc": ..., "xattn_0": {..., "alpha_xattn": ...}, ...} -> the same with gates at 0."""
    # solution
    shut = {}
    for name, part in params.items():
        shut[name] = part
        if name.startswith("xattn_"):
            shut[name] = {**part, "alpha_xattn": np.float32(0), "alpha_dense": np.float32(0)}
    return shut
    # end of solution


# %% check 08.3
from tinyflamingo.checks import check_08_3_shut_gates

check_08_3_shut_gates(shut_gates)

# %% [markdown]
# ## Break it: gates that start open
#
# Why must the gates start at zero? We open the gates of the new, untrained blocks by hand. Then the model reads
# text from the toy's own corpus, without any picture. Cross-attention then adds nothing. Only the feed-forward
# layers add something.


# %%
import copy

from tinyflamingo.data.tinyworld.text import text_document
from tinyflamingo.training.losses import token_losses


def with_gates(params, value):
    """The same parameters with every tanh(alpha) at a value."""
    new = copy.deepcopy(params)
    for block in blocks:
        for name in GATES:
            new[block][name] = np.float32(np.arctanh(value))
    return new


texts = make_batch([encode_document(text_document(rng), tokenizer, complete=False) for _ in range(40)])
nothing_seen = np.zeros((0, R, D), np.float32)


def text_loss(params):
    """Mean loss of a token of text."""
    logits = flamingo(params, frozen, texts.tokens[:, :-1], texts.phi[:, :-1], nothing_seen, config)
    weights = texts.weights[:, 1:]
    return float(np.sum(token_losses(logits, texts.tokens[:, 1:]) * weights) / np.sum(weights))


values = np.array([0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.97])
losses = [text_loss(with_gates(fresh, value)) for value in values]
figure, axis = plt.subplots(figsize=(5, 2.4))
axis.plot(values, losses, "o-", color=BLUE, label="fresh blocks")
axis.plot(0, losses[0], "s", markersize=8, color=ORANGE, label="where training starts")
axis.set(xlabel="tanh(alpha) of all gates", ylabel="loss of a token of text", ylim=(0, None))
axis.legend(frameon=False)
plt.show()
print(f"loss with gates shut {losses[0]:.3f}, with gates at {values[-1]} {losses[-1]:.3f}")

# %% [markdown]
# *Figure: the loss of text against the opening of untrained gates. It is lowest with the gates shut, hardly
# higher while they are open a little, and rises steeply when they are open by half or more.*
#
# A little noise changes the loss little; much noise changes it much. If the gates start open, training must first
# remove this damage to the language model. Only the new layers can do it, because the old layers are frozen. In
# the paper's ablation without the tanh gate, the overall score falls from 70.7 to 66.5 (its table 3). In runs of
# 200 steps our toy is better without gates ([the table of ablations](../docs/results.md#ablations)). We have not
# tested whether this is so in a long run.

# %% [markdown]
# ## Where the first gradient goes
#
# Take one gate, `y = h + tanh(alpha) · branch`. The backward pass receives `g`, the gradient of the loss at `y`.
# By the chain rule, the gradient of each of the three inputs is `g` times the derivative of `y` by that input:
#
# - the text `h` is added as it is,
# - the branch is multiplied by the gate,
# - `alpha` is one number that acts on every entry of the branch, so the contributions of all entries are added.
#
# **Predict.** Put in `alpha = 0`. Which of the weights in the new layers have a gradient that is not zero?

# %% [markdown]
# ### Exercise 08.4 · The gradient of a gate
# *difficulty: medium · minutes: 10*
#
# Write the three gradients. `alpha` is one number for the whole block, so its gradient is one number.


# %% exercise 08.4
def gate_backward(g, branch, alpha):
    """g (T, D), the gradient of the output -> (dh (T, D), dbranch (T, D), dalpha, a scalar)."""
    # solution
    opening = np.tanh(alpha)
    return g, opening * g, (1 - opening**2) * np.sum(g * branch)
    # end of solution


# %% check 08.4
from tinyflamingo.checks import check_08_4_gate_backward

check_08_4_gate_backward(gate_backward)

# %% [markdown]
# Two other methods give the same numbers. One is autograd. The other is a measurement with finite differences:
# move `alpha` and the branch a little to both sides. You can add your own function as a third method.

# %%
import autograd.numpy as anp
from autograd import grad

g, branch, alpha, step = rng.standard_normal((T, D)), rng.standard_normal((T, D)), 0.4, 1e-6


def projected(branch, alpha):
    return anp.sum(g * (h + anp.tanh(alpha) * branch))


along = rng.standard_normal((T, D))
measured = (projected(branch, alpha + step) - projected(branch, alpha - step)) / (2 * step)
print(f"dalpha    measured {measured:+.5f}   by autograd {grad(projected, 1)(branch, alpha):+.5f}")
measured = (projected(branch + step * along, alpha) - projected(branch - step * along, alpha)) / (2 * step)
print(f"dbranch   measured {measured:+.5f}   by autograd {np.sum(grad(projected, 0)(branch, alpha) * along):+.5f}")

# %% [markdown]
# Now take the whole model. We use four hundred pictures with captions and compute the gradient of their loss at
# the very start.

# %%
from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import KNOWN, draw_scene, sample_single

scenes = [sample_single(rng, (KNOWN[rng.integers(len(KNOWN))],)) for _ in range(400)]
seen_once = encode_media(frozen, np.stack([draw_scene(rng, scene) for scene in scenes])[:, None], config)
# Quiet: read, not learned (notebook 09).
captions = [encode_document([scene, Quiet("Output:"), say.caption(scene)], tokenizer) for scene in scenes]
print("features (M, F, S, Dv) =", seen_once.shape)


def caption_loss(params, batch, features):
    """Mean loss of a caption's token; frozen parts are no argument of the gradient."""
    visual = resample(params, [features], config)
    logits = flamingo(params, frozen, batch.tokens[:, :-1], batch.phi[:, :-1], visual, config)
    weights = batch.weights[:, 1:]
    losses = token_losses(logits, batch.tokens[:, 1:])
    return anp.sum(losses * weights) * np.float32(1 / weights.sum())


def loss_and_gradient(params, rng, rows=16):
    chosen = rng.integers(len(captions), size=rows)
    batch, features = make_batch([captions[i] for i in chosen]), seen_once[chosen]
    noise = 0.3 * rng.standard_normal(features.shape, dtype=np.float32)  # so that no picture is learned by heart
    return ops.value_and_grad(caption_loss)(params, batch, features + noise)


def norms(gradient):
    """{name of a weight: norm over all blocks}, with the resampler as one."""
    squares = {}
    for path, array in named_leaves(gradient).items():
        name = "resampler" if path.startswith("resampler") else path.rpartition("/")[2]
        squares[name] = squares.get(name, 0.0) + float(np.sum(array.astype(np.float64) ** 2))
    return {name: np.sqrt(total) for name, total in squares.items()}


states = {"gates at 0": fresh, "gates at 0.3": with_gates(fresh, 0.3)}
all_norms = {title: norms(loss_and_gradient(params, np.random.default_rng(1))[1]) for title, params in states.items()}

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, sharex=True)
for axis, (title, sizes) in zip(axes, all_norms.items(), strict=True):
    names = list(sizes)
    axis.barh(names, [max(sizes[name], 1e-6) for name in names], color=[BLUE if sizes[n] else GREY for n in names])
    for place, name in enumerate(names):
        if sizes[name] == 0:
            axis.text(2e-4, place, "exactly 0", va="center", fontsize=8)
    axis.set(title=title, xscale="log", xlim=(1e-4, 1e2), xlabel="norm of the gradient")
    axis.invert_yaxis() if axis is axes[0] else None
plt.show()

# %% [markdown]
# *Figure: the size of the first gradient, a bar for each kind of weight. With gates at 0 only alpha_xattn,
# alpha_dense and eoc have a bar; all other weights are marked "exactly 0". With gates at 0.3 every weight has
# one.*
#
# Only the gates and `<EOC>` have a gradient. The embedding of `<EOC>` is in the input of the language model,
# outside the gated blocks. A shut gate passes no gradient to the layer behind it: the attention gets exactly
# zero, and so does the resampler. So the first step can move only the gates (and `<EOC>`). After that, the
# gradient of every layer is proportional to the opening of its gate.
#
# **Break it once more.** Suppose someone wants to be extra safe: they shut the gates *and* start the layers'
# output matrices at zero. What is the gradient of the gates now?

# %%
dead = copy.deepcopy(fresh)
for block in blocks:
    dead[block]["w_o"][:] = 0
    dead[block]["w_2"][:] = 0
sizes = norms(loss_and_gradient(dead, np.random.default_rng(1))[1])
print("weights with a gradient:", [name for name, size in sizes.items() if size > 0])

# %% [markdown]
# The gradient of a gate depends on the output of its branch. If the branch is zero, the gate gets no gradient. If
# the gate is shut, the branch gets no gradient. One of the two may be zero. If both are zero, neither can ever
# learn.

# %% [markdown]
# ## How they open
#
# The gradients show one more thing. At zero, the gradient of a gate answers this question: would a little of this
# *random* branch reduce the loss? The answer depends partly on chance, and its sign can change from batch to
# batch:

# %%
draws = np.random.default_rng(2)
slopes = []
for _ in range(12):
    _, gradient = loss_and_gradient(fresh, draws, rows=4)
    slopes.append([float(gradient[block][name]) for name in GATES for block in blocks])
slopes = np.array(slopes)

figure, axis = plt.subplots(figsize=(6, 2.4))
axis.axhline(0, color="lightgrey", linewidth=1)
for place, column in enumerate(slopes.T):
    colour, marker = (BLUE, "o") if place < len(blocks) else (ORANGE, "s")
    axis.plot(place + np.linspace(-0.2, 0.2, len(column)), column, marker, color=colour, markersize=3, alpha=0.7)
    axis.plot([place - 0.3, place + 0.3], [column.mean()] * 2, color="black")
labels = [f"{block[-1]} {kind}" for kind in ("attend", "dense") for block in blocks]
axis.set_xticks(range(len(labels)), labels)
axis.set(xlabel="block and gate", ylabel="gradient at alpha = 0")
axis.set_yscale("symlog", linthresh=0.1)  # logarithmic on both sides of 0, linear near 0
axis.margins(y=0.1)
plt.show()
both = (slopes > 0).any(0) & (slopes < 0).any(0)
print("gates whose sign changes from batch to batch:", int(both.sum()), "of", both.size)

# %% [markdown]
# *Figure: for each of the eight gates twelve dots, its gradient in twelve small batches, and a black line at
# their mean. For some gates all dots lie on one side of 0; for others they lie on both.*
#
# Adam divides by the size of the gradient, so its steps have about the same length for small and large gradients.
# If the sign of a gate's gradient keeps changing, the gate moves back and forth around zero, and the layer behind
# it hardly learns. With larger batches the sign changes less often, because a mean over more documents has less
# noise. The toy has small batches, so it makes a special first step. It averages the gradient of the gates over
# some batches. Then it moves every gate once, by a fixed distance, in the direction in which the loss falls.
#
# The paper does not describe such a step. It is an addition of this project.

# %% [markdown]
# ### Exercise 08.5 · The first move
# *difficulty: medium · minutes: 8*
#
# `slopes` holds the gradients of the gates in several batches, one row per batch. Return the `alpha` of every
# gate after its first move from 0. Each gate moves by the distance `push`, in the direction in which the loss
# falls according to the *averaged* gradient.


# %% exercise 08.5
def first_move(slopes, push):
    """slopes (batches, gates), push > 0 -> alpha (gates,)."""
    # solution
    return -np.sign(slopes.mean(axis=0)) * push
    # end of solution


# %% check 08.5
from tinyflamingo.checks import check_08_5_first_move

check_08_5_first_move(first_move)

# %% [markdown]
# Now we watch the gates during training. We run 100 steps on captions twice, with the same captions and the same
# noise in both runs. The first run starts from exactly 0 and uses only Adam. The second run starts after a first
# move. The batches for this move come from a second random generator.
#
# **Predict.** Which model has the lower loss on captions after 100 steps? How far have the gates of the first one
# opened?


# %%
from tinyflamingo.model.flamingo import gates
from tinyflamingo.ops.team import one_team
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig


def after_first_move(push, rng, batches=8):
    """Fresh parameters after one step for the gates alone. Adam's first step has the length of its learning rate."""
    optimiser = AdamW(init_flamingo(np.random.default_rng(0), config), OptimiserConfig(push, weight_decay=0, warmup=1))
    gradient = sum(flatten(loss_and_gradient(optimiser.params, rng)[1]) for _ in range(batches))
    is_gate = np.zeros_like(gradient)
    for block in blocks:
        for name in GATES:
            view_tree(is_gate, optimiser.params)[block][name][...] = 1
    optimiser.step(gradient * is_gate, step=0, steps=1)
    return optimiser.params


def train(push, steps=100):
    """Losses and gates of every step."""
    rng, history = np.random.default_rng(3), []
    first = np.random.default_rng(4)  # of its own, so that the steps of both runs draw the same numbers
    start = after_first_move(push, first) if push else init_flamingo(np.random.default_rng(0), config)
    optimiser = AdamW(start, OptimiserConfig(weight_decay=0.1, warmup=10))
    for step in range(steps):
        loss, gradient = loss_and_gradient(optimiser.params, rng)
        history.append((loss, gates(optimiser.params)))
        optimiser.step(flatten(gradient), step, steps)
    return optimiser.params, history


with one_team():  # such small products are not worth a second thread
    runs = {"from exactly 0": train(push=0), "after a first move": train(push=0.5)}

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8))
for axis, (title, (_, history)) in zip(axes[:2], runs.items(), strict=True):
    for name in history[0][1]:
        is_dense = name.endswith("dense")
        line = {"color": ORANGE, "linestyle": "--"} if is_dense else {"color": BLUE}
        label = ("feed-forward" if is_dense else "cross-attention") if name.startswith("xattn_0") else None
        axis.plot([opened[name] for _, opened in history], label=label, **line)
    axis.set(title=title, xlabel="step", ylabel="|tanh(alpha)|", ylim=(0, 0.65))
axes[0].legend(frameon=False)
for (title, (_, history)), line in zip(runs.items(), ("-", "--"), strict=True):
    smooth = np.convolve([loss for loss, _ in history], np.ones(7) / 7, mode="valid")
    axes[2].plot(np.arange(len(smooth)) + 6, smooth, line, color=GREEN, label=title)
axes[2].set(title="loss of captions", xlabel="step", yscale="log")
axes[2].legend(frameon=False)
plt.show()
for title, (_, history) in runs.items():
    opened, late = np.mean(list(history[-1][1].values())), np.mean([loss for loss, _ in history[-10:]])
    print(f"{title:18s} mean opening {opened:.2f}   loss of the last ten steps {late:.2f}")

# %% [markdown]
# *Figure: three panels. From exactly 0 the gates rise slowly and stay small. After a first move they begin near a
# half and change little. The loss falls in both runs, much faster after the first move.*
#
# Both models learn. From exactly 0 the gates open by themselves, but slowly, and the layers behind them wait. In
# 100 steps this matters. The paper also starts at exactly 0, and it trains for 500,000 steps (its appendix B.1).
# Its figure 6 shows the gates of the model with 3 billion parameters: they leave 0 early in training, and gates
# in deeper layers tend to open further. The figure `docs/figures/gates.png` shows the gates of the run that made
# the shipped model.

# %% [markdown]
# ## With and without pictures
#
# What does a model with open gates know that it did not know before? We give the shipped model the beginning of a
# caption. Then we look at the probability of each next token, in four situations.

# %%
from tinyflamingo.model.flamingo import encode_and_resample

words = encode_document([circle, "Output:", "a red circle."], tokenizer).tokens
prompt_length = len(encode_document([circle, "Output:"], tokenizer, complete=False).tokens)
caption = words[prompt_length:]


def likelihoods(params, items):
    """Probability of each token of the caption after a prompt."""
    batch = make_batch([encode_document([*items, "Output:", "a red circle."], tokenizer)])
    visual = encode_and_resample(model, batch.media)
    logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config)[0]
    places = np.arange(-len(caption) - 1, -1)  # the row before a token predicts it
    return np.exp(-ops.cross_entropy(logits[places], batch.tokens[0, places + 1]))


shut = with_gates(trained, 0.0)
situations = {
    "the red circle": likelihoods(trained, [circle]),
    "a blue star instead": likelihoods(trained, [star]),
    "no picture": likelihoods(trained, []),
    "the red circle, gates shut": likelihoods(shut, [circle]),
}
table = np.stack(list(situations.values()))

figure, axis = plt.subplots(figsize=(6.5, 2.2))
axis.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
for (y, x), value in np.ndenumerate(table):
    axis.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
axis.set_xticks(range(len(caption)), [tokenizer.piece(t) for t in caption])
axis.set_yticks(range(len(situations)), situations)
axis.xaxis.tick_top()
axis.tick_params(length=0)
plt.show()

# %% [markdown]
# *Figure: a table of probabilities, one row per situation, one column per token of "a red circle." With the red
# circle in sight all tokens are likely. With a blue star "red" and "circle" are not. Without a picture they are
# not either, nor is the full stop. With the gates shut no token is likely, not even "a".*
#
# Compare the two middle rows with the first. They show where the picture matters: at the colour and at the shape.
# Without a picture the full stop is also unlikely. The model does not know how many things there are, so the text
# may continue after the first thing.
#
# The last row is the language model alone. It never met the `<image>` tag in its own training. It has read
# captions, but it was never trained to predict them. The trained model learned both things in the new layers
# behind the gates. No number of the language model changed.
#
# **Turn it.** Run the next cell. Close the two kinds of gates step by step: 1 is the trained opening, 0 is shut.
# Which words need the pictures, and which need only the feed-forward layers?


# %%
def turn_gates(attention=1.0, dense=1.0, image="red circle"):
    partly = copy.deepcopy(trained)
    for block in blocks:
        for name, share in zip(GATES, (attention, dense), strict=True):
            partly[block][name] = np.float32(np.arctanh(share * np.tanh(trained[block][name])))
    shown = {"red circle": [circle], "blue star": [star], "no picture": []}[image]
    figure, axis = plt.subplots(figsize=(6.5, 2.2))
    axis.bar(range(len(caption)), likelihoods(partly, shown), color=BLUE)
    axis.set_xticks(range(len(caption)), [tokenizer.piece(t) for t in caption])
    axis.set(ylim=(0, 1.02), ylabel="probability")
    plt.show()


sliders(turn_gates, attention=(0, 1, 0.1), dense=(0, 1, 0.1), image=["red circle", "blue star", "no picture"])

# %% [markdown]
# ## In the library
#
# The next cell shows the whole block that you built, as its lines in the library are now. `ops.segment_attention`
# is the attention under the mask of notebook 07. While the model writes a text, a cache keeps the keys and values
# of the pictures (notebook 10).


# %%
from tinyflamingo.model.gated_xattn import cross_attention, feed_forward, media_keys_values

show(gated_xattn_dense, media_keys_values, cross_attention, feed_forward, gates)

# %% [markdown]
# The tests of this section are `python -m pytest -m gating`. They test, for example: with shut gates every bit is
# equal to the language model's, in float32 and in float64; only the gates have a first gradient; without a
# picture the attention adds exactly nothing. The first move is `FlamingoStage.prepare` in
# `tinyflamingo/training/flamingo_stage.py`. `docs/deviations.md` says why the toy makes it.
#
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("08")

# %%
check_quiz("08", ".....")

# %% [markdown]
# ## In three sentences
#
# New layers join a frozen model through gates that start at exactly zero, so the model loses nothing at the
# start. At this point only the gates and `<EOC>` have a gradient, and the layers behind them begin to learn when
# the gates open. One zero factor in the product can still learn, but two zero factors cannot.
#
# **Further reading.** [Flamingo](https://arxiv.org/abs/2204.14198): section 2.2 and figure 4 for the block,
# appendix A.1.2 for how the gates of the real model open. [SkipInit](https://arxiv.org/abs/2002.10444) and
# [ReZero](https://arxiv.org/abs/2003.04887) start residual branches at zero so that very deep networks can be
# trained; notebook 02 has such a branch. [LoRA](https://arxiv.org/abs/2106.09685) starts one factor of a product
# at zero, but not both.
