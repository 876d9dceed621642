"""``ops_cases`` importable from anywhere; the fixtures are those of ``tests/conftest.py``."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
