"""Drawings as pictures, and episodes: random variation, exact turns, and the words that have a loss."""

import numpy as np
import pytest
from omniglot_files import make_characters

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld.pool import Medium
from tinyflamingo.handwriting import drawings
from tinyflamingo.handwriting.drawings import (
    GROUND,
    INK,
    TURNS,
    draw_plain,
    draw_varied,
    episode_words,
    picture_episode,
    sheet,
    turned,
)
from tinyflamingo.handwriting.omniglot import DRAWERS, SIDE


@pytest.fixture(scope="module")
def page():
    characters = make_characters(np.random.default_rng(1), "Aleph", 3)
    return sheet(np.concatenate([c.drawings for c in characters]))


def block(top, left, height, width):
    drawing = np.zeros((1, SIDE, SIDE), bool)
    drawing[0, top : top + height, left : left + width] = True
    return drawing


def test_a_frame_is_centred_on_the_ink():
    framed = sheet(block(10, 60, 20, 31))
    np.testing.assert_allclose(framed.centre, [[19.5, 75.0]])
    small, large = sheet(block(0, 0, 10, 10)), sheet(block(0, 0, 90, 10))
    assert small.half[0] < framed.half[0] < large.half[0]
    assert small.half[0] * 9 > large.half[0] * 1.5  # a small drawing stays small


def test_an_empty_drawing_is_a_blank_picture():
    pictures = draw_plain(sheet(np.zeros((1, SIDE, SIDE), bool)), [0], 28)
    assert pictures.shape == (1, 28, 28, 3) and (pictures == GROUND).all()


def test_ink_is_smoothed_only_at_its_edge():
    ink = sheet(block(50, 50, 9, 9)).ink[0]
    assert ink.dtype == np.uint8 and ink[54, 54] == 252 and 0 < ink[49, 54] < 252 and ink[48, 54] == 0


def test_a_picture_does_not_depend_on_the_place_of_the_drawing():
    here, there = (draw_plain(sheet(block(y, x, 30, 12)), [0], 32) for y, x in ((5, 10), (60, 71)))
    np.testing.assert_array_equal(here, there)
    assert here.dtype == np.uint8 and here.min() == GROUND and here.max() >= GROUND + INK - 3
    assert (here[..., 0] == here[..., 1]).all() and (here[..., 0] == here[..., 2]).all()


def test_turns_are_exact_and_all_different(page):
    pictures = draw_plain(page, np.zeros(TURNS, int), 32, np.arange(TURNS))[..., 0].astype(int)
    upright = pictures[0]
    for k in range(4):
        expected = {np.rot90(upright, n).tobytes() for n in (k, -k)}
        assert any(np.abs(pictures[k] - np.rot90(upright, n)).max() <= 1 for n in (k, -k)), expected
        mirrored = [np.rot90(upright[:, ::-1], n) for n in range(4)]
        assert min(np.abs(pictures[4 + k] - m).max() for m in mirrored) <= 1
    assert len({p.tobytes() for p in pictures}) == TURNS


def test_the_matrices_of_turns_are_orthogonal():
    maps = turned(np.arange(TURNS))
    np.testing.assert_allclose(maps @ maps.transpose(0, 2, 1), np.broadcast_to(np.eye(2), maps.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(maps), [1, 1, 1, 1, -1, -1, -1, -1])


def test_variation_is_around_the_drawing_as_it_is(page, monkeypatch):
    """Angles, slants, stretches and shifts have mean 0 and their spreads; so has the bend."""
    drawn = {}
    monkeypatch.setattr(
        drawings, "_sample", lambda *args: drawn.update(zip(("maps", "shift", "bend"), args[2:5], strict=True))
    )
    draw_varied(np.random.default_rng(0), page, np.zeros(4000, int), 8)
    upper = np.linalg.qr(drawn["maps"])[1]
    signs = np.sign(np.diagonal(upper, axis1=1, axis2=2))
    rotation, upper = np.linalg.qr(drawn["maps"])[0] * signs[:, None], upper * signs[..., None]
    measured = {
        "angle": (np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]), drawings.ANGLE),
        "slant": (upper[:, 0, 1], drawings.SLANT),
        "height": (np.log(upper[:, 0, 0]), drawings.STRETCH),
        "width": (np.log(upper[:, 1, 1]), drawings.STRETCH),
        "shift": (drawn["shift"], drawings.SHIFT),
        "bend": (drawn["bend"][:, [0, 7, 56, 63]], drawings.BEND),  # corners: points of the coarse grid
    }
    for name, (values, spread) in measured.items():
        assert abs(values.mean()) < 0.1 * spread and values.std() == pytest.approx(spread, rel=0.05), name


def test_a_shift_moves_the_view(page):
    still, moved = (draw_plain(page, [0], 32, shift=(s, 0.0))[0, :, :, 0].astype(int) for s in (0.0, 4 / 16))
    assert np.abs(moved[:-4] - still[4:]).max() <= 1


def test_every_varied_picture_is_new_and_similar_to_its_drawing(page):
    index = np.repeat(np.arange(0, 60, DRAWERS), 40)
    pictures = draw_varied(np.random.default_rng(2), page, index, 32)
    assert len({p.tobytes() for p in pictures}) == len(pictures)
    again = draw_varied(np.random.default_rng(2), page, index, 32)
    np.testing.assert_array_equal(pictures, again)
    means = pictures.reshape(3, 40, -1).mean(axis=1)
    plain = draw_plain(page, np.arange(0, 60, DRAWERS), 32).reshape(3, -1)
    assert (np.corrcoef(means, plain)[:3, 3:].argmax(axis=1) == np.arange(3)).all()


@pytest.mark.parametrize("ways", [1, 7, 20])
def test_words_have_no_syllable_in_common(ways, rng, tokenizer):
    for _ in range(20):
        words = episode_words(rng, ways)
        pieces = [tokenizer.encode(word) for word in words]
        assert len(words) == ways and all(len(p) == 2 for p in pieces)
        assert all(len({p[i] for p in pieces}) == ways for i in range(2))


def test_an_episode_shows_every_character_once_and_then_queries_by_other_people(rng):
    for _ in range(30):
        items = picture_episode(rng, np.arange(10, 20), ways=5, queries=8)
        media, words = items[::2], items[1::2]
        assert all(isinstance(m, Medium) and m.kind == "picture" for m in media) and len(media) == 13
        classes, people = np.divmod([m.index for m in media], DRAWERS)
        assert len(set(classes[:5])) == 5 and set(classes[5:]) <= set(classes[:5]) <= set(range(10, 20))
        assert len(set(people[:5])) == 1 and people[0] not in people[5:] and len(set(people[5:])) > 1
        word_of = dict(zip(classes[:5], (w.text for w in words[:5]), strict=True))
        assert all(isinstance(w, Quiet) for w in words[:5])
        assert words[5:] == [word_of[c] for c in classes[5:]]
