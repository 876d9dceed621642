"""Wrong answers of notebook 04, video."""

import numpy as np
from card import Card

from tinyflamingo.checks.n04_video import (
    check_04_1_frames_to_take,
    check_04_2_stretch,
    check_04_3_stretch_gradient,
)


def moments(times, fps):
    return np.arange(int((times[-1] - times[0]) * fps) + 1) / fps


def at_or_after(times, fps):
    return [int(np.argmax(times - times[0] >= m)) for m in moments(times, fps)]


def every_kth(times, fps=1.0):
    k = max(1, round(len(times) / (times[-1] - times[0]) / fps))
    return list(range(0, len(times), k))


def by_the_files_clock(times, fps=1.0):
    return [int(np.argmax(times >= m)) for m in np.arange(int(times[-1] * fps) + 1) / fps]


def before_the_moment(times, fps=1.0):
    return [max(n - 1, 0) for n in at_or_after(times, fps)]


def one_a_second_always(times, fps=1.0):
    return at_or_after(times, 1.0)


def starts_late(times, fps=1.0):
    return at_or_after(times, fps)[1:]


def mixed(table, F, ends=True, turned=False):
    trained = len(table)
    place = np.linspace(0, trained - 1, F) if ends else np.arange(F) * trained / F
    low = np.minimum(place.astype(int), trained - 2)
    share = np.minimum(place - low, 1)[:, None]
    share = 1 - share if turned else share
    return table[low] * (1 - share) + table[low + 1] * share


def nearest(table, F):
    return table[np.round(np.linspace(0, len(table) - 1, F)).astype(int)]


def row_below(table, F):
    return table[np.linspace(0, len(table) - 1, F).astype(int)]


def never_arrives(table, F):
    return mixed(table, F, ends=False)


def turned(table, F):
    return mixed(table, F, turned=True)


def goes_round(table, F):
    return np.resize(table, (F, table.shape[1]))


def stays_at_the_end(table, F):
    return table[np.minimum(np.arange(F), len(table) - 1)]


def ways(g, trained):
    place = np.linspace(0, trained - 1, len(g))
    low = np.minimum(place.astype(int), trained - 2)
    return np.zeros((trained, g.shape[1])), low, (place - low)[:, None]


def adds_once(g, trained):
    out, low, share = ways(g, trained)
    out[low] += (1 - share) * g
    out[low + 1] += share * g
    return out


def lower_only(g, trained):
    out, low, share = ways(g, trained)
    np.add.at(out, low, (1 - share) * g)
    return out


def upper_only(g, trained):
    out, low, share = ways(g, trained)
    np.add.at(out, low + 1, share * g)
    return out


def without_shares(g, trained):
    out, low, _ = ways(g, trained)
    np.add.at(out, low, g)
    return out


CARDS = [
    Card(
        key="04.1",
        check=check_04_1_frames_to_take,
        wrong=[
            (every_kth, "go by the times"),
            (by_the_files_clock, "does not start at 0"),
            (before_the_moment, "frames .before. the moments"),
            (one_a_second_always, "at 2 a second"),
            (starts_late, "the first number is 0"),
        ],
    ),
    Card(
        key="04.2",
        check=check_04_2_stretch,
        wrong=[
            (nearest, "takes the nearest row"),
            (row_below, "takes the row below its place"),
            (never_arrives, "the last frame should get the last row"),
            (turned, "shares are exchanged"),
            (goes_round, "goes round from the start"),
            (stays_at_the_end, "all get the last row"),
        ],
    ),
    Card(
        key="04.3",
        check=check_04_3_stretch_gradient,
        wrong=[
            (adds_once, "got only one of their gradients"),
            (lower_only, "the upper neighbour"),
            (upper_only, "the lower neighbour"),
            (without_shares, "The shares are missing"),
        ],
    ),
]
