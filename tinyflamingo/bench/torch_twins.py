"""The same Flamingo in PyTorch: the opponent of the benchmark (all sections of the chapter).

A function that has the name of one in `tinyflamingo/model/` is its twin, with the same trees of parameters. All is
written as an expert writes it for a CPU: channels last in every convolution, constant factors inside the weights, and
one product for queries, keys and values of self-attention. `scaled_dot_product_attention` is used where it is faster.
If there are two ways, this file has the faster one. The cross-attention is dense and masked, as in the public ports;
`runs_cross_attention` is not.

Not here: anything that the package needs to run; PyTorch is optional (`pip install torch`). The timed functions are in
`torch_sides.py`, the batches in `batches.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflamingo.model.contrastive import MAX_LOGIT_SCALE
from tinyflamingo.model.vision_encoder import GELU_GAIN, block_plan
from tinyflamingo.ops.reference import same_padding
from tinyflamingo.ops.types import Params


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x @ w + b, with w (Din, Dout) as everywhere in this package."""
    return F.linear(x, w.t(), b)


def gelu(x: Tensor) -> Tensor:
    """GELU (tanh form)."""
    return F.gelu(x, approximate="tanh")


# ---------------------------------------------------------------- chapter §2: the vision encoder


def standardised(params: Params, scale: float) -> Tensor:
    """Scaled weight standardisation with `batch_norm`, the fastest way, as in timm; all times `scale`."""
    w = params["w"].permute(3, 2, 0, 1)
    flat = w.reshape(1, w.shape[0], -1)
    gain = params["gain"] * (scale * flat.shape[2] ** -0.5)
    return F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0, eps=1e-12).reshape(w.shape)


def ws_conv(params: Params, x: Tensor, stride: int = 1, scale: float = 1.0) -> Tensor:
    """Convolution of scale * x, (B, C, Y, X) -> (B, C', Y', X'), with standardised weights and `same_padding`.

    The gain of an activation is such a scale: the weights carry it, so no pass over the pixels is necessary.
    """
    w = standardised(params, scale).contiguous(memory_format=torch.channels_last)
    groups = x.shape[1] // w.shape[1]
    top, bottom = same_padding(x.shape[2], w.shape[2], stride)
    left, right = same_padding(x.shape[3], w.shape[3], stride)
    if (top, left) != (bottom, right):
        x = F.pad(x, (left, right, top, bottom))
        top = left = 0
    return F.conv2d(x, w, params["b"], stride, (top, left), 1, groups)


def squeeze_excite(params: Params, x: Tensor) -> Tensor:
    """A gate for every channel, from its mean over the pixels: x (B, C, Y, X) -> (B, C, 1, 1)."""
    hidden = gelu(linear(x.mean(dim=(2, 3)), params["w_squeeze"], params["b_squeeze"])) * GELU_GAIN
    return torch.sigmoid(linear(hidden, params["w_excite"], params["b_excite"]))[:, :, None, None]


def nf_block(params: Params, h: Tensor, beta: float, alpha: float, stride: int) -> Tensor:
    """A normaliser-free residual block: h (B, C, Y, X); beta is the expected standard deviation of h."""
    x, scale, shortcut = gelu(h), GELU_GAIN / beta, h
    if "shortcut" in params:
        pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else x
        shortcut = ws_conv(params["shortcut"], pooled, scale=scale)
    branch = ws_conv(params["reduce"], x, scale=scale)
    branch = ws_conv(params["spatial_0"], gelu(branch), stride, GELU_GAIN)
    branch = ws_conv(params["spatial_1"], gelu(branch), scale=GELU_GAIN)
    branch = ws_conv(params["expand"], gelu(branch), scale=GELU_GAIN)
    gates = squeeze_excite(params["squeeze_excite"], branch) * (params["skip_init_gain"] * (2 * alpha))
    return torch.addcmul(shortcut, branch, gates)


def vision_encoder(params: Params, pictures: Tensor, config: Any) -> Tensor:
    """Pictures (B, Y, X, 3) to features (B, S, Dv). Inside, channels are last in memory and first in the shape."""
    h = pictures.permute(0, 3, 1, 2)
    for i, (_, stride) in enumerate(config.stem):
        h = ws_conv(params[f"stem_{i}"], gelu(h), stride, GELU_GAIN) if i else ws_conv(params["stem_0"], h, stride)
    for name, _, stride, _, beta in block_plan(config):
        h = nf_block(params[name], h, beta, config.alpha, stride)
    h = gelu(ws_conv(params["final"], h)) * GELU_GAIN
    return h.permute(0, 2, 3, 1).flatten(1, 2)


# ---------------------------------------------------------------- chapter §2: contrastive training


def heads_first(x: Tensor, H: int) -> Tensor:
    """(B, T, H K) -> (B, H, T, K)."""
    return x.unflatten(-1, (H, -1)).transpose(1, 2)


def queries_keys_values(params: Params, x: Tensor, H: int) -> tuple[Tensor, ...]:
    """Three projections of x (B, T, D) as one product: each (B, H, T, K). A decoder has joined the matrices before."""
    w = params["w_qkv"] if "w_qkv" in params else torch.cat([params[n] for n in ("w_q", "w_k", "w_v")], dim=1)
    return linear(x, w).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def heads_joined(x: Tensor) -> Tensor:
    """(B, H, T, K) -> (B, T, H K)."""
    return x.transpose(1, 2).flatten(2)


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Layer norm over the last axis."""
    return F.layer_norm(x, x.shape[-1:], gain, bias, 1e-5)


def text_tower(params: Params, tokens: Tensor, mask: Tensor, config: Any) -> Tensor:
    """Captions, tokens (B, T) with mask (B, T), to vectors (B, D): the mean over the tokens."""
    h = F.embedding(tokens, params["embedding"]) + params["positions"][: tokens.shape[1]]
    for i in range(config.layers):
        block = params[f"block_{i}"]
        x = layer_norm(h, block["attn_gain"], block["attn_bias"])
        q, k, v = queries_keys_values(block, x, config.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        h = h + linear(heads_joined(attended), block["w_o"], block["b_o"])
        x = layer_norm(h, block["ffw_gain"], block["ffw_bias"])
        h = h + linear(gelu(linear(x, block["w_1"], block["b_1"])), block["w_2"], block["b_2"])
    h = layer_norm(h, params["final_gain"], params["final_bias"])
    weights = mask / mask.sum(dim=1, keepdim=True)
    return (h * weights[:, :, None]).sum(dim=1)


def contrastive_loss(params: Params, batch: dict[str, Any], config: Any) -> Tensor:
    """Both towers and the two-way softmax (paper, equations 3 and 4)."""
    features = vision_encoder(params["vision"], batch["pixels"], config.vision).mean(dim=1)
    pictures = F.normalize(linear(features, params["picture_projection"]), dim=-1)
    texts = text_tower(params["text"], batch["tokens"], batch["mask"], config.text_tower)
    texts = F.normalize(linear(texts, params["text_projection"]), dim=-1)
    caption_ids = batch["caption_ids"]
    scale = params["log_scale"].clamp(max=math.log(MAX_LOGIT_SCALE)).exp()
    duplicate = (caption_ids[:, None] == caption_ids[None, :]).fill_diagonal_(False)
    logits = (pictures @ texts.t() * scale).masked_fill(duplicate, -1e9)
    targets = torch.arange(len(caption_ids))
    return F.cross_entropy(logits, targets) + F.cross_entropy(logits.t(), targets)


# ---------------------------------------------------------------- chapter §3: the resampler


def perceiver_resampler(params: Params, features: Tensor, config: Any) -> Tensor:
    """Features (M, F, S, Dv) to visual tokens (M, R, Dv)."""
    M, frames = features.shape[:2]
    flat = (features + params["temporal"][:frames, None, :]).flatten(1, 2)
    x = params["latents"].expand(M, -1, -1)
    for i in range(config.layers):
        x = resampler_layer(params[f"layer_{i}"], x, flat, config)
    return x


def resampler_layer(params: Params, x: Tensor, features: Tensor, config: Any) -> Tensor:
    """One layer: latents x (M, R, D) attend to features (M, F S, D) and to themselves, then a feed-forward layer."""
    latents = layer_norm(x, params["attn_gain"], params["attn_bias"])
    both = torch.cat([features, latents], dim=1)
    q = heads_first(linear(latents, params["w_q"]), config.heads)
    k, v = (heads_first(linear(both, params[n]), config.heads) for n in ("w_k", "w_v"))
    x = x + linear(heads_joined(F.scaled_dot_product_attention(q, k, v)), params["w_o"])
    hidden = linear(layer_norm(x, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return x + linear(F.relu(hidden).square(), params["w_2"])


# ---------------------------------------------------------------- chapter §4: the language model


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm over the last axis."""
    return F.rms_norm(x, gain.shape, gain, 1e-6)


def relative_shift(scores: Tensor) -> Tensor:
    """(B, H, T, S): from one column for each distance, largest first, to one column for each key (Dai et al. 2019)."""
    B, H, T, S = scores.shape
    return F.pad(scores, (1, 0)).view(B, H, S + 1, T)[:, :, 1:].reshape(B, H, T, S)


def self_attention(
    params: Params,
    x: Tensor,
    mask: Tensor | None,
    distances: Tensor | None,
    config: Any,
    cache: dict[str, Any] | None = None,
) -> Tensor:
    """mask (B or 1, 1, T, S): 0 for visible keys, otherwise -inf. None: all keys are visible.

    distances: the sinusoids of S distances, the largest first; a cache has them already, projected. Without
    `scaled_dot_product_attention`: with a bias that needs a gradient it is slower.
    """
    scale = config.key_size**-0.5
    q, k, v = queries_keys_values(params, x, config.heads)
    q = q * scale
    if cache is not None:
        k, v = append(cache, k, v)
    r = cache["r"][:, :, -k.shape[2] :] if cache else projected_distances(params, distances, config)
    position = (q + scale * params["v"][:, None, :]) @ r
    if q.shape[2] > 1:
        position = relative_shift(position)
    scores = (q + scale * params["u"][:, None, :]) @ k.transpose(2, 3) + position
    scores = scores if mask is None else scores + mask
    return linear(heads_joined(scores.softmax(-1) @ v), params["w_o"], params["b_o"])


def projected_distances(params: Params, distances: Any, config: Any) -> Tensor:
    """W_R s_n (H, K, count) of sinusoids (count, D)."""
    return linear(distances, params["w_r"]).unflatten(-1, (config.heads, -1)).permute(1, 2, 0)


def append(cache: dict[str, Any], k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Append keys and values (B, H, T, K) to a cache; returns views of all of them."""
    T, S = k.shape[2], cache["length"] + k.shape[2]
    cache["k"][:, :, S - T : S], cache["v"][:, :, S - T : S] = k, v
    cache["length"] = S
    return cache["k"][:, :, :S], cache["v"][:, :, :S]


def decoder_block(
    params: Params,
    h: Tensor,
    mask: Tensor | None,
    distances: Tensor | None,
    config: Any,
    cache: dict[str, Any] | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Self-attention and a feed-forward layer, each after a norm: h (B, T, D), mask as in `self_attention`."""
    h = h + self_attention(params, rms_norm(h, params["attn_gain"]), mask, distances, config, cache)
    h = take(h, rows)
    x = gelu(linear(rms_norm(h, params["ffw_gain"]), params["w_1"], params["b_1"]))
    return h + linear(x, params["w_2"], params["b_2"])


def take(x: Tensor, rows: Tensor | None) -> Tensor:
    """The tokens `rows` (n,) of x (B, T, ...); None: all of them."""
    return x if rows is None else x.flatten(0, 1)[rows]


def causal_mask(visible_from: Tensor) -> Tensor:
    """visible_from (B, T), the first key that is visible to a token -> (B, 1, T, T), to add to the scores."""
    T = visible_from.shape[1]
    key = torch.arange(T)
    visible = (key[None, None] <= key[None, :, None]) & (key[None, None] >= visible_from[:, :, None])
    return torch.zeros(visible.shape).masked_fill_(~visible, -math.inf)[:, None]


def language_loss(params: Params, batch: dict[str, Any], config: Any) -> Tensor:
    """The weighted mean loss of packed rows of text. With "rows": without the work for tokens that carry no loss."""
    h = F.embedding(batch["tokens"], params["embedding"]) * config.width**0.5
    mask = causal_mask(batch["visible_from"])
    for i in range(config.layers):
        rows = batch.get("rows") if i == config.layers - 1 else None
        h = decoder_block(params[f"block_{i}"], h, mask, batch["distances"], config, None, rows)
    logits = linear(rms_norm(h, params["final_gain"]), params["embedding"].t())
    return text_loss(logits, batch)


def text_loss(logits: Tensor, batch: dict[str, Any]) -> Tensor:
    """The losses of all tokens, or of the tokens "rows", times their shares."""
    targets, shares = (take(batch[name], batch.get("rows")) for name in ("targets", "shares"))
    return (token_losses(logits, targets) * shares).sum()


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of every token (B, T) or (n,), from logits (..., V)."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view_as(targets)


# ---------------------------------------------------------------- chapter §4: the gated blocks


def masked_cross_attention(q: Tensor, k: Tensor, v: Tensor, phi: Tensor, R: int) -> Tensor:
    """q (B, H, T, K), k and v (B, H, N R, K), phi (B, T) in 0..N: dense scores with a mask.

    A token without a medium attends to everything in the softmax; then its row is set to zero.
    """
    owner = torch.arange(k.shape[2]) // R + 1
    visible = phi[:, None, :, None] == owner
    blind = (phi == 0)[:, None, :, None]
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | blind)
    return attended.masked_fill(blind, 0.0)


def runs_cross_attention(q: Tensor, k: Tensor, v: Tensor, runs: dict[str, Tensor]) -> Tensor:
    """q (B, T, H, K), k and v (B, N, R, H, K): every run of tokens attends to its own medium only, no score is masked.

    runs: "tokens" (runs, longest run), numbers of tokens, the last one repeated; "media" (runs,), the medium of each
    run; "places" (B T,), where the result of a token is.
    """
    tokens = runs["tokens"]
    q = q.flatten(0, 1).index_select(0, tokens.flatten()).unflatten(0, tokens.shape)
    k, v = (x.flatten(0, 1).index_select(0, runs["media"]) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    return attended.index_select(0, runs["places"])


def gated_xattn_dense(
    params: Params,
    h: Tensor,
    visual: Tensor,
    phi: Tensor,
    config: Any,
    keys_values: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """h (B, T, D), visual (B, N, R, D), phi (B, T) counted within each row."""
    R = config.resampler.latents
    k, v = media_keys_values(params, visual, config) if keys_values is None else keys_values
    q = heads_first(
        linear(layer_norm(h, params["query_gain"], params["query_bias"]), params["w_q"]), config.xattn.heads
    )
    attended = heads_joined(masked_cross_attention(q, k, v, phi, R))
    h = h + params["alpha_xattn"].tanh() * linear(attended, params["w_o"])
    hidden = linear(layer_norm(h, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return h + params["alpha_dense"].tanh() * linear(F.relu(hidden).square(), params["w_2"])


def media_keys_values(params: Params, visual: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Keys and values of all media of each row, (B, H, N R, K)."""
    media = layer_norm(visual.flatten(1, 2), params["media_gain"], params["media_bias"])
    k, v = (heads_first(linear(media, params[n]), config.xattn.heads) for n in ("w_k", "w_v"))
    return k, v


# ---------------------------------------------------------------- chapter §1: the whole


def flamingo(
    params: Params, visual: Tensor, batch: dict[str, Any], config: Any, cache: dict[str, Any] | None = None
) -> Tensor:
    """Logits (B, T, V + 1) of a batch, or (n, V + 1) of its "rows"; visual (B, N, R, D), padded with zeros.

    Without "visible_from" every token attends to everything: for one new token and a cache.
    """
    language, distances = batch["language"], batch.get("distances")
    table = cache["table"] if cache else joined_table(params, language)
    h = F.embedding(batch["tokens"], table) * config.language.width**0.5
    mask = causal_mask(batch["visible_from"]) if "visible_from" in batch else None
    for i in range(config.language.layers):
        if i in config.gated_layers:
            keys_values = cache[f"media_{i}"] if cache else None
            h = gated_xattn_dense(params[f"xattn_{i}"], h, visual, batch["phi"], config, keys_values)
        rows = batch.get("rows") if i == config.language.layers - 1 else None
        kept = cache[f"block_{i}"] if cache else None
        h = decoder_block(language[f"block_{i}"], h, mask, distances, config.language, kept, rows)
    return linear(rms_norm(h, language["final_gain"]), table.t())


def joined_table(params: Params, language: Params) -> Tensor:
    """The embeddings (V + 1, D) of all tokens, <EOC> last."""
    return torch.cat([language["embedding"], params["eoc"][None]])


def flamingo_loss(params: Params, batch: dict[str, Any], config: Any) -> Tensor:
    """The loss of a step of stage three: lambda times the mean loss, summed over the datasets."""
    parts = [perceiver_resampler(params["resampler"], features, config.resampler) for features in batch["features"]]
    media, slots = F.pad(torch.cat(parts), (0, 0, 0, 0, 0, 1)), batch["slots"]  # the last medium is for padding
    visual = media.index_select(0, (slots % len(media)).flatten()).unflatten(0, slots.shape)
    return text_loss(flamingo(params, visual, batch, config), batch)
