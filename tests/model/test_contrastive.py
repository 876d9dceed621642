"""Contrastive pretraining: the loss by hand, equal captions, padding, the largest scale."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from model_cases import assert_float32_inside, check_tree, shake, tiny_config

from tinyflamingo import ops
from tinyflamingo.model.contrastive import (
    MAX_LOGIT_SCALE,
    START_TEMPERATURE,
    contrastive_loss,
    embed_captions,
    embed_pictures,
    init_contrastive,
    text_tower,
    unit,
)
from tinyflamingo.model.vision_encoder import init_vision_encoder

CONFIG = tiny_config()


def _params(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = init_contrastive(rng, CONFIG, init_vision_encoder(rng, CONFIG.vision, dtype), dtype)
    return shake(params, rng)


def _naive(pictures, captions, scale, ids):
    """Both softmaxes in loops; another row with an equal caption is left out of the sum."""
    logits, n = scale * pictures @ captions.T, len(ids)
    total = 0.0
    for i in range(n):
        candidates = [j for j in range(n) if j == i or ids[j] != ids[i]]
        total += np.log(np.sum(np.exp(logits[i, candidates]))) - logits[i, i]
        total += np.log(np.sum(np.exp(logits[candidates, i]))) - logits[i, i]
    return total / n


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_loss_of_identity_embeddings(floor, scale):
    """Right pair 1, wrong pairs 0: each direction costs log(1 + (B - 1) e^-scale); they are summed."""
    eye = np.eye(5)
    loss = contrastive_loss(eye, eye, np.array(np.log(scale)), np.arange(5))
    assert loss == pytest.approx(2 * np.log1p(4 * np.exp(-scale)), rel=1e-12)


def test_loss_is_the_naive_one(floor, rng):
    pictures, captions = unit(rng.standard_normal((6, 4))), unit(rng.standard_normal((6, 4)))
    ids = np.array([0, 1, 0, 2, 1, 0])
    loss = contrastive_loss(pictures, captions, np.array(np.log(3.0)), ids)
    assert loss == pytest.approx(_naive(pictures, captions, 3.0, ids), rel=1e-9)


def test_an_equal_caption_is_not_a_negative(floor, rng):
    """Two rows with one caption: the loss of the first is what it would be without the second."""
    pictures, captions = unit(rng.standard_normal((4, 4))), unit(rng.standard_normal((4, 4)))
    captions[1] = captions[0]
    scale, ids = np.array(np.log(5.0)), np.array([0, 0, 1, 2])
    equal = contrastive_loss(pictures, captions, scale, ids)
    assert equal < contrastive_loss(pictures, captions, scale, np.arange(4)) - 0.1
    pictures[1] = pictures[0]
    twice = contrastive_loss(pictures[:2], captions[:2], scale, np.array([0, 0]))
    assert twice == pytest.approx(0.0, abs=1e-12)  # no negative is left


def test_another_caption_of_the_same_picture_is_not_a_negative(floor, rng):
    """Rows 0 and 1 show one picture: the loss does not depend on their captions' similarity to it."""
    pictures, captions = unit(rng.standard_normal((4, 4))), unit(rng.standard_normal((4, 4)))
    pictures[1] = pictures[0]
    scale, different, same = np.array(np.log(5.0)), np.arange(4), np.array([0, 0, 1, 2])
    loss = contrastive_loss(pictures, captions, scale, np.stack([different, same]))
    assert loss == pytest.approx(_naive(pictures, captions, 5.0, same), rel=1e-9)
    assert loss < contrastive_loss(pictures, captions, scale, different) - 0.1
    other_way = contrastive_loss(captions, pictures, scale, np.stack([same, different]))
    assert other_way == pytest.approx(loss, rel=1e-12)


def test_equal_pictures_and_equal_captions_are_no_chain(floor, rng):
    """Rows 0 and 1 share the picture, rows 1 and 2 the caption: row 2 stays a negative of row 0."""
    pictures, captions = unit(rng.standard_normal((3, 4))), unit(rng.standard_normal((3, 4)))
    ids = np.array([[0, 1, 1], [0, 0, 1]])
    one = contrastive_loss(pictures, captions, np.array(1.0), ids)
    captions[2] = -pictures[0]
    assert one != pytest.approx(contrastive_loss(pictures, captions, np.array(1.0), ids), rel=1e-6)


def test_loss_is_symmetric(floor, rng):
    pictures, captions = unit(rng.standard_normal((5, 4))), unit(rng.standard_normal((5, 4)))
    ids, scale = np.array([0, 1, 1, 2, 3]), np.array(1.0)
    assert contrastive_loss(pictures, captions, scale, ids) == pytest.approx(
        contrastive_loss(captions, pictures, scale, ids), rel=1e-12
    )


def test_loss_gradient(floor, rng):
    pictures, captions = rng.standard_normal((5, 4)), rng.standard_normal((5, 4))
    ids = np.array([0, 1, 1, 2, 3])
    ops.check_grad(lambda p, c, s: contrastive_loss(unit(p), unit(c), s, ids), pictures, captions, np.array(1.1))


def test_learned_temperature_is_capped(floor, rng):
    pictures, captions = unit(rng.standard_normal((4, 3))), unit(rng.standard_normal((4, 3)))

    def loss(log_scale):
        return contrastive_loss(pictures, captions, log_scale, np.arange(4))

    cap = np.log(MAX_LOGIT_SCALE)
    assert loss(np.array(cap + 3)) == pytest.approx(loss(np.array(cap)), rel=1e-12)
    assert loss(np.array(cap - 1)) != pytest.approx(loss(np.array(cap)), rel=1e-3)
    assert grad(loss)(np.array(cap + 3)) == 0
    assert grad(loss)(np.array(cap - 1)) != 0


def test_the_temperature_starts_at_its_constant(rng):
    params = init_contrastive(rng, CONFIG, {})
    assert np.exp(-params["log_scale"]) == pytest.approx(START_TEMPERATURE, rel=1e-6)


# ---------------------------------------------------------------- the towers


def test_padding_changes_nothing(floor, rng):
    params, tokens = _params()["text"], rng.integers(5, 12, (2, 6))
    mask = np.arange(6) < np.array([[6], [4]])
    vectors = text_tower(params, tokens, mask, CONFIG.text_tower)
    padded = np.concatenate([tokens, rng.integers(0, 12, (2, 3))], axis=1)
    padded[1, 4:] = 0
    longer = np.concatenate([mask, np.zeros((2, 3), bool)], axis=1)
    np.testing.assert_allclose(text_tower(params, padded, longer, CONFIG.text_tower), vectors, atol=1e-12)
    alone = text_tower(params, tokens[1:, :4], mask[1:, :4], CONFIG.text_tower)
    np.testing.assert_allclose(alone, vectors[1:], atol=1e-12)


def _norm(x, gain, bias):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + bias


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_text_tower_in_loops(floor, rng):
    """One caption, word by word: every word attends to all words, before and after it."""
    tower, p = CONFIG.text_tower, _params()["text"]
    tokens, K = rng.integers(5, 12, 4), CONFIG.text_tower.width // CONFIG.text_tower.heads
    h = [p["embedding"][t] + p["positions"][i] for i, t in enumerate(tokens)]
    for n in range(tower.layers):
        b = p[f"block_{n}"]
        x = [_norm(row, b["attn_gain"], b["attn_bias"]) for row in h]
        for i in range(4):
            heads = []
            for head in range(tower.heads):
                own = slice(head * K, (head + 1) * K)
                scores = [(x[i] @ b["w_q"][:, own]) @ (y @ b["w_k"][:, own]) / K**0.5 for y in x]
                weights = np.exp(scores) / np.sum(np.exp(scores))
                heads.append(sum(a * (y @ b["w_v"][:, own]) for a, y in zip(weights, x, strict=True)))
            h[i] = h[i] + np.concatenate(heads) @ b["w_o"] + b["b_o"]
        for i in range(4):
            hidden = _gelu(_norm(h[i], b["ffw_gain"], b["ffw_bias"]) @ b["w_1"] + b["b_1"])
            h[i] = h[i] + hidden @ b["w_2"] + b["b_2"]
    expected = np.mean([_norm(row, p["final_gain"], p["final_bias"]) for row in h], axis=0)
    actual = text_tower(p, tokens[None], np.ones((1, 4), bool), tower)
    np.testing.assert_allclose(actual[0], expected, atol=1e-11)


def test_empty_caption_is_finite(floor):
    vectors = text_tower(_params()["text"], np.zeros((1, 3), int), np.zeros((1, 3), bool), CONFIG.text_tower)
    np.testing.assert_array_equal(vectors, 0)
    np.testing.assert_array_equal(unit(vectors), 0)


def test_rows_are_unit_vectors(floor, rng):
    params = _params()
    by_picture = embed_pictures(params, rng.integers(0, 256, (3, 9, 7, 3)).astype(np.uint8), CONFIG)
    tokens = rng.integers(5, 12, (3, 4))
    by_caption = embed_captions(params, tokens, np.ones((3, 4), bool), CONFIG)
    assert by_picture.shape == by_caption.shape == (3, CONFIG.text_tower.joint_width)
    np.testing.assert_allclose(np.sum(by_picture**2, axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(np.sum(by_caption**2, axis=1), 1, rtol=1e-9)


def test_text_tower_gradient(floor, rng):
    tokens, mask = rng.integers(5, 12, (2, 4)), np.array([[True] * 4, [True] * 2 + [False] * 2])
    params = _params()["text"]
    check_tree(lambda p: text_tower(p, tokens, mask, CONFIG.text_tower), params, tol=1e-5)


def test_float32_inside_backward(floor, rng):
    params = _params(np.float32)
    pictures = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    tokens, mask = rng.integers(5, 12, (3, 5)), np.arange(5) < np.array([[5], [3], [4]])

    def loss(p):
        by_picture, by_caption = embed_pictures(p, pictures, CONFIG), embed_captions(p, tokens, mask, CONFIG)
        return contrastive_loss(by_picture, by_caption, p["log_scale"], np.array([0, 1, 0])) * np.float32(1)

    assert_float32_inside(lambda p: anp.sum(loss(p)), params)
