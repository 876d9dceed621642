"""Visual tokens that one more matrix brings to the language model's width, once for all gated blocks.

Beside chapter §3. With it the sizes of the paper's models add up to the totals of its table 5; the paper does not
mention it (docs/deviations.md). Not here: those sizes (`paper.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig
from tinyflamingo.model.flamingo import resample


@dataclass(frozen=True)
class ProjectedResamplerConfig(ResamplerConfig):
    """A Perceiver resampler with a projection behind it."""

    projected_width: int = 128  # width of the visual tokens that the gated blocks read

    @property
    def output_width(self) -> int:
        """Width of a visual token, which the gated blocks read."""
        return self.projected_width


def resample_and_project(params, groups, config: FlamingoConfig):
    """Features of media, a list of arrays (m, F, S, Dv) in order, to visual tokens (M, R, projected width)."""
    return ops.linear(resample(params, groups, config), params["w_visual"])


def init_projection(rng, config: ProjectedResamplerConfig, dtype=np.float32) -> dict:
    """What `params` holds besides resampler, gated blocks and <EOC>."""
    D = config.width
    return {"w_visual": (rng.standard_normal((D, config.projected_width)) * D**-0.5).astype(dtype)}
