"""Image encoders of the peers as a part that `convert` reads and writes, whoever's they are.

`timm`: its NFNets and NF-ResNets. `clip`: OpenAI's image towers, with quick-GELU. `open_clip`: those
that were trained there, with GELU.

Not here: names and conventions (`timm.py`, `clip.py`).
"""

from __future__ import annotations

from tinyflamingo.errors import UserError
from tinyflamingo.interop import clip, timm
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.variants.registry import part_from_dict, part_to_dict
from tinyflamingo.variants.vit import ViTConfig

TOWERS = {"clip": "quick_gelu", "open_clip": "gelu_erf"}
ENCODERS = ("timm", *TOWERS)


def read_encoder(peer, tensors) -> tuple:
    """({our path: array}, what the JSON beside them says) of a peer's {name: array}."""
    if peer == "timm":
        config = timm.read_config(tensors)
        frozen = timm.import_encoder(tensors, config)
    else:
        config, frozen = clip.import_tower(tensors, TOWERS[peer])
    return named_leaves(frozen), {"peer": peer, "part": "vision", "config": part_to_dict("vision", config)}


def write_encoder(peer, flat, raw) -> dict:
    """A peer's {name: array} of {our path: array} and the configuration as a dictionary."""
    config = part_from_dict("vision", raw)
    if isinstance(config, ViTConfig) != (peer in TOWERS):
        kind = "a ViT" if isinstance(config, ViTConfig) else "a ResNet"
        raise UserError(f"the encoder is {kind}, which {peer} has under no name that is known here")
    frozen = from_named_leaves(flat)
    if "vision" not in frozen:
        raise UserError(f"for {peer}: no array is called vision/..., as those of an encoder are")
    if peer == "timm":
        return timm.export_encoder(frozen["vision"], config)
    if config.activation != TOWERS[peer]:
        raise UserError(f"{peer} has activation {TOWERS[peer]!r}, this encoder {config.activation!r}")
    return clip.export_tower(config, frozen)
