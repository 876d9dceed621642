"""Pictures as `open_clip`, timm and flamingo-mini prepare them, and the preparation in an encoder's configuration."""

import dataclasses
import json

import numpy as np
import parity_pictures
import pytest
from preparation_cases import KINDS, picture

from tinyflamingo.data.images import load_picture, prepare_picture
from tinyflamingo.data.preparation import CLIP, Preparation
from tinyflamingo.interop import timm
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.own_data.options import OwnData, prepare_store
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import part_from_dict, part_to_dict
from tinyflamingo.variants.vit import ViTConfig


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_pictures_of_open_clip(kind):
    pytest.importorskip("open_clip")
    assert parity_pictures.open_clip(kinds=[kind]) == 0


@pytest.mark.parametrize("name", timm.MODELS)
def test_pictures_of_timm(name):
    pytest.importorskip("timm")
    assert parity_pictures.timm_models(names=[name]) == 0


@pytest.mark.parametrize("size", [(240, 70), (70, 240), (5, 5)])
def test_pictures_of_flamingo_mini(size):
    """Its processor is that of `transformers`, which rounds otherwise. Where an odd number of rows or columns is cut
    off, it takes the middle one row or column further; these sizes have none."""
    transformers, _ = pytest.importorskip("transformers"), pytest.importorskip("torchvision")
    rgb = picture("RGB", "wide")[1].resize(size)
    processor = transformers.CLIPImageProcessor(do_normalize=False)
    theirs = processor(rgb, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0) * 255
    assert np.abs(prepare_picture(np.asarray(rgb), 224, CLIP) - theirs).max() <= 3


# ---------------------------------------------------------------- the configuration


def test_training_on_own_data_prepares_as_the_encoder_needs(tmp_path):
    (tmp_path / "data").mkdir()
    picture("RGB", "tall")[0].save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "captions.jsonl").write_text('{"file": "a.png", "text": "waves"}\n')
    preset = get_preset("smoke")
    vit = ViTConfig(width=preset.config.vision.width, preparation=CLIP)
    preset = dataclasses.replace(preset, config=dataclasses.replace(preset.config, vision=vit))
    store = prepare_store(OwnData(str(tmp_path / "data")), preset.config.vision, tmp_path / "run")
    np.testing.assert_array_equal(store.pixels[0], load_picture(tmp_path / "data" / "a.png", 32, CLIP))
    assert np.abs(store.pixels[0].astype(int) - load_picture(tmp_path / "data" / "a.png", 32)).mean() > 5


def test_the_card_keeps_the_preparation_and_the_chapter_has_its_own():
    config = ViTConfig(preparation=Preparation("squash", "bicubic", 0.9))
    raw = json.loads(json.dumps(part_to_dict("vision", config)))
    assert part_from_dict("vision", raw) == config
    assert "preparation" not in part_to_dict("vision", FlamingoConfig().vision)
    assert FlamingoConfig().vision.preparation == Preparation("pad", "area", 1.0)
