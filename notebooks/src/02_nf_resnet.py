# %% [markdown]
# # A deep network without normalisation
#
# key: nf_resnet
#
# Chapter §2, the vision encoder. 125 minutes with the exercises, half a minute to run. Before it: notebooks 00 and
# 01, and knowing what a convolution and a residual connection are.
#
# You will take apart the NF-ResNet that turns pictures into features: why it has no batch normalisation, and the
# four things it has instead. You will remove each of them and watch the signal die or explode. Beside it stands a
# Vision Transformer in 25 lines, the encoder that CLIP uses, to compare what each sees. You will not train an
# encoder: notebook 03 does.
#
# Letters: `B` pictures, `Y`, `X` pixels, `C` channels, `S` features a picture, `Dv` their width, `H` heads.

# %%
import os
import sys

sys.path.insert(0, "..")  # the package lies beside this folder
os.environ.setdefault("TINYFLAMINGO_OPS", "reference")  # plain NumPy to step through, and nothing to compile

import contextlib
import dataclasses

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import picture, show
from tinyflamingo.model import vision_encoder as library
from tinyflamingo.model.config import VisionConfig
from tinyflamingo.ops import reference
from tinyflamingo.ops.tree import count, named_leaves
from tinyflamingo.training.optimiser import adaptive_clip
from tinyflamingo.variants import vit as clip_vit

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # told apart by colour-blind readers, too
plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
np.seterr(over="ignore")  # autograd's slope of a far-out tanh is 1 / cosh(x)**2: it overflows to 0, as it should
model = tinyflamingo.load()
config, vision = model.config.vision, model.frozen["vision"]
rng = np.random.default_rng(2022)


# %% [markdown]
# ## Why not batch normalisation
#
# A batch norm subtracts from every channel its mean over the batch, and divides by its standard deviation over the
# batch. Deep ResNets train well with it. But look at what it does to a single picture.
#
# **Predict.** The same star is encoded twice: in one batch with seven dark pictures, in another with seven bright
# ones. With batch norm after the first convolution, what will the feature map of the star be?


# %%
def batch_norm(x, eps=1e-5):
    """x (B, Y, X, C): every channel to mean 0 and variance 1 over the whole batch."""
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + eps)


star = picture(rng, "star", "blue")
dark = np.stack([star, *(star // 5 for _ in range(7))])
bright = np.stack([star, *(255 - star // 5 for _ in range(7))])
maps = {"among dark": dark, "among bright": bright}
first = {name: library.ws_conv(vision["stem_0"], library.normalise_pixels(b), 2) for name, b in maps.items()}
whole = {name: library.vision_encoder(vision, library.normalise_pixels(b), config)[0] for name, b in maps.items()}
print("after the first convolution (B, Y, X, C) =", first["among dark"].shape)
apart = [np.abs(f(first["among dark"])[0] - f(first["among bright"])[0]).max() for f in (lambda x: x, batch_norm)]
print(f"the star's own map differs by {apart[0]:.1e} as it is, by {apart[1]:.1e} after batch norm")
print(f"all of our encoder, no batch norm: features differ by {np.abs(np.subtract(*whole.values())).max():.1e}")

# %% [markdown]
# *Figure: the star, and one channel of the first convolution's map of it, in the two batches. Without batch norm
# the two maps are equal; with it, the one among bright pictures has other values than the one among dark pictures.*

# %%
normed = [batch_norm(first[name])[0] for name in maps]
channel = int(np.argmax(np.abs(normed[0] - normed[1]).mean(axis=(0, 1))))
figure, axes = plt.subplots(1, 5, figsize=(9, 2.3))
axes[0].imshow(star)
axes[0].set_title("the star")
for column, (f, what) in enumerate(((lambda x: x, "no norm"), (batch_norm, "batch norm"))):
    shown = [f(first[name])[0, :, :, channel] for name in maps]
    for axis, name, image in zip(axes[1 + 2 * column :], maps, shown, strict=False):
        axis.imshow(image, cmap="cividis", vmin=np.min(shown), vmax=np.max(shown))
        axis.set_title(f"{what},\n{name}")
for axis in axes:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# With batch norm a picture's features depend on the company it keeps. A frozen encoder that is shown one picture at
# a time in the morning and eight frames in the afternoon cannot have that. In contrastive training it is worse: the
# loss compares the pictures of a batch, and a norm that lets them tell each other who they are gives the answers
# away.
#
# So what did batch norm do that has to be replaced? It kept every layer's signal at mean 0 and variance 1, however
# deep the network. An NF-ResNet gets this by arithmetic, before a picture has been seen.
#
# ## First thing: standardised weights
#
# If the inputs of a unit are independent with variance 1, its output has the variance of the sum of its squared
# weights. So subtract from the weights of every output channel their mean, and divide by the root of their summed
# squares:
#
# $$\hat W_{i,o} = g_o\,\frac{W_{i,o} - \mu_o}{\sqrt{N}\,\sigma_o}$$
#
# `N` is the fan-in, the number of weights that one output channel has: `kh * kw * Cin`. The gain `g` is learned and
# starts at 1. Note the root of `N`: the variance of the weights becomes `1/N`, that of the *output* becomes 1. And
# the mean? Activations are positive on average. Weights whose sum is not zero turn that into a shift, and thirty
# layers add it up.


# %%
def standardise_with_loops(w, gain):
    """w (kh, kw, Cin, Cout), gain (Cout,) -> the same shape, one output channel after the other."""
    out = np.zeros_like(w)
    for o in range(w.shape[3]):
        mine = w[:, :, :, o]
        mean = sum(mine.ravel()) / mine.size
        spread = sum((value - mean) ** 2 for value in mine.ravel())  # N times the variance
        out[:, :, :, o] = gain[o] * (mine - mean) / spread**0.5
    return out


w, gain = rng.standard_normal((3, 3, 4, 5)) + 0.3, rng.uniform(0.5, 2, 5)
same = np.abs(standardise_with_loops(w, gain) - ops.standardise_weight(w, gain)).max() < 1e-12
print("w (kh, kw, Cin, Cout) =", w.shape, " loops and library agree:", bool(same))

# %% [markdown]
# ### Exercise 02.1 · Standardise the weights
# *difficulty: easy · minutes: 10*
#
# Without loops. (The library also has a floor under the spread, for channels whose weights are all alike; leave
# that out.)


# %% exercise 02.1
def standardise(w, gain):
    """w (kh, kw, Cin, Cout), gain (Cout,) -> (kh, kw, Cin, Cout)."""
    # solution
    centred = w - w.mean(axis=(0, 1, 2))
    return gain * centred / np.sqrt(np.sum(centred**2, axis=(0, 1, 2)))
    # end of solution


# %% check 02.1
from tinyflamingo.checks import check_02_1_standardise

check_02_1_standardise(standardise)

# %% [markdown]
# ## The gradient, by hand
#
# The optimiser moves `w`; the convolution sees `ŵ`. For one output channel write `c` for the centred weights and
# `n` for their length, so that `ŵ = g c / n`. A step along `c` itself only makes it longer, and `ŵ` does not
# notice; a step that adds the same number to all weights is not noticed either. So the gradient must have neither
# part. With `a` the gradient that arrives at `ŵ`:
#
# $$\frac{\partial L}{\partial c} = \frac{g}{n}\Bigl(a - u\,(u\cdot a)\Bigr),\quad u = c / n
# \qquad\qquad
# \frac{\partial L}{\partial w} = \frac{\partial L}{\partial c} - \text{its mean}$$

# %% [markdown]
# ### Exercise 02.2 · Back through the standardisation
# *difficulty: medium · minutes: 15*
#
# Write the gradient by `w`, for all output channels at once. The check moves `w` along random directions and
# compares.


# %% exercise 02.2
def standardise_gradient(w, gain, a):
    """w (kh, kw, Cin, Cout), gain (Cout,), a: the gradient by the result -> the gradient by w."""
    # solution
    axes = (0, 1, 2)
    centred = w - w.mean(axis=axes)
    length = np.sqrt(np.sum(centred**2, axis=axes))
    u = centred / length
    by_centred = gain / length * (a - u * np.sum(u * a, axis=axes))
    return by_centred - by_centred.mean(axis=axes)
    # end of solution


# %% check 02.2
from tinyflamingo.checks import check_02_2_standardise_gradient

check_02_2_standardise_gradient(standardise_gradient)

# %% [markdown]
# The same check, as the library's tests make it of every operation: move each argument, compare, return the largest
# relative error.

# %%
print("relative error below 1e-6:", ops.check_grad(ops.standardise_weight, w, gain) < 1e-6)
a = rng.standard_normal(w.shape)
gradient = ops.vjp(lambda p: ops.standardise_weight(p["w"], gain), {"w": w})[2](a)["w"]
print("sum of the gradient a channel:    ", np.abs(gradient.sum(axis=(0, 1, 2))).max() < 1e-10)
along = np.sum(gradient * (w - w.mean(axis=(0, 1, 2))), axis=(0, 1, 2))
print("gradient along the weights is 0:  ", np.abs(along).max() < 1e-10)

# %% [markdown]
# ## Second thing: a gain behind the activation
#
# A standardised convolution keeps the variance. An activation does not: GELU throws half of its input away. So it
# is followed by a constant that brings the variance back to 1, for an input that is normal with variance 1.

# %% [markdown]
# ### Exercise 02.3 · The gain of an activation
# *difficulty: easy · minutes: 5*
#
# From many samples of a normal variable, estimate the gain for any activation `f`. Mind what is to be 1: the
# *variance* of the output. Its mean may stay where it is, the standardised weights behind it do not see it.


# %% exercise 02.3
def unit_gain(f, samples):
    """f: an activation; samples (n,), normal with variance 1 -> the number that makes Var(gain * f) = 1."""
    # solution
    return 1 / np.std(f(samples))
    # end of solution


# %% check 02.3
from tinyflamingo.checks import check_02_3_unit_gain

check_02_3_unit_gain(unit_gain)

# %%
samples = rng.standard_normal(400_000)
gelu = reference.gelu(samples, 1.0)
print(f"variance of a GELU's output              = {gelu.var():.3f}")
print(f"the library's gain                       = {library.GELU_GAIN:.3f}")
print(f"variance of the gain times the output    = {(library.GELU_GAIN * gelu).var():.3f}")
print(f"the gain of a ReLU, known in closed form = {(2 / (1 - 1 / np.pi)) ** 0.5:.3f}")

# %% [markdown]
# ## Third thing: book-keeping along the residual path
#
# A residual block adds: `h + f(h)`. If both have variance 1, the sum has variance 2, and after thirty blocks two to
# the thirtieth. An NF-ResNet adds less, and normalises what enters the branch by a number it *knows*:
#
# $$h_{l+1} = h_l + \alpha\, f(h_l / \beta_l), \qquad \beta_l = \sqrt{\mathrm{Var}(h_l)}, \qquad
# \mathrm{Var}(h_{l+1}) = \mathrm{Var}(h_l) + \alpha^2$$
#
# The branch's output has variance 1, because its input has; so the variance grows by `alpha²` a block, along a
# straight line. Where a stage begins (a *transition*), the shortcut is a convolution of the normalised signal, too,
# and the variance starts again at 1, before this block's own `alpha²` is added. Nothing here is measured: `beta` is
# known before the first picture comes.

# %% [markdown]
# ### Exercise 02.4 · Keep the books
# *difficulty: medium · minutes: 15*
#
# For stages with the given numbers of blocks, return `beta` of every block: the standard deviation of what comes
# *in*. The very first block gets variance 1; the first block of a stage still gets what the stage before has left.


# %% exercise 02.4
def betas(blocks, alpha):
    """blocks: number of blocks in each stage -> beta of every block, a flat list."""
    # solution
    found, variance = [], 1.0
    for number in blocks:
        for b in range(number):
            found.append(variance**0.5)
            variance = (1.0 if b == 0 else variance) + alpha**2
    return found
    # end of solution


# %% check 02.4
from tinyflamingo.checks import check_02_4_betas

check_02_4_betas(betas)

# %% [markdown]
# ## Watch the signal
#
# Now a deep encoder, thirty blocks in three stages, just initialised, and pure noise for pictures. The encoder of
# the library lets us watch its signal after every block. Then each ingredient is taken out, in the library's own
# functions, for the length of a `with` block.

# %%
deep = VisionConfig(stem=((32, 1),), stages=((32, 10, 1), (48, 10, 1), (64, 10, 1)), width=64)
fresh = library.init_vision_encoder(rng, deep)
for name in fresh:
    if "skip_init_gain" in fresh[name]:
        fresh[name]["skip_init_gain"] = np.float32(1)  # more of this below
noise = rng.standard_normal((4, 16, 16, 3), dtype=np.float32)


def signal(config):
    """After the stem and each block: variance, and squared mean of a channel, both averaged over channels."""
    seen = []
    library.vision_encoder(
        fresh,
        noise,
        config,
        watch=lambda _, h: seen.append((h.var(axis=(0, 1, 2)).mean(), (h.mean(axis=(0, 1, 2)) ** 2).mean())),
    )
    return np.array(seen)


@contextlib.contextmanager
def replaced(module, name, value):
    """A name of a module means something else for the length of a `with` block."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def plan_without_beta(config):
    """The library's plan with every beta at 1."""
    return [(*block[:-1], 1.0) for block in plan(config)]


plan = library.block_plan
signals = {"all of it": signal(deep)}
with replaced(ops, "standardise_weight", lambda w, gain: w):
    signals["raw weights"] = signal(deep)
with replaced(library, "GELU_GAIN", 1.0):
    signals["no activation gain"] = signal(deep)
with replaced(library, "block_plan", plan_without_beta):
    signals["h + f(h)"] = signal(dataclasses.replace(deep, alpha=1.0))

# %% [markdown]
# **Predict** which of the curves below is which, before you look at the legend: one stays near 1, one grows slowly,
# one grows by powers of two and faster, one dies.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3))
styles = zip(signals.items(), (BLUE, ORANGE, GREEN, PINK), ("-", "--", "-.", ":"), strict=True)
for (name, seen), colour, style in styles:
    axes[0].semilogy(seen[:, 0], style, color=colour, label=name)
    axes[1].plot(seen[:, 1] / seen[:, 0], style, color=colour)
known = [beta**2 for *_, beta in plan(deep)]
axes[0].semilogy(known, "k--", linewidth=0.7, label="the books")
axes[0].set(xlabel="blocks passed", ylabel="variance", ylim=(1e-3, 1e13))
axes[1].set(xlabel="blocks passed", ylabel="squared mean / variance")
axes[0].legend(frameon=False, loc="upper left")
plt.show()
for name, seen in signals.items():
    print(f"{name:20s} variance after the stem {seen[0, 0]:.2f}, after {len(seen) - 1} blocks {seen[-1, 0]:.2g}")
measured = signals["all of it"][:-1, 0]
print(f"measured / books: between {(measured / known).min():.2f} and {(measured / known).max():.2f}")

# %% [markdown]
# *Figure: two panels against the number of blocks. On the left the variance, logarithmic: with all ingredients a
# sawtooth near 1 that follows the dashed line of the book-keeping; h + f(h) rises over many powers of ten; without
# the activation gain it falls; raw weights drift upwards. On the right the squared mean of the channels: near zero
# with all ingredients, growing with raw weights.*
#
# `h + f(h)` even outgrows powers of two: where the signal is large, the gates of squeeze-excite (below) stand at 0
# or 2, and a branch counts for more than 1. The measured line lies a little below the books, because zeros are
# padded around every map, and zeros have no variance. Remove the half line `- mean` from the standardisation and
# you get "raw weights": the positive mean of each activation becomes a shift of every channel, the same for all
# pictures, and there is less and less of the picture in the signal.
#
# ## Fourth thing: SkipInit
#
# One more number per block multiplies its branch: `skip_init_gain`, and it starts at **0**. (For the curves above
# it was set to 1.) So a fresh network of any depth is only its shortcuts.
#
# **Predict.** Which parameters of a block get a gradient in the very first step?

# %%
toy = library.init_vision_encoder(np.random.default_rng(0), config)
pixels = library.normalise_pixels(np.stack([star, picture(rng, "ring", "red")]))
_, gradient = ops.value_and_grad(lambda p: anp.sum(library.vision_encoder(p, pixels, config) ** 2))(toy)
for block in ("stage_0_block_0", "stage_1_block_0"):
    leaves = named_leaves(gradient[block])
    moving = [name for name, leaf in leaves.items() if np.abs(leaf).max() > 0]
    print(f"{block}: {len(leaves)} arrays, a gradient reaches", *moving)

# %% [markdown]
# Only the gain itself, and the shortcut, if the block has one. Sounds familiar? The gates of Flamingo's
# cross-attention start at zero for the same reason, and notebook 08 meets the same first gradient again.
#
# One part of the block is no ingredient of this kind: *squeeze-excite*. It takes the mean of each channel over the
# picture, sends it through two small layers and a sigmoid, and multiplies the channel by twice the result, so by
# about 1 at the start. In the library it is `squeeze_excite`, and its factors are called gates.
#
# ## Adaptive gradient clipping
#
# What is left is training with big batches, where one bad batch can throw the weights away. The usual clip looks at
# the norm of the whole gradient. AGC looks at every output unit by itself, and asks how large its step would be
# *relative to its weights*:
#
# $$G_o \leftarrow G_o \cdot \min\Bigl(1,\; \lambda\,\frac{\max(\lVert W_o\rVert, \epsilon)}{\lVert G_o\rVert}\Bigr)$$


# %%
def clip_with_loops(g, w, limit, eps=1e-3):
    """g and w (..., Cout): the gradient of each output unit to at most `limit` times the norm of its weights."""
    out = g.copy()
    for o in range(w.shape[-1]):
        norm_g = np.sqrt(np.sum(g[..., o] ** 2))
        allowed = limit * max(np.sqrt(np.sum(w[..., o] ** 2)), eps)
        if norm_g > allowed:
            out[..., o] = g[..., o] * allowed / norm_g
    return out


# %% [markdown]
# ### Exercise 02.5 · Clip by unit
# *difficulty: medium · minutes: 10*
#
# Without the loop, for kernels `(kh, kw, Cin, Cout)` and matrices `(Din, Dout)` alike. Do not change `g` itself.
# The `eps` is there for weights that are still 0: without it they could never move.


# %% exercise 02.5
def clip_by_unit(g, w, limit, eps=1e-3):
    """g and w (..., Cout) -> the clipped gradient, a new array."""
    # solution
    axes = tuple(range(g.ndim - 1))
    norm_g = np.sqrt(np.sum(g**2, axis=axes))
    norm_w = np.sqrt(np.sum(w**2, axis=axes))
    allowed = limit * np.maximum(norm_w, eps)
    return g * np.minimum(1, allowed / np.maximum(norm_g, 1e-12))
    # end of solution


# %% check 02.5
from tinyflamingo.checks import check_02_5_clip_by_unit

check_02_5_clip_by_unit(clip_by_unit)

# %% [markdown]
# A bad batch, made on purpose: the trained encoder is told that its features should be somewhere else, at random.
# The library clips a whole tree of gradients in place.

# %%
there = library.vision_encoder(vision, pixels, config)
wanted = there + 3 * rng.standard_normal(there.shape, dtype=np.float32)
_, gradient = ops.value_and_grad(lambda p: anp.mean((library.vision_encoder(p, pixels, config) - wanted) ** 2))(vision)


def ratios(gradient):
    """Norm of each output unit's gradient over the norm of its weights, all kernels of the encoder."""
    weights, found = named_leaves(vision), []
    for name, g in named_leaves(gradient).items():
        if name.endswith("/w"):
            norms = [np.sqrt(np.sum(x * x, axis=(0, 1, 2))) for x in (g, weights[name])]
            found.append(norms[0] / np.maximum(norms[1], 1e-3))
    return np.sort(np.concatenate(found))


kernel, before, limit = gradient["final"]["w"].copy(), ratios(gradient), 0.08
adaptive_clip(gradient, vision, limit)
same = np.abs(clip_with_loops(kernel, vision["final"]["w"], limit) - gradient["final"]["w"]).max() < 1e-6
print("units:", len(before), " above the limit:", int((before > limit).sum()), " loops and library agree:", bool(same))

# %% [markdown]
# *Figure: the ratio of gradient to weights for all output units of the encoder, sorted. Before clipping a part of
# the curve rises above the limit, a dashed line; after clipping that part lies on the line, and the rest is where
# it was.*

# %%
figure, axis = plt.subplots(figsize=(6, 2.5))
axis.semilogy(before, color=ORANGE, label="before")
axis.semilogy(ratios(gradient), color=BLUE, linestyle="-.", label="after")
axis.axhline(limit, color="black", linestyle="--", linewidth=0.7)
axis.set(xlabel="output units, sorted", ylabel="|G| / |W|")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Beside it: a Vision Transformer
#
# CLIP's image encoder is a ViT: cut the picture into patches, make each a vector, add a learned position, and let
# all of them attend to each other, block after block. Here is one, whole, with the library's operations.


# %%
def vit(params, pictures, patch=8, heads=4):
    """Pictures (B, Y, X, 3) to features (B, S, D), one a patch."""
    B, Y, X, _ = pictures.shape
    rows, columns = Y // patch, X // patch
    cut = anp.reshape(pictures, (B, rows, patch, columns, patch, 3))
    cut = anp.reshape(anp.transpose(cut, (0, 1, 3, 2, 4, 5)), (B, rows * columns, -1))
    h = ops.linear(cut, params["patch"]) + params["positions"]  # (B, S, D)
    for block in params["blocks"].values():
        B, S, D = h.shape
        x = ops.layer_norm(h, block["attn_gain"], block["attn_bias"])
        q, k, v = (anp.reshape(ops.linear(x, block[n]), (B, S, heads, -1)) for n in ("w_q", "w_k", "w_v"))
        h = h + ops.linear(anp.reshape(ops.attention(q, k, v), (B, S, D)), block["w_o"])
        x = ops.layer_norm(h, block["ffw_gain"], block["ffw_bias"])
        h = h + ops.linear(ops.gelu(ops.linear(x, block["w_1"])), block["w_2"])
    return h


def init_vit(rng, D=64, blocks=3, patch=8, side=32):
    """Parameters as nested dicts."""

    def matrix(rows, columns):
        return (rng.standard_normal((rows, columns)) * rows**-0.5).astype(np.float32)

    def norm(name):
        return {f"{name}_gain": np.ones(D, np.float32), f"{name}_bias": np.zeros(D, np.float32)}

    layers = {
        f"block_{i}": {
            **norm("attn"),
            **norm("ffw"),
            **{name: matrix(D, D) for name in ("w_q", "w_k", "w_v", "w_o")},
            "w_1": matrix(D, 4 * D),
            "w_2": matrix(4 * D, D),
        }
        for i in range(blocks)
    }
    return {"patch": matrix(3 * patch**2, D), "positions": matrix((side // patch) ** 2, D), "blocks": layers}


transformer = init_vit(rng)
print(f"ViT     {count(transformer):8,d} parameters, features (B, S, D)  =", vit(transformer, pixels).shape)
print(f"ResNet  {count(vision):8,d} parameters, features (B, S, Dv) =", end=" ")
print(library.vision_encoder(vision, pixels, config).shape)

# %% [markdown]
# What does one feature see? The gradient of a feature by the pixels tells. The ResNet is the trained one, the ViT
# fresh; what you will see is built in, not learned.
#
# **Predict.** The feature belongs to one cell of a four by four grid. Which pixels move it, in each of the two?

# %%
pictures = np.stack([picture(rng, *kind) for kind in (("star", "blue"), ("house", "red"), ("ring", "green"))])
cell = 5  # second row, second column


def sight(encode):
    """Mean size of the gradient of one feature by each pixel, (Y, X)."""
    x = {"x": library.normalise_pixels(pictures)}
    features, _, pull = ops.vjp(lambda p: encode(p["x"])[:, cell], x)
    ways = [np.random.default_rng(i).standard_normal(features.shape, dtype=np.float32) for i in range(8)]
    return np.mean([np.abs(pull(way)["x"]).sum(axis=(0, 3)) for way in ways], axis=0)


sights = {
    "ResNet": sight(lambda x: library.vision_encoder(vision, x, config)),
    "ViT, no block": sight(lambda x: vit({**transformer, "blocks": {}}, x)),
    "ViT": sight(lambda x: vit(transformer, x)),
}
for name, seen in sights.items():
    strong = (seen > 0.05 * seen.max()).mean()
    print(f"{name:14s} pixels with any influence {np.mean(seen > 0):.2f}, with at least a twentieth {strong:.2f}")

# %% [markdown]
# *Figure: three maps of 32 by 32 pixels, bright where a pixel moves the chosen feature. ResNet: a soft spot around
# the cell, larger than it, fading outwards. ViT without blocks: exactly one square patch. ViT with blocks: the
# patch, and all other patches, too, dimmer.*

# %%
figure, axes = plt.subplots(1, 3, figsize=(7, 2.5))
for axis, (name, seen) in zip(axes, sights.items(), strict=True):
    axis.imshow(np.sqrt(seen / seen.max()), cmap="magma", vmin=0, vmax=1)
    axis.set_title(name)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# A ResNet's feature sees its neighbourhood, and most of what is in the middle of it. That is built in, and so is
# the layout: no position is ever added, and a larger picture simply gives a larger grid. A ViT's patch sees
# everything from the first block on, has to learn what is near, and its table of positions is made for one size.

# %%
large = library.normalise_pixels(star.repeat(2, 0).repeat(2, 1)[None])
print("ResNet, picture doubled: features", library.vision_encoder(vision, large, config).shape)
try:
    vit(transformer, large)
except ValueError as error:
    print("ViT, picture doubled:", str(error).strip())

# %% [markdown]
# A table of places can be stretched over a larger grid, as notebook 04 stretches stamps of time; the library's own
# ViT, with CLIP's class token and norms, does that. Flamingo's authors tried CLIP's ViT-L/14 and found their
# NFNet-F6 better (table 3 of the paper); many models since then use a ViT. Both give the resampler what it wants: a
# list of features.
#
# ## In the library

# %%
show(reference.standardise_weight)
show(library.nf_block, library.gained_gelu, library.squeeze_excite, library.block_plan)
show(clip_vit.vit)
show(adaptive_clip)

# %% [markdown]
# ## Summary
#
# Batch norm makes a picture's features depend on its batch; an NF-ResNet keeps its signal at variance 1 by
# arithmetic instead. Standardised weights and activation gains keep a branch's variance, `alpha` and `beta` keep
# the books of the sum, SkipInit makes a fresh network the identity, and adaptive clipping keeps a bad batch from
# undoing it all.
#
# To go on: find the activation gain of your favourite activation; take out the reset at the transitions; give the
# deep encoder real pictures instead of noise and see how well the books hold. Notebook 03 trains the toy's encoder,
# notebook 05 takes over its features.
#
# Further reading: [NFNets](https://arxiv.org/abs/2102.06171), sections 3 and 4; [characterizing signal
# propagation](https://arxiv.org/abs/2101.08692), where the plots come from;
# [SkipInit](https://arxiv.org/abs/2002.10444); [ViT](https://arxiv.org/abs/2010.11929);
# [CLIP](https://arxiv.org/abs/2103.00020). Where this code departs: `docs/deviations.md`, "The vision encoder".
