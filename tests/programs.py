"""Programs that some tests need and that may be missing: the tests are skipped then, and say so."""

import shutil

import pytest

PROGRAMS = {"Node": ("node", "nodejs"), "Chromium": ("chromium", "chromium-browser", "google-chrome")}


def installed(name):
    """The path of a program, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS[name])), None)


def required(name):
    return installed(name) or pytest.skip(f"{name} is not installed")
