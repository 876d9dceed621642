"""Draws the 200 pictures of the example in docs/own_data.md: flags of two colours, with captions.

    python docs/make_flags.py flags

The folder is an example of a user's own data: PNG and JPEG of several sizes and a `captions.jsonl`. This
script imports nothing of tinyflamingo.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "red": (200, 30, 40),
    "blue": (40, 60, 190),
    "green": (30, 140, 60),
    "yellow": (240, 200, 40),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}


def flag(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """(picture, caption): two stripes, side by side or one over the other, with some noise."""
    one, other = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    height, width = int(rng.integers(60, 120)), int(rng.integers(90, 180))
    pixels = np.empty((height, width, 3))
    pixels[:] = COLOURS[one]
    over = rng.random() < 0.5
    if over:
        pixels[height // 2 :] = COLOURS[other]
    else:
        pixels[:, width // 2 :] = COLOURS[other]
    pixels += rng.normal(0, 6, pixels.shape)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return picture, f"a flag, {one} {'over' if over else 'beside'} {other}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.count < 1 or args.seed < 0:
        parser.error("--count must be at least 1, and --seed at least 0")
    if args.folder.exists() and not (args.folder.is_dir() and not any(args.folder.iterdir())):
        parser.error(f"{args.folder} is not an empty folder: give the name of a new one")
    args.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    with open(args.folder / "captions.jsonl", "w", encoding="utf-8") as captions:
        for number in range(args.count):
            picture, caption = flag(rng)
            name = f"flag_{number:03d}.{'png' if number % 2 else 'jpg'}"
            picture.save(args.folder / name)
            captions.write(json.dumps({"file": name, "text": caption}) + "\n")


if __name__ == "__main__":
    main()
