"""Resampler and gated block of three public ports: their outputs, import and export, and their mistakes."""

import dataclasses

import numpy as np
import parity_parts as parity
import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.interop import names, peers
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.variants.ablations import all_previous_attention
from tinyflamingo.variants.ports import (
    PortResamplerConfig,
    init_port_resampler,
    init_port_xattn,
    plain_keys_values,
    port_feed_forward,
    port_resampler,
    port_xattn_dense,
    resample_as_ports,
)

each_port = pytest.mark.parametrize("peer", peers.PORTS)
TOLERANCE = [(np.float32, 1e-4), (np.float64, 1e-9)]


def installed(peer):
    for module in ("torch", *parity.MODULES[peer]):
        pytest.importorskip(module)


# ---------------------------------------------------------------- same outputs


@pytest.mark.parametrize("dtype, tolerance", TOLERANCE)
@each_port
def test_resampler_equals_the_port(floor, peer, dtype, tolerance):
    installed(peer)
    assert parity.resampler(peer, dtype) < tolerance


@pytest.mark.parametrize("dtype, tolerance", TOLERANCE)
@each_port
def test_gated_block_equals_the_port(floor, peer, dtype, tolerance):
    installed(peer)
    assert parity.gated_block(peer, dtype) < tolerance


@pytest.mark.parametrize("activation, act", [("squared_relu", "sqrelu"), ("relu", "relu")])
def test_flamingo_mini_has_other_activations(activation, act):
    installed("flamingo-mini")
    theirs, config, params = parity.port_block("flamingo-mini", np.float64, act=act)
    import torch

    h, media = np.random.default_rng(0).standard_normal((1, 4, 16)), np.ones((1, 1, 5, 12))
    tags = np.array([[True, False, False, False]])
    with torch.no_grad():
        want = parity.call_block(theirs, *map(torch.from_numpy, (h, media, tags))).numpy()
    config = dataclasses.replace(config, xattn=dataclasses.replace(config.xattn, activation=activation))
    got = port_xattn_dense(params, h, media[0], np.ones((1, 4), int), config.xattn)
    np.testing.assert_allclose(got, want, atol=1e-9)


@each_port
def test_our_parameters_load_into_the_port(peer):
    """Our new parameters are exported and loaded into the port's modules with strict `load_state_dict`."""
    installed(peer)
    import torch

    config = peers.with_conventions(FlamingoConfig(), peer)
    rng = np.random.default_rng(0)
    params = init_port_resampler(rng, config.resampler, np.float64)
    module = parity.importlib.import_module(parity.MODULES[peer][0])
    sizes = {"open_flamingo": {"max_num_frames": 8}, "flamingo-mini": {"num_time_embeds": 8}}.get(peer, {})
    theirs = module.PerceiverResampler(dim=128, depth=2, dim_head=32, heads=4, num_latents=8, **sizes).double()
    exported = names.export_arrays(names.resampler_rows(peer, config.resampler, ours=""), params, peer)
    theirs.load_state_dict({n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in exported.items()}, strict=True)
    x = rng.standard_normal((2, 1, 1, 6, 128))
    want = theirs(torch.from_numpy(x if peer == "open_flamingo" else x[:, 0])).detach().numpy().reshape(2, 8, 128)
    got = np.concatenate([port_resampler(params, document, config.resampler) for document in x])
    np.testing.assert_allclose(got, want, atol=1e-9)


# ---------------------------------------------------------------- mistakes of the ports


def wrong(peer, phi, tags, first=None, **more):
    """[(theirs, ours)] for one row of tokens and two media, first as they are, then with another second medium."""
    import torch

    theirs, config, params = parity.port_block(peer, np.float64, **more)
    rng = np.random.default_rng(4)
    h, media = rng.standard_normal((1, 6, 16)), rng.standard_normal((1, 2, 5, config.resampler.width))
    other = media.copy()
    other[:, 1] += 1
    outputs = []
    for shown in (media, other):
        with torch.no_grad():
            out = parity.call_block(theirs, *map(torch.from_numpy, (h, shown, np.array([tags])))).numpy()
        outputs.append((out, ours_of(params, h, shown[0], phi, config.xattn, first)))
    return outputs


def ours_of(params, h, visual, phi, config, first):
    """Our block with a port's conventions. first: tokens attend to all media from `first` to phi."""
    if first is None:
        return port_xattn_dense(params, h, visual, phi, config)
    k, v = plain_keys_values(params, visual, config)
    span = np.stack([first, phi], axis=-1)
    h = h + np.tanh(params["alpha_xattn"]) * all_previous_attention(params, h, k, v, span, config)
    return h + np.tanh(params["alpha_dense"]) * port_feed_forward(params, h, config)


@pytest.mark.parametrize("peer", ["flamingo-pytorch", "open_flamingo"])
def test_all_previous_leaks_the_future_there_and_not_here(peer):
    """In a port, text before the first image is fully masked; its softmax attends to all images, also later ones."""
    installed(peer)
    tags = [False, False, True, False, True, False]
    phi, first = np.array([[0, 0, 1, 1, 2, 2]]), np.array([[0, 0, 1, 1, 1, 1]])
    (theirs, ours), (changed, ours_changed) = wrong(peer, phi, tags, first, only_attend_immediate_media=False)
    assert np.abs(changed - theirs)[0, :2].max() > 1e-3  # a later image changes earlier text
    np.testing.assert_array_equal(ours_changed[0, :4], ours[0, :4])
    np.testing.assert_allclose(ours[0, 2:], theirs[0, 2:], atol=1e-9)  # equal where the mask is not empty


@each_port
def test_more_tags_than_images_are_an_error_only_here(peer):
    """With a third tag for two images, a port attends uniformly to both. We raise an error."""
    installed(peer)
    tags = [True, False, True, False, True, False]
    (theirs, _), (changed, _) = wrong(peer, np.array([[1, 1, 2, 2, 2, 2]]), tags)
    assert np.isfinite(theirs).all() and np.abs(changed - theirs)[0, 4:].max() > 1e-3
    with pytest.raises(ValueError, match="phi is 3 but there are 2 media"):
        wrong(peer, np.array([[1, 1, 2, 2, 3, 3]]), tags)


# ---------------------------------------------------------------- tables, without a port


@each_port
def test_tables_go_both_ways(peer, random_tensors, round_trip):
    config = peers.with_conventions(FlamingoConfig(), peer)
    for rows in (names.resampler_rows(peer, config.resampler), names.xattn_rows(peer, config)):
        assert len({row.theirs for row in rows}) == len(rows)
        round_trip(rows, random_tensors(rows, np.float32))


@each_port
def test_tables_give_exactly_our_parameters(peer, rng):
    config = peers.with_conventions(FlamingoConfig(), peer)
    for rows, params in (
        (names.resampler_rows(peer, config.resampler, ours=""), init_port_resampler(rng, config.resampler)),
        (names.xattn_rows(peer, config, ours=""), init_port_xattn(rng, config)),
    ):
        assert names.our_shapes(rows) == {name: leaf.shape for name, leaf in named_leaves(params).items()}


@each_port
def test_sizes_are_read_from_tensors(peer, random_tensors):
    config = peers.with_conventions(FlamingoConfig(), peer)
    rows = names.resampler_rows(peer, config.resampler)
    assert peers.resampler_config(peer, random_tensors(rows), head_size=32) == config.resampler
    block = peers.xattn_config(peer, random_tensors(names.xattn_rows(peer, config)), head_size=32)
    assert block.xattn == config.xattn


def test_real_shapes_of_openflamingo_3b():
    """Its resampler has 6 layers with 8 heads of size 64 and reads CLIP ViT-L/14, whose width is 1024."""
    config = PortResamplerConfig(1024, 1024, layers=6, heads=8, key_size=64, latents=64, frames=0)
    shapes = {row.theirs: row.shape for row in names.resampler_rows("open_flamingo", config)}
    assert len(shapes) == 1 + 6 * 11 + 2
    assert shapes["latents"] == (64, 1024)
    assert shapes["layers.5.0.to_kv.weight"] == (1024, 1024)
    assert shapes["layers.5.0.to_out.weight"] == (1024, 512)
    assert shapes["layers.0.1.3.weight"] == (1024, 4096)
    assert sum(int(np.prod(s)) for s in shapes.values()) == 63_019_008


def test_an_error_lists_all_tensors_and_both_shapes(random_tensors):
    config = peers.with_conventions(FlamingoConfig(), "open_flamingo")
    rows = names.resampler_rows("open_flamingo", config.resampler)
    tensors = random_tensors(rows)
    del tensors["norm.bias"]
    tensors["layers.0.0.to_b.weight"] = np.zeros((3, 4))
    tensors["latents"] = np.zeros((9, 128))
    with pytest.raises(UserError) as caught:
        names.import_arrays(rows, tensors, "open_flamingo")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "1 missing: norm.bias (128,)",
        "1 unknown: layers.0.0.to_b.weight (3, 4)",
        "latents is (9, 128), expected (8, 128)",
    ):
        assert part in message


@each_port
def test_other_conventions_are_not_exported_silently(peer):
    with pytest.raises(UserError, match="resampler.kind is 'perceiver', there 'port'.*xattn.kind is 'gated'"):
        peers.check_conventions(FlamingoConfig(), peer)
    peers.check_conventions(peers.with_conventions(FlamingoConfig(), peer), peer)


def test_a_resampler_refuses_more_media_than_it_has_places(rng):
    config = peers.with_conventions(FlamingoConfig(), "flamingo-pytorch")
    params, picture = init_port_resampler(rng, config.resampler), np.zeros((1, 1, 2, 128), np.float32)
    assert resample_as_ports({"resampler": params}, [picture] * 4, config).shape == (4, 8, 128)
    with pytest.raises(UserError, match="has 5 pictures or videos, but this resampler has places for 4 only"):
        resample_as_ports({"resampler": params}, [picture] * 5, config)
