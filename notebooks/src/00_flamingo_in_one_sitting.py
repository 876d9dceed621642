# %% [markdown]
# # Flamingo in one sitting
#
# *chapter: all of it · minutes: 70 to read and do, one to run · key: whole*
#
# Flamingo reads a text that contains pictures and videos, and continues the text. In this notebook you follow one
# picture and one prompt through a trained Flamingo. The order is that of the chapter: the grid of features (§2),
# the visual tokens (§3), the mask and the gates (§4), and the output (§5). The mask says which text sees which
# picture.
#
# **You will build** two small things: a prompt that contains examples, and a function that computes the sizes of
# the data at each step.
#
# **You will not** train anything. The twelve notebooks after this one explain the parts. Each of them treats one
# idea.
#
# Code that only imports or draws is folded. Click on the three dots to see it. You can change every cell. To get
# the original notebook back, delete it and unpack it again (or, with git: `git checkout notebooks`). If you have
# changed the library, do the same with the folder `tinyflamingo`. Then restart the kernel.
#
# You need Python, arrays, and a basic idea of attention. The letters are those of the code: `B` rows in a batch,
# `T` text tokens, `M` media in a batch, `N` media in a sequence, `F` frames, `S` features of one frame, `R`
# latents, `D` and `Dv` widths, `H` heads, `K` head size, `V` vocabulary. A medium (plural: media) is one picture
# or one video.

# %%
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
from tinyflamingo.classroom import ask, diagrams, picture, show
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
# ## The whole model in one file
#
# `tinyflamingo/one_file.py` contains the whole forward pass in 250 lines; the mathematics is plain NumPy. It has no
# cache and no training, and it imports nothing from the package. Read it once from top to bottom, together with the
# chapter. The next cell lets it answer one prompt and then lists its functions, in the order of the chapter.

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
# The package implements the same functions again; each section of the chapter has its own files. Its version
# supports batches, a cache and gradients, and it is fast. Both versions give the same words. From here on we use
# the package.
#
# ## What it does
#
# *Figure: five prompts. Two pictures used in place of words; a picture of two things and its caption; a video and
# a question; a dialogue about a picture; two invented words, learned from four pictures. The text that the model
# wrote is in colour. Where the model was wrong, the right answer follows its answer.*

# %%
rng = np.random.default_rng(2022)
pages = (demo.picture_for_words, demo.caption, demo.video_question, demo.visual_dialogue, demo.few_shot)
demo.panels_figure([make(model, rng) for make in pages])
plt.show()

# %% [markdown]
# All five tasks have the same form. The input is a list of pictures, videos and words, and the model continues it.
# The pictures were drawn when you ran the cell, so the model has never seen them.
#
# As a formula (equation 1 of the paper), the model gives the probability of the text `y`, when the pictures and
# videos `x` in it are given:
#
# $$p(y \mid x) = \prod_{l} p(y_l \mid y_{<l},\, x_{\le l})$$
#
# Here $y_l$ is text token number $l$, and $y_{<l}$ are the text tokens before it. $x_{\le l}$ are the pictures and
# videos that stand before this token. So Flamingo is a language model with one more condition: each token is
# predicted from the earlier text and from the earlier pictures.
#
# ### The other direction: DALL·E 2
#
# The chapter before this one is about DALL·E 2, and this chapter compares the two models. DALL·E 2 goes from text
# to a picture: its input is a text, and its output is a picture. Flamingo goes in the other direction: its output
# is always text. The chapter also names a difference in the input: Flamingo accepts text, pictures and videos,
# mixed in any order. Notebook 12 compares the parts of the two models one by one.
#
# ## §1 The whole: two frozen parts, and the parts that connect them
#
# Flamingo starts from a vision encoder and a language model. The two were trained separately. Flamingo freezes both
# and trains only new parts: a resampler, and gated blocks inside the language model. In the code, "frozen" has one
# meaning. Frozen arrays are in the tree `frozen`, not in the tree `params`, and the gradient is taken with respect to
# `params` only. (A tree is a dict whose values are arrays or again such dicts.)

# %%
for part, row in parameter_counts(config).items():
    print(f"{part:16s}{row['parameters']:>12,}  {row['state']}")

# %% [markdown]
# The next figure shows how the parts are connected. Every shape in it comes from an array that was computed for
# the figure.
#
# *Figure: two towers. Left, from the bottom up: a picture, the frozen vision encoder, its features, the trained
# resampler, visual tokens. Right, from the bottom up: tokens, embeddings, then gated blocks (trained, orange) and
# decoder blocks (frozen, blue) in turn, and logits on top. Arrows lead from the visual tokens into every gated
# block.*


# %%
def draw_architecture(picture, prompt):
    """Draw the whole model with the shapes of one prompt: a picture, then the text `prompt`."""
    batch = make_batch([encode_document([picture, prompt], model.tokenizer, complete=False)])
    features = encode_media(frozen, picture[None, None], config)
    visual = resample(params, [features], config)
    logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config)
    h = (*batch.tokens.shape, config.language.width)
    left = [
        (f"picture\n(Y, X, 3) = {picture.shape}", diagrams.DATA),
        ("vision encoder", diagrams.FROZEN),
        (f"features (M, F, S, Dv)\n= {features.shape}", diagrams.DATA),
        ("Perceiver resampler", diagrams.TRAINED),
        (f"visual tokens\n(M, R, D) = {visual.shape}", diagrams.DATA),
    ]
    right = [(f"tokens (B, T) = {batch.tokens.shape}", diagrams.DATA)]
    right.append((f"embeddings (B, T, D) = {h}", diagrams.FROZEN))
    for i in range(config.language.layers):
        right += [(f"gated block {i}", diagrams.TRAINED)] * (i in config.gated_layers)
        right.append((f"decoder block {i}", diagrams.FROZEN))
    right.append((f"logits (B, T, V + 1) = {logits.shape}", diagrams.DATA))
    diagrams.show(diagrams.whole_model(left, right))


draw_architecture(draw_scene(rng, sample_single(rng)), "Output: a red")

# %% [markdown]
# ## §2 The vision encoder: from pixels to a grid of features
#
# The next cell draws two new pictures of TinyWorld. The model has never seen them.


# %%
circle, star = picture(rng, "circle", "red"), picture(rng, "star", "blue", "top right", "medium")
features = encode_media(frozen, np.stack([circle, star])[:, None], config)
M, F, S, Dv = features.shape
side = int(S**0.5)
print("two pictures      (M, F, Y, X, 3) =", (M, F, *circle.shape))
print("features          (M, F, S, Dv)   =", features.shape)
print(f"the grid is {side} x {side} = S cells, each a vector of Dv numbers")

# %% [markdown]
# *Figure: two rows, the red circle and the blue star. Beside each picture are three channels of its features as
# small grids. They are bright at the thing or right beside it.*

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
# The grid keeps the layout of the picture. The channels are bright in the cell where the star is, or in a cell
# right beside it. (A cell sees more than its own 8 x 8 pixels.) No position is added to the features. The
# convolutions pad the picture at its borders, and from this the network knows where a cell is.
#
# A bigger picture gives more cells, and a video gives one grid for every frame. So the number of features varies.
# The next part must turn any number of features into a fixed number of tokens.

# %%
big = circle.repeat(2, 0).repeat(2, 1)
clip = draw_clip(rng, sample_clip(rng, (("heart", "green"),), action="moves left"))
for name, medium in (("picture", circle[None]), ("picture, doubled", big[None]), ("video", clip)):
    print(
        f"{name:17s} (F, Y, X, 3) = {str(medium.shape):16s} features (M, F, S, Dv) =",
        encode_media(frozen, medium[None], config).shape,
    )

# %% [markdown]
# ## §3 The Perceiver resampler: R tokens for any input
#
# The queries are `R` learned latents. The keys and values are computed from the features *and* the latents,
# concatenated. So the cost grows linearly with the number of features, and the output always has the shape `(M, R,
# D)`.

# %%
for name, medium in (("picture", circle[None]), ("picture, doubled", big[None]), ("video", clip)):
    grid = encode_media(frozen, medium[None], config)
    print(
        f"{name:17s} {grid.shape[1] * grid.shape[2]:4d} features -> visual tokens (M, R, D) =",
        resample(params, [grid], config).shape,
    )

# %% [markdown]
# Where do the latents look? The next cell computes the attention of the first layer by hand, in six lines, and
# averages it over the heads. The first `S` columns are the features, the last `R` columns are the latents
# themselves.

# %%
layer, heads = params["resampler"]["layer_0"], (config.resampler.heads, config.resampler.key_size)
latents = ops.layer_norm(params["resampler"]["latents"], layer["attn_gain"], layer["attn_bias"])
keys = np.concatenate([features[1, 0] + params["resampler"]["temporal"][0], latents])  # (S + R, D)
q, k = (np.reshape(x @ layer[w], (-1, *heads)) for x, w in ((latents, "w_q"), (keys, "w_k")))
scores = np.einsum("rhk,shk->hrs", q, k) / np.sqrt(heads[1])
looks = np.exp(scores - scores.max(-1, keepdims=True))
looks = (looks / looks.sum(-1, keepdims=True)).mean(0)
print("attention weights (R, S + R) =", looks.shape, "- rows sum to", np.round(looks.sum(1)[:3], 3), "...")

# %% [markdown]
# *Figure: the picture of the star, and one grid for each latent. A grid is bright where that latent looks in its
# first layer.*

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
# **Predict.** We shuffle the cells of every frame, all frames with the same permutation. Do the visual tokens
# change? And if we put the frames of a video in another order? Decide before you run the next cell.

# %%
video = encode_media(frozen, clip[None], config)
tokens = resample(params, [video], config)
shuffled = resample(params, [video[:, :, rng.permutation(S)]], config)
backwards = resample(params, [video[:, ::-1]], config)
print("largest change after shuffling cells:   ", f"{np.abs(shuffled - tokens).max():.1e}")
print("largest change after reversing frames:  ", f"{np.abs(backwards - tokens).max():.1e}")

# %% [markdown]
# Attention does not know the order of its keys. So shuffling the cells changes only the last digits of the sums.
# Each frame carries a learned temporal embedding, so the order of the frames does matter. Without this embedding,
# "moves left" and "moves right" would be the same video to the model.

# %% [markdown]
# ### Exercise 00.1 · How many of each
# *difficulty: easy · minutes: 8*
#
# A video has `frames` frames of `side` x `side` pixels. The encoder of the toy makes one cell of every 8 x 8
# pixels. If 8 does not divide the side, one more cell in each direction covers the remaining pixels. The resampler
# has `latents` latents. Return three numbers: how many features come out of the encoder, how many keys one latent
# of the resampler looks at, and how many visual tokens come out.


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
# `phi` of a token is the number of `<image>` tags up to this token. It is one cumulative sum. `<EOC>` ends a
# chunk, and it still belongs to the picture before it. In "next" mode, text looks at the picture after it instead.
# Training uses this mode for some pages, because on the web a caption may stand before its picture.
#
# The next figure shows the mask that follows from `phi`. Each row is a token. Each column is one of the `R` visual
# tokens of one of the `N` pictures. A dark cell means "may look".
#
# *Figure: a table of tokens against visual tokens. Tokens before the first picture may look nowhere. The tokens of
# a chunk may look at the columns of their own picture and at no others.*

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
# **Predict.** In cross-attention, the last word sees only the second picture. Can the answer after it still depend
# on the first picture?
#
# Yes. The words of the first chunk saw the first picture, and the self-attention of the language model reads those
# words. So information about earlier pictures reaches the answer through text. A token before the first picture
# has `phi` 0, and its cross-attention gives exactly zero. The next cell replaces the visual tokens of the second
# picture by zeros and shows which rows of the logits change.

# %%
batch = make_batch([sequence])
visual = resample(params, [encode_media(frozen, np.stack(sequence.media)[:, None], config)], config)
logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config)
changed = flamingo(params, frozen, batch.tokens, batch.phi, np.stack([visual[0], 0 * visual[1]]), config)
print("logits (B, T, V + 1) =", logits.shape)
first = int(np.argmax(seen == 2)) if N > 1 else len(pieces)
print(
    "second picture set to 0: rows before its tag are equal bit for bit:",
    np.array_equal(logits[:, :first], changed[:, :first]),
)
print(
    "second picture set to 0: rows from its tag on change by at most",
    f"{np.abs(logits - changed)[:, first:].max():.2f}",
)

# %% [markdown]
# ## §4 The gates: closed at the start
#
# Each gated block adds two terms to its input: first `tanh(alpha)` times the output of its cross-attention, then
# `tanh(alpha')` times the output of its feed-forward layer. These two factors are the gates. Both alphas start at 0.
#
# **Predict.** Set all gates to 0 and give the model a picture. How far are its logits from those of the language
# model alone: a little, very little, or not at all?

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
# The logits are exactly equal. Adding zero times a number changes no bit. So training starts from a language model
# that is exactly as good as before. The next figure shows how far the gates of the trained model have opened.
#
# *Figure: two bars for each gated block, the absolute tanh of its cross-attention gate and of its feed-forward
# gate. All are above 0.*

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
# The next cell shows the effect of the gates. All gates are scaled from closed to their trained values. At each
# step the model says how likely two captions of the red circle are.
#
# *Figure: log-probability of a right and of a wrong caption while the gates open from closed to as trained. The
# right one rises far above the wrong one.*


# %%
def scaled(share):
    """The parameters, with the tanh of every gate multiplied by `share`."""
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
# ## §5 The output
#
# **Predict.** The text of the prompt stays exactly the same, and only the picture is exchanged. What will be
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
# No training text contains these two words. No weight changes either. The model learns the words only from the
# prompt.
#
# *Figure: four pictures with one of two invented words over each, and a fifth picture. Over the fifth picture is
# the word that the model gives it, in brackets.*

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
# **Predict.** The two words are exchanged in the examples. The pictures stay. What does the model say now?

# %%
swap = {first_word: second_word, second_word: first_word}
print("before:", said)
swapped = [item if isinstance(item, np.ndarray) else swap[item] for item in shots]
print("after: ", ask(model, *swapped))

# %% [markdown]
# ### Exercise 00.2 · Write the prompt
# *difficulty: easy · minutes: 5*
#
# Write a function that makes such a prompt for any task. `pictures` and `words` have the same length, and each
# word belongs to the picture at the same place. `query` is the picture that the model is asked about. Return the
# list that `tinyflamingo.complete` takes. Remember which picture `phi` lets a word see.


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
# ## In the library
#
# The whole model is one function. It has the order of this notebook: first the embedding, then the decoder blocks,
# with a gated block before some of them, then the logits. `parts` holds the functions of the parts. By default
# these are `embed_with_eoc`, `gated_xattn_dense`, `decoder_block` and `final_norm`. `cache` is used when the model
# continues a prompt. It is a dict that keeps what was computed for the earlier tokens.

# %%
show(flamingo)

# %% [markdown]
# ## The other notebooks
#
# Each notebook explains one part. It first builds the part with loops, and then as the library has it. It also
# breaks the part, to show what the part is for, and asks you to write some of the code.


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
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("00")

# %%
check_quiz("00", ".....")

# %% [markdown]
# ## In three sentences
#
# A frozen encoder turns pictures into features, and a resampler turns any number of features into `R` tokens.
# Gated blocks inside a frozen language model let each word look at the tokens of one picture, its own, and the
# gates are exactly closed at the start. The language model could already continue a text, answer questions and
# learn a new word from examples, and now it can do the same with pictures.
#
# **Try it.** Put three pictures in `prompt` and look at the mask. Ask about a picture of your own
# (`tinyflamingo.data.images.load_picture`). Find the number of examples (shots) at which the new words become
# reliable (notebook 11 draws the curve).
#
# **Further reading.** [The paper](https://arxiv.org/abs/2204.14198), figures 1, 3 and 4. `docs/architecture.md`
# shows where everything is, `docs/deviations.md` lists where this toy differs from the paper.
