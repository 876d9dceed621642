"""Scripts outside the package (`docs/`, `notebooks/build.py`), as modules."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def load_script(path):
    """The script at a path in the project, without .py: "docs/make_tables"."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"{path}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
