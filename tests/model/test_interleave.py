"""Text, pictures and videos in one row of tokens: phi, `<EOC>`, tags, spaces, batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyflamingo.errors import UserError
from tinyflamingo.model.interleave import (
    EOC,
    Quiet,
    Sequence,
    batch_phi,
    check_media,
    cross_attention_mask,
    encode_document,
    make_batch,
    pack_batch,
    phi,
    phi_next,
)
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD

PICTURE, CAT, CLIP = (np.full((n, 4, 3), n, np.uint8) for n in (2, 3, 4))  # any object is a medium


def _pieces(tokenizer, items, complete=True):
    return [tokenizer.piece(t) for t in encode_document(items, tokenizer, complete).tokens]


# ---------------------------------------------------------------- phi


@pytest.mark.parametrize(
    "tags, last, coming",
    [
        ("....", [0, 0, 0, 0], [0, 0, 0, 0]),  # no image at all
        ("I...", [1, 1, 1, 1], [1, 1, 1, 1]),
        ("..I.", [0, 0, 1, 1], [1, 1, 1, 1]),
        ("...I", [0, 0, 0, 1], [1, 1, 1, 1]),
        ("I.I.", [1, 1, 2, 2], [1, 2, 2, 2]),
        (".II.I.", [0, 1, 2, 2, 3, 3], [1, 1, 2, 3, 3, 3]),
        ("III", [1, 2, 3], [1, 2, 3]),
        (".", [0], [0]),
    ],
)
def test_phi_truth_table(tags, last, coming):
    tokens = np.array([IMAGE if t == "I" else 9 for t in tags])
    np.testing.assert_array_equal(phi(tokens), last)
    np.testing.assert_array_equal(phi_next(tokens), coming)
    np.testing.assert_array_equal(phi(np.stack([tokens, tokens])), [last, last])  # any leading axes
    np.testing.assert_array_equal(phi_next(np.stack([tokens, tokens])), [coming, coming])


def test_phi_of_the_papers_example(tokenizer):
    """Paper, figure 7: zeros up to the first <EOC>, ones from the first tag to the next <EOC>, then twos."""
    items = [
        "Cute pics of my pets!",
        PICTURE,
        "My puppy sitting in the grass.",
        CAT,
        "My cat looking very dignified.",
    ]
    sequence = encode_document(items, tokenizer)
    tokens, eoc = sequence.tokens, tokenizer.eoc
    first, second = (i for i, t in enumerate(tokens) if t == IMAGE)
    assert tokens[0] == BOS and [tokens[first - 1], tokens[second - 1], tokens[-1]] == [eoc] * 3
    assert tokens.count(eoc) == 3
    expected = [0] * first + [1] * (second - first) + [2] * (len(tokens) - second)
    np.testing.assert_array_equal(phi(tokens), expected)
    assert sequence.media[0] is PICTURE and sequence.media[1] is CAT
    assert tokenizer.decode(tokens[first:second]) == "My puppy sitting in the grass."


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=12))
def test_phi_properties(tags):
    tokens = np.array([IMAGE if t else 9 for t in tags], int)
    last, coming, n = phi(tokens), phi_next(tokens), sum(tags)
    assert np.all(np.diff(last) >= 0) and np.all(np.diff(coming) >= 0)
    assert np.all((0 <= last) & (last <= coming) & (coming <= n))
    for i, tag in enumerate(tags):
        count = sum(tags[: i + 1])
        assert last[i] == count
        assert coming[i] == (count if tag or count == n else count + 1)


def test_cross_attention_mask_shows_phi():
    expected = [
        [False, False, False, False],
        [True, True, False, False],
        [False, False, True, True],
        [False, False, True, True],
    ]
    mask = cross_attention_mask([0, 1, 2, 2], N=2, R=2)
    np.testing.assert_array_equal(mask, expected)
    assert mask.shape == (4, 4) and cross_attention_mask([0, 0], N=0, R=2).shape == (2, 0)


# ---------------------------------------------------------------- <EOC>


@pytest.mark.parametrize(
    "items, expected",
    [
        ([], "B E"),
        (["dax"], "B t E"),
        ([PICTURE], "B I E"),  # none before a leading image
        ([PICTURE, "dax"], "B I t E"),
        (["dax", PICTURE], "B t E I E"),  # before every other
        ([PICTURE, CAT], "B I E I E"),
        ([PICTURE, "dax", CAT, "dax"], "B I t E I t E"),
        (["dax", EOC, PICTURE], "B t E I E"),  # never doubled
        (["dax", EOC, EOC, "dax", EOC], "B t E t E"),
        ([EOC, "dax"], "B t E"),  # nothing to close yet
        ([PICTURE, "dax", EOC, "dax"], "B I t E t E"),
        (["   ", PICTURE, " "], "B I E"),  # spaces are dropped: the image still leads
        (["", Quiet("")], "B E"),
    ],
)
def test_end_of_chunk_rule(tokenizer, items, expected):
    names = {BOS: "B", IMAGE: "I", tokenizer.eoc: "E"}

    def shape(tokens):
        row = [names.get(t, "t") for t in tokens]
        return " ".join(n for i, n in enumerate(row) if n != "t" or row[i - 1] != "t")

    assert shape(encode_document(items, tokenizer).tokens) == expected
    open_end = encode_document(items, tokenizer, complete=False).tokens
    closed_by_user = bool(items) and items[-1] is EOC
    assert shape(open_end) == (expected if closed_by_user else expected.removesuffix(" E"))


def test_empty_prompt_is_bos_alone(tokenizer):
    sequence = encode_document([], tokenizer, complete=False)
    assert sequence.tokens == [BOS] and sequence.weights == [0.0] and sequence.media == []
    assert make_batch([sequence], left=True).tokens.tolist() == [[BOS]]


ITEMS = st.lists(
    st.one_of(
        st.sampled_from([EOC, PICTURE, CLIP]),
        st.text(max_size=8),
        st.builds(Quiet, st.text(max_size=4)),
        st.sampled_from(["<image>", " <image> a", "<EOC>", "<BOS>"]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(items=ITEMS)
def test_document_properties(tokenizer, items):
    sequence = encode_document(items, tokenizer)
    tokens, media = sequence.tokens, [x for x in items if isinstance(x, np.ndarray)]
    assert len(sequence.weights) == len(tokens)
    assert tokens[0] == BOS and tokens.count(BOS) == 1 and PAD not in tokens
    assert tokens[-1] == tokenizer.eoc
    assert all(a is b for a, b in zip(sequence.media, media, strict=True))
    check_media(tokens, sequence.media)
    pairs = list(zip(tokens, tokens[1:], strict=False))
    assert (tokenizer.eoc, tokenizer.eoc) not in pairs
    assert all(before in (tokenizer.eoc, BOS) for before, t in pairs if t == IMAGE)


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("kind", [str, Quiet])
@pytest.mark.parametrize("text", ["<image>", "a <image> b", "<image><image>", "<EOC>", "<BOS>a", "<PAD>", "<video>"])
def test_tags_in_text_are_text(tokenizer, kind, text):
    sequence = encode_document([kind(text)], tokenizer, complete=False)
    assert min(sequence.tokens[1:]) > IMAGE and tokenizer.eoc not in sequence.tokens
    assert tokenizer.decode(sequence.tokens) == text
    assert not np.any(phi(sequence.tokens)) and sequence.media == []


def test_spaces_next_to_a_tag_are_dropped(tokenizer):
    tight = _pieces(tokenizer, [PICTURE, "a red star.", CAT, "a fox."])
    for gaps in (["  a red star. ", " a fox."], [" a red star.", "a fox. "]):
        assert _pieces(tokenizer, [PICTURE, gaps[0], CAT, gaps[1]]) == tight
    assert _pieces(tokenizer, [PICTURE, "a  red star."]) != _pieces(tokenizer, [PICTURE, "a red star."])


def test_quiet_text_has_no_loss(tokenizer):
    plain = encode_document([PICTURE, "what is it?", "a star."], tokenizer)
    quiet = encode_document([PICTURE, Quiet("what is it?"), "a star."], tokenizer)
    assert plain.tokens == quiet.tokens
    n, m = len(tokenizer.encode("what is it?")), len(tokenizer.encode("a star."))
    assert plain.weights == [0.0, 0.0] + [1.0] * (n + m + 1)  # <BOS> and the tag have no loss, <EOC> has one
    assert quiet.weights == [0.0, 0.0] + [0.0] * n + [1.0] * (m + 1)


def test_invalid_unicode_is_a_user_error(tokenizer):
    with pytest.raises(UserError, match="not valid Unicode"):
        encode_document(["a\ud800"], tokenizer)


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("tags, media", [(2, 1), (0, 3), (1, 0)])
def test_tags_and_media_that_differ_are_an_error_with_both_numbers(tags, media):
    tokens = [BOS] + [IMAGE, 9] * tags
    with pytest.raises(UserError, match=rf"{tags} <image>.* but {media} media"):
        check_media(tokens, [PICTURE] * media)
    with pytest.raises(UserError, match=rf"{tags} <image>.* but {media} media"):
        make_batch([Sequence(tokens, [1.0] * len(tokens), [PICTURE] * media)])


def _sequences():
    rows = [[BOS, IMAGE, 7, 8], [BOS, 7], [BOS, 9, IMAGE, 7, IMAGE, 8]]
    media = [[PICTURE], [], [CAT, CLIP]]
    return [Sequence(r, [float(i > 0) for i in range(len(r))], m) for r, m in zip(rows, media, strict=True)]


def test_batch_padded_on_the_right():
    batch = make_batch(_sequences())
    np.testing.assert_array_equal(batch.tokens[0], [BOS, IMAGE, 7, 8, PAD, PAD])
    np.testing.assert_array_equal(batch.tokens[1], [BOS, 7, PAD, PAD, PAD, PAD])
    np.testing.assert_array_equal(batch.weights, [[0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(batch.visible_from, [[0, 0, 0, 0, 4, 5], [0, 0, 2, 3, 4, 5], [0] * 6])
    assert batch.weights.dtype == np.float32


def test_batch_padded_on_the_left():
    batch = make_batch(_sequences(), left=True)
    np.testing.assert_array_equal(batch.tokens[0], [PAD, PAD, BOS, IMAGE, 7, 8])
    np.testing.assert_array_equal(batch.tokens[1], [PAD, PAD, PAD, PAD, BOS, 7])
    np.testing.assert_array_equal(batch.weights[1], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(batch.visible_from, [[0, 1, 2, 2, 2, 2], [0, 1, 2, 3, 4, 4], [0] * 6])


@pytest.mark.parametrize("left", [False, True])
def test_owner_is_the_number_of_the_sequence(left):
    batch = make_batch(_sequences(), left=left)
    for i, (row, n) in enumerate(zip(batch.owner, (4, 2, 6), strict=True)):
        blank = [-1] * (6 - n)
        np.testing.assert_array_equal(row, blank + [i] * n if left else [i] * n + blank)


@pytest.mark.parametrize("left", [False, True])
def test_media_are_numbered_over_the_batch(left):
    """Row 0 has medium 1, row 1 none, row 2 media 2 and 3; padding and "no image yet" stay 0."""
    batch = make_batch(_sequences(), left=left)
    assert [id(m) for m in batch.media] == [id(m) for m in (PICTURE, CAT, CLIP)]
    expected = [[0, 1, 1, 1], [0, 0], [0, 0, 2, 2, 3, 3]]
    for row, actual in zip(expected, batch.phi, strict=True):
        blank = [0] * (6 - len(row))
        np.testing.assert_array_equal(actual, blank + row if left else row + blank)


def test_phi_may_differ_from_row_to_row():
    batch = make_batch(_sequences(), phi_of=[phi_next, phi_next, phi])
    np.testing.assert_array_equal(batch.phi[0], [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(batch.phi[1], 0)
    np.testing.assert_array_equal(batch.phi[2], [0, 0, 2, 2, 3, 3])
    np.testing.assert_array_equal(make_batch(_sequences(), phi_of=phi_next).phi[2], [2, 2, 2, 3, 3, 3])


# ---------------------------------------------------------------- several sequences in a row


def test_packed_by_hand():
    """Lengths 4, 2, 6 and 5: one row of 12 would be twice the longest; 17 tokens are less than two such rows."""
    sequences = [*_sequences(), Sequence([BOS, 7, 7, 7, 7], [1.0] * 5, [])]
    batch = pack_batch(sequences)
    assert batch.tokens.tolist() == [[t for s in sequences for t in s.tokens]]
    assert batch.owner.tolist() == [[0] * 4 + [1] * 2 + [2] * 6 + [3] * 5]
    assert batch.visible_from.tolist() == [[0] * 4 + [4] * 2 + [6] * 6 + [12] * 5]
    assert batch.phi.tolist() == [[0, 1, 1, 1, 0, 0, 0, 0, 2, 2, 3, 3, 0, 0, 0, 0, 0]]
    assert [id(m) for m in batch.media] == [id(m) for m in (PICTURE, CAT, CLIP)]
    assert batch.weights.dtype == np.float32


def test_packed_in_two_rows():
    """Lengths 4, 2, 6, 6 and 6: the emptiest row gets the next one, the longest first. Media keep their order."""
    first, second, third = _sequences()
    batch = pack_batch([first, second, third, third, third])
    assert batch.owner.tolist() == [[2] * 6 + [4] * 6, [0] * 4 + [1] * 2 + [3] * 6]
    assert batch.visible_from.tolist() == [[0] * 6 + [6] * 6, [0] * 4 + [4] * 2 + [6] * 6]
    assert batch.phi.tolist() == [[0, 0, 2, 2, 3, 3, 0, 0, 6, 6, 7, 7], [0, 1, 1, 1, 0, 0, 0, 0, 4, 4, 5, 5]]
    assert [id(m) for m in batch.media] == [id(m) for m in (PICTURE, *3 * [CAT, CLIP])]


def test_packed_sequences_are_checked_too():
    with pytest.raises(UserError, match="1 <image>.* but 0 media"):
        pack_batch([Sequence([BOS, IMAGE], [0.0, 0.0], [])])


SEQUENCES = st.lists(st.tuples(st.lists(st.booleans(), min_size=1, max_size=9), st.booleans()), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(drawn=SEQUENCES)
def test_packing_properties(drawn):
    """Every sequence is whole in one row, in order, and sees the same media as alone. Few tokens are padding."""
    sequences = []
    for number, (tags, _) in enumerate(drawn):
        tokens = [IMAGE if tag else 20 + number for tag in tags]
        sequences.append(Sequence(tokens, [0.5 + number] * len(tags), [(number, i) for i in range(sum(tags))]))
    modes, longest = [phi_next if ahead else phi for _, ahead in drawn], max(len(tags) for tags, _ in drawn)
    batch, before = pack_batch(sequences, modes), 0
    for number, (sequence, mode) in enumerate(zip(sequences, modes, strict=True)):
        rows, columns = np.nonzero(batch.owner == number)
        n = len(sequence.tokens)
        assert len(set(rows)) == 1
        np.testing.assert_array_equal(columns, columns[0] + np.arange(n))
        place = rows[0], slice(columns[0], columns[0] + n)
        np.testing.assert_array_equal(batch.tokens[place], sequence.tokens)
        np.testing.assert_array_equal(batch.weights[place], sequence.weights)
        np.testing.assert_array_equal(batch.visible_from[place], columns[0])
        own = mode(sequence.tokens)
        np.testing.assert_array_equal(batch.phi[place], np.where(own > 0, own + before, 0))
        before += len(sequence.media)
    assert batch.media == [medium for sequence in sequences for medium in sequence.media]
    padding = batch.owner < 0
    assert np.all(batch.tokens[padding] == PAD) and not batch.weights[padding].any() and not batch.phi[padding].any()
    assert np.sum(~padding) == sum(len(s.tokens) for s in sequences)
    assert np.all(padding.sum(axis=1) <= longest)
    np.testing.assert_array_equal(batch.visible_from[padding], np.nonzero(padding)[1])


def test_renumbering_keeps_zero():
    np.testing.assert_array_equal(batch_phi(np.array([0, 0, 1, 2]), 5), [0, 0, 6, 7])
