"""The user's pictures, prepared for the vision encoder (chapter §2): uint8 (side, side, 3).

A file or an array becomes upright RGB, and then the square of the encoder (`preparation.py`). Not here: the
scaling of colours to mean 0 and variance 1 (the vision encoder does it), the pictures of TinyWorld
(`tinyworld/raster.py`), video (`video.py`).
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin
from PIL.Image import Transpose

from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation, fit_square, require_square
from tinyflamingo.errors import UserError
from tinyflamingo.files import LARGEST_PART, open_regular

T = TypeVar("T")
ADDRESS = re.compile(r"(https?|ftp|s3):[/\\]+", re.I)
MAX_PIXELS = 25_000_000  # for up to 179 million pixels, which fill 0.5 GB, Pillow only warns
SIXTEEN_BIT = 65535
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TURNS: dict = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
         5: Transpose.TRANSPOSE,
         6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # fmt: skip
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26  # bytes of a text or a profile in a PNG; Pillow's own limit is 1 MB
PngImagePlugin.MAX_TEXT_MEMORY = 1 << 27  # bytes of all its texts

_REMEDY = "give a PNG, JPEG, WebP, GIF, BMP or TIFF"


def load_picture(
    path_or_file: str | os.PathLike | BinaryIO, side: int = 32, preparation: Preparation = PAD_TO_SQUARE
) -> np.ndarray:
    """Read any picture that Pillow can read: uint8 (side, side, 3). For a model, `side` and `preparation` are those of
    its `config.vision`.

    EXIF orientation is applied, transparent parts become white, 16-bit greys are scaled to 8 bits,
    and an animation gives its first frame. Raises `UserError`, one line with the file's name, if the
    file cannot be read or has more than MAX_PIXELS pixels, and for a side or preparation that no picture can have.
    """
    require_square(side, preparation)
    if hasattr(path_or_file, "read"):
        name = str(getattr(path_or_file, "name", "from memory"))
    else:
        name = require_file(path_or_file, "picture", _REMEDY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings do not help the user
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return with_picture(path_or_file, name, lambda image: fit_image(image, name, side, preparation))
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large("picture", name) from None
    except Image.UnidentifiedImageError:
        if _is_heic(path_or_file):
            raise Unreadable("picture", name, "it is HEIC", "export it as JPEG or PNG first") from None
        raise Unreadable("picture", name, "it is not a picture", _REMEDY) from None
    except MemoryError:
        raise no_memory("picture", name) from None
    except Exception as error:  # on a broken file a decoder can raise nearly anything
        wrong = f"it is damaged or cut short ({_one_line(error)})"
        raise Unreadable("picture", name, wrong, "save or copy it again") from error


def with_picture(path_or_file: str | os.PathLike | BinaryIO, name: str, use: Callable[[Any], T]) -> T:
    """`use(image)` of a file that is open in Pillow; name: for errors. On a broken file it raises nearly anything."""
    with _from_begin(path_or_file) as file:
        if file.seek(0, os.SEEK_END) > LARGEST_PART:  # Pillow reads some kinds whole
            wrong = f"it has more than {LARGEST_PART >> 20} MB"
            raise Unreadable("picture", name, wrong, "make it smaller first")
        try:
            return _with_open(_with_alpha(file), use)
        except ValueError as error:
            if "MAX_TEXT" not in str(error):
                raise
        return _with_open(_without_texts(file), use)


def _with_open(file, use):
    with Image.open(file) as image:
        _fit_transparent_colour(image)
        return use(image)


def _with_alpha(file):
    """The file; an animated WebP with the mark of opacity, without which Pillow shows margins of frames black."""
    file.seek(0)
    head = file.read(21)
    file.seek(0)
    if not is_animated_webp(head) or head[20] & 16:
        return file
    return io.BytesIO(head[:20] + bytes([head[20] | 16]) + file.read()[21:])


def is_animated_webp(head: bytes) -> bool:
    """Whether a file with this begin is an animated WebP."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2 > 0


def _fit_transparent_colour(image):
    """Pillow keeps the transparent colour of a PNG with the bits of the file. Here it gets the 8 bits of the pixels."""
    key = image.info.get("transparency")
    raw = image.tile[0][3] if image.format == "PNG" and image.tile else None
    if raw in ("L;2", "L;4") and isinstance(key, int):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw]
    elif raw == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _is_heic(path_or_file):
    """Whether the first bytes are those of HEIC, which phones write and Pillow cannot read."""
    with _from_begin(path_or_file) as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in HEIC


def _without_texts(file):
    """A PNG without its texts and its profile, which Pillow unpacks. Each chunk: length, kind, data, checksum."""
    plain = io.BytesIO()
    file.seek(0)
    plain.write(file.read(8))
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big") + 4
        if head[4:] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            file.seek(length, os.SEEK_CUR)
        else:
            plain.write(head + file.read(length))
    plain.seek(0)
    return plain


def _from_begin(path_or_file):
    """A context: the file, open at its begin."""
    if not hasattr(path_or_file, "read"):
        return open_regular(path_or_file)
    path_or_file.seek(0)
    return nullcontext(path_or_file)


def prepare_picture(array: np.ndarray, side: int = 32, preparation: Preparation = PAD_TO_SQUARE) -> np.ndarray:
    """The same for an array: uint8 (side, side, 3).

    array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 in 0..255 or floats in 0..1. A fourth
    channel is opacity; the background is white. Raises `UserError` for any other shape, type, range or side.
    """
    require_square(side, preparation)
    array = np.asarray(array)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise UserError(
            f"a picture of shape {array.shape} cannot be used; give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
        )
    if array.size == 0:
        raise UserError(f"a picture of shape {array.shape} has no pixels; give at least one")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise too_large("picture", f"of shape {array.shape}")
    array = _to_uint8(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return fit_square(_over_white(Image.fromarray(np.ascontiguousarray(array))), side, preparation)


def fit_image(image: Image.Image, name: str, side: int = 32, preparation: Preparation = PAD_TO_SQUARE) -> np.ndarray:
    """The same for the current frame of an opened picture. name: for errors."""
    return fit_square(_decode(image, name), side, preparation)


# ---- failures, shared with video.py ----------------------------------------------------------


class Unreadable(UserError):
    """A file that cannot be used. reason: the fault without details, so that equal faults can be counted."""

    def __init__(self, kind: str, name: str, wrong: str, remedy: str) -> None:
        messages = {
            "picture": f"cannot read the picture {name!r}: {wrong}; {remedy}",
            "video": f"cannot read the video {name!r}: {wrong}; {remedy}",
            "file of one-shot runs": f"cannot read the file of one-shot runs {name!r}: {wrong}; {remedy}",
        }
        super().__init__(messages[kind])
        fault = wrong.split(" (")[0]
        self.reason = {"picture": f"picture: {fault}", "video": f"video: {fault}"}.get(kind, fault)


def _address(path):
    """The address that a path shows, "" for a real path. `Path` makes one slash of the two in an address."""
    address = ADDRESS.match(path)
    return f"{address[1]}://{path[address.end() :]}" if address else ""


def require_file(path: str | os.PathLike, kind: str, remedy: str) -> str:
    """The path as text. Raises `UserError` if it is not a readable file, or the file is empty."""
    name = os.fsdecode(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: the name holds a null character
        if address := _address(name):
            remedy = "download the file first, and give its path"
            raise Unreadable(kind, address, "it is an address, and addresses are not read", remedy) from None
        missing = isinstance(error, FileNotFoundError)
        wrong = "there is no such file" if missing else _one_line(error)
        raise Unreadable(kind, name, wrong, "check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable(kind, name, "it is a folder", "name a file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe can block for ever, a device can have no end
        raise Unreadable(kind, name, "it is not a regular file", remedy)
    if status.st_size == 0:
        raise Unreadable(kind, name, "it is empty", remedy)
    if not os.access(path, os.R_OK):
        raise Unreadable(kind, name, "you have no permission to read it", "change its permissions")
    return name


def too_large(kind: str, name: str) -> Unreadable:
    """The error for a picture or video beyond the pixel limit."""
    wrong = f"it has more than {MAX_PIXELS // 1_000_000} million pixels"
    return Unreadable(kind, name, wrong, "make it smaller first")


def no_memory(kind: str, name: str) -> Unreadable:
    """The error for a picture or video that is larger than the free memory."""
    return Unreadable(kind, name, "there is too little free memory for it", "end other programs, or make it smaller")


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:120]


# ---- any picture to RGB ----------------------------------------------------------------------


def _decode(image: Image.Image, name: str) -> Image.Image:
    """An opened picture to upright RGB. The size is checked before the pixels are decoded."""
    if image.width * image.height == 0:
        raise Unreadable("picture", name, "it has no pixels", _REMEDY)
    if image.width * image.height > MAX_PIXELS:
        raise too_large("picture", name)
    if image.format == "EPS":  # Pillow would start another program, Ghostscript, on the file
        raise Unreadable("picture", name, "it is PostScript", _REMEDY)
    if image.format == "TIFF" and image.mode[0] == "I" and _is_odd_grey(image):
        raise Unreadable("picture", name, "its greys have a form that is not known here", "save it with 8 bits")
    image.load()
    image = _turned(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image)
        pixels = _deep_grey_to_uint8(grey, name)
        if isinstance(key := image.info.get("transparency"), int):
            pixels[grey == key] = 255
        image = Image.fromarray(pixels)
    return _over_white(image)


def _turned(image: Image.Image) -> Image.Image:
    """The picture upright, by the orientation in its EXIF. With EXIF that is damaged, programs show it as it is."""
    try:
        turn = TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow reads EXIF without checks
        return image
    return image if turn is None else image.transpose(turn)


def _is_odd_grey(image) -> bool:
    """Greys of a TIFF whose values Pillow gives as they are: 0 is white, 12 bits, or 32 bits without a sign."""
    white_is_zero, bits, kind = (image.tag_v2.get(tag) for tag in (262, 258, 339))
    return white_is_zero == 0 or bits == (12,) or (bits == (32,) and kind in (None, (1,), 1))


def _over_white(image: Image.Image) -> Image.Image:
    """To RGB. Transparent parts (an alpha channel or a transparent colour) become white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _deep_grey_to_uint8(grey: np.ndarray, name: str) -> np.ndarray:
    """Greys of 16 or 32 bits (H, W), or of floats in 0..1, to uint8."""
    if grey.dtype.kind == "f":
        try:
            return _to_uint8(grey)
        except UserError as error:
            raise Unreadable("picture", name, str(error), "save it with 8 bits") from None
    # Pillow keeps some 16-bit files (PGM, older PNG) in 32 bits: only their values show it
    top = SIXTEEN_BIT if grey.max() <= SIXTEEN_BIT else np.iinfo(np.int32).max
    pixels = (np.clip(grey, 0, top) * (255 / top) + 0.5).astype(np.uint8)
    if grey.any() and not pixels.any():
        raise Unreadable("picture", name, "its greys are near 0, so all of it would be black", "save it with 8 bits")
    return pixels


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise UserError(f"a picture of type {array.dtype} cannot be used; give uint8 or floats from 0 to 1")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise UserError(
            f"a picture of floats from {low:.3g} to {high:.3g} cannot be used; scale it to 0..1, or give uint8"
        )
    return (array * np.float32(255) + np.float32(0.5)).astype(np.uint8)
