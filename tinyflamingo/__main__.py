"""Entry point of `python -m tinyflamingo …`. The commands are in `cli/`."""

import sys

from tinyflamingo.cli import main

if __name__ == "__main__":
    sys.exit(main())
