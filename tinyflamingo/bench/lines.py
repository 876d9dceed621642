"""The lines of the benchmark: one `Line` for each row of the table, with our side and the other side.

The builder of a line makes the inputs of both sides from the same arrays; this is not timed. Training steps (loss,
gradients, AdamW) are those of the toy preset. Not here: the clock (`clock.py`) and the PyTorch side (`torch_twins.py`,
imported only if PyTorch is installed).
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
from PIL import Image

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.bench.flops import SIDE, gemm_flops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.model.flamingo import encode_media, flamingo
from tinyflamingo.model.perceiver_resampler import perceiver_resampler
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.tree import named_leaves, view_tree
from tinyflamingo.training.contrastive_stage import ContrastiveStage
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import get_preset
from tinyflamingo.training.shards import cut_rows, summed_gradient

ROWS, TOKENS, LATENTS, HEADS, KEY_SIZE = 4, 512, 8, 4, 32  # of the cross-attention lines
VIDEOS, FRAMES = 32, 8
PICTURES = 64
DECODED = 128  # tokens
LATE = 900  # a step of stage two in which all kinds of documents occur


@dataclasses.dataclass
class Contest:
    """Two functions without arguments, and one that compares their results."""

    ours: Callable
    other: Callable | None = None
    difference: Callable[[], float] | None = None  # the largest absolute difference


def _other_over_ours(ours, other):
    return other / ours if other else None


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table. `ratio(ours, other)` is computed from two medians; `wanted` is only printed."""

    what: str
    wanted: str
    build: Callable
    ratio: Callable = _other_over_ours
    against_torch: bool = True
    tolerance: float = 1e-3


class Inputs:
    """Inputs that several lines use, made once: the shipped model and small pools of pictures."""

    def __init__(self, with_torch: bool) -> None:
        self.model = tinyflamingo.load()
        self.twins: Any = None
        if with_torch:
            from tinyflamingo.bench import torch_twins

            self.twins = torch_twins
        toy = get_preset("toy")
        self.preset = dataclasses.replace(
            toy,
            contrastive=dataclasses.replace(toy.contrastive, families=toy.contrastive.batch),
            flamingo=dataclasses.replace(
                toy.flamingo, singles=200, uncoloured=40, pairs=200, counts=60, clips=60, feature_noise=0.0
            ),
        )

    def rng(self) -> np.random.Generator:
        """Always the same stream, which no other split uses."""
        return split_rng("validation", 77)


def _normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def _largest(ours, other):
    """Largest absolute difference between two lists of arrays."""
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in zip(ours, other, strict=True))


# ---------------------------------------------------------------- training steps


def _step_contest(inputs, optimiser, gradient_of, torch_loss, clip=None, no_decay=()):
    """Loss, gradients and AdamW on both sides. gradient_of() returns (loss, gradient vector)."""

    def ours():
        gradient = gradient_of()[1]
        if clip:
            clip(gradient)
        optimiser.step(gradient, LATE, 2 * LATE)

    if not inputs.twins:
        return Contest(ours)
    twin = inputs.twins.TrainingStep(optimiser, torch_loss, no_decay, clip is not None)

    def difference():
        loss, gradient = gradient_of()
        twin_loss, twin_gradients = twin.loss_and_gradients()
        leaves = named_leaves(view_tree(gradient, optimiser.params)).values()
        return _largest([loss, *leaves], [twin_loss, *twin_gradients])

    return Contest(ours, twin.step, difference)


def _contrastive_step(inputs):
    stage = ContrastiveStage(inputs.preset, inputs.rng(), inputs.model.tokenizer, {})
    batch = stage.batch(inputs.rng())

    def loss(params):
        return inputs.twins.contrastive_loss(params, *inputs.twins.contrastive_batch(*batch), stage.config)

    return _step_contest(inputs, stage.optimiser, lambda: stage.loss_and_gradient(*batch), loss, stage.clip)


def _language_step(inputs, few=False):
    stage = LanguageStage(inputs.preset, inputs.rng(), inputs.model.tokenizer, {})
    batch = stage.batch(inputs.rng(), LATE)

    def loss(params):
        return inputs.twins.language_loss(params, *inputs.twins.tensors(*batch), stage.config, few)

    return _step_contest(inputs, stage.optimiser, lambda: stage.loss_and_gradient(*batch), loss)


def _flamingo_stage(inputs):
    """The stage with open gates (alpha 0.5), as in the middle of training: at 0 half of the gradients would be 0."""
    stage = FlamingoStage(inputs.preset, inputs.rng(), inputs.model.tokenizer, inputs.model.frozen)
    for name, leaf in named_leaves(stage.optimiser.params).items():
        if "alpha" in name:
            leaf[...] = 0.5
    return stage, stage.documents(inputs.rng())


def _flamingo_step(inputs, few=False):
    stage, documents = _flamingo_stage(inputs)
    shards = stage.shards(inputs.rng(), documents)

    def gradient_of():
        losses, gradient = stage.losses_and_gradient(shards)
        return sum(dataset.weight * losses[dataset.name] for dataset in stage.recipe.datasets), gradient

    if inputs.twins:
        with ops.use_workers(1):
            (whole,) = stage.shards(inputs.rng(), documents)
        batch = inputs.twins.flamingo_batch(whole, [dataset.weight for dataset in stage.recipe.datasets])
        frozen = inputs.twins.to_torch({"language": stage.frozen["language"]})

    def loss(params):
        return inputs.twins.flamingo_loss(params, frozen, batch, stage.config, few)

    return _step_contest(inputs, stage.optimiser, gradient_of, loss, no_decay=("resampler",))


# ---------------------------------------------------------------- parts


def _encode(inputs):
    frozen, config = inputs.model.frozen, inputs.model.config
    side = config.vision.side
    pictures = inputs.rng().integers(0, 256, (PICTURES, 1, side, side, 3), dtype=np.uint8)

    def ours():
        return encode_media(frozen, pictures, config)

    if not inputs.twins:
        return Contest(ours)
    twin = inputs.twins.encoder(frozen, pictures, config)
    return Contest(ours, twin, lambda: _largest([ours()], [twin()]))


def _resampler(inputs):
    params, config, rng = inputs.model.params["resampler"], inputs.model.config.resampler, inputs.rng()
    features = _normal(rng, VIDEOS, FRAMES, 16, config.input_width)
    g = _normal(rng, VIDEOS, config.latents, config.width) / np.float32(100)

    def loss(params, shard):
        return anp.sum(perceiver_resampler(params, shard[0], config) * shard[1]), ()

    def ours():
        return summed_gradient(loss, params, cut_rows(features, g))[2]

    if not inputs.twins:
        return Contest(ours)
    twin = inputs.twins.resampler_gradients(params, features, g, config)
    return Contest(ours, twin, lambda: _largest(named_leaves(view_tree(ours(), params)).values(), twin()))


def cross_attention(inputs: Inputs, N: int) -> Contest:
    """Forward and backward of the cross-attention of ROWS rows, each with N images at equal distances."""
    rng = inputs.rng()
    q, g = (_normal(rng, ROWS, TOKENS, HEADS, KEY_SIZE) for _ in range(2))
    k, v = (_normal(rng, ROWS, N, LATENTS, HEADS, KEY_SIZE) for _ in range(2))
    phi = np.tile(1 + np.arange(TOKENS) * N // TOKENS, (ROWS, 1))

    def ours():  # always on one thread: half a millisecond is too short to be shared
        _, _, pull = ops.vjp(lambda p: ops.segment_attention(p["q"], p["k"], p["v"], phi), {"q": q, "k": k, "v": v})
        return list(pull(g).values())

    if not inputs.twins:
        return Contest(ours)
    twin = inputs.twins.cross_attention_gradients(q, k, v, phi, g)
    return Contest(ours, twin, lambda: _largest(ours(), twin()))


def _growth(inputs):
    """Our own time with 32 images and with 1."""
    return Contest(cross_attention(inputs, 32).ours, cross_attention(inputs, 1).ours)


def _decode(inputs):
    model, rng = inputs.model, inputs.rng()
    params, frozen, config = model.params, model.frozen, model.config
    visual = _normal(rng, 1, config.resampler.latents, config.resampler.width)
    prompt, phi = np.array([[BOS, IMAGE, 40]]), np.array([[0, 1, 1]])

    def ours():
        cache, row, row_phi, tokens = {}, prompt, phi, []
        for _ in range(DECODED):
            logits = flamingo(params, frozen, row, row_phi, visual, config, cache=cache)
            tokens.append(int(logits[0, -1].argmax()))
            row, row_phi = np.array([tokens[-1:]]), phi[:, -1:]
        return tokens

    if not inputs.twins:
        return Contest(ours)
    twin = inputs.twins.greedy_decoder(params, frozen, prompt, phi, visual, config, DECODED)
    return Contest(ours, twin, lambda: _largest([ours()], [twin()]))


# ---------------------------------------------------------------- without PyTorch


def _gemm_share(inputs):
    """A training step, and as many flops of large square matrix products as its own products have."""
    stage, documents = _flamingo_stage(inputs)
    shards = stage.shards(inputs.rng(), documents)

    def step():
        stage.optimiser.step(stage.losses_and_gradient(shards)[1], LATE, 2 * LATE)

    a, products_per_worker = _normal(inputs.rng(), SIDE, SIDE), gemm_flops(step) / (2 * SIDE**3) / ops.workers()

    def products(_):
        for _ in range(int(products_per_worker)):
            a @ a
        a[: int(SIDE * (products_per_worker % 1))] @ a

    return Contest(step, lambda: ops.parallel_map(products, range(ops.workers())))


def _python(*arguments):
    """A new interpreter, as from the shell."""
    return Contest(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def _first_completion(inputs):
    """Read a picture from a file and write its caption, all in a new process."""
    picture = Path(tempfile.mkdtemp()) / "noise.png"
    Image.fromarray(inputs.rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    return _python("-m", "tinyflamingo", "complete", "<image>Output:", str(picture))


LINES = {
    "flamingo_step": Line("training step of stage three: loss, gradients, AdamW", ">= 1.3", _flamingo_step),
    "language_step": Line("training step of stage two", ">= 1.2", _language_step),
    "flamingo_step_rows": Line(
        "PyTorch too leaves out the work for tokens without a loss", ">= 1.3", lambda i: _flamingo_step(i, few=True)
    ),
    "language_step_rows": Line("the same for stage two", ">= 1.2", lambda i: _language_step(i, few=True)),
    "contrastive_step": Line("training step of stage one", ">= 1.0", _contrastive_step),
    "encode": Line(f"vision encoder forward, {PICTURES} pictures", ">= 1.0", _encode),
    "resampler": Line(f"forward and backward, {VIDEOS} videos of {FRAMES} frames", ">= 1.2", _resampler),
    "xattn_1": Line(f"cross-attention, {ROWS} x {TOKENS} tokens, 1 image", ">= 1.2", lambda i: cross_attention(i, 1)),
    "xattn_8": Line("the same, 8 images in each row", ">= 4", lambda i: cross_attention(i, 8)),
    "xattn_32": Line("the same, 32 images", ">= 12", lambda i: cross_attention(i, 32)),
    "xattn_scaling": Line(
        "our time with 32 images over that with 1", "<= 1.5", _growth, lambda ours, other: ours / other, False
    ),
    "decode": Line(f"{DECODED} tokens of one sequence, both caches", ">= 2", _decode),
    "gemm_share": Line(
        "matrix products at this machine's rate over flamingo_step", ">= 0.6", _gemm_share, against_torch=False
    ),
    "import": Line(
        "`import tinyflamingo` in a new process",
        "<= 500 ms",
        lambda i: _python("-c", "import tinyflamingo"),
        against_torch=False,
    ),
    "completion": Line("`complete` from the shell, one picture", "<= 3000 ms", _first_completion, against_torch=False),
}
