# %% [markdown]
# # Applications: pictures where words could stand
#
# *chapter: §5 · minutes: 110 to read and do, one to run · key: applications*
#
# A trained Flamingo continues a prompt. The prompt decides what it is used for. A picture can replace a word, a
# question can follow a video, or a prompt can be a conversation. This notebook uses the shipped checkpoint. Then
# it looks inside the model while it answers: which part of the picture did the model look at when it wrote "red"?
#
# **You will build** greedy decoding, a visual dialogue, the attention weights of a gated block, and the map from
# these weights back to the cells of the picture.
#
# **You will not** train anything, and you will not write a beam search (`decoding/beams.py` has one).
#
# **You can change it by hand**: `python -m tinyflamingo explore` opens a page in your browser. Add
# `#show=next,look` to its address. Then it shows the next words of any prompt, and where the model looked.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import ask, show, sliders

plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"
model = tinyflamingo.load()
config, params, frozen, tokenizer = model.config, model.params, model.frozen, model.tokenizer
rng = np.random.default_rng(10)

# %% [markdown]
# ## Three prompts
#
# *Figure: three rows. Two pictures that stand in a text as its subjects; the frames of a video with a question;
# one picture and a dialogue about it. What the model wrote is in colour; where it is wrong, the right answer
# follows in brackets.*

# %%
from tinyflamingo.demo import panels_figure, picture_for_words, video_question, visual_dialogue

panels_figure([make(model, rng) for make in (picture_for_words, video_question, visual_dialogue)])
plt.show()

# %% [markdown]
# In the chapter's first example a picture replaces the subject of a text, and the model completes the text with
# what it knows about the subject. It is the same here. In stage two the language model read where a red circle is
# found, before there were any pictures. In stage three the model saw pictures with such questions, but only for
# two thirds of the things that it saw. For the other third, such facts are in texts only. The first cell below uses
# the two thirds. The cell after it also uses the other third.

# %% [markdown]
# ## A picture instead of words
#
# We ask the same question twice: once after a description in words, and once after a picture:

# %%
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import ASKED, draw_scene, sample_single

print(f"{'thing':16s}{'told in words':20s}{'shown as a picture':22s}{'the texts say'}")
for _ in range(5):
    scene = sample_single(rng, ASKED)
    shape, colour = scene.things[0].kind
    words = ask(model, f"Output: {say.caption(scene)}", say.ask("place"))
    seen = ask(model, draw_scene(rng, scene), say.ask("place"))
    print(f"{colour + ' ' + shape:16s}{words:20s}{seen:22s}{say.knowledge(shape, colour)['place']}")

# %% [markdown]
# In most cases the picture gives the same answer as the words.
#
# **Predict.** For these things, training *had* pictures with such questions. For a third of the things it had
# none. The model has seen these things and has read about them. But training never asked for such a fact after a
# picture of them. Will the model know the answer? And will it know the answer if it first has to name what it
# sees?

# %%
from tinyflamingo.evaluation.metrics import interval
from tinyflamingo.evaluation.run import answer
from tinyflamingo.evaluation.tasks import knowledge, knowledge_direct, knowledge_heldout
from tinyflamingo.training.flamingo_stage import MediaFeatures

print(f"{'':42s}{'right':>6s}   95% interval")
for name, task in (
    ("asked in training", knowledge),
    ("not asked in training, asked directly", knowledge_direct),
    ("not asked in training, named first", knowledge_heldout),
):
    pool, queries = task(np.random.default_rng(11), 40)
    said = answer(model, queries, MediaFeatures(frozen, pool, config))
    score, (low, high) = interval([s == q.answer for s, q in zip(said, queries, strict=True)])
    print(f"{name:42s}{score:6.2f}   {low:.2f} to {high:.2f}")

# %% [markdown]
# It helps to name the thing first. The name then stands in the text, and the frozen language model can give facts
# for a name. It learned this in stage two. A picture does not have exactly the same effect on the hidden states
# as a word. There is a practical rule: *let a model write down what it sees before you ask what it knows.* We
# have tested this only on the toy.

# %% [markdown]
# ## A video
#
# A video is a medium with several frames. It gives as many visual tokens as a picture.
#
# **Predict.** We show the same frames in reverse order. What does the model say happens now? And what does it say
# if it sees only the first frame?

# %%
from tinyflamingo.data.tinyworld.scenes import draw_clip, sample_clip
from tinyflamingo.model.flamingo import encode_and_resample

clip = draw_clip(rng, sample_clip(rng, action="moves left"))
print("a picture: visual tokens (M, R, D) =", encode_and_resample(model, [clip[0]]).shape)
print("a video:   visual tokens (M, R, D) =", encode_and_resample(model, [clip]).shape)
print(f"\n{'drawn':14s}{'seen':22s}{'seen backwards':24s}first frame only")
for action in ("moves left", "moves up", "grows", "shrinks", "moves right"):
    video = draw_clip(rng, sample_clip(rng, action=action))
    said = [ask(model, v, say.ask("action")) for v in (video, video[::-1], video[:1])]
    print(f"{action:14s}{said[0]:22s}{said[1]:24s}{said[2]}")

# %% [markdown]
# In the reversed video "left" becomes "right", and "grows" becomes "shrinks". So the order of the frames has an
# effect on the words, through the temporal embedding of notebook 04. The model also answers for a single frame.
# It has no words for "I cannot tell", because it was never trained to say this.
#
# **What happens next?** In the chapter's second example, Flamingo sees frames of a video. It names the action and
# also its consequence. A later frame may show the consequence. If no frame shows it, the model must guess it from
# what it knows about the world. The toy names only the action. Each of its videos has one action and ends with
# it, and no text of its training says what follows from an action. So the toy can answer "what happens?", but
# "what happens next?" has no right answer in its world.

# %% [markdown]
# ## How it writes: one token, then the next
#
# The model gives logits for the next token. To write a text, take the token with the largest logit, put it after
# the prompt, and repeat this until `<EOC>` comes. Without a cache, this is:


# %%
from tinyflamingo.data.tinyworld.scenes import sample_pair
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.generate import log_softmax_allowed
from tinyflamingo.model.interleave import encode_document, phi


def write_by_loops(items, limit=24):
    """Greedy; computes the whole sequence again for every token. Returns the tokens, and how many were computed."""
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
# With a cache of keys and values, each token goes through the model only once. The cache also keeps the keys and
# values of the *picture*, because they do not depend on the text at all.

# %% [markdown]
# ### Exercise 10.1 · Greedy
# *difficulty: easy · minutes: 10*
#
# `next_logits(tokens)` takes a list of tokens and returns a vector, the logits of the next token. Return the list
# of *new* tokens. Stop at `eoc`, which is not part of the answer, or after `limit` tokens. The ids in `never`
# (padding, `<BOS>`, `<image>`) must not be written, even if their logits are the largest.


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
# ## Other ways to choose
#
# Greedy decoding takes the most likely token at every step. There are two other ways:
#
# - *Sampling* draws the next token at random, with the model's probabilities. The logits are first divided by a
#   number, the temperature. Below 1 it makes likely tokens more likely; above 1 it makes all tokens more equal.
# - *Beam search* keeps several texts at each step, the most likely ones so far. So the best text need not begin with
#   the most likely token. The paper writes its answers with 3 beams.
#
# Neither changes the model. They change only how a text is chosen from its probabilities. The figure uses the prompt
# "in the morning", the lines below it the prompt "a". Neither has a picture, so many texts can follow.
#
# **Predict.** Can greedy decoding miss the most likely text?
#
# *Figure: three groups of bars, the probabilities of the eight most likely next tokens at the temperatures 0.5, 1
# and 2. Their order stays the same. At 0.5 they differ more than at 1, at 2 they differ less.*


# %%
def next_tokens(axis, temperature, prompt, n=8):
    """Draw the probabilities of the n most likely next tokens."""
    tokens = encode_document([prompt], tokenizer, complete=False).tokens
    logits = flamingo(params, frozen, np.array([tokens]), phi([tokens]), encode_and_resample(model, []), config)[0, -1:]
    likely = np.exp(log_softmax_allowed(logits / temperature)[0])
    best = np.argsort(-likely)[:n]
    axis.bar(range(n), likely[best], color=BLUE)
    axis.set_xticks(range(n), [tokenizer.piece(t).strip("\u2581") for t in best], rotation=60)
    axis.set(ylim=(0, 1), title=f"temperature {temperature:g}")


figure, axes = plt.subplots(1, 3, figsize=(8, 2.2), sharey=True)
for axis, temperature in zip(axes, (0.5, 1, 2), strict=True):
    next_tokens(axis, temperature, "in the morning")
plt.show()
for beams in (1, 2, 3):
    result = tinyflamingo.complete(model, ["a"], beams=beams)
    print(f"{beams} beams: log-probability {np.sum(result['log_probs']):6.2f}   a {result['text']}")

# %% [markdown]
# With 1 beam, the search is greedy. It can miss a text that is more likely: the first token of that text looks a
# little worse, but what follows it is more likely. If a line with more beams shows another text with a higher
# log-probability, greedy decoding has missed that text. If all lines show the same text, it has missed none that
# the search found. For most questions about a picture, all ways give the same answer, because the model is sure of
# every token.
#
# **Turn it.** Run the next cell. Change the temperature and the number of beams.


# %%
def choose(temperature=1.0, beams=1, prompt="a"):
    figure, axis = plt.subplots(figsize=(5, 2.2))
    next_tokens(axis, temperature, prompt)
    plt.show()
    result = tinyflamingo.complete(model, [prompt], beams=beams)
    print(f"{beams} beams: log-probability {np.sum(result['log_probs']):6.2f}   {prompt} {result['text']}")


sliders(choose, temperature=(0.1, 3, 0.1), beams=(1, 5), prompt=["a", "in the morning", "the red circle"])

# %% [markdown]
# ## A dialogue
#
# A dialogue needs no new method: the prompt becomes longer. The picture stands once, at the beginning. Every
# question and every answer is put after it, so a later question can refer to them.

# %% [markdown]
# ### Exercise 10.2 · Hold a dialogue
# *difficulty: easy · minutes: 10*
#
# `ask(items)` continues a prompt, a list of pictures and strings, and returns the model's text. Ask all
# `questions` about `picture`, one after the other, and return the list of answers. For each question, the prompt
# holds the picture and the whole conversation so far.


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
# **Predict.** Why should the prompt not contain the picture again before each question? Think of `phi` and of the
# meaning of `<EOC>`.

# %%
question = say.ask("shape")
for items in ([picture, "Output:", fast["text"], question], [picture, "Output:", fast["text"], picture, question]):
    sequence = encode_document(items, tokenizer, complete=False)
    print("N =", len(sequence.media), " ".join(tokenizer.piece(t) for t in sequence.tokens))

# %% [markdown]
# A second picture closes the chunk. For the model it is the next example on the page, not the same conversation.
# Also, every copy of the picture is encoded again.

# %% [markdown]
# ## Where does it look?
#
# In each gated block there is one query per token and head. It is compared with the keys of the `R` visual tokens
# of the token's own picture. Softmax turns the scores into weights that sum to 1, one set of weights per head.
# The next cells compute them for one picture and its caption, with loops:

# %%
from tinyflamingo.model.flamingo import encode_media, resample
from tinyflamingo.model.interleave import make_batch

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
from tinyflamingo.model.flamingo import embed_with_eoc
from tinyflamingo.model.gated_xattn import media_keys_values
from tinyflamingo.studies.attention_maps import gated_attention_map


def weights_by_loops(q, k, phi):
    """q (T, H, K), k (M, R, H, K), phi (T,) -> weights (T, H, R) over the latents of each token's own medium."""
    T, H, K = q.shape
    R = k.shape[1]
    weights = np.zeros((T, H, R))
    for t in range(T):
        for h in range(H):
            if phi[t] == 0:
                continue  # no picture: the weights stay 0
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
# Compute the same without loops: from `q (T, H, K)`, `k (M, R, H, K)` and `phi (T,)` to weights `(T, H, R)`. A
# row with `phi` 0 is exactly zero. Scores can be large: do not let `exp` overflow.


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
# The layers themselves do not keep these weights, and the fast code never has all of them in memory at the same
# time. Therefore the function `attention_maps` computes them again, for all gated blocks: `(G, B, T, H, M, R)`.
#
# *Figure: two tables of tokens against visual tokens, one of the first gated block and one of the last. Darker
# means a larger share. The row of the token before the picture is empty.*

# %%
from tinyflamingo.studies.attention_maps import attention_maps

maps = attention_maps(params, frozen, batch.tokens, batch.phi, visual, config)
print("(G, B, T, H, M, R) =", maps.shape)
mean = maps[:, 0, :, :, 0].mean(axis=2)  # (G, T, R), over heads
figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), sharey=True)
for axis, place, title in zip(axes, (0, -1), ("first gated block", "last gated block"), strict=True):
    axis.imshow(mean[place], cmap="Purples", vmin=0, vmax=mean.max(), aspect="auto")
    axis.set(title=title, xlabel="visual token", xticks=range(R), yticks=range(T), yticklabels=pieces)
plt.show()

# %% [markdown]
# Different words look at different visual tokens, and the blocks differ too. But a visual token is not a place in
# the picture. It is a summary that one latent of the resampler has collected. A second table says which cells it
# comes from: `resampler_maps`. For each latent it has the weights over the `S` cells of the frame, followed by
# the weights over the `R` latents.

# %%
from tinyflamingo.studies.attention_maps import resampler_maps

latent_maps = resampler_maps(params["resampler"], features, config.resampler)  # (L, M, H, R, F S + R)
print("(L, M, H, R, F S + R) =", latent_maps.shape)
for layer, own in enumerate(latent_maps[..., :S].sum(-1).mean((1, 2, 3))):
    print(f"layer {layer}: {own:.2f} of the weight goes to cells, the rest to latents")

# %% [markdown]
# ### Exercise 10.4 · Back onto the picture
# *difficulty: medium · minutes: 10*
#
# `token_map (T, R)` says how much each token looks at each visual token. `latent_map (R, S + R)` says how much
# each latent looks at each cell, and then at each latent. Return `(T, S)`: how much each token looks at each cell
# through the latents. Leave out the weights that latents give to latents. Rows may therefore sum to less than 1.


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
# Now we draw the maps as grids beside the picture, one grid per word. For each word we take the token *before*
# it, because the model predicts the word at that position. We also ask a second question that needs no attention
# weights: how much does the probability of the word fall if one cell of the features is covered?
#
# *Figure: the picture, and two rows of small grids, one per word of the caption. Upper row: where the token
# before the word looked, brighter is more. Lower row: which cell, covered, lowers the word's probability most.*


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
words = [t for t in range(4, T) if pieces[t] not in (".", "<EOC>")]  # after <BOS> <image> Output :
figure, axes = plt.subplots(2, len(words) + 1, figsize=(9.5, 2.9))
costs = [f"-{cost:.2f}" for cost in lost.max(axis=1)]
for row, values, title, over in zip(
    axes, (looked.mean(axis=0), lost), ("looked at", "covered"), (pieces[1:], costs), strict=True
):
    row[0].imshow(picture)
    row[0].set_title(title, fontweight="bold")
    largest = values[np.array(words) - 1].max()
    for axis, t in zip(row[1:], words, strict=True):
        axis.imshow(values[t - 1].reshape(side, side), cmap="magma", vmin=0, vmax=largest)
        axis.set_title(over[t - 1])
    for axis in row:
        axis.set_axis_off()
plt.show()

# %% [markdown]
# The number over a grid of the lower row is the largest loss of log-probability from one covered cell, in nats.
# All grids of a row have the same scale. So you can compare the words: in the lower row, only words that need one
# certain cell have a bright one. In the upper row every word has a bright cell, because the softmax weights must sum
# to 1. But a bright cell may have no effect. For example, "of" after "left" does not depend on the picture, so
# covering costs nothing. Covering also costs little if other cells show the same. For colours this is often so.
#
# One picture proves little, so we count over many pictures of two things. For each colour or shape word: does the
# brightest cell lie on the thing that the word names?
#
# **Predict.** Which map is right most often: the first gated block, the last gated block, or covering? And how
# often is a random cell right?
#
# *Figure: bars, one per gated block and one for covering: the share of words whose brightest cell lies on the
# right thing. A dashed line shows the share for a random cell.*

# %%
rng, hits, chance = np.random.default_rng(12), [], []
rows, columns = np.divmod(np.arange(S), side)
step = config.vision.side / side  # pixels per cell
for _ in range(30):
    scene = sample_pair(rng)
    pieces, looked, lost = cell_maps(draw_scene(rng, scene), say.caption(scene))
    for thing, place in zip(scene.things, (0, -1), strict=True):
        on_it = np.hypot((columns + 0.5) * step - thing.x, (rows + 0.5) * step - thing.y) < thing.radius + step / 2
        for word in thing.kind:
            places = [t - 1 for t, piece in enumerate(pieces) if piece == word]
            if places:
                maps = [*(block[places[place]] for block in looked), lost[places[place]]]
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
# The first block does not look at one place only. In later blocks, more of the weight of a word lies on its own
# thing. Covering measures what *would happen* without the cell. Therefore use covering for questions about
# causes. An attention map shows weights. A large weight does not prove that the cell had an effect on the answer,
# although it often had one.

# %% [markdown]
# ## The gradient of a softmax, by hand
#
# How do the weights change when a score changes? For weights `a = softmax(s)` the derivative is
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
# If one weight is near 1, a softmax has almost no gradient. This is the reason why scores are divided by
# `sqrt(K)`. Without the division the scores would be large at the start, and the attention could hardly learn.

# %% [markdown]
# ## Break it: a picture of nothing
#
# **Predict.** We show a plain grey picture and ask for its colour, shape and place. What would an honest model
# say?

# %%
grey = np.full_like(picture, 128)
for name in ("color", "shape", "position"):
    result = tinyflamingo.complete(model, [grey, say.ask(name)])
    sure = np.exp(result["log_probs"][0])
    print(f"{say.QUESTIONS[name]:22s} {result['text']:15s} its first token has probability {sure:.2f}")

# %% [markdown]
# The model answers anyway. In its world every question about a picture has an answer. The paper reports the same
# problem for the 80B model: sometimes it describes things that are not in the picture. A fluent answer does not
# prove that the model has seen something.
#
# ## In the library
#
# `tinyflamingo.complete` passes its arguments to the first of these functions. Without `choose`, `generate` takes
# the token with the largest logit. `read_on` calls `flamingo` with the cache; `read_token` does this for one more
# token of each row.


# %%
from tinyflamingo.decoding.complete import complete
from tinyflamingo.model.generate import NEVER, generate
from tinyflamingo.studies.attention_maps import attention_weights as weights_of_the_library

show(complete)
show(generate)
show(gated_attention_map)
show(weights_of_the_library)
print("never written:", [tokenizer.piece(t) for t in NEVER])

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("10")

# %%
check_quiz("10", ".....")

# %% [markdown]
# ## In three sentences
#
# A prompt is a list of pictures, videos and words, and the model continues it token by token; all applications,
# also a dialogue, are such prompts. The model can use facts that the language model knows from text for a
# picture, best if it first names what it sees. Attention maps show weights, and covering shows effects.
#
# **Try it.** Draw a picture in any program, load it with `tinyflamingo.data.images.load_picture`, and ask about
# it. Put wrong answers into a dialogue and ask the same question again. Draw the maps of the frames of a video
# side by side.
#
# **Further reading.** [The paper](https://arxiv.org/abs/2204.14198), figure 1, appendix B.1.5 for prompts and
# appendix D.1 for its limits. `python -m tinyflamingo complete --json` prints tokens, log-probabilities and `phi`.
# `tinyflamingo/studies/attention_maps.py` has both kinds of maps.
