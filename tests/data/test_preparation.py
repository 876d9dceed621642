"""Preparations: Pillow's filters and the centre crop written out, on files of every kind, for every reader."""

import numpy as np
import pytest
from own_files import lines
from PIL import Image
from preparation_cases import KINDS, picture

from tinyflamingo.data.images import load_picture, prepare_picture
from tinyflamingo.data.preparation import CLIP, PAD_TO_SQUARE, Preparation, fit_square, require_preparation
from tinyflamingo.data.store import Stored, prepare
from tinyflamingo.data.video import load_video, write_video
from tinyflamingo.errors import UserError

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def centre(image, side):
    left, top = (round((length - side) / 2) for length in image.size)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def cropped(rgb, side, resized, kernel=BICUBIC):
    """The short side is resized to `resized` pixels, then the centre is cut out."""
    width, height = rgb.size
    size = (resized, resized * height // width) if width < height else (resized * width // height, resized)
    return centre(rgb.resize(size, kernel), side)


@pytest.mark.parametrize("mode, size", KINDS)
def test_files_of_every_kind_as_pillow_resizes_and_crops_them(tmp_path, mode, size):
    image, rgb = picture(mode, size)
    image.save(path := tmp_path / "a.png")
    np.testing.assert_array_equal(load_picture(path, 32, CLIP), cropped(rgb, 32, 32))
    np.testing.assert_array_equal(load_picture(path, 32, Preparation("crop", "bicubic", 0.94)), cropped(rgb, 32, 34))
    bilinear = Preparation("crop", "bilinear", 0.875)
    np.testing.assert_array_equal(load_picture(path, 28, bilinear), cropped(rgb, 28, 32, BILINEAR))
    squashed = centre(rgb.resize((35, 35), BICUBIC), 32)
    np.testing.assert_array_equal(load_picture(path, 32, Preparation("squash", "bicubic", 0.9)), squashed)
    np.testing.assert_array_equal(load_picture(path, 32), load_picture(path, 32, PAD_TO_SQUARE))


def test_a_picture_of_the_size_of_clip_does_not_change(rng):
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(prepare_picture(noise, 32, CLIP), noise)


@pytest.mark.parametrize("size", [(3_000_001, 1), (1, 3_000_001), (2, 900_000)])
def test_a_very_long_picture_is_cut_before_it_is_resized(size):
    """A resized copy of the whole would have 10 to 150 thousand million pixels."""
    image = Image.new("RGB", size, "red")
    middle = [length // 2 for length in size]
    image.paste((0, 0, 255), tuple(max(0, m - 300) for m in middle) + tuple(m + 300 for m in middle))
    assert (fit_square(image, 224, CLIP) == (0, 0, 255)).all()


def test_frames_of_a_video_and_media_of_a_store(tmp_path):
    """Red at both ends, blue in the middle: the crop shows no red, the padded picture does."""
    frames = np.full((2, 64, 256, 3), (220, 30, 40), np.uint8)
    frames[:, :, 64:192] = (30, 60, 220)
    write_video(tmp_path / "a.mp4", frames)
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    lines(tmp_path / "captions.jsonl", [{"file": name, "text": "blue"} for name in ("a.mp4", "a.png")])
    store = prepare(tmp_path, tmp_path / "run" / "store", 16, preparation=CLIP)
    clip, still = (store.frames(Stored(i, n)) for i, n in ((0, 2), (1, 1)))
    np.testing.assert_array_equal(clip, load_video(tmp_path / "a.mp4", 16, preparation=CLIP))
    np.testing.assert_array_equal(still[0], load_picture(tmp_path / "a.png", 16, CLIP))
    for pixels in (clip, still):
        assert np.abs(pixels.astype(int) - (30, 60, 220)).max() < 30
    assert load_video(tmp_path / "a.mp4", 16)[0, 8, 1, 0] > 180


@pytest.mark.parametrize(
    "preparation",
    [None, "crop", (), ("crop", "bicubic"), ("crop", "area", 1.0), ("pad", "bicubic", 1.0), ("pad", "area", 0.9),
     ("zoom", "bicubic", 1.0), ("crop", "bicubic", 0.1), ("crop", "bicubic", 1.5), ("crop", "bicubic", float("nan")),
     ("crop", "bicubic", "1"), ("crop", ["bicubic"], 1.0), ("crop", "bicubic", None)],
    ids=str,
)  # fmt: skip
def test_a_wrong_preparation_is_one_line(preparation):
    with pytest.raises(UserError, match="preparation is .* but must be"):
        require_preparation(preparation)
