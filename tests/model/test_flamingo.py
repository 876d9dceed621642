"""The whole: the language model bit for bit at first, causal in images, frozen means frozen."""

import inspect

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import V, assert_float32_inside, check_tree, shake, tiny, tiny_config, with_gates

from tinyflamingo import ops
from tinyflamingo.model import flamingo as flamingo_module
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import (
    embed_with_eoc,
    encode_media,
    flamingo,
    gates,
    init_flamingo,
    see,
)
from tinyflamingo.model.interleave import Sequence, make_batch, pack_batch, phi, phi_next
from tinyflamingo.model.language_model import embed_tokens, init_language_model, language_model
from tinyflamingo.model.perceiver_resampler import perceiver_resampler
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD
from tinyflamingo.model.vision_encoder import init_vision_encoder, normalise_pixels, vision_encoder
from tinyflamingo.ops.tree import named_leaves


def _logits(m, **changes):
    a = vars(m) | changes
    start, first = a.get("start"), a["first"]
    return flamingo(a["params"], a["frozen"], a["tokens"], a["phi"], a["visual"], a["config"], start, first=first)


def _loss(m, params):
    """Next-token loss over the whole batch, through the resampler."""
    logits = flamingo(params, m.frozen, m.tokens[:, :-1], m.phi[:, :-1], see(params, m.features, m.config), m.config)
    targets = m.tokens[:, 1:].ravel()
    losses = ops.cross_entropy(anp.reshape(logits, (targets.size, -1)), targets)
    return anp.sum(losses) * logits.dtype.type(1 / targets.size)


# ---------------------------------------------------------------- untrained


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("every", [1, 2])
def test_untrained_is_the_language_model_bit_for_bit(floor, dtype, every):
    m = tiny(dtype=dtype, config=tiny_config(xattn={"every": every}), gates=(0, 0), shaken=False)
    m.tokens[m.tokens == m.eoc] = 7  # the language model does not know <EOC>
    expected = language_model(m.frozen["language"], m.tokens, m.config.language)
    with_pictures = _logits(m)
    without = _logits(m, phi=0 * m.phi, visual=m.visual[:0])
    assert with_pictures.shape == (2, 8, V + 1) and with_pictures.dtype == dtype
    np.testing.assert_array_equal(with_pictures[..., :V], expected)
    np.testing.assert_array_equal(without[..., :V], expected)
    assert np.all(np.isfinite(with_pictures[..., V]))


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (16, 96)])
def test_bit_for_bit_at_the_toys_size_too(rng, shape):
    """BLAS takes other ways for other sizes: one column more can change the last bit of all others."""
    config = FlamingoConfig()
    params, language = init_flamingo(rng, config), init_language_model(rng, config.language)
    tokens = rng.integers(0, config.language.vocab_size, shape)
    visual = rng.standard_normal((1, config.resampler.latents, config.resampler.width)).astype(np.float32)
    logits = flamingo(params, {"language": language}, tokens, np.ones(shape, int), visual, config)
    np.testing.assert_array_equal(logits[..., :-1], language_model(language, tokens, config.language))


def test_init_has_closed_gates_everywhere(rng):
    params = init_flamingo(rng, tiny_config())
    assert set(params) == {"resampler", "eoc", "xattn_0", "xattn_1", "xattn_2"}
    assert list(gates(params).values()) == [0.0] * 6


def test_the_first_gradient_is_at_gates_and_eoc_alone(floor):
    """Contract: training starts from closed gates, so the resampler's first gradient is exactly 0."""
    m = tiny(gates=(0, 0), shaken=False)
    _, found = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
    for name, gradient in named_leaves(found).items():
        if name == "eoc" or name.rpartition("/")[2].startswith("alpha_"):
            assert np.any(gradient != 0), name
        else:
            np.testing.assert_array_equal(gradient, 0, err_msg=name)


# ---------------------------------------------------------------- who sees what


@pytest.mark.parametrize("medium", [1, 2, 3])
def test_a_later_image_changes_no_earlier_logit(floor, rng, medium):
    m = tiny()
    before = _logits(m)
    features = m.features.copy()
    features[medium - 1] = 3 * rng.standard_normal(features[0].shape)
    after = _logits(m, visual=see(m.params, features, m.config))
    row = 0 if medium < 3 else 1
    first = int(np.argmax(m.phi[row] == medium))
    np.testing.assert_array_equal(after[1 - row], before[1 - row])  # nor any of another row
    np.testing.assert_array_equal(after[row, :first], before[row, :first])
    assert np.all(np.abs(after[row, first:] - before[row, first:]).max(axis=-1) > 1e-9)


def test_an_earlier_image_reaches_later_tokens_through_self_attention(floor, rng):
    """Tokens of image 2 do not look at image 1, yet its change arrives: paper, section 2.3."""
    m = tiny()
    visual = m.visual.copy()
    visual[0] += rng.standard_normal(visual[0].shape)
    difference = np.abs(_logits(m, visual=visual) - _logits(m))[0]
    assert np.all(difference[m.phi[0] == 2].max(axis=-1) > 1e-9)


def test_a_later_token_changes_no_earlier_logit(floor):
    m = tiny()
    before = _logits(m)
    m.tokens[:, 6] = 9
    after = _logits(m)
    np.testing.assert_array_equal(after[:, :6], before[:, :6])
    assert np.all(after[:, 6:] != before[:, 6:])


@pytest.mark.parametrize("left, right", [(3, 0), (0, 3), (2, 1)])
def test_padding_changes_no_real_tokens_logits(floor, left, right):
    m = tiny()
    alone = _logits(m)
    pads = ((0, 0), (left, right))
    padded = _logits(
        m,
        tokens=np.pad(m.tokens, pads, constant_values=PAD),
        phi=np.pad(m.phi, pads),
        start=np.full((2, 8 + left + right), left),
    )
    np.testing.assert_allclose(padded[:, left : left + 8], alone, atol=1e-11)


def test_padded_media_are_never_attended(floor, rng):
    """Media that no token points to may hold any number."""
    m = tiny()
    padding = np.stack([np.full((3, 8), 1e6), rng.standard_normal((3, 8))])
    np.testing.assert_allclose(_logits(m, visual=np.concatenate([m.visual, padding])), _logits(m), atol=1e-12)


def test_rows_of_a_batch_equal_rows_alone(floor):
    m = tiny()
    whole = _logits(m)
    first = _logits(m, tokens=m.tokens[:1], phi=m.phi[:1], visual=m.visual[:2])
    second = _logits(m, tokens=m.tokens[1:], phi=np.maximum(m.phi[1:] - 2, 0), visual=m.visual[2:])
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=1e-11)


# ---------------------------------------------------------------- all previous images (paper, table 10)


ALL = tiny_config(xattn={"attend": "all_previous"})
NEXT = {"phi": phi_next(tiny().tokens) + [[0], [2]]}  # of the tiny batch, numbered over it


@pytest.mark.parametrize("ahead", [{}, NEXT], ids=["phi", "phi_next"])
@pytest.mark.parametrize("medium", [1, 2, 3])
def test_all_previous_reads_from_its_own_row_up_to_phi(floor, rng, medium, ahead):
    """No logit before a token that sees the image changes, nor any of the other row; all others do."""
    m = tiny(config=ALL)
    visual = m.visual.copy()
    visual[medium - 1] = 3 * rng.standard_normal(visual[0].shape)
    before, after = _logits(m, **ahead), _logits(m, visual=visual, **ahead)
    row, numbers = int(medium == 3), (ahead or vars(m))["phi"]
    first = int(np.argmax(numbers[row] >= medium))
    np.testing.assert_array_equal(after[1 - row], before[1 - row])
    np.testing.assert_array_equal(after[row, :first], before[row, :first])
    assert np.all(np.abs(after[row, first:] - before[row, first:]).max(axis=-1) > 1e-9)


@pytest.mark.parametrize("ahead", [False, True])
def test_only_all_previous_attends_to_an_earlier_image(floor, rng, ahead):
    """Row 0 without what self-attention carries: one layer, so text alone comes from before."""
    for attend, changes in (("last", False), ("all_previous", True)):
        m = tiny(config=tiny_config(xattn={"attend": attend, "every": 3}, language={"layers": 1}))
        numbers = NEXT["phi"] if ahead else m.phi
        tail = slice(6, 8)  # tokens of image 2, read by themselves
        part = {"tokens": m.tokens[:1, tail], "phi": numbers[:1, tail], "first": m.first[:1, tail]}
        visual = m.visual.copy()
        visual[0] += rng.standard_normal(visual[0].shape)
        same = np.array_equal(_logits(m, **part), _logits(m, visual=visual, **part))
        assert same is not changes


def test_all_previous_with_one_image_is_last(floor):
    m, one = tiny(), {"phi": np.minimum(tiny().phi, [[1], [3]])}
    np.testing.assert_array_equal(_logits(m, config=ALL, **one), _logits(m, **one))


def test_all_previous_without_an_image_is_blind(floor):
    m = tiny(config=ALL)
    none = _logits(m, phi=0 * m.phi, visual=m.visual[:0], first=0 * m.phi)
    np.testing.assert_array_equal(none, _logits(m, phi=0 * m.phi))
    closed = with_gates(m.params, 0, 0)
    np.testing.assert_array_equal(_logits(m, params=closed), _logits(m, params=closed, phi=0 * m.phi))


@pytest.mark.parametrize("left, right", [(3, 0), (0, 3), (2, 1)])
def test_padding_and_rows_alone_with_all_previous(floor, left, right):
    m = tiny(config=ALL)
    alone, pads = _logits(m), ((0, 0), (left, right))
    padded = _logits(
        m,
        tokens=np.pad(m.tokens, pads, constant_values=PAD),
        phi=np.pad(m.phi, pads),
        first=np.pad(m.first, pads),
        start=np.full((2, 8 + left + right), left),
    )
    np.testing.assert_allclose(padded[:, left : left + 8], alone, atol=1e-11)
    second = {"tokens": m.tokens[1:], "phi": np.maximum(m.phi[1:] - 2, 0), "first": m.first[1:] - 2}
    np.testing.assert_allclose(_logits(m, visual=m.visual[2:], **second), alone[1:], atol=1e-11)


def test_floors_agree_with_all_previous():
    m, found = tiny(config=ALL), []
    for name in ("reference", "fast"):
        with ops.use(name):
            found.append(ops.value_and_grad(lambda v: anp.sum(_logits(m, visual=v) ** 2))(m.visual))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-10)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-7, atol=1e-11)


# ---------------------------------------------------------------- several documents in a row


@pytest.mark.parametrize("config", [tiny_config(), ALL], ids=["last", "all_previous"])
@pytest.mark.parametrize("mode", [phi, phi_next], ids=["phi", "phi_next"])
def test_logits_in_a_packed_row_are_those_of_the_sequence_alone(floor, config, mode):
    m = tiny(config=config)
    documents = [([BOS, 6, 7], []), ([BOS, IMAGE, 6, m.eoc, IMAGE, 5], [0, 1]), ([BOS, 5, IMAGE, 9], [2])]
    sequences = [Sequence(tokens, [0.0] * len(tokens), media) for tokens, media in documents]
    packed = pack_batch(sequences, 14, mode)
    assert packed.tokens.shape == (1, 14) and packed.media == [0, 1, 2]
    more = {"tokens": packed.tokens, "phi": packed.phi, "start": packed.start, "first": packed.first}
    together = _logits(m, **more)[0]
    for i, sequence in enumerate(sequences):
        one = make_batch([sequence], phi_of=mode)
        visual = m.visual[np.array(sequence.media, int)]
        alone = _logits(m, tokens=one.tokens, phi=one.phi, first=one.first, visual=visual)
        np.testing.assert_allclose(together[packed.owner[0] == i], alone[0], atol=1e-11)


# ---------------------------------------------------------------- what trains


def test_frozen_parameters_are_no_arguments_of_the_gradient(rng):
    """`params` holds what trains; the two trees have no array in common, and no language model in it."""
    assert list(inspect.signature(flamingo).parameters)[:2] == ["params", "frozen"]
    m = tiny()
    names = set(named_leaves(m.params))
    assert {n.split("/")[0] for n in names} == {"resampler", "eoc", "xattn_0", "xattn_1", "xattn_2"}
    before = {n: a.copy() for n, a in named_leaves(m.frozen).items()}
    _, found = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
    assert set(named_leaves(found)) == names
    for name, leaf in named_leaves(m.frozen).items():
        np.testing.assert_array_equal(leaf, before[name], err_msg=name)


def test_everything_else_trains_once_the_gates_are_open(floor):
    m = tiny()
    _, found = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
    unused = "resampler/temporal"  # two frames of four are in use
    for name, gradient in named_leaves(found).items():
        assert np.all(gradient[:2] != 0) if name == unused else np.any(gradient != 0), name
    np.testing.assert_array_equal(found["resampler"]["temporal"][2:], 0)


def test_eoc_trains_through_input_and_output(floor, rng):
    """Its row is read where <EOC> stands and written into the last column."""
    table, eoc = rng.standard_normal((V, 12)), rng.standard_normal(12)
    tokens = np.array([[3, V, 0], [V, V, 5]])
    found = embed_with_eoc(eoc, table, tokens)
    np.testing.assert_array_equal(found[tokens == V], np.stack([eoc * 12**0.5] * 3))
    np.testing.assert_array_equal(found[tokens < V], embed_tokens(table, tokens[tokens < V][None])[0])
    ops.check_grad(lambda e: embed_with_eoc(e, table, tokens), eoc)
    m = tiny()
    no_eoc = np.where(m.tokens == m.eoc, 7, m.tokens)
    weights = rng.standard_normal(8)

    def last_column(params):
        logits = flamingo(params, m.frozen, no_eoc, m.phi, m.visual, m.config)
        return anp.sum(logits[..., -1] * weights)

    _, found = ops.value_and_grad(last_column)(m.params)
    assert np.all(found["eoc"] != 0)


@pytest.mark.parametrize(
    "every, layers, expected", [(1, 3, (0, 1, 2)), (2, 4, (0, 2)), (2, 5, (0, 2, 4)), (7, 3, (0,))]
)
def test_gated_blocks_stand_before_blocks_0_k_2k(monkeypatch, every, layers, expected):
    config = tiny_config(xattn={"every": every}, language={"layers": layers})
    assert config.gated_layers == expected
    m = tiny(config=config)
    assert {n for n in m.params if n.startswith("xattn_")} == {f"xattn_{i}" for i in expected}
    calls = []

    def noting(name, function):
        def noted(params, *args):
            calls.append((name, id(params)))
            return function(params, *args)

        return noted

    gated = noting("gated_xattn_dense", flamingo_module.gated_xattn_dense)
    monkeypatch.setattr(flamingo_module, "gated_xattn_dense", gated)
    chinchilla = flamingo_module.CHINCHILLA
    monkeypatch.setattr(
        flamingo_module, "CHINCHILLA", chinchilla._replace(block=noting("decoder_block", chinchilla.block))
    )
    _logits(m)
    order = []
    for i in range(layers):
        if i in expected:
            order.append(("gated_xattn_dense", id(m.params[f"xattn_{i}"])))
        order.append(("decoder_block", id(m.frozen["language"][f"block_{i}"])))
    assert calls == order


def test_one_gated_block_can_stand_anywhere():
    config = tiny_config(xattn={"every": 9, "start": 1})
    assert config.gated_layers == (1,) and "xattn_1" in tiny(config=config).params


def test_vanilla_stands_between_attention_and_feed_forward(floor):
    """A decoder block whose feed-forward writes nothing cannot tell; one whose attention writes nothing can."""
    m = tiny(config=tiny_config(xattn={"kind": "vanilla"}, language={"layers": 1}))
    block = m.frozen["language"]["block_0"]
    dense = m.params["xattn_0"] | {n: tiny().params["xattn_0"][n] for n in ("ffw_gain", "ffw_bias", "w_1", "w_2")}
    before = m.params | {"xattn_0": dense | {"alpha_dense": np.array(0.0)}}
    zero = {n: np.zeros_like(a) for n, a in block.items()}

    def logits(params, config, changed):
        frozen = {"language": m.frozen["language"] | {"block_0": block | changed}}
        return flamingo(params, frozen, m.tokens, m.phi, m.visual, config)

    for names, same in ((("w_o", "b_o"), True), (("w_2", "b_2"), False)):
        changed = {n: zero[n] for n in names}
        inside, ahead = (
            logits(m.params, m.config, changed),
            logits(before, tiny_config(language={"layers": 1}), changed),
        )
        assert np.allclose(inside, ahead, atol=1e-10) == same


def test_gates_report():
    m = tiny()
    report = gates(with_gates(m.params, 0.5, -0.25))
    assert list(report) == [f"xattn_{i}/{g}" for i in range(3) for g in ("alpha_xattn", "alpha_dense")]
    assert report["xattn_1/alpha_xattn"] == pytest.approx(np.tanh(0.5))
    assert report["xattn_2/alpha_dense"] == pytest.approx(np.tanh(0.25))
    assert all(type(v) is float for v in report.values())


# ---------------------------------------------------------------- numbers


def test_whole_model_gradient(floor):
    config = tiny_config(language={"layers": 2}, resampler={"layers": 1, "frames": 2})
    m = tiny(config=config)
    check_tree(lambda p: _loss(m, p), m.params, tol=1e-5)


def test_float32_inside_backward(floor):
    m = tiny(dtype=np.float32)
    assert_float32_inside(lambda p: _loss(m, p), m.params)


def test_floors_agree_on_logits_and_gradients():
    m, found = tiny(), []
    for name in ("reference", "fast"):
        with ops.use(name):
            loss, gradients = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
            found.append((_logits(m), loss, named_leaves(gradients)))
    (slow, slow_loss, slow_gradients), (fast, fast_loss, fast_gradients) = found
    np.testing.assert_allclose(slow, fast, rtol=1e-9, atol=1e-11)
    assert slow_loss == pytest.approx(fast_loss, rel=1e-10)
    for name, gradient in slow_gradients.items():
        np.testing.assert_allclose(gradient, fast_gradients[name], rtol=1e-7, atol=1e-11, err_msg=name)


def test_visual_tokens_projected_to_the_language_models_width(floor, rng):
    """As in the paper's models: one matrix for all gated blocks, whose keys and values then read D."""
    m = tiny(config=tiny_config(xattn={"project_media": True}))
    assert m.params["w_visual"].shape == (8, 12) and m.visual.shape[-1] == m.config.visual_width == 12
    assert m.params["xattn_0"]["w_k"].shape == (12, 10)
    resampled = perceiver_resampler(m.params["resampler"], m.features, m.config.resampler)
    np.testing.assert_allclose(m.visual, resampled @ m.params["w_visual"], rtol=1e-10)
    assert see(m.params, m.features[:0], m.config).shape == (0, 3, 12)
    assert tiny_config().visual_width == 8 and "w_visual" not in tiny().params
    check_tree(lambda w: _loss(m, m.params | w), {"w_visual": m.params["w_visual"]}, tol=1e-5)


# ---------------------------------------------------------------- pictures


def _frozen_vision(rng, config):
    return {
        "vision": shake(init_vision_encoder(rng, config.vision), rng),
        "feature_mean": rng.standard_normal(8).astype(np.float32),
        "feature_scale": rng.uniform(0.5, 2, 8).astype(np.float32),
    }


def test_encode_media_takes_frames_one_by_one(floor, rng, monkeypatch):
    """Each frame alone, standardised by the frozen constants, whatever the encoder's batches are."""
    config = tiny_config()
    frozen, media = _frozen_vision(rng, config), rng.integers(0, 256, (2, 3, 9, 8, 3)).astype(np.uint8)
    features = encode_media(frozen, media, config)
    assert features.shape == (2, 3, 3 * 2, 8) and features.dtype == np.float32
    monkeypatch.setattr(flamingo_module, "ENCODE_BATCH", 4)
    np.testing.assert_allclose(encode_media(frozen, media, config), features, rtol=1e-4, atol=1e-5)
    for workers in (1, 2, 50):
        with ops.use_workers(workers):
            np.testing.assert_allclose(encode_media(frozen, media, config), features, rtol=1e-4, atol=1e-5)
    raw = vision_encoder(frozen["vision"], normalise_pixels(media[1, 2:]), config.vision)[0]
    expected = (raw - frozen["feature_mean"]) * frozen["feature_scale"]
    np.testing.assert_allclose(features[1, 2], expected, rtol=1e-4, atol=1e-5)


def test_pixels_to_logits(floor, rng):
    """All parts together: the picture's pixels move the logits of its own tokens."""
    m = tiny(dtype=np.float32)
    frozen = m.frozen | _frozen_vision(rng, m.config)
    media = rng.integers(0, 256, (3, 1, 8, 8, 3)).astype(np.uint8)
    before = _logits(m, visual=see(m.params, encode_media(frozen, media, m.config), m.config))
    media[1] = 255 - media[1]
    after = _logits(m, visual=see(m.params, encode_media(frozen, media, m.config), m.config))
    assert before.dtype == np.float32
    np.testing.assert_array_equal(after[0, :5], before[0, :5])
    assert np.all(np.abs(after[0, 5:] - before[0, 5:]).max(axis=-1) > 1e-5)
