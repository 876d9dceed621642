"""Checks of notebook 07, masking (chapter §4): tags, ``phi``, the mask, empty rows, "next" mode."""

import warnings

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, holds, integers_are, shape_is, value_is


def _tags(rng, T, share=0.3):
    """A row with at least two tags, one token between them, and something before and after."""
    is_image = rng.random(T) < share
    is_image[[0, T - 1]] = False
    is_image[[2, T - 3]] = True
    is_image[3] = False
    return is_image


@check(
    "07.1",
    where="Go through the page and ask at each item: does a chunk end just before it? At place 0 no chunk can end.",
    formula=(
        "for each item: if it is an image and not the first item, append <EOC>; append the item. At the end "
        "append <EOC>"
    ),
)
def check_07_1_with_marks(with_marks):
    """Rows with marks, for pages that open with an image, hold two in a row, hold none, or are empty."""
    rng = fresh_rng()
    pages = [["image", "text"], ["text", "image"], ["text", "image", "image", "text"], ["text"], ["image"]]
    pages += [[("text", "image")[int(i)] for i in rng.integers(2, size=rng.integers(3, 9))] for _ in range(8)]
    for page in [*pages, []]:
        row = with_marks(list(page))
        holds(row is not None, "your function returns None: a `return` is missing.")
        _marks_are_right(page, list(row))


def _marks_are_right(page, row):
    lead = _("For the page {page} your row is {row}. ").format(page=page, row=row)
    holds(row[:1] == ["<BOS>"], lead + _("Every row opens with <BOS>."))
    holds([item for item in row[1:] if item != "<EOC>"] == page, lead + _("The items must stand in it, in order."))
    if page[:1] == ["image"]:
        holds(row[1] != "<EOC>", lead + _("An image that opens the page has no <EOC> before it: no chunk ends there."))
    holds(row[-1] == "<EOC>", lead + _("The last chunk ends, too: <EOC> stands at the end of the page."))
    before = [row[i - 1] for i, item in enumerate(row) if item == "image" and i > 1]
    holds(
        all(mark == "<EOC>" for mark in before),
        lead + _("<EOC> stands before every image that does not open the page."),
    )
    wanted = sum(item == "image" for item in page[1:]) + 1
    holds(
        row.count("<EOC>") == wanted,
        lead + _("It has {marks} <EOC>, {wanted} close a chunk.").format(marks=row.count("<EOC>"), wanted=wanted),
    )


@check(
    "07.2",
    where=(
        "The loop above adds 1 at each tag and remembers the sum. NumPy has a function for running sums; "
        "think of its axis."
    ),
    formula="np.cumsum(is_image, axis=-1)",
)
def check_07_2_phi(phi):
    """phi of one row and of a batch of rows."""
    rng = fresh_rng()
    T = int(rng.integers(9, 16))
    is_image = _tags(rng, T)
    got, want = phi(is_image), np.cumsum(is_image)
    shape_is(got, (T,), "(T,)", "phi")
    got = np.asarray(got)
    holds(np.all(np.diff(got) >= 0), "phi falls somewhere along the row; it counts tags, so it can only grow.")
    tag = int(np.flatnonzero(is_image)[1])
    holds(got[0] == 0, _("token 0 has phi {phi}, but no image stands before it: that is 0.").format(phi=got[0]))
    holds(
        got[tag] == want[tag],
        _("token {tag}, the tag of image {image}, has phi {phi}: a tag carries the number of its own image.").format(
            tag=tag, image=want[tag], phi=got[tag]
        ),
    )
    value_is(got, want, "phi is the number of tags up to and with the token.", "phi")
    rows = np.stack([_tags(rng, T) for _ in range(3)])
    got = phi(rows)
    shape_is(got, rows.shape, "(B, T)", "phi of a batch")
    value_is(
        got, np.cumsum(rows, axis=1), "Each row of a batch counts for itself, along the last axis.", "phi of a batch"
    )
    integers_are(got, "phi of a batch")


@check(
    "07.3",
    where="The number of the picture of column c is c // R + 1. Compare a column of phi with a row of these numbers.",
    formula="phi[:, None] == np.repeat(np.arange(1, N + 1), R)[None, :]",
)
def check_07_3_mask(mask):
    """The mask of a random phi that has zeros, and media in the middle."""
    rng = fresh_rng()
    N, R = (int(n) for n in rng.choice(np.arange(3, 7), size=2, replace=False))
    phi = np.sort(np.concatenate([np.arange(N + 1), rng.integers(0, N + 1, size=5)]))
    got = mask(phi, N, R)
    shape_is(got, (len(phi), N * R), "(T, N * R)", "the mask")
    got = np.asarray(got)
    holds(got.dtype == bool, _("the mask holds {dtype}; it should hold True and False.").format(dtype=got.dtype))
    for token, own in enumerate(phi):
        _sees_its_own(token, int(own), got[token].reshape(N, R), np.flatnonzero(got[token]), R)


def _sees_its_own(token, own, seen, columns, R):
    """seen (N, R): what one token may look at."""
    images = [int(n) + 1 for n in np.flatnonzero(seen.any(1))]
    if own == 0:
        hint = _("token {token} stands before every image (phi 0) but sees image {images}: it may see nothing.").format(
            token=token, images="".join(map(str, images[:1]))
        )
        holds(not images, hint)
        return
    holds(bool(images), _("token {token} has phi {own} but sees no image at all.").format(token=token, own=own))
    N = len(seen)
    tiled = len(columns) == R and np.all(columns % N == own - 1)
    hint = _("columns {first} to {last} belong to image {own}: repeat each number, do not tile.").format(
        first=(own - 1) * R, last=own * R - 1, own=own
    )
    holds(images == [own] or not tiled, hint)
    extra = next((n for n in images if n != own), own)
    holds(
        extra == own,
        _("token {token} sees image {extra}; Flamingo allows only the latest image, {own}.").format(
            token=token, extra=extra, own=own
        ),
    )
    holds(
        seen[own - 1].all(),
        _("token {token} sees only a part of image {own}: all R visual tokens are open to it.").format(
            token=token, own=own
        ),
    )


@check(
    "07.4",
    where=(
        "Find the largest score among the visible ones, subtract it, exponentiate, cover, divide. What is the "
        "sum of an empty row?"
    ),
    formula="e = exp(s - max of visible s) where visible, else 0; e / (sum of e, or 1 where that sum is 0)",
)
def check_07_4_masked_softmax(masked_softmax):
    """Rows that see some, all, and nothing; scores far from 0; the mask decides, not the scores."""
    rng = fresh_rng()
    S = int(rng.integers(4, 9))
    scores = 3 * rng.standard_normal((6, S))
    visible = rng.random((6, S)) < 0.5
    visible[:, 0], visible[:, 1] = True, False
    visible[2], visible[4] = False, True
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = masked_softmax(scores, visible)
    shape_is(got, scores.shape, "(..., S)", "the shares")
    got = np.asarray(got, float)
    _empty_row(got[2], S)
    holds(not np.isnan(got).any(), "there is NaN in a row that sees something.")
    hidden = np.abs(got[~visible]).max()
    holds(
        hidden == 0,
        _("a hidden entry has the share {hidden:.2g}: what is not visible gets exactly 0.").format(hidden=hidden),
    )
    sums = got.sum(-1)
    some = visible.any(-1)
    holds(
        np.allclose(sums[some], 1),
        _(
            "a row that sees something sums to {total:.3g}, not 1: cover before the softmax, so "
            "that only the visible share out the whole."
        ).format(total=sums[some][np.argmax(np.abs(sums[some] - 1))]),
    )
    weights = np.exp(scores) * visible
    value_is(
        got, weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300), "Shares go with exp(score).", "the shares"
    )
    holds(
        not said,
        _("NumPy warns ({warning}): avoid 0 / 0 instead of mending it afterwards.").format(
            warning=said[0].message if said else ""
        ),
    )
    _far_scores_change_nothing(masked_softmax, scores, visible, got)


def _far_scores_change_nothing(masked_softmax, scores, visible, shares):
    """A number that is added to all scores of a row, or to its hidden ones, leaves the shares as they are."""
    moves = {
        "with scores around 2000 the shares change: take the row's largest score away before exp.": 2000.0,
        "a hidden score of 2000 changes the shares: take the largest of the *visible* scores away before exp.": (
            2000.0 * ~visible
        ),
        "with scores around -2000 the shares change: a hidden score must not count as the largest of its row.": -2000.0,
        "if one row has scores around 2000 and another around -2000, the shares change: subtract each row's own "
        "largest score.": np.resize([2000.0, -2000.0], (len(scores), 1)),
    }
    for hint, move in moves.items():
        with np.errstate(all="ignore"):
            moved = np.asarray(masked_softmax(scores + move, visible), float)
        holds(np.allclose(moved, shares, atol=1e-6), hint)


def _empty_row(row, S):
    """A row where nothing is visible."""
    holds(not np.isnan(row).any(), "a row that sees nothing is NaN: 0 / 0. Divide by 1 there.")
    uniform = np.allclose(row, 1 / S)
    holds(
        not uniform,
        _("a row that sees nothing has equal shares 1/{S}: it looks at everything. It should be all 0.").format(S=S),
    )
    holds(not row.any(), _("a row that sees nothing sums to {total:.3g}; it should be all 0.").format(total=row.sum()))


@check(
    "07.5",
    where="How many tags are strictly before a token? The coming picture has the next number, but never more than N.",
    formula="min(cumsum(is_image) - is_image + 1, number of tags)",
)
def check_07_5_phi_next(phi_next):
    """Next mode on random rows, a row that ends with text, and a row without images."""
    rng = fresh_rng()
    T = int(rng.integers(10, 16))
    is_image = _tags(rng, T)
    N = int(is_image.sum())
    got = phi_next(is_image)
    shape_is(got, (T,), "(T,)", "phi")
    got = np.asarray(got)
    want = np.minimum(np.cumsum(is_image) - is_image + 1, N)
    first = int(np.flatnonzero(is_image)[0])
    holds(got[0] != 0, "token 0 has phi 0: in next mode it looks ahead to image 1.")
    holds(
        got[first] == 1,
        _(
            "token {first}, the tag of image 1, points to image {image}: a tag carries its own image, in both modes."
        ).format(first=first, image=got[first]),
    )
    hint = _("the last token points to image {image} of {N}: after the last image a token keeps the last one.").format(
        image=got[-1], N=N
    )
    holds(got[-1] <= N, hint)
    value_is(got, want, "A token points to the next tag at or after it.", "phi")
    integers_are(got, "phi")
    nothing = np.asarray(phi_next(np.zeros(T, bool)))
    holds(not nothing.any(), "on a page without images phi is not 0 everywhere: there is no image to come.")
