"""GPT-2, OPT and MPT as frozen decoders: their logits, their tables, and all that they refuse."""

import dataclasses

import numpy as np
import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.interop import decoder_names, decoders, names, parity
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.model.language_model import init_cache

FAMILIES = tuple(decoders.FAMILIES)
each_family = pytest.mark.parametrize("family", FAMILIES)


def small(family, **changed):
    sizes = {"vocab_size": 30, "width": 24, "layers": 2, "heads": 3, "key_size": 8, "ffw_multiplier": 2, "context": 16}
    return LanguageConfig(**sizes | changed, decoder=family)


@pytest.mark.parametrize(
    "kind, dtype, tolerance",
    [(kind, np.float32, 1e-4) for kind in parity.CLASSES]
    + [("gpt2", np.float64, 1e-9), ("opt", np.float64, 1e-9)],  # MPT there masks by what float32 does not hold
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
    start = np.repeat([[0], [2]], 9, axis=1)
    whole = decoders.logits(params, tokens, start, config)
    cache = init_cache(config, 2, 9, np.float64)
    parts = [decoders.logits(params, tokens[:, p], start[:, p], config, cache) for p in (slice(0, 5), slice(5, 9))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-10)


@each_family
def test_nothing_before_the_start_is_seen(floor, model, family):
    """Left padding: other tokens there change no logit, and the row is the unpadded row."""
    config, params = model(family)
    tokens = np.random.default_rng(0).integers(0, 30, (1, 8))
    start = np.array([[0, 0, 0, 3, 3, 3, 3, 3]])
    padded = decoders.logits(params, tokens, start, config)[:, 3:]
    alone = decoders.logits(params, tokens[:, 3:], start[:, :5] * 0, config)
    np.testing.assert_allclose(padded, alone, atol=1e-10)


@each_family
def test_later_tokens_change_no_earlier_logit(floor, model, family):
    config, params = model(family)
    tokens = np.random.default_rng(0).integers(0, 30, (1, 8))
    other = np.where(np.arange(8) > 4, 29 - tokens, tokens)
    start = np.zeros((1, 8), int)
    one, two = (decoders.logits(params, t, start, config) for t in (tokens, other))
    np.testing.assert_array_equal(one[:, :5], two[:, :5])
    assert np.abs(one - two)[:, 5:].max() > 1e-3


@pytest.mark.parametrize("heads, slopes", [(4, [2**-2.0, 2**-4.0, 2**-6.0, 2**-8.0]), (3, [2**-4.0, 2**-8.0, 2**-2.0])])
def test_alibi_slopes_known_by_hand(heads, slopes):
    np.testing.assert_array_equal(decoders.alibi_slopes(small("mpt", heads=heads)), slopes)
    assert decoders.alibi_slopes(small("opt", heads=heads)) is None


# ---------------------------------------------------------------- tables


@each_family
def test_tables_go_both_ways(random_tensors, round_trip, family):
    rows = decoder_names.language_rows(small(family), "lang_encoder.", "language/", "decoder_layer.")
    assert len({row.theirs for row in rows}) == len(rows)
    round_trip(rows, random_tensors(rows, np.float32))


PUBLISHED = {  # the sizes in published config.json files, tensors a block, and all parameters
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
    "family, change, told",
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu', but only 'gelu_new'"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False, but only True"),
        ("mpt", {"attn_config": {"clip_qkv": 6}}, "clip_qkv is 6, but only None"),
        ("mosaic_gpt", {"alibi": False}, "alibi is False, but only True"),
        ("mpt", {"n_heads": 3}, "a width of 4096 does not go with 3 heads"),
        ("mosaic_gpt", {"n_heads": 3, "d_model": 96}, "n_heads is 3, no power of two"),
        ("gpt2", {"n_layer": None}, "n_layer is None but must be a whole number"),
        ("gpt2", {"model_type": "llama"}, "model_type is 'llama' but must be one of"),
    ],
)
def test_another_convention_is_refused(family, change, told):
    with pytest.raises(UserError, match=told):
        decoder_names.hugging_face_config({"model_type": family} | PUBLISHED[family][0] | change)


def test_buffers_and_a_tied_head_are_left_out(random_tensors):
    config = small("gpt2")
    tensors = random_tensors(decoder_names.language_rows(config))
    more = {"transformer.h.0.attn.bias": np.ones((1, 1, 4, 4)), "lm_head.weight": tensors["transformer.wte.weight"]}
    assert decoder_names.tidy(tensors | more, config).keys() == tensors.keys()
    bare = {name.removeprefix("transformer."): a for name, a in tensors.items()}
    assert decoder_names.tidy(bare, config).keys() == tensors.keys()
    with pytest.raises(UserError, match="head is not tied"):
        decoder_names.tidy(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, config)


def test_a_public_decoder_has_no_kernels():
    from tinyflamingo.model import decode
    from tinyflamingo.model.config import FlamingoConfig

    assert decode.serves(FlamingoConfig())
    language = dataclasses.replace(FlamingoConfig().language, decoder="mpt")
    assert not decode.serves(FlamingoConfig(language=language))
