"""Draws the pictures and the video of the README's examples into `docs/examples/`.

    python docs/make_examples.py

Pictures are enlarged by 8, so that people can see them; `complete` reduces them again by area averages.
Not here: the figures of the documents (`python -m tinyflamingo demo`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tinyflamingo.data.tinyworld.scenes import draw_clip, draw_scene, sample_clip, sample_single  # noqa: E402
from tinyflamingo.data.video import write_video  # noqa: E402

FOLDER = ROOT / "docs" / "examples"
PICTURES = {"red_circle": ("circle", "red"), "blue_star": ("star", "blue"), "red_house": ("house", "red")}


def main(folder: Path = FOLDER) -> None:
    rng = np.random.default_rng(7)
    for name, thing in PICTURES.items():
        picture = draw_scene(rng, sample_single(rng, (thing,), size="large"))
        Image.fromarray(picture.repeat(8, 0).repeat(8, 1)).save(folder / f"{name}.png", optimize=True)
    clip = sample_clip(rng, (("heart", "green"),), action="moves left")
    write_video(folder / "moves_left.mp4", draw_clip(rng, clip), fps=1)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
