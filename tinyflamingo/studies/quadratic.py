"""The cost of many frames: latents attend to a video's features, or the features attend to each other (chapter §3).

The cost of the Perceiver resampler is linear in the number of frames; the cost of self-attention among all features, as
in BERT, is quadratic. Measured for growing numbers of frames: time and memory of forward and backward, and the accuracy
with which a classifier reads the action of a video from the visual tokens.

Not here: both networks (`model/perceiver_resampler.py`, `variants/plain_resamplers.py`), attention alone
(`bench/scaling.py`).
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import ACTIONS, draw_clip, sample_clip
from tinyflamingo.evaluation.metrics import checked, summarise
from tinyflamingo.model.config import ResamplerConfig
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_media
from tinyflamingo.model.perceiver_resampler import init_resampler, perceiver_resampler
from tinyflamingo.ops.types import Array
from tinyflamingo.studies.growing_report import growing, save_report
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.training.shards import cut_rows, summed_gradient
from tinyflamingo.variants.plain_resamplers import TransformerConfig, init_transformer, transformer
from tinyflamingo.variants.registry import in_form

FRAMES = (1, 2, 4, 8, 16, 32)
KINDS = {"perceiver": ResamplerConfig, "transformer": TransformerConfig}
NETWORKS: dict = {  # configuration -> (initialise parameters, features to visual tokens)
    ResamplerConfig: (init_resampler, perceiver_resampler),
    TransformerConfig: (init_transformer, transformer),
}
CLIPS = (600, 300)  # to train on, to test with
STEPS, BATCH = 200, 32
ROUNDS, VIDEOS = 5, 4  # of a measurement: repetitions, and videos in a batch
OPTIMISER = OptimiserConfig(learning_rate=1e-3, warmup=20)


def quadratic(
    model: TrainedFlamingo,
    path: Path,
    frames: tuple = FRAMES,
    clips: tuple = CLIPS,
    steps: int = STEPS,
    seed: int = 0,
    say: Callable = print,
) -> dict:
    """Costs and accuracies of both networks; `path` holds the report after each number of frames.

    Returns {"format", "settings", "frames", "kinds": {kind: {"ms", "mb", "accuracy"}}}: lists with one number, or one
    {"score", "ci95", "n"}, for each number of frames.
    """
    settings = {"frames": frames, "clips": clips, "steps": steps, "seed": seed}
    kinds: dict = {kind: {"ms": [], "mb": [], "accuracy": []} for kind in KINDS}
    with growing(path, "quadratic", settings, frames=list(frames), kinds=kinds) as report:
        for F in frames[len(report["kinds"]["transformer"]["accuracy"]) :]:
            train = labelled_clips(model, split_rng("train", F, seed), clips[0], F)
            test = labelled_clips(model, split_rng("validation", F, seed), clips[1], F)
            for kind in KINDS:
                config = in_form(model.config.resampler, KINDS[kind], frames=F)
                ms, mb = cost(np.random.default_rng(seed), config, train[0].shape[1:])
                score = accuracy(np.random.default_rng(seed), config, train, test, steps)
                for name, value in (("ms", ms), ("mb", mb), ("accuracy", score)):
                    report["kinds"][kind][name].append(value)
                say(f"{F:3d} frames, {kind:12s} {ms:9.1f} ms {mb:9.1f} MB, accuracy {score['score']:.3f}")
            save_report(path, report)
    return report


def labelled_clips(model: TrainedFlamingo, rng: np.random.Generator, n: int, frames: int) -> tuple[Array, Array]:
    """Features (n, F, S, Dv) of n videos with `frames` frames, and the index (n,) of each video's action."""
    clips = [sample_clip(rng, action=ACTIONS[i % len(ACTIONS)]) for i in range(n)]
    pixels = np.stack([draw_clip(rng, clip, frames, model.config.vision.side) for clip in clips])
    return encode_media(model.frozen, pixels, model.config, model.parts), np.arange(n) % len(ACTIONS)


def cost(rng: np.random.Generator, config: ResamplerConfig, shape: tuple) -> tuple[float, float]:
    """(milliseconds, megabytes) of forward and backward for a batch of videos with features of a shape (F, S, Dv).

    The median time of ROUNDS repetitions, and the peak of allocated memory without the parameters.
    """
    init, resample = NETWORKS[type(config)]
    params = init(rng, config)
    features = rng.standard_normal((VIDEOS, *shape), np.float32)

    def run():
        return ops.value_and_grad(lambda p: anp.sum(resample(p, features, config)))(params)

    run()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(np.median(times)) * 1e3, peak / 2**20


def accuracy(
    rng: np.random.Generator,
    config: ResamplerConfig,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    steps: int,
) -> dict:
    """Train the network and a linear layer on the mean of its visual tokens -> {"score", "ci95", "n"} on the test."""
    init, resample = NETWORKS[type(config)]
    D = config.width
    params = {"resampler": init(rng, config), "w": np.zeros((D, len(ACTIONS)), np.float32)}
    optimiser = AdamW(params, OPTIMISER)

    def logits(params, features):
        tokens = resample(params["resampler"], features, config)
        return ops.linear(anp.sum(tokens, axis=1) * np.float32(1 / tokens.shape[1]), params["w"])

    def loss_of(params, shard):
        features, labels = shard
        return anp.sum(ops.cross_entropy(logits(params, features), labels)) * np.float32(1 / BATCH), ()

    features, labels = train
    for step in range(steps):
        chosen = rng.permutation(len(labels))[:BATCH]
        shards = cut_rows(features[chosen], labels[chosen])
        optimiser.step(summed_gradient(loss_of, optimiser.params, shards)[2], step, steps)
    features, labels = test
    batches = np.array_split(features, -(-len(features) // BATCH))
    predicted = np.concatenate([checked(logits(optimiser.params, batch)).argmax(axis=1) for batch in batches])
    return summarise((predicted == labels).astype(float), rng)
