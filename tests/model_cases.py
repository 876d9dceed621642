"""Tiny models, and checks for several folders of tests. All widths differ, so an exchange of two is an error."""

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
from tinyflamingo.model.interleave import Sequence, make_batch
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.tree import from_named_leaves, half_precision, named_leaves
from tinyflamingo.variants.ablations import (
    AllPreviousXattnConfig,
    PlacedXattnConfig,
    UngatedXattnConfig,
    VanillaXattnConfig,
)
from tinyflamingo.variants.decoders import PublicDecoderConfig
from tinyflamingo.variants.nf_resnets import TimmConfig
from tinyflamingo.variants.plain_resamplers import MLPConfig, TransformerConfig
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig
from tinyflamingo.variants.projected import ProjectedResamplerConfig
from tinyflamingo.variants.registry import in_form, init_flamingo, init_part, parts_of, untrained
from tinyflamingo.variants.vit import ViTConfig

V = 12  # pieces of the tiny vocabulary; <EOC> is V


def tiny_config(vocab=V, **parts) -> FlamingoConfig:
    """A FlamingoConfig of a few hundred parameters.

    parts: fields to replace, such as language={"layers": 1}; "form" among them is another class of that part,
    such as xattn={"form": PlacedXattnConfig, "start": 1}.
    """
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
    changed = {}
    for name, fields in parts.items():
        part = getattr(config, name)
        changed[name] = in_form(part, **({"form": type(part)} | fields))
    return dataclasses.replace(config, **changed)


_PORT = {"form": PortXattnConfig}
_PORT_RESAMPLER = {"form": PortResamplerConfig, "places": 4}
VARIANTS = {  # every form of every part in a tiny model; the first is the chapter's
    "chapter": tiny_config(),
    "vit": tiny_config(vision={"form": ViTConfig, "patch": 4, "layers": 1, "heads": 2, "ffw_multiplier": 2}),
    "timm": tiny_config(vision={"form": TimmConfig, "stem": ((4, 2, 3),)}),
    "mlp": tiny_config(resampler={"form": MLPConfig}),
    "transformer": tiny_config(resampler={"form": TransformerConfig}),
    "port resampler": tiny_config(resampler=_PORT_RESAMPLER),
    "port resampler without frames": tiny_config(resampler=_PORT_RESAMPLER | {"frames": 0}),
    "projected": tiny_config(resampler={"form": ProjectedResamplerConfig, "projected_width": 12}),
    "every second block": tiny_config(xattn={"every": 2}),
    "placed": tiny_config(xattn={"form": PlacedXattnConfig, "start": 1, "every": 9}),
    "ungated": tiny_config(xattn={"form": UngatedXattnConfig}),
    "vanilla": tiny_config(xattn={"form": VanillaXattnConfig}),
    "vanilla, every second block": tiny_config(xattn={"form": VanillaXattnConfig, "every": 2}),
    "all previous": tiny_config(xattn={"form": AllPreviousXattnConfig}),
    "port before": tiny_config(xattn=_PORT),
    "port after": tiny_config(xattn=_PORT | {"side": "after"}),
    "port after, every second block": tiny_config(xattn=_PORT | {"side": "after", "start": 1, "every": 2}),
    **{
        family: tiny_config(language={"form": PublicDecoderConfig, "family": family})
        for family in ("gpt2", "opt", "mpt", "mosaic_gpt")
    },
    "a port, whole": tiny_config(
        vision={"form": ViTConfig, "patch": 4, "layers": 1, "heads": 2, "ffw_multiplier": 2},
        resampler=_PORT_RESAMPLER,
        language={"form": PublicDecoderConfig, "family": "opt"},
        xattn=_PORT | {"side": "after", "activation": "squared_relu"},
    ),
}


def with_vocabulary(config, size):
    """The same configuration for a tokenizer of this many pieces."""
    language, tower = (dataclasses.replace(part, vocab_size=size) for part in (config.language, config.text_tower))
    return dataclasses.replace(config, language=language, text_tower=tower)


def shake(tree, rng, scale=0.2):
    """The same tree with noise on every leaf: no gain is 1 and no bias 0 any more."""
    noisy = {n: a + (scale * rng.standard_normal(a.shape)).astype(a.dtype) for n, a in named_leaves(tree).items()}
    return from_named_leaves(noisy)


def with_gates(params, xattn, dense):
    """The same parameters with all gates set, where a block has them."""
    values, changed = {"alpha_xattn": xattn, "alpha_dense": dense}, {}
    for name, value in params.items():
        if name.startswith("xattn_"):
            dtype = value["w_q"].dtype.type
            value = value | {gate: np.array(dtype(alpha)) for gate, alpha in values.items() if gate in value}
        changed[name] = value
    return changed


def tiny(seed=0, dtype=np.float64, config=None, gates=(0.8, -0.6), shaken=True):
    """A model with everything that a forward pass needs; `generate` and `beam_search` accept it too.

    The batch: row 0 is `<BOS><image>ab<EOC><image>cd`, row 1 `<BOS>abc<EOC><image>de`; three media.
    phi (2, 8): numbered over the batch; visible: the argument `phi` of the gated blocks of this configuration.
    """
    rng = np.random.default_rng(seed)
    config = config or tiny_config()
    parts = parts_of(config)
    params = init_flamingo(rng, config, dtype)
    frozen = {"language": init_part(rng, config.language, dtype)}
    if shaken:
        params, frozen = shake(params, rng), shake(frozen, rng)
    params = with_gates(params, *gates)
    eoc = config.language.vocab_size
    rows = [[BOS, IMAGE, 6, 5, eoc, IMAGE, 6, 2], [BOS, 5, 6, 3, eoc, IMAGE, 5, 6]]
    batch = make_batch([Sequence(row, [1.0] * 8, [None] * row.count(IMAGE)) for row in rows])
    features = rng.standard_normal((3, 2, 4, config.vision.width)).astype(dtype)
    return SimpleNamespace(
        config=config,
        parts=parts,
        params=params,
        frozen=frozen,
        tokens=batch.tokens,
        phi=batch.phi,
        visible=parts.visible(batch),
        features=features,
        visual=parts.resample(params, [features], config),
        eoc=eoc,
    )


def shaken_flamingo(tokenizer, config=None):
    """A whole model: fresh weights with noise, open gates, frozen parts in half precision."""
    rng = np.random.default_rng(0)
    model = untrained(rng, config or tiny_config(vocab=len(tokenizer)), tokenizer)
    model.params = with_gates(shake(model.params, rng), 0.7, 0.4)
    model.frozen = half_precision(shake(model.frozen, rng))
    return model


def check_tree(function, tree, *arrays, directions=1, tol=1e-6):
    """`ops.check_grad` of function(tree, *arrays) for every leaf of the tree and every array."""
    leaves = named_leaves(tree)

    def of_leaves(*args):
        rebuilt = from_named_leaves(dict(zip(leaves, args, strict=False)))
        return function(rebuilt, *args[len(leaves) :])

    ops.check_grad(of_leaves, *leaves.values(), *arrays, directions=directions, tol=tol)


def assert_float32_inside(function, tree):
    """Walk backward through *every* node of scalar function(tree); each gradient must be float32.

    This is stricter than a check of the parameters' gradients, because a cast at the end could hide an error.
    """
    roots = {}
    with trace_stack.new_trace() as trace:
        boxes = {n: new_box(a, trace, roots.setdefault(n, VJPNode.new_root())) for n, a in named_leaves(tree).items()}
        loss = function(from_named_leaves(boxes))
    assert getval(loss).dtype == np.float32
    gradients, checked = {loss._node: (vspace(getval(loss)).ones(), False)}, 0
    for node in toposort(loss._node):
        if not node.parents:
            continue
        for parent, part in zip(node.parents, node.vjp(gradients.pop(node)[0]), strict=True):
            dtype = part.vs.dtype if isinstance(part, SparseObject) else part.dtype
            assert dtype == np.float32, f"a gradient inside is {dtype}, shape {np.shape(part)}, but must be float32"
            gradients[parent] = add_outgrads(gradients.get(parent), part)
            checked += 1
    assert checked > 10 and all(root in gradients for root in roots.values())
