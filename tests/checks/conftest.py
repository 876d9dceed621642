"""``card`` and the catalogues importable from here."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
