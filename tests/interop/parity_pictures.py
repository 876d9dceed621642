"""The largest difference, of 255, between pictures as we and as the peers prepare them.

Files of many kinds and shapes (`preparation_cases.py`) are read with our reader; the peer's transform gets the RGB
picture that the file shows. The peers themselves lose transparency and the upper half of 16-bit greys.
"""

from __future__ import annotations

import importlib
import io

import numpy as np
from preparation_cases import KINDS, picture

from tinyflamingo.data.images import load_picture
from tinyflamingo.data.preparation import CLIP
from tinyflamingo.interop import timm


def open_clip(dtype=np.float32, kinds=KINDS) -> float:
    """For pictures of CLIP, small and of real size."""
    module = importlib.import_module("open_clip.transform")
    standard = module.OPENAI_DATASET_MEAN, module.OPENAI_DATASET_STD
    return max(_difference(module.image_transform(s, is_train=False), standard, s, CLIP, kinds) for s in (28, 224))


def timm_models(dtype=np.float32, names=timm.MODELS) -> float:
    """For pictures of timm's models."""
    package, data = importlib.import_module("timm"), importlib.import_module("timm.data")
    differences = []
    for name in names:
        raw = data.resolve_data_config(pretrained_cfg=package.models.get_pretrained_cfg(name).to_dict())
        config, transform = timm.timm_model(name), data.create_transform(**raw)
        differences.append(_difference(transform, (raw["mean"], raw["std"]), config.side, config.preparation, KINDS))
    return max(differences)


def _difference(transform, standard, side, preparation, kinds) -> float:
    mean, std = standard
    largest = 0.0
    for kind in kinds:
        image, rgb = picture(*kind)
        image.save(file := io.BytesIO(), "png")
        theirs = 255 * (transform(rgb).numpy().transpose(1, 2, 0).astype(float) * std + mean)
        largest = max(largest, np.abs(load_picture(file, side, preparation) - np.rint(theirs)).max())
    return float(largest)
