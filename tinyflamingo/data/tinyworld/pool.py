"""A pool of drawn pictures and videos from which documents choose their media.

Serves the training stages and the tests of chapters §2 to §5: drawing and encoding once, using
often. Pools for training, validation and testing come from different seeds (`split_rng`).

Not here: the documents (`pages.py`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from tinyflamingo.data.tinyworld.scenes import (
    KNOWN,
    SIDE,
    WILD_THINGS,
    WRITTEN,
    draw_clip,
    draw_scene,
    sample_clip,
    sample_count,
    sample_digit,
    sample_pair,
    sample_single,
    sample_sum,
    sample_uncoloured,
    sample_wild,
)

SPLITS = {"train": 1, "validation": 2, "test": 3}


def split_rng(split, *numbers):
    """A Generator for a split; different splits never share a seed, whatever the numbers."""
    return np.random.default_rng([SPLITS[split], *numbers])


@dataclass(frozen=True)
class Medium:
    """A reference into a pool: kind "picture" or "clip", and its index."""

    kind: str
    index: int


@dataclass
class Pool:
    """Scenes and clips with their pixels.

    pictures: uint8 (n, side, side, 3) of `scenes`; videos: uint8 (m, F, side, side, 3) of `clips`.
    """

    scenes: list = field(default_factory=list)
    clips: list = field(default_factory=list)
    pictures: np.ndarray | None = None
    videos: np.ndarray | None = None
    by_kind: dict = field(default_factory=lambda: defaultdict(list))  # "single" ... -> indices
    by_thing: dict = field(default_factory=lambda: defaultdict(list))  # (shape, colour) -> pictures of it alone

    def what(self, medium: Medium):
        """The `Scene` or `Clip` behind a medium."""
        return (self.scenes if medium.kind == "picture" else self.clips)[medium.index]

    def any_picture(self, rng, kind=None) -> Medium:
        """A random picture, of one kind of scene if asked."""
        indices = self.by_kind[kind] if kind else range(len(self.scenes))
        return Medium("picture", int(indices[int(rng.integers(len(indices)))]))

    def picture_of(self, rng, thing) -> Medium:
        """A random single picture of a (shape, colour)."""
        indices = self.by_thing[thing]
        return Medium("picture", indices[int(rng.integers(len(indices)))])

    def any_clip(self, rng) -> Medium:
        """A random clip."""
        return Medium("clip", int(rng.integers(len(self.clips))))


def make_pool(
    rng, singles=0, pairs=0, counts=0, clips=0, uncoloured=0, wild=0, digits=0, sums=0, things=KNOWN, side=SIDE
) -> Pool:
    """Sample and draw. What stands alone goes round all there is of its kind, so that each has its pictures."""
    scenes = [sample_single(rng, (things[i % len(things)],)) for i in range(singles)]
    scenes += [sample_wild(rng, (WILD_THINGS[i % len(WILD_THINGS)],)) for i in range(wild)]
    scenes += [sample_digit(rng, (WRITTEN[i % len(WRITTEN)],)) for i in range(digits)]
    scenes += [sample_sum(rng) for _ in range(sums)]
    scenes += [sample_uncoloured(rng) for _ in range(uncoloured)]
    scenes += [sample_pair(rng, things) for _ in range(pairs)]
    scenes += [sample_count(rng, things) for _ in range(counts)]
    return draw_pool(rng, scenes, [sample_clip(rng, things) for _ in range(clips)], side)


def draw_pool(rng, scenes, clips=(), side=SIDE) -> Pool:
    """A pool of given scenes and clips."""
    pool = Pool(list(scenes), list(clips))
    for i, scene in enumerate(pool.scenes):
        uncoloured = scene.kind == "single" and not scene.things[0].colour
        pool.by_kind["uncoloured" if uncoloured else scene.kind].append(i)
        if scene.kind in ("single", "wild", "digit") and not uncoloured:
            pool.by_thing[scene.things[0].kind].append(i)
    if pool.scenes:
        pool.pictures = np.stack([draw_scene(rng, scene, side) for scene in pool.scenes])
    if pool.clips:
        pool.videos = np.stack([draw_clip(rng, clip, side=side) for clip in pool.clips])
    return pool
