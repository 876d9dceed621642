"""Training steps of the toy preset: our side of their lines, and the opponents that a line can choose.

Both sides get the same batch and the same parameters. Implements no section of the chapter. Not here: the step of
PyTorch (`torch_sides.py`) and of JAX (`jax_twins.py`), whole steps of `train` with their data (`job_lines.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tinyflamingo import ops
from tinyflamingo.bench.batches import contrastive_batch, flamingo_batch, language_batch
from tinyflamingo.bench.contest import Contest, Inputs, NotRun, Step, largest, normal
from tinyflamingo.bench.flops import SIDE, gemm_flops
from tinyflamingo.ops.tree import named_leaves, view_tree
from tinyflamingo.training.contrastive_stage import ContrastiveStage
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.ranks import Alone, joined, world

LATE = 900  # a step of stage two in which all kinds of documents occur


# ---------------------------------------------------------------- the stages


def contrastive_stage(inputs: Inputs) -> ContrastiveStage:
    """Stage one, with few pictures."""
    return ContrastiveStage(inputs.preset, inputs.rng(), inputs.model.tokenizer, {})


def language_stage(inputs: Inputs) -> LanguageStage:
    """Stage two."""
    return LanguageStage(inputs.preset, inputs.rng(), inputs.model.tokenizer, {})


def flamingo_stage(inputs: Inputs) -> FlamingoStage:
    """Stage three with open gates (alpha 0.5), as in the middle of training: at 0 half of the gradients would be 0."""
    stage = FlamingoStage(inputs.preset, inputs.rng(), inputs.model.tokenizer, inputs.model.frozen, inputs.media)
    for name, leaf in named_leaves(stage.optimiser.params).items():
        if "alpha" in name:
            leaf[...] = 0.5
    return stage


# ---------------------------------------------------------------- their steps


def contrastive_step(inputs: Inputs) -> Step:
    """A step of stage one."""
    stage = contrastive_stage(inputs)
    batch = stage.batch(inputs.rng())
    gradient_of = partial(stage.loss_and_gradient, *batch)
    return Step(stage.optimiser, gradient_of, stage.clip, "contrastive_loss", contrastive_batch(*batch), stage.config)


def language_step(inputs: Inputs, few: bool = False) -> Step:
    """A step of stage two. few: the twin leaves out the work for tokens without a loss, as we do."""
    stage = language_stage(inputs)
    rows = stage.batch(inputs.rng(), LATE)
    with joined(Alone()):
        batch = language_batch(*stage.batch(inputs.rng(), LATE), stage.config.width, few)
    return Step(
        stage.optimiser, partial(stage.loss_and_gradient, *rows), _no_clip, "language_loss", batch, stage.config
    )


def flamingo_step(inputs: Inputs, few: bool = False) -> Step:
    """A step of stage three. few: as in `language_step`."""
    stage = flamingo_stage(inputs)
    weights = [dataset.weight for dataset in stage.recipe.datasets]
    shards = stage.shards(inputs.rng(), stage.documents(inputs.rng()))
    with joined(Alone()):
        (whole,) = stage.shards(inputs.rng(), stage.documents(inputs.rng()))

    def gradient_of():
        losses, gradient = stage.losses_and_gradient(shards)
        return sum(weight * loss for weight, loss in zip(weights, losses.values(), strict=True)), gradient

    batch = flamingo_batch(whole, weights, stage.frozen["language"], stage.config.language.width, few)
    return Step(stage.optimiser, gradient_of, _no_clip, "flamingo_loss", batch, stage.config, ("resampler",))


def _no_clip(gradient):
    """Only stage one clips the gradient of each output unit."""


# ---------------------------------------------------------------- the opponents


def eager(inputs: Inputs, step: Step) -> Any:
    """PyTorch, if it is installed."""
    return inputs.torch and inputs.torch.TrainingStep(step)


def compiled(inputs: Inputs, step: Step) -> Any:
    """PyTorch with `torch.compile`."""
    if not inputs.torch:
        raise NotRun("PyTorch is not installed")
    return inputs.torch.TrainingStep(step, compiled=True)


def jitted(inputs: Inputs, step: Step) -> Any:
    """JAX with `jit`, on one thread. Raises `NotRun` if it is not installed."""
    if world().size > 1 or ops.workers() > 1:
        raise NotRun("JAX runs on one thread here: a process cannot change their number")
    try:
        from tinyflamingo.bench.jax_twins import TrainingStep
    except ImportError:
        raise NotRun("JAX is not installed (pip install jax)") from None
    return TrainingStep(step)


def race(step_of: Callable[[Inputs], Step], opponent: Callable[[Inputs, Step], Any]) -> Callable[[Inputs], Contest]:
    """The builder of a line: our step against that of an opponent."""

    def build(inputs):
        step = step_of(inputs)
        ours = partial(update, step)
        if world().rank > 0:
            return Contest(ours, difference=step.gradient_of)
        twin = opponent(inputs, step)
        return Contest(ours, twin.step, partial(_difference, step, twin)) if twin else Contest(ours)

    return build


def update(step: Step) -> None:
    """Our side: one update of the parameters."""
    gradient = step.gradient_of()[1]
    step.clip(gradient)
    step.optimiser.step(gradient, LATE, 2 * LATE)


def _difference(step, twin):
    """Largest difference between the losses and the gradients of both sides."""
    loss, gradient = step.gradient_of()
    twin_loss, twin_gradients = twin.loss_and_gradients()
    leaves = named_leaves(view_tree(gradient, step.optimiser.params))
    return largest([loss, *leaves.values()], [twin_loss, *(twin_gradients[name] for name in leaves)])


# ---------------------------------------------------------------- beside matrix products


def gemm_share(inputs: Inputs) -> Contest:
    """A training step, and as many flops of large square matrix products as its own products have."""
    step = partial(update, flamingo_step(inputs))
    a, products_per_worker = normal(inputs.rng(), SIDE, SIDE), gemm_flops(step) / (2 * SIDE**3) / ops.workers()

    def products(_):
        for _ in range(int(products_per_worker)):
            a @ a
        a[: int(SIDE * (products_per_worker % 1))] @ a

    return Contest(step, lambda: ops.parallel_map(products, range(ops.workers())))
