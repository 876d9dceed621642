# %% [markdown]
# # Gates: learning to look without forgetting how to speak
#
# *minutes: 85 · chapter §4 · key: gating*
#
# A language model that took a long time to train is frozen, and new layers are put between its own. New layers
# are noise. If they speak up at once, the language model stops making sense; if they never do, no picture gets
# in. Flamingo's answer is a single number a layer, `alpha`, and `tanh(alpha)` starts at exactly zero.
#
# **You will build** the gate, the block around it (GATED XATTN-DENSE), its gradient by hand, and a training run
# of seconds in which you can watch the gates open.
#
# **You will not build** the mask inside the block (notebook 07), nor train the whole model (notebook 09).
#
# **You can turn it by hand**: `python -m tinyflamingo explore` opens a page in your browser. Its third view has
# a slider for every gate of the trained model, and the answer follows.
#
# You need NumPy, residual connections, and the chain rule. Letters: `T` text tokens, `M` pictures, `R` visual
# tokens a picture, `D` width, `H` heads, `K` size of a head.

# %%
import sys

sys.path.insert(0, "..")  # the package lies beside this folder

import copy

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import picture, show
from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import KNOWN, draw_scene, sample_single
from tinyflamingo.data.tinyworld.text import text_document
from tinyflamingo.model.flamingo import encode_and_resample, encode_media, flamingo, gates, init_flamingo, resample
from tinyflamingo.model.gated_xattn import cross_attention, feed_forward, gated_xattn_dense, media_keys_values
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.language_model import language_model
from tinyflamingo.ops.team import one_team
from tinyflamingo.ops.tree import flatten, named_leaves, view_tree
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig

plt.rcParams.update({"figure.dpi": 80, "font.size": 9, "figure.constrained_layout.use": True})
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
model = tinyflamingo.load()
config, trained, frozen, tokenizer = model.config, model.params, model.frozen, model.tokenizer
blocks = [name for name in trained if name.startswith("xattn_")]
GATES = ("alpha_xattn", "alpha_dense")

# %% [markdown]
# ## A number that opens a layer
#
# A gated block has two gates, one for its cross-attention and one for its feed-forward layer. What counts is
# `tanh(alpha)`: 0 is shut, 1 or -1 is fully open. Here is the curve, with the gates of the trained toy on it.

# %%
alpha = np.linspace(-2, 2, 201)
figure, axis = plt.subplots(figsize=(6, 2.8))
axis.axhline(0, color="lightgrey", linewidth=1)
axis.plot(alpha, np.tanh(alpha), color=GREY, label="tanh(alpha): how far it is open")
axis.plot(alpha, 1 - np.tanh(alpha) ** 2, color=GREY, linestyle=":", label="its slope: how fast it learns")
for gate, colour, marker, label in zip(GATES, (BLUE, ORANGE), "os", ("cross-attention", "feed-forward"), strict=True):
    found = np.array([trained[block][gate] for block in blocks])
    axis.plot(found, np.tanh(found), marker, color=colour, label=f"trained, {label}")
axis.set(xlabel="alpha", ylabel="tanh(alpha)")
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# *Figure: the curve of tanh through the origin, between -1 and 1, and its slope, a hill with its top of 1 at 0.
# The eight gates of the trained model lie on the curve well away from 0, some on the negative side.*
#
# The sign of a gate means nothing by itself: the layer behind it can turn its own output round. And 0 is where
# the slope is steepest. A shut gate is not a stuck gate.

# %% [markdown]
# ### Exercise 08.1 · The gate
# *difficulty: easy · minutes: 5*
#
# `h` is the text as it comes along, `branch` is what a new layer has to say about it. Add the branch, as far as
# the gate is open. With `alpha = 0` the text must come out unchanged to the last bit.


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
# First every token looks at its picture and adds what it saw. Then a feed-forward layer thinks about that, and
# adds what it thought. Each addition has its own gate. Here it is word by word and head by head; `phi` says which
# picture a word sees, and 0 means none.


# %%
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
# The library's version has no loops; the two agree. One thing is easily missed: the feed-forward layer reads the
# text *after* what was seen has been added.

# %% [markdown]
# ### Exercise 08.2 · The block
# *difficulty: easy · minutes: 8*
#
# `attend` and `dense` are functions of the text; call them, and put the two gates where they belong.


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
# Now we take the frozen language model, put fresh blocks between its layers, show it a picture, and compare
# what it says with what the language model says alone.
#
# **Predict.** The new blocks hold many random numbers. How far apart are the logits: about 1, about 1e-7, or
# equal? And what would you see if the picture were exchanged?


# %%
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
# Equal, bit for bit. Zero times a finite number is zero, and adding zero changes no bit. So the training of
# Flamingo starts from a model that is exactly as good with words as the language model was, and cannot see.

# %% [markdown]
# ### Exercise 08.3 · Shut the gates
# *difficulty: medium · minutes: 10*
#
# Take a trained tree of parameters and return one whose gates are all shut. Gates are called `alpha_xattn` and
# `alpha_dense` and stand in the blocks, whose names begin with `xattn_`. Leave the tree that was passed in as it
# is, keep everything else, and keep `float32`: one float64 scalar makes every layer above it float64.


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
# What is the zero worth? We open the gates of the fresh, untrained blocks by hand and let the model read text from
# the toy's own corpus, without any picture. Cross-attention then adds nothing; it is the feed-forward layers that
# talk in between.


# %%
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
# *Figure: the loss of text against the opening of untrained gates. It is lowest with the gates shut, hardly higher
# as long as they are open by a little, and climbs steeply when they are open by half and more.*
#
# A little noise in the stream does little harm; much noise does much. With open gates the first thing training
# would have to do is to repair a language model that was not broken, and it would have to do it through the new
# layers, for the old ones are frozen.

# %% [markdown]
# ## Where the first gradient goes
#
# Take one gate, `y = h + tanh(alpha) · branch`. The loss hands back `g`, its gradient at `y`. By the chain rule each
# of the three inputs gets `g` times the derivative of `y` by that input:
#
# - the text `h` is added as it is,
# - the branch is multiplied by the gate,
# - `alpha` is one number that acts on every entry of the branch, so the contributions of all entries add up.
#
# **Predict.** Put in `alpha = 0`. Of all the weights in the new layers, which have a gradient that is not zero?

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
# Two other ways to the same numbers: autograd, and a measurement, which moves `alpha` and the branch a little to both
# sides. Put in your own function as a third.

# %%
g, branch, alpha, step = rng.standard_normal((T, D)), rng.standard_normal((T, D)), 0.4, 1e-6


def projected(branch, alpha):
    return anp.sum(g * (h + anp.tanh(alpha) * branch))


along = rng.standard_normal((T, D))
measured = (projected(branch, alpha + step) - projected(branch, alpha - step)) / (2 * step)
print(f"dalpha    measured {measured:+.5f}   by autograd {grad(projected, 1)(branch, alpha):+.5f}")
measured = (projected(branch + step * along, alpha) - projected(branch - step * along, alpha)) / (2 * step)
print(f"dbranch   measured {measured:+.5f}   by autograd {np.sum(grad(projected, 0)(branch, alpha) * along):+.5f}")

# %% [markdown]
# Now the whole model. Four hundred pictures with captions, and the gradient of their loss at the very start.

# %%
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
found = {title: norms(loss_and_gradient(params, np.random.default_rng(1))[1]) for title, params in states.items()}

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, sharex=True)
for axis, (title, sizes) in zip(axes, found.items(), strict=True):
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
# alpha_dense and eoc have a bar; beside all other weights stands "exactly 0". With gates at 0.3 every weight has
# one.*
#
# Only the gates, and `<EOC>`, whose embedding stands outside of them. A shut gate lets nothing back to the layer
# behind it: not to its attention, not to the resampler, not a bit. The first step can only move the gates, and
# every layer starts to learn in proportion to how far its gate has moved.
#
# **Break it once more.** "Zero is good, so let us be twice as safe": shut the gates *and* start the layers' output
# matrices at zero. What is the gradient of the gates now?

# %%
dead = copy.deepcopy(fresh)
for block in blocks:
    dead[block]["w_o"][:] = 0
    dead[block]["w_2"][:] = 0
sizes = norms(loss_and_gradient(dead, np.random.default_rng(1))[1])
print("weights with a gradient:", [name for name, size in sizes.items() if size > 0])

# %% [markdown]
# A gate learns from what its branch says. If the branch says nothing the gate has no reason to move, and if the
# gate is shut the branch has none. One of the two may be zero; both are dead for ever.

# %% [markdown]
# ## How they open
#
# One more thing follows from the gradients. At zero, a gate's gradient asks: would a bit of this *random* branch
# help? The answer is half luck, and differs from batch to batch:

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
axis.set_yscale("symlog", linthresh=0.1)  # logarithmic both ways, but for the middle
axis.margins(y=0.1)
plt.show()
both = (slopes > 0).any(0) & (slopes < 0).any(0)
print("gates whose sign changes from batch to batch:", int(both.sum()), "of", both.size)

# %% [markdown]
# *Figure: for each of the eight gates twelve dots, its gradient in twelve small batches, and a black line at
# their mean. For some gates all dots lie on one side of 0; for others they lie on both.*
#
# Adam makes full steps whatever the size of a gradient, so a gate whose sign keeps changing walks to and fro about
# zero, and keeps the layer behind it asleep. A large model with large batches does not care. The toy makes its
# first move with more thought: it averages the gradient of the gates over some batches and moves every gate once,
# a fixed way, downhill.

# %% [markdown]
# ### Exercise 08.5 · The first move
# *difficulty: medium · minutes: 8*
#
# `slopes` holds the gradients of the gates in several batches, a row a batch. Return the `alpha` of every gate
# after its first move from 0: `push` far, in the direction in which the *averaged* gradient says the loss falls.


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
# And now for the gates themselves. Twice the same 100 steps on captions, from the same random numbers: once from
# exactly 0 with nothing but Adam, once after such a first move.
#
# **Predict.** Which of the two captions better after 100 steps? How far will the gates of the first have come?


# %%
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
    start = after_first_move(push, rng) if push else init_flamingo(np.random.default_rng(0), config)
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
# Both learn. From exactly 0 the gates open by themselves, as the paper's did; they only take their time, and every
# layer behind them waits. At a hundred steps that matters. Over the hundreds of thousands of steps of the real
# Flamingo it does not. `docs/figures/gates.png` shows the gates of the run that made the shipped model.

# %% [markdown]
# ## With and without pictures
#
# What does a model with open gates know that it did not know before? We give the shipped model the beginning of a
# caption and ask how likely it finds each next token, in four situations.

# %%
words = encode_document([circle, "Output:", "a red circle."], tokenizer).tokens
prompt_length = len(encode_document([circle, "Output:"], tokenizer, complete=False).tokens)
caption = words[prompt_length:]


def likelihoods(params, items):
    """Probability of each token of the caption after a prompt."""
    batch = make_batch([encode_document([*items, "Output:", "a red circle."], tokenizer)])
    visual = encode_and_resample(model, batch.media)
    logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config)[0]
    places = np.arange(-len(caption) - 1, -1)  # the row before a token is the one that foretells it
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
# *Figure: a table of probabilities, one row a situation, one column a token of "a red circle." With the red circle
# in sight all tokens are likely. With a blue star "red" and "circle" are not. Without a picture they are not either,
# nor is the full stop. With the gates shut no token is likely, not even "a".*
#
# The two middle rows differ from the first in what is seen, and they show where the picture matters: at the colour
# and at the shape. (Without a picture nothing says that one thing is all, and the text may go on behind it.) The last
# row is the language model by itself. An `<image>` tag is a token it never met, and
# captions it has only read, never had to foretell. What to make of both came in through the gates, and none of its
# own numbers changed by a bit.

# %% [markdown]
# ## In the library
#
# The block that you built, the whole of it, as its lines are now. `ops.segment_attention` is the attention under the
# mask of notebook 07. A cache keeps the keys and values of the pictures while a text grows (notebook 10).


# %%
show(gated_xattn_dense, media_keys_values, cross_attention, feed_forward, gates)

# %% [markdown]
# The tests of this section are `python -m pytest -m gating`. Among them: with shut gates every bit is the language
# model's, in float32 and in float64; the first gradient is at the gates alone; without a picture the attention adds
# exactly nothing. The first move is `FlamingoStage.prepare` in `tinyflamingo/training/flamingo_stage.py`, and
# `docs/deviations.md` says why the toy makes it.
#
# ## In three sentences
#
# New layers join a frozen model through gates that start at exactly zero, so that on the first day nothing is lost.
# There the gates alone have a gradient, and as they open, the layers behind them begin to learn. One zero in the
# product is a beginning; two zeros are the end.
#
# **Further reading.** [Flamingo](https://arxiv.org/abs/2204.14198), section 2.2 and figure 4 for the block, appendix
# A.1.2 for how the gates of the real model open. [SkipInit](https://arxiv.org/abs/2002.10444) and
# [ReZero](https://arxiv.org/abs/2003.04887) start residual branches at zero for the sake of depth: notebook 02
# has one. [LoRA](https://arxiv.org/abs/2106.09685) starts one factor of a product at zero, and not both.
