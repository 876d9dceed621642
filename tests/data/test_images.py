"""The user's pictures: each format is read correctly, each error is one clear line."""

import io
import os
import struct
import warnings
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyflamingo.data import images
from tinyflamingo.data.images import MAX_PIXELS, load_picture, prepare_picture
from tinyflamingo.data.tinyworld.raster import WHITE, Mark, draw
from tinyflamingo.data.video import load_video
from tinyflamingo.errors import UserError

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def quarters(side=64):
    """Red and green over blue and yellow: each rotation and each mirroring changes it."""
    corners = np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)
    return corners.repeat(side // 2, 0).repeat(side // 2, 1)


def assert_quarters(picture, atol=0):
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture.astype(int), quarters(len(picture)), atol=atol)


def assert_one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    for word in words:
        assert word in text


# ---- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tiff", "ppm", "webp"])
def test_lossless_formats_are_exact(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(quarters()).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert_quarters(load_picture(path))
    assert_quarters(load_picture(str(path), side=16))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_are_close(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(quarters()).save(path, quality=95)
    difference = np.abs(load_picture(path).astype(int) - quarters(32))
    assert difference.mean() < 4  # colours have half the resolution, so they mix at the edges
    assert difference[:14, :14].max() < 12


def test_open_files_and_memory_work(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    with open(tmp_path / "a.png", "rb") as file:
        assert_quarters(load_picture(file))
    assert_quarters(load_picture(io.BytesIO((tmp_path / "a.png").read_bytes())))


TURNS = {  # EXIF orientation -> how the camera stores an upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),  # a viewer turns it clockwise by 90 degrees
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](quarters())))
    stored.save(tmp_path / "a.jpg", quality=95, subsampling=0, exif=exif)
    assert_quarters(load_picture(tmp_path / "a.jpg"), atol=12)


def test_cmyk_jpeg(tmp_path):
    Image.fromarray(quarters()).convert("CMYK").save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert_quarters(load_picture(tmp_path / "a.jpg"), atol=30)


def test_palette_with_a_transparent_colour_shows_white(tmp_path):
    indices = np.kron([[0, 1], [2, 3]], np.ones((16, 16))).astype(np.uint8)
    image = Image.frombytes("P", (32, 32), indices.tobytes())
    image.putpalette([*RED, *GREEN, *BLUE, *YELLOW])
    image.save(tmp_path / "a.png", transparency=1)
    expected = quarters(32)
    expected[:16, 16:] = 255
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png"), expected)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


KEYS = {  # (bits, kind of colour): pixels of a row of four, the colour that is transparent, what is shown
    (2, 0): (bytes([0b00011011]), (2,), (0, 85, 255, 255)),
    (4, 0): (bytes([0x05, 0xAF]), (5,), (0, 255, 170, 255)),
    (8, 0): (bytes([0, 5, 10, 255]), (5,), (0, 255, 10, 255)),
    (16, 0): (struct.pack(">4H", 0, 300, 2570, 65535), (300,), (0, 255, 10, 255)),
    (8, 2): (bytes([0, 0, 0, 5, 6, 7, 10, 10, 10, 255, 255, 255]), (5, 6, 7), (0, 255, 10, 255)),
    (16, 2): (
        struct.pack(">12H", 0, 0, 0, 300, 400, 500, *[2570] * 3, *[65535] * 3),
        (300, 400, 500),
        (0, 255, 10, 255),
    ),
}


@pytest.mark.parametrize("bits, kind", KEYS)
def test_the_transparent_colour_of_a_png_is_white(bits, kind):
    row, key, shown = KEYS[bits, kind]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, bits, kind, 0, 0, 0))
    rest = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) + chunk(b"IDAT", zlib.compress(4 * (b"\0" + row)))
    picture = load_picture(io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IEND", b"")), side=4)
    np.testing.assert_allclose(picture[0, :, 0], shown, atol=1)


def test_a_file_with_too_many_bytes_is_refused_before_reading(tmp_path):
    for name, head in (("a.webp", b"RIFF\0\0\0\0WEBPVP8X"), ("a.jpg", b"\xff\xd8\xff\xe0"), ("a.gif", b"GIF89a")):
        with open(tmp_path / name, "wb") as file:
            file.write(head)
            file.truncate(100 << 30)  # a file with a hole: it takes no room on the disk
        with pytest.raises(UserError) as error:
            load_picture(tmp_path / name)
        assert_one_line(error, name, "more than 256 MB")


def test_alpha_is_laid_over_white_before_shrinking(tmp_path):
    rgba = np.zeros((64, 64, 4), np.uint8)  # transparent black: it must not darken other pixels
    rgba[16:48, 16:48] = (255, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    picture = load_picture(tmp_path / "a.png")
    assert picture[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(picture[16, 16], [255, 127, 127], atol=1)
    np.testing.assert_array_equal(prepare_picture(rgba), picture)


def test_grey_with_alpha(tmp_path):
    grey = np.full((32, 32, 2), (0, 64), np.uint8)
    Image.frombytes("LA", (32, 32), grey.tobytes()).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_picture(tmp_path / "a.png"), 191, atol=1)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 32).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / f"a.{suffix}")
    picture = load_picture(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(picture[5, :, 1], ramp / 257.0, atol=0.6)


def test_32_bits_are_scaled_by_the_range_of_the_type(tmp_path):
    levels = np.array([0, 2**30, 2**31 - 1], np.int32)
    Image.fromarray(np.repeat(np.tile(levels, (3, 1)), 32, 1).repeat(32, 0)).save(tmp_path / "a.tiff")
    picture = load_picture(tmp_path / "a.tiff", side=3)
    np.testing.assert_allclose(picture[1, :, 0], [0, 128, 255], atol=1)


@pytest.mark.parametrize("grey", [np.int32(100), np.int32(100_000), np.uint16(100)])
def test_greys_that_would_become_black_are_refused(tmp_path, grey):
    """A file of 16 or 32 bits can hold small numbers, of 8 bits or of a measurement."""
    Image.fromarray(np.full((8, 8), grey)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="a.tiff.*all of it would be black.*save it with 8 bits"):
        load_picture(tmp_path / "a.tiff")
    Image.fromarray(np.zeros((8, 8), grey.dtype)).save(tmp_path / "a.tiff")
    assert not load_picture(tmp_path / "a.tiff").any()


def test_float_tiff(tmp_path):
    values = np.full((8, 8), 0.5, np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    np.testing.assert_allclose(load_picture(tmp_path / "a.tiff"), 128, atol=1)
    Image.fromarray(values * 300).save(tmp_path / "b.tiff")
    with pytest.raises(UserError) as error:
        load_picture(tmp_path / "b.tiff")
    assert_one_line(error, "b.tiff", "150")


def test_one_bit(tmp_path):
    board = np.kron([[0, 1], [1, 0]], np.ones((32, 32))).astype(bool)
    Image.fromarray(board).save(tmp_path / "a.png")
    picture = load_picture(tmp_path / "a.png")
    assert picture[3, 3].tolist() == [0] * 3 and picture[3, 28].tolist() == [255] * 3


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), c) for c in (RED, GREEN, BLUE)]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (load_picture(tmp_path / name) == RED).all()


# ---- to a square -----------------------------------------------------------------------------


def test_a_picture_of_the_right_size_is_unchanged():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(prepare_picture(noise), noise)


@pytest.mark.parametrize("factor", [2, 5, 40])
def test_whole_factors_are_block_means(factor):
    noise = np.random.default_rng(0).integers(0, 256, (32 * factor,) * 2 + (3,), dtype=np.uint8)
    means = noise.reshape(32, factor, 32, factor, 3).mean((1, 3))
    assert np.abs(prepare_picture(noise) - means).max() <= 1.1  # a large picture is rounded twice


@pytest.mark.parametrize("size", [33, 47, 100, 641, 1500])
def test_area_average_keeps_the_mean_and_a_ramp(size):
    ramp = (np.arange(size) + 0.5) / size * 255
    picture = prepare_picture(np.tile(ramp.round().astype(np.uint8), (size, 1)))
    expected = (np.arange(32) + 0.5) / 32 * 255
    np.testing.assert_allclose(picture[7, :, 2], expected, atol=1.6)
    assert picture.mean() == pytest.approx(127.5, abs=0.7)


def test_tiny_pictures_are_enlarged():
    assert_quarters(prepare_picture(quarters(2)))
    one = prepare_picture(np.full((1, 1, 3), (9, 8, 7), np.uint8))
    assert (one == (9, 8, 7)).all()


def test_aspect_is_kept_and_the_margin_is_the_mean():
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:, :40] = (200, 100, 0)
    picture = prepare_picture(wide)
    assert (picture[12:20, :16] == (200, 100, 0)).all() and (picture[12:20, 16:] == 0).all()
    assert (picture[:12] == (100, 50, 0)).all() and (picture[20:] == (100, 50, 0)).all()
    np.testing.assert_array_equal(prepare_picture(wide.swapaxes(0, 1)), picture.swapaxes(0, 1))


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 1000), (1, 2)])
def test_extreme_aspects_leave_at_least_a_line(shape):
    picture = prepare_picture(np.full(shape, 77, np.uint8))
    assert picture.shape == (32, 32, 3) and (picture == 77).all()


def test_a_drawing_enlarged_and_read_back_is_the_drawing():
    picture = draw([Mark("heart", RED, 14, 17, 7)], WHITE)
    np.testing.assert_array_equal(prepare_picture(picture.repeat(10, 0).repeat(10, 1)), picture)


# ---- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_the_same_as_bytes(dtype):
    assert_quarters(prepare_picture((quarters() / 255).astype(dtype)))


def test_grey_arrays_and_strided_views():
    grey = np.full((32, 32), 40, np.uint8)
    np.testing.assert_array_equal(prepare_picture(grey), prepare_picture(grey[..., None]))
    assert_quarters(prepare_picture(quarters()[::-1][::-1, ::1]))
    assert_quarters(prepare_picture(np.asfortranarray(quarters())))


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros(5, np.uint8), "(5,)"),
        (np.zeros((4, 4, 2), np.uint8), "(4, 4, 2)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "(1, 4, 4, 3)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), complex), "complex"),
        (np.full((4, 4, 3), "x"), "uint8"),
        (np.full((4, 4, 3), None), "object"),
        (np.full((4, 4, 3), 200.0), "200"),
        (np.full((4, 4), -0.1), "-0.1"),
        (np.full((4, 4), np.nan), "nan"),
        (np.full((4, 4), np.inf), "inf"),
        (np.zeros((5001, 5000), np.uint8), "25 million"),
        (np.broadcast_to(np.uint8(0), (1, 25_000_001)), "25 million"),
    ],
)
def test_wrong_arrays(array, words):
    with pytest.raises(UserError) as error:
        prepare_picture(array)
    assert_one_line(error, words)


# ---- failures --------------------------------------------------------------------------------


def png(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    return (tmp_path / "whole.png").read_bytes()


def fails(path, *words):
    with pytest.raises(UserError) as error:
        load_picture(path)
    assert_one_line(error, "cannot read the picture", os.path.basename(str(path)), ";", *words)


def test_missing_folder_and_empty(tmp_path):
    fails(tmp_path / "none.png", "no such file")
    fails(tmp_path / "none" / "a.png", "no such file")
    fails(tmp_path, "folder")
    (tmp_path / "nothing.png").touch()
    fails(tmp_path / "nothing.png", "it is empty")


def test_null_in_the_name():
    with pytest.raises(UserError):
        load_picture("a\0b.png")


def test_a_line_break_in_the_name_stays_on_one_line(tmp_path):
    with pytest.raises(UserError) as error:
        load_picture(tmp_path / "a\nb.png")
    assert_one_line(error, "a\\nb.png")


@pytest.mark.posix
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "not a regular file")


@pytest.mark.posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read all files")
def test_no_permission(tmp_path):
    png(tmp_path)
    (tmp_path / "whole.png").chmod(0)
    fails(tmp_path / "whole.png", "permission")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_truncated(tmp_path, suffix, share):
    path = tmp_path / f"cut.{suffix}"
    Image.open(io.BytesIO(png(tmp_path))).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    fails(path)


def test_not_a_picture(tmp_path):
    (tmp_path / "text.png").write_text("this is no picture\n" * 40)
    fails(tmp_path / "text.png", "not a picture", "PNG")
    (tmp_path / "noise.jpg").write_bytes(np.random.default_rng(0).bytes(5000))
    fails(tmp_path / "noise.jpg", "not a picture")
    with pytest.raises(UserError):
        load_picture(io.BytesIO(b""))


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_give_another_error(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.bin"
    suffix = ["png", "jpeg", "gif", "tiff", "webp", "bmp"][seed % 6]
    Image.open(io.BytesIO(png(tmp_path))).save(path, format=suffix)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, min(len(data), 400), 6):
        data[position] = rng.integers(0, 256)
    path.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and no warning of Pillow
        try:
            assert load_picture(path).shape == (32, 32, 3)
        except UserError as error:
            assert "\n" not in str(error)


def one_bit_png(width, height):
    """A valid 1-bit black PNG of any size: a few kilobytes, made without its pixels in memory."""

    def chunk(kind, body):
        check = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + check

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = (b"IHDR", header), (b"IDAT", body), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


@pytest.mark.parametrize("side", [5001, 12000, 30000])
def test_bombs_are_refused_before_decoding(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(one_bit_png(side, side))
    fails(tmp_path / "bomb.png", f"{MAX_PIXELS // 10**6} million pixels", "smaller")


def test_the_largest_picture_still_works(tmp_path):
    (tmp_path / "large.png").write_bytes(one_bit_png(5000, 5000))
    assert (load_picture(tmp_path / "large.png") == 0).all()


def test_a_picture_without_pixels(tmp_path):
    (tmp_path / "zero.png").write_bytes(one_bit_png(0, 0))
    fails(tmp_path / "zero.png")
    (tmp_path / "zero.ppm").write_bytes(b"P6 0 5 255\n")
    fails(tmp_path / "zero.ppm")


def test_postscript_starts_no_program(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.eps")
    fails(tmp_path / "a.eps", "PostScript")


def test_greys_of_a_tiff_in_an_unknown_form_are_refused(tmp_path):
    """Pillow gives their values as they are: a negative, or far too dark."""
    grey = Image.fromarray(np.full((8, 8), 60000, np.uint16))
    grey.save(tmp_path / "white_is_zero.tif", tiffinfo={262: 0})
    Image.fromarray(np.full((8, 8), 2**30, np.int32)).save(tmp_path / "signed.tif")
    entry = b"\x53\x01\x03\0\x01\0\0\0"  # the tag SampleFormat, one short number: 2 is signed, 1 unsigned
    data = (tmp_path / "signed.tif").read_bytes().replace(entry + b"\2", entry + b"\1")
    (tmp_path / "unsigned.tif").write_bytes(data)
    for name in ("white_is_zero.tif", "unsigned.tif"):
        with pytest.raises(UserError, match=f"{name}.*save it with 8 bits"):
            load_picture(tmp_path / name)
    grey.save(tmp_path / "plain.tif")
    assert abs(load_picture(tmp_path / "plain.tif").mean() - 233) < 1


# ---- the wrong is not blamed on the file -----------------------------------------------------


@pytest.fixture
def media(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    frames = [Image.fromarray(quarters() // part) for part in (1, 2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=1000)
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=1000)
    return tmp_path


def loaders(media):
    names = {"a.png": load_picture, "a.gif": load_video, "a.webp": load_video}
    made = [partial(load, media / name) for name, load in names.items()]
    return [*made, partial(prepare_picture, quarters())]


@pytest.mark.parametrize("side", [0, -3, 100_000, 1025, 32.0, "32", True, None, float("nan")])
def test_a_side_that_no_picture_can_have_is_refused(media, side):
    for load in loaders(media):
        with pytest.raises(UserError) as error:
            load(side=side)
        assert_one_line(error, f"the side of a picture is {side!r} but must be a whole number from 1 to 1024")
        assert load(side=np.int64(1)).shape[-3:] == (1, 1, 3)


@pytest.mark.parametrize("preparation", [None, 3, (), ("pad", "area", 2.0), ("crop", "area", 1.0)])
def test_a_wrong_preparation_is_no_damage_of_the_file(media, preparation):
    for load in loaders(media):
        with pytest.raises(UserError, match="preparation is .* but must be"):
            load(preparation=preparation)


def test_too_little_memory_is_no_damage_of_the_file(media, monkeypatch):
    def full(*_):
        raise MemoryError("Unable to allocate 112 GiB")

    monkeypatch.setattr(images, "fit_square", full)
    for load in loaders(media)[:3]:
        with pytest.raises(UserError) as error:
            load()
        assert_one_line(error, "there is too little free memory for it; end other programs, or make it smaller")


@pytest.mark.parametrize("load, kind", [(load_picture, "picture"), (load_video, "video")])
def test_an_address_is_not_read(load, kind):
    for path in ("http://a.b/c.png", Path("http://a.b/c.png"), "HTTPS://a.b/c.mp4"):
        with pytest.raises(UserError) as error:
            load(path)
        assert_one_line(error, f"the {kind} ", "://a.b/c", "addresses are not read; download the file first")
