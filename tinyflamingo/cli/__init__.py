"""The command line: parse, call, print. A mistake of the user gives one line on stderr and exit code 2.

Implements no section of the chapter. Each command imports its code only when it runs, so that `--help` and errors are
immediate. Not here: any mathematics.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

from tinyflamingo import __version__
from tinyflamingo.cli import evaluate, studies, tools, train, use
from tinyflamingo.cli.parser import MixedParser, Parser
from tinyflamingo.errors import SafeStderr, UserError, complain
from tinyflamingo.language import _


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 on success, 2 for a mistake of the user, 130 after Ctrl-C."""
    with contextlib.redirect_stderr(SafeStderr()):
        return _run(argv)


def _run(argv) -> int:
    args = None
    try:
        _ready_stdout()
        try:
            args = _parser().parse_args(argv)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's; what is not finite is an error anyway
                args.run(args)
        finally:  # also after `--help`, which exits
            sys.stdout.flush()
        return 0
    except UserError as error:
        return _complain(error)
    except BrokenPipeError:  # the reader of our output is closed
        _end_stdout()
        return 141
    except OSError as error:  # a full disk, a name that is too long, no permission: the user must repair it
        _end_stdout()
        return _complain(f"{_(error.strerror or str(error))}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        again = hasattr(args, "resume")
        text = "tinyflamingo: stopped; continue a training run with --resume" if again else "tinyflamingo: stopped"
        print(_(text), file=sys.stderr)
        return 130


def _ready_stdout():
    """Print letters that the encoding of stdout lacks as escapes. A closed stdout is an error before any work."""
    if sys.stdout is None:
        raise UserError("stdout is closed, so nothing can be printed: leave it open, or redirect it to /dev/null")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end_stdout():
    """Write what is left for stdout. If that fails, throw it away: Python would try it once more at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error) -> int:
    complain(error)
    return 2


def _parser():
    parser = Parser(prog="python -m tinyflamingo", description="Flamingo by hand: train it, use it, inspect it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=MixedParser)
    for group in (train, use, evaluate, studies, tools):
        group.add(commands)
    return parser
