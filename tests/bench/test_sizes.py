"""The paper's configurations give the paper's counts; costs come from the model's own code."""

import dataclasses
import re
import tracemalloc

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.bench import sizes
from tinyflamingo.bench.flops import gemm_flops, relative_attention_flops
from tinyflamingo.bench.sizes import counts, find_model, forward
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.language_model import init_language_model, language_model
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import count
from tinyflamingo.training.presets import get_preset, parameter_counts
from tinyflamingo.variants.paper import A9, CLIP_VIT_L14, PAPER, nfnet

# The sizes of the parts, computed by hand from the hyper-parameters in the papers.
VISION = 435_286_116
RESAMPLER = {128: 6 * (4 * 1536 * 2048 + 8 * 1536**2) + 3072 * 1536, 96: 6 * 12 * 1536**2 + 3072 * 1536}
RECONSTRUCTED = {  # language model, gated blocks, size of the resampler's keys
    "flamingo-3b": (24 * (5 + 8) * 2048**2 + 32_000 * 2048, 24 * 12 * 2048**2, 128),
    "flamingo-9b": (32 * (5 + 8) * 4096**2 + 32_000 * 4096, 8 * 12 * 4096**2, 128),
    "flamingo-80b": (80 * (5 + 8) * 8192**2 + 32_000 * 8192, 12 * 12 * 8192**2, 128),
    "flamingo-3b-printed": (24 * (5 + 8) * 2048**2 + 32_000 * 2048, 24 * 12 * 2048**2, 96),
    "flamingo-9b-printed": (40 * (5 + 8) * 4096**2 + 32_000 * 4096, 10 * 12 * 4096**2, 96),
    "flamingo-80b-printed": (80 * (5 + 8) * 8192**2 + 32_000 * 8192, 12 * 12 * 8192**2, 96),
}


def _number(figure):
    """(figure, half of its last digit): "435M" gives (435000000.0, 500000.0)."""
    digits, unit = re.fullmatch(r"([\d.]+)([MB])", figure).groups()
    unit = {"M": 1e6, "B": 1e9}[unit]
    return float(digits) * unit, 0.5 * unit * 10.0 ** -len(digits.partition(".")[2])


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_parts_of_flamingo(name):
    language, gated, key_size = RECONSTRUCTED[name]
    parts = {part: row["parameters"] for part, row in counts(name).items()}
    assert parts["vision encoder"] == VISION
    for part, size in {"language model": language, "gated blocks": gated, "resampler": RESAMPLER[key_size]}.items():
        assert parts[part] == pytest.approx(size, rel=0.01), part
    assert parts["total"] == sum(size for part, size in parts.items() if part != "total")


@pytest.mark.parametrize("name", ["flamingo-3b", "flamingo-9b", "flamingo-80b"])
def test_the_default_reading_gives_what_table_5_prints(name):
    """To one unit of the last printed digit: the paper seems to truncate some figures instead of rounding."""
    for part, row in counts(name).items():
        if "printed" in row:
            figure, half = _number(row["printed"])
            assert abs(row["parameters"] - figure) <= 2 * half, part


def test_the_printed_reading_does_not():
    parts = counts("flamingo-9b-printed")
    for part in ("language model", "gated blocks", "resampler", "total"):
        figure, half = _number(parts[part]["printed"])
        assert abs(parts[part]["parameters"] - figure) > 2 * half, part


@pytest.mark.parametrize(
    "change, total",
    [
        ({"xattn": {"every": 2}}, 2.6),
        ({"xattn": {"every": 4}}, 2.3),
        ({"vision": CLIP_VIT_L14, "resampler": {"input_width": 1024}}, 3.1),
    ],
)
def test_totals_of_the_papers_ablations(change, total):
    """Table 10, Flamingo-3B with one thing changed."""
    config, parts = PAPER["flamingo-3b"].config, {}
    for name, value in change.items():
        parts[name] = dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
    count = parameter_counts(dataclasses.replace(config, **parts))["total"]["parameters"]
    assert round(count / 1e9, 1) == total


def test_nfnets_exactly():
    """F0 is as in the code of its authors; each further F adds the same 61,144,972."""
    for n in range(7):
        row = counts(f"nfnet-f{n}")["total"]
        assert row["parameters"] == 71_489_284 + n * 61_144_972
        assert f"{row['parameters'] / 1e6:.1f}M" == row["printed"]


def test_all_rows_of_chinchillas_table():
    assert len(A9) == 50
    for name, (millions, *_) in A9.items():
        assert counts(name)["total"]["parameters"] / 1e6 == pytest.approx(millions, abs=0.6), name


def test_clip_exactly():
    """Patches, positions, 24 blocks with all biases, three norms, the projection."""
    D = 1024
    blocks = 24 * (12 * D * D + 13 * D)
    assert counts("clip-vit-l14")["total"]["parameters"] == 14 * 14 * 3 * D + D + 257 * D + blocks + 4 * D + D * 768


def test_counting_80_billion_takes_no_memory():
    counts("smoke")
    tracemalloc.start()
    counts("flamingo-80b")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # instead of 321 GB; only the vectors of gains and biases are real


def test_our_presets_count_the_allocated_parameters():
    config = get_preset("smoke").config
    real = init_language_model(np.random.default_rng(0), config.language)
    assert counts("smoke")["language model"]["parameters"] == count(real)
    assert "text tower" in counts("smoke") and "text tower" not in counts("flamingo-3b")


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(UserError, match="giant.*toy.*flamingo-80b.*chinchilla-44m"):
        find_model("giant")


# ---------------------------------------------------------------- costs


@pytest.mark.parametrize(
    "name, text", [("toy", "(250,000 updates of the paper's batch)"), ("chinchilla-44m", "(20 tokens per parameter)")]
)
def test_the_whole_training_is_described(name, text):
    (line,) = (line for line in sizes.format_sizes(sizes.sizes(name, 1e9)).split("\n") if "whole training" in line)
    assert line.endswith(text)


@pytest.mark.parametrize("n, side, billions", [(0, 256, 12.38), (1, 320, 35.54), (6, 576, 377.28)])
def test_flops_of_nfnets_are_those_of_their_paper(n, side, billions):
    """Table 3 of their paper, at the test resolutions. There a multiplication and an addition are one flop."""
    assert round(forward(nfnet(n, side))["vision encoder"].flops / 2e9, 2) == billions


def test_hollow_flops_are_those_of_a_real_pass():
    """The language model of the smoke preset runs, and each product is noted."""
    config = dataclasses.replace(get_preset("smoke").config.language, layers=3)
    params, tokens = init_language_model(np.random.default_rng(0), config), np.zeros((1, 256), int)
    with ops.use("reference"):
        real = gemm_flops(lambda: language_model(params, tokens, config))
    hollow = forward(config)["language model"].flops
    H, K, T = config.heads, config.key_size, 256
    causal, dense = _relative(T, H, K), 3 * 2 * H * K * T * T
    assert hollow == real + config.layers * (dense - causal)


def _relative(T, H, K):
    """The flops that `gemm_flops` counts for causal attention: pairs up to the diagonal."""
    q = np.zeros((1, T, H, K))
    return relative_attention_flops(q, q, q, q[0], q[0, 0], q[0, 0], np.zeros((1, T), int))


def test_flops_of_the_parts_by_hand():
    """Flamingo-3B: every matrix of a gated block and of a decoder block, times its number of rows."""
    passes = forward(PAPER["flamingo-3b"].config)
    D, T, M, R = 2048, 256, 5, 64
    gated = 2 * T * (2 * D * D + 8 * D * D) + 2 * M * R * 2 * D * D + 2 * 2 * T * M * R * D
    assert passes["gated blocks"].flops == 24 * gated
    block = 2 * T * (5 + 8) * D * D + 3 * 2 * T * T * D
    assert passes["language model"].flops == 24 * block + 2 * T * D * 32_000


def test_costs_follow_the_frozen_parts():
    c, parts = sizes.costs("smoke"), counts("smoke")
    passes = forward(get_preset("smoke").config)
    trained = sum(row["parameters"] for row in parts.values() if row["state"] == "trained")
    total = parts["total"]["parameters"]
    assert c["weight_bytes"] == 4 * total and c["training_bytes_unfrozen"] == 16 * total
    assert c["training_bytes"] == 4 * total + 12 * trained
    language, vision = passes["language model"].flops, passes["vision encoder"].flops
    assert c["step_flops"] == 3 * c["forward_flops"] - language - 2 * vision
    assert isinstance(get_preset("smoke").config, FlamingoConfig) and c["training_flops"] > 250_000 * c["step_flops"]


def test_chinchillas_training_is_six_flops_per_parameter_and_token():
    c, n = sizes.costs("chinchilla-70b"), counts("chinchilla-70b")["total"]["parameters"]
    assert c["training_flops"] == pytest.approx(6 * n * 20 * n, rel=0.03)


@pytest.mark.parametrize("value, text", [(999, "999 B"), (1000, "1 kB"), (12_340, "12.3 kB"), (3.2e11, "320 GB")])
def test_units(value, text):
    assert sizes.units(value, "B") == text


@pytest.mark.parametrize("seconds, text", [(0.5, "0.5 s"), (100, "100 s"), (7200, "2 hours"), (4e12, "126,839 years")])
def test_durations(seconds, text):
    assert sizes.duration(seconds) == text


def test_hollow_parameters_have_the_names_and_shapes_of_real_ones():
    from tinyflamingo.ops.tree import named_leaves
    from tinyflamingo.variants.registry import untrained

    config = get_preset("smoke").config
    real, empty = (untrained(rng, config, None) for rng in (np.random.default_rng(0), HollowGenerator()))
    for part in ("params", "frozen"):
        shapes = [{n: np.shape(a) for n, a in named_leaves(getattr(m, part)).items()} for m in (real, empty)]
        assert shapes[0] == shapes[1]
