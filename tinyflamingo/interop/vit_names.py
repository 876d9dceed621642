"""Names of CLIP's image tower as `open_clip` writes them, and how CLIP prepares pictures (chapter §2).

CLIP's convolution over patches is our matrix with its axes in another order. Not here: the encoder
(`variants/vit.py`).
"""

from __future__ import annotations

from tinyflamingo.data.preparation import CLIP
from tinyflamingo.errors import UserError
from tinyflamingo.interop.names import Row, norm_rows, prefixed
from tinyflamingo.interop.peers import layers
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.vit import ViTConfig

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures, in 0..1, for each channel
SPREAD = (0.26862954, 0.26130258, 0.27577711)  # their standard deviation
PIXELS = tuple(tuple(255 * n for n in part) for part in (MEAN, SPREAD))  # for `ViTConfig.pixels`
HEAD_SIZE = 64  # in all towers of CLIP


def vit_rows(
    config: ViTConfig, joint_width: int | None = None, theirs: str = "visual.", ours: str = "vision/"
) -> list[Row]:
    """The table of an image tower. joint_width: the width of its projection, which Flamingo does not use."""
    D, hidden = config.width, config.ffw_multiplier * config.width
    rows = [
        Row("class_embedding", ("class_token",), (D,)),
        Row("positional_embedding", ("positions",), (1 + config.grid**2, D)),
        Row("conv1.weight", ("w_patch",), (D, 3, config.patch, config.patch), "patch"),
        *norm_rows("ln_pre", "first", D),
    ]
    for i in range(config.layers):
        rows += prefixed(_block_rows(D, hidden), f"transformer.resblocks.{i}.", f"block_{i}/")
    rows = prefixed(rows + norm_rows("ln_post", "final", D), theirs, ours)
    if joint_width:
        rows.append(Row(f"{theirs}proj", ("contrastive/picture_projection",), (D, joint_width)))
    return rows


def _block_rows(D, hidden):
    return [
        *norm_rows("ln_1", "attn", D),
        Row("attn.in_proj_weight", ("w_q", "w_k", "w_v"), (3 * D, D), "linear"),
        Row("attn.in_proj_bias", ("b_q", "b_k", "b_v"), (3 * D,)),
        Row("attn.out_proj.weight", ("w_o",), (D, D), "linear"),
        Row("attn.out_proj.bias", ("b_o",), (D,)),
        *norm_rows("ln_2", "ffw", D),
        Row("mlp.c_fc.weight", ("w_1",), (hidden, D), "linear"),
        Row("mlp.c_fc.bias", ("b_1",), (hidden,)),
        Row("mlp.c_proj.weight", ("w_2",), (D, hidden), "linear"),
        Row("mlp.c_proj.bias", ("b_2",), (D,)),
    ]


def vit_config(
    tensors: Params, theirs: str = "visual.", activation: str = "quick_gelu", norm_features: bool = False
) -> ViTConfig:
    """The sizes of a tower from its {name: array}. activation: OpenAI's towers have quick-GELU.

    norm_features: whether the features come after the final norm. OpenFlamingo was trained with features
    before it; releases of `open_clip` since 2024 give features after it, unless `final_ln_after_pool` is set.
    """
    wanted = ("conv1.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight")
    missing = [theirs + name for name in wanted if theirs + name not in tensors]
    if missing:
        raise UserError(f"{missing[0]} is missing: does the file hold CLIP's image tower in open_clip's names?")
    (width, _, patch, _), (places, _), (hidden, _) = (tensors[theirs + name].shape for name in wanted)
    return ViTConfig(
        patch=patch,
        width=width,
        layers=layers(tensors, rf"{theirs}transformer\.resblocks\.(\d+)\."),
        heads=width // HEAD_SIZE,
        ffw_multiplier=hidden // width,
        side=patch * round((places - 1) ** 0.5),
        activation=activation,
        norm_features=norm_features,
        pixels=PIXELS,
        preparation=CLIP,
    )
