"""For every test: shape checks on, both floors, one tokenizer, a tiny model, and the keys of the notebooks."""

import os
import sys
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("TINYFLAMINGO_CHECK", "1")  # before the package is imported
os.environ["TINYFLAMINGO_LANGUAGE"] = "en"  # the tests read English messages, on a Chinese machine too
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # `model_cases`, from any folder

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from programs import missing  # noqa: E402

from tinyflamingo import ops  # noqa: E402
from tinyflamingo.data.tinyworld.text import tokenizer_lines  # noqa: E402
from tinyflamingo.model.tokenizer import train_tokenizer  # noqa: E402
from tinyflamingo.ops import shapes  # noqa: E402

# Every run of the tests has the same examples; `--hypothesis-profile=random` looks for new ones.
with suppress(ImportError):  # few tests need Hypothesis
    from hypothesis import settings

    settings.register_profile("random")
    settings.register_profile("same", derandomize=True)
    settings.load_profile("same")

# The key of each notebook, in their order, and the test files of what it teaches: `python -m pytest -m masking`.
# A test that is run once a notebook (its id begins with the number) belongs to that notebook's key too.
KEYS = {
    "whole": ["test_tiny.py", "model/test_flamingo.py"],
    "autograd": ["ops/test_ops_tools.py", "ops/test_ops_values.py", "ops/test_ops_meaning.py"],
    "nf_resnet": ["model/test_vision_encoder.py", "training/test_optimiser.py"],
    "contrastive": ["model/test_contrastive.py", "training/test_contrastive_stage.py"],
    "video": ["data/test_video.py"],
    "resampler": ["model/test_resampler.py"],
    "chinchilla": ["model/test_language_model.py", "training/test_language_stage.py"],
    "masking": ["model/test_interleave.py"],
    "gating": ["model/test_gated_xattn.py"],
    "training": ["training/test_flamingo_stage.py", "training/test_run.py", "training/test_shards.py"],
    "applications": [
        "model/test_generate.py",
        "decoding/test_beams.py",
        "decoding/test_sampling.py",
        "decoding/test_caches.py",
        "decoding/test_complete.py",
        "studies/test_attention_maps.py",
        "cli/test_shipped.py",
    ],
    "few_shot": [
        "evaluation/test_tasks.py",
        "evaluation/test_evaluation_run.py",
        "evaluation/test_metrics.py",
        "evaluation/test_retrieval.py",
        "evaluation/test_specialists.py",
    ],
    "scale": ["model/test_config.py", "bench/test_sizes.py"],
}
OF_ALL_NOTEBOOKS = {"test_notebooks.py", "test_cards.py"}


def pytest_collection_modifyitems(items):
    """Mark every test with the keys it belongs to, and skip what this system does not have."""
    by_number = {f"{number:02d}": key for number, key in enumerate(KEYS)}
    for item in items:
        if os.name != "posix" and item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="needs POSIX"))
        file = item.path.relative_to(HERE).as_posix() if item.path.is_relative_to(HERE) else ""
        for key, files in KEYS.items():
            if file in files:
                item.add_marker(key)
        number = item.callspec.id[:2] if hasattr(item, "callspec") else ""
        if item.path.name in OF_ALL_NOTEBOOKS and number in by_number:
            item.add_marker(by_number[number])


def pytest_terminal_summary(terminalreporter):
    """What is not tested must not go unnoticed: a line before the summary names what is missing."""
    if names := missing(str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"NOT TESTED, because this is not installed: {', '.join(names)}")


@pytest.fixture(autouse=True)
def shape_checks():
    """On, whatever the environment says."""
    with shapes.checking():
        yield


@pytest.fixture(params=["reference", "fast"])
def floor(request):
    """The test body runs once on each floor."""
    with ops.use(request.param):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of the toy: 662 pieces, half a second."""
    return train_tokenizer(tokenizer_lines(np.random.default_rng(0)), 662)


@pytest.fixture
def tiny():
    """A tiny Flamingo in float64 with open gates: config, parts, params, frozen, and a batch of two rows."""
    import model_cases

    return model_cases.tiny()
