# %% [markdown]
# # A deep network without normalisation
#
# *chapter: §2, the vision encoder · minutes: 135 to read and do, half a minute to run · key: nf_resnet*
#
# You need notebooks 00 and 01, and you should know what a convolution and a residual connection are.
#
# In this notebook you study the NF-ResNet, the network that turns pictures into features. You learn why it has no
# batch normalisation, and which four things replace it. You take parts away one by one and see the signal vanish
# or explode. For comparison there is also a Vision Transformer in 25 lines, the kind of encoder that CLIP is known
# for. You see what a feature of each network depends on. You do not train an encoder here. Notebook 03 does that.
#
# Letters: `B` pictures, `Y`, `X` pixels, `C` channels, `S` features of a picture, `Dv` their width, `H` heads.

# %%
import os

os.environ.setdefault("TINYFLAMINGO_OPS", "reference")  # plain NumPy: easy to step through, nothing to compile

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

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # also distinct for colour-blind readers
plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
np.seterr(over="ignore")  # the slope of tanh is 1 / cosh(x)**2; cosh overflows for large x, and the slope 0 is right
model = tinyflamingo.load()
config, vision = model.config.vision, model.frozen["vision"]
rng = np.random.default_rng(2022)


# %% [markdown]
# ## Why there is no batch normalisation
#
# A batch norm subtracts from every channel its mean over the batch, and divides the channel by its standard deviation
# over the batch. Deep ResNets train well with it. But with it, the features of each single picture also depend on the
# other pictures of the batch.
#
# **Predict.** The same star is encoded twice: once in a batch with seven dark pictures, once in a batch with seven
# bright pictures. After the first convolution there is a batch norm. Are the two feature maps of the star equal?


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
print(f"the map of the star differs by {apart[0]:.1e} without, by {apart[1]:.1e} with batch norm")
print(f"whole encoder, without batch norm: features differ by {np.abs(np.subtract(*whole.values())).max():.1e}")

# %% [markdown]
# *Figure: the star, and one channel of the first convolution's map of it, in the two batches. Without batch norm
# the two maps are equal. With batch norm, the map among bright pictures has other values than the map among dark
# pictures.*

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
# With batch norm, the features of a picture depend on the other pictures in the batch. A frozen encoder cannot
# accept this: it may get one picture at one time and eight frames at another time, and the same picture must
# always give the same features. In contrastive training there is a second problem. The loss compares the pictures
# of a batch. A batch norm passes information between these pictures, and the network can use this information to
# find the right pair without looking at the content.
#
# What did batch norm do that we must replace? It kept the signal of every layer at mean 0 and variance 1, at any
# depth. An NF-ResNet reaches this by calculation, before it has seen any picture.
#
# ## First thing: standardised weights
#
# If the inputs of a unit are independent and have variance 1, then the variance of its output is the sum of its
# squared weights. So for every output channel, subtract from the weights their mean, and divide them by the root
# of their summed squares:
#
# $$\hat W_{i,o} = g_o\,\frac{W_{i,o} - \mu_o}{\sqrt{N}\,\sigma_o}$$
#
# `N` is the fan-in, the number of weights of one output channel: `kh * kw * Cin`. $\mu_o$ and $\sigma_o$ are the mean
# and the standard deviation of these weights. The gain `g` is learned and starts at 1. Note the root of `N`: the
# variance of the weights becomes `1/N`, and so the variance of the *output* becomes 1.
#
# Why do we subtract the mean? Activations are positive on average. If the weights do not sum to zero, this average
# becomes a shift of the output. Over thirty layers these shifts add up.


# %%
def standardise_with_loops(w, gain):
    """w (kh, kw, Cin, Cout), gain (Cout,) -> the same shape, one output channel after the other."""
    out = np.zeros_like(w)
    for o in range(w.shape[3]):
        kernel = w[:, :, :, o]
        mean = sum(kernel.ravel()) / kernel.size
        spread = sum((value - mean) ** 2 for value in kernel.ravel())  # N times the variance
        out[:, :, :, o] = gain[o] * (kernel - mean) / spread**0.5
    return out


w, gain = rng.standard_normal((3, 3, 4, 5)) + 0.3, rng.uniform(0.5, 2, 5)
same = np.abs(standardise_with_loops(w, gain) - ops.standardise_weight(w, gain)).max() < 1e-12
print("w (kh, kw, Cin, Cout) =", w.shape, " loops and library agree:", bool(same))

# %% [markdown]
# ### Exercise 02.1 · Standardise the weights
# *difficulty: easy · minutes: 10*
#
# Write it without loops. (The library also has a lower limit for the divisor, for channels whose weights are all
# equal. Leave that out.)


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
# The optimiser changes `w`, but the convolution uses `ŵ`. For one output channel, write `c` for the centred
# weights and `n` for their length, so that `ŵ = g c / n`. A step along `c` changes only the length of `c`, and `ŵ`
# stays the same. A step that adds the same number to all weights does not change `ŵ` either. So the gradient has
# no part in these two directions. Write `a` for the gradient that arrives at `ŵ`:
#
# $$\frac{\partial L}{\partial c} = \frac{g}{n}\Bigl(a - u\,(u\cdot a)\Bigr),\quad u = c / n
# \qquad\qquad
# \frac{\partial L}{\partial w} = \frac{\partial L}{\partial c} - \operatorname{mean}\frac{\partial L}{\partial c}$$

# %% [markdown]
# ### Exercise 02.2 · Back through the standardisation
# *difficulty: medium · minutes: 15*
#
# Write the gradient with respect to `w`, for all output channels at once. The check moves `w` along random
# directions and compares.


# %% exercise 02.2
def standardise_gradient(w, gain, a):
    """w (kh, kw, Cin, Cout), gain (Cout,), a: the gradient at the result -> the gradient at w."""
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
# The tests of the library check every operation in the same way: they move each argument, compare the change with
# the gradient, and return the largest relative error. The next cell does this for the standardised weights.

# %%
print("relative error below 1e-6:", ops.check_grad(ops.standardise_weight, w, gain) < 1e-6)
a = rng.standard_normal(w.shape)
gradient = ops.vjp(lambda p: ops.standardise_weight(p["w"], gain), {"w": w})[2](a)["w"]
print("gradient of a channel sums to 0:  ", np.abs(gradient.sum(axis=(0, 1, 2))).max() < 1e-10)
along = np.sum(gradient * (w - w.mean(axis=(0, 1, 2))), axis=(0, 1, 2))
print("gradient along the weights is 0:  ", np.abs(along).max() < 1e-10)

# %% [markdown]
# ## Second thing: a gain after the activation
#
# A standardised convolution keeps the variance at 1. An activation does not: GELU makes every negative input small
# (its lowest output is about -0.17). So after the activation the signal is multiplied by a constant. The constant is
# chosen so that an input from a normal distribution with variance 1 gives an output with variance 1.

# %% [markdown]
# ### Exercise 02.3 · The gain of an activation
# *difficulty: easy · minutes: 5*
#
# You get many samples of a normal variable with variance 1. Estimate the gain for any activation `f`. The *variance*
# of the output must be 1. The mean of the output need not be 0, because the standardised weights of the next layer
# remove its effect.


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
# ## Third thing: a known variance along the residual path
#
# A residual block adds: `h + f(h)`. If both terms have variance 1 and are independent, the sum has variance 2. If
# each block doubles the variance, it is two to the power of thirty after thirty blocks. An NF-ResNet adds a
# smaller term. It also divides the input of the branch by a number that is *known* in advance:
#
# $$h_{l+1} = h_l + \alpha\, f(h_l / \beta_l), \qquad \beta_l = \sqrt{\mathrm{Var}(h_l)}, \qquad
# \mathrm{Var}(h_{l+1}) = \mathrm{Var}(h_l) + \alpha^2$$
#
# Here $h_l$ is the input of block $l$ and $f$ is its branch. $\alpha$ (`alpha` in the code) is a constant below 1
# that is chosen before training. $\beta_l$ (`beta`) is the standard deviation of the input, as calculated.
#
# The input of the branch has variance 1, so its output has variance 1 too, because of the first two things. Therefore
# the variance grows by `alpha²` in each block, along a straight line. The first block of a stage is called a
# *transition*. There the shortcut also gets the normalised signal, through a convolution, so the variance of the
# shortcut is 1 again. Then the `alpha²` of this block is added. Nothing is measured here: `beta` is known before the
# first picture arrives.

# %% [markdown]
# ### Exercise 02.4 · The variance, block by block
# *difficulty: medium · minutes: 15*
#
# Compute the expected variance block by block. The stages have the given numbers of blocks. Return `beta` of every
# block, the standard deviation of the *input* of the block. The input of the very first block has variance 1. The
# input of the first block of a later stage has the variance that the stage before has reached.


# %% exercise 02.4
def betas(blocks, alpha):
    """blocks: number of blocks in each stage -> beta of every block, a flat list."""
    # solution
    deviations, variance = [], 1.0
    for number in blocks:
        for b in range(number):
            deviations.append(variance**0.5)
            variance = (1.0 if b == 0 else variance) + alpha**2
    return deviations
    # end of solution


# %% check 02.4
from tinyflamingo.checks import check_02_4_betas

check_02_4_betas(betas)

# %% [markdown]
# ## Watch the signal
#
# Now we take a deep encoder with thirty blocks in three stages. It is only initialised, and its pictures are pure
# noise. The encoder of the library lets us measure its signal after every block. Then we remove each ingredient in
# turn. To do this, a `with` block replaces a function or a number of the library for a short time.

# %%
deep = VisionConfig(stem=((32, 1),), stages=((32, 10, 1), (48, 10, 1), (64, 10, 1)), width=64)
fresh = library.init_vision_encoder(rng, deep)
for name in fresh:
    if "skip_init_gain" in fresh[name]:
        fresh[name]["skip_init_gain"] = np.float32(1)  # explained below
noise = rng.standard_normal((4, 16, 16, 3), dtype=np.float32)


def signal(config):
    """After the stem and each block: the variance and the squared mean of the channels, averaged over them."""
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
    """Inside a `with` block, replace what a name of a module means."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def plan_without_beta(config):
    """The plan of the library, but with every beta equal to 1."""
    return [(*block[:-1], 1.0) for block in plan(config)]


plan = library.block_plan
signals = {"all ingredients": signal(deep)}
with replaced(ops, "standardise_weight", lambda w, gain: w):
    signals["raw weights"] = signal(deep)
with replaced(library, "GELU_GAIN", 1.0):
    signals["no activation gain"] = signal(deep)
with replaced(library, "block_plan", plan_without_beta):
    signals["h + f(h)"] = signal(dataclasses.replace(deep, alpha=1.0))

# %% [markdown]
# **Predict** which curve is which in the figure below, before you look at the legend: one stays near 1, one grows
# slowly, one grows as powers of two and faster, one falls towards zero.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3))
styles = zip(signals.items(), (BLUE, ORANGE, GREEN, PINK), ("-", "--", "-.", ":"), strict=True)
for (name, seen), colour, style in styles:
    axes[0].semilogy(seen[:, 0], style, color=colour, label=name)
    axes[1].plot(seen[:, 1] / seen[:, 0], style, color=colour)
known = [beta**2 for *_, beta in plan(deep)]
axes[0].semilogy(known, "k--", linewidth=0.7, label="calculated")
axes[0].set(xlabel="blocks passed", ylabel="variance", ylim=(1e-3, 1e13))
axes[1].set(xlabel="blocks passed", ylabel="squared mean / variance")
axes[0].legend(frameon=False, loc="upper left")
plt.show()
for name, seen in signals.items():
    print(f"{name:20s} variance after the stem {seen[0, 0]:.2f}, after {len(seen) - 1} blocks {seen[-1, 0]:.2g}")
measured = signals["all ingredients"][:-1, 0]
print(f"measured / calculated: between {(measured / known).min():.2f} and {(measured / known).max():.2f}")

# %% [markdown]
# *Figure: two panels against the number of blocks. On the left the variance, logarithmic. With all ingredients it is
# a sawtooth near 1 that follows the dashed line of the calculated variance. With h + f(h) it rises over many powers of
# ten. Without the activation gain it falls. With raw weights it drifts upwards. On the right the squared mean of the
# channels, divided by their variance. It is near zero with all ingredients and grows with raw weights.*
#
# `h + f(h)` grows even faster than powers of two. The reason is squeeze-excite (below): where the signal is large,
# its gates are 0 or 2, and the output of a branch has a variance above 1. The measured line is a little below the
# calculated line. Every map is padded with zeros at its border, and zeros have no variance.
#
# You also get the curve "raw weights" if you remove only the step `- mean` from the standardisation. Then the
# positive mean of each activation becomes a shift of every channel. The shift is the same for all pictures, so the
# part of the signal that depends on the picture becomes smaller and smaller.
#
# ## Fourth thing: SkipInit
#
# Each block has one more learned number, `skip_init_gain`. It multiplies the branch, and it starts at **0**. (For
# the curves above it was set to 1.) So a fresh network of any depth consists only of its shortcuts.
#
# **Predict.** Which parameters of a block get a gradient in the very first step?

# %%
toy = library.init_vision_encoder(np.random.default_rng(0), config)
pixels = library.normalise_pixels(np.stack([star, picture(rng, "ring", "red")]))
_, gradient = ops.value_and_grad(lambda p: anp.sum(library.vision_encoder(p, pixels, config) ** 2))(toy)
for block in ("stage_0_block_0", "stage_1_block_0"):
    leaves = named_leaves(gradient[block])
    moving = [name for name, leaf in leaves.items() if np.abs(leaf).max() > 0]
    print(f"{block}: {len(leaves)} arrays, a gradient other than 0 for", *moving)

# %% [markdown]
# Only the gain itself gets a gradient, and the shortcut, if it has parameters. The gates of Flamingo's
# cross-attention start at zero for the same reason, and notebook 08 shows the same first gradient.
#
# The block has one more part, *squeeze-excite*. It is not one of the four things that control the variance. It
# takes the mean of each channel over the picture and sends the means through two small layers and a sigmoid. Then
# it multiplies each channel by twice the result, which is about 1 at the start. In the library it is
# `squeeze_excite`, and its factors are called gates.
#
# ## Adaptive gradient clipping
#
# One problem remains: in training with big batches, one bad batch can damage the weights. The usual clipping looks at
# the norm of the whole gradient. Adaptive gradient clipping (AGC) looks at every output unit separately. It compares
# the norm of the gradient with the *norm of the weights* of this unit. In the formula, $G_o$ is the gradient of
# output unit $o$ and $W_o$ are its weights, $\lambda$ is the limit (`limit` in the code), and $\epsilon$ is a small
# number:
#
# $$G_o \leftarrow G_o \cdot \min\Bigl(1,\; \lambda\,\frac{\max(\lVert W_o\rVert, \epsilon)}{\lVert G_o\rVert}\Bigr)$$


# %%
def clip_with_loops(g, w, limit, eps=1e-3):
    """g and w (..., Cout): limit the gradient of each output unit to `limit` times the norm of its weights."""
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
# Write it without the loop, for both kernels `(kh, kw, Cin, Cout)` and matrices `(Din, Dout)`. Do not change `g`
# itself. The `eps` is there for weights that are still 0: without it their clipped gradient would always be 0, and
# they could never change.


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
# The next cell makes a bad batch on purpose: the features of the trained encoder are compared with random targets.
# The library clips a whole tree of gradients in place.

# %%
there = library.vision_encoder(vision, pixels, config)
wanted = there + 3 * rng.standard_normal(there.shape, dtype=np.float32)
_, gradient = ops.value_and_grad(lambda p: anp.mean((library.vision_encoder(p, pixels, config) - wanted) ** 2))(vision)


def ratios(gradient):
    """Norm of each output unit's gradient over the norm of its weights, all kernels of the encoder."""
    weights, parts = named_leaves(vision), []
    for name, g in named_leaves(gradient).items():
        if name.endswith("/w"):
            norms = [np.sqrt(np.sum(x * x, axis=(0, 1, 2))) for x in (g, weights[name])]
            parts.append(norms[0] / np.maximum(norms[1], 1e-3))
    return np.sort(np.concatenate(parts))


kernel, before, limit = gradient["final"]["w"].copy(), ratios(gradient), 0.08
adaptive_clip(gradient, vision, limit)
same = np.abs(clip_with_loops(kernel, vision["final"]["w"], limit) - gradient["final"]["w"]).max() < 1e-6
print("units:", len(before), " above the limit:", int((before > limit).sum()), " loops and library agree:", bool(same))

# %% [markdown]
# *Figure: the ratio of gradient to weights for all output units of the encoder, sorted. Before clipping, a part of
# the curve is above the limit, a dashed line. After clipping, that part is on the line, and the rest is
# unchanged.*

# %%
figure, axis = plt.subplots(figsize=(6, 2.5))
axis.semilogy(before, color=ORANGE, label="before")
axis.semilogy(ratios(gradient), color=BLUE, linestyle="-.", label="after")
axis.axhline(limit, color="black", linestyle="--", linewidth=0.7)
axis.set(xlabel="output units, sorted", ylabel="|G| / |W|")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## For comparison: a Vision Transformer
#
# The chapter says that CLIP's image encoder is a Vision Transformer (ViT), and that Flamingo's encoder is a
# ResNet. CLIP's authors trained both kinds: several ResNets, which they had changed in some places, and several
# ViTs. Their best model is a ViT, ViT-L/14, so CLIP usually means a ViT today. The ResNets of CLIP have batch
# norm, the NFNet of Flamingo does not.
#
# A ViT cuts the picture into patches, makes each patch a vector and adds a learned position. Then all patches
# attend to each other, block after block. Here is a complete one, built from the operations of the library.


# %%
def vit(params, pictures, patch=8, heads=4):
    """Pictures (B, Y, X, 3) -> features (B, S, D), one for each patch."""
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
# What does one feature see? The gradient of the feature with respect to the pixels shows it. The ResNet is the
# trained one, and the ViT is fresh. For the ViT, the figure shows what the architecture does without learning.
#
# **Predict.** The feature belongs to one cell of a grid of four by four. Which pixels change it, in each of the
# two networks?

# %%
pictures = np.stack([picture(rng, *kind) for kind in (("star", "blue"), ("house", "red"), ("ring", "green"))])
cell = 5  # second row, second column


def sight(encode):
    """Mean size of the gradient of one feature with respect to each pixel, (Y, X)."""
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
    print(f"{name:14s} pixels with any influence {np.mean(seen > 0):.2f}, with at least 5% of the largest {strong:.2f}")

# %% [markdown]
# *Figure: three maps of 32 by 32 pixels, bright where a pixel changes the chosen feature. ResNet: a soft spot
# around the cell, larger than the cell, weaker towards the outside. ViT without blocks: exactly one square patch.
# ViT with blocks: the patch, and all other patches too, but weaker.*

# %%
figure, axes = plt.subplots(1, 3, figsize=(7, 2.5))
for axis, (name, seen) in zip(axes, sights.items(), strict=True):
    axis.imshow(np.sqrt(seen / seen.max()), cmap="magma", vmin=0, vmax=1)
    axis.set_title(name)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# A feature of a ResNet sees its neighbourhood, most of all the middle of it. The architecture makes it so, and the
# architecture also keeps the layout of the picture. No position is added, and a larger picture simply gives a
# larger grid. A patch of a ViT sees everything from the first block on. It must learn which patches are near, and
# its table of positions fits only one size of picture.

# %%
large = library.normalise_pixels(star.repeat(2, 0).repeat(2, 1)[None])
print("ResNet, picture doubled: features", library.vision_encoder(vision, large, config).shape)
try:
    vit(transformer, large)
except ValueError as error:
    print("ViT, picture doubled:", str(error).strip())

# %% [markdown]
# A table of positions can be interpolated to a larger grid, in the same way as notebook 04 interpolates the time
# embeddings. The library's own ViT does that, and it has the class token and the norms of CLIP. Flamingo's authors
# tried CLIP's ViT-L/14 and found their NFNet-F6 better (table 3 of the paper). Many later models use a ViT. Both
# networks give the resampler what it needs: a list of features.
#
# ## In the library

# %%
show(reference.standardise_weight)
show(library.nf_block, library.gained_gelu, library.squeeze_excite, library.block_plan)
show(clip_vit.vit)
show(adaptive_clip)

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("02")

# %%
check_quiz("02", ".....")

# %% [markdown]
# ## Summary
#
# Batch norm makes the features of a picture depend on its batch. An NF-ResNet has no batch norm and keeps the
# variance of its signal near 1 by calculation. Standardised weights and activation gains keep the variance of a
# branch. `alpha` and `beta` control the variance of the sum. SkipInit reduces a fresh network to its shortcuts.
# Adaptive clipping limits the damage that one bad batch can do.
#
# **Try it.** Find the gain of another activation. A transition brings the variance of the shortcut back to 1: remove
# this step. Give the deep encoder real pictures instead of noise, and see how well the calculated variance fits.
# Notebook 03 trains the toy's encoder, and notebook 05 uses its features.
#
# **Further reading.** [NFNets](https://arxiv.org/abs/2102.06171), sections 3 and 4; [characterizing signal
# propagation](https://arxiv.org/abs/2101.08692), where the plots come from;
# [SkipInit](https://arxiv.org/abs/2002.10444); [ViT](https://arxiv.org/abs/2010.11929);
# [CLIP](https://arxiv.org/abs/2103.00020). Where this code differs: `docs/deviations.md`, "The vision encoder".
