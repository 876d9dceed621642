# %% [markdown]
# # Applications: pictures where words could stand
#
# *chapter: §5 · minutes: 100 to read and do, one to run · key: applications*
#
# A trained Flamingo is a machine that continues. What you get from it depends on what you put in front: a
# picture in the place of a word, a video and a question, a conversation. This notebook uses the checkpoint
# that ships, and then looks inside while it answers: which part of the picture did it look at when it wrote
# "red"?
#
# **You will build** greedy decoding, a visual dialogue, the attention weights of a gated block, and their way
# back onto the picture.
#
# **You will not** train anything, nor search with beams (`decoding/beams.py` can).

# %%
import sys

sys.path.insert(0, "..")  # the package lies beside this folder


import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import ask, show
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import (
    ASKED,
    draw_clip,
    draw_scene,
    sample_clip,
    sample_pair,
    sample_single,
)
from tinyflamingo.decoding.complete import complete
from tinyflamingo.demo import panels_figure, picture_for_words, video_question, visual_dialogue
from tinyflamingo.evaluation.metrics import interval
from tinyflamingo.evaluation.run import answer
from tinyflamingo.evaluation.tasks import knowledge, knowledge_direct, knowledge_heldout
from tinyflamingo.model.flamingo import embed_with_eoc, encode_and_resample, encode_media, flamingo, resample
from tinyflamingo.model.gated_xattn import media_keys_values
from tinyflamingo.model.generate import NEVER, generate, log_softmax_allowed
from tinyflamingo.model.interleave import encode_document, make_batch, phi
from tinyflamingo.studies.attention_maps import attention_maps, gated_attention_map, resampler_maps
from tinyflamingo.studies.attention_maps import attention_weights as weights_of_the_library
from tinyflamingo.training.flamingo_stage import MediaFeatures

plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"
model = tinyflamingo.load()
config, params, frozen, tokenizer = model.config, model.params, model.frozen, model.tokenizer
rng = np.random.default_rng(10)

# %% [markdown]
# ## Three prompts
#
# *Figure: three rows. Two pictures that stand in a text as its subjects; the frames of a video with a
# question; one picture and a dialogue about it. What the model wrote is in colour; where it was wrong, the
# right answer stands behind.*

# %%
panels_figure([make(model, rng) for make in (picture_for_words, video_question, visual_dialogue)])
plt.show()

# %% [markdown]
# In the chapter's first example a picture stands where a text would name its subject, and the model completes
# what it knows about it. Where a red circle is found the language model read in stage two, long before it could
# see. In stage three pictures of two thirds of all things were asked for such facts too; for the other third they
# stand in text only, and those are the test below.

# %% [markdown]
# ## A picture instead of words
#
# The same question, with words in front and with a picture in front:

# %%
print(f"{'thing':16s}{'told in words':20s}{'shown as a picture':22s}{'the texts say'}")
for _ in range(5):
    scene = sample_single(rng, ASKED)
    shape, colour = scene.things[0].kind
    words = ask(model, f"Output: {say.caption(scene)}", say.ask("place"))
    seen = ask(model, draw_scene(rng, scene), say.ask("place"))
    print(f"{colour + ' ' + shape:16s}{words:20s}{seen:22s}{say.knowledge(shape, colour)['place']}")

# %% [markdown]
# In most cases the picture calls up what the words do.
#
# **Predict.** These were things of which pictures *were* asked such questions in training. For a third of all
# things none ever was: the model has seen them, it has read about them, but nobody asked for the one upon
# seeing the other. Will it know? And if it first has to say what it sees?

# %%
print(f"{'':42s}{'right':>6s}   95% interval")
for name, task in (
    ("asked of pictures in training", knowledge),
    ("never asked of a picture, asked at once", knowledge_direct),
    ("never asked of a picture, named first", knowledge_heldout),
):
    pool, queries = task(np.random.default_rng(11), 40)
    said = answer(model, queries, MediaFeatures(frozen, pool, config))
    score, (low, high) = interval([s == q.answer for s, q in zip(said, queries, strict=True)])
    print(f"{name:42s}{score:6.2f}   {low:.2f} to {high:.2f}")

# %% [markdown]
# Naming helps, because what was named stands in the text, and from text the frozen language model can look
# facts up as it always could. What the picture leaves in the stream is not the same as a word. A larger model
# needs the crutch less; that it exists at all is worth knowing: *let a model write down what it sees before
# you ask what it knows.*

# %% [markdown]
# ## A video
#
# A video is a medium of several frames, and it becomes as many visual tokens as a picture does.
#
# **Predict.** The same frames in reverse order: what happens now? And what, if only the first frame is shown?

# %%
clip = draw_clip(rng, sample_clip(rng, action="moves left"))
print("a picture: visual tokens (M, R, D) =", encode_and_resample(model, [clip[0]]).shape)
print("a video:   visual tokens (M, R, D) =", encode_and_resample(model, [clip]).shape)
print(f"\n{'drawn':14s}{'seen':22s}{'seen backwards':24s}first frame only")
for action in ("moves left", "moves up", "grows", "shrinks", "moves right"):
    video = draw_clip(rng, sample_clip(rng, action=action))
    said = [ask(model, v, say.ask("action")) for v in (video, video[::-1], video[:1])]
    print(f"{action:14s}{said[0]:22s}{said[1]:24s}{said[2]}")

# %% [markdown]
# Backwards, "left" is "right" and "grows" is "shrinks": the order of frames reaches the words, through the
# temporal embedding of notebook 04. A single frame gets an answer too. The model has no word for "I cannot
# tell"; it was never taught one.

# %% [markdown]
# ## How it writes: one token, then the next
#
# The model gives logits for the next token. To write, take the likeliest, put it behind the prompt, and ask
# again, until `<EOC>` comes. Without any cache, that is:


# %%
def write_by_loops(items, limit=24):
    """Greedy; the whole sequence is computed anew for every token. Returns the tokens, and how many were computed."""
    sequence = encode_document(items, tokenizer, complete=False)
    visual, tokens, work = encode_and_resample(model, sequence.media), list(sequence.tokens), 0
    for _ in range(limit):
        logits = flamingo(params, frozen, np.array([tokens]), phi([tokens]), visual, config)[0, -1]  # (V + 1,)
        work += len(tokens)
        chosen = int(log_softmax_allowed(logits[None])[0].argmax())
        if chosen == tokenizer.eoc:
            break
        tokens.append(chosen)
    return tokens[len(sequence.tokens) :], work


rng = np.random.default_rng(2)
scene = sample_pair(rng)
picture = draw_scene(rng, scene)
slow, work = write_by_loops([picture, "Output:"])
fast = tinyflamingo.complete(model, [picture, "Output:"])
T, new = len(fast["prompt_tokens"]), len(fast["tokens"])
print("the picture shows:", say.caption(scene))
print("by loops:         ", tokenizer.decode(slow).strip())
print("complete:         ", fast["text"])
print("the same:", [tokenizer.piece(t) for t in slow] == fast["tokens"])
print(f"tokens sent through the model: {work} by loops, {T + new} with the cache of `generate`")

# %% [markdown]
# With keys and values kept, each token goes through the model once. The keys and values of the *picture* are
# kept as well; they do not depend on the text at all.

# %% [markdown]
# ### Exercise 10.1 · Greedy
# *difficulty: easy · minutes: 10*
#
# `next_logits(tokens)` gives the logits of the next token, a vector, for a list of tokens. Return the list of
# *new* tokens: stop at `eoc`, which is not part of the answer, or after `limit` tokens. Some ids, those in
# `never` (padding, `<BOS>`, `<image>`), may not be written, however likely they are.


# %% exercise 10.1
def greedy(next_logits, prompt, eoc, limit, never=()):
    # solution
    tokens = list(prompt)
    for _ in range(limit):
        logits = np.array(next_logits(tokens), float)
        logits[list(never)] = -np.inf
        chosen = int(logits.argmax())
        if chosen == eoc:
            break
        tokens.append(chosen)
    return tokens[len(prompt) :]
    # end of solution


# %% check 10.1
from tinyflamingo.checks import check_10_1_greedy

check_10_1_greedy(greedy)

# %% [markdown]
# ## A dialogue
#
# A dialogue is nothing new: the prompt grows. The picture stands at its beginning, once; every question and
# every answer is put behind it, so that a later question can build on them.

# %% [markdown]
# ### Exercise 10.2 · Hold a dialogue
# *difficulty: easy · minutes: 10*
#
# `ask(items)` continues a prompt, a list of pictures and strings, and returns the model's text. Ask all
# `questions` about `picture`, one after the other, and return the list of answers. At each question the
# prompt holds the picture and the whole conversation so far.


# %% exercise 10.2
def hold_dialogue(ask, picture, questions):
    # solution
    items, answers = [picture], []
    for question in questions:
        items = [*items, question]
        answers.append(ask(items))
        items = [*items, answers[-1]]
    return answers
    # end of solution


# %% check 10.2
from tinyflamingo.checks import check_10_2_hold_dialogue

check_10_2_hold_dialogue(hold_dialogue)

# %% [markdown]
# **Predict.** Why must the picture not be put in again with each question? Think of `phi` and of what an
# `<EOC>` says.

# %%
question = say.ask("shape")
for items in ([picture, "Output:", fast["text"], question], [picture, "Output:", fast["text"], picture, question]):
    sequence = encode_document(items, tokenizer, complete=False)
    print("N =", len(sequence.media), " ".join(tokenizer.piece(t) for t in sequence.tokens))

# %% [markdown]
# A second picture closes the chunk: to the model it is the next example on the page, not the same
# conversation. And every copy is encoded again.

# %% [markdown]
# ## Where does it look?
#
# In each gated block a token's query meets the keys of the `R` visual tokens of its own picture. Softmax
# turns the scores into weights that sum to 1, one set a head. Here is one token's, written out:

# %%
scene = sample_pair(np.random.default_rng(3), kinds=(("star", "blue"), ("circle", "red")), relation="left of")
picture = draw_scene(np.random.default_rng(4), scene)
caption = ask(model, picture, "Output:")
batch = make_batch([encode_document([picture, "Output:", caption], tokenizer)])
pieces = [tokenizer.piece(t).replace("\u2581", "") for t in batch.tokens[0]]
features = encode_media(frozen, picture[None, None], config)  # (M, F, S, Dv)
visual = resample(params, [features], config)  # (M, R, D)
M, R, D = visual.shape
H, K, T, S = config.xattn.heads, config.xattn.key_size, batch.tokens.shape[1], features.shape[2]
print("caption:", caption)
print(f"T = {T} tokens, M = {M} picture, R = {R} visual tokens, S = {S} cells, H = {H} heads, K = {K}")


# %%
def weights_by_loops(q, k, phi):
    """q (T, H, K), k (M, R, H, K), phi (T,) -> weights (T, H, R) over the latents of each token's own medium."""
    T, H, K = q.shape
    R = k.shape[1]
    weights = np.zeros((T, H, R))
    for t in range(T):
        for h in range(H):
            if phi[t] == 0:
                continue  # no picture: nothing is looked at
            scores = [sum(q[t, h] * k[phi[t] - 1, r, h]) / np.sqrt(K) for r in range(R)]
            exponentials = [np.exp(score - max(scores)) for score in scores]
            weights[t, h] = [e / sum(exponentials) for e in exponentials]
    return weights


block = params["xattn_0"]
h = embed_with_eoc(params["eoc"], frozen["language"], batch.tokens)  # (B, T, D)
q = np.reshape(ops.linear(ops.layer_norm(h, block["query_gain"], block["query_bias"]), block["w_q"]), (T, H, K))
k = media_keys_values(block, visual, config.xattn)[0][0]  # (M, R, H, K)
by_loops = weights_by_loops(q, k, batch.phi[0])
by_library = gated_attention_map(block, h, visual, batch.phi, config.xattn)  # (B, T, H, M, R)
print(
    "library (B, T, H, M, R) =",
    by_library.shape,
    "- the same:",
    np.allclose(by_loops, by_library[0, :, :, 0], atol=1e-5),
)

# %% [markdown]
# ### Exercise 10.3 · Attention weights without loops
# *difficulty: hard · minutes: 20*
#
# The same, vectorised: `q (T, H, K)`, `k (M, R, H, K)`, `phi (T,)` to weights `(T, H, R)`. A row with `phi` 0
# is exactly zero. Let no `exp` overflow, for scores can be large.


# %% exercise 10.3
def attention_weights(q, k, phi):
    # solution
    own = k[np.maximum(phi, 1) - 1]  # (T, R, H, K)
    scores = np.einsum("thk,trhk->thr", q, own) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights * (phi > 0)[:, None, None]
    # end of solution


# %% check 10.3
from tinyflamingo.checks import check_10_3_attention_weights

check_10_3_attention_weights(attention_weights)

# %% [markdown]
# The layers themselves throw these weights away, and the fast floor of the code never holds all of them at
# once. So there is a function that computes them again on the way of the same stream: `attention_maps`, all
# gated blocks, `(G, B, T, H, M, R)`.
#
# *Figure: two tables of tokens against visual tokens, one of the first gated block and one of the last.
# Darker means a larger share. The row of the token before the picture is empty.*

# %%
maps = attention_maps(params, frozen, batch.tokens, batch.phi, visual, config)
print("(G, B, T, H, M, R) =", maps.shape)
mean = maps[:, 0, :, :, 0].mean(axis=2)  # (G, T, R), over heads
figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), sharey=True)
for axis, place, title in zip(axes, (0, -1), ("first gated block", "last gated block"), strict=True):
    axis.imshow(mean[place], cmap="Purples", vmin=0, vmax=mean.max(), aspect="auto")
    axis.set(title=title, xlabel="visual token", xticks=range(R), yticks=range(T), yticklabels=pieces)
plt.show()

# %% [markdown]
# Words differ in what they look at, and blocks differ. But a visual token is no place in the picture: it is a
# summary that a latent of the resampler has gathered. One more table tells from where: `resampler_maps`, in
# which each latent's weights run over the `S` cells of the frame first, then over the `R` latents.

# %%
latent_maps = resampler_maps(params["resampler"], features, config.resampler)  # (L, M, H, R, F S + R)
print("(L, M, H, R, F S + R) =", latent_maps.shape)
for layer, own in enumerate(latent_maps[..., :S].sum(-1).mean((1, 2, 3))):
    print(f"layer {layer}: {own:.2f} of the weight goes to cells, the rest to latents")

# %% [markdown]
# ### Exercise 10.4 · Back onto the picture
# *difficulty: medium · minutes: 10*
#
# `token_map (T, R)`: how much each token looks at each visual token. `latent_map (R, S + R)`: how much each
# latent looks at each cell, and then at each latent. Return `(T, S)`: how much each token looks at each cell
# through the latents. What went to latents is left out, so rows may sum to less than 1.


# %% exercise 10.4
def onto_cells(token_map, latent_map):
    # solution
    S = latent_map.shape[1] - token_map.shape[1]
    return token_map @ latent_map[:, :S]
    # end of solution


# %% check 10.4
from tinyflamingo.checks import check_10_4_onto_cells

check_10_4_onto_cells(onto_cells)

# %% [markdown]
# Now the maps can be laid over the picture, a panel a word. For each word we take the token *before* it, for
# that is where the word is decided. And we ask a second question, one that needs no attention weights: how
# much less likely does the word become when one cell of the features is covered?
#
# *Figure: the picture, and two rows of small grids, one a word of the caption. Upper row: where the token
# before the word looked, brighter is more. Lower row: which cell, covered, takes most from the word's
# probability.*


# %%
def cell_maps(picture, caption):
    """For every token of a caption: (pieces, looked (G, T, S), lost (T, S)); row t belongs to the word t + 1."""
    batch = make_batch([encode_document([picture, "Output:", caption], tokenizer)])
    features = encode_media(frozen, picture[None, None], config)
    S = features.shape[2]
    maps = attention_maps(params, frozen, batch.tokens, batch.phi, resample(params, [features], config), config)
    cells = resampler_maps(params["resampler"], features, config.resampler)[0, 0].mean(axis=0)[:, :S]  # (R, S)
    looked = maps[:, 0, :, :, 0].mean(axis=2) @ cells  # mean over heads, then through the first layer's latents

    variants = np.repeat(features, S + 1, axis=0)  # the picture, and S copies with one cell covered
    for cell in range(S):
        variants[cell + 1, :, cell] = 0  # the mean of all pictures
    tokens = np.repeat(batch.tokens, S + 1, axis=0)
    phi = np.where(batch.phi > 0, np.arange(1, S + 2)[:, None], 0)  # row i sees variant i
    logits = flamingo(params, frozen, tokens, phi, resample(params, [variants], config), config)
    likely = np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], axis=-1)[:, :, 0]
    likely = likely - np.log(np.exp(logits[:, :-1]).sum(axis=-1))  # log-probabilities (S + 1, T - 1)
    pieces = [tokenizer.piece(t).replace("\u2581", "") for t in batch.tokens[0]]
    return pieces, looked, (likely[0] - likely[1:]).T


side = int(S**0.5)
pieces, looked, lost = cell_maps(picture, caption)
words = [t for t in range(4, T) if pieces[t] not in (".", "<EOC>")]  # behind <BOS> <image> Output :
figure, axes = plt.subplots(2, len(words) + 1, figsize=(9.5, 2.9))
costs = [f"-{cost:.2f}" for cost in lost.max(axis=1)]
for row, values, title, over in zip(
    axes, (looked.mean(axis=0), lost), ("looked at", "covered"), (pieces[1:], costs), strict=True
):
    row[0].imshow(picture)
    row[0].set_title(title, fontweight="bold")
    for axis, t in zip(row[1:], words, strict=True):
        axis.imshow(values[t - 1].reshape(side, side), cmap="magma", vmin=0)
        axis.set_title(over[t - 1])
    for axis in row:
        axis.set_axis_off()
plt.show()

# %% [markdown]
# The number over a grid of the lower row is what the worst cover costs it, in nats; each grid has a scale of
# its own. Every word looks *somewhere*: softmax must spend its weight. But where nothing is at stake, as with
# "of" after "left", the cover costs nothing, however bright the upper grid. Nor does it cost much where other
# cells tell the same, as of a colour they mostly do.
#
# One picture proves little. So let us count: over many pictures of two things, how often does the brightest
# cell for a colour or shape word lie on the thing that it names?
#
# **Predict.** Which points better: the first gated block, the last one, or the cover? And what would a blind
# finger reach?
#
# *Figure: bars, one a gated block and one for covering: the share of words whose brightest cell lies on the
# right thing. A dashed line shows what a random cell reaches.*

# %%
rng, hits, chance = np.random.default_rng(12), [], []
rows, columns = np.divmod(np.arange(S), side)
step = config.vision.side / side  # pixels a cell
for _ in range(30):
    scene = sample_pair(rng)
    pieces, looked, lost = cell_maps(draw_scene(rng, scene), say.caption(scene))
    for thing, place in zip(scene.things, (0, -1), strict=True):
        on_it = np.hypot((columns + 0.5) * step - thing.x, (rows + 0.5) * step - thing.y) < thing.radius + step / 2
        for word in thing.kind:
            found = [t - 1 for t, piece in enumerate(pieces) if piece == word]
            if found:
                maps = [*(block[found[place]] for block in looked), lost[found[place]]]
                hits.append([on_it[np.argmax(values)] for values in maps])
                chance.append(on_it.mean())
share = np.mean(hits, axis=0)
names = [f"block {i}" for i in config.gated_layers] + ["covering"]
figure, axis = plt.subplots(figsize=(5, 2.3))
axis.bar(names, share, color=[BLUE] * (len(names) - 1) + [ORANGE])
axis.axhline(np.mean(chance), color="black", ls="--", lw=1)
axis.set(ylim=(0, 1), ylabel="on the right thing", title=f"{len(hits)} words; dashed: a random cell")
plt.show()
for name, value in zip(names, share, strict=True):
    low, high = interval(np.array(hits)[:, names.index(name)])[1]
    print(f"{name:10s} {value:.2f}   {low:.2f} to {high:.2f}")

# %% [markdown]
# The first block looks about; from block to block a word's look comes to rest on its thing. Covering asks what
# *would have happened* without the cell, so it is the one to trust about causes. An attention map says what
# was weighed, and that a weighed thing mattered is a guess, often a good one. For how much it mattered, cover
# it.

# %% [markdown]
# ## The gradient of a softmax, by hand
#
# What would it take to change a look? For weights `a = softmax(s)` the derivative is
#
#     d a_r / d s_j  =  a_r (1 if r is j, else 0)  -  a_r a_j

# %%
scores = np.random.default_rng(5).standard_normal(4)


def softmax(s):
    e = np.exp(s - s.max())
    return e / e.sum()


a = softmax(scores)
by_hand = np.array([[a[r] * (r == j) - a[r] * a[j] for j in range(4)] for r in range(4)])
by_difference = np.stack([(softmax(scores + d) - softmax(scores - d)) / 2e-6 for d in 1e-6 * np.eye(4)], axis=1)
sure = softmax(20 * scores)
print("they agree:", np.allclose(by_hand, by_difference, atol=1e-8))
print(f"largest derivative: {np.abs(by_hand).max():.2f}; of a softmax that is sure: {(sure * (1 - sure)).max():.0e}")

# %% [markdown]
# A softmax that is sure has hardly any gradient left. That is why scores are divided by `sqrt(K)`: without it
# they would start large, and looks would be frozen before they were learned.

# %% [markdown]
# ## Break it: a picture of nothing
#
# **Predict.** A plain grey picture, and the question of its colour. What does an honest model say?

# %%
grey = np.full_like(picture, 128)
for name in ("color", "shape", "position"):
    found = tinyflamingo.complete(model, [grey, say.ask(name)])
    sure = np.exp(found["log_probs"][0])
    print(f"{say.QUESTIONS[name]:22s} {found['text']:15s} its first token has probability {sure:.2f}")

# %% [markdown]
# It answers anyway: in its world a question about a picture always had an answer. The paper lists the same of
# the 80B model, which at times describes what is not there. A fluent answer is no evidence that anything was
# seen.
#
# ## The lines of the library it became
#
# `tinyflamingo.complete` hands its arguments on to the first of these functions. Without `choose`, `generate` takes
# the likeliest token. `read_on` calls `flamingo` with the cache; `read_token` does so for one more token of each row.


# %%
show(complete)
show(generate)
show(gated_attention_map)
show(weights_of_the_library)
print("never written:", [tokenizer.piece(t) for t in NEVER])

# %% [markdown]
# ## In three sentences
#
# A prompt is a list of pictures, videos and words, and all applications are ways to write one: the model
# continues it, token by token, and a dialogue is a prompt that grows. What the language model knew from text
# it can say about a picture, best after naming what it sees. Attention maps show what was weighed, covering
# shows what mattered.
#
# **Try it.** Draw a picture in any program, load it with `tinyflamingo.data.images.load_picture`, and ask.
# Ask the same question with the answers of a dialogue exchanged for wrong ones. Lay the maps of a video's
# frames side by side.
#
# **Read on.** [The paper](https://arxiv.org/abs/2204.14198), figure 1, appendix B.1.5 for prompts and
# appendix D.1 for what goes wrong. `python -m tinyflamingo complete --json` prints tokens, log-probabilities
# and `phi`. `tinyflamingo/studies/attention_maps.py` has both kinds of maps.
