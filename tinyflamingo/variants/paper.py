"""The paper's own models, and the models that it uses, as configurations: for their sizes, not for training.

Chapter §1; Flamingo paper, tables 4 and 5; NFNet paper, table 1; Chinchilla paper, table A9; CLIP paper, table 20.
Each has the number of parameters that its paper prints. The Flamingo paper contradicts its own totals: the default is
the reading that gives the totals, and `-printed` has the hyper-parameters that the second version prints
(docs/deviations.md lists them).

Not here: the presets that can be trained (`training/presets.py`), counting (`bench/sizes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    TextTowerConfig,
    VisionConfig,
    XattnConfig,
)
from tinyflamingo.variants.projected import ProjectedResamplerConfig
from tinyflamingo.variants.vit import ViTConfig

PIECES = 32_000  # of the tokenizer of Gopher, Chinchilla and Flamingo
CLASSES = 1000  # of the classifier that the printed sizes of NFNets include
CLIP_JOINT = 768  # width of the space where CLIP ViT-L/14 meets its captions


@dataclass(frozen=True)
class PaperModel:
    """A configuration and what its paper prints: {part: "435M"}."""

    config: FlamingoConfig | VisionConfig | LanguageConfig | ViTConfig
    printed: dict = field(default_factory=dict)


# ---------------------------------------------------------------- encoders

NFNETS = {  # side of the training pictures in pixels, parameters as printed, with the classifier
    0: (192, "71.5M"),
    1: (224, "132.6M"),
    2: (256, "193.8M"),
    3: (320, "254.9M"),
    4: (384, "316.1M"),
    5: (416, "377.2M"),
    6: (448, "438.4M"),
}


def nfnet(n: int, side: int) -> VisionConfig:
    """NFNet-F<n>: n + 1 times as many blocks in every stage as F0."""
    depths = [(n + 1) * blocks for blocks in (1, 2, 6, 3)]
    stages = tuple(zip((256, 512, 1536, 1536), depths, (1, 2, 2, 2), strict=True))
    stem = ((16, 2), (32, 1), (64, 1), (128, 2))
    return VisionConfig(stem=stem, stages=stages, group_size=128, width=3072, side=side)


CLIP_VIT_L14 = ViTConfig(patch=14, width=1024, layers=24, heads=16, side=224)


# ---------------------------------------------------------------- language models


def decoder(layers: int, width: int, heads: int, key_size: int) -> LanguageConfig:
    """A model of the Gopher and Chinchilla family."""
    return LanguageConfig(PIECES, width, layers, heads, key_size, context=2048)


# Chinchilla's table A9: millions of parameters, width, size of a head, heads, layers.
TABLE_A9 = (
    (44, 512, 64, 8, 8),
    (57, 576, 64, 9, 9),
    (74, 640, 64, 10, 10),
    (90, 640, 64, 10, 13),
    (106, 640, 64, 10, 16),
    (117, 768, 64, 12, 12),
    (140, 768, 64, 12, 15),
    (163, 768, 64, 12, 18),
    (175, 896, 64, 14, 14),
    (196, 896, 64, 14, 16),
    (217, 896, 64, 14, 18),
    (251, 1024, 64, 16, 16),
    (278, 1024, 64, 16, 18),
    (306, 1024, 64, 16, 20),
    (425, 1280, 128, 10, 18),
    (489, 1280, 128, 10, 21),
    (509, 1408, 128, 11, 18),
    (552, 1280, 128, 10, 24),
    (587, 1408, 128, 11, 21),
    (632, 1536, 128, 12, 19),
    (664, 1408, 128, 11, 24),
    (724, 1536, 128, 12, 22),
    (816, 1536, 128, 12, 25),
    (893, 1792, 128, 14, 20),
    (1018, 1792, 128, 14, 23),
    (1143, 1792, 128, 14, 26),
    (1266, 2048, 128, 16, 22),
    (1424, 2176, 128, 17, 22),
    (1429, 2048, 128, 16, 25),
    (1593, 2048, 128, 16, 28),
    (1609, 2176, 128, 17, 25),
    (1731, 2304, 128, 18, 24),
    (1794, 2176, 128, 17, 28),
    (2007, 2304, 128, 18, 28),
    (2283, 2304, 128, 18, 32),
    (2298, 2560, 128, 20, 26),
    (2639, 2560, 128, 20, 30),
    (2980, 2560, 128, 20, 34),
    (3530, 2688, 128, 22, 36),
    (3802, 2816, 128, 22, 36),
    (4084, 2944, 128, 22, 36),
    (4516, 3072, 128, 24, 36),
    (6796, 3584, 128, 28, 40),
    (9293, 4096, 128, 32, 42),
    (11452, 4352, 128, 32, 47),
    (12295, 4608, 128, 36, 44),
    (12569, 4608, 128, 32, 47),
    (13735, 4864, 128, 32, 47),
    (14940, 4992, 128, 32, 49),
    (16183, 5120, 128, 40, 47),
)
A9 = {f"chinchilla-{row[0]}m": row for row in TABLE_A9}


# ---------------------------------------------------------------- Flamingo


def paper_flamingo(language: LanguageConfig, every: int, key_size: int = 128) -> FlamingoConfig:
    """A Flamingo of table 4: NFNet-F6 at 320 pixels, a resampler that is equal in all sizes, gated blocks.

    key_size: of the resampler's heads. The gated blocks have as many heads as the language model.
    """
    return FlamingoConfig(
        vision=nfnet(6, 320),
        # Of the text tower the paper gives the joint width only.
        text_tower=TextTowerConfig(vocab_size=PIECES, joint_width=1376),
        resampler=ProjectedResamplerConfig(
            3072, 1536, layers=6, heads=16, key_size=key_size, latents=64, frames=8, projected_width=language.width
        ),
        language=language,
        xattn=XattnConfig(every=every, heads=language.heads, key_size=128),
    )


def _flamingos() -> dict:
    both = {"vision encoder": "435M", "resampler": "194M"}
    rows = {  # layers, printed layers, width, heads, every, and the sizes of the parts in table 5
        "flamingo-3b": ((24, 24, 2048, 16, 1), ("1.4B", "1.2B", "3.2B")),
        "flamingo-9b": ((32, 40, 4096, 32, 4), ("7.1B", "1.6B", "9.3B")),
        "flamingo-80b": ((80, 80, 8192, 64, 7), ("70B", "10B", "80B")),
    }
    models = {}
    for name, ((layers, printed_layers, width, heads, every), figures) in rows.items():
        printed = both | dict(zip(("language model", "gated blocks", "total"), figures, strict=True))
        models[name] = PaperModel(paper_flamingo(decoder(layers, width, heads, 128), every), printed)
        literal = paper_flamingo(decoder(printed_layers, width, heads, 128), every, key_size=96)
        models[f"{name}-printed"] = PaperModel(literal, printed)
    return models


PAPER = {
    **_flamingos(),
    **{f"nfnet-f{n}": PaperModel(nfnet(n, side), {"total": size}) for n, (side, size) in NFNETS.items()},
    "clip-vit-l14": PaperModel(CLIP_VIT_L14, {"total": "304M"}),
    "chinchilla-70b": PaperModel(decoder(80, 8192, 64, 128), {"total": "70B"}),
    **{
        name: PaperModel(decoder(layers, width, heads, key_size), {"total": f"{millions}M"})
        for name, (millions, width, key_size, heads, layers) in A9.items()
    },
}
