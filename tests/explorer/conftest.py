"""Node, Chromium and packed checkpoints."""

import json
import os

import pytest
from programs import required

from tinyflamingo.explorer import build


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
