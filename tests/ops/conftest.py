"""Makes ``ops_cases`` and ``mutants`` importable. The fixtures are in ``tests/conftest.py``."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
