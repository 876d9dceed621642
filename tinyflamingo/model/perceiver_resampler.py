"""The Perceiver resampler: any number of visual features in, R visual tokens out.

Chapter §3; paper section 2.1 and figure 5. The queries are R learned latents; keys and values are
the visual features and the latents, concatenated. So a picture of any size and a video of any
length become the same R tokens, at a cost linear in the number of features. Also here: the learned
temporal embedding of each frame, and its linear interpolation for longer videos (chapter §2).

Not here: spatial position codes (the paper has none). Norms on the features and an output norm are
off (the paper names none, and a small model reads shapes better without: docs/deviations.md); the
public ports have them, and an embedding of a medium's place in its document.
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import ResamplerConfig


def perceiver_resampler(params, features, config: ResamplerConfig, place=None):
    """Features (M, F, S, Dv) of M media with F frames each, to visual tokens (M, R, D).

    Pictures are one-frame videos. Permuting the S features of a frame changes nothing; permuting
    frames does, through the temporal embedding. place (M,) int: a medium's place among those of its
    document, from 0; read where `config.places` only, which raises `UserError` for one more.
    """
    x, features, time = enter(params, features, config, place)
    M, R, D = x.shape
    for i in range(config.layers):
        x = resampler_layer(params[f"layer_{i}"], x, features, time, config)
    if config.output_norm:
        x = ops.layer_norm(x, params["out_gain"], params["out_bias"])
    return ops.expect(x, "M R D", M=M, R=R, D=D)


def enter(params, features, config: ResamplerConfig, place=None):
    """What the first layer meets: latents (M, R, D), features (M, F, S, D), and the time (F, D) of frames or None.

    Paper, figure 5; arguments and errors as of `perceiver_resampler`.
    """
    M, F, _, _ = ops.expect(features, "M F S Dv", Dv=config.input_width).shape
    R, D = params["latents"].shape
    if "w_in" in params:
        features = ops.linear(features, params["w_in"])
    time = temporal_embedding(params["temporal"], F) if config.frames else None
    if config.places:
        features = features + embed_place(params["place"], place)
    return np.broadcast_to(params["latents"][None], (M, R, D)) + np.zeros((M, 1, 1), features.dtype), features, time


def resampler_layer(params, x, features, time, config: ResamplerConfig):
    """One layer: latents x (M, R, D) look at [features + time ; x], then a feed-forward."""
    M, R, _ = x.shape
    q, k, v = project(params, x, features, time, config)
    x = x + ops.linear(np.reshape(ops.attention(q, k, v), (M, R, q.shape[2] * q.shape[3])), params["w_o"])
    hidden = ops.linear(ops.layer_norm(x, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return x + ops.linear(getattr(ops, config.activation)(hidden), params["w_2"])


def project(params, x, features, time, config: ResamplerConfig):
    """Queries (M, R, H, K) of the latents x; keys and values (M, F S + R, H, K) of features and latents (figure 5)."""
    M, R, _ = x.shape
    heads = (config.heads, config.key_size)
    if config.media_norm:
        features = features if time is None else features + time[:, None, :]
        features, time = ops.layer_norm(features, params["media_gain"], params["media_bias"]), None
    latents = ops.layer_norm(x, params["attn_gain"], params["attn_bias"])
    q = np.reshape(ops.linear(latents, params["w_q"]), (M, R, *heads))
    k, v = (np.reshape(project_both(features, time, latents, params[n]), (M, -1, *heads)) for n in ("w_k", "w_v"))
    return q, k, v


def project_both(features, time, latents, w):
    """[features + time ; latents] @ w: keys or values of features AND latents, (M, F S + R, inner).

    Features (M, F, S, Dv) and time (F, D) or None are projected one by one, which is the same. The
    frozen features then need no gradient, and that of the time is a sum, not a matrix product.
    """
    M, inner = latents.shape[0], w.shape[1]
    seen = ops.linear(features, w)
    if time is not None:
        seen = seen + np.reshape(ops.linear(time, w), (-1, 1, inner))
    return np.concatenate([np.reshape(seen, (M, -1, inner)), ops.linear(latents, w)], axis=1)


def temporal_embedding(table, F):
    """Rows of the learned table (frames, D) for a video of F frames -> (F, D).

    Up to as many frames as trained: the first F rows. More: the rows are stretched over the video
    by linear interpolation (paper, appendix B.1.2: 8 trained frames serve 30 at test time).
    """
    trained = table.shape[0]
    if F <= trained:
        return table[:F]
    place = np.linspace(0.0, trained - 1.0, F)
    low = np.minimum(place.astype(int), trained - 2)
    share = (place - low).astype(table.dtype)[:, None]
    return table[low] * (1 - share) + table[low + 1] * share


def embed_place(table, place):
    """Rows of the learned table (places, D) for media at `place` (M,) -> (M, 1, 1, D), to add to features."""
    if place is None:
        raise ValueError("perceiver_resampler: config.places is set, so `place` is needed beside the features")
    if len(place) and np.max(place) >= len(table):
        raise UserError(
            f"a document has {np.max(place) + 1} pictures or videos, but this resampler knows {len(table)} places"
        )
    return ops.embed(table, place)[:, None, None, :]


def init_resampler(rng, config: ResamplerConfig, dtype=np.float32):
    """Initialisation is ours, the paper gives none: values pass through nearly unchanged at first
    (`w_v` orthogonal, `w_o` its scaled transpose), the feed-forward starts small."""
    D = config.width
    params = {"latents": (rng.standard_normal((config.latents, D)) * 0.3).astype(dtype)}
    if config.frames:
        params["temporal"] = (rng.standard_normal((config.frames, D)) * 0.5).astype(dtype)
    if config.places:
        params["place"] = (rng.standard_normal((config.places, D)) * 0.5).astype(dtype)
    if config.output_norm:
        params |= {"out_gain": np.ones(D, dtype), "out_bias": np.zeros(D, dtype)}
    if config.input_width != D:  # keys and values read features and latents alike, so they need one width
        params["w_in"] = (rng.standard_normal((config.input_width, D)) * config.input_width**-0.5).astype(dtype)
    for i in range(config.layers):
        params[f"layer_{i}"] = _init_layer(rng, config, dtype)
    return params


def _init_layer(rng, config, dtype):
    D, inner = config.width, config.heads * config.key_size
    hidden = config.ffw_multiplier * D
    media_norm = {"media_gain": np.ones(D, dtype), "media_bias": np.zeros(D, dtype)} if config.media_norm else {}
    w_v = np.linalg.qr(rng.standard_normal((max(D, inner), max(D, inner))))[0][:D, :inner]
    return media_norm | {
        "attn_gain": np.ones(D, dtype),
        "attn_bias": np.zeros(D, dtype),
        "w_q": (rng.standard_normal((D, inner)) * D**-0.5).astype(dtype),
        "w_k": (rng.standard_normal((D, inner)) * D**-0.5).astype(dtype),
        "w_v": w_v.astype(dtype),
        "w_o": (3.0 * w_v.T).astype(dtype),
        "ffw_gain": np.ones(D, dtype),
        "ffw_bias": np.zeros(D, dtype),
        "w_1": (rng.standard_normal((D, hidden)) * D**-0.5).astype(dtype),
        "w_2": (rng.standard_normal((hidden, D)) * 0.1 * hidden**-0.5).astype(dtype),
    }
