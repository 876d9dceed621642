"""The parser of the command line: help in the language of the reader, and one line for a mistake.

Not here: the commands, and the types of their arguments (`arguments.py`).
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from tinyflamingo.errors import UserError
from tinyflamingo.language import _, is_chinese, wrapped


class Help(argparse.HelpFormatter):
    """Help in the language of the reader."""

    def start_section(self, heading):
        super().start_section(heading and _(heading))

    def add_text(self, text):
        super().add_text(text and _(text))

    def _expand_help(self, action):
        return _(super()._expand_help(action))

    def _split_lines(self, text, width):
        return wrapped(text, width) if is_chinese() else super()._split_lines(text, width)


class Parser(argparse.ArgumentParser):
    """A mistake raises `UserError`; the help is in the language of the reader."""

    def __init__(self, **options):
        super().__init__(formatter_class=Help, **options)

    def format_help(self) -> str:
        return super().format_help().replace("usage: ", _("usage: "), 1)

    def error(self, message: str) -> NoReturn:
        """Raise one line; argparse would print two."""
        raise UserError(f"{message} (see '{self.prog} --help')")


class MixedParser(Parser):
    """Accepts files after options too: `complete TEMPLATE --json FILE`. argparse alone refuses this."""

    mixing = False

    def parse_known_args(self, args=None, namespace=None):
        if self.mixing:  # argparse calls this method again, twice
            return super().parse_known_args(args, namespace)
        self.mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixing = False
