# %% [markdown]
# # Pictures and captions in one space
#
# *chapter: §2, training the encoder · minutes: 90 to read and do, half a minute to run · key: contrastive*
#
# You need notebook 02, and you should know what a softmax and a cross-entropy are.
#
# In this notebook you build the contrastive loss, with loops and without. You derive its gradient, and you train a
# very small pair of towers (encoders) for a few seconds. The towers that come with the toy were trained for some
# minutes. You use them to name pictures, although nobody trained them to classify. You do not use the towers
# inside Flamingo here. After this training, the vision encoder is frozen and the text tower is not used any more.
# Notebook 05 continues with the features of the vision encoder.
#
# Letters: `B` pairs in a batch, `J` width of the joint space, `T` tokens of a caption.

# %%
import os

os.environ.setdefault("TINYFLAMINGO_OPS", "reference")  # plain NumPy: easy to step through, nothing to compile

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import show
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import HELD_OUT, KNOWN, THINGS, draw_scene, sample_single
from tinyflamingo.model import contrastive as library
from tinyflamingo.model.config import ResamplerConfig, TextTowerConfig, VisionConfig
from tinyflamingo.model.flamingo import flamingo, resample
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.vision_encoder import init_vision_encoder
from tinyflamingo.ops.tree import count, flatten
from tinyflamingo.training.contrastive_stage import pad_captions
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.variants.registry import untrained

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # also distinct for colour-blind readers
plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
np.seterr(over="ignore")  # the slope of tanh is 1 / cosh(x)**2; cosh overflows for large x, and the slope 0 is right
model = tinyflamingo.load()
rng = np.random.default_rng(2022)


def draw(things):
    """A TinyWorld picture of each (shape, colour), uint8 (B, Y, X, 3)."""
    return np.stack([draw_scene(rng, sample_single(rng, (thing,))) for thing in things])


# %% [markdown]
# ## Two towers
#
# One tower turns pictures into vectors, the other turns captions into vectors. Both end in a linear map to the
# same width `J`, and both results are scaled to length 1. The towers share nothing else. Only the training makes
# the vector of a picture similar to the vector of its caption.
#
# The next cells show eight pictures, their captions, and all 64 cosines between them. The left map uses towers
# that were just initialised. The right map uses the trained towers that come with the toy.


# %%
def embed(model, things, pictures):
    """Unit vectors of pictures and of the things' captions, both (B, J)."""
    towers = {"vision": model.frozen["vision"], **model.frozen["contrastive"]}
    tokens, mask = pad_captions([tokenizer.encode(f"{say.thing_phrase(*thing)}.") for thing in things])
    seen = library.embed_pictures(towers, pictures, model.config)
    return seen, library.embed_captions(towers, tokens, mask, model.config)


tokenizer = model.tokenizer
things = [("circle", "red"), ("circle", "blue"), ("square", "blue"), ("square", "green")]
things += [("star", "yellow"), ("star", "red"), ("heart", "pink"), ("house", "cyan")]
pictures = draw(things)
fresh = untrained(np.random.default_rng(0), model.config, tokenizer)
before, after = (embed(each, things, pictures) for each in (fresh, model))
print("pictures (B, Y, X, 3) =", pictures.shape, "-> vectors (B, J) =", after[0].shape)
print("lengths of the vectors:", np.unique(np.round(np.linalg.norm(np.concatenate(after), axis=1), 3)))

# %% [markdown]
# *Figure: eight small pictures in a row, and two heat maps of cosines. Each row is a picture, and each column is a
# caption. Before training, the map has vertical stripes at most. After training, its diagonal is bright.*

# %%
figure = plt.figure(figsize=(8, 4.8))
above, below = figure.subfigures(2, 1, height_ratios=(1, 3.4))
for axis, image in zip(above.subplots(1, 8), pictures, strict=True):
    axis.imshow(image)
    axis.set_axis_off()
names = [" ".join(reversed(thing)) for thing in things]
for axis, (seen, read), title in zip(below.subplots(1, 2), (before, after), ("before", "after"), strict=True):
    axis.imshow(seen @ read.T, cmap="cividis", vmin=-1, vmax=1)
    axis.set(title=title, xticks=range(8), yticks=range(8), yticklabels=names, ylabel="picture", xlabel="caption")
    axis.set_xticklabels(names, rotation=90)
plt.show()

# %% [markdown]
# Look also at the right map outside the diagonal. The picture of the blue circle has a high cosine with the
# caption of the blue square, and the other way round. The loss does not ask for this. Pictures that share a colour
# have similar vectors, and so have captions that share words.
#
# ## The loss, with loops
#
# Each picture is a question with `B` possible answers: which of these captions belongs to it? Each caption is a
# question too: which of these pictures belongs to it? The other pairs of the batch are the wrong answers, so
# nobody has to write wrong answers by hand. The cosines are multiplied by a learned factor (the inverse
# temperature). The products are the logits of a softmax:
#
# $$\ell = \frac1B\sum_i\Bigl[-\log\frac{e^{\beta\,V_i\cdot L_i}}{\sum_j e^{\beta\,V_i\cdot L_j}}
# \;-\;\log\frac{e^{\beta\,V_i\cdot L_i}}{\sum_j e^{\beta\,V_j\cdot L_i}}\Bigr]$$
#
# Here $V_i$ is the unit vector of picture $i$, and $L_i$ is the unit vector of its caption. So $V_i\cdot L_j$ is a
# cosine. $\beta$ is the learned factor.
#
# (CLIP takes the mean of the two directions, which is half of this. Flamingo's paper takes the sum.)
#
# **Predict.** Fresh towers know nothing. What is the loss, approximately, for a batch of `B` pairs?


# %%
def loss_with_loops(pictures, captions, scale):
    """pictures, captions (B, J) unit vectors, row i of one belongs to row i of the other -> a number."""
    B = len(pictures)
    total = 0.0
    for i in range(B):
        as_picture = np.array([scale * (pictures[i] @ captions[j]) for j in range(B)])
        as_caption = np.array([scale * (pictures[j] @ captions[i]) for j in range(B)])
        for logits in (as_picture, as_caption):
            total -= logits[i] - np.log(np.sum(np.exp(logits)))
    return total / B


scale = float(np.exp(model.frozen["contrastive"]["log_scale"]))
ids = np.arange(len(things))
print(f"learned factor {scale:.1f};  2 log B = {2 * np.log(len(things)):.2f}")
for name, vectors, factor in (("before", before, 1 / library.START_TEMPERATURE), ("after", after, scale)):
    by_hand = loss_with_loops(*vectors, factor)
    theirs = library.contrastive_loss(*vectors, np.log(np.float32(factor)), ids)
    print(f"loss {name:6s}  loops {by_hand:.4f}  library {theirs:.4f}")

# %% [markdown]
# Guessing among `B` answers costs `log B`, and there are two directions. The loss of fresh towers is even a bit
# higher. Their factor is large from the start, so their wrong answers get high probabilities.

# %% [markdown]
# ### Exercise 03.1 · The loss without loops
# *difficulty: medium · minutes: 15*
#
# Each row is a vector, and its norm (the length of the vector) may be any number. So scale each row to norm 1 first.
# For each pair, add the losses of both directions. Return the mean over the pairs.


# %% exercise 03.1
def contrastive_loss(pictures, captions, scale):
    """pictures, captions (B, J), of any length; scale: a number -> the loss, a number."""
    # solution
    pictures = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    captions = captions / np.linalg.norm(captions, axis=1, keepdims=True)
    logits = scale * pictures @ captions.T  # (B, B)
    own = np.diagonal(logits)
    by_picture = np.log(np.sum(np.exp(logits), axis=1)) - own
    by_caption = np.log(np.sum(np.exp(logits), axis=0)) - own
    return np.mean(by_picture + by_caption)
    # end of solution


# %% check 03.1
from tinyflamingo.checks import check_03_1_contrastive_loss

check_03_1_contrastive_loss(contrastive_loss)

# %% [markdown]
# ## The gradient, by hand
#
# For one softmax with cross-entropy, the gradient with respect to the logits is simple: the probabilities, minus 1
# at the right answer. Here every logit is part of two softmaxes, one over its row and one over its column. The
# vectors enter through one matrix product: `logits = scale * pictures @ captions.T`.

# %% [markdown]
# ### Exercise 03.2 · Pull and push
# *difficulty: medium · minutes: 10*
#
# Return the gradient of the loss with respect to the logits, `(B, B)`. Do not forget the mean over the `B` pairs.


# %% exercise 03.2
def logits_gradient(logits):
    """logits (B, B), picture i and caption i belong together -> the gradient of the loss at the logits, (B, B)."""
    # solution
    e = np.exp(logits - logits.max())
    right = np.eye(len(logits))
    by_picture = e / e.sum(axis=1, keepdims=True) - right
    by_caption = e / e.sum(axis=0, keepdims=True) - right
    return (by_picture + by_caption) / len(logits)
    # end of solution


# %% check 03.2
from tinyflamingo.checks import check_03_2_logits_gradient

check_03_2_logits_gradient(logits_gradient)

# %% [markdown]
# The next cell computes the same gradient with autograd, for the trained towers. On the diagonal the gradient is
# negative. The loss falls when these logits rise, so training pulls each picture and its caption together.
# Everywhere else the gradient is positive, so training pushes pictures and captions of different pairs apart. The
# push is strongest for the pairs with the highest cosines.

# %%
logits = (scale * after[0] @ after[1].T).astype(np.float64)
gradient = ops.value_and_grad(
    lambda p: (ops.cross_entropy(p["x"], ids) + ops.cross_entropy(p["x"].T, ids)).sum() / len(ids)
)({"x": logits})[1]["x"]
print("on the diagonal all negative:", bool((np.diagonal(gradient) < 0).all()))
print("sum of all entries is 0:     ", bool(abs(gradient.sum()) < 1e-10))
apart = gradient - np.diag(np.diagonal(gradient))
i, j = np.unravel_index(apart.argmax(), apart.shape)
print("pushed apart most: the picture of", names[i], "and the caption of", names[j])

# %% [markdown]
# ## Break it: a caption that appears twice
#
# The pictures of TinyWorld have few different captions. So a batch of 128 pictures contains the same caption more
# than once. The loss then counts a right answer as wrong.
#
# **Predict.** A batch has four pairs, two of them with the same caption, and the towers are perfect. Can the loss
# reach 0?

# %%
four = np.eye(4)[[0, 1, 2, 2]].astype(np.float32)  # vectors of perfect towers; 2 and 3 are equal
log_scale = np.log(np.float32(100))
naive = library.contrastive_loss(four, four, log_scale, np.arange(4))
merged = library.contrastive_loss(four, four, log_scale, np.array([0, 1, 2, 2]))
print(f"all captions counted as different: {naive:.3f}   duplicates removed: {merged:.3f}   log 2 = {np.log(2):.3f}")

# %% [markdown]
# For two of the four rows the probability of the right answer cannot be above one half, in either direction. So
# the loss is at least `2 * (2 * log 2) / 4`. The gradient is a bigger problem than the value of the loss: it
# pushes apart a picture and a caption that fit together. So the library removes every other pair with the same
# caption from the wrong answers.

# %% [markdown]
# ### Exercise 03.3 · Which answers are not wrong
# *difficulty: easy · minutes: 5*
#
# Each caption has a number, and equal captions have equal numbers. From these numbers make a table `(B, B)`. It is
# True where a pair must be removed from the wrong answers: the caption is equal, but it is not the pair's own
# caption.


# %% exercise 03.3
def duplicates(caption_ids):
    """caption_ids (B,) -> bool (B, B)."""
    # solution
    equal = caption_ids[:, None] == caption_ids[None, :]
    return equal & ~np.eye(len(caption_ids), dtype=bool)
    # end of solution


# %% check 03.3
from tinyflamingo.checks import check_03_3_duplicates

check_03_3_duplicates(duplicates)

# %% [markdown]
# ## Break it: no temperature
#
# **Predict.** Cosines are between -1 and 1. Suppose every picture has cosine 1 with its caption and cosine -1 with
# all others. (No real towers can reach this.) There is no factor. How small can the loss get for 128 pairs?

# %%
B = 128
for factor in (1, 10, scale, 100):
    best = 2 * np.log(1 + (B - 1) * np.exp(-2.0 * factor))
    print(f"factor {factor:6.1f}: loss at best {best:.1e}, guessing {2 * np.log(B):.4f}")

# %% [markdown]
# So the factor is learned. The learned parameter is the logarithm of the factor, and the factor is limited to 100.
# Training makes it large.
#
# ## Training, for a few seconds
#
# The next cell trains small towers on sixteen things: four shapes in four colours. Every batch has one picture of
# each, and there are eighty steps. The training loop itself has only a few lines.

# %%
shapes, colours = ("circle", "square", "triangle", "star"), ("red", "green", "blue", "yellow")
sixteen = [(shape, colour) for shape in shapes for colour in colours]
small = dataclasses.replace(
    model.config,
    vision=VisionConfig(stem=((12, 2),), stages=((24, 1, 2), (32, 1, 2)), width=32),
    text_tower=TextTowerConfig(vocab_size=len(tokenizer), width=32, layers=1, heads=2, joint_width=16),
    resampler=ResamplerConfig(input_width=32, width=32),  # not used here
)
album = np.stack([draw(sixteen) for _ in range(12)])  # (copies, 16, Y, X, 3)
tokens, mask = pad_captions([tokenizer.encode(f"{say.thing_phrase(*thing)}.") for thing in sixteen])
params = library.init_contrastive(rng, small, init_vision_encoder(rng, small.vision))
optimiser = AdamW(params, OptimiserConfig(learning_rate=5e-3, warmup=5))
print("parameters:", count(params), " album (copies, B, Y, X, 3) =", album.shape)


def loss_of(params, pictures):
    """The contrastive loss of one picture of each of the sixteen things."""
    seen = library.embed_pictures(params, pictures, small)
    read = library.embed_captions(params, tokens, mask, small)
    return library.contrastive_loss(seen, read, params["log_scale"], np.arange(16))


step, losses, steps = ops.value_and_grad(loss_of), [], 80
for n in range(steps):
    drawn = album[rng.integers(len(album), size=16), np.arange(16)]
    loss, gradient = step(optimiser.params, drawn)
    optimiser.step(flatten(gradient), n, steps)
    losses.append(loss)
print(f"loss: first {losses[0]:.2f}, last five {np.mean(losses[-5:]):.2f}, guessing among 16 {2 * np.log(16):.2f}")

# %% [markdown]
# **Predict.** The loss has fallen and seems to stop. Guessing among sixteen answers would cost `2 log 16`. What do
# you think the towers have learned by now, and what have they not learned?

# %%
seen = library.embed_pictures(optimiser.params, draw(sixteen), small)
read = library.embed_captions(optimiser.params, tokens, mask, small)
by_colour = np.argsort([colours.index(colour) for _, colour in sixteen], kind="stable")
figure, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].plot(losses, color=BLUE)
for number in (16, 4):
    axes[0].axhline(2 * np.log(number), color="black", linestyle="--", linewidth=0.7)
    axes[0].annotate(f"2 log {number}", (steps, 2 * np.log(number)), ha="right", va="bottom")
axes[0].set(xlabel="step", ylabel="loss")
axes[1].imshow((seen @ read.T)[by_colour][:, by_colour], cmap="cividis", vmin=-1, vmax=1)
axes[1].set(
    title="cosines", xlabel="caption", ylabel="picture", xticks=np.arange(4) * 4 + 1.5, yticks=np.arange(4) * 4 + 1.5
)
axes[1].set_xticklabels(colours)
axes[1].set_yticklabels(colours, rotation=90, va="center")
plt.show()
answers = [sixteen[i] for i in (seen @ read.T).argmax(axis=1)]
for place, what in ((1, "colour"), (0, "shape")):
    right = np.mean([answer[place] == thing[place] for answer, thing in zip(answers, sixteen, strict=True)])
    print(f"{what} right: {right:.2f} (guessing {1 / 4:.2f})")

# %% [markdown]
# *Figure: on the left the loss against steps. It falls quickly and then stays near a dashed line at 2 log 4. On
# the right the cosines of sixteen fresh pictures and sixteen captions, sorted by colour: four bright squares along
# the diagonal.*
#
# The towers learn colour first, and shape takes far longer. Colour is easy, because a mean over the pixels already
# shows it. A loss that stays at `2 log 4` means that four answers remain possible. The toy is trained for 750 steps
# with 128 pairs. There the pictures of a batch come in *families*: one scene, and
# three scenes in which one of its properties is drawn again. So no single property is enough to find the right caption.
#
# ## Look inside: classification without training for it
#
# The towers of the toy were trained on captions. Nobody trained a classifier. But you can classify with them: take
# one caption for each class, and ask which caption is nearest to the picture. The paper averages several captions
# for each class ("prompt ensembling").

# %% [markdown]
# ### Exercise 03.4 · A classifier made of words
# *difficulty: medium · minutes: 10*
#
# Each of the `C` classes has `P` captions. Average the unit vectors of a class, scale the average to length 1, and
# return the nearest class for every picture.


# %% exercise 03.4
def zero_shot(pictures, captions):
    """pictures (B, J), captions (C, P, J), all unit vectors -> the number of the nearest class, (B,)."""
    # solution
    classes = captions.mean(axis=1)
    classes = classes / np.linalg.norm(classes, axis=-1, keepdims=True)
    return (pictures @ classes.T).argmax(axis=1)
    # end of solution


# %% check 03.4
from tinyflamingo.checks import check_03_4_zero_shot

check_03_4_zero_shot(zero_shot)

# %% [markdown]
# The next figure shows six pictures. For each picture it shows the three nearest names, out of the names of all
# things in TinyWorld. Twelve of these things were in no training picture.
#
# *Figure: six pictures, and beside each of them three bars, the cosines of the nearest names. A light blue bar is
# the right name, an orange one a wrong one. The right name has the longest bar in nearly all. The names of the
# other bars share its colour or its shape.*

# %%
guests = [THINGS[i] for i in rng.choice(len(THINGS), size=6, replace=False)]
shown = draw(guests)
seen, names_read = embed(model, THINGS, shown)
figure, axes = plt.subplots(2, 6, figsize=(10, 2.9), width_ratios=(1, 1.3) * 3)
for image, guest, row, left, right in zip(
    shown, guests, seen @ names_read.T, axes[:, ::2].flat, axes[:, 1::2].flat, strict=True
):
    left.imshow(image)
    left.set_axis_off()
    best = np.argsort(-row)[:3]
    right.barh(range(3), row[best], color=["#8fc1e3" if THINGS[i] == guest else "#f2b48a" for i in best])
    right.set(xlim=(0, 1), ylim=(2.6, -0.6), xticks=(), yticks=())
    for place, i in enumerate(best):
        right.text(0.03, place, " ".join(reversed(THINGS[i])), va="center", color="black")
    right.set_facecolor("#f0f0f0")
plt.show()

# %% [markdown]
# There are two kinds of things: those that were shown in training, and those that were never shown. The next cell
# draws three hundred fresh pictures of each kind and counts the right answers:

# %%
for title, some in (("shown in training", KNOWN), ("never shown in training", sorted(HELD_OUT))):
    asked = [some[i] for i in rng.integers(len(some), size=300)]
    answers = (embed(model, THINGS, draw(asked))[0] @ names_read.T).argmax(axis=1)
    right = np.mean([THINGS[i] == thing for i, thing in zip(answers, asked, strict=True)])
    print(f"{title:24s} right: {right:.3f}   guessing: {1 / len(THINGS):.3f}   names: {len(THINGS)}")

# %% [markdown]
# ## The encoder is frozen
#
# (The chapter says that the training pairs were those of CLIP. The paper names others: the 1.8 billion pairs of
# ALIGN and the 312 million of LTIP. Before each step it adds one gradient from each data set, appendix B.1.3.)
#
# After this stage the text tower is no longer needed, and the vision encoder is never changed again. The code
# needs no flag for this. Frozen arrays are simply not an argument of the gradient. The next cell lists what the
# gradient of Flamingo's own loss contains.

# %%
# The 0 marks the place of a medium. Its features are passed separately.
page = make_batch([encode_document([0, "a red circle."], tokenizer)])
features = np.zeros((1, 1, 16, model.config.vision.width), np.float32)


def flamingo_loss(params):
    """The loss of one caption after one picture."""
    visual = resample(params, [features], model.config)
    logits = flamingo(params, model.frozen, page.tokens[:, :-1], page.phi[:, :-1], visual, model.config)
    return (token_losses(logits, page.tokens[:, 1:]) * page.weights[:, 1:]).sum()


_, gradient = ops.value_and_grad(flamingo_loss)(model.params)
print("in the gradient:    ", ", ".join(gradient))
print("not an argument:    ", ", ".join(model.frozen))
print("picture comes in as features (M, F, S, Dv) =", features.shape, "- computed once")

# %% [markdown]
# Freezing has an advantage and a disadvantage. The advantage: the features of a picture never change, so they are
# computed once for the whole training. Also, the training of Flamingo cannot make the encoder worse. The
# disadvantage: Flamingo cannot see what the encoder did not learn to see in contrastive training.
#
# ## In the library

# %%
show(library.embed_pictures, library.unit, library.contrastive_loss)

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("03")

# %%
check_quiz("03", ".....")

# %% [markdown]
# ## Summary
#
# There are two towers, unit vectors, and one softmax over the batch in each direction. The other pairs of the
# batch are the wrong answers. The gradient pulls each pair together and pushes different pairs apart, so a second
# copy of a caption must not count as a wrong answer. A learned temperature makes the probabilities sharp enough.
# After training, a list of captions works as a classifier, and the encoder is frozen.
#
# **Try it.** Train the small towers for 600 steps and see when they learn the shapes. Leave one direction of the
# loss out. Ask the trained towers about things that no training picture showed (`HELD_OUT` in
# `data/tinyworld/scenes.py`).
#
# **Further reading.** [CLIP](https://arxiv.org/abs/2103.00020); [ALIGN](https://arxiv.org/abs/2102.05918);
# [Flamingo](https://arxiv.org/abs/2204.14198), appendix B.1.3. Where this code differs: `docs/deviations.md`,
# "Contrastive pretraining".
