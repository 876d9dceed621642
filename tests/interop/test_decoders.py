"""GPT-2, OPT and MPT as frozen decoders: their logits, their tables, and configurations that are refused."""

from statistics import NormalDist

import numpy as np
import parity_parts as parity
import pytest
from autograd import make_vjp
from float32 import assert_float32_backward

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.interop import decoder_names, names
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.variants import decoders
from tinyflamingo.variants.decoders import PublicDecoderConfig, decoder

FAMILIES = tuple(decoders.FAMILIES)
each_family = pytest.mark.parametrize("family", FAMILIES)


def small(family, **changed):
    sizes = {"vocab_size": 30, "width": 24, "layers": 2, "heads": 3, "key_size": 8, "ffw_multiplier": 2, "context": 16}
    return PublicDecoderConfig(**sizes | changed, family=family)


@pytest.mark.parametrize(
    "kind, dtype, tolerance",
    [(kind, np.float32, 1e-4) for kind in parity.CLASSES]
    + [("gpt2", np.float64, 1e-9), ("opt", np.float64, 1e-9)],  # transformers' MPT computes its mask in float32
)
def test_logits_equal_those_of_transformers(floor, kind, dtype, tolerance):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    assert parity.language(kind, dtype) < tolerance


@pytest.fixture
def model(request, random_tensors):
    def make(family):
        config = small(family)
        rows = decoder_names.language_rows(config)
        return config, names.import_arrays(rows, random_tensors(rows), family)

    return make


@each_family
def test_a_cache_changes_nothing(floor, model, family):
    config, params = model(family)
    tokens = np.random.default_rng(0).integers(0, 30, (2, 9))
    visible_from = np.repeat([[0], [2]], 9, axis=1)
    whole = decoder(params, tokens, config, visible_from)
    cache: dict = {}
    parts = [decoder(params, tokens[:, p], config, visible_from[:, p], cache) for p in (slice(0, 5), slice(5, 9))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-10)


@each_family
def test_tokens_before_the_start_have_no_effect(floor, model, family):
    """With left padding, the logits are those of the row without padding."""
    config, params = model(family)
    tokens = np.random.default_rng(0).integers(0, 30, (1, 8))
    visible_from = np.array([[0, 0, 0, 3, 3, 3, 3, 3]])
    padded = decoder(params, tokens, config, visible_from)[:, 3:]
    alone = decoder(params, tokens[:, 3:], config, visible_from[:, :5] * 0)
    np.testing.assert_allclose(padded, alone, atol=1e-10)


@each_family
def test_later_tokens_change_no_earlier_logit(floor, model, family):
    config, params = model(family)
    tokens = np.random.default_rng(0).integers(0, 30, (1, 8))
    other = np.where(np.arange(8) > 4, 29 - tokens, tokens)
    visible_from = np.zeros((1, 8), int)
    one, two = (decoder(params, t, config, visible_from) for t in (tokens, other))
    np.testing.assert_array_equal(one[:, :5], two[:, :5])
    assert np.abs(one - two)[:, 5:].max() > 1e-3


@pytest.mark.parametrize("heads, slopes", [(4, [2**-2.0, 2**-4.0, 2**-6.0, 2**-8.0]), (3, [2**-4.0, 2**-8.0, 2**-2.0])])
def test_alibi_slopes_computed_by_hand(heads, slopes):
    np.testing.assert_array_equal(decoders.alibi_slopes(small("mpt", heads=heads)), slopes)
    assert decoders.alibi_slopes(small("opt", heads=heads)) is None


# ---------------------------------------------------------------- tables


@each_family
def test_tables_go_both_ways(random_tensors, round_trip, family):
    rows = decoder_names.language_rows(small(family), "lang_encoder.", "language/", "decoder_layer.")
    assert len({row.theirs for row in rows}) == len(rows)
    round_trip(rows, random_tensors(rows, np.float32))


PUBLISHED = {  # (sizes in the published config.json, tensors in a block, number of parameters)
    "gpt2": ({"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}, 12, 124_439_808),
    "opt": (
        {
            "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 2048,
            "ffn_dim": 3072, "vocab_size": 50272, "word_embed_proj_dim": 768, "activation_function": "relu",
        },
        16,
        125_239_296,
    ),
    "mpt": (
        {"d_model": 4096, "n_layers": 32, "n_heads": 32, "max_seq_len": 2048, "vocab_size": 50432, "no_bias": True},
        6,
        6_649_286_656,
    ),
    "mosaic_gpt": (
        {"d_model": 2048, "n_layers": 24, "n_heads": 16, "max_seq_len": 2048, "vocab_size": 50368, "mlp_ratio": 4}
        | {"alibi": True, "attn_qk_ln": True, "alibi_bias_max": 8, "no_bias": True},
        8,
        1_311_311_872,
    ),
}  # fmt: skip


@each_family
def test_published_sizes(family):
    """GPT-2 124M, OPT-125M, MPT-7B and MPT-1B, counted from shapes alone."""
    raw, tensors, parameters = PUBLISHED[family]
    config = decoder_names.hugging_face_config({"model_type": family} | raw)
    rows = decoder_names.language_rows(config)
    first = [row for row in rows if f".{decoder_names.NAMES[family].blocks}.0." in row.theirs]
    assert len(first) == tensors
    assert sum(int(np.prod(row.shape)) for row in rows) == parameters


def test_names_of_mpt_1b_inside_openflamingo():
    raw = {"model_type": "mosaic_gpt"} | PUBLISHED["mosaic_gpt"][0]
    rows = decoder_names.language_rows(
        decoder_names.hugging_face_config(raw), "lang_encoder.", inside="decoder_layer.", tables=False
    )
    shapes = {row.theirs: row.shape for row in rows}
    block = "lang_encoder.transformer.blocks.23.decoder_layer."
    assert shapes[f"{block}attn.Wqkv.weight"] == (6144, 2048)
    assert shapes[f"{block}attn.q_ln.weight"] == (2048,)
    assert shapes[f"{block}mlp.mlp_up.weight"] == (8192, 2048)
    assert shapes["lang_encoder.transformer.ln_f.weight"] == (2048,)


@pytest.mark.parametrize(
    "family, change, message",
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu', but only 'gelu_new'"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False, but only True"),
        ("mpt", {"attn_config": {"clip_qkv": 6}}, "clip_qkv is 6, but only None"),
        ("mosaic_gpt", {"alibi": False}, "alibi is False, but only True"),
        ("mpt", {"n_heads": 3}, "the width 4096 must be a multiple of the 3 heads"),
        ("mosaic_gpt", {"n_heads": 3, "d_model": 96}, "n_heads is 3 but must be a power of two"),
        ("gpt2", {"n_layer": None}, "n_layer is None but must be a whole number"),
        ("gpt2", {"model_type": "llama"}, "model_type is 'llama' but must be one of"),
        ("gpt2", {"model_type": ["a"]}, "model_type is .'a'. but must be one of"),
        ("gpt2", {"n_inner": "wide"}, "n_inner is 'wide' but must be a whole number"),
        ("mpt", {"attn_config": [1]}, "attn_config is .1. but must be a dictionary"),
    ],
)
def test_another_convention_is_refused(family, change, message):
    with pytest.raises(UserError, match=message):
        decoder_names.hugging_face_config({"model_type": family} | PUBLISHED[family][0] | change)


def test_buffers_and_a_tied_head_are_left_out(random_tensors):
    config = small("gpt2")
    tensors = random_tensors(decoder_names.language_rows(config))
    more = {"transformer.h.0.attn.bias": np.ones((1, 1, 4, 4)), "lm_head.weight": tensors["transformer.wte.weight"]}
    assert decoder_names.tidy(tensors | more, config).keys() == tensors.keys()
    bare = {name.removeprefix("transformer."): a for name, a in tensors.items()}
    assert decoder_names.tidy(bare, config).keys() == tensors.keys()
    with pytest.raises(UserError, match="only a decoder with a tied head"):
        decoder_names.tidy(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, config)


# ---------------------------------------------------------------- the same arithmetic in loops, and gradients


def _norm(x, gain, bias=0.0):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + bias


def test_loops_agree_on_a_block_of_mpt_1b(floor, model):
    """One row, in loops over positions and heads: norms over all heads of q and k, then ALiBi."""
    config, params = model("mosaic_gpt")
    p, K = params["block_0"], config.key_size
    h = np.random.default_rng(1).standard_normal((5, 24))
    x = np.stack([_norm(row, p["attn_gain"]) for row in h])
    q, k = (np.stack([_norm(row @ p[f"w_{n}"], p[f"{n}_gain"]) for row in x]) for n in "qk")
    out = np.zeros((5, 24))
    for n, slope in enumerate([2**-4.0, 2**-8.0, 2**-2.0]):
        own = slice(n * K, (n + 1) * K)
        for i in range(5):
            scores = np.array([q[i, own] @ k[j, own] / K**0.5 - slope * (i - j) for j in range(i + 1)])
            weights = np.exp(scores) / np.exp(scores).sum()
            out[i, own] = weights @ (x[: i + 1] @ p["w_v"])[:, own]
    h2 = h + out @ p["w_o"]
    hidden = np.stack([_norm(row, p["ffw_gain"]) for row in h2]) @ p["w_1"]
    gelu = hidden * np.vectorize(NormalDist().cdf)(hidden)
    got = decoders.decoder_block(p, h[None], np.zeros((1, 5), int), config)
    np.testing.assert_allclose(got[0], h2 + gelu @ p["w_2"], atol=1e-9)


@each_family
def test_gradients_pass_through_a_frozen_block(floor, model, family):
    """The trained layers are below the block: their gradient passes through it, in float32 for float32 input."""
    config, params = model(family)
    h = np.random.default_rng(0).standard_normal((2, 4, 24))
    visible_from = np.array([[0, 0, 0, 0], [0, 1, 1, 1]])

    def through(h, block):
        return decoders.final_norm(params, decoders.decoder_block(block, h, visible_from, config))

    ops.check_grad(lambda h: through(h, params["block_1"]), h, tol=1e-5)
    single = from_named_leaves({n: a.astype(np.float32) for n, a in named_leaves(params).items()})

    def checked(h):
        return decoders.final_norm(
            single, decoders.decoder_block(single["block_1"], assert_float32_backward(h), visible_from, config)
        )

    vjp, value = make_vjp(checked)(h.astype(np.float32))
    assert value.dtype == np.float32 and vjp(np.ones_like(value)).dtype == np.float32


@each_family
def test_new_parameters_are_those_of_the_table(family):
    params = decoders.init_decoder(np.random.default_rng(0), small(family))
    shapes = {name: leaf.shape for name, leaf in named_leaves(params).items()}
    assert shapes == names.our_shapes(decoder_names.language_rows(small(family)))


@each_family
def test_closed_gates_leave_the_decoders_logits(floor, model, family):
    """Flamingo with a public decoder: closed gates give the decoder's logits, bit for bit, and one for <EOC>."""
    from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
    from tinyflamingo.model.flamingo import flamingo, init_flamingo, resample
    from tinyflamingo.variants.registry import parts_of

    language, frozen = model(family)
    config = FlamingoConfig(text_tower=TextTowerConfig(vocab_size=30), language=language)
    params = init_flamingo(np.random.default_rng(0), config, np.float64)
    tokens, visible_from = np.array([[4, 7, 8, 4, 9]]), np.zeros((1, 5), int)
    visual = resample(params, [np.random.default_rng(1).standard_normal((2, 1, 3, 128))], config)
    logits = flamingo(
        params, {"language": frozen}, tokens, np.array([[1, 1, 1, 2, 2]]), visual, config, parts=parts_of(config)
    )
    np.testing.assert_array_equal(logits[..., :-1], decoder(frozen, tokens, language, visible_from))
    assert logits.shape == (1, 5, 31)
