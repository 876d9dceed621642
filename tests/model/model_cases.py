"""Tiny models and the checks that all files here share. Widths differ, so that no two can be confused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
from autograd.core import SparseObject, VJPNode, add_outgrads
from autograd.extend import vspace
from autograd.tracer import getval, new_box, toposort, trace_stack

from tinyflamingo import ops
from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    TextTowerConfig,
    VisionConfig,
    XattnConfig,
)
from tinyflamingo.model.flamingo import init_flamingo, see
from tinyflamingo.model.interleave import phi
from tinyflamingo.model.language_model import init_language_model
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.tree import from_named_leaves, named_leaves

V = 12  # pieces of the tiny vocabulary; <EOC> is V


def tiny_config(vocab=V, **parts) -> FlamingoConfig:
    """A FlamingoConfig of a few hundred parameters; parts replace fields: language={"layers": 1}."""
    config = FlamingoConfig(
        vision=VisionConfig(stem=((4, 2),), stages=((8, 1, 1), (8, 2, 2)), group_size=2, width=8, side=8),
        text_tower=TextTowerConfig(vocab_size=vocab, width=10, layers=1, heads=2, context=10, joint_width=6),
        resampler=ResamplerConfig(
            input_width=8, width=8, layers=2, heads=2, key_size=3, latents=3, frames=4, ffw_multiplier=2
        ),
        language=LanguageConfig(
            vocab_size=vocab, width=12, layers=3, heads=3, key_size=4, ffw_multiplier=2, context=64
        ),
        xattn=XattnConfig(heads=2, key_size=5, ffw_multiplier=2),
    )
    changed = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in parts.items()}
    return dataclasses.replace(config, **changed)


def shake(tree, rng, scale=0.2):
    """The same tree with noise on every leaf: no gain is 1 and no bias 0 any more."""
    noisy = {n: a + (scale * rng.standard_normal(a.shape)).astype(a.dtype) for n, a in named_leaves(tree).items()}
    return from_named_leaves(noisy)


def with_gates(params, xattn, dense):
    """The same parameters with every pair of gates set."""
    changed = {}
    for name, value in params.items():
        if name.startswith("xattn_"):
            dtype = value["w_q"].dtype.type
            value = value | {"alpha_xattn": np.array(dtype(xattn)), "alpha_dense": np.array(dtype(dense))}
        changed[name] = value
    return changed


def tiny(seed=0, dtype=np.float64, config=None, gates=(0.8, -0.6), shaken=True):
    """A model with everything that a forward pass needs.

    The batch: row 0 is `<BOS><image>ab<EOC><image>cd`, row 1 `<BOS>abc<EOC><image>de`; three media.
    """
    rng = np.random.default_rng(seed)
    config = config or tiny_config()
    params = init_flamingo(rng, config, dtype)
    frozen = {"language": init_language_model(rng, config.language, dtype)}
    if shaken:
        params, frozen = shake(params, rng), shake(frozen, rng)
    params = with_gates(params, *gates)
    eoc = config.language.vocab_size
    tokens = np.array([[BOS, IMAGE, 6, 5, eoc, IMAGE, 6, 2], [BOS, 5, 6, 3, eoc, IMAGE, 5, 6]])
    numbers = phi(tokens)
    numbers[1][numbers[1] > 0] += 2
    first = np.repeat([[1], [3]], tokens.shape[1], axis=1)
    features = rng.standard_normal((3, 2, 4, config.vision.width)).astype(dtype)
    return SimpleNamespace(
        config=config,
        params=params,
        frozen=frozen,
        tokens=tokens,
        phi=numbers,
        first=first,
        features=features,
        visual=see(params, features, config),
        eoc=eoc,
    )


def check_tree(function, tree, *arrays, directions=1, tol=1e-6):
    """`ops.check_grad` of function(tree, *arrays) for every leaf of the tree and every array."""
    leaves = named_leaves(tree)

    def of_leaves(*args):
        rebuilt = from_named_leaves(dict(zip(leaves, args, strict=False)))
        return function(rebuilt, *args[len(leaves) :])

    ops.check_grad(of_leaves, *leaves.values(), *arrays, directions=directions, tol=tol)


def assert_float32_inside(function, tree):
    """Walk backward through *every* node of scalar function(tree); each gradient must be float32.

    Stricter than looking at the gradients of the parameters, which a cast at the end could hide.
    """
    roots = {}
    with trace_stack.new_trace() as trace:
        boxes = {n: new_box(a, trace, roots.setdefault(n, VJPNode.new_root())) for n, a in named_leaves(tree).items()}
        loss = function(from_named_leaves(boxes))
    assert getval(loss).dtype == np.float32
    found, checked = {loss._node: (vspace(getval(loss)).ones(), False)}, 0
    for node in toposort(loss._node):
        if not node.parents:
            continue
        for parent, share in zip(node.parents, node.vjp(found.pop(node)[0]), strict=True):
            dtype = share.vs.dtype if isinstance(share, SparseObject) else share.dtype
            assert dtype == np.float32, f"a gradient of {dtype}, shape {np.shape(share)}, passes inside"
            found[parent] = add_outgrads(found.get(parent), share)
            checked += 1
    assert checked > 10 and all(root in found for root in roots.values())
