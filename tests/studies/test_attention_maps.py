"""Attention maps: they are the weights that the layers use, computed from the same stream."""

import dataclasses

import numpy as np
import pytest
from model_cases import shake, tiny, tiny_config

from tinyflamingo import ops
from tinyflamingo.model.config import ResamplerConfig
from tinyflamingo.model.flamingo import embed_with_eoc, flamingo
from tinyflamingo.model.gated_xattn import media_keys_values
from tinyflamingo.model.perceiver_resampler import (
    perceiver_resampler,
    project_both,
    resampler_layer,
    temporal_embedding,
)
from tinyflamingo.studies.attention_maps import attention_maps, gated_attention_map, resampler_maps
from tinyflamingo.variants.ablations import AllPreviousXattnConfig, PlacedXattnConfig, VanillaXattnConfig
from tinyflamingo.variants.plain_resamplers import MLPConfig, TransformerConfig
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig, port_resampler, port_xattn_dense
from tinyflamingo.variants.projected import ProjectedResamplerConfig
from tinyflamingo.variants.registry import in_form, init_part

ALL = tiny_config(xattn={"form": AllPreviousXattnConfig})
VANILLA = tiny_config(xattn={"form": VanillaXattnConfig})
AFTER = {"form": PortXattnConfig, "side": "after"}


def maps_of(m, visual=None, **more):
    visual = m.visual if visual is None else visual
    return attention_maps(m.params, m.frozen, m.tokens, m.visible, visual, m.config, parts=m.parts, **more)


def test_shape_and_sums(floor, tiny):
    maps = maps_of(tiny)
    B, T = tiny.tokens.shape
    M, R, _ = tiny.visual.shape
    assert maps.shape == (len(tiny.config.gated_layers), B, T, tiny.config.xattn.heads, M, R)
    np.testing.assert_allclose(maps.sum((-1, -2)), np.broadcast_to((tiny.phi > 0)[None, :, :, None], maps.shape[:4]))


def test_a_token_attends_to_its_own_medium_only(tiny):
    own = np.arange(1, len(tiny.visual) + 1) == tiny.phi[:, :, None]  # (B, T, M)
    maps = maps_of(tiny)
    elsewhere = ~np.broadcast_to(own[None, :, :, None, :, None], maps.shape)
    np.testing.assert_array_equal(maps[elsewhere], 0)
    assert np.all(maps[~elsewhere] > 0)


def test_all_previous_media_share_the_weights():
    m = tiny(config=ALL)
    maps = maps_of(m)
    number, first, last = np.arange(1, len(m.visual) + 1), m.visible[..., :1], m.visible[..., 1:]
    visible = (first <= number) & (number <= last)
    np.testing.assert_array_equal(maps.min(axis=(0, 3, 5)) > 0, visible)
    np.testing.assert_allclose(maps.sum((-1, -2))[:, m.phi > 0], 1)


@pytest.mark.parametrize("config", [tiny_config(), ALL], ids=["last", "all_previous"])
def test_the_weights_times_the_values_are_the_output_of_the_attention(floor, rng, config):
    m = tiny(config=config)
    block, h = m.params["xattn_0"], rng.standard_normal((*m.tokens.shape, config.language.width))
    weights = gated_attention_map(block, h, m.visual, m.visible, config.xattn)
    k, v = media_keys_values(block, m.visual, config.xattn)
    q = ops.linear(ops.layer_norm(h, block["query_gain"], block["query_bias"]), block["w_q"])
    q = q.reshape(1, -1, config.xattn.heads, config.xattn.key_size)
    first = m.visible[..., 0].reshape(1, -1) if m.visible.ndim == 3 else None
    gathered = ops.segment_attention(q, k, v, m.phi.reshape(1, -1), first)
    by_map = np.einsum("bthmr,mrhk->bthk", weights, v[0])
    np.testing.assert_allclose(by_map.reshape(gathered.shape), gathered, rtol=1e-9, atol=1e-12)


def test_deep_blocks_read_the_stream_of_the_model(tiny):
    """Another gate of the first block changes the last map."""
    before = maps_of(tiny)
    params = tiny.params | {"xattn_0": tiny.params["xattn_0"] | {"alpha_xattn": np.array(0.1)}}
    after = attention_maps(params, tiny.frozen, tiny.tokens, tiny.phi, tiny.visual, tiny.config)
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.allclose(after[-1], before[-1])


@pytest.mark.parametrize(
    "xattn",
    [
        {},
        {"every": 2},
        {"form": PlacedXattnConfig, "start": 1},
        {"form": AllPreviousXattnConfig},
        {"form": VanillaXattnConfig},
        {"form": PortXattnConfig},
        AFTER,
        AFTER | {"start": 1, "every": 2},
    ],
    ids=str,
)
def test_the_weights_are_those_of_the_model(xattn, monkeypatch):
    """Taken from inside the very attention that the model runs, over its own queries and keys."""
    m, used = tiny(config=tiny_config(xattn=xattn)), []

    def watched(q, k, v, last, first=None, *more, kept=ops.segment_attention):
        (M, R), owner = k.shape[1:3], np.repeat(np.arange(1, k.shape[1] + 1), k.shape[2])
        visible = ((last if first is None else first)[0][:, None] <= owner) & (owner <= last[0][:, None])  # (B T, M R)
        scores = np.einsum("thk,mrhk->thmr", q[0], k[0]).reshape(*q.shape[1:3], M * R) * q.shape[3] ** -0.5
        weights = np.where(visible[:, None], np.exp(scores), 0)
        weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300)
        used.append(weights.reshape(*m.tokens.shape, q.shape[2], M, R))
        return kept(q, k, v, last, first, *more)

    monkeypatch.setattr(ops, "segment_attention", watched)
    flamingo(m.params, m.frozen, m.tokens, m.visible, m.visual, m.config, parts=m.parts)
    used_by_the_model = np.stack(used)
    assert len(used_by_the_model) == len(m.config.gated_layers)
    np.testing.assert_allclose(maps_of(m), used_by_the_model, rtol=1e-9, atol=1e-12)


def test_maps_of_a_ports_block_have_no_norm_on_the_media(rng):
    """Its keys are the media as they are."""
    m = tiny(config=tiny_config(xattn={"form": PortXattnConfig}))
    h = embed_with_eoc(m.params["eoc"], m.frozen["language"], m.tokens)
    block, cache = m.params["xattn_0"], {}
    port_xattn_dense(block, h, m.visual, m.phi, m.config.xattn, cache)
    q = ops.linear(ops.layer_norm(h, block["query_gain"], block["query_bias"]), block["w_q"]).reshape(2, 8, 2, 5)
    scores = np.einsum("hk,rhk->hr", q[0, 2], (m.visual[0] @ block["w_k"]).reshape(3, 2, 5)) * 5**-0.5
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(maps_of(m)[0, 0, 2, :, 0], weights, rtol=1e-9)


PORT = {"form": PortResamplerConfig}
RESAMPLERS = {
    "chapter": {},
    "one layer": {"layers": 1},
    "projected features": {"input_width": 24},
    "projected tokens": {"form": ProjectedResamplerConfig, "projected_width": 12},
    "port": PORT,
    "port with places": PORT | {"places": 3},
    "port without frames": PORT | {"frames": 0},
    "port with places alone": PORT | {"places": 3, "frames": 0, "activation": "squared_relu"},
}


@pytest.mark.parametrize("name", RESAMPLERS)
def test_the_weights_of_latents_are_those_of_the_resampler(floor, name, rng, monkeypatch):
    """Taken from inside the very attention that any resampler with latents runs."""
    config = in_form(tiny_config().resampler, **({"form": ResamplerConfig} | RESAMPLERS[name]))
    params, used = shake(init_part(rng, config, np.float64), rng), []
    features = rng.standard_normal((3, 2, 4, config.input_width))

    def watched(q, k, v, *more, kept=ops.attention):
        scores = np.einsum("mrhk,mshk->mhrs", q, k) * q.shape[-1] ** -0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        used.append(weights / weights.sum(-1, keepdims=True))
        return kept(q, k, v, *more)

    maps = resampler_maps(params, features, config)
    monkeypatch.setattr(ops, "attention", watched)
    resample = port_resampler if isinstance(config, PortResamplerConfig) else perceiver_resampler
    resample(params, features, config)
    assert maps.shape == (config.layers, 3, 2, 3, 2 * 4 + 3)
    np.testing.assert_allclose(maps, np.stack(used), rtol=1e-9)


def test_vanilla_blocks_attend_inside_the_decoder_block():
    m = tiny(config=VANILLA)
    maps = maps_of(m)
    np.testing.assert_allclose(maps.sum((-1, -2))[:, m.phi > 0], 1)
    h = embed_with_eoc(m.params["eoc"], m.frozen["language"], m.tokens)
    before_the_block = gated_attention_map(m.params["xattn_0"], h, m.visual, m.phi, m.config.xattn)
    assert not np.allclose(maps[0], before_the_block), "self-attention comes first"


def test_visible_from_hides_earlier_tokens(tiny):
    """Left padding: the maps of a row are those of the row alone."""
    b, cut = 0, 3
    alone = attention_maps(
        tiny.params, tiny.frozen, tiny.tokens[b : b + 1, cut:], tiny.phi[b : b + 1, cut:], tiny.visual, tiny.config
    )
    padded = maps_of(tiny, visible_from=np.full(tiny.tokens.shape, cut))
    np.testing.assert_allclose(padded[:, b, cut:], alone[:, 0], rtol=1e-9, atol=1e-12)


def test_no_media(tiny):
    maps = attention_maps(tiny.params, tiny.frozen, tiny.tokens, np.zeros_like(tiny.phi), tiny.visual[:0], tiny.config)
    assert maps.shape[-2] == 0 and maps.size == 0


def test_maps_do_not_change_the_model(tiny):
    def logits():
        return flamingo(tiny.params, tiny.frozen, tiny.tokens, tiny.phi, tiny.visual, tiny.config)

    before = logits()
    maps_of(tiny)
    np.testing.assert_array_equal(logits(), before)


def test_resampler_weights_times_the_values_are_the_output_of_the_attention(floor, tiny):
    config, resampler = tiny.config.resampler, tiny.params["resampler"]
    maps = resampler_maps(resampler, tiny.features, config)
    M, F, S, _ = tiny.features.shape
    assert maps.shape == (config.layers, M, config.heads, config.latents, F * S + config.latents)
    np.testing.assert_allclose(maps.sum(-1), 1)
    layer = resampler["layer_0"] | {"w_2": 0 * resampler["layer_0"]["w_2"]}
    time = temporal_embedding(resampler["temporal"], F)
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


@pytest.mark.parametrize("form", [MLPConfig, TransformerConfig])
def test_a_resampler_without_latents_has_no_maps(form, rng):
    config = in_form(tiny_config().resampler, form)
    with pytest.raises(ValueError, match=f"a resampler of {form.__name__} has no latents"):
        resampler_maps(init_part(rng, config), rng.standard_normal((3, 2, 4, 8)), config)
