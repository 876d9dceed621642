"""The image tower of a file of CLIP's, OpenAI's or `open_clip`'s: both write the same names.

A whole file holds a text tower too, which Flamingo throws away; it is left out. The tower's projection
becomes the contrastive head's, so pictures stand where CLIP puts them.

Not here: the names (`vit_names.py`), the encoder (`variants/vit.py`), CLIP's ResNets.
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.interop.names import export_arrays, import_arrays
from tinyflamingo.interop.vit_names import vit_config, vit_rows
from tinyflamingo.variants.vit import ViTConfig

TOWER = "visual."


def import_tower(tensors, activation="quick_gelu", norm_features=True) -> tuple:
    """(configuration, {"vision", "picture_projection", "feature_mean", "feature_scale"}) of {name: array}.

    activation: "quick_gelu" for OpenAI's weights, "gelu_erf" for most that were trained with
    `open_clip`. Raises `UserError` with names for tensors that are unknown, missing or of another shape.
    """
    config = vit_config(tensors, TOWER, activation, norm_features)
    visual = {name: array for name, array in tensors.items() if name.startswith(TOWER)}
    joint = visual[f"{TOWER}proj"].shape[-1] if f"{TOWER}proj" in visual else None
    tree = import_arrays(vit_rows(config, joint), visual, "CLIP")
    dtype = tree["vision"]["w_patch"].dtype
    frozen = {"feature_mean": np.zeros(config.width, dtype), "feature_scale": np.ones(config.width, dtype)}
    return config, {"vision": tree["vision"]} | tree.get("contrastive", {}) | frozen


def export_tower(config: ViTConfig, frozen) -> dict:
    """{name: array} as CLIP's own code loads it: of the tower, and of the projection if there is one."""
    projection = frozen.get("picture_projection")
    tree = {"vision": frozen["vision"]}
    if projection is not None:
        tree["contrastive"] = {"picture_projection": projection}
    return export_arrays(vit_rows(config, None if projection is None else projection.shape[1]), tree, "CLIP")
