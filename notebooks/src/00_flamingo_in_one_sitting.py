# %% [markdown]
# # Flamingo in one sitting
#
# *chapter: all of it · minutes: 60 to read and do, one to run · key: whole*
#
# Flamingo reads text with pictures and videos in between, and writes what comes next. Here you follow one
# picture and one prompt through a trained Flamingo, in the order of the chapter: the grid of features (§2),
# the visual tokens (§3), who may look at what, and the gates (§4), and what comes out at the end (§5).
#
# **You will build** two small things: a prompt with examples in it, and the shapes of everything that flows.
#
# **You will not** train anything. Twelve notebooks after this one take the parts apart and build them, one
# idea each.
#
# Code that only imports or draws is folded: click on the three dots to see it. You can change every cell. To get this
# notebook back as it was, delete it and unpack it again (or, with git: `git checkout notebooks`). If you have changed
# the library, do the same with the folder `tinyflamingo`, then restart the kernel.
#
# You need Python, arrays, and an idea of what attention does. The letters are those of the code: `B` rows in
# a batch, `T` text tokens, `M` media in a batch, `N` media in a sequence, `F` frames, `S` features a frame,
# `R` latents, `D` and `Dv` widths, `H` heads, `K` head size, `V` vocabulary.

# %%
import sys

sys.path.insert(0, "..")  # the package lies beside this folder

import copy
import inspect
import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import tinyflamingo
from tinyflamingo import demo, one_file, ops
from tinyflamingo.classroom import ask, picture, show
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import draw_clip, draw_scene, sample_clip, sample_single
from tinyflamingo.decoding.beams import score_continuations
from tinyflamingo.model.flamingo import encode_media, flamingo, gates, resample
from tinyflamingo.model.interleave import cross_attention_mask, encode_document, make_batch, phi, phi_next
from tinyflamingo.model.language_model import language_model
from tinyflamingo.training.presets import parameter_counts

plt.rcParams.update({"figure.dpi": 60, "font.size": 9, "figure.constrained_layout.use": True})
model = tinyflamingo.load()
config, params, frozen = model.config, model.params, model.frozen

# %% [markdown]
# ## All of it in one file
#
# `tinyflamingo/one_file.py` is the whole forward pass in 250 lines of plain NumPy: no cache, no training, and
# nothing of the package. Read it once from top to bottom, beside the chapter. Here it answers, and these are
# its functions, in the order of the chapter.

# %%
answers = one_file.load()
circle = draw_scene(np.random.default_rng(0), sample_single(np.random.default_rng(0), (("circle", "red"),)))
print(one_file.complete(answers, [circle, "Output:"]), "\n")
for line in inspect.getsource(one_file).splitlines():
    if line.startswith("# ----"):
        print(line.strip("# -"))
    elif line.startswith("def "):
        print("   ", line.removeprefix("def ").split(")")[0] + ")")

# %% [markdown]
# The package has the same functions once more, one file for each section: with batches, with a cache, with
# gradients, and fast. Both give the same words. This is the package at work.
#
# ## What it does
#
# *Figure: five prompts. Two pictures that stand where a text would name its subject; a picture of two things
# and its caption; a video and a question; a dialogue about a picture; two invented words, learned from four
# pictures. What the model wrote is in colour; where it was wrong, the right answer stands behind it.*

# %%
rng = np.random.default_rng(2022)
pages = (demo.picture_for_words, demo.caption, demo.video_question, demo.visual_dialogue, demo.few_shot)
demo.panels_figure([make(model, rng) for make in pages])
plt.show()

# %% [markdown]
# All five are one and the same thing: a list of pictures, videos and words, and the model goes on writing.
# The pictures were drawn just now.
#
# ## §1 The whole: two frozen parts, and what joins them
#
# Flamingo takes a vision encoder and a language model that know nothing of each other, freezes both, and
# trains what lies between: a resampler, and gated blocks inside the language model. In the code "frozen" has
# one meaning: these arrays are in the tree `frozen`, not in the tree `params`, and only `params` is ever an
# argument of the gradient.

# %%
for part, row in parameter_counts(config).items():
    print(f"{part:16s}{row['parameters']:>12,}  {row['state']}")

# %% [markdown]
# And this is how they stand. Every shape in the figure is that of an array which was computed for it.
#
# *Figure: two towers. Left, from the bottom up: a picture, the frozen vision encoder, its features, the
# trained resampler, visual tokens. Right, from the bottom up: tokens, embeddings, then gated blocks (trained,
# orange) and decoder blocks (frozen, blue) in turn, and logits on top. Arrows lead from the visual tokens
# into every gated block.*


# %%
def draw_architecture(picture, prompt):
    """The whole, with the shapes of one prompt; `prompt` follows the picture."""
    batch = make_batch([encode_document([picture, prompt], model.tokenizer, complete=False)])
    features = encode_media(frozen, picture[None, None], config)
    visual = resample(params, [features], config)
    logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config)
    h = (*batch.tokens.shape, config.language.width)
    left = [
        (f"picture\n(Y, X, 3) = {picture.shape}", "white"),
        ("vision encoder", "#A6D3F0"),
        (f"features\n(M, F, S, Dv) = {features.shape}", "white"),
        ("Perceiver resampler", "#F5C38B"),
        (f"visual tokens\n(M, R, D) = {visual.shape}", "white"),
    ]
    right = [(f"tokens (B, T) = {batch.tokens.shape}", "white"), (f"embeddings (B, T, D) = {h}", "#A6D3F0")]
    for i in range(config.language.layers):
        right += [(f"gated block {i}", "#F5C38B")] * (i in config.gated_layers) + [(f"decoder block {i}", "#A6D3F0")]
    right.append((f"logits (B, T, V + 1) = {logits.shape}", "white"))

    figure, axis = plt.subplots(figsize=(7.5, 0.42 * len(right) + 0.4))
    for x, tower, lift in ((0.0, left, (len(right) - 1) / (len(left) - 1)), (1.0, right, 1.0)):
        for place, (words, colour) in enumerate(tower):
            y = place * lift
            style = {"boxstyle": "round,pad=0.35", "fc": colour, "ec": "0.4"}
            axis.text(x, y, words, ha="center", va="center", bbox=style, zorder=3, size=8)
            if place:
                axis.annotate("", (x, y - 0.3), (x, y - lift + 0.3), arrowprops={"arrowstyle": "->", "color": "0.4"})
            if words.startswith("gated"):
                bend = {"arrowstyle": "->", "color": "#D55E00", "alpha": 0.6}
                axis.annotate("", (0.83, y), (0.2, len(right) - 1), arrowprops=bend)
    axis.set(xlim=(-0.4, 1.5), ylim=(-0.6, len(right) - 0.4))
    axis.set_axis_off()
    plt.show()


draw_architecture(draw_scene(rng, sample_single(rng)), "Output: a red")

# %% [markdown]
# ## §2 The vision encoder: from pixels to a grid of features
#
# Two pictures of TinyWorld, drawn now, that the model has never seen.


# %%
circle, star = picture(rng, "circle", "red"), picture(rng, "star", "blue", "top right", "medium")
features = encode_media(frozen, np.stack([circle, star])[:, None], config)
M, F, S, Dv = features.shape
side = int(S**0.5)
print("two pictures      (M, F, Y, X, 3) =", (M, F, *circle.shape))
print("features          (M, F, S, Dv)   =", features.shape)
print(f"the grid is {side} x {side} = S cells, each a vector of Dv numbers")

# %% [markdown]
# *Figure: two rows, the red circle and the blue star; beside each picture three channels of its features as
# small grids, bright at the thing or right beside it.*

# %%
figure, axes = plt.subplots(2, 4, figsize=(7, 3.6))
for row, image, grid in zip(axes, (circle, star), features[:, 0].reshape(M, side, side, Dv), strict=True):
    row[0].imshow(image)
    row[0].set_title("picture")
    for axis, channel in zip(row[1:], np.argsort(-features.std(axis=(0, 1, 2)))[:3], strict=True):
        axis.imshow(grid[:, :, channel], cmap="viridis")
        axis.set_title(f"channel {channel}")
for axis in axes.flat:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# The cells keep the layout of the picture: where the star is, or in a cell right beside it, there the channels
# light up. (A cell sees more than its own 8 x 8 pixels.) No position is added; the convolutions' borders tell
# the network where it is.
#
# A bigger picture gives more cells, and a video gives a grid for every frame. That is why something must come
# next that makes any number of features into a fixed number of tokens.

# %%
big = circle.repeat(2, 0).repeat(2, 1)
clip = draw_clip(rng, sample_clip(rng, (("heart", "green"),), action="moves left"))
for name, medium in (("picture", circle[None]), ("picture, doubled", big[None]), ("video", clip)):
    print(
        f"{name:17s} (F, Y, X, 3) = {str(medium.shape):16s} features (M, F, S, Dv) =",
        encode_media(frozen, medium[None], config).shape,
    )

# %% [markdown]
# ## §3 The Perceiver resampler: R tokens, whatever came in
#
# The queries are `R` learned latents. Keys and values are the features *and* the latents, joined. So the cost
# grows linearly with the features, and what comes out is always `(M, R, D)`.

# %%
for name, medium in (("picture", circle[None]), ("picture, doubled", big[None]), ("video", clip)):
    grid = encode_media(frozen, medium[None], config)
    print(
        f"{name:17s} {grid.shape[1] * grid.shape[2]:4d} features -> visual tokens (M, R, D) =",
        resample(params, [grid], config).shape,
    )

# %% [markdown]
# Where do the latents look? The first layer by hand, in six lines, averaged over heads. The features are the
# first `S` columns, the latents themselves the last `R`.

# %%
layer, heads = params["resampler"]["layer_0"], (config.resampler.heads, config.resampler.key_size)
latents = ops.layer_norm(params["resampler"]["latents"], layer["attn_gain"], layer["attn_bias"])
keys = np.concatenate([features[1, 0] + params["resampler"]["temporal"][0], latents])  # (S + R, D)
q, k = (np.reshape(x @ layer[w], (-1, *heads)) for x, w in ((latents, "w_q"), (keys, "w_k")))
scores = np.einsum("rhk,shk->hrs", q, k) / np.sqrt(heads[1])
looks = np.exp(scores - scores.max(-1, keepdims=True))
looks = (looks / looks.sum(-1, keepdims=True)).mean(0)
print("who looks where: (R, S + R) =", looks.shape, "- rows sum to", np.round(looks.sum(1)[:3], 3), "...")

# %% [markdown]
# *Figure: the picture of the star, and one grid a latent, bright where that latent looks in its first layer.*

# %%
R = len(latents)
figure, axes = plt.subplots(1, R + 1, figsize=(9, 1.4))
axes[0].imshow(star)
axes[0].set_title("picture")
for r, axis in enumerate(axes[1:]):
    axis.imshow(looks[r, :S].reshape(side, side), cmap="magma", vmin=0, vmax=looks[:, :S].max())
    axis.set_title(f"latent {r}")
for axis in axes:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# **Predict.** The cells of a frame are shuffled, all with the same permutation. Do the visual tokens change?
# And when the frames of a video are put in another order? Decide before you run the next cell.

# %%
video = encode_media(frozen, clip[None], config)
tokens = resample(params, [video], config)
shuffled = resample(params, [video[:, :, rng.permutation(S)]], config)
backwards = resample(params, [video[:, ::-1]], config)
print("largest change after shuffling cells:   ", f"{np.abs(shuffled - tokens).max():.1e}")
print("largest change after reversing frames:  ", f"{np.abs(backwards - tokens).max():.1e}")

# %% [markdown]
# Attention does not know in which order its keys stand, so shuffling cells changes nothing but the last
# digits of the sums. Frames carry a learned temporal embedding, so their order counts: without it "moves
# left" and "moves right" would be the same video.

# %% [markdown]
# ### Exercise 00.1 · How many of each
# *difficulty: easy · minutes: 8*
#
# A video has `frames` frames of `side` x `side` pixels. The encoder of the toy makes one cell of every 8 x 8
# pixels; where 8 does not divide the side, the last cell sees what is left. Return three numbers: how many
# features come out of the encoder, how many keys a latent of the resampler looks at, and how many visual
# tokens come out, for `latents` latents.


# %% exercise 00.1
def how_many(frames, side, latents):
    # solution
    cells = -(-side // 8)  # rounded up
    features = frames * cells * cells
    return features, features + latents, latents
    # end of solution


# %% check 00.1
from tinyflamingo.checks import check_00_1_how_many

check_00_1_how_many(how_many)

# %% [markdown]
# ## §4 Tags, chunks and phi: which text sees which picture
#
# A prompt is a list. Change this one as you like and run the cells again.

# %%
prompt = ["a green heart.", circle, "Output: a red circle.", star, "Output:"]

# %%
sequence = encode_document(prompt, model.tokenizer, complete=False)
N = len(sequence.media)
seen, ahead = phi(sequence.tokens), phi_next(sequence.tokens)
pieces = [model.tokenizer.piece(t) for t in sequence.tokens]
print("T =", len(pieces), " N =", N)
print(f"{'token':>12s}  phi  phi in next mode")
for piece, here, coming in zip(pieces, seen, ahead, strict=True):
    print(f"{piece:>12s}  {here:3d}  {coming:3d}")

# %% [markdown]
# `phi` is the number of `<image>` tags so far: one cumulative sum. `<EOC>` closes a chunk and still belongs
# to the picture before it. In "next" mode, which training uses for some pages, text looks ahead instead,
# because on the web a caption may stand before its picture.
#
# The mask that follows from it, cell by cell: a row is a token, a column is one of the `R` tokens of one of
# the `N` pictures, dark means "may look".
#
# *Figure: a table of tokens against visual tokens. No token before the first picture may look anywhere; those
# of a chunk may look at the columns of its own picture and at no others.*

# %%
mask = cross_attention_mask(seen, N, R)  # (T, N * R)
figure, axis = plt.subplots(figsize=(0.22 * N * R + 1.5, 0.2 * len(pieces) + 0.6))
axis.pcolormesh(mask, cmap="Purples", edgecolors="lightgrey", linewidth=0.5, vmin=0, vmax=1.3)
axis.set(yticks=np.arange(len(pieces)) + 0.5, yticklabels=pieces, xticks=(np.arange(N) + 0.5) * R)
axis.set_xticklabels([f"picture {n + 1}" for n in range(N)])
axis.invert_yaxis()
axis.xaxis.tick_top()
plt.show()

# %% [markdown]
# **Predict.** The last word sees the second picture only. Can the answer after it depend on the first one at
# all?
#
# It can: the words of the first chunk saw the first picture, and the language model's own self-attention
# reads those words. Earlier pictures arrive through text. A row before the first picture, `phi` 0, gets
# exactly nothing:

# %%
batch = make_batch([sequence])
visual = resample(params, [encode_media(frozen, np.stack(sequence.media)[:, None], config)], config)
logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config)
changed = flamingo(params, frozen, batch.tokens, batch.phi, np.stack([visual[0], 0 * visual[1]]), config)
print("logits (B, T, V + 1) =", logits.shape)
first = int(np.argmax(seen == 2)) if N > 1 else len(pieces)
print(
    "second picture blanked: rows before its tag equal bit for bit:",
    np.array_equal(logits[:, :first], changed[:, :first]),
)
print(
    "second picture blanked: rows from its tag on changed by at most",
    f"{np.abs(logits - changed)[:, first:].max():.2f}",
)

# %% [markdown]
# ## §4 The gates: nothing at first
#
# Each gated block adds `tanh(alpha)` times its cross-attention and `tanh(alpha')` times its feed-forward
# layer. Both alphas start at 0.
#
# **Predict.** Set all gates to 0 and give the model a picture. How far are its logits from those of the
# language model alone: small, tiny, or nothing?

# %%
closed = copy.deepcopy(params)
for name in closed:
    if name.startswith("xattn_"):
        closed[name]["alpha_xattn"] = closed[name]["alpha_dense"] = np.zeros((), np.float32)

asked = make_batch([encode_document([circle, "Output: a"], model.tokenizer, complete=False)])
one = resample(params, [encode_media(frozen, circle[None, None], config)], config)
whole = flamingo(closed, frozen, asked.tokens, asked.phi, one, config)[:, :, : len(model.tokenizer)]
alone = language_model(frozen["language"], asked.tokens, config.language)
print("equal bit for bit:", np.array_equal(whole, alone))

# %% [markdown]
# Nothing: zero times anything, added, changes no bit. Training starts from here, from a language model that
# is exactly as good as it was. This is how far the gates of the trained model have opened:
#
# *Figure: two bars a gated block, the absolute tanh of its cross-attention gate and of its feed-forward gate,
# all above 0.*

# %%
opened = gates(params)
blocks = sorted({name.split("/")[0] for name in opened})
figure, axis = plt.subplots(figsize=(5, 2))
for shift, gate, label in ((-0.2, "alpha_xattn", "cross-attention"), (0.2, "alpha_dense", "feed-forward")):
    axis.bar(np.arange(len(blocks)) + shift, [opened[f"{b}/{gate}"] for b in blocks], 0.4, label=label)
axis.set(xticks=range(len(blocks)), xticklabels=blocks, ylabel="|tanh(alpha)|", ylim=(0, 1))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# And this is what they do. All gates are scaled from closed to as trained, and the model is asked how likely
# two captions of the red circle are.
#
# *Figure: log-probability of a right and of a wrong caption while the gates open from closed to as trained: the
# right one rises far above the wrong one.*


# %%
def scaled(share):
    """The parameters with every gate's tanh scaled."""
    new = copy.deepcopy(params)
    for name in new:
        if name.startswith("xattn_"):
            for gate in ("alpha_xattn", "alpha_dense"):
                new[name][gate] = np.arctanh(share * np.tanh(new[name][gate])).astype(np.float32)
    return new


captions = ("a red circle.", "a blue star.")
rows = [encode_document([circle, "Output:", c], model.tokenizer) for c in captions]
for row in rows:  # count the caption's tokens, not the prompt's
    prompt_length = len(encode_document([circle, "Output:"], model.tokenizer, complete=False).tokens)
    row.weights = [0.0] * prompt_length + [1.0] * (len(row.tokens) - prompt_length)
pair = make_batch(rows)
twice = np.concatenate([one, one])
shares = np.linspace(0, 1, 9)
likely = np.array([score_continuations(replace(model, params=scaled(s)), pair, twice) for s in shares])

figure, axis = plt.subplots(figsize=(5, 2.2))
for column, c in zip(likely.T, captions, strict=True):
    axis.plot(shares, column, marker="o", label=c)
axis.set(xlabel="gates, as a share of the trained ones", ylabel="log-probability")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## §5 What comes out
#
# **Predict.** The prompt stays the same to the letter and only the picture is exchanged. What will be
# different?

# %%
for question in ("Output:", say.ask("color"), say.ask("shape"), say.ask("position")):
    answers = [ask(model, image, question) for image in (circle, star)]
    print(f"{question:42s} red circle: {answers[0]:22s} blue star, top right: {answers[1]}")

# %%
print("video:", say.ask("action"), ask(model, clip, say.ask("action")))

# %% [markdown]
# ### A word learned from four pictures
#
# No training text holds these two words. No weight changes either: what is learned, is learned in the prompt.
#
# *Figure: four pictures with one of two invented words over each, and a fifth with the word that the model
# gives it in brackets.*

# %%
first_word, second_word = (f"{w}." for w in say.NEW_WORDS[:2])
red = [picture(rng, s, "red", p) for s, p in (("circle", "left"), ("star", "top"), ("cross", "middle"))]
blue = [picture(rng, s, "blue", p) for s, p in (("star", "right"), ("ring", "bottom"))]
shots = [red[0], first_word, blue[0], second_word, red[1], first_word, blue[1], second_word, red[2]]
said = ask(model, *shots)

figure, axes = plt.subplots(1, 5, figsize=(8, 1.9))
for axis, image, word in zip(axes, shots[::2], [*shots[1::2], f"[{said}]"], strict=True):
    axis.imshow(image)
    axis.set_title(word)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# **Predict.** The two words change places in the examples. The pictures stay. What does the model say now?

# %%
swap = {first_word: second_word, second_word: first_word}
print("before:", said)
swapped = [item if isinstance(item, np.ndarray) else swap[item] for item in shots]
print("after: ", ask(model, *swapped))

# %% [markdown]
# ### Exercise 00.2 · Write the prompt
# *difficulty: easy · minutes: 5*
#
# Write such a prompt for any task: `pictures` and their `words`, equally many, and `query`, the picture that
# is asked about. Return the list that `tinyflamingo.complete` takes. Remember what `phi` lets a word see.


# %% exercise 00.2
def few_shot_prompt(pictures, words, query):
    # solution
    prompt = []
    for image, word in zip(pictures, words, strict=True):
        prompt += [image, word]
    return [*prompt, query]
    # end of solution


# %% check 00.2
from tinyflamingo.checks import check_00_2_few_shot_prompt

check_00_2_few_shot_prompt(few_shot_prompt)

# %% [markdown]
# ## The lines of the library
#
# The whole model is one function. It reads like this notebook: embed, then for every decoder block perhaps a
# gated block before it, then the logits. `parts` holds the functions of the parts: by default `embed_with_eoc`,
# `gated_xattn_dense`, `decoder_block` and `final_norm`. `cache` is for the completion of a prompt: a dict that
# keeps what was computed for the tokens before.

# %%
show(flamingo)

# %% [markdown]
# ## The map of the rest
#
# Each notebook takes one part, builds it in loops and then as the library has it, breaks it, and asks you to
# write some of it.


# %%
def map_of_notebooks():
    """Number, title, minutes and key of every notebook, read from its first cell."""
    rows = ["| | notebook | minutes | `pytest -m` |", "|---|---|---|---|"]
    for path in sorted((Path(tinyflamingo.__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb")):
        head = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, key = re.search(r"^# (.*)", head)[1], re.search(r"key: `?(\w+)", head)[1]
        minutes = re.search(r"minutes: (\d+)", head) or re.search(r"(\d+) minutes", head)
        rows.append(f"| {path.name[:2]} | [{title}]({path.stem}.ipynb) | {minutes[1] if minutes else ''} | `{key}` |")
    return Markdown("\n".join(rows))


map_of_notebooks()

# %% [markdown]
# ## In three sentences
#
# A frozen encoder turns pictures into features, and a resampler turns any number of features into `R` tokens.
# Gated blocks inside a frozen language model let each word look at the tokens of one picture, its own,
# starting from gates that are exactly closed. What the language model could do with words before, continue,
# answer, pick up a new word from examples, it can then do with pictures.
#
# **Try it.** Put three pictures in `prompt` and look at the mask. Ask about a picture of your own
# (`tinyflamingo.data.images.load_picture`). Find the number of shots at which the new words become reliable
# (notebook 11 draws the curve).
#
# **Read on.** [The paper](https://arxiv.org/abs/2204.14198), figures 1, 3 and 4. `docs/architecture.md` shows
# where everything is, `docs/deviations.md` tells where this toy is not the paper.
