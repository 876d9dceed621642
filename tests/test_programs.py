"""What is not tested is named before pytest's summary."""

from programs import missing


def test_reasons_of_skipped_tests_name_what_is_missing():
    reasons = [
        "Skipped: could not import 'timm': No module named 'timm'",
        "Skipped: could not import 'tinyflamingo.bench.torch_sides': No module named 'torch'",
        "Skipped: Node is not installed",
        "Skipped: not installed: sphinx, furo",
        "Skipped: katex@0.19.1 is not there and cannot be fetched",
        "Skipped: reads /proc",
        "Skipped: Node is not installed",
    ]
    assert missing(reasons) == ["Node", "furo", "katex@0.19.1", "sphinx", "timm", "torch"]
    assert missing(["Skipped: only root may mount a small disk"]) == []
