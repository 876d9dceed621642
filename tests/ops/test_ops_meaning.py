"""The contracts of the operations: masks, empty rows, padding, errors, and values computed by hand."""

from statistics import NormalDist

import numpy as np
import ops_cases
import pytest
from autograd import make_vjp

from tinyflamingo import ops
from tinyflamingo.ops import fast, kernels

VALUES = ops_cases.build()

B, T, S, H, K, R, N = 2, 6, 6, 2, 4, 3, 3


@pytest.fixture
def rng():
    return np.random.default_rng(3)


# ---------------------------------------------------------------- attention


def test_attention_masked_keys_do_not_matter(floor, rng):
    q, k, v = (rng.standard_normal((B, S, H, K)) for _ in range(3))
    mask = np.array([[True] * 4 + [False] * 2, [False] * 6])
    before = ops.attention(q, k, v, mask)
    k[0, 4:], v[0, 4:] = 100.0, -7.0
    np.testing.assert_array_equal(before, ops.attention(q, k, v, mask))
    assert np.all(before[1] == 0)
    short = ops.attention(q[:1], k[:1, :4], v[:1, :4])
    np.testing.assert_allclose(before[:1], short, atol=1e-12)


def test_attention_empty_rows_have_zero_gradient(floor, rng):
    q, k, v = (rng.standard_normal((B, S, H, K)) for _ in range(3))
    mask = np.array([[True] * 6, [False] * 6])
    _, gradients = ops_cases.gradients(lambda *a: ops.attention(*a, mask), [q, k, v])
    assert all(np.all(g[1] == 0) and np.all(np.isfinite(g)) for g in gradients)


def test_attention_of_large_scores_is_finite(floor):
    q = np.full((1, 2, 1, 4), 300, np.float32)
    k = np.stack([q[0], -q[0]])[:1]
    assert np.all(np.isfinite(ops.attention(q, k, k)))


@pytest.mark.parametrize("width", [3, 64])
def test_attention_lets_nan_through(floor, width):
    """The maximum of a row ignores NaN, but the loss must not."""
    q, k, v = (np.ones((1, width, 1, 4)) for _ in range(3))
    k[0, 1, 0, 0] = np.nan
    assert np.all(np.isnan(ops.attention(q, k, v)))


# ---------------------------------------------------------------- relative attention


def _relative(rng, batch=B, T=T, S=S):
    keys = (batch, S, H, K)
    shapes = [(batch, T, H, K), keys, keys, (S, H, K), (H, K), (H, K)]
    return [rng.standard_normal(shape) for shape in shapes]


def test_relative_attention_by_hand(floor, rng):
    """The formula in three loops."""
    q, k, v, r, u, vb = _relative(rng, T=3, S=5)
    visible_from = np.array([[0, 1, 4], [2, 3, 0]])
    got = ops.relative_attention(q, k, v, r, u, vb, visible_from)
    for b, i, h in np.ndindex(B, 3, H):
        own = 2 + i
        keys = range(visible_from[b, i], own + 1)
        scores = [((q[b, i, h] + u[h]) @ k[b, j, h] + (q[b, i, h] + vb[h]) @ r[own - j, h]) / K**0.5 for j in keys]
        p = np.exp(scores) / np.sum(np.exp(scores))
        expected = sum(p[n] * v[b, j, h] for n, j in enumerate(keys))
        np.testing.assert_allclose(got[b, i, h], expected, atol=1e-12)


def test_relative_attention_is_causal(floor, rng):
    args = _relative(rng)
    visible_from = np.zeros((B, T), int)
    before = ops.relative_attention(*args, visible_from)
    args[1][:, 4:] += 1.0
    args[2][:, 4:] += 1.0
    after = ops.relative_attention(*args, visible_from)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.all(before[:, 4:] != after[:, 4:])


@pytest.mark.parametrize("long", [6, 150])
def test_relative_attention_decodes_as_it_reads(floor, rng, long):
    """One query at a time with a growing cache gives the same as one pass."""
    q, k, v, r, u, vb = _relative(rng, T=long, S=long)
    visible_from = np.zeros((B, long), int)
    whole = ops.relative_attention(q, k, v, r, u, vb, visible_from)
    for n in (1, 3, long):
        row = slice(n - 1, n)
        one = ops.relative_attention(q[:, row], k[:, :n], v[:, :n], r[:n], u, vb, visible_from[:, row])
        np.testing.assert_allclose(one, whole[:, row], atol=1e-12)


def test_relative_attention_padding_left_and_right(floor, rng):
    q, k, v, r, u, vb = _relative(rng, batch=1)
    alone = ops.relative_attention(q, k, v, r, u, vb, np.zeros((1, T), int))
    pad = 3

    def padded(before, after):
        q2, k2, v2 = (
            np.concatenate([np.full((1, before, H, K), 9.0), x, np.full((1, after, H, K), 9.0)], 1) for x in (q, k, v)
        )
        r2 = np.concatenate([r, np.full((pad, H, K), 9.0)])
        visible_from = np.full((1, T + pad), before)
        return ops.relative_attention(q2, k2, v2, r2, u, vb, visible_from)

    left, right = padded(pad, 0), padded(0, pad)
    np.testing.assert_allclose(left[:, pad:], alone, atol=1e-12)
    np.testing.assert_allclose(right[:, :T], alone, atol=1e-12)
    assert np.all(left[:, :pad] == 0)  # for padding no key is visible


def test_relative_attention_packed_documents_do_not_see_each_other(floor, rng):
    q, k, v, r, u, vb = _relative(rng, batch=1)
    visible_from = np.array([[0, 0, 0, 3, 3, 3]])
    packed = ops.relative_attention(q, k, v, r, u, vb, visible_from)
    zeros = np.zeros((1, 3), int)
    for part in (slice(0, 3), slice(3, 6)):
        alone = ops.relative_attention(q[:, part], k[:, part], v[:, part], r[:3], u, vb, zeros)
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-12)


def test_relative_attention_empty_rows(floor, rng):
    args = _relative(rng)
    visible_from = np.full((B, T), S)
    y, gradients = ops_cases.gradients(lambda *a: ops.relative_attention(*a, visible_from), args)
    assert np.all(y == 0)
    assert all(np.all(g == 0) for g in gradients)


def test_relative_attention_needs_a_key_for_each_query(floor, rng):
    args = _relative(rng, T=4, S=3)
    with pytest.raises(ValueError, match="4 queries but only 3 keys"):
        ops.relative_attention(*args, np.zeros((B, 4), int))


# ---------------------------------------------------------------- segment attention


def _media(rng, N=N):
    return (
        rng.standard_normal((B, T, H, K)),
        rng.standard_normal((B, N, R, H, K)),
        rng.standard_normal((B, N, R, H, K)),
    )


PHI = np.array([[0, 0, 1, 1, 2, 3], [1, 2, 2, 2, 2, 3]])


def test_a_later_medium_changes_nothing_earlier(floor, rng):
    q, k, v = _media(rng)
    before = ops.segment_attention(q, k, v, PHI)
    k[:, 2], v[:, 2] = 50.0, -50.0
    after = ops.segment_attention(q, k, v, PHI)
    np.testing.assert_array_equal(before[PHI < 3], after[PHI < 3])
    assert np.all(before[PHI == 3] != after[PHI == 3])


def test_phi_zero_is_exactly_zero(floor, rng):
    q, k, v = _media(rng)
    y, (dq, dk, dv) = ops_cases.gradients(lambda *a: ops.segment_attention(*a, PHI), [q, k, v])
    assert np.all(y[PHI == 0] == 0) and np.all(dq[PHI == 0] == 0)
    assert np.all(dk[1, 0] != 0)
    no_medium = np.zeros_like(PHI)
    y, gradients = ops_cases.gradients(lambda *a: ops.segment_attention(*a, no_medium), [q, k, v])
    assert np.all(y == 0) and all(np.all(g == 0) for g in gradients)


def test_segment_attention_is_attention_to_one_medium(floor, rng):
    q, k, v = _media(rng)
    y = ops.segment_attention(q, k, v, PHI)
    for n in range(N):
        alone = ops.attention(q, k[:, n], v[:, n])
        np.testing.assert_allclose(y[PHI == n + 1], alone[PHI == n + 1], atol=1e-12)


FIRST = np.array([[0, 0, 1, 1, 1, 2], [1, 1, 2, 1, 2, 1]])


def test_previous_media_are_in_one_softmax(floor, rng):
    """The same as attention to the concatenated media of the token."""
    q, k, v = _media(rng)
    y = ops.segment_attention(q, k, v, PHI, FIRST)
    for b, t in np.argwhere(PHI > 0):
        media = slice(FIRST[b, t] - 1, PHI[b, t])
        keys, values = (x[b, media].reshape(1, -1, H, K) for x in (k, v))
        alone = ops.attention(q[b : b + 1, t : t + 1], keys, values)
        np.testing.assert_allclose(y[b, t], alone[0, 0], atol=1e-12)


def test_first_medium_equal_to_phi_changes_no_bit(floor, rng):
    q, k, v = _media(rng)
    np.testing.assert_array_equal(ops.segment_attention(q, k, v, PHI, PHI), ops.segment_attention(q, k, v, PHI))


@pytest.mark.parametrize("medium", [1, 2, 3])
def test_only_media_from_first_to_phi_matter(floor, rng, medium):
    """The change is in row 0. Row 1 stays the same."""
    q, k, v = _media(rng)
    before = ops.segment_attention(q, k, v, PHI, FIRST)
    k[0, medium - 1], v[0, medium - 1] = 50.0, -50.0
    after = ops.segment_attention(q, k, v, PHI, FIRST)
    visible = (FIRST[0] <= medium) & (medium <= PHI[0])
    np.testing.assert_array_equal(before[0, ~visible], after[0, ~visible])
    assert np.all(before[0, visible] != after[0, visible])
    np.testing.assert_array_equal(before[1], after[1])


def test_previous_media_and_phi_zero(floor, rng):
    q, k, v = _media(rng)
    y, (dq, dk, _) = ops_cases.gradients(lambda *a: ops.segment_attention(*a, PHI, FIRST), [q, k, v])
    assert np.all(y[PHI == 0] == 0) and np.all(dq[PHI == 0] == 0) and np.all(dk[:, 0] != 0)
    no_medium = np.zeros_like(PHI)
    y, gradients = ops_cases.gradients(lambda *a: ops.segment_attention(*a, no_medium, FIRST), [q, k, v])
    assert np.all(y == 0) and all(np.all(g == 0) for g in gradients)


@pytest.mark.parametrize("latents", [3, 9, 40])
@pytest.mark.parametrize("engine", ["the one here", "numpy"])
def test_unseen_media_are_never_touched(rng, monkeypatch, engine, latents):
    """On the fast floor, media that no token attends to may even be NaN: later media, and media of other rows."""
    if engine == "numpy":
        monkeypatch.setattr(kernels, "ENGINE", "numpy")
    phi, first = np.repeat([[[1, 2, 2], [0, 3, 3]], [[1, 1, 2], [0, 2, 3]]], 11, axis=2)
    q = rng.standard_normal((2, 33, H, K))
    k, v = rng.standard_normal((2, 2, 4, latents, H, K))
    with ops.use("fast"):
        expected = ops_cases.gradients(lambda *a: ops.segment_attention(*a, phi, first), [q, k, v])
        for row, unseen in ((0, [2, 3]), (1, [0, 3])):
            k[row, unseen], v[row, unseen] = np.nan, np.nan
        got = ops_cases.gradients(lambda *a: ops.segment_attention(*a, phi, first), [q, k, v])
    for a, b in zip([expected[0], *expected[1]], [got[0], *got[1]], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("length, latents", [(1, 3), (7, 40), (64, 40), (130, 9), (9, 130)])
def test_floors_agree_on_runs_of_any_length(rng, length, latents):
    """Short and long runs, few and many latents: loops, blocks, padding and partial blocks."""
    phi = np.repeat([[1, 0, 2, 3, 1], [3, 3, 2, 0, 1]], length, axis=1)[:, : 5 * length - length // 3]
    q = rng.standard_normal((2, phi.shape[1], 3, 6))
    k, v = rng.standard_normal((2, 2, 3, latents, 3, 6))
    for first in (None, np.minimum(phi, 1), np.maximum(phi - 1, np.minimum(phi, 1))):
        ops_cases.compare_floors(lambda *a, first=first: ops.segment_attention(*a, phi, first), [q, k, v], tol=1e-9)


@pytest.mark.parametrize("wrong, of", [(0, 2), (3, 2), (-1, 2), (2, 1)])
def test_first_out_of_range_gives_both_numbers(floor, rng, wrong, of):
    q, k, v = _media(rng)
    with pytest.raises(ValueError, match=rf"first_medium is {wrong} but must be in 1..{of} \(phi is {of}\)"):
        ops.segment_attention(q, k, v, PHI, np.where(PHI == of, wrong, np.minimum(PHI, 1)))
    ops.segment_attention(q, k, v, PHI, np.where(PHI == 0, wrong, PHI))  # where phi is 0 it is not used


def test_no_media(floor, rng):
    q, k, v = _media(rng, N=0)
    y, gradients = ops_cases.gradients(lambda *a: ops.segment_attention(*a, 0 * PHI), [q, k, v])
    assert y.shape == q.shape and np.all(y == 0)
    assert [g.shape for g in gradients] == [q.shape, k.shape, v.shape]
    assert np.all(gradients[0] == 0)


@pytest.mark.parametrize("wrong", [4, -1])
def test_phi_out_of_range_gives_both_numbers(floor, rng, wrong):
    q, k, v = _media(rng)
    with pytest.raises(ValueError, match=f"phi is {wrong} but there are 3 media"):
        ops.segment_attention(q, k, v, np.where(PHI == 3, wrong, PHI))


# ---------------------------------------------------------------- tables and losses


def test_cross_entropy_is_one_number_for_each_row(floor, rng):
    logits, targets = rng.standard_normal((4, 5)), np.array([0, 4, 2, 2])
    losses = ops.cross_entropy(logits, targets)
    for row, target, loss in zip(logits, targets, losses, strict=True):
        assert loss == pytest.approx(-np.log(np.exp(row[target]) / np.exp(row).sum()), rel=1e-12)
    logits[1] += 100.0  # a constant in one row changes no loss
    np.testing.assert_allclose(ops.cross_entropy(logits, targets), losses, rtol=1e-11)


def test_cross_entropy_rows_with_gradient_zero_get_zero(floor, rng):
    logits = rng.standard_normal((3, 5)).astype(np.float32)
    vjp, _ = make_vjp(lambda x: ops.cross_entropy(x, np.array([0, 1, 2])))(logits)
    gradient = vjp(np.array([0, 2, 0], np.float32))
    assert not gradient[[0, 2]].any() and np.all(gradient[1] != 0)
    assert gradient[1].sum() == pytest.approx(0, abs=1e-6)


def test_cross_entropy_of_equal_logits_is_log_v(floor):
    losses = ops.cross_entropy(np.full((4, 10), 1e4), np.arange(4))
    np.testing.assert_allclose(losses, np.log(10))


def test_cross_entropy_of_more_rows_than_a_chunk(rng):
    logits, targets = rng.standard_normal((130, 600)), rng.integers(0, 600, 130)
    ops_cases.compare_floors(lambda x: ops.cross_entropy(x, targets), [logits], tol=1e-10)
    assert ops.cross_entropy(logits[:0], targets[:0]).shape == (0,)


def test_cross_entropy_errors(floor, rng):
    logits = rng.standard_normal((3, 5))
    with pytest.raises(ValueError, match=r"target 5 is outside 0..4"):
        ops.cross_entropy(logits, np.array([0, 5, 1]))
    with pytest.raises(ValueError, match=r"target -100 is outside 0..4"):
        ops.cross_entropy(logits, np.array([0, -100, 1]))
    with pytest.raises(ValueError, match="integers"):
        ops.cross_entropy(logits, np.array([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="axis M"):
        ops.cross_entropy(logits, np.array([0, 1]))


def test_embed_errors(floor):
    with pytest.raises(ValueError, match=r"id 4 is outside 0..3"):
        ops.embed(np.ones((4, 2)), np.array([0, 4]))
    with pytest.raises(ValueError, match=r"id -1 is outside 0..3"):
        ops.embed(np.ones((4, 2)), np.array([0, -1]))


def test_embed_with_many_repeats(floor, rng):
    ids = rng.integers(0, 5, (7, 11))
    g = rng.standard_normal((7, 11, 3))
    vjp, _ = make_vjp(lambda table: ops.embed(table, ids))(np.zeros((6, 3)))
    expected = np.zeros((6, 3))
    np.add.at(expected, ids, g)
    np.testing.assert_allclose(vjp(g), expected, atol=1e-12)


# ---------------------------------------------------------------- pictures


def test_conv2d_by_hand_pads_at_the_end(floor):
    """Kernels 2 and 3 on four pixels, strides 1 and 2: TensorFlow puts the extra zero at the end."""
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    w = np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(ops.conv2d(x, w, stride=2).ravel(), [321, 43])
    np.testing.assert_array_equal(ops.conv2d(x, w).ravel(), [210, 321, 432, 43])
    np.testing.assert_array_equal(ops.conv2d(x, w[:, :2]).ravel(), [21, 32, 43, 4])


def test_conv2d_by_hand_pads_at_the_start(floor):
    """The same picture and kernel, with the extra pixel at the start: PyTorch's padding 1 for kernel 3."""
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    w = np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(ops.conv2d(x, w, stride=2, extra="start").ravel(), [210, 432])
    np.testing.assert_array_equal(ops.conv2d(x, w, extra="start").ravel(), ops.conv2d(x, w).ravel())


def test_max_pool3_by_hand(floor):
    """Padding is never the largest value, even if all numbers are negative."""
    x = -np.arange(1.0, 9).reshape(1, 2, 4, 1)
    np.testing.assert_array_equal(ops.max_pool3(x).ravel(), [-1, -3])
    np.testing.assert_array_equal(ops.max_pool3(x, "start").ravel(), [-1, -2])
    np.testing.assert_array_equal(ops.max_pool3(np.zeros((1, 5, 5, 2))), np.zeros((1, 3, 3, 2)))


def test_max_pool3_gives_the_gradient_to_the_first_of_equal_values(floor):
    backward, y = make_vjp(ops.max_pool3)(np.zeros((1, 3, 3, 1)))
    np.testing.assert_array_equal(backward(np.ones_like(y))[0, :, :, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_conv2d_groups_do_not_mix(floor, rng):
    x, w = rng.standard_normal((1, 4, 4, 6)), rng.standard_normal((3, 3, 2, 9))
    y = ops.conv2d(x, w, groups=3)
    for i in range(3):
        one = ops.conv2d(x[..., 2 * i : 2 * i + 2], w[..., 3 * i : 3 * i + 3])
        np.testing.assert_allclose(y[..., 3 * i : 3 * i + 3], one, atol=1e-12)
    with pytest.raises(ValueError, match="6 channels in 2 groups"):
        ops.conv2d(x, w, groups=2)


def test_conv2d_of_more_pictures_than_a_block(rng):
    x, w = rng.standard_normal((37, 16, 16, 8)), rng.standard_normal((3, 3, 8, 8))
    ops_cases.compare_floors(ops.conv2d, [x, w], tol=1e-9)
    ops_cases.compare_floors(lambda x, w: ops.conv2d(x, w, stride=2), [x, w], tol=1e-9)


def test_avg_pool2_by_hand(floor):
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(ops.avg_pool2(x).ravel(), [2.0, 3.5, 6.5, 8.0])
    assert ops.avg_pool2(np.ones((2, 1, 1, 3))).shape == (2, 1, 1, 3)


def test_gated_residual_has_a_gate_for_each_picture_and_channel(floor, rng):
    shortcut, branch = rng.standard_normal((2, 2, 3, 4, 5))
    gates = np.array([[0, 1, -2.0, 0, 0], [0, 0, 0, 0, 3]])
    y = ops.gated_residual(shortcut, branch, gates)
    for b, c in np.ndindex(2, 5):
        expected = shortcut[b, ..., c] + gates[b, c] * branch[b, ..., c]
        np.testing.assert_allclose(y[b, ..., c], expected, atol=1e-14)
    with pytest.raises(ValueError, match="axis C"):
        ops.gated_residual(shortcut, branch, gates[:, :4])
    with pytest.raises(ValueError, match="axis Y"):
        ops.gated_residual(shortcut[:, :1], branch, gates)


def test_mean_pixels_by_hand(floor):
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_allclose(ops.mean_pixels(x), [[5.0, 6.0]], rtol=1e-15)
    vjp, _ = make_vjp(ops.mean_pixels)(x)
    np.testing.assert_allclose(vjp(np.array([[6.0, 12.0]])), np.broadcast_to([1.0, 2.0], x.shape), rtol=1e-15)
    with pytest.raises(ValueError, match="got 3 axes"):
        ops.mean_pixels(x[0])


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (1, 1, 8, 3), (3, 1, 2, 7)])
def test_standardised_weight_has_mean_zero_and_the_gain_as_norm(floor, rng, shape):
    gain = rng.uniform(0.5, 2.0, shape[-1])
    w = ops.standardise_weight(3.0 + 2.0 * rng.standard_normal(shape), gain)
    fan_in = np.prod(shape[:3])
    np.testing.assert_allclose(w.mean(axis=(0, 1, 2)), 0.0, atol=1e-12)
    np.testing.assert_allclose(fan_in * w.var(axis=(0, 1, 2)), gain**2, rtol=1e-12)


def test_standardised_weight_ignores_scale_and_shift_of_the_raw_weight(floor, rng):
    w, gain = rng.standard_normal((3, 3, 4, 5)), rng.standard_normal(5)
    scale, shift = rng.uniform(0.5, 9.0, 5), rng.standard_normal(5)
    changed, expected = ops.standardise_weight(w * scale + shift, gain), ops.standardise_weight(w, gain)
    np.testing.assert_allclose(changed, expected, rtol=1e-9, atol=1e-12)


def test_constant_weight_is_zero_with_finite_gradient(floor):
    """N * Var has a lower limit: a constant filter gives 0, not 0/0."""
    w, gain = np.full((3, 3, 2, 4), 0.7), np.ones(4)
    vjp, value = make_vjp(lambda w: ops.standardise_weight(w, gain))(w)
    np.testing.assert_allclose(value, 0.0, atol=1e-12)
    assert np.all(np.isfinite(vjp(np.ones_like(w))))
    with pytest.raises(ValueError, match="axis Cout"):
        ops.standardise_weight(w, gain[:3])


def test_activations_at_the_ends(floor):
    x = np.array([-1e4, 0.0, 1e4], np.float32)
    np.testing.assert_array_equal(ops.sigmoid(x), [0, 0.5, 1])
    np.testing.assert_array_equal(ops.relu(x), [0, 0, 1e4])
    np.testing.assert_array_equal(ops.gelu(x), [0, 0, 1e4])
    np.testing.assert_array_equal(ops.gelu_erf(x), [0, 0, 1e4])
    np.testing.assert_array_equal(ops.quick_gelu(x), [0, 0, 1e4])


def test_gelu_erf_is_x_times_the_normal_distribution(floor):
    x = np.linspace(-6, 6, 101)
    normal = np.array([NormalDist().cdf(point) for point in x])
    np.testing.assert_allclose(ops.gelu_erf(x), x * normal, atol=1e-14)
    assert 1e-4 < np.abs(ops.gelu_erf(x) - ops.gelu(x)).max() < 1e-3  # why the two are two functions


def test_quick_gelu_in_numbers(floor):
    x = np.linspace(-6, 6, 999)
    np.testing.assert_allclose(ops.quick_gelu(x), x / (1 + np.exp(-1.702 * x)), atol=1e-14)
    assert 0.02 < np.abs(ops.quick_gelu(x) - ops.gelu(x)).max() < 0.021


def test_gelu_gain_scales_the_output(floor, rng):
    x = rng.standard_normal((3, 7)).astype(np.float32)
    np.testing.assert_allclose(ops.gelu(x, 2.5), np.float32(2.5) * ops.gelu(x), rtol=1e-6)
    assert ops.gelu(x, 2.5).dtype == np.float32
    long = rng.standard_normal(100_000)  # longer than a chunk
    assert ops.gelu(long)[-1] == ops.gelu(long[-1:])[0]


@pytest.mark.parametrize("name", ["gelu", "quick_gelu"])
def test_activations_of_more_than_a_chunk(rng, name):
    x = rng.standard_normal(2 * fast.CHUNK + 3)
    ops_cases.compare_floors(getattr(ops, name), [x], tol=1e-12)


# ---------------------------------------------------------------- the optimiser


RATES = 0.1, 0.9, 0.98, 0.19, 0.04, 1e-3  # rate, beta_1, beta_2, 1 - beta_1^t, 1 - beta_2^t, epsilon


def _adamw_arrays(rng, dtype=np.float64):
    x, m, g = rng.standard_normal((3, 50)).astype(dtype)
    return [x, m, m * m, g, rng.uniform(0, 1, 50).astype(dtype)]


@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_adamw_is_algorithm_2(floor, rng, dtype, rtol):
    x, m, v, g, decay = arrays = _adamw_arrays(rng, dtype)
    before = [a.astype(np.float64) for a in arrays]
    assert ops.adamw(*arrays, *RATES) is None
    new_m = 0.9 * before[1] + 0.1 * before[3]
    new_v = 0.98 * before[2] + 0.02 * before[3] ** 2
    step = (new_m / 0.19) / (np.sqrt(new_v / 0.04) + 1e-3)
    for got, expected in ((m, new_m), (v, new_v), (x, before[0] - 0.1 * (step + before[4] * before[0]))):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(g, before[3])
    np.testing.assert_array_equal(decay, before[4])


def test_adamw_without_gradient_and_moments_only_decays(floor):
    x, zero = np.array([2.0, -4.0]), np.zeros((3, 2))
    ops.adamw(x, *zero, np.array([0.5, 0.0]), *RATES)
    np.testing.assert_allclose(x, [1.9, -4.0], rtol=1e-15)


@pytest.mark.parametrize("place, name", [(1, "m"), (2, "v"), (3, "g"), (4, "decay")])
@pytest.mark.parametrize("wrong", [lambda a: a[1:], lambda a: a.astype(np.float32)], ids=["shape", "dtype"])
def test_adamw_refuses_another_shape_or_dtype(floor, rng, place, name, wrong):
    arrays = _adamw_arrays(rng)
    before = [a.copy() for a in arrays]
    arrays[place] = wrong(arrays[place])
    with pytest.raises(ValueError, match=rf"adamw: {name} is float.*, but the parameters float64 \(50,\)"):
        ops.adamw(*arrays, *RATES)
    np.testing.assert_array_equal(arrays[0], before[0])


# ---------------------------------------------------------------- whole batches, real sizes


def test_floors_agree_at_training_size(rng):
    """Several blocks of the batch and of the queries, in float32, as in training."""
    n, t = 5, 128
    q, k, v = (rng.standard_normal((n, t, 4, 32)).astype(np.float32) for _ in range(3))
    r = rng.standard_normal((t, 4, 32)).astype(np.float32)
    u, vb = rng.standard_normal((2, 4, 32)).astype(np.float32)
    visible_from = np.minimum(rng.integers(0, 60, (n, 1)), np.arange(t))
    relative = lambda *a: ops.relative_attention(*a, visible_from)  # noqa: E731
    ops_cases.compare_floors(relative, [q, k, v, r, u, vb], tol=5e-3)
    ops_cases.compare_floors(ops.attention, [q, k, v], tol=5e-4)


@pytest.mark.parametrize("name", [n for n, (_, args) in VALUES.items() if any(a.ndim == 1 for a in args[1:])])
def test_a_vector_of_the_wrong_length_is_refused(name):
    """Gains and biases: with a length of 1, NumPy would repeat their number."""
    function, args = VALUES[name]
    for i, vector in enumerate(args):
        if i and vector.ndim == 1:
            with pytest.raises(ValueError, match="axis"):
                function(*args[:i], vector[:1], *args[i + 1 :])
