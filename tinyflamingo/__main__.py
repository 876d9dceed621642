"""`python -m tinyflamingo …`: see `cli.py`."""

import sys

from tinyflamingo.cli import main

if __name__ == "__main__":
    sys.exit(main())
