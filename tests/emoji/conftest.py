"""Small packages, and the smoke preset on them."""

import dataclasses

import pytest
from emoji_files import write_packages

from tinyflamingo.checkpoint import load_checkpoint, shipped_checkpoint
from tinyflamingo.emoji import packages
from tinyflamingo.training.presets import Dataset, EmojiRecipe, get_preset


@pytest.fixture(scope="package", autouse=True)
def _few():
    """Eight concepts are asked instead of 100."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "ASKED", 8)
        yield


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """A folder with packages of 40 concepts."""
    return write_packages(tmp_path_factory.mktemp("emoji"))


@pytest.fixture(scope="package")
def start():
    """The checkpoint from which a run goes on."""
    return load_checkpoint(shipped_checkpoint())


@pytest.fixture(scope="package")
def preset():
    """Three steps of each stage with the sizes of the shipped checkpoint."""
    whole, smoke = get_preset("emoji"), get_preset("smoke")
    pool = {name: getattr(smoke.flamingo, name) for name in ("singles", "uncoloured", "pairs", "counts", "clips")}
    pool |= {name: getattr(smoke.flamingo, name) for name in ("wild", "digits", "sums", "gate_batches")}
    datasets = [Dataset("emoji episodes", 3, 96, 1.0), Dataset("emoji names", 3, 24, 0.3)]
    return dataclasses.replace(
        whole,
        name="smoke-emoji",
        contrastive=dataclasses.replace(whole.contrastive, steps=3, batch=8, families=8),
        language=dataclasses.replace(whole.language, steps=3, rows=4, length=48, longer=2),
        flamingo=dataclasses.replace(whole.flamingo, steps=3, datasets=(*datasets, *smoke.flamingo.datasets), **pool),
        emoji=EmojiRecipe(concepts=6, views=2, ways=(2, 4), shots=(1, 2), queries=2),
        test_queries=8,
        save_every=2,
    )
