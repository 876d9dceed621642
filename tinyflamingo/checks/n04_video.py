"""Checks of notebook 04, video (chapter §2): which frames, stretched stamps, and their gradient.

Not here: the library's own reading and stretching (`data/video.py`, `model/perceiver_resampler.py`).
"""

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, gradient_by_moving, holds, integers_are, shape_is, value_is, whole_numbers


@check(
    "04.1",
    where=(
        "Take one moment m and look for the first frame with time - first time >= m. How many moments are "
        "there until the last frame?"
    ),
    formula="for m = 0, 1/fps, ... up to (last time - first time): the first n with times[n] - times[0] >= m",
)
def check_04_1_frames_to_take(frames_to_take):
    """frames_to_take(times (n,), fps) -> list of int, for an uneven pace and a clock that starts late."""
    rng = fresh_rng()
    for fps in (1.0, 2.0):
        quick, slow = rng.uniform(0.11, 0.16, size=int(rng.integers(20, 26))), rng.uniform(0.33, 0.39, size=12)
        steps = np.concatenate([quick, slow] if rng.random() < 0.5 else [slow, quick])
        times = rng.uniform(2.1, 4.9) + np.concatenate([[0.0], np.cumsum(steps)])
        got = frames_to_take(times, fps)
        holds(got is not None, "your function returns None: a `return` is missing.")
        got, since = whole_numbers(got), times - times[0]
        holds(got and got[0] == 0, "moment 0 is the time of the first frame: the first number is 0.")
        late = [int(np.argmax(times >= m)) for m in np.arange(int(times[-1] * fps) + 1) / fps]
        holds(got != late, "the moments count from the first frame's time; this clock does not start at 0.")
        even = list(range(0, len(times), max(1, round(len(times) / since[-1] / fps))))
        holds(got != even, "every k-th frame is right only if the pace is even: go by the times.")
        wanted = int(since[-1] * fps) + 1
        lead = _("your list has {number} frames, {wanted} were expected: at {fps:g} a second,").format(
            number=len(got), wanted=wanted, fps=fps
        )
        holds(
            len(got) == wanted,
            _("{lead} {seconds:.2f} seconds have the moments 0 to {last:g}.").format(
                lead=lead, seconds=since[-1], last=(wanted - 1) / fps
            ),
        )
        want = [int(np.argmax(since >= m)) for m in np.arange(wanted) / fps]
        before = [max(w - 1, 0) for w in want]
        before[0] = 0
        holds(got != before, "these are the last frames *before* the moments; take the first at or after each.")
        nearest = [int(np.argmin(np.abs(since - m))) for m in np.arange(wanted) / fps]
        holds(
            got != nearest or nearest == want, "these are the nearest frames; take the first at or after each moment."
        )
        value_is(np.array(got), np.array(want), "The first frame at or after the moment.")
    pause = rng.uniform(2.1, 4.9) + np.array([0.0, 0.4, 0.9, 4.3, 4.7])
    got = list(frames_to_take(pause, 1.0))
    hint = "a pause of the film can hold several moments: each of them takes the frame after it, so numbers repeat."
    holds(whole_numbers(got) == [0, 3, 3, 3, 3], hint)
    integers_are(got)
    got = whole_numbers(frames_to_take(2.5 + np.arange(5) / 2, 1.0))
    holds(got == [0, 2, 4], "frames 2 and 4 are exactly at the moments 1 and 2 here; such a frame is taken.")


def _stretched(table, F, ends=True):
    trained = len(table)
    place = np.linspace(0, trained - 1, F) if ends else np.arange(F) * trained / F
    low = np.clip(place.astype(int), 0, trained - 2)
    share = np.clip(place - low, 0, 1)[:, None]
    return table[low] * (1 - share) + table[low + 1] * share


@check(
    "04.2",
    where=(
        "The place is a number such as 2.3: it lies between row 2 and row 3. How much of each belongs in the "
        "mixture? Mind the last frame."
    ),
    formula="low = min(floor(place), trained - 2); s = place - low; (1 - s) * table[low] + s * table[low + 1]",
)
def check_04_2_stretch(stretch):
    """stretch(table (trained, D), F) -> (F, D)."""
    rng = fresh_rng()
    trained, D = (int(n) for n in rng.choice(np.arange(4, 9), size=2, replace=False))
    table, F = rng.standard_normal((trained, D)), trained + int(rng.integers(3, 12))
    if (F - 1) % (trained - 1) == 0:
        F += 1
    got = stretch(table, F)
    shape_is(got, (F, D), "(F, D)")
    place = np.linspace(0, trained - 1, F)
    low = np.minimum(place.astype(int), trained - 2)
    share = (place - low)[:, None]
    mistakes = {
        "Each frame takes the nearest row; mix the two nearest, by how near each is.": table[
            np.round(place).astype(int)
        ],
        "Each frame takes the row below its place; mix it with the next, by how far the place is between them.": table[
            place.astype(int)
        ],
        "The places run to trained * (F - 1) / F; the last frame should get the last row.": _stretched(table, F, False),
        "The two shares are exchanged: the nearer row should weigh more.": table[low] * share
        + table[low + 1] * (1 - share),
        "The table goes round from the start again; it should be stretched over the video.": np.resize(table, (F, D)),
        "The frames beyond the table all get the last row; the rows should be stretched over the video.": table[
            np.minimum(np.arange(F), trained - 1)
        ],
    }
    value_is(got, _stretched(table, F), "Row by place t (trained - 1) / (F - 1).", mistakes=mistakes)
    value_is(stretch(table, trained), table, "With as many frames as rows nothing is to be stretched.")


@check(
    "04.3",
    where="The formula above has two sums: each frame gives one part to its lower row and one to its upper row.",
    formula="np.add.at(out, low, (1 - s) * g); np.add.at(out, low + 1, s * g)",
)
def check_04_3_stretch_gradient(stretch_gradient):
    """stretch_gradient(g (F, D), trained) -> (trained, D)."""
    rng = fresh_rng()
    trained, D = (int(n) for n in rng.choice(np.arange(4, 9), size=2, replace=False))
    F = 2 * trained + int(rng.integers(2, 8))
    g = rng.standard_normal((F, D))
    got = stretch_gradient(g, trained)
    shape_is(got, (trained, D), "(trained, D)")
    place = np.linspace(0, trained - 1, F)
    low = np.minimum(place.astype(int), trained - 2)
    share = (place - low)[:, None]
    below, above, once = (np.zeros((trained, D)) for _ in range(3))
    np.add.at(below, low, (1 - share) * g)
    np.add.at(above, low + 1, share * g)
    once[low] += (1 - share) * g
    once[low + 1] += share * g
    whole = np.zeros((trained, D))
    np.add.at(whole, low, g)
    mistakes = {
        "A row that several frames lead to got only one of their gradients: they add up, np.add.at.": once,
        "The way to the upper neighbour is missing: a frame is mixed from two rows.": below,
        "The way to the lower neighbour is missing: a frame is mixed from two rows.": above,
        "The shares are missing: a row gets as much of the gradient as it gave to the frame.": whole,
    }
    want = gradient_by_moving(lambda table: _stretched(table, F), np.zeros((trained, D)), g)
    value_is(got, want, "Moving the table a little says otherwise.", tol=1e-4, mistakes=mistakes)
    holds(
        np.allclose(np.sum(got, axis=0), np.sum(g, axis=0)),
        "the rows together should get as much as arrives: the shares of a frame sum to 1.",
    )
