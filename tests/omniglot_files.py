"""A small data set in the format of Omniglot's files, made by the tests."""

import io
import zipfile

import numpy as np
from PIL import Image

from tinyflamingo.handwriting.omniglot import BACKGROUND, DRAWERS, SIDE, Character


def png(drawing):
    """A drawing (True: ink) in the file format of the data set: one bit, black ink."""
    packed = io.BytesIO()
    Image.fromarray(np.where(drawing, 0, 255).astype(np.uint8)).convert("1").save(packed, "PNG")
    return packed.getvalue()


def make_characters(rng, alphabet, count):
    """Characters of three strokes; the strokes of each person differ a little."""
    characters = []
    for i in range(count):
        ends = rng.integers(20, 85, size=(3, 2, 2))
        drawings = [_strokes(ends + rng.integers(-3, 4, size=ends.shape)) for _ in range(DRAWERS)]
        characters.append(Character(alphabet, f"character{i + 1:02d}", np.stack(drawings)))
    return characters


def _strokes(ends):
    drawing = np.zeros((SIDE, SIDE), bool)
    for start, end in ends:
        y, x = np.linspace(start, end, 100).round().astype(int).T
        for dy in range(3):
            for dx in range(3):
                drawing[y + dy, x + dx] = True
    return drawing


def members_of(characters, top="images_background_small1"):
    """{name in the zip: bytes} of characters."""
    return {
        f"{top}/{c.alphabet}/{c.name}/{i:04d}_{d + 1:02d}.png": png(drawing)
        for i, c in enumerate(characters)
        for d, drawing in enumerate(c.drawings)
    }


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_background(folder, first, second):
    """Write the two background sets and return their folder."""
    for name, characters in zip(BACKGROUND, (first, second), strict=True):
        write_zip(folder / name, members_of(characters, name.removesuffix(".zip")))
    return folder
