"""Programs and packages that some tests need and that may be missing: the tests are skipped then, and say so."""

import re
import shutil

import pytest

PROGRAMS = {"Node": ("node", "nodejs"), "Chromium": ("chromium", "chromium-browser", "google-chrome")}
MODULE = r"could not import '(?!tinyflamingo)(\w+)|No module named '(\w+)"
MISSING = re.compile(MODULE + r"|(\S+) is not (?:installed|there)|not installed: (.*)")


def missing(reasons):
    """What is missing, by the reasons of skipped tests."""
    groups_of_names = [name for reason in reasons for groups in MISSING.findall(reason) for name in groups if name]
    return sorted({name for names in groups_of_names for name in names.split(", ")})


def installed(name):
    """The path of a program, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS[name])), None)


def required(name):
    return installed(name) or pytest.skip(f"{name} is not installed")
