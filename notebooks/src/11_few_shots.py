# %% [markdown]
# # Few shots against specialists
#
# *chapter: §5 · minutes: 115 to read and do, one to run · key: few_shot*
#
# The most important claim of the paper is a comparison. On one side is one model that is not trained for the
# task; it sees only a few examples in its prompt. On the other side are models that were trained for this task
# only. On some tasks the first model is better. In this notebook you make the same comparison with a toy. A fair
# comparison needs three things: strong specialists, intervals, and a control that must fail.
#
# **You will build** an interval for a share of right answers, two specialists on frozen features, the gradient of
# one of them by hand, and the choice of examples that the paper calls RICES.
#
# **You will not** train Flamingo. Its weights do not change in this notebook.

# %%
from dataclasses import replace

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import ask, show, sliders
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_single
from tinyflamingo.demo import few_shot as few_shot_panel
from tinyflamingo.demo import panels_figure
from tinyflamingo.evaluation import tasks
from tinyflamingo.evaluation.metrics import interval
from tinyflamingo.evaluation.retrieval import pooled
from tinyflamingo.evaluation.retrieval import rices as rices_of_the_library
from tinyflamingo.evaluation.run import answer
from tinyflamingo.training.flamingo_stage import MediaFeatures

plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
model = tinyflamingo.load()

# %% [markdown]
# ## One prompt
#
# *Figure: four pictures, each followed by one of two invented words, then a fifth picture, and the word that the
# model writes.*

# %%
panels_figure([few_shot_panel(model, np.random.default_rng(1))])
plt.show()

# %% [markdown]
# The words are invented. No text of any stage of training contained them. In each prompt, the pictures before the
# words define their meaning: a colour, a shape, or both. In the next prompt the same word can mean something
# else. One right answer proves nothing: with two words, a random choice is right half of the time. So we ask many
# times.
#
# **Turn it.** Such a prompt is called an episode. Run the next cell. Change the number of examples, and draw other
# episodes. How many examples does the model need?


# %%
def one_episode(shots=2, number=0):
    pool, (asked,) = tasks.few_shot(np.random.default_rng([number, shots]), 1, say.NEW_WORDS, shots=shots)
    prompt = [item if isinstance(item, str) else pool.pictures[item.index] for item in asked.prompt]
    figure, axes = plt.subplots(1, 2 * shots + 1, figsize=(10, 1.5))
    for axis, image, word in zip(axes, prompt[::2], [*prompt[1::2], f"[{ask(model, *prompt)}]"], strict=True):
        axis.imshow(image)
        axis.set(xticks=(), yticks=(), title=word)
    plt.show()
    print("right answer:", asked.answer)


sliders(one_episode, shots=(1, 5), number=(0, 20))

# %% [markdown]
# ## How sure is a share?
#
# **Predict.** A model answers twenty questions, and all twenty answers are right. Is the model always right?
# Suppose that its true share of right answers is 0.9. How often would you see twenty of twenty?

# %%
rng = np.random.default_rng(0)
runs = rng.random((10_000, 20)) < 0.9
print("true share 0.90; runs of 20 with 20 right:", f"{(runs.sum(axis=1) == 20).mean():.2f}")
p, n = 1.0, 20
print("p +- 1.96 sqrt(p (1 - p) / n):", f"{p:.2f} +- {1.96 * np.sqrt(p * (1 - p) / n):.2f}")
print("Wilson's interval:            ", "{:.2f} to {:.2f}".format(*interval(np.ones(n))[1]))

# %% [markdown]
# The well-known formula gives "1.00 plus or minus 0.00" for twenty of twenty, although twenty questions cannot
# prove this. Wilson's interval asks the opposite question: for which true shares `p` would the observed share not
# be surprising? These are all `p` with `|seen - p| <= z sqrt(p (1 - p) / n)`. The number `z` says how many standard
# deviations are not surprising: 1.96 for an interval of 95%. Square both sides. This gives a quadratic inequality
# in `p`, and the two solutions of the equation are the ends of the interval. The next cell checks this by trying
# many values of `p`:


# %%
def interval_by_loops(hits, z=1.96, steps=20_000):
    """Try every p: keep those for which the seen share is not surprising."""
    seen, n = sum(hits) / len(hits), len(hits)
    kept = [p for p in (i / steps for i in range(steps + 1)) if abs(seen - p) <= z * (p * (1 - p) / n) ** 0.5 + 1e-12]
    return min(kept), max(kept)


for right in (20, 17, 10, 0):
    hits = np.arange(20) < right
    slow, fast = interval_by_loops(hits), interval(hits)[1]
    print(f"{right:2d} of 20: {slow[0]:.3f} to {slow[1]:.3f}   the same: {np.allclose(slow, fast, atol=2e-4)}")

# %% [markdown]
# ### Exercise 11.1 · Wilson's interval
# *difficulty: medium · minutes: 15*
#
# Solve the quadratic equation: with the share `s` of `n`, find the two `p` for which
# `(s - p)² = z² p (1 - p) / n`. `hits` is a vector of 0 and 1 (or of truth values). Return `(low, high)`. Use the
# argument `z`: it is not always 1.96.


# %% exercise 11.1
def wilson(hits, z=1.96):
    # solution
    n, s = len(hits), np.mean(hits)
    middle = (s + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(s * (1 - s) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)
    # end of solution


# %% check 11.1
from tinyflamingo.checks import check_11_1_wilson

check_11_1_wilson(wilson)

# %% [markdown]
# ## Episodes
#
# Our episodes are prompts of this kind: two classes, `k` pictures of each class in mixed order, and a query. We
# draw new episodes from a random stream that was not used in training. We keep three things: the prompts for
# Flamingo, the frozen features of all pictures for the specialists, and the right answers.

# %%
SHOTS, WAYS = (1, 2, 4, 8, 16), 2


def episodes(k, n=60, seed=0):
    """n episodes, k shots per class: queries and media for Flamingo; support, labels, query, target for the others."""
    rng = np.random.default_rng([2027, seed, k])
    pool, queries = tasks.few_shot(rng, n, say.NEW_WORDS, ways=WAYS, shots=k)
    media = MediaFeatures(model.frozen, pool, model.config)
    seen = pooled(media.pictures)  # (M, Dv): the mean over frames and cells
    words = [sorted({item for item in q.prompt if isinstance(item, str)}) for q in queries]
    labels = np.array([[w.index(x) for x in q.prompt[1::2]] for q, w in zip(queries, words, strict=True)])
    target = np.array([w.index(q.answer) for q, w in zip(queries, words, strict=True)])
    index = np.array([[medium.index for medium in q.prompt[::2]] for q in queries])  # (n, WAYS k + 1)
    return queries, media, seen[index[:, :-1]], labels, seen[index[:, -1]], target


queries, media, support, labels, query, target = episodes(4)
print(
    "prompt:",
    " ".join(x if isinstance(x, str) else f"<image {x.index}>" for x in queries[0].prompt),
    "->",
    queries[0].answer,
)
print("support (n, WAYS k, Dv) =", support.shape, " labels =", labels.shape, " query (n, Dv) =", query.shape)

# %% [markdown]
# ## A specialist: the nearest prototype
#
# The simplest specialist computes the mean of the features of each class, the *prototype* of the class. It chooses
# the class whose mean is nearest to the query. The specialist gets the same pictures as Flamingo, through the same
# frozen encoder. It can do this one task only.


# %%
def prototypes_by_loops(support, labels, query):
    """One episode: support (n, D), labels (n,), query (D,) -> the class."""
    distances = []
    for c in range(WAYS):
        members = [x for x, label in zip(support, labels, strict=True) if label == c]
        prototype = sum(members) / len(members)
        distances.append(sum((query - prototype) ** 2))
    return distances.index(min(distances))


def nearest_prototypes(support, labels, query):
    """All episodes, one after the other: (E, n, D), (E, n), (E, D) -> (E,)."""
    return np.array([prototypes_by_loops(*episode) for episode in zip(support, labels, query, strict=True)])


print(f"right: {np.mean(nearest_prototypes(support, labels, query) == target):.2f}")

# %% [markdown]
# ### Exercise 11.2 · Prototypes
# *difficulty: easy · minutes: 10*
#
# Write it for one episode and any number of classes. The labels are 0, 1, 2 and so on, and the classes may have
# different numbers of examples. The inputs are `support (n, D)`, `labels (n,)` and `queries (m, D)`. Return the
# class of every query, `(m,)`.


# %% exercise 11.2
def classify(support, labels, queries):
    # solution
    classes = np.arange(labels.max() + 1)
    prototypes = np.stack([support[labels == c].mean(axis=0) for c in classes])
    distances = np.sum((queries[:, None] - prototypes) ** 2, axis=-1)  # (m, C)
    return distances.argmin(axis=-1)
    # end of solution


# %% check 11.2
from tinyflamingo.checks import check_11_2_classify

check_11_2_classify(classify)

# %% [markdown]
# ## A better specialist: the linear probe
#
# The second specialist *learns*. It is a linear layer on the features with a softmax, trained on the examples of
# the episode by many steps of gradient descent. It can learn which features separate the classes and which do
# not. With `X (n, D)`, weights `W (D, C)` and `P = softmax(X W)`:
#
#     loss  =  mean over examples of -log P[i, label i]  +  decay / 2 · sum of W²
#     d loss / d W  =  Xᵀ (P - Y) / n  +  decay · W              Y: one-hot labels
#
# ### By hand, for one number

# %%
rng = np.random.default_rng(3)
X, y, W, decay = rng.standard_normal((5, 3)), np.array([0, 1, 1, 0, 1]), rng.standard_normal((3, 2)), 0.1


def probe_loss(W):
    scores = X @ W
    return -np.mean(scores[np.arange(5), y] - np.log(np.exp(scores).sum(axis=1))) + decay / 2 * np.sum(W**2)


d, c = 2, 1  # the weight from feature 2 to class 1
by_hand = decay * W[d, c]
for i in range(5):
    p = np.exp(X[i] @ W[:, c]) / sum(np.exp(X[i] @ W[:, other]) for other in range(2))
    by_hand += X[i, d] * (p - (y[i] == c)) / 5
nudge = np.zeros_like(W)
nudge[d, c] = 1e-6
print(f"by hand {by_hand:.6f}, by finite difference {(probe_loss(W + nudge) - probe_loss(W - nudge)) / 2e-6:.6f}")

# %% [markdown]
# ### Exercise 11.3 · The gradient of the probe
# *difficulty: medium · minutes: 15*
#
# Write the whole gradient without loops, from `X (n, D)`, `labels (n,)`, `W (D, C)` and `decay`. Return the
# gradient, `(D, C)`.


# %% exercise 11.3
def probe_gradient(X, labels, W, decay):
    # solution
    scores = X @ W
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P = P / P.sum(axis=1, keepdims=True)
    Y = np.eye(W.shape[1])[labels]
    return X.T @ (P - Y) / len(X) + decay * W
    # end of solution


# %% check 11.3
from tinyflamingo.checks import check_11_3_probe_gradient

check_11_3_probe_gradient(probe_gradient)

# %% [markdown]
# Here autograd computes the gradient, for the probes of all episodes at the same time.


# %%
def linear_probes(support, labels, query, steps=150, rate=0.5, decay=0.01):
    """One probe per episode, trained from zero: (E, n, D), (E, n), (E, D) -> (E,)."""
    spread = support.std(axis=1, keepdims=True) + 0.1
    middle = support.mean(axis=1, keepdims=True)
    X, Q = (support - middle) / spread, (query[:, None] - middle) / spread
    Y = np.eye(WAYS, dtype=np.float32)[labels]
    E, n, D = X.shape

    def loss(tree):
        scores = anp.einsum("end,edc->enc", X, tree["W"])
        losses = anp.log(anp.sum(anp.exp(scores), axis=-1)) - anp.sum(scores * Y, axis=-1)
        return anp.sum(losses) / n + decay / 2 * anp.sum(tree["W"] ** 2)

    tree = {"W": np.zeros((E, D, WAYS), np.float32)}
    for _ in range(steps):
        tree["W"] = tree["W"] - np.float32(rate / np.sqrt(D)) * ops.value_and_grad(loss)(tree)[1]["W"]
    return np.einsum("eqd,edc->ec", Q, tree["W"]).argmax(axis=-1)


print(f"right with 4 shots: {np.mean(linear_probes(support, labels, query) == target):.2f}")

# %% [markdown]
# ## The curves
#
# **Predict.** Draw the curves before you run the cells: Flamingo, prototypes and probe, against the number of
# shots per class, from 1 to 16. Which one is best with one shot? Which one with sixteen? There is also a control:
# the words of each prompt are shuffled. Where will its curve be?


# %%
def shuffled(queries, rng):
    """The same prompts, with the words of the examples in random order."""
    renamed = []
    for q in queries:
        words = iter(rng.permutation(q.prompt[1::2]))
        renamed.append(replace(q, prompt=[str(next(words)) if isinstance(item, str) else item for item in q.prompt]))
    return renamed


def flamingo_is_right(queries, media):
    """Whether the model wrote the right word, to the last character, (n,)."""
    return np.array([said == q.answer for said, q in zip(answer(model, queries, media), queries, strict=True)])


hits = {"Flamingo": {}, "nearest prototype": {}, "linear probe": {}, "Flamingo, words shuffled": {}}
for k in SHOTS:
    queries, media, support, labels, query, target = episodes(k)
    hits["Flamingo"][k] = flamingo_is_right(queries, media)
    hits["Flamingo, words shuffled"][k] = flamingo_is_right(shuffled(queries, np.random.default_rng(k)), media)
    hits["nearest prototype"][k] = nearest_prototypes(support, labels, query) == target
    hits["linear probe"][k] = linear_probes(support, labels, query) == target

# %% [markdown]
# *Figure: share of right answers against shots per class, with 95% intervals: Flamingo, nearest prototype, linear
# probe, and Flamingo with shuffled words near the dashed line of chance, one half.*

# %%
figure, axis = plt.subplots(figsize=(6.5, 3.2))
styles = {"Flamingo": (BLUE, "o-"), "nearest prototype": (GREEN, "s--"), "linear probe": (ORANGE, "^-.")}
for shift, (name, by_shots) in enumerate(hits.items()):
    colour, style = styles.get(name, (PINK, "x:"))
    share = np.array([interval(by_shots[k])[0] for k in SHOTS])
    ends = np.array([interval(by_shots[k])[1] for k in SHOTS]).T
    at = np.array(SHOTS) * 1.04 ** (shift - 1.5)
    axis.errorbar(at, share, np.abs(ends - share), fmt=style, color=colour, label=name, capsize=2, lw=1.2)
axis.axhline(1 / WAYS, color="0.4", ls="--", lw=0.8)
axis.set(xscale="log", xticks=SHOTS, xticklabels=SHOTS, xlabel="shots per class", ylabel="right", ylim=(0, 1.03))
axis.minorticks_off()
axis.legend(frameon=False, loc="lower left", ncols=2)
plt.show()
print(f"{'shots per class':26s}" + "".join(f"{k:>8d}" for k in SHOTS) + f"      n = {len(target)} each")
for name, by_shots in hits.items():
    print(f"{name:26s}" + "".join(f"{np.mean(by_shots[k]):8.2f}" for k in SHOTS))

# %% [markdown]
# There are three results. First, with one or two shots Flamingo can be ahead. It knows from training which
# differences matter: the texts of its world speak about colour and shape, and the new words never mean size,
# place or background. The prototype of one picture contains all of these.
#
# Second, with many shots the probe learns from the examples which features matter. The prototype gives all
# features the same weight, so it cannot learn this.
#
# Third, the control falls to chance. So the model uses the *binding* of words to pictures in this prompt. To know
# which words can occur is not enough.
#
# Look at the intervals. Where they overlap, this run cannot show which one is better. And about one of twenty
# such intervals does not contain the true value. So a single point of the control next to the line does not prove
# anything.

# %% [markdown]
# ## Which examples?
#
# If there is a large set of labelled pictures, one can choose examples that fit the query. The paper takes the
# nearest pictures in the features of the frozen encoder. It calls this method RICES,
# *retrieval-based in-context example selection*. It puts the **most similar example last**, next to the query, so
# that it is near the answer.

# %% [markdown]
# ### Exercise 11.4 · The most similar, last
# *difficulty: easy · minutes: 10*
#
# The inputs are `query (D,)` and `support (n, D)`. Return the indices of the `k` rows with the largest cosine
# similarity to the query, with the most similar at the end. The lengths of the feature vectors must have no
# influence.


# %% exercise 11.4
def rices(query, support, k):
    # solution
    cosine = support @ query / (np.linalg.norm(support, axis=1) * np.linalg.norm(query))
    return np.argsort(cosine)[-k:]
    # end of solution


# %% check 11.4
from tinyflamingo.checks import check_11_4_rices

check_11_4_rices(rices)

# %% [markdown]
# ## Break it: the query among the examples
#
# A comparison is worth nothing if test data are among the training data. To see this, we give every picture a
# random label, so that there is *nothing* to learn. Then we use one of the support pictures as the query.
#
# **Predict.** What score does a nearest-neighbour specialist get with this leak, and without it?

# %%
queries, media, support, labels, query, target = episodes(8, seed=1)
rng = np.random.default_rng(4)
coin = rng.integers(0, WAYS, labels.shape)
leaked = rng.integers(0, labels.shape[1], len(labels))
rows = np.arange(len(labels))


def nearest_neighbour(support, labels, query):
    return labels[np.arange(len(labels)), np.sum((support - query[:, None]) ** 2, axis=-1).argmin(axis=1)]


for name, asked, right in (
    ("query among the examples", support[rows, leaked], coin[rows, leaked]),
    ("another query", query, rng.integers(0, WAYS, len(labels))),
):
    correct = nearest_neighbour(support, coin, asked) == right
    score, (low, high) = interval(correct)
    print(f"{name:26s} {score:.2f}   {low:.2f} to {high:.2f}")

# %% [markdown]
# The labels have no meaning, but the score with the leak is perfect. No error message appears, and the number
# looks like a success. Therefore every task here draws new pictures for support and query. For the same reason
# the paper searched its training pairs for pictures of the test sets and removed those that it found. For three
# of the test sets it did not do this search.

# %% [markdown]
# ## A task without a question
#
# The words of an episode are new, but the kind of task is always the same: a word for each class. Can examples
# tell *any* task? A prompt of this kind is a list of pictures, each followed by its answer. No question says what
# the answers mean. The reader must find out: is it the colour? the place? both?
#
# This model was trained on many such tasks, but `held_out` in `data/tinyworld/tasks.py` keeps sixteen families of
# them out of all training. One of them is the position alone. (The paper's Flamingo was not trained on prompts of
# tasks at all: its web pages have such forms by themselves. See `docs/deviations.md`.)


# %%
def told_prompt(rng, task, k):
    """k pictures with their answers, a new picture, and the right answer for it."""
    items, scene = [], None
    for _ in range(k + 1):
        scene = sample_single(rng)
        items += [draw_scene(rng, scene), task(scene)]
    return items[:-1], items[-1]


def position(scene):
    return f"{scene.things[0].position}."


for k in (1, 2, 4, 8):
    prompt, right = told_prompt(np.random.default_rng(k), position, k)
    answers = ", ".join(item for item in prompt if isinstance(item, str))
    print(f"shown {answers}   written: {ask(model, *prompt)}   right: {right}")

# %% [markdown]
# **Predict.** Here are three tasks that you can read in one line each. Which one does the model learn from
# eight examples, which one not? What does it write without any example?


# %%
def share_told(task, k, n=40):
    """Share of right answers after k examples."""
    prompts = [told_prompt(np.random.default_rng([2028, k, i]), task, k) for i in range(n)]
    return np.mean([ask(model, *prompt) == right for prompt, right in prompts])


def shape_and_size(scene):
    return f"{scene.things[0].shape} {scene.things[0].size}."


def opposite_size(scene):
    return {"small": "large.", "medium": "medium.", "large": "small."}[scene.things[0].size]


TASKS_OF_MINE = {"position": position, "shape and size": shape_and_size, "opposite of the size": opposite_size}
for name, task in TASKS_OF_MINE.items():
    print(f"{name:22s}", *(f"{k} examples: {share_told(task, k):.2f}  " for k in (0, 1, 4, 8)))

# %% [markdown]
# Without an example the model cannot know what to write. One example can be too few, because the same answer can
# fit several tasks. If the task only names what the picture shows, examples help. With 40 questions the score can
# also fall a little from one number of examples to the next. The opposite of the size gives each word another
# meaning. Compare its score with a guess among three sizes, 0.33.
#
# Now invent a task of your own: any function of a scene that returns a short text with a full stop. Put it into
# `TASKS_OF_MINE` and run the cell again. `scene.things[0]` has `shape`, `colour`, `size` and `position`. A task
# that names one or two properties of a single thing is usually easier than one that renames them: compare with the
# suite's table in `docs/results.md`.

# %% [markdown]
# ## The paper's claim
#
# The figure compares Flamingo-80B with 32 examples in its prompt and the best model that was fine-tuned on each
# task's own training set (the paper's table 1). The tasks have different metrics. Therefore each score is divided
# by the score of the best fine-tuned model.
#
# *Figure: fifteen horizontal bars, one per task, the score of Flamingo with 32 shots divided by that of the best
# fine-tuned model. Six bars are longer than 1.*

# %%
# task: (Flamingo-80B, best fine-tuned); 32 shots, VisDial 16: more did not fit into its context
TABLE = """
OKVQA     57.8  54.4   VQAv2    67.6  80.2   COCO        113.8 143.3   MSVDQA   52.3  47.9   VATEX        65.1  76.3
VizWiz    49.8  57.2   Flickr30k 75.4 67.4   MSRVTTQA     31.0  46.8   iVQA     45.3  35.4   YouCook2     86.8 138.7
STAR      42.2  36.7   VisDial  56.8  75.2   TextVQA      37.9  54.7   NextQA   33.5  25.2   HatefulMemes 70.0  79.1
""".split()
scores = zip(TABLE[::3], map(float, TABLE[1::3]), map(float, TABLE[2::3]), strict=True)
ratio = dict(sorted(((task, few / tuned) for task, few, tuned in scores), key=lambda item: item[1]))
figure, axis = plt.subplots(figsize=(6, 3.4))
axis.barh(list(ratio), list(ratio.values()), color=[BLUE if r > 1 else "0.7" for r in ratio.values()])
axis.axvline(1, color="black", lw=0.8)
axis.set(xlabel="32 shots / best fine-tuned", xlim=(0, 1.45))
plt.show()
print("better than the fine-tuned specialist on", sum(r > 1 for r in ratio.values()), "tasks")

# %% [markdown]
# Flamingo is better on six of sixteen tasks. The sixteenth task is not in the figure, because no fine-tuned model
# existed for it. On every task for which the specialists had more than a hundred thousand examples, they are
# ahead. On ten tasks they had fewer than fifty thousand, and Flamingo is better on six of these. The toy's curves
# show something similar on a small scale: with few examples, a model that knows its world is better; with many
# examples, the specialist catches up.
#
# ## In the library


# %%
show(interval)
show(rices_of_the_library)

# %% [markdown]
# `evaluation/specialists.py` has more specialists. One of them trains an encoder together with its head.
# `python -m tinyflamingo evaluate --suite` compares them with Flamingo on sixteen tasks, as the paper's table
# does, and on sixteen families of tasks explained only by examples.
#
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("11")

# %%
check_quiz("11", ".....")

# %% [markdown]
# ## In three sentences
#
# A task can be given as examples in a prompt, and the model solves it without any change of its weights; with
# shuffled words it falls to chance, so it uses which word belongs to which picture. With few examples the generalist
# can be better than specialists on the same frozen features; with many examples it often is not. A share of right
# answers is a result only with an interval, a control and a clean split.
#
# **Try it.** Set `WAYS` to 4; chance is then lower. Use `say.TEXT_WORDS` as the words. Use your `rices` to choose
# the examples from a large pool: does their order change the toy's answers?
#
# **Further reading.** [The paper](https://arxiv.org/abs/2204.14198), table 1, section 3.1 and appendix A.2.
# Prototypes: [arXiv 1703.05175](https://arxiv.org/abs/1703.05175). Every task of this code is in
# `tinyflamingo/evaluation/tasks.py`.
