# %% [markdown]
# # From the toy to 80 billion
#
# *chapter: summary · minutes: 100 to read and do, seconds to run · key: scale*
#
# The toy has about two million parameters. The paper's largest model has eighty billion. Both have the same
# structure, with other numbers in the configuration. This notebook counts parameters, flops, bytes and chips.
# Then it compares Flamingo with DALL·E 2, and shows what came after Flamingo.
#
# **You will build** exact counts of two parts, the list of places where gated blocks stand, and the cost of a
# training step in which most weights are frozen.
#
# **You will not** need a larger machine than the one you have.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.bench.flops import gemm_flops
from tinyflamingo.classroom import show
from tinyflamingo.model.config import FlamingoConfig, XattnConfig
from tinyflamingo.model.flamingo import flamingo, init_flamingo, resample
from tinyflamingo.model.gated_xattn import init_gated_xattn
from tinyflamingo.model.language_model import init_language_model
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.presets import parameter_counts

plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
COLOURS = ("#56B4E9", "#0072B2", "#E69F00", "#D55E00")
model = tinyflamingo.load()
config = model.config
rng = np.random.default_rng(12)

# %% [markdown]
# ## Four models
#
# The paper prints rounded sizes of the parts of its three models (its table 5). The next cell counts the parts of
# the toy.
#
# *Figure: four horizontal bars, toy, 3B, 9B and 80B, each cut into vision encoder and language model (frozen,
# blue) and resampler and gated blocks (trained, orange). The trained share shrinks from about half to about an
# eighth.*

# %%
PARTS = ("vision encoder", "language model", "resampler", "gated blocks")
toy = parameter_counts(config)
PRINTED = {  # the paper's table 5
    "Flamingo-3B": dict(zip(PARTS, (435e6, 1.4e9, 194e6, 1.2e9), strict=True)),
    "Flamingo-9B": dict(zip(PARTS, (435e6, 7.1e9, 194e6, 1.6e9), strict=True)),
    "Flamingo-80B": dict(zip(PARTS, (435e6, 70e9, 194e6, 10e9), strict=True)),
}
sizes = {"toy": {part: toy[part]["parameters"] for part in PARTS}, **PRINTED}
figure, axis = plt.subplots(figsize=(7, 2.2))
for row, parts in enumerate(sizes.values()):
    left = 0.0
    for part, colour in zip(PARTS, COLOURS, strict=True):
        share = parts[part] / sum(parts.values())
        axis.barh(row, share, left=left, color=colour, label=part if row == 0 else None)
        left += share
axis.set(yticks=range(len(sizes)), yticklabels=sizes, xlabel="share of all parameters", xlim=(0, 1))
axis.invert_yaxis()
figure.legend(loc="outside upper center", ncols=4, frameon=False)
plt.show()
for name, parts in sizes.items():
    trained = parts["resampler"] + parts["gated blocks"]
    print(f"{name:13s} {sum(parts.values()):16,.0f} parameters, of which {trained / sum(parts.values()):4.0%} train")

# %% [markdown]
# In a larger model, a larger share of the parameters is frozen. The vision encoder and the resampler have the
# same size in all three models of the paper. The language model grows. The gated blocks have larger distances:
# one before every block of the language model, then before every fourth, then before every seventh.

# %% [markdown]
# ## Counting, in loops
#
# It is easy to check a number of parameters, and this check finds many mistakes: an embedding that is counted
# twice, a missing bias, a projection that does not exist. The slow way goes through every array:


# %%
def count_by_loops(tree):
    """All numbers in a tree of arrays, and the largest arrays by name."""
    total, largest = 0, {}
    for name, array in named_leaves(tree).items():
        numbers = 1
        for size in np.shape(array):
            numbers *= size
        total += numbers
        largest[name] = numbers
    return total, sorted(largest.items(), key=lambda item: -item[1])[:5]


block = init_gated_xattn(rng, config)
D, media = config.language.width, config.resampler.width
total, largest = count_by_loops(block)
print(f"one gated block of the toy: {total:,}")
for name, numbers in largest:
    print(f"  {name:6s} {block[name].shape!s:12s} {numbers:8,}")

# %% [markdown]
# The fast way is a formula. Almost all parameters are in the matrices. If `H K = D`, the attention has four
# matrices of `D x D`: for queries, keys, values and output. The feed-forward layer has two matrices of `D x 4 D`.
# The sum is `12 D²`.

# %%
print(f"12 D^2 = {12 * D * D:,}, which is {12 * D * D / total:.1%} of the true {total:,}")

# %% [markdown]
# ### Exercise 12.1 · A gated block, exactly
# *difficulty: medium · minutes: 15*
#
# Count all parameters of one GATED XATTN-DENSE block of this code. `width` is the `D` of the text, and
# `media_width` is the width of the visual tokens. Then come `heads`, `key_size` and `multiplier` (the hidden
# width divided by `D`). The projections have no biases. The three layer norms (queries, media, feed-forward) have
# gain and bias. Do not forget the parameters that make the block *gated*. `init_gated_xattn` in
# `model/gated_xattn.py` shows all arrays.


# %% exercise 12.1
def count_gated_block(width, media_width, heads, key_size, multiplier):
    # solution
    inner = heads * key_size
    attention = width * inner + 2 * media_width * inner + inner * width  # queries; keys and values; output
    dense = 2 * width * multiplier * width
    norms = 2 * width + 2 * media_width + 2 * width
    return attention + dense + norms + 2  # two gates
    # end of solution


# %% check 12.1
from tinyflamingo.checks import check_12_1_count_gated_block

check_12_1_count_gated_block(count_gated_block)

# %% [markdown]
# ### Exercise 12.2 · The language model, exactly
# *difficulty: medium · minutes: 20*
#
# Count these parts. First `vocab` rows of embedding; the output uses the same table, so count it once. Then
# `layers` blocks. A block has:
#
# - an RMS norm with a gain before attention, and another one before the feed-forward layer;
# - matrices for q, k, v, **and for the relative positions**, without biases;
# - two vectors of `heads x key_size`;
# - an output matrix with bias;
# - two feed-forward matrices with biases.
#
# There is one more gain at the very end.


# %% exercise 12.2
def count_language_model(vocab, width, layers, heads, key_size, multiplier):
    # solution
    inner, hidden = heads * key_size, multiplier * width
    attention = width + 4 * width * inner + 2 * inner + inner * width + width
    dense = width + width * hidden + hidden + hidden * width + width
    return vocab * width + layers * (attention + dense) + width
    # end of solution


# %% check 12.2
from tinyflamingo.checks import check_12_2_count_language_model

check_12_2_count_language_model(count_language_model)

# %% [markdown]
# ## The paper's models, counted again
#
# The paper prints the layers, widths and heads of each part (its table 4), and sizes rounded to two or three
# digits. Can we compute the sizes from the shapes? The largest terms are enough: `12 D²` for a gated block;
# `L (5 D H K + 8 D²) + 32,000 D` for the language model. Its attention has five matrices of `D` times `H K`: for
# queries, keys, values, distances (notebook 06) and the output. The resampler has six layers of width 1536 with 16
# heads of size 128, and a projection of the encoder's 3072 channels to 1536.
#
# **Predict.** Table 4 says that the language model of Flamingo-9B has 40 layers of width 4096 and 10 gated
# blocks. Does this give 7.1 and 1.6 billion parameters?


# %%
def language_model_size(layers, D, H, K=128, V=32_000):
    return layers * (5 * D * H * K + 8 * D * D) + V * D


def resampler_size(K=128, projection=True, D=1536, H=16, layers=6):
    return layers * (4 * D * H * K + 8 * D * D) + (3072 * D if projection else 0)


ROWS = [  # name, layers, D, H, gated blocks, printed: language model, gated blocks
    ("Flamingo-3B", 24, 2048, 16, 24, 1.4e9, 1.2e9),
    ("Flamingo-9B as printed", 40, 4096, 32, 10, 7.1e9, 1.6e9),
    ("Flamingo-9B, 32 layers", 32, 4096, 32, 8, 7.1e9, 1.6e9),
    ("Flamingo-80B", 80, 8192, 64, 12, 70e9, 10e9),
]
print(f"{'':24s}{'language model':>14s}{'printed':>9s}{'gated blocks':>16s}{'printed':>9s}")
for name, layers, D_paper, H, blocks, printed_language, printed_gated in ROWS:
    computed = language_model_size(layers, D_paper, H), blocks * 12 * D_paper**2
    fits = all(abs(f / p - 1) < 0.06 for f, p in zip(computed, (printed_language, printed_gated), strict=True))
    words = [
        f"{f / 1e9:13.2f}B{p / 1e9:8.1f}B" for f, p in zip(computed, (printed_language, printed_gated), strict=True)
    ]
    print(f"{name:24s}{words[0]}  {words[1]}{'' if fits else '   does not fit'}")

# %% [markdown]
# The shape that the paper prints for the 9B model does not fit the sizes that it prints. The model of the same
# family with 7.1 billion parameters has 32 layers (Chinchilla comes from this family too). With 32 layers and a
# gated block before every fourth, both numbers fit. This is a conclusion from arithmetic, not a fact from the
# paper. But we see no other explanation. So a count can check a paper too.
#
# ### Break it: leave one thing out
#
# The same arithmetic shows which details must be there. We leave them out, one at a time. Sizes with two digits
# do not show small differences. Therefore we also use one of the fifty models for which the Chinchilla paper
# prints the size to the million (its table A9).

# %%
whole, small = language_model_size(80, 8192, 64), language_model_size(40, 3584, 28)
print("Flamingo-80B, language model, printed 70B:")
print(f"  as above                              {whole / 1e9:6.2f}B")
print(f"  without the matrix of positions       {(whole - 80 * 8192**2) / 1e9:6.2f}B")
print(f"  with a separate output table          {(whole + 32_000 * 8192) / 1e9:6.2f}B")
print("one of Chinchilla's fifty (40 layers, width 3584, 28 heads), printed 6,796M:")
print(f"  as above                              {small / 1e6:6,.0f}M, plus biases and norms")
print(f"  with a separate output table          {(small + 32_000 * 3584) / 1e6:6,.0f}M")
print("resampler, printed 194M:")
for words, arguments in (
    ("heads of 128, projection of features", {}),
    ("heads of 128, no projection", {"projection": False}),
    ("heads of 96 (width over heads)", {"K": 96}),
):
    print(f"  {words:38s}{resampler_size(**arguments) / 1e6:6.1f}M")

# %% [markdown]
# ### Exercise 12.3 · Where the gated blocks stand
# *difficulty: easy · minutes: 5*
#
# A gated block stands *before* decoder block 0. After that, one stands before every `every`-th decoder block.
# Return the numbers of these decoder blocks, in order. Flamingo-80B has 80 decoder blocks, and `every` is 7: how
# many gated blocks does it have?


# %% exercise 12.3
def gated_positions(layers, every):
    # solution
    return list(range(0, layers, every))
    # end of solution


# %% check 12.3
from tinyflamingo.checks import check_12_3_gated_positions

check_12_3_gated_positions(gated_positions)

# %% [markdown]
# ## What a step costs
#
# In the forward pass, a weight costs two flops per token: one multiplication and one addition. The backward pass
# has two tasks: compute the gradient of the layer's input, and compute the gradient of the weight. Each task
# costs two flops again.
#
# **Predict.** The language model is frozen. Which of the three costs can be saved? The vision encoder is frozen
# too. Which costs can be saved there?
#
# We can measure this. `gemm_flops` records the shape of every matrix product while a step runs:


# %%
def step_flops(train_language):
    """Flops of the matrix products of one gradient of the toy and of its forward pass alone, per token."""
    own = FlamingoConfig()
    params, language = init_flamingo(rng, own), init_language_model(rng, own.language)
    tokens = rng.integers(10, 200, (2, 65))
    tokens[:, 1] = IMAGE
    phi = np.where(np.arange(64) >= 1, np.array([[1], [2]]), 0)
    features = rng.standard_normal((2, 1, 16, own.vision.width)).astype(np.float32)

    def loss(tree):
        frozen = {"language": tree.get("language", language)}
        visual = resample(tree["params"], [features], own)
        logits = flamingo(tree["params"], frozen, tokens[:, :-1], phi, visual, own)
        return ops.linear(token_losses(logits, tokens[:, 1:]), np.ones((64, 1), np.float32) / 128).sum()

    tree = {"params": params} | ({"language": language} if train_language else {})
    forward, both = gemm_flops(lambda: loss(tree)), gemm_flops(lambda: ops.value_and_grad(loss)(tree))
    return forward / tokens[:, 1:].size, both / tokens[:, 1:].size


for name, train_language in (("language model frozen", False), ("everything trains", True)):
    forward, both = step_flops(train_language)
    print(f"{name:22s} Mflop per token: forward {forward / 1e6:.2f}, with the gradient {both / 1e6:.2f}", end="")
    print(f", {both / forward:.2f} times the forward pass")

# %% [markdown]
# If everything trains, the cost is three times the forward pass. This is the well-known `6 N` flops per token: `N`
# is the number of parameters, and the forward pass costs `2 N`. Freezing the language model saves only one third
# of *its* cost, the gradients of its weights. The gradient must still go backward through all blocks, to the first
# gated block. The vision encoder is different. Nothing before it trains, so it runs forward only. The toy even
# computes its features once and keeps them.

# %% [markdown]
# ### Exercise 12.4 · The price of frozen weights
# *difficulty: easy · minutes: 10*
#
# `trained`, `language` and `vision` are numbers of weights: the trained weights, the frozen language model
# between whose blocks they stand, and the frozen vision encoder before them. Return the flops of one training
# step per token. Count as if each weight were used once for each token.


# %% exercise 12.4
def training_flops(trained, language, vision):
    # solution
    return 6 * trained + 4 * language + 2 * vision
    # end of solution


# %% check 12.4
from tinyflamingo.checks import check_12_4_training_flops

check_12_4_training_flops(training_flops)

# %% [markdown]
# ### And memory
#
# Freezing saves more memory than compute. A trained weight needs 16 bytes: 4 bytes (32 bits) for the weight, 4
# for its gradient, and 8 for the two moments of Adam. A frozen weight needs only 2 bytes, in half precision.

# %%
print(f"{'':14s}{'frozen as it is':>18s}{'if all trained':>18s}")
for name, parts in sizes.items():
    trained = parts["resampler"] + parts["gated blocks"]
    frozen_part = parts["vision encoder"] + parts["language model"]
    print(f"{name:14s}{(16 * trained + 2 * frozen_part) / 1e9:15.3f} GB{16 * (trained + frozen_part) / 1e9:15.3f} GB")

# %% [markdown]
# These numbers count the weights only, without activations. On disk the toy does the same: trained weights are
# stored in 32 bits, frozen weights in 16.
#
# ### The bill
#
# The paper trained the largest model for 15 days on 1,536 TPUv4 chips. The toy's times are stored with its
# checkpoint.

# %%
chip_hours = 1536 * 15 * 24
core_hours = sum(model.info["stages"].values()) / 3600 * model.info["cores"]
print(f"Flamingo-80B: {chip_hours:,} chip hours")
print(f"the toy:      {core_hours:.1f} core hours, all three stages")
print(f"parameters:   {sum(sizes['Flamingo-80B'].values()) / sum(sizes['toy'].values()):,.0f} times as many")
print(f"Chinchilla:   {1.4e12 / 70e9:.0f} tokens of text per parameter, before Flamingo's training begins")

# %% [markdown]
# ## Flamingo and DALL·E 2: opposite directions
#
# The chapter treats Flamingo after DALL·E 2 and compares the two. Both connect words and pictures, but in
# opposite directions.
#
# *Figure: two rows of boxes with arrows. DALL·E 2 runs from text over CLIP's text encoder and a prior, which
# turns the text's embedding into a picture's, to a diffusion decoder with upsamplers and one picture. Flamingo
# runs from pictures and text over a frozen encoder, a resampler and a frozen language model with gated blocks to
# text. Frozen boxes are blue, boxes trained for the task orange; the language model with its gated blocks is blue
# with an orange edge.*

# %%
LANES = {
    "DALL·E 2": [
        ("text", ""),
        ("CLIP\ntext encoder", "frozen"),
        ("prior:\ntext to image\nembedding", "trained"),
        ("diffusion\ndecoder and\nupsamplers", "trained"),
        ("one picture", ""),
    ],
    "Flamingo": [
        ("pictures,\nvideos\nand text", ""),
        ("NFNet\nvision encoder", "frozen"),
        ("Perceiver\nresampler", "trained"),
        ("Chinchilla\n+ gated blocks", "both"),
        ("text", ""),
    ],
}
figure, axis = plt.subplots(figsize=(9, 2.8))
for row, (name, boxes) in enumerate(LANES.items()):
    axis.text(-0.95, -row, name, weight="bold", va="center")
    for column, (words, state) in enumerate(boxes):
        face = {"frozen": "#A6D3F0", "trained": "#F5C38B", "both": "#A6D3F0", "": "white"}[state]
        edge = {"both": "#D55E00"}.get(state, "0.4")
        style = {"boxstyle": "round,pad=0.5", "fc": face, "ec": edge, "lw": 3 if state == "both" else 1}
        axis.text(column, -row, words, ha="center", va="center", bbox=style)
        if column:
            axis.annotate("", (column - 0.36, -row), (column - 0.62, -row), arrowprops={"arrowstyle": "->"})
axis.set(xlim=(-1, 4.5), ylim=(-1.5, 0.5))
axis.set_axis_off()
plt.show()

# %% [markdown]
# | | DALL·E 2 | Flamingo |
# |---|---|---|
# | direction | from text to a picture | from text with pictures and videos to text |
# | one prompt holds | one text | any number of pictures, anywhere in the text |
# | writes by | diffusion: noise becomes a picture, all pixels together | one token after the other |
# | contrastive encoder | CLIP; the decoder draws from its embedding | an NFNet; only its grid of features is used |
# | frozen | CLIP | vision encoder and language model |
# | trained | prior, decoder, upsamplers | resampler, gated blocks, one embedding |
# | new task | a new text | a new prompt, with examples |
#
# Both use the same idea. Take a model that has learned how pictures and words are related. Freeze it. Then train
# the parts that produce the output.
#
# **CLIP had ResNets too.** The chapter names one key difference of the encoders: CLIP uses a Vision Transformer,
# Flamingo a ResNet. This is true for the best-known CLIP models. But the CLIP paper trained both kinds, several
# ResNets and several Vision Transformers; its best model is a Vision Transformer. So the method CLIP does not
# require one kind of encoder. The Flamingo paper also tried CLIP's ViT-L/14 as its encoder. The overall score was
# 64.9, and 70.7 with its own NFNet-F6 (its table 3). The two encoders also differ in training data and in picture
# size, so this does not show that ResNets are better.

# %% [markdown]
# ## Where the field went
#
# - **Open copies.** [OpenFlamingo](https://arxiv.org/abs/2308.01390) built Flamingo again from parts that are
#   open to everybody, a CLIP encoder and open language models. It reached 80 to 89 per cent of Flamingo's scores.
#   IDEFICS did the same with 9 and 80 billion parameters.
# - **Visual tokens in the text.** [BLIP-2](https://arxiv.org/abs/2301.12597) also connects two frozen models with
#   a set of learned queries. But it gives their output to the language model as if it were words.
#   [LLaVA](https://arxiv.org/abs/2304.08485) has no such queries. A projection turns every feature into a token,
#   and the language model is trained too, on instructions. There are no new blocks and no mask, but the sequences
#   are longer.
# - **Which is better?** [A study of 2024](https://arxiv.org/abs/2405.02246) compared both methods under equal
#   conditions. With a frozen language model, cross-attention was better. With a language model that is trained
#   too, visual tokens in the text were better.
# - **Cross-attention is still used.** The vision models of [Llama 3](https://arxiv.org/abs/2407.21783) add
#   cross-attention layers between the blocks of a language model. The weights of the language model do not
#   change, so its answers to text without pictures do not change either. Notebook 08 gives the same reason.
#
# These ideas are still used: two pretrained parts and a small bridge; pages with pictures as training data; few
# visual tokens for many pixels; a task that is given in the prompt.
#
# **A foundation for general agents.** The chapter ends with an outlook: a multimodal model that adapts quickly to
# many tasks is a foundation for a general artificial agent. Flamingo supports this view in one point: one set of
# weights solves many tasks, and each task is given in the prompt. But Flamingo is not an agent. It reads pictures
# and text and writes text; it does not act and does not see the result of an action. The paper also names limits.
# Flamingo sometimes describes things that are not there. On classification it is weaker than contrastive models.
# With many examples in the prompt it becomes slower, and after 32 examples it gains little.

# %% [markdown]
# ## In the library


# %%
show(parameter_counts)
show(XattnConfig.gated_layers)

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("12")

# %%
check_quiz("12", ".....")

# %% [markdown]
# ## In three sentences
#
# Flamingo at any size is a frozen encoder, a frozen language model, and a bridge whose share becomes smaller when
# the model grows. A parameter count is a test that also works on papers, and frozen weights save much memory but
# only a third of their compute. DALL·E 2 goes from words to a picture, Flamingo goes from pictures and words to
# words, and both keep a pretrained model frozen.
#
# **Try it.** `python -m tinyflamingo params flamingo-80b` counts the paper's model exactly, from shapes alone,
# and prints the paper's numbers beside it. `flamingo-9b-printed` is the model that does not fit. Put the toy's
# gated blocks before every second decoder block (`XattnConfig(every=2)`) and count again.
#
# **Further reading.** [The paper](https://arxiv.org/abs/2204.14198), tables 4 and 5, appendix B.1.
# [Chinchilla](https://arxiv.org/abs/2203.15556). [DALL·E 2](https://arxiv.org/abs/2204.06125).
# [CLIP](https://arxiv.org/abs/2103.00020). `docs/deviations.md` lists all differences between the toy and the paper,
# with reasons.
