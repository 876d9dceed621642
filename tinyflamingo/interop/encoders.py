"""The peers' image encoders (chapter §2) as a part that `convert` reads and writes.

`timm`: its NFNets and NF-ResNets. `clip`: OpenAI's image towers, with quick-GELU. `open_clip`: towers
trained with `open_clip`, with GELU.

Not here: names and conventions (`timm.py`, `clip.py`).
"""

from __future__ import annotations

from tinyflamingo.errors import UserError
from tinyflamingo.interop import clip, timm
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.nf_resnets import TimmConfig
from tinyflamingo.variants.registry import part_from_dict, part_to_dict
from tinyflamingo.variants.vit import ViTConfig

TOWERS = {"clip": "quick_gelu", "open_clip": "gelu_erf"}
ENCODERS = ("timm", *TOWERS)


def read_encoder(peer: str, tensors: Params) -> tuple[Params, dict]:
    """({our path: array}, the content of the JSON beside them) from a peer's {name: array}."""
    config: TimmConfig | ViTConfig
    if peer == "timm":
        config = timm.read_config(tensors)
        frozen = timm.import_encoder(tensors, config)
    else:
        config, frozen = clip.import_tower(tensors, TOWERS[peer])
    return named_leaves(frozen), {"peer": peer, "part": "vision", "config": part_to_dict("vision", config)}


def write_encoder(peer: str, flat: Params, raw: dict) -> Params:
    """A peer's {name: array} from {our path: array} and the configuration as a dictionary."""
    config = part_from_dict("vision", raw)
    if isinstance(config, ViTConfig) != (peer in TOWERS):
        kind = "a ViT" if isinstance(config, ViTConfig) else "a ResNet"
        raise UserError(f"the encoder is {kind}, which cannot be converted to {peer}")
    frozen = from_named_leaves(flat)
    if "vision" not in frozen:
        raise UserError(f"for {peer}: no array has a name that begins with vision/, so this is not an encoder")
    if peer == "timm":
        return timm.export_encoder(frozen["vision"], config)
    if config.activation != TOWERS[peer]:
        raise UserError(f"{peer} has activation {TOWERS[peer]!r}, this encoder {config.activation!r}")
    return clip.export_tower(config, frozen)
