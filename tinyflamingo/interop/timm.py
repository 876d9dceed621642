"""timm's NFNets and NF-ResNets (chapter §2): names, and numbers changed so that the outputs stay the same.

`dm_nfnet_f0` to `f6` are DeepMind's networks as in DeepMind's code. timm's own networks (`nfnet_f0`,
`nf_resnet50`) apply the activation's gain to the convolution's weights instead of the activation, have no
SkipInit, and pad as PyTorch does. A convolution depends only on its standardised weights. So two
differences become exactly a change of its gain, in both directions: the place of the activation's gain,
and eps (timm adds it to the variance, we use a floor). Other differences are fields of `TimmConfig`.

Here is also how timm prepares pictures for each of them. Not here: the encoder (`variants/nf_resnets.py`),
the classifier (Flamingo has none), and timm's variants with other blocks (RegNets, "light" and "eca" NFNets).
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from tinyflamingo.data.preparation import Preparation
from tinyflamingo.errors import UserError
from tinyflamingo.interop.names import Row, export_arrays, import_arrays, prefixed
from tinyflamingo.interop.peers import layers
from tinyflamingo.model.config import VisionConfig
from tinyflamingo.model.vision_encoder import block_plan
from tinyflamingo.ops.reference import STANDARDISE_FLOOR
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.nf_resnets import ACTIVATIONS, TimmConfig
from tinyflamingo.variants.paper import NFNETS, nfnet
from tinyflamingo.variants.registry import in_form

_SKIP = "stages.0.0.skipinit_gain"  # in DeepMind's networks, not in timm's own
EPS = 1e-5  # timm adds it to the variance of a kernel's weights
SQUASH, CROP = Preparation("squash", "bicubic", 0.9), Preparation("crop", "bicubic", 0.9)
SHARES = (0.9, 0.91, 0.92, 0.94, 0.951, 0.954, 0.956)  # of the preparation for dm_nfnet_f0 to f6
DM: dict = {"odd_pixel": "end", "preparation": SQUASH}
OWN: dict = {"odd_pixel": "start", "preparation": CROP}  # the gains are folded as well, see `is_folded`
RESNET = OWN | {"activation": "relu", "se_ratio": 0, "stem_pool": True, "spatial": 1, "final": False}
NF_RESNET50 = TimmConfig(
    stem=((64, 2, 7),),
    stages=((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)),
    bottleneck=0.25,
    group_size=512,
    width=2048,
    side=256,
    **RESNET | {"preparation": CROP._replace(share=0.94)},
)
MODELS = ("nf_resnet50", *(f"{kind}nfnet_f{n}" for kind in ("dm_", "") for n in range(7)))


def timm_model(name: str) -> TimmConfig:
    """The configuration of a timm model. Raises `UserError` for a model with other blocks."""
    if name == "nf_resnet50":
        return NF_RESNET50
    match = re.fullmatch(r"(dm_)?nfnet_f([0-6])", name)
    if not match:
        raise UserError(f"timm's {name!r} is unknown: use dm_nfnet_f0 to f6, nfnet_f0 to f6, or nf_resnet50")
    n = int(match[2])
    paper = nfnet(n, NFNETS[n][0])
    stem = tuple((width, stride, 3) for width, stride in paper.stem)
    conventions = DM | {"preparation": SQUASH._replace(share=SHARES[n])} if match[1] else OWN
    return in_form(paper, TimmConfig, stem=stem, **conventions)


def read_config(tensors: Params) -> TimmConfig:
    """The configuration of such a model from its {name: array}.

    No tensor shows `side` and `preparation`. They are those of the model above with the same sizes, or else timm's
    defaults.
    """
    config = _read_sizes(tensors)
    for known in map(timm_model, MODELS):
        if known == dataclasses.replace(config, side=known.side, preparation=known.preparation):
            return known
    return config


def _read_sizes(tensors):
    stem = [a.shape for n, a in tensors.items() if re.fullmatch(r"stem\.conv\d*\.weight", n)]
    depths = [layers(tensors, rf"stages\.{s}\.(\d+)\.") for s in range(layers(tensors, r"stages\.(\d+)\."))]
    kind = RESNET if "stages.0.0.conv2b.weight" not in tensors else DM if _SKIP in tensors else OWN
    strides = (2,) if kind is RESNET else (2, 1, 1, 2)
    wanted = [f"stages.{s}.0.conv{i}.weight" for s in range(len(depths)) for i in (1, 2, 3)]
    wanted += [] if kind is RESNET else ["final_conv.weight", "stages.0.0.attn_last.fc1.weight"]
    missing = [name for name in wanted if name not in tensors] or ([] if len(stem) == len(strides) else ["stem.conv"])
    if missing or not depths:
        raise UserError(f"timm: {(missing or wanted or ['stages'])[0]} is missing: is this an NFNet or an NF-ResNet?")
    first, second, third = (
        [tensors[f"stages.{s}.0.conv{i}.weight"].shape for s in range(len(depths))] for i in (1, 2, 3)
    )
    widths = [shape[0] for shape in third]
    if kind is not RESNET:
        kind = kind | {"se_ratio": tensors["stages.0.0.attn_last.fc1.weight"].shape[0] / widths[0]}
    return TimmConfig(
        stem=tuple((shape[0], stride, shape[2]) for shape, stride in zip(stem, strides, strict=True)),
        stages=tuple(zip(widths, depths, (1, *[2] * (len(depths) - 1)), strict=True)),
        bottleneck=first[0][0] / widths[0],
        group_size=max(shape[1] for shape in second),
        width=tensors["final_conv.weight"].shape[0] if "final_conv.weight" in tensors else widths[-1],
        side=224,
        **kind,
    )


def is_folded(config: TimmConfig) -> bool:
    """Whether it is one of timm's own models, not DeepMind's. Only timm's own pad as PyTorch does."""
    return config.odd_pixel == "start"


def import_encoder(tensors: Params, config: TimmConfig) -> Params:
    """{"vision", "feature_mean", "feature_scale"} from timm's {name: array}, without a classifier.

    Raises `UserError` with the names of tensors that are unknown, missing or of another shape. If timm's
    model does not apply the gain of the last activation, the scale divides by it.
    """
    tensors = {name: array for name, array in tensors.items() if not name.startswith("head.")}
    vision = import_arrays(encoder_rows(config), tensors, "timm")
    if is_folded(config):
        for name, *_ in block_plan(config):
            vision[name]["skip_init_gain"] = np.ones((), vision["stem_0"]["w"].dtype)
    scale = 1 / ACTIVATIONS[config.activation].gain if is_folded(config) else 1.0
    dtype = vision["stem_0"]["w"].dtype
    constants = {"feature_mean": np.zeros(config.width, dtype), "feature_scale": np.full(config.width, scale, dtype)}
    return {"vision": _carried(vision, config)} | constants


def export_encoder(vision: Params, config: VisionConfig) -> Params:
    """timm's {name: array} of our encoder, without a classifier (`num_classes=0` in timm).

    The configuration must be a `TimmConfig`. timm's own models have no SkipInit: its gain folds into the
    block's last convolution, and its inverse into the input weights of squeeze-excite.
    """
    if not isinstance(config, TimmConfig):
        raise UserError("timm has other conventions than this encoder: train with TimmConfig, or convert one of timm's")
    vision = _carried(vision, config, back=True)
    if is_folded(config):
        vision |= {name: _without_skip(vision[name]) for name, *_ in block_plan(config)}
    return export_arrays(encoder_rows(config), vision, "timm")


# ---------------------------------------------------------------- numbers that fold


def _carried(vision, config, back=False):
    """The same network with our gains in place of timm's. back: with timm's gains in place of ours."""
    flat = dict(named_leaves(vision))
    plain = ("stem_0", "final") if is_folded(config) else ()  # convolutions without an activation before them
    for path in [name[: -len("/gain")] for name in flat if name.endswith("/gain")]:
        factor = _standardising(flat[f"{path}/w"]) * (ACTIVATIONS[config.activation].gain if path in plain else 1.0)
        flat[f"{path}/gain"] = _scaled(flat[f"{path}/gain"], factor, back)
    for path in [name for name in flat if name.endswith("/w_excite")]:  # in timm this activation has no gain
        flat[path] = _scaled(flat[path], 1 / ACTIVATIONS["relu"].gain, back)
    return from_named_leaves(flat)


def _scaled(array, factor, back):
    return (array / factor if back else array * factor).astype(array.dtype)


def _standardising(w):
    """Our divisor / timm's, for each output channel: sqrt(max(N Var, floor) / (N Var + N eps))."""
    rows = w.reshape(-1, w.shape[-1]).astype(np.float64)
    spread = len(rows) * rows.var(axis=0)
    return np.sqrt(np.maximum(spread, STANDARDISE_FLOOR) / (spread + len(rows) * EPS))


def _without_skip(block):
    """The block without its SkipInit gain s. s conv(x) is a convolution; squeeze-excite divides its mean by s."""
    skip = block["skip_init_gain"]
    expand = block["expand"] | {name: block["expand"][name] * skip for name in ("gain", "b")}
    block = {name: part for name, part in block.items() if name != "skip_init_gain"} | {"expand": expand}
    if "squeeze_excite" in block and skip != 0:  # the gates of a branch that is 0 have no effect
        squeeze = block["squeeze_excite"]
        block["squeeze_excite"] = squeeze | {"w_squeeze": squeeze["w_squeeze"] / skip}
    return block


# ---------------------------------------------------------------- names


def encoder_rows(config: TimmConfig) -> list[Row]:
    """The table of an encoder."""
    rows, cin = [], 3
    for i, (width, _, size) in enumerate(config.stem):
        name = f"stem.conv{i + 1}" if len(config.stem) > 1 else "stem.conv"
        rows += _conv_rows(name, f"stem_{i}", size, cin, width)
        cin = width
    for name, width, _, transition, _ in block_plan(config):
        _, stage, _, block = name.split("_")
        rows += prefixed(_block_rows(config, cin, width, transition), f"stages.{stage}.{block}.", f"{name}/")
        cin = width
    return rows + (_conv_rows("final_conv", "final", 1, cin, config.width) if config.final else [])


def _block_rows(config, cin, width, transition):
    inner = int(width * config.bottleneck)
    group = min(config.group_size, inner)
    rows = _conv_rows("downsample.conv", "shortcut", 1, cin, width) if transition else []
    rows += _conv_rows("conv1", "reduce", 1, cin, inner)
    for i in range(config.spatial):
        rows += _conv_rows("conv2b" if i else "conv2", f"spatial_{i}", 3, group, inner)
    rows += _conv_rows("conv3", "expand", 1, inner, width)
    if config.se_ratio:
        hidden = int(width * config.se_ratio)
        for theirs, ours, shape in (("fc1", "squeeze", (hidden, width)), ("fc2", "excite", (width, hidden))):
            own = "squeeze_excite/"
            rows.append(Row(f"attn_last.{theirs}.weight", (f"{own}w_{ours}",), (*shape, 1, 1), "pixel"))
            rows.append(Row(f"attn_last.{theirs}.bias", (f"{own}b_{ours}",), shape[:1]))
    return rows + ([] if is_folded(config) else [Row("skipinit_gain", ("skip_init_gain",), ())])


def _conv_rows(theirs, ours, size, cin, cout):
    return [
        Row(f"{theirs}.weight", (f"{ours}/w",), (cout, cin, size, size), "conv"),
        Row(f"{theirs}.bias", (f"{ours}/b",), (cout,)),
        Row(f"{theirs}.gain", (f"{ours}/gain",), (cout, 1, 1, 1), "channel"),
    ]
