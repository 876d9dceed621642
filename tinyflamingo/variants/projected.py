"""A resampler with one more matrix: it projects visual tokens to another width, once for all gated blocks.

Beside chapter §3. The paper does not mention this matrix, but with it (to the width of the language model) the sizes of
the paper's models add up to the totals of its table 5 (docs/deviations.md). Not here: those sizes (`paper.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig
from tinyflamingo.model.flamingo import resample
from tinyflamingo.ops.types import Array, Params


@dataclass(frozen=True)
class ProjectedResamplerConfig(ResamplerConfig):
    """A Perceiver resampler, followed by a projection."""

    projected_width: int = 128  # width of the visual tokens that the gated blocks read

    @property
    def output_width(self) -> int:
        """Width of a visual token, which the gated blocks read."""
        return self.projected_width


def resample_and_project(params: Params, groups: list[Array], config: FlamingoConfig) -> Array:
    """Features of media, a list of arrays (m, F, S, Dv) in order, to visual tokens (M, R, projected width)."""
    return ops.linear(resample(params, groups, config), params["w_visual"])


def init_projection(rng: np.random.Generator, config: ProjectedResamplerConfig, dtype: type = np.float32) -> Params:
    """The matrix. It is in `params`, beside resampler, gated blocks and <EOC>."""
    D = config.width
    return {"w_visual": (rng.standard_normal((D, config.projected_width)) * D**-0.5).astype(dtype)}
