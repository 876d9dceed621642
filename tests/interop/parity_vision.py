"""The largest difference between our image encoders and the peers' encoders on random weights.

The method is that of `parity_parts.py`. Here: timm's NFNets and NF-ResNets, and the image tower of `open_clip`,
which is that of OpenAI's CLIP. Sizes are small, names are the real ones.
"""

from __future__ import annotations

import importlib

import numpy as np
from parity_parts import arrays_of, randomise

from tinyflamingo.interop import names, timm, vit_names
from tinyflamingo.variants.nf_resnets import TimmConfig, timm_encoder
from tinyflamingo.variants.vit import vit

SIZES = {"depths": (1, 2, 1, 1), "channels": (32, 64, 96, 96), "stem_chs": 16}  # timm rounds widths to multiples of 8
STAGES = ((32, 1, 1), (64, 2, 2), (96, 1, 2), (96, 1, 2))


def small(name) -> tuple:
    """(timm's model of a name in a small size, our configuration of it)."""
    create = importlib.import_module("timm").create_model
    if name == "nf_resnet50":
        theirs = create(name, num_classes=0, **SIZES)
        return theirs, TimmConfig(
            stem=((16, 2, 7),), stages=STAGES, bottleneck=0.25, group_size=512, width=96, **timm.RESNET
        )
    theirs = create(name, num_classes=0, group_size=8, num_features=48, **SIZES)
    stem, conventions = ((2, 2, 3), (4, 1, 3), (8, 1, 3), (16, 2, 3)), timm.DM if name.startswith("dm_") else timm.OWN
    return theirs, TimmConfig(stem=stem, stages=STAGES, group_size=8, width=48, **conventions)


def encoder(name, dtype, size=(43, 64)) -> float:
    """Largest difference of the features of one of timm's models, at a size that is not a multiple of the strides."""
    torch = importlib.import_module("torch")
    theirs, config = small(name)
    theirs = randomise(theirs.to(getattr(torch, np.dtype(dtype).name)), torch)
    x = np.random.default_rng(1).standard_normal((2, *size, 3)).astype(dtype)
    with torch.no_grad():
        want = theirs.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    frozen = timm.import_encoder(arrays_of(theirs), config)
    features = timm_encoder(frozen["vision"], x, config)
    got = (features - frozen["feature_mean"]) * frozen["feature_scale"]
    return largest(got, want.transpose(0, 2, 3, 1).reshape(got.shape))


def tower(activation, norm_features, dtype) -> tuple:
    """Largest differences of a CLIP tower's pooled vector, through its projection, and of its patches' features."""
    torch = importlib.import_module("torch")
    module = importlib.import_module("open_clip.transformer")
    act = {"quick_gelu": module.QuickGELU, "gelu_erf": torch.nn.GELU}[activation]
    more = {"output_tokens": True, "final_ln_after_pool": not norm_features}
    theirs = module.VisionTransformer(24, 8, 128, 2, 2, 4.0, output_dim=20, act_layer=act, **more)
    theirs = randomise(theirs.to(getattr(torch, np.dtype(dtype).name)), torch)
    x = np.random.default_rng(1).standard_normal((2, 24, 24, 3)).astype(dtype)
    with torch.no_grad():
        pooled, patches = (y.numpy() for y in theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())))
    tensors = arrays_of(theirs)
    config = vit_names.vit_config(tensors, "", activation, norm_features)
    params = names.import_arrays(vit_names.vit_rows(config, 20, theirs=""), tensors, "open_clip")
    features, vector = vit(params["vision"], x, config)
    return largest(vector @ params["contrastive"]["picture_projection"], pooled), largest(features, patches)


def towers(activation, dtype) -> float:
    """The largest of `tower`'s differences, features taken before and after the final norm."""
    return max(*tower(activation, True, dtype), *tower(activation, False, dtype))


def largest(got, want) -> float:
    """Largest absolute difference, divided by the largest number if that is above 1. Shapes and dtypes must agree."""
    if got.dtype != want.dtype or got.shape != want.shape:
        raise ValueError(f"ours is {got.dtype} {got.shape}, theirs is {want.dtype} {want.shape}")
    return float(np.max(np.abs(got - want)) / max(1.0, np.max(np.abs(want))))
