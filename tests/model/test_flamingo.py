"""The whole model: at first the language model bit for bit, causal in images, frozen parts stay as they are."""

import inspect

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import V, assert_float32_inside, check_tree, shake, tiny, tiny_config, with_gates

from tinyflamingo import ops
from tinyflamingo.model import flamingo as flamingo_module
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import (
    CHAPTER,
    TrainedFlamingo,
    embed_with_eoc,
    encode_and_resample,
    encode_media,
    flamingo,
    gates,
    init_flamingo,
    own_medium,
    resample,
)
from tinyflamingo.model.interleave import Sequence, make_batch, pack_batch, phi, phi_next
from tinyflamingo.model.language_model import embed_tokens, init_language_model, language_model
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD
from tinyflamingo.model.vision_encoder import init_vision_encoder, normalise_pixels, vision_encoder
from tinyflamingo.ops.tree import named_leaves


def _logits(m, **changes):
    a = vars(m) | changes
    return flamingo(a["params"], a["frozen"], a["tokens"], a["phi"], a["visual"], a["config"], a.get("visible_from"))


def _loss(m, params):
    """Next-token loss over the whole batch, through the resampler."""
    visual = resample(params, [m.features], m.config)
    logits = flamingo(params, m.frozen, m.tokens[:, :-1], m.phi[:, :-1], visual, m.config)
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
    """BLAS uses other code for other sizes: one more column can change the last bit of all others."""
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
    """Training starts from closed gates, so the first gradient of the resampler is exactly 0."""
    m = tiny(gates=(0, 0), shaken=False)
    _, gradients = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
    for name, gradient in named_leaves(gradients).items():
        if name == "eoc" or name.rpartition("/")[2].startswith("alpha_"):
            assert np.any(gradient != 0), name
        else:
            np.testing.assert_array_equal(gradient, 0, err_msg=name)


# ---------------------------------------------------------------- which token sees which medium


@pytest.mark.parametrize("medium", [1, 2, 3])
def test_a_later_image_changes_no_earlier_logit(floor, rng, medium):
    m = tiny()
    before = _logits(m)
    features = m.features.copy()
    features[medium - 1] = 3 * rng.standard_normal(features[0].shape)
    after = _logits(m, visual=resample(m.params, [features], m.config))
    row = 0 if medium < 3 else 1
    first = int(np.argmax(m.phi[row] == medium))
    np.testing.assert_array_equal(after[1 - row], before[1 - row])  # and none of another row
    np.testing.assert_array_equal(after[row, :first], before[row, :first])
    assert np.all(np.abs(after[row, first:] - before[row, first:]).max(axis=-1) > 1e-9)


def test_an_earlier_image_reaches_later_tokens_through_self_attention(floor, rng):
    """Tokens of image 2 do not attend to image 1, but its change reaches them: paper, section 2.3."""
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
        visible_from=np.full((2, 8 + left + right), left),
    )
    np.testing.assert_allclose(padded[:, left : left + 8], alone, atol=1e-11)


def test_padded_media_are_never_attended(floor, rng):
    """Media that no token sees may have any numbers."""
    m = tiny()
    padding = np.stack([np.full((3, 8), 1e6), rng.standard_normal((3, 8))])
    np.testing.assert_allclose(_logits(m, visual=np.concatenate([m.visual, padding])), _logits(m), atol=1e-12)


def test_rows_of_a_batch_equal_rows_alone(floor):
    m = tiny()
    whole = _logits(m)
    first = _logits(m, tokens=m.tokens[:1], phi=m.phi[:1], visual=m.visual[:2])
    second = _logits(m, tokens=m.tokens[1:], phi=np.maximum(m.phi[1:] - 2, 0), visual=m.visual[2:])
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=1e-11)


# ---------------------------------------------------------------- several documents in a row


@pytest.mark.parametrize("mode", [phi, phi_next], ids=["phi", "phi_next"])
def test_logits_in_a_packed_row_are_those_of_the_sequence_alone(floor, mode):
    m = tiny()
    documents = [([BOS, 6, 7], []), ([BOS, IMAGE, 6, m.eoc, IMAGE, 5], [0, 1]), ([BOS, 5, IMAGE, 9], [2])]
    documents += [([BOS, 8], []), *documents]
    sequences = [Sequence(tokens, [0.0] * len(tokens), media) for tokens, media in documents]
    packed = pack_batch(sequences, mode)
    assert packed.tokens.shape == (2, 15) and np.sum(packed.owner < 0) == 2 and packed.media == [0, 1, 2, 0, 1, 2]
    visual = m.visual[np.array(packed.media)]
    together = _logits(m, tokens=packed.tokens, phi=own_medium(packed), visual=visual, visible_from=packed.visible_from)
    for i, sequence in enumerate(sequences):
        one = make_batch([sequence], phi_of=mode)
        alone = _logits(m, tokens=one.tokens, phi=own_medium(one), visual=m.visual[np.array(sequence.media, int)])
        np.testing.assert_allclose(together[packed.owner == i], alone[0], atol=1e-11)


# ---------------------------------------------------------------- parameters that train


def test_frozen_parameters_are_no_arguments_of_the_gradient(rng):
    """`params` has the parameters that train: no language model is in it."""
    assert list(inspect.signature(flamingo).parameters)[:2] == ["params", "frozen"]
    m = tiny()
    names = set(named_leaves(m.params))
    assert {n.split("/")[0] for n in names} == {"resampler", "eoc", "xattn_0", "xattn_1", "xattn_2"}
    before = {n: a.copy() for n, a in named_leaves(m.frozen).items()}
    _, gradients = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
    assert set(named_leaves(gradients)) == names
    for name, leaf in named_leaves(m.frozen).items():
        np.testing.assert_array_equal(leaf, before[name], err_msg=name)


def test_everything_else_trains_once_the_gates_are_open(floor):
    m = tiny()
    _, gradients = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
    unused = "resampler/temporal"  # two frames of four are in use
    for name, gradient in named_leaves(gradients).items():
        assert np.all(gradient[:2] != 0) if name == unused else np.any(gradient != 0), name
    np.testing.assert_array_equal(gradients["resampler"]["temporal"][2:], 0)


def test_eoc_trains_through_input_and_output(floor, rng):
    """Its row is the embedding of <EOC> and gives the last column of the logits."""
    table, eoc = rng.standard_normal((V, 12)), rng.standard_normal(12)
    tokens, language = np.array([[3, V, 0], [V, V, 5]]), {"embedding": table}
    h = embed_with_eoc(eoc, language, tokens)
    np.testing.assert_array_equal(h[tokens == V], np.stack([eoc * 12**0.5] * 3))
    np.testing.assert_array_equal(h[tokens < V], embed_tokens(table, tokens[tokens < V][None])[0])
    ops.check_grad(lambda e: embed_with_eoc(e, language, tokens), eoc)
    with pytest.raises(ValueError, match=f"id {V + 1} is outside 0..{V - 1}"):
        embed_with_eoc(eoc, language, tokens + 1)
    m = tiny()
    no_eoc = np.where(m.tokens == m.eoc, 7, m.tokens)
    weights = rng.standard_normal(8)

    def last_column(params):
        logits = flamingo(params, m.frozen, no_eoc, m.phi, m.visual, m.config)
        return anp.sum(logits[..., -1] * weights)

    _, gradients = ops.value_and_grad(last_column)(m.params)
    assert np.all(gradients["eoc"] != 0)


@pytest.mark.parametrize(
    "every, layers, expected", [(1, 3, (0, 1, 2)), (2, 4, (0, 2)), (2, 5, (0, 2, 4)), (7, 3, (0,))]
)
def test_gated_blocks_are_before_blocks_0_k_2k(every, layers, expected):
    config = tiny_config(xattn={"every": every}, language={"layers": layers})
    assert config.gated_layers == expected
    m = tiny(config=config)
    assert {n for n in m.params if n.startswith("xattn_")} == {f"xattn_{i}" for i in expected}
    calls = []

    def recorded(name):
        def record(params, *args):
            calls.append((name, id(params)))
            return getattr(CHAPTER, name)(params, *args)

        return record

    watched = CHAPTER._replace(gated_block=recorded("gated_block"), decoder_block=recorded("decoder_block"))
    flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual, m.config, parts=watched)
    order = []
    for i in range(layers):
        if i in expected:
            order.append(("gated_block", id(m.params[f"xattn_{i}"])))
        order.append(("decoder_block", id(m.frozen["language"][f"block_{i}"])))
    assert calls == order


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
    m, results = tiny(), []
    for name in ("reference", "fast"):
        with ops.use(name):
            loss, gradients = ops.value_and_grad(lambda p: _loss(m, p))(m.params)
            results.append((_logits(m), loss, named_leaves(gradients)))
    (slow, slow_loss, slow_gradients), (fast, fast_loss, fast_gradients) = results
    np.testing.assert_allclose(slow, fast, rtol=1e-9, atol=1e-11)
    assert slow_loss == pytest.approx(fast_loss, rel=1e-10)
    for name, gradient in slow_gradients.items():
        np.testing.assert_allclose(gradient, fast_gradients[name], rtol=1e-7, atol=1e-11, err_msg=name)


# ---------------------------------------------------------------- pictures


def _frozen_vision(rng, config):
    return {
        "vision": shake(init_vision_encoder(rng, config.vision), rng),
        "feature_mean": rng.standard_normal(8).astype(np.float32),
        "feature_scale": rng.uniform(0.5, 2, 8).astype(np.float32),
    }


def test_encode_media_takes_frames_one_by_one(floor, rng, monkeypatch):
    """Each frame alone, standardised by the frozen constants, for any batches of the encoder."""
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
    """All parts together: the pixels of a picture change the logits of its own tokens."""
    m = tiny(dtype=np.float32)
    frozen = m.frozen | _frozen_vision(rng, m.config)
    media = rng.integers(0, 256, (3, 1, 8, 8, 3)).astype(np.uint8)
    before = _logits(m, visual=resample(m.params, [encode_media(frozen, media, m.config)], m.config))
    media[1] = 255 - media[1]
    after = _logits(m, visual=resample(m.params, [encode_media(frozen, media, m.config)], m.config))
    assert before.dtype == np.float32
    np.testing.assert_array_equal(after[0, :5], before[0, :5])
    assert np.all(np.abs(after[0, 5:] - before[0, 5:]).max(axis=-1) > 1e-5)


def _model(rng):
    m = tiny(dtype=np.float32)
    return TrainedFlamingo(m.config, m.params, m.frozen | _frozen_vision(rng, m.config), None)


PICTURE, CLIP = np.full((8, 8, 3), (200, 10, 30), np.uint8), np.arange(576, dtype=np.uint8).reshape(3, 8, 8, 3)


def test_a_picture_is_a_video_of_one_frame(floor, rng):
    model = _model(rng)
    np.testing.assert_array_equal(encode_and_resample(model, [PICTURE]), encode_and_resample(model, [PICTURE[None]]))


def test_media_of_any_size_are_resampled_in_order(floor, rng):
    model, wide = _model(rng), np.zeros((17, 23, 3), np.uint8)
    tokens = encode_and_resample(model, [CLIP, wide, PICTURE])
    config = model.config.resampler
    assert tokens.shape == (3, config.latents, config.output_width) and tokens.dtype == np.float32
    for i, medium in enumerate((CLIP, wide, PICTURE)):
        np.testing.assert_allclose(tokens[i : i + 1], encode_and_resample(model, [medium]), rtol=1e-5, atol=1e-6)
    none = encode_and_resample(model, [])
    assert none.shape == (0, 3, 8) and none.dtype == np.float32


def test_runs_of_media_with_equally_many_frames_are_resampled_together(floor, rng):
    """One array for each run; an empty one changes nothing."""
    m = tiny()
    pictures, clips = rng.standard_normal((2, 1, 4, 8)), rng.standard_normal((1, 3, 4, 8))
    tokens = resample(m.params, [pictures, clips[:0], clips], m.config)
    one_by_one = [
        resample(m.params, [group[i : i + 1]], m.config) for group in (pictures, clips) for i in range(len(group))
    ]
    np.testing.assert_allclose(tokens, np.concatenate(one_by_one), atol=1e-12)
    assert resample(m.params, [], m.config).shape == resample(m.params, [clips[:0]], m.config).shape == (0, 3, 8)
