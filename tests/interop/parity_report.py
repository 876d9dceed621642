"""The report of `parity`: the measured difference between our outputs and the peers' outputs.

One row for each part of a peer, with the version of the installed package. If a package is not installed, the
row says so. The report contains only numbers that this run measured.
"""

from __future__ import annotations

import importlib.metadata
from functools import partial
from typing import NamedTuple

import numpy as np
import parity_parts as parity
import parity_pictures
import parity_vision as vision_parity
import parity_whole

from tinyflamingo.interop import peers


class Case(NamedTuple):
    """One comparison: run(dtype) gives the largest difference."""

    peer: str
    packages: tuple  # distributions that must be installed; the first is the peer's own
    part: str
    run: object
    dtypes: tuple = (np.float32, np.float64)


PACKAGES = {"flamingo-pytorch": "flamingo-pytorch", "flamingo-mini": "flamingo-mini", "open_flamingo": "open-flamingo"}
FLOAT32 = (np.float32,)  # for parts that compute only in float32, in the peer or in ours
CASES = [
    *(Case(peer, (PACKAGES[peer], "torch"), "resampler", partial(parity.resampler, peer)) for peer in peers.PORTS),
    *(Case(peer, (PACKAGES[peer], "torch"), "gated block", partial(parity.gated_block, peer)) for peer in peers.PORTS),
    *(
        Case("transformers", ("transformers", "torch"), f"{name} decoder", partial(parity.language, kind), dtypes)
        for kind, name, dtypes in (
            ("gpt2", "GPT-2", (np.float32, np.float64)),
            ("opt", "OPT", (np.float32, np.float64)),
            ("mpt", "MPT", FLOAT32),
        )
    ),
    *(
        Case(
            "open_flamingo",
            ("open-flamingo", "open_clip_torch", "transformers", "torch"),
            f"the whole: CLIP, {name}, resampler, gated blocks",
            partial(parity_whole.whole, kind),
            FLOAT32,
        )
        for kind, name in (("mpt", "MPT"), ("opt", "OPT"))
    ),
    *(
        Case("timm", ("timm", "torch"), f"encoder `{name}`, small", partial(vision_parity.encoder, name))
        for name in ("nf_resnet50", "dm_nfnet_f0", "nfnet_f0")
    ),
    *(
        Case("open_clip", ("open_clip_torch", "torch"), f"image tower, {act}", partial(vision_parity.towers, act))
        for act in ("quick_gelu", "gelu_erf")
    ),
    Case("timm", ("timm", "torch"), "pictures of 15 encoders, of 255", parity_pictures.timm_models, FLOAT32),
    Case("open_clip", ("open_clip_torch", "torch"), "pictures, of 255", parity_pictures.open_clip, FLOAT32),
]
HEAD = """# Parity

Our outputs compared with those of the public ports of Flamingo and of the models that the ports use. Each number is
the largest absolute difference in the output, on random weights of a small configuration: no layer here is wider than
128, and the name of a model means its names and conventions, not its size. The weights come from the peer's own
`state_dict` and enter ours through the tables of `convert`. Written by
`python -m tinyflamingo parity --out docs/parity.md`; a dash: the peer does not compute everything in float64. The
tests require less than 1e-4 in float32 and 1e-9 in float64, and equal pictures.

The wholes: `convert` reads the peer's weights from a file. Both programs get pictures that are not square, and prepare
them. The peer's image tower gives features before its final norm (`final_ln_after_pool`), as `open_clip` did when
OpenFlamingo was trained; later releases give features after it.

The pictures: wide, tall, tiny, grey, with a palette, transparent and with 16 bits. A peer's transform would lose
transparency and the upper half of 16 bits, so it gets the picture that our reader shows: over white, and scaled.

At real widths our outputs were not compared with a peer's. There `python -m pytest tests/variants/test_real_widths.py`
compares the readable reference with the fast operations: one block of each stage of timm's encoders, and one layer of
each part of OpenFlamingo-3B and of the paper's 3B.

| peer | version | part | float32 | float64 |
|---|---|---|---|---|
"""


def parity_report(cases=CASES) -> str:
    """The report as Markdown."""
    return HEAD + "".join(_row(case) for case in cases)


def _row(case: Case) -> str:
    versions = [installed(package) for package in case.packages]
    if None in versions:
        absent = case.packages[versions.index(None)]
        return f"| {case.peer} | {versions[0] or '-'} | {case.part} | not run: {absent} is not installed | |\n"
    differences = {dtype: f"{case.run(dtype):.1e}" for dtype in case.dtypes}
    single, double = differences.get(np.float32, "-"), differences.get(np.float64, "-")
    return f"| {case.peer} | {versions[0]} | {case.part} | {single} | {double} |\n"


def installed(package) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
