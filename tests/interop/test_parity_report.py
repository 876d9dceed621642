"""The parity report lists the parts that ran and those that could not run."""

from pathlib import Path

import numpy as np
from parity_report import CASES, HEAD, Case, parity_report


def test_a_row_of_numbers_and_a_row_without():
    ran = Case("a", ("numpy",), "sum", lambda dtype: 2.5e-7 if dtype == np.float32 else 3e-16)
    single = Case("b", ("numpy",), "mean", lambda dtype: 0.0, (np.float32,))
    absent = Case("c", ("no-such-package", "numpy"), "all", None)
    half = Case("d", ("numpy", "no-such-package"), "all", None)
    rows = parity_report([ran, single, absent, half]).splitlines()[-4:]
    assert rows[0] == f"| a | {np.__version__} | sum | 2.5e-07 | 3.0e-16 |"
    assert rows[1] == f"| b | {np.__version__} | mean | 0.0e+00 | - |"
    assert rows[2] == "| c | - | all | not run: no-such-package is not installed | |"
    assert rows[3] == f"| d | {np.__version__} | all | not run: no-such-package is not installed | |"


def test_each_part_is_listed_once():
    assert len({(case.peer, case.part) for case in CASES}) == len(CASES) == 18


def test_the_written_report_has_this_head_and_these_parts():
    text = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    parts = [tuple(row.split(" | ")[::2][:2]) for row in text.removeprefix(HEAD).splitlines()]
    assert parts == [(f"| {case.peer}", case.part) for case in CASES]
