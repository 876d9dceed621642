"""The gated blocks of the paper's ablations (tables 3 and 10): the chapter's block without one of its parts.

Beside chapter §4. No gates; cross-attention alone, inside a decoder block ("vanilla"); attention to all previous
images; one block in the middle. The functions have the arguments of `gated_xattn_dense` and `decoder_block`, so the
loop in `model/flamingo.py` can call them instead.

Not here: the runs of the ablations (`studies/ablations.py`), other resamplers (`plain_resamplers.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, LanguageConfig, XattnConfig, require_whole_fields
from tinyflamingo.model.gated_xattn import cross_attention, feed_forward, init_gated_xattn, media_keys_values
from tinyflamingo.model.interleave import Batch
from tinyflamingo.model.language_model import feed_forward as decoder_feed_forward
from tinyflamingo.model.language_model import only_needed, self_attention
from tinyflamingo.ops.types import Array, Cache, Params

# ---- a block at other places


@dataclass(frozen=True)
class PlacedXattnConfig(XattnConfig):
    """Gated blocks at decoder blocks start, start + every, ...: one in the middle, or as in OpenFlamingo."""

    start: int = 0  # the first decoder block with a gated block

    def __post_init__(self) -> None:
        require_whole_fields(self, may_be_zero=("start",))

    def gated_layers(self, layers: int) -> tuple:
        """The numbers of the decoder blocks that have a gated block."""
        return tuple(range(self.start, layers, self.every))


# ---- no gates (table 3)


@dataclass(frozen=True)
class UngatedXattnConfig(XattnConfig):
    """No gates: new layers have their full effect from the first step on."""


def ungated_xattn_dense(
    params: Params, h: Array, visual: Array, phi: Array, config: XattnConfig, cache: Cache = None
) -> Array:
    """`gated_xattn_dense` with both gates at 1."""
    k, v = media_keys_values(params, visual, config, cache)
    h = h + cross_attention(params, h, k, v, phi, config)
    return h + feed_forward(params, h)


def init_ungated_xattn(rng: np.random.Generator, config: FlamingoConfig, dtype: type = np.float32) -> Params:
    """Parameters of one block, without gates."""
    return without(init_gated_xattn(rng, config, dtype), "alpha_xattn", "alpha_dense")


def without(params: Params, *names: str) -> Params:
    """The same parameters except these."""
    return {name: leaf for name, leaf in params.items() if name not in names}


# ---- a block that acts later: inside or after the next decoder block


class Pending(NamedTuple):
    """The stream before a decoder block, and the gated block that will act on it inside or after that decoder block."""

    h: Any  # (B, T, D)
    act: Callable  # h -> h


def pending(block: Callable) -> Callable:
    """This gated block, not applied yet: it returns a `Pending` for the decoder block that the loop calls next."""

    def postponed(params, h, visual, phi, config, cache=None):
        return Pending(h, lambda h: block(params, h, visual, phi, config, cache))

    return postponed


def then_pending(decoder_block: Callable) -> Callable:
    """This decoder block, followed by the pending gated block (flamingo-pytorch)."""

    def block(params, h, visible_from, config, cache=None, needed=None):
        if not isinstance(h, Pending):
            return decoder_block(params, h, visible_from, config, cache, needed)
        return only_needed(h.act(decoder_block(params, h.h, visible_from, config, cache)), needed)

    return block


# ---- vanilla cross-attention (table 3)


@dataclass(frozen=True)
class VanillaXattnConfig(XattnConfig):
    """Cross-attention alone, inside a decoder block, before its feed-forward layer."""


def vanilla_xattn(
    params: Params, h: Array, visual: Array, phi: Array, config: XattnConfig, cache: Cache = None
) -> Array:
    """The gated cross-attention without a feed-forward layer."""
    k, v = media_keys_values(params, visual, config, cache)
    return h + np.tanh(params["alpha_xattn"]) * cross_attention(params, h, k, v, phi, config)


def vanilla_decoder_block(
    params: Params,
    h: Array | Pending,
    visible_from: Array,
    config: LanguageConfig,
    cache: Cache = None,
    needed: Array | None = None,
) -> Array:
    """`decoder_block` with the pending cross-attention between its two parts."""
    h, act = h if isinstance(h, Pending) else (h, lambda h: h)
    h = act(h + self_attention(params, ops.rms_norm(h, params["attn_gain"]), visible_from, config, cache))
    h = only_needed(h, needed)
    return h + decoder_feed_forward(params, ops.rms_norm(h, params["ffw_gain"]))


def init_vanilla_xattn(rng: np.random.Generator, config: FlamingoConfig, dtype: type = np.float32) -> Params:
    """Parameters of one block, without the feed-forward layer."""
    return without(init_gated_xattn(rng, config, dtype), "ffw_gain", "ffw_bias", "w_1", "w_2", "alpha_dense")


# ---- all previous images (table 10)


@dataclass(frozen=True)
class AllPreviousXattnConfig(XattnConfig):
    """A token sees its own medium and all media before it in its document."""


def all_previous_media(batch: Batch) -> Array:
    """First and last medium that each token sees, (B, T, 2): the first one of its document, and phi. 0, 0: none."""
    first = np.zeros_like(batch.phi)
    for number in range(batch.owner.max() + 1):
        own = batch.owner == number
        media = batch.phi[own & (batch.phi > 0)]
        first[own] = np.where(batch.phi[own] > 0, media.min(initial=len(batch.media)), 0)
    return np.stack([first, batch.phi], axis=-1)


def all_previous_xattn_dense(
    params: Params, h: Array, visual: Array, phi: Array, config: XattnConfig, cache: Cache = None
) -> Array:
    """`gated_xattn_dense` with phi (B, T, 2) from `all_previous_media`."""
    k, v = media_keys_values(params, visual, config, cache)
    h = h + np.tanh(params["alpha_xattn"]) * all_previous_attention(params, h, k, v, phi, config)
    return h + np.tanh(params["alpha_dense"]) * feed_forward(params, h)


def all_previous_attention(params: Params, h: Array, k: Array, v: Array, phi: Array, config: XattnConfig) -> Array:
    """`cross_attention` with phi (B, T, 2): one softmax over all media from the first to the last."""
    B, T, _ = h.shape
    phi = ops.expect(phi, "B T 2", B=B, T=T)
    first, last = (np.reshape(phi[..., i], (1, B * T)) for i in (0, 1))
    x = ops.layer_norm(h, params["query_gain"], params["query_bias"])
    q = np.reshape(ops.linear(x, params["w_q"]), (1, B * T, config.heads, config.key_size))
    attended = np.reshape(ops.segment_attention(q, k, v, last, first), (B, T, -1))
    return ops.linear(attended, params["w_o"])
