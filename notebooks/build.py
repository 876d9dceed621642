"""Builds the notebooks from their sources: `notebooks/src/NAME.py` becomes `notebooks/NAME.ipynb`, executed.

    python notebooks/build.py            all of them
    python notebooks/build.py NAME ...   these

A source is a Python file cut into cells by lines `# %%` (code) and `# %% [markdown]` (text, each line
after "# "). Change the source and build; a notebook is never edited by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def read_source(path):
    """The cells of a source file as a notebook without outputs."""
    cells = []
    for part in ("\n" + path.read_text(encoding="utf-8")).split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cells.append(new_markdown_cell("\n".join(lines)))
        else:
            cells.append(new_code_cell(body.strip()))
        cells[-1]["id"] = f"cell-{len(cells):02d}"
    return new_notebook(cells=cells, metadata=KERNEL)


def execute(notebook, seconds=300):
    """Run a notebook in this folder and keep its outputs, without the times of its cells."""
    NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", record_timing=False, resources={"metadata": {"path": HERE}}
    ).execute()
    notebook.metadata = nbformat.from_dict(KERNEL)  # the version of Python is nobody's business here
    return notebook


def sources(names=()):
    """Paths of the sources, all or the named ones."""
    return [HERE / "src" / f"{n}.py" for n in names] or sorted((HERE / "src").glob("*.py"))


if __name__ == "__main__":
    for source in sources(sys.argv[1:]):
        nbformat.write(execute(read_source(source)), HERE / f"{source.stem}.ipynb")
        print(f"notebooks/{source.stem}.ipynb")
