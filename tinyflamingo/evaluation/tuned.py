"""Flamingo itself, fine-tuned on the examples of one task (chapter §5; paper section 3.2 and appendix B.2.2).

The trainable parts, which are the resampler, the gated blocks and `<EOC>`, go on learning from the shots alone. Each
shot is a document of its own. Then the model answers without any shot in its prompt.

Not here: specialists without a language model (`specialists.py`), prompts with shots (`few_shot.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinyflamingo.data.items import Quiet
from tinyflamingo.evaluation.few_shot import Instance, answer, shot_items
from tinyflamingo.evaluation.suite import Example
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.interleave import encode_document, pack_batch
from tinyflamingo.training.flamingo_stage import Shard, shard_loss
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.training.shards import summed_gradient


@dataclass(frozen=True)
class Recipe:
    """How the parameters are trained."""

    steps: int = 80
    batch: int = 16  # shots in a step
    noise: float = 0.2  # standard deviation, on features whose own is 1
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=5e-4, weight_decay=0.1, warmup=10)


def tuned(model: TrainedFlamingo, instance: Instance, rng: np.random.Generator, recipe: Recipe = Recipe()) -> list:
    """Answers to the queries of an instance, by a copy of the model that is trained on the shots.

    Returns [(text, log-likelihoods of the candidates or [])], as `few_shot` does.
    """
    optimiser = AdamW(model.params, recipe.optimiser, no_decay=("resampler",))
    documents = [encode_document(document(shot, i), model.tokenizer) for i, shot in enumerate(instance.shots)]

    def loss_of(params, shard):
        return shard_loss(params, shard, model.frozen, [1.0], model.config, model.parts)

    for step in range(recipe.steps):
        chosen = [documents[i] for i in rng.permutation(len(documents))[: recipe.batch]]
        shard = _shard(chosen, instance.features, rng, recipe.noise)
        optimiser.step(summed_gradient(loss_of, optimiser.params, [shard])[2], step, recipe.steps)
    model = replace(model, params=optimiser.params)
    visual = model.parts.resample(model.params, [instance.features[len(documents) :]], model.config)
    return answer(model, instance.queries, [], visual[:0], visual)


def document(shot: Example, medium: object) -> list:
    """A shot as training has it: the questions are read and not learned."""
    _, *texts = shot_items(shot, medium)
    return [medium, *(Quiet(text) if i % 2 == 0 else text for i, text in enumerate(texts))]


def _shard(documents, features, rng, noise):
    """Documents in rows. Their media are numbers of rows of the features (n, F, S, Dv)."""
    batch = pack_batch(documents)
    seen = features[batch.media]
    seen = seen + rng.standard_normal(seen.shape, dtype=np.float32) * np.float32(noise)
    shares = batch.weights / np.float32(max(batch.weights.sum(), 1))
    return Shard(batch, [seen], shares, np.where(batch.owner < 0, -1, 0))
