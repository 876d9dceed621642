"""Picture files of many kinds, and the RGB picture that each of them shows."""

import numpy as np
from PIL import Image

SIZES = {"wide": (233, 71), "tall": (70, 301), "tiny": (3, 5), "one": (1, 1), "square": (48, 48)}
MODES = ("RGB", "L", "RGBA", "P", "I;16")
KINDS = [("RGB", size) for size in SIZES] + [(mode, "wide") for mode in MODES[1:]]


def picture(mode, size):
    """(picture of this mode, the same as RGB): smooth waves and noise, so that filters give different pixels."""
    width, height = SIZES[size]
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    waves = 128 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5) + rng.integers(-20, 20, (height, width))
    rgb = np.stack([waves, waves[::-1], 255 - waves], axis=-1).astype(np.uint8)
    if mode == "I;16":
        grey = rgb[..., 0]
        return Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray(grey).convert("RGB")
    if mode == "RGBA":
        alpha = (x * 255 // max(1, width - 1)).astype(np.uint8)
        image = Image.fromarray(np.dstack([rgb, alpha]))
        return image, Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = Image.fromarray(rgb)
    image = image.quantize(40) if mode == "P" else image.convert(mode)
    return image, image.convert("RGB")
