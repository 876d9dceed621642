"""Node, Chromium and packed checkpoints; and a line that says what was not tested without them."""

import json
import os

import pytest
from programs import PROGRAMS, installed, required

from tinyflamingo.explorer import build


def pytest_terminal_summary(terminalreporter):
    """A skipped comparison must not go unnoticed: one line at the end, before the summary, names the programs."""
    missing = [name for name in PROGRAMS if not installed(name)]
    if terminalreporter.stats.get("skipped") and missing:
        terminalreporter.write_line(f"EXPLORER NOT TESTED in programs that are not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def node():
    return required("Node")


@pytest.fixture(scope="session")
def chromium():
    return required("Chromium")


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """A function: type of the weights -> the file of the packed checkpoint that ships."""
    folder = tmp_path_factory.mktemp("packed")

    def file(dtype, checkpoint=None):
        path = folder / f"{dtype}-{os.path.basename(checkpoint or 'shipped')}.json"
        if not path.exists():
            path.write_text(json.dumps(build.pack(checkpoint, dtype)))
        return path

    return file
