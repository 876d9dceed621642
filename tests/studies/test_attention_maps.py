"""Attention maps: they are the weights that the layers use, on the way of the same stream."""

import dataclasses

import numpy as np
import pytest
from model_cases import tiny, tiny_config

from tinyflamingo import ops
from tinyflamingo.model import flamingo as library
from tinyflamingo.studies.attention_maps import attention_maps, gated_attention_map, resampler_maps
from tinyflamingo.model.flamingo import embed_with_eoc, flamingo
from tinyflamingo.model.gated_xattn import gated_xattn_dense, media_keys_values
from tinyflamingo.model.perceiver_resampler import (
    init_resampler,
    perceiver_resampler,
    project_both,
    resampler_layer,
    temporal_embedding,
)

ALL = tiny_config(xattn={"attend": "all_previous"})
VANILLA = tiny_config(xattn={"kind": "vanilla"})


def maps_of(m, visual=None, **more):
    visual = m.visual if visual is None else visual
    return attention_maps(m.params, m.frozen, m.tokens, m.phi, visual, m.config, **more)


def test_shape_and_sums(floor, tiny):
    maps = maps_of(tiny)
    B, T = tiny.tokens.shape
    M, R, _ = tiny.visual.shape
    assert maps.shape == (len(tiny.config.gated_layers), B, T, tiny.config.xattn.heads, M, R)
    np.testing.assert_allclose(maps.sum((-1, -2)), np.broadcast_to((tiny.phi > 0)[None, :, :, None], maps.shape[:4]))


def test_a_token_looks_at_its_own_medium_only(tiny):
    own = np.arange(1, len(tiny.visual) + 1) == tiny.phi[:, :, None]  # (B, T, M)
    maps = maps_of(tiny)
    elsewhere = ~np.broadcast_to(own[None, :, :, None, :, None], maps.shape)
    np.testing.assert_array_equal(maps[elsewhere], 0)
    assert np.all(maps[~elsewhere] > 0)


def test_all_previous_media_share_the_weights():
    m = tiny(config=ALL)
    maps = maps_of(m, first=m.first)
    number = np.arange(1, len(m.visual) + 1)
    seen = (m.first[:, :, None] <= number) & (number <= m.phi[:, :, None])
    np.testing.assert_array_equal(maps.min(axis=(0, 3, 5)) > 0, seen)
    np.testing.assert_allclose(maps.sum((-1, -2))[:, m.phi > 0], 1)


@pytest.mark.parametrize("config", [tiny_config(), ALL], ids=["last", "all_previous"])
def test_the_weights_times_the_values_are_what_the_block_gathers(floor, rng, config):
    m = tiny(config=config)
    block, h = m.params["xattn_0"], rng.standard_normal((*m.tokens.shape, config.language.width))
    weights = gated_attention_map(block, h, m.visual, m.phi, config, m.first)
    k, v = media_keys_values(block, m.visual, config)
    q = ops.linear(ops.layer_norm(h, block["query_gain"], block["query_bias"]), block["w_q"])
    q = q.reshape(1, -1, config.xattn.heads, config.xattn.key_size)
    first = m.first.reshape(1, -1) if config.xattn.attend == "all_previous" else None
    gathered = ops.segment_attention(q, k, v, m.phi.reshape(1, -1), first)
    by_map = np.einsum("bthmr,mrhk->bthk", weights, v[0])
    np.testing.assert_allclose(by_map.reshape(gathered.shape), gathered, rtol=1e-9, atol=1e-12)


def test_deep_blocks_see_the_stream_of_the_model(tiny):
    """What only a block further down could tell: a change of the first block's gate moves the last map."""
    before = maps_of(tiny)
    params = tiny.params | {"xattn_0": tiny.params["xattn_0"] | {"alpha_xattn": np.array(0.1)}}
    after = attention_maps(params, tiny.frozen, tiny.tokens, tiny.phi, tiny.visual, tiny.config)
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.allclose(after[-1], before[-1])


@pytest.mark.parametrize(
    "xattn", [{}, {"side": "after"}, {"every": 2}, {"start": 1}, {"attend": "all_previous"}], ids=str
)
def test_the_stream_is_that_of_the_model(xattn, monkeypatch):
    m, met = tiny(config=tiny_config(xattn=xattn)), []

    def watched(params, h, visual, phi, config, keys_values=None, first=None):
        met.append(gated_attention_map(params, h, visual, phi, config, first))
        return gated_xattn_dense(params, h, visual, phi, config, keys_values, first)

    monkeypatch.setattr(library, "gated_xattn_dense", watched)
    flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual, m.config, first=m.first)
    np.testing.assert_allclose(maps_of(m, first=m.first), np.stack(met), rtol=1e-9, atol=1e-12)


RESAMPLERS = ({}, {"media_norm": True}, {"places": 3}, {"frames": 0}, {"output_norm": True}, {"input_width": 24})


@pytest.mark.parametrize("resampler", RESAMPLERS, ids=str)
def test_latents_look_where_the_resampler_of_any_configuration_does(resampler, rng, monkeypatch):
    config = dataclasses.replace(tiny_config().resampler, **resampler)
    params, met = init_resampler(rng, config, np.float64), []
    features, place = rng.standard_normal((3, 2, 4, config.input_width)), np.arange(3)

    def watched(q, k, v, *more, kept=ops.attention):
        scores = np.einsum("mrhk,mshk->mhrs", q, k) * q.shape[-1] ** -0.5
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        met.append(shares / shares.sum(-1, keepdims=True))
        return kept(q, k, v, *more)

    monkeypatch.setattr(ops, "attention", watched)
    perceiver_resampler(params, features, config, place)
    used = np.stack(met)
    np.testing.assert_allclose(resampler_maps(params, features, config, place), used, rtol=1e-9)


def test_vanilla_blocks_look_from_inside_the_decoder_block():
    m = tiny(config=VANILLA)
    maps = maps_of(m)
    np.testing.assert_allclose(maps.sum((-1, -2))[:, m.phi > 0], 1)
    h = embed_with_eoc(m.params["eoc"], m.frozen["language"]["embedding"], m.tokens)
    before_the_block = gated_attention_map(m.params["xattn_0"], h, m.visual, m.phi, m.config)
    assert not np.allclose(maps[0], before_the_block), "self-attention comes first"


def test_start_hides_earlier_tokens(tiny):
    """Left padding: the maps of a row are those of the row alone."""
    b, cut = 0, 3
    alone = attention_maps(
        tiny.params, tiny.frozen, tiny.tokens[b : b + 1, cut:], tiny.phi[b : b + 1, cut:], tiny.visual, tiny.config
    )
    padded = maps_of(tiny, start=np.full(tiny.tokens.shape, cut))
    np.testing.assert_allclose(padded[:, b, cut:], alone[:, 0], rtol=1e-9, atol=1e-12)


def test_no_media(tiny):
    maps = attention_maps(tiny.params, tiny.frozen, tiny.tokens, np.zeros_like(tiny.phi), tiny.visual[:0], tiny.config)
    assert maps.shape[-2] == 0 and maps.size == 0


def test_maps_leave_the_model_alone(tiny):
    def logits():
        return flamingo(tiny.params, tiny.frozen, tiny.tokens, tiny.phi, tiny.visual, tiny.config)

    before = logits()
    maps_of(tiny)
    np.testing.assert_array_equal(logits(), before)


def test_resampler_weights_times_the_values_are_what_the_layer_gathers(floor, tiny):
    config, resampler = tiny.config.resampler, tiny.params["resampler"]
    maps = resampler_maps(resampler, tiny.features, config)
    M, F, S, _ = tiny.features.shape
    assert maps.shape == (config.layers, M, config.heads, config.latents, F * S + config.latents)
    np.testing.assert_allclose(maps.sum(-1), 1)
    layer, time = (
        resampler["layer_0"] | {"w_2": 0 * resampler["layer_0"]["w_2"]},
        temporal_embedding(resampler["temporal"], F),
    )
    x = np.broadcast_to(resampler["latents"], (M, *resampler["latents"].shape))
    latents = ops.layer_norm(x, layer["attn_gain"], layer["attn_bias"])
    v = project_both(tiny.features, time, latents, layer["w_v"]).reshape(M, -1, config.heads, config.key_size)
    gathered = np.einsum("mhrs,mshk->mrhk", maps[0], v).reshape(M, config.latents, -1) @ layer["w_o"]
    np.testing.assert_allclose(x + gathered, resampler_layer(layer, x, tiny.features, time, config), rtol=1e-9)


def test_resampler_layers_follow_one_another(tiny):
    """The second layer's map is that of a resampler whose first layer is the same."""
    config = dataclasses.replace(tiny.config.resampler, layers=1)
    first = resampler_maps(tiny.params["resampler"], tiny.features, config)
    both = resampler_maps(tiny.params["resampler"], tiny.features, tiny.config.resampler)
    np.testing.assert_array_equal(first[0], both[0])
    assert not np.allclose(both[0], both[1])


def test_what_has_no_latents_has_no_maps(tiny):
    config = dataclasses.replace(tiny.config.resampler, kind="mlp")
    with pytest.raises(ValueError, match="no latents"):
        resampler_maps(tiny.params["resampler"], tiny.features, config)
