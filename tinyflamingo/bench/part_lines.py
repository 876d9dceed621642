"""Parts of the model: encoder, resampler, cross-attention, decoding. Our side of their lines.

Implements no section of the chapter. Not here: the other side (`torch_sides.py`), training steps (`step_lines.py`).
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.bench.contest import Contest, Inputs, largest, normal
from tinyflamingo.model.flamingo import encode_media, flamingo
from tinyflamingo.model.perceiver_resampler import perceiver_resampler
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.tree import named_leaves, view_tree
from tinyflamingo.training.shards import cut_rows, summed_gradient

ROWS, TOKENS, LATENTS, HEADS, KEY_SIZE = 4, 512, 8, 4, 32  # of the cross-attention lines
VIDEOS, FRAMES = 32, 8
PICTURES = 64
DECODED = 128  # tokens


def encode(inputs: Inputs) -> Contest:
    """The vision encoder forward."""
    frozen, config = inputs.model.frozen, inputs.model.config
    side = config.vision.side
    pictures = inputs.rng().integers(0, 256, (PICTURES, 1, side, side, 3), dtype=np.uint8)

    def ours():
        return encode_media(frozen, pictures, config)

    if not inputs.torch:
        return Contest(ours)
    twin = inputs.torch.encoder(frozen, pictures, config)
    return Contest(ours, twin, lambda: largest([ours()], [twin()]))


def resampler(inputs: Inputs) -> Contest:
    """The gradients of the resampler on videos."""
    params, config, rng = inputs.model.params["resampler"], inputs.model.config.resampler, inputs.rng()
    features = normal(rng, VIDEOS, FRAMES, 16, config.input_width)
    g = normal(rng, VIDEOS, config.latents, config.width) / np.float32(100)

    def loss(params, shard):
        return anp.sum(perceiver_resampler(params, shard[0], config) * shard[1]), ()

    def ours():
        return summed_gradient(loss, params, cut_rows(features, g))[2]

    if not inputs.torch:
        return Contest(ours)
    twin = inputs.torch.resampler_gradients(params, features, g, config)
    return Contest(ours, twin, lambda: largest(named_leaves(view_tree(ours(), params)).values(), twin()))


def cross_attention(inputs: Inputs, N: int, by_runs: bool = False) -> Contest:
    """Forward and backward of the cross-attention of ROWS rows, each with N images at equal distances.

    by_runs: PyTorch computes each run of tokens with its own image, as we do; otherwise all scores, with a mask.
    """
    rng = inputs.rng()
    q, g = (normal(rng, ROWS, TOKENS, HEADS, KEY_SIZE) for _ in range(2))
    k, v = (normal(rng, ROWS, N, LATENTS, HEADS, KEY_SIZE) for _ in range(2))
    phi = np.tile(1 + np.arange(TOKENS) * N // TOKENS, (ROWS, 1))

    def ours():  # always on one thread: half a millisecond is too short to be shared
        _, _, pull = ops.vjp(lambda p: ops.segment_attention(p["q"], p["k"], p["v"], phi), {"q": q, "k": k, "v": v})
        return list(pull(g).values())

    if not inputs.torch:
        return Contest(ours)
    side = inputs.torch.runs_gradients if by_runs else inputs.torch.cross_attention_gradients
    twin = side(q, k, v, phi, g)
    return Contest(ours, twin, lambda: largest(ours(), twin()))


def growth(inputs: Inputs) -> Contest:
    """Our own time with 32 images and with 1."""
    return Contest(cross_attention(inputs, 32).ours, cross_attention(inputs, 1).ours)


def decode(inputs: Inputs) -> Contest:
    """Tokens after a short prompt, one by one."""
    model, rng = inputs.model, inputs.rng()
    params, frozen, config = model.params, model.frozen, model.config
    visual = normal(rng, 1, config.resampler.latents, config.resampler.width)
    prompt, phi = np.array([[BOS, IMAGE, 40]]), np.array([[0, 1, 1]])

    def ours():
        cache, row, row_phi, tokens = {}, prompt, phi, []
        for _ in range(DECODED):
            logits = flamingo(params, frozen, row, row_phi, visual, config, cache=cache)
            tokens.append(int(logits[0, -1].argmax()))
            row, row_phi = np.array([tokens[-1:]]), phi[:, -1:]
        return tokens

    if not inputs.torch:
        return Contest(ours)
    twin = inputs.torch.greedy_decoder(params, frozen, prompt, phi, visual, config, DECODED)
    return Contest(ours, twin, lambda: largest([ours()], [twin()]))
