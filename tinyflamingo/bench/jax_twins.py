"""Stages two and three in JAX: one function of XLA computes loss, gradients, clipping and the update (`jax.jit`).

A function that has the name of one in `torch_twins.py` is its twin, with the same parameters and batches
(`batches.py`). Implements no section of the chapter. XLA has one thread. Not here: stage one. JAX is optional (`pip
install jax`).
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tinyflamingo.bench.contest import Step
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.training.muon import QUINTICS, SIZE, Muon, is_moved

Tree = dict[str, Any]


def layer_norm(x: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    """Layer norm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * gain + bias


def rms_norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    """RMS norm over the last axis."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * gain


def projected(params: Tree, x: jax.Array, names: str, H: int) -> list[jax.Array]:
    """The projections of x (B, T, D) by several matrices, as one product: each (B, H, T, K)."""
    joined = x @ jnp.concatenate([params[f"w_{name}"] for name in names], axis=1)
    return [heads_first(part, H) for part in jnp.split(joined, len(names), axis=-1)]


def heads_first(x: jax.Array, H: int) -> jax.Array:
    """(B, T, H K) -> (B, H, T, K)."""
    return x.reshape(*x.shape[:2], H, -1).swapaxes(1, 2)


def attend(scores: jax.Array, v: jax.Array) -> jax.Array:
    """Values (B, H, S, K) weighted by the softmax of scores (B, H, T, S), as (B, T, H K)."""
    x = (jax.nn.softmax(scores, -1) @ v).swapaxes(1, 2)
    return x.reshape(*x.shape[:2], -1)


def squared_relu_layer(params: Tree, x: jax.Array) -> jax.Array:
    """The feed-forward layer of resampler and gated blocks, with its norm."""
    hidden = layer_norm(x, params["ffw_gain"], params["ffw_bias"]) @ params["w_1"]
    return jnp.square(jax.nn.relu(hidden)) @ params["w_2"]


def perceiver_resampler(params: Tree, features: jax.Array, config: Any) -> jax.Array:
    """Features (M, F, S, Dv) to visual tokens (M, R, Dv)."""
    M, frames, S, D = features.shape
    flat = (features + params["temporal"][:frames, None]).reshape(M, frames * S, D)
    x = jnp.broadcast_to(params["latents"], (M, *params["latents"].shape))
    for i in range(config.layers):
        layer = params[f"layer_{i}"]
        latents = layer_norm(x, layer["attn_gain"], layer["attn_bias"])
        (q,) = projected(layer, latents, "q", config.heads)
        k, v = projected(layer, jnp.concatenate([flat, latents], axis=1), "kv", config.heads)
        x = x + attend(q * q.shape[-1] ** -0.5 @ k.swapaxes(2, 3), v) @ layer["w_o"]
        x = x + squared_relu_layer(layer, x)
    return x


def self_attention(params: Tree, x: jax.Array, mask: jax.Array, distances: jax.Array, config: Any) -> jax.Array:
    """mask (B, 1, T, T): True for visible keys; distances: sinusoids, the largest distance first."""
    q, k, v = projected(params, x, "qkv", config.heads)
    B, H, T, K = q.shape
    r = (distances @ params["w_r"]).reshape(T, H, K).transpose(1, 2, 0)
    position = jnp.pad((q + params["v"][:, None]) @ r, ((0, 0), (0, 0), (0, 0), (1, 0)))
    position = position.reshape(B, H, T + 1, T)[:, :, 1:].reshape(B, H, T, T)  # the relative shift
    scores = ((q + params["u"][:, None]) @ k.swapaxes(2, 3) + position) * K**-0.5
    return attend(jnp.where(mask, scores, -jnp.inf), v) @ params["w_o"] + params["b_o"]


def decoder_block(
    params: Tree, h: jax.Array, mask: jax.Array, distances: jax.Array, config: Any, rows: jax.Array | None
) -> jax.Array:
    """Self-attention and a feed-forward layer, each after a norm."""
    h = take(h + self_attention(params, rms_norm(h, params["attn_gain"]), mask, distances, config), rows)
    x = rms_norm(h, params["ffw_gain"]) @ params["w_1"] + params["b_1"]
    return h + jax.nn.gelu(x, approximate=True) @ params["w_2"] + params["b_2"]


def take(x: jax.Array, rows: jax.Array | None) -> jax.Array:
    """The tokens `rows` (n,) of x (B, T, ...); None: all of them."""
    return x if rows is None else x.reshape(-1, *x.shape[2:])[rows]


def causal_mask(visible_from: jax.Array) -> jax.Array:
    """visible_from (B, T) -> (B, 1, T, T), True for visible keys."""
    key = jnp.arange(visible_from.shape[1])
    return ((key <= key[:, None]) & (key >= visible_from[:, :, None]))[:, None]


def gated_xattn_dense(params: Tree, h: jax.Array, visual: jax.Array, phi: jax.Array, config: Any) -> jax.Array:
    """h (B, T, D), visual (B, N, R, D), phi (B, T) counted within each row."""
    B, N, R, D = visual.shape
    media = layer_norm(visual.reshape(B, N * R, D), params["media_gain"], params["media_bias"])
    k, v = projected(params, media, "kv", config.xattn.heads)
    (q,) = projected(params, layer_norm(h, params["query_gain"], params["query_bias"]), "q", config.xattn.heads)
    visible = phi[:, :, None] == jnp.arange(N * R) // R + 1
    scores = jnp.where(visible[:, None], q * q.shape[-1] ** -0.5 @ k.swapaxes(2, 3), -1e30)
    attended = jnp.where((phi == 0)[:, :, None], 0.0, attend(scores, v))
    h = h + jnp.tanh(params["alpha_xattn"]) * (attended @ params["w_o"])
    return h + jnp.tanh(params["alpha_dense"]) * squared_relu_layer(params, h)


def text_loss(h: jax.Array, gain: jax.Array, table: jax.Array, batch: Tree) -> jax.Array:
    """The losses of all tokens, or of the tokens "rows", times their shares."""
    targets, shares = (take(batch[name], batch.get("rows")) for name in ("targets", "shares"))
    logits = rms_norm(h, gain) @ table.T
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return ((jax.nn.logsumexp(logits, -1) - chosen) * shares).sum()


def language_loss(params: Tree, batch: Tree, config: Any) -> jax.Array:
    """The weighted mean loss of packed rows of text."""
    h = params["embedding"][batch["tokens"]] * config.width**0.5
    mask = causal_mask(batch["visible_from"])
    for i in range(config.layers):
        rows = batch.get("rows") if i == config.layers - 1 else None
        h = decoder_block(params[f"block_{i}"], h, mask, batch["distances"], config, rows)
    return text_loss(h, params["final_gain"], params["embedding"], batch)


def flamingo_loss(params: Tree, batch: Tree, config: Any) -> jax.Array:
    """The loss of a step of stage three."""
    media = [perceiver_resampler(params["resampler"], features, config.resampler) for features in batch["features"]]
    language, slots = batch["language"], batch["slots"]
    visual = jnp.concatenate([*media, jnp.zeros_like(media[0][:1])])[slots]
    table = jnp.concatenate([language["embedding"], params["eoc"][None]])
    h, mask = table[batch["tokens"]] * config.language.width**0.5, causal_mask(batch["visible_from"])
    for i in range(config.language.layers):
        if i in config.gated_layers:
            h = gated_xattn_dense(params[f"xattn_{i}"], h, visual, batch["phi"], config)
        rows = batch.get("rows") if i == config.language.layers - 1 else None
        h = decoder_block(language[f"block_{i}"], h, mask, batch["distances"], config.language, rows)
    return text_loss(h, language["final_gain"], table, batch)


# ---------------------------------------------------------------- the timed function


class TrainingStep:
    """Loss, gradients, clipping and AdamW or Muon on a copy of an optimiser's parameters."""

    def __init__(self, step: Step) -> None:
        os.environ["NPROC"] = "1"  # threads of XLA, which reads this number once, when it starts
        self.batch, params = jax.tree.map(jnp.array, (step.batch, step.optimiser.params))
        loss = partial({"language_loss": language_loss, "flamingo_loss": flamingo_loss}[step.loss], config=step.config)
        decays = {n: p.ndim >= 2 and not n.startswith(step.no_decay or "-") for n, p in named_leaves(params).items()}
        config = step.optimiser.config
        decay = from_named_leaves({name: config.weight_decay * decays[name] for name in decays})
        muon = isinstance(step.optimiser, Muon)
        matrices = from_named_leaves({name: muon and is_moved(name) for name in decays})
        self.gradient = jax.jit(jax.value_and_grad(loss))
        self.update = jax.jit(partial(update, loss, config, decay, matrices), donate_argnums=0)
        self.state = params, *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)), jnp.ones(())

    def loss_and_gradients(self) -> tuple[float, Tree]:
        """The loss, and the gradients by name."""
        loss, gradients = self.gradient(self.state[0], self.batch)
        return float(loss), named_leaves(gradients)

    def step(self) -> None:
        """One update; returns when it is finished."""
        self.state = jax.block_until_ready(self.update(self.state, self.batch))


def update(loss: Any, config: Any, decay: Tree, matrices: Tree, state: tuple, batch: Tree) -> tuple:
    """(params, m, v, number of the step) after one update as by `AdamW`, or by `Muon` for the marked matrices."""
    params, m, v, t = state
    g = jax.grad(loss)(params, batch)
    norm = jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(g)))
    g = jax.tree.map(lambda g: g * jnp.minimum(1.0, config.clip / (norm + 1e-12)), g)
    m = jax.tree.map(lambda m, g: config.beta_1 * m + (1 - config.beta_1) * g, m, g)
    v = jax.tree.map(lambda v, g: config.beta_2 * v + (1 - config.beta_2) * g * g, v, g)

    def moved(p, m, v, decay, matrix):
        unbiased = m / (1 - config.beta_1**t), v / (1 - config.beta_2**t)
        move = muon_move(m) if matrix else unbiased[0] / (jnp.sqrt(unbiased[1]) + config.epsilon)
        return p - config.learning_rate * (move + decay * p)

    return jax.tree.map(moved, params, m, v, decay, matrices), m, v, t + 1


def muon_move(momentum: Any) -> Any:
    """The move of a matrix at rate 1, as `muon.muon_move`. (m, n) -> (m, n)"""
    rows, columns = momentum.shape
    x = momentum.T if rows > columns else momentum
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for a, b, c in QUINTICS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if rows > columns else x) * SIZE * max(rows, columns) ** 0.5
