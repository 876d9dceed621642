# %% [markdown]
# # A video is a row of pictures
#
# *chapter: §2, video · minutes: 75 to read and do, half a minute to run · key: video*
#
# You need notebook 00. Notebook 05 continues from here.
#
# In this notebook you take one frame per second from a video with an uneven frame rate. You add to every frame a
# learned vector for its time (a temporal embedding, here called a stamp). You stretch eight learned stamps over
# thirty frames. At the end you test what the toy says about a video whose frames were shuffled. You will not see a
# network that measures motion. The encoder sees one frame at a time, and the stamps carry all information about
# time.
#
# Letters: `M` media, `F` frames, `S` features of a frame, `D` width.

# %%
import os

os.environ.setdefault("TINYFLAMINGO_OPS", "reference")  # plain NumPy: easy to step through, nothing to compile

import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import clip, show, sliders
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import ACTIONS, draw_clip, sample_clip
from tinyflamingo.data.video import load_video, write_video
from tinyflamingo.decoding.beams import score_continuations
from tinyflamingo.model import perceiver_resampler as library
from tinyflamingo.model.flamingo import encode_media, resample
from tinyflamingo.model.interleave import encode_document, make_batch

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # also distinct for colour-blind readers
plt.rcParams.update({"figure.dpi": 70, "font.size": 9, "figure.constrained_layout.use": True})
model = tinyflamingo.load()
config, table = model.config, model.params["resampler"]["temporal"]
rng = np.random.default_rng(2022)


# %% [markdown]
# ## Eight frames
#
# *Figure: three rows of eight small pictures each, three videos: something moves to the left, something grows,
# something vanishes.*

# %%
watched = {action: clip(rng, action) for action in ("moves left", "grows", "vanishes")}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2))
for row, (action, video) in zip(axes, watched.items(), strict=True):
    for t, (axis, frame) in enumerate(zip(row, video, strict=True)):
        axis.imshow(frame)
        axis.set(xticks=(), yticks=(), title=f"{t} s" if action == "moves left" else "")
    row[0].set_ylabel(action)
plt.show()
video = watched["moves left"]
print("a video (F, Y, X, 3) =", video.shape)

# %% [markdown]
# For training, the paper takes one frame per second and eight frames per video. Every frame goes through the
# frozen encoder separately. So for the encoder a video is nothing new: `M` videos of `F` frames are `M * F`
# pictures.

# %%
one_by_one = np.stack([encode_media(model.frozen, frame[None, None], config)[0, 0] for frame in video])
together = encode_media(model.frozen, video[None], config)
print("one by one (F, S, D) =", one_by_one.shape, "  together (M, F, S, D) =", together.shape)
print("loop and batch agree:", bool(np.abs(together[0] - one_by_one).max() < 1e-3 * np.abs(one_by_one).max()))

# %% [markdown]
# ## One frame per second
#
# A video file has 25, 30 or 60 frames per second. In a video from a phone this number can even change during the
# video. So the time of a frame is what counts, not its number. The times in a file need not start at 0.

# %% [markdown]
# ### Exercise 04.1 · Which frames to take
# *difficulty: easy · minutes: 10*
#
# You get the times of all frames, in seconds and increasing. Return the numbers of the frames to take. The moments
# are 0, `1 / fps`, `2 / fps`, ... after the *first* frame. For each moment, take the first frame at this moment or
# after it. Stop when there is no such frame. If the gap between two frames is longer than `1 / fps`, several moments
# can lie in it. All of them take the frame after the gap, so its number appears several times in the list.


# %% exercise 04.1
def frames_to_take(times, fps=1.0):
    """times (n,), increasing -> the numbers of the frames to take, a list of int."""
    # solution
    since = np.asarray(times) - times[0]
    moments = np.arange(int(since[-1] * fps) + 1) / fps
    return [int(np.argmax(since >= moment)) for moment in moments]
    # end of solution


# %% check 04.1
from tinyflamingo.checks import check_04_1_frames_to_take

check_04_1_frames_to_take(frames_to_take)

# %% [markdown]
# The library chooses the frames while it decodes the file. So a long video needs memory for the chosen frames
# only. The next cell reads a real file that was written at 8 frames per second.

# %%
with tempfile.TemporaryDirectory() as folder:
    film = Path(folder) / "film.mp4"
    write_video(film, clip(rng, "moves up", frames=25), fps=8)
    for fps in (1, 2):
        print(f"25 frames at 8 per second, taken at {fps} per second: (F, Y, X, 3) =", load_video(film, fps=fps).shape)

# %% [markdown]
# ## A stamp for every frame
#
# The features of all frames become one long sequence. In this sequence nothing would tell the first frame from the
# last. So a learned vector is first added to all features of a frame: one vector for frame 0, another for frame 1,
# and so on. (The chapter calls the sequence one vector. It is a sequence of `F * S` vectors of width `D`. Only the
# grid is flattened.) With loops:


# %%
def stamp_with_loops(features, time):
    """features (M, F, S, D), time (F, D) -> (M, F, S, D)."""
    out = features.copy()
    for m in range(features.shape[0]):
        for t in range(features.shape[1]):
            for s in range(features.shape[2]):
                out[m, t, s] += time[t]
    return out


M, F, S, D = 2, 3, 4, 5
features, time = rng.standard_normal((M, F, S, D)), rng.standard_normal((F, D))
print("features (M, F, S, D) =", features.shape, " time (F, D) =", time.shape)
print("agree:", bool(np.array_equal(stamp_with_loops(features, time), features + time[:, None])))

# %% [markdown]
# `time[:, None]` has the shape `(F, 1, D)`. The 1 is at the axis of the features of one frame, so all features of
# a frame get the same vector. (The paper writes its table as `(T, 1, d)` for this reason.) Here is a mistake that
# many people make: `features + time` gives no error when `F` happens to equal `S`. It then adds a vector for each
# place in the picture, not for each time.
#
# The eight stamps of the toy were learned together with all other parameters. The next figure shows how similar
# they are.
#
# *Figure: on the left a map of cosines between the eight learned stamps, bright along the diagonal. On the right
# the same for thirty stamps that were stretched from them: the same picture, finer.*

# %%
thirty = library.temporal_embedding(table, 30)
figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.9))
for axis, stamps in zip(axes, (table, thirty), strict=True):
    unit = stamps / np.linalg.norm(stamps, axis=1, keepdims=True)
    image = axis.imshow(unit @ unit.T, cmap="cividis", vmin=-1, vmax=1)
    axis.set(title=f"{len(stamps)} stamps", xlabel="frame", ylabel="frame")
figure.colorbar(image, ax=axes, label="cosine")
plt.show()

# %% [markdown]
# ## More frames than stamps
#
# In training there were eight frames. At test time the paper takes thirty frames, three per second, and stretches
# the eight stamps over them by linear interpolation. The first frame gets the first stamp, and the last frame gets
# the last stamp. Each frame between them gets a mixture of the two nearest stamps.

# %% [markdown]
# ### Exercise 04.2 · Stretch the stamps
# *difficulty: medium · minutes: 10*
#
# From a table `(trained, D)` make `F` stamps, for `F >= trained`. Frame `t` is at the position `t * (trained - 1)
# / (F - 1)` of the table.


# %% exercise 04.2
def stretch(table, F):
    """table (trained, D) -> (F, D), for F >= trained."""
    # solution
    trained = len(table)
    place = np.linspace(0, trained - 1, F)
    low = np.minimum(place.astype(int), trained - 2)
    share = (place - low)[:, None]
    return table[low] * (1 - share) + table[low + 1] * share
    # end of solution


# %% check 04.2
from tinyflamingo.checks import check_04_2_stretch

check_04_2_stretch(stretch)

# %% [markdown]
# ## The gradient, by hand
#
# Suppose the stamps are stretched during training. Each of the `F` arriving gradients must go back to the two rows of
# the table from which the stamp was mixed, with the same shares. Frame $t$ is mixed from the rows $l_t$ and $l_t + 1$
# of the table, $s_t$ is the share of the second row, and $g_t$ is the gradient that arrives at the stamp of this
# frame:
#
# $$\text{out}_t = (1 - s_t)\,\text{table}_{l_t} + s_t\,\text{table}_{l_t + 1}
# \quad\Rightarrow\quad
# \frac{\partial L}{\partial\,\text{table}_n} = \sum_{t:\,l_t = n} (1 - s_t)\,g_t + \sum_{t:\,l_t + 1 = n} s_t\,g_t$$

# %% [markdown]
# ### Exercise 04.3 · Back to the table
# *difficulty: medium · minutes: 15*
#
# Several frames use the same row, and their gradients **add up**. (If a row appears twice in `rows`, `a[rows] +=
# b` adds only once. `np.add.at(a, rows, b)` adds every time.)


# %% exercise 04.3
def stretch_gradient(g, trained):
    """g (F, D), the gradient at the stretched stamps -> the gradient at the table, (trained, D)."""
    # solution
    F, D = g.shape
    place = np.linspace(0, trained - 1, F)
    low = np.minimum(place.astype(int), trained - 2)
    share = (place - low)[:, None]
    out = np.zeros((trained, D))
    np.add.at(out, low, (1 - share) * g)
    np.add.at(out, low + 1, share * g)
    return out
    # end of solution


# %% check 04.3
from tinyflamingo.checks import check_04_3_stretch_gradient

check_04_3_stretch_gradient(stretch_gradient)

# %% [markdown]
# The next cell shows this trap. Seven gradients of 1 arrive at a table of three rows. The three rows together must
# get seven.

# %%
rows, ones = np.minimum(np.linspace(0, 2, 7).astype(int), 1), np.ones(7)
once, every_time = np.zeros(3), np.zeros(3)
once[rows] += ones
np.add.at(every_time, rows, ones)
print("rows:", rows.tolist(), "  += gives", once.tolist(), "  np.add.at gives", every_time.tolist())
print(
    "library, checked by finite differences:",
    ops.check_grad(lambda t: library.temporal_embedding(t, 7), np.eye(3)) < 1e-6,
)

# %% [markdown]
# ## What the model says about a video
#
# **Predict.** The video of something that moves left is played backwards. What will the model say: "moves left",
# "moves right", or nonsense? And when the frames come in random order? Then think about "grows" and "vanishes".
#
# The next cell takes six videos of every kind and asks the model how likely each of the eight answers is.


# %%
def answers(videos, model=model):
    """Probability of each action's sentence, given videos uint8 (M, F, Y, X, 3) -> (M, actions)."""
    visual = resample(model.params, [encode_media(model.frozen, videos, config)], config)
    scores = []
    for action in ACTIONS:
        words = f"it {action}" + (" blue." if action == "turns" else ".")
        # The 0 marks the place of a medium. Its features are passed separately.
        rows = [encode_document([0, say.ask("action"), words], model.tokenizer, complete=False) for _ in videos]
        asked = len(encode_document([0, say.ask("action")], model.tokenizer, complete=False).tokens)
        for row in rows:  # only up to the verb, so that every colour counts as "turns"
            verb = len(model.tokenizer.encode(f"it {action}"))
            row.weights = [float(asked <= t < asked + verb) for t in range(len(row.tokens))]
        scores.append(score_continuations(model, make_batch(rows), visual))
    return np.exp(np.array(scores).T)


films = {action: np.stack([clip(rng, action) for _ in range(6)]) for action in ACTIONS}
everything = np.concatenate(list(films.values()))  # (M, F, Y, X, 3), six of each action
mixed = np.stack([video[rng.permutation(8)] for video in everything])
orders = {"in order": everything, "backwards": everything[:, ::-1], "shuffled": mixed}
said = {name: answers(videos).reshape(len(ACTIONS), 6, len(ACTIONS)).mean(axis=1) for name, videos in orders.items()}
for name, chances in said.items():
    print(f"{name:10s} probability of the right answer: {np.diagonal(chances).mean():.2f}")

# %% [markdown]
# *Figure: three tables, what happens against what the model says, for videos in order, backwards and shuffled. In
# order: a dark diagonal. Backwards: left and right, up and down, grows and shrinks are exchanged, and for vanishes
# the model says something else, mostly turns. Shuffled: turns is still recognised, but the model says turns also
# for things that move, more than any other answer, and it confuses grows and shrinks.*

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True)
for axis, (name, chances) in zip(axes, said.items(), strict=True):
    axis.imshow(chances, cmap="Purples", vmin=0, vmax=1)
    axis.set(title=name, xticks=range(8), yticks=range(8), yticklabels=ACTIONS, xlabel="what the model says")
    axis.set_xticklabels(ACTIONS, rotation=90)
axes[0].set_ylabel("what happens")
plt.show()

# %% [markdown]
# Played backwards, a video is not nonsense. It shows the opposite action. Only vanishing has no opposite among the
# eight actions. Played backwards, the thing appears. The model has never seen this, so it gives the most similar
# answer that it knows. In shuffled frames a thing jumps from place to place. The model has never seen this either,
# and a sudden change is similar to "turns". Everything that the model knows about the order of frames comes from
# the eight vectors that were added.
#
# **Turn it.** Run the next cell. Choose an action, move the number of frames, and play the video backwards.


# %%
def watch(action="moves left", frames=8, backwards=False):
    film = clip(np.random.default_rng(1), action, frames)[:: -1 if backwards else 1]
    figure, (strip, bars) = plt.subplots(1, 2, figsize=(9, 2.2), width_ratios=(2, 1))
    strip.imshow(np.hstack(film[:: 1 + (frames - 1) // 10]))
    strip.set_axis_off()
    bars.barh(ACTIONS, answers(film[None])[0], color=BLUE)
    bars.set(xlim=(0, 1), xlabel="probability of the answer")
    plt.show()


sliders(watch, action=list(ACTIONS), frames=(1, 30), backwards=False)

# %% [markdown]
# ## Break it
#
# Now we remove these vectors: all stamps of the trained model are set to zero.
#
# **Predict.** Which actions can the model still recognise? What will it answer for "moves left" and "moves right"?

# %%
without_stamps = {**model.params["resampler"], "temporal": np.zeros_like(table)}
timeless = replace(model, params={**model.params, "resampler": without_stamps})
forwards, backwards = answers(everything, timeless), answers(everything[:, ::-1], timeless)
print(f"without stamps, in order and backwards differ by {np.abs(forwards - backwards).max():.1e}")
right = np.diagonal(forwards.reshape(8, 6, 8).mean(axis=1))
for action, chance, whole in zip(ACTIONS, right, np.diagonal(said["in order"]), strict=True):
    print(f"{action:12s} P(right answer): with stamps {whole:.2f}   without {chance:.2f}")

# %% [markdown]
# Without stamps, a video and its reverse give the same answers, except for rounding. Attention sums over its keys,
# and the order of the keys does not matter. The model was trained *with* stamps. So without them it also fails
# where no order is needed: look at "vanishes" and "turns". A model that was trained without stamps could recognise
# these two. But it could only guess between left and right.
#
# ## How long a video may be
#
# What happens with more frames than in training? The next cell draws the same stories with 4 to 30 frames. (The
# paper takes 30 at test time.) For comparison it also uses the first eight frames alone. A model without
# interpolation could use only these.
#
# **Predict.** The model sees almost four times as many frames as in training. Do its answers become better, worse,
# or neither?

# %%
lengths, stretched, cut = (4, 8, 12, 20, 30), [], []
stories = [sample_clip(rng, action=action) for action in ACTIONS for _ in range(3)]
for F in lengths:
    videos = np.stack([draw_clip(rng, story, F) for story in stories])
    for name, seen in ((stretched, videos), (cut, videos[:, :8])):
        name.append(np.mean([row[i // 3] for i, row in enumerate(answers(seen))]))
print("frames  ", *(f"{F:6d}" for F in lengths))
print("all     ", *(f"{p:6.2f}" for p in stretched))
print("first 8 ", *(f"{p:6.2f}" for p in cut))

# %% [markdown]
# *Figure: probability of the right answer against the number of frames. With all frames and stretched stamps, it
# stays high beyond the eight frames of training. With the first eight frames alone, it falls as soon as the video is
# longer. At four frames the two lines meet, and both are low.*

# %%
figure, axis = plt.subplots(figsize=(5, 2.5))
axis.plot(lengths, stretched, "o-", color=BLUE, label="all frames, stamps stretched")
axis.plot(lengths, cut, "s--", color=ORANGE, label="first eight frames only")
axis.axvline(8, color="black", linewidth=0.7, linestyle=":")
axis.set(xlabel="frames of the video", ylabel="P(right answer)", ylim=(0, 1.02), xticks=lengths)
axis.legend(frameon=False, loc="center right")
plt.show()

# %% [markdown]
# For fewer than eight frames, the library uses the first rows of the table. Then four frames look like the first half
# of a longer story, although they show a whole one. So the answers to four frames are mostly wrong. This is our
# choice, because the paper does not say what to do (`docs/deviations.md`).
#
# ## In the library

# %%
show(library.temporal_embedding, encode_media)

# %% [markdown]
# By default `parts.encode` is `encode_pictures` in `model/vision_encoder.py`, the encoder of notebook 02.

# %% [markdown]
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("04")

# %%
check_quiz("04", ".....")

# %% [markdown]
# ## Summary
#
# A video is a sequence of frames, one per second. Each frame is encoded as a picture. Each frame gets a learned
# vector for its time, and the features of all frames become one sequence. Without these vectors, a video and its
# reverse are the same for the model. If the vectors are stretched, a model that was trained on eight frames can
# use thirty.
#
# **Try it.** Play a video twice as fast; give all frames the stamp of frame 0; give the model a video of your own
# with `python -m tinyflamingo complete`. Notebook 05 shows how the long sequence becomes eight tokens.
#
# **Further reading.** [Flamingo](https://arxiv.org/abs/2204.14198), section 2.1 and appendices A.1.1 and B.1.2.
# Where this code differs: `docs/deviations.md`, "The Perceiver resampler".
