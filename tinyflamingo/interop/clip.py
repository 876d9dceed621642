"""The image tower in a file of CLIP (OpenAI's or `open_clip`'s, which have the same names; chapter §2).

A whole file also holds a text tower. Flamingo does not use it, so it is left out. The tower's projection
becomes that of the contrastive head, so the joint space is the one of CLIP.

Not here: the names (`vit_names.py`), the encoder (`variants/vit.py`), CLIP's ResNets.
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.interop.names import export_arrays, import_arrays
from tinyflamingo.interop.vit_names import vit_config, vit_rows
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.vit import ViTConfig

TOWER = "visual."


def import_tower(
    tensors: Params, activation: str = "quick_gelu", norm_features: bool = True
) -> tuple[ViTConfig, Params]:
    """(configuration, {"vision", "picture_projection", "feature_mean", "feature_scale"}) from {name: array}.

    activation: "quick_gelu" for OpenAI's weights, "gelu_erf" for most weights of `open_clip`. Raises
    `UserError` with the names of tensors that are unknown, missing or of another shape.
    """
    config = vit_config(tensors, TOWER, activation, norm_features)
    visual = {name: array for name, array in tensors.items() if name.startswith(TOWER)}
    joint = visual[f"{TOWER}proj"].shape[-1] if f"{TOWER}proj" in visual else None
    tree = import_arrays(vit_rows(config, joint), visual, "CLIP")
    dtype = tree["vision"]["w_patch"].dtype
    frozen = {"feature_mean": np.zeros(config.width, dtype), "feature_scale": np.ones(config.width, dtype)}
    return config, {"vision": tree["vision"]} | tree.get("contrastive", {}) | frozen


def export_tower(config: ViTConfig, frozen: Params) -> Params:
    """{name: array} for CLIP's own code: the tower, and the projection if there is one."""
    projection = frozen.get("picture_projection")
    tree = {"vision": frozen["vision"]}
    if projection is not None:
        tree["contrastive"] = {"picture_projection": projection}
    return export_arrays(vit_rows(config, None if projection is None else projection.shape[1]), tree, "CLIP")
