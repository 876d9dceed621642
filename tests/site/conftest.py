"""The built site, once for all tests."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import required

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "docs" / "site"), str(ROOT / "notebooks")]

from make_site import KATEX, NEEDED, find_katex  # noqa: E402

from tinyflamingo.errors import UserError  # noqa: E402


@pytest.fixture(scope="session")
def katex():
    """The package of KaTeX."""
    try:
        return find_katex(None)
    except UserError:
        pytest.skip(f"{KATEX} is not there and cannot be fetched")


@pytest.fixture(scope="session")
def built(katex, tmp_path_factory):
    """(folder of the site, what the command printed, seconds of the processor)."""
    if libraries := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(libraries)}")
    folder = tmp_path_factory.mktemp("site") / "html"
    before = os.times()
    command = [sys.executable, str(ROOT / "docs" / "make_site.py"), "--out", str(folder), "--katex", str(katex)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    after = os.times()
    assert done.returncode == 0, done.stdout + done.stderr
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return folder, done.stdout, used


@pytest.fixture(scope="session")
def site(built):
    return built[0]


@pytest.fixture(scope="session")
def chromium():
    return required("Chromium")
