"""The exception for a mistake that the user can fix, and the line for what the user should know.

The command line and the demo catch `UserError`, print its one line on stderr and exit with code 2. It is not for
mistakes of the programmer: a wrong argument inside the package raises ValueError with its traceback.
"""

import os
import sys
from contextlib import suppress
from typing import Any

from tinyflamingo.language import _


class UserError(Exception):
    """A user's mistake. The message is one line: what was given, what is wrong with it, what to do.

    It is a plain string or an f-string; `str` gives it in the language of the reader.
    """

    def __str__(self) -> str:
        return _(super().__str__())


def complain(message: object) -> None:
    """Print one line on stderr, in the language of the reader; the program goes on."""
    print(f"tinyflamingo: {printable(' '.join(_(str(message)).split()))}", file=sys.stderr)


class Stopped(UserError):
    """A run that had begun stopped by itself; what it saved is kept."""


class SafeStderr:
    """Stderr for the time of a command. If it is closed or its disk is full, its lines are lost; the work goes on."""

    def __init__(self) -> None:
        self.file: Any = sys.stderr or open(os.devnull, "w", encoding="utf-8")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        """Write if possible."""
        with suppress(OSError, ValueError):
            self.file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        with suppress(OSError, ValueError):
            self.file.flush()


def printable(text: str) -> str:
    """The text with escapes for control characters, which could change a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
