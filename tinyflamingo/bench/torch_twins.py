"""The same Flamingo in eager PyTorch: the opponent of the benchmark (all sections of the chapter).

Every function is the twin of the function of the same name in `tinyflamingo/model/`, with the same trees of parameters,
written as in the public PyTorch ports: dense cross-attention with a mask, `scaled_dot_product_attention` where it is
faster, channels last, the fused AdamW. If two ways are possible, this file uses the one that is faster on a CPU.

Not here: anything that the package needs to run. PyTorch is optional (`pip install torch`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflamingo.model.contrastive import MAX_LOGIT_SCALE
from tinyflamingo.model.language_model import sinusoids
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.model.vision_encoder import GELU_GAIN, block_plan, normalise_pixels
from tinyflamingo.ops.reference import same_padding
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.contrastive_stage import pad_captions


def to_torch(tree: Params, trains: bool = False) -> Params:
    """A tree of arrays as a tree of tensors (copies). With `trains` the leaves collect gradients."""
    return from_named_leaves(
        {name: torch.tensor(leaf).requires_grad_(trains) for name, leaf in named_leaves(tree).items()}
    )


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x @ w + b, with w (Din, Dout) as everywhere in this package."""
    return F.linear(x, w.t(), b)


# ---------------------------------------------------------------- chapter §2: the vision encoder


def gained_gelu(x: Tensor) -> Tensor:
    """GELU (tanh form), scaled to keep the variance of a normal input."""
    return F.gelu(x, approximate="tanh") * GELU_GAIN


def standardised(params: Params) -> Tensor:
    """Scaled weight standardisation with `batch_norm`, the fastest way, as in timm."""
    w = params["w"].permute(3, 2, 0, 1)
    flat = w.reshape(1, w.shape[0], -1)
    gain = params["gain"] * flat.shape[2] ** -0.5
    return F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0, eps=1e-12).reshape(w.shape)


def ws_conv(params: Params, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution with standardised weights, padded by `same_padding`: x (B, C, Y, X) -> (B, C', Y', X')."""
    w = standardised(params).contiguous(memory_format=torch.channels_last)
    groups = x.shape[1] // w.shape[1]
    top, bottom = same_padding(x.shape[2], w.shape[2], stride)
    left, right = same_padding(x.shape[3], w.shape[3], stride)
    if (top, left) != (bottom, right):
        x = F.pad(x, (left, right, top, bottom))
        top = left = 0
    return F.conv2d(x, w, params["b"], stride, (top, left), 1, groups)


def squeeze_excite(params: Params, x: Tensor) -> Tensor:
    """A gate for every channel, from its mean over the pixels: x (B, C, Y, X) -> the same shape."""
    hidden = gained_gelu(linear(x.mean(dim=(2, 3)), params["w_squeeze"], params["b_squeeze"]))
    gates = torch.sigmoid(linear(hidden, params["w_excite"], params["b_excite"]))
    return x * (2 * gates)[:, :, None, None]


def nf_block(params: Params, h: Tensor, beta: float, alpha: float, stride: int) -> Tensor:
    """A normaliser-free residual block: h (B, C, Y, X); beta is the expected standard deviation of h."""
    x = gained_gelu(h) * (1 / beta)
    shortcut = h
    if "shortcut" in params:
        pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else x
        shortcut = ws_conv(params["shortcut"], pooled)
    branch = ws_conv(params["reduce"], x)
    branch = ws_conv(params["spatial_0"], gained_gelu(branch), stride)
    branch = ws_conv(params["spatial_1"], gained_gelu(branch))
    branch = ws_conv(params["expand"], gained_gelu(branch))
    branch = squeeze_excite(params["squeeze_excite"], branch)
    return shortcut + branch * (params["skip_init_gain"] * alpha)


def vision_encoder(params: Params, pictures: Tensor, config: Any) -> Tensor:
    """Pictures (B, Y, X, 3) to features (B, S, Dv). Inside, channels are last in memory and first in the shape."""
    h = pictures.permute(0, 3, 1, 2)
    for i, (_, stride) in enumerate(config.stem):
        h = ws_conv(params[f"stem_{i}"], gained_gelu(h) if i else h, stride)
    for name, _, stride, _, beta in block_plan(config):
        h = nf_block(params[name], h, beta, config.alpha, stride)
    h = gained_gelu(ws_conv(params["final"], h))
    return h.permute(0, 2, 3, 1).flatten(1, 2)


# ---------------------------------------------------------------- chapter §2: contrastive training


def heads_first(x: Tensor, H: int) -> Tensor:
    """(B, T, H K) -> (B, H, T, K)."""
    return x.unflatten(-1, (H, -1)).transpose(1, 2)


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
        q, k, v = (heads_first(linear(x, block[n]), config.heads) for n in ("w_q", "w_k", "w_v"))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        h = h + linear(heads_joined(attended), block["w_o"], block["b_o"])
        x = layer_norm(h, block["ffw_gain"], block["ffw_bias"])
        x = F.gelu(linear(x, block["w_1"], block["b_1"]), approximate="tanh")
        h = h + linear(x, block["w_2"], block["b_2"])
    h = layer_norm(h, params["final_gain"], params["final_bias"])
    weights = mask / mask.sum(dim=1, keepdim=True)
    return (h * weights[:, :, None]).sum(dim=1)


def contrastive_batch(pictures: Array, captions: list[list[int]]) -> list[Tensor]:
    """A batch of the stage as tensors: pixels, tokens, mask, and one id for each different caption."""
    ids = np.unique([" ".join(map(str, c)) for c in captions], return_inverse=True)[1]
    return tensors(normalise_pixels(pictures), *pad_captions(captions), ids)


def contrastive_loss(
    params: Params, pixels: Tensor, tokens: Tensor, mask: Tensor, caption_ids: Tensor, config: Any
) -> Tensor:
    """Both towers and the two-way softmax (paper, equations 3 and 4)."""
    features = vision_encoder(params["vision"], pixels, config.vision).mean(dim=1)
    pictures = F.normalize(linear(features, params["picture_projection"]), dim=-1)
    texts = text_tower(params["text"], tokens, mask, config.text_tower)
    texts = F.normalize(linear(texts, params["text_projection"]), dim=-1)
    scale = params["log_scale"].clamp(max=math.log(MAX_LOGIT_SCALE)).exp()
    duplicate = (caption_ids[:, None] == caption_ids[None, :]).fill_diagonal_(False)
    logits = (pictures @ texts.t() * scale).masked_fill(duplicate, -1e9)
    targets = torch.arange(len(caption_ids))
    return F.cross_entropy(logits, targets) + F.cross_entropy(logits.t(), targets)


def encoder(frozen: Params, media: Array, config: Any) -> Callable[[], Tensor]:
    """A function that computes the same as `encode_media`, for media of one frame."""
    frozen = to_torch({name: frozen[name] for name in ("vision", "feature_mean", "feature_scale")})
    pixels = torch.from_numpy(media[:, 0])

    @torch.inference_mode()
    def encode():
        features = vision_encoder(frozen["vision"], (pixels.float() - 110.0) * (1 / 80.0), config.vision)
        return ((features - frozen["feature_mean"]) * frozen["feature_scale"])[:, None]

    return encode


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
    params: Params, x: Tensor, mask: Tensor | None, config: Any, cache: dict[str, Any] | None = None
) -> Tensor:
    """mask (B or 1, 1, T, S): 0 for visible keys, otherwise -inf. None: all keys are visible.

    Without `scaled_dot_product_attention`: with a bias that needs a gradient it is not faster.
    """
    q, k, v = (heads_first(linear(x, params[n]), config.heads) for n in ("w_q", "w_k", "w_v"))
    if cache is not None:
        k, v = append(cache, k, v)
    S = k.shape[2]
    r = projected_distances(params, S, config) if cache is None else cache["r"][:, :, -S:]
    position = (q + params["v"][:, None, :]) @ r
    if q.shape[2] > 1:
        position = relative_shift(position)
    scores = ((q + params["u"][:, None, :]) @ k.transpose(2, 3) + position) * config.key_size**-0.5
    scores = scores if mask is None else scores + mask
    return linear(heads_joined(scores.softmax(-1) @ v), params["w_o"], params["b_o"])


def projected_distances(params: Params, count: int, config: Any) -> Tensor:
    """W_R s_n (H, K, count), the largest distance first."""
    far_first = torch.from_numpy(sinusoids(count, config.width)).flip(0)
    return linear(far_first, params["w_r"]).unflatten(-1, (config.heads, -1)).permute(1, 2, 0)


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
    config: Any,
    cache: dict[str, Any] | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Self-attention and a feed-forward layer, each after a norm: h (B, T, D), mask as in `self_attention`."""
    h = take(h + self_attention(params, rms_norm(h, params["attn_gain"]), mask, config, cache), rows)
    x = linear(rms_norm(h, params["ffw_gain"]), params["w_1"], params["b_1"])
    return h + linear(F.gelu(x, approximate="tanh"), params["w_2"], params["b_2"])


def take(x: Tensor, rows: Tensor | None) -> Tensor:
    """The tokens `rows` (n,) of x (B, T, ...); None: all of them."""
    return x if rows is None else x.flatten(0, 1)[rows]


def causal_mask(visible_from: Tensor) -> Tensor:
    """visible_from (B, T), the first key that is visible to a token -> (B, 1, T, T), to add to the scores."""
    T = visible_from.shape[1]
    key = torch.arange(T)
    visible = (key[None, None] <= key[None, :, None]) & (key[None, None] >= visible_from[:, :, None])
    return torch.zeros(visible.shape).masked_fill_(~visible, -math.inf)[:, None]


def language_loss(
    params: Params, tokens: Tensor, weights: Tensor, visible_from: Tensor, config: Any, few: bool = False
) -> Tensor:
    """The weighted mean loss of packed rows of text. few: without the work for tokens that carry no loss."""
    h = F.embedding(tokens[:, :-1], params["embedding"]) * config.width**0.5
    mask = causal_mask(visible_from[:, :-1])
    weights = weights[:, 1:]
    rows = with_loss(weights) if few else None
    for i in range(config.layers):
        h = decoder_block(params[f"block_{i}"], h, mask, config, None, rows if i == config.layers - 1 else None)
    logits = linear(rms_norm(h, params["final_gain"]), params["embedding"].t())
    return (token_losses(logits, take(tokens[:, 1:], rows)) * take(weights, rows)).sum() / weights.sum()


def with_loss(weights: Tensor) -> Tensor:
    """The places of the tokens that carry a loss, counted over the whole batch."""
    return weights.flatten().nonzero().flatten()


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
    params: Params,
    frozen: Params,
    tokens: Tensor,
    phi: Tensor,
    visual: Tensor,
    config: Any,
    visible_from: Tensor | None = None,
    cache: dict[str, Any] | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Logits (B, T, V + 1); visual (B, N, R, D), N the largest number of media in a row, padded with zeros.

    Without visible_from every token attends to everything: for one new token and a cache.
    """
    language = frozen["language"]
    table = cache["table"] if cache else joined_table(params, language)
    h = F.embedding(tokens, table) * config.language.width**0.5
    mask = None if visible_from is None else causal_mask(visible_from)
    for i in range(config.language.layers):
        if i in config.gated_layers:
            keys_values = cache[f"media_{i}"] if cache else None
            h = gated_xattn_dense(params[f"xattn_{i}"], h, visual, phi, config, keys_values)
        needed = rows if i == config.language.layers - 1 else None
        kept = cache[f"block_{i}"] if cache else None
        h = decoder_block(language[f"block_{i}"], h, mask, config.language, kept, needed)
    return linear(rms_norm(h, language["final_gain"]), table.t())


def joined_table(params: Params, language: Params) -> Tensor:
    """The embeddings (V + 1, D) of all tokens, <EOC> last."""
    return torch.cat([language["embedding"], params["eoc"][None]])


def flamingo_batch(shard: Any, weights: Sequence[float]) -> dict[str, Any]:
    """A shard of stage three as tensors. Each row has its own media, padded, and phi counts within the row."""
    batch = shard.batch
    tags = (batch.tokens == IMAGE).sum(axis=1)
    N = max(int(tags.max()), 1)
    before = np.cumsum(tags) - tags
    loss_weights = shard.shares * np.array([*weights, 0.0], np.float32)[shard.datasets]
    return {
        "features": tensors(*shard.features),
        "places": torch.from_numpy(np.concatenate([np.arange(n) + row * N for row, n in enumerate(tags)])),
        "shape": (len(tags), N),
        "phi": torch.from_numpy(np.where(batch.phi > 0, batch.phi - before[:, None], 0)),
        "tokens": torch.from_numpy(batch.tokens),
        "visible_from": torch.from_numpy(batch.visible_from),
        "weights": torch.from_numpy(loss_weights),
    }


def flamingo_loss(params: Params, frozen: Params, batch: dict[str, Any], config: Any, few: bool = False) -> Tensor:
    """The loss of a step of stage three: lambda times the mean loss, summed over the datasets. few: `language_loss`."""
    parts = [perceiver_resampler(params["resampler"], features, config.resampler) for features in batch["features"]]
    media, (B, N) = torch.cat(parts), batch["shape"]
    visual = media.new_zeros(B * N, *media.shape[1:]).index_copy(0, batch["places"], media).unflatten(0, (B, N))
    visible_from = batch["visible_from"][:, :-1]
    tokens, phi, weights = batch["tokens"], batch["phi"][:, :-1], batch["weights"][:, 1:]
    rows = with_loss(weights) if few else None
    logits = flamingo(params, frozen, tokens[:, :-1], phi, visual, config, visible_from, None, rows)
    return (token_losses(logits, take(tokens[:, 1:], rows)) * take(weights, rows)).sum()


# ---------------------------------------------------------------- the timed functions


def tensors(*arrays: Array) -> list[Tensor]:
    """Arrays as tensors, on the same memory if possible."""
    return [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]


class TrainingStep:
    """Loss, gradients, clipping and AdamW on a copy of an optimiser's parameters."""

    def __init__(self, optimiser: Any, loss: Callable[[Params], Tensor], no_decay: Sequence[str], agc: bool) -> None:
        """no_decay: prefixes of names; agc: also clip the gradient of each output unit of the vision encoder."""
        self.params, self.loss, self.config = to_torch(optimiser.params, trains=True), loss, optimiser.config
        named = named_leaves(self.params)
        decays = [p.ndim >= 2 and not name.startswith(tuple(no_decay) or "-") for name, p in named.items()]
        self.leaves = list(named.values())
        groups = [
            {
                "params": [p for p, d in zip(self.leaves, decays, strict=True) if d],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p, d in zip(self.leaves, decays, strict=True) if not d], "weight_decay": 0.0},
        ]
        betas = self.config.beta_1, self.config.beta_2
        self.optimiser = torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=betas, fused=True)
        self.clipped = list(named_leaves(self.params["vision"]).values()) if agc else []

    def loss_and_gradients(self) -> tuple[float, list[Any]]:
        """The loss, and the gradients in the order of `leaves`."""
        self.optimiser.zero_grad()
        loss = self.loss(self.params)
        loss.backward()
        return loss.item(), [p.grad for p in self.leaves]

    def step(self) -> None:
        """One update, the same as by `AdamW` of `training/optimiser.py`."""
        self.loss_and_gradients()
        for p in self.clipped:
            adaptive_clip(p, self.config.agc)
        torch.nn.utils.clip_grad_norm_(self.leaves, self.config.clip)
        self.optimiser.step()


@torch.no_grad()
def adaptive_clip(p: Any, limit: float, epsilon: float = 1e-3) -> None:
    """Scale down the gradient of every output unit if its norm is above `limit` times the norm of the weights."""
    axes = tuple(range(p.ndim - 1)) if p.ndim >= 2 else tuple(range(p.ndim))
    norm_g = torch.linalg.vector_norm(p.grad, dim=axes, keepdim=True)
    norm_w = torch.linalg.vector_norm(p, dim=axes, keepdim=True)
    p.grad.mul_((limit * norm_w.clamp(min=epsilon) / norm_g.clamp(min=1e-6)).clamp(max=1.0))


def resampler_gradients(params: Params, features: Array, g: Array, config: Any) -> Callable:
    """A function: the gradients of sum(g * resampler(features)), in the order of the parameters."""
    params = to_torch(params, trains=True)
    leaves = list(named_leaves(params).values())
    features, g = tensors(features, g)
    return lambda: torch.autograd.grad(perceiver_resampler(params, features, config), leaves, g)


def cross_attention_gradients(q: Array, k: Array, v: Array, phi: Array, g: Array) -> Callable:
    """A function: the gradients of q (B, T, H, K), k and v (B, N, R, H, K), from dense attention with a mask."""
    q, k, v, phi, g = tensors(q, k, v, phi, g)
    inputs = [x.requires_grad_() for x in (q, k, v)]

    def gradients():
        heads = (x.flatten(1, -3).transpose(1, 2) for x in inputs)
        attended = masked_cross_attention(*heads, phi, k.shape[2])
        return torch.autograd.grad(attended, inputs, g.transpose(1, 2))

    return gradients


def greedy_decoder(
    params: Params, frozen: Params, prompt: Array, phi: Array, visual: Array, config: Any, n: int
) -> Callable[[], list[int]]:
    """A function: n tokens after a prompt (1, T), each time the most likely one, with both caches."""
    params, frozen = to_torch(params), to_torch({"language": frozen["language"]})
    prompt, phi, visual = tensors(prompt, phi, visual)
    language, sizes, length = frozen["language"], config.language, prompt.shape[1] + n
    table = joined_table(params, language)
    distances = [projected_distances(language[f"block_{i}"], length, sizes) for i in range(sizes.layers)]

    @torch.inference_mode()
    def decode():
        cache = {"table": table} | {f"block_{i}": _empty_cache(r) for i, r in enumerate(distances)}
        for i in config.gated_layers:
            cache[f"media_{i}"] = media_keys_values(params[f"xattn_{i}"], visual[None], config)
        visible_from, tokens = torch.zeros_like(prompt), []
        logits = flamingo(params, frozen, prompt, phi, visual[None], config, visible_from, cache)
        for _ in range(n):
            tokens.append(int(logits[0, -1].argmax()))
            step = torch.tensor([[tokens[-1]]])
            logits = flamingo(params, frozen, step, phi[:, -1:], visual[None], config, None, cache)
        return tokens

    return decode


def _empty_cache(r):
    """Space for the keys and values of as many positions as there are projected distances r (H, K, S)."""
    k, v = r.new_zeros(2, 1, r.shape[0], r.shape[2], r.shape[1])
    return {"k": k, "v": v, "r": r, "length": 0}
