"""Which image encoder: the NF-ResNet (Flamingo's) or the ViT (CLIP's), as the configuration says.

Chapter §2. Whoever needs features or a picture's vector asks here and never knows which it was.
Not here: the encoders themselves (`model/vision_encoder.py`, `model/vit.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo.model.config import ViTConfig
from tinyflamingo.model.vision_encoder import init_vision_encoder, vision_encoder
from tinyflamingo.model.vit import init_vit, vit


def encode_pictures(params, pictures, config):
    """Pictures (B, Y, X, 3), floats from `normalise_pixels`: features (B, S, Dv) for the resampler,
    and one vector a picture (B, Dv) for the contrastive head. config: `VisionConfig` or `ViTConfig`.

    The ResNet's vector is the mean of its features (paper, appendix B.1.3).
    """
    if isinstance(config, ViTConfig):
        return vit(params, pictures, config)
    features = vision_encoder(params, pictures, config)
    return features, np.sum(features, axis=1) * features.dtype.type(1.0 / features.shape[1])


def init_encoder(rng, config, dtype=np.float32):
    """Parameters of the encoder that `config` means."""
    init = init_vit if isinstance(config, ViTConfig) else init_vision_encoder
    return init(rng, config, dtype)
