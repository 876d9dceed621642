"""Features of the frozen encoder for a store of the user's own data, computed once and kept on disk.

Chapter §2: a frozen encoder needs to see every picture only once. The name of the file contains a key: a
hash of everything that determines the features. These are the encoder's weights, the constants that
standardise its features, the store's texts and pixels, and the version of their preprocessing. If one of
them changes, a new file is made.

Not here: the store itself (`data/store.py`), features of TinyWorld, which stay in memory.
"""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyflamingo.data.store import FEATURES, PREPROCESSING, Store, Stored
from tinyflamingo.files import replacing
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import encode_media
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.ranks import world
from tinyflamingo.variants.registry import parts_of

CHUNK = 256  # frames encoded at a time


def features_key(frozen: Params, store: Store) -> str:
    """The key of the features that this encoder gives for this store."""
    key = hashlib.sha256(f"{PREPROCESSING} {store.side} {store.fingerprint}".encode())
    encoder = {name: frozen[name] for name in ("vision", "feature_mean", "feature_scale")}
    for name, leaf in named_leaves(encoder).items():
        key.update(f"{name} {leaf.shape}".encode() + np.ascontiguousarray(leaf, np.float32).tobytes())
    return key.hexdigest()[:16]


class StoredFeatures:
    """Features of every frame of a store, float16 on disk: (frames, S, Dv)."""

    def __init__(self, frozen: Params, store: Store, config: FlamingoConfig, folder: str | Path) -> None:
        self.firsts = store.firsts
        path = Path(folder) / FEATURES.replace("*", features_key(frozen, store))
        one = np.zeros((1, 1, store.side, store.side, 3), np.uint8)
        S, Dv = encode_media(frozen, one, config, parts_of(config)).shape[2:]
        frames = int(store.firsts[-1])
        if world().rank == 0 and not (path.exists() and path.stat().st_size == 2 * frames * S * Dv):
            for stale in path.parent.glob(FEATURES):
                stale.unlink()
            _write(path, frozen, store, config)
        world().wait()
        self.table: Array = np.memmap(path, np.float16, "r", shape=(frames, S, Dv)) if frames else None

    def group(self, medium: Stored) -> int:
        """The number of frames: media with the same number share an array."""
        return medium.frames

    def of(self, media: list[Stored]) -> list[np.ndarray]:
        """One float32 array (M, F, S, Dv) for each run of media with the same number of frames, in order."""
        return [self._run(list(run), F) for F, run in groupby(media, key=self.group)]

    def _run(self, media, F):
        first = np.array([self.firsts[m.index] + m.first for m in media])
        return np.asarray(self.table[first[:, None] + np.arange(F)], np.float32)


def _write(path, frozen, store, config):
    frames = len(store.pixels) if store.pixels is not None else 0
    with replacing(path) as file:
        for place in tqdm(range(0, frames, CHUNK), desc="features   "):
            pictures = np.asarray(store.pixels[place : place + CHUNK])[:, None]
            features = encode_media(frozen, pictures, config, parts_of(config))
            file.write(features[:, 0].astype(np.float16).tobytes())
