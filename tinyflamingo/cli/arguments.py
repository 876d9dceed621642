"""Types of arguments, and files that commands write. A wrong one is refused before any work.

Not here: the commands.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.files import check_name, write_atomically

DIGITS = 100  # longest number on the command line
FIGURES = (".png", ".pdf", ".svg")


def whole(text):
    """A whole number >= 0."""
    if not text.isdecimal() or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:DIGITS]!r} is not a whole number >= 0 of at most {DIGITS} digits")
    return int(text)


def path(text):
    """A path that is not empty; it is empty if a shell variable is not set."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path: is a shell variable not set?")
    return Path(text)


def place(text):
    """The same as text, for data that a format may describe in its own way."""
    return str(path(text))


def fraction(text):
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:DIGITS]!r} is not a number from 0 to 1")
    return value


def writable(path, *suffixes, folder=False):
    """The path of a file (or folder) to write. Raises `UserError` before any work if it cannot be written.

    suffixes: those of a file of this kind, if it has some. So a file of another kind is not overwritten by mistake.
    """
    check_name(path)
    if path.is_dir() and not folder:
        raise UserError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file() and os.access(path, os.W_OK):
        return path  # a device or a pipe
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"cannot write {path}: its name must end in {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: its folder does not exist")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write in its folder")
    return path


def json_target(path):
    """The path of a JSON file to write, or None without one."""
    return path and writable(path, ".json")


def write_json(target: Path | None, report: dict) -> None:
    """Write a report, if there is a file for it."""
    if target:
        write_atomically(target, json.dumps(report, indent=1).encode())
