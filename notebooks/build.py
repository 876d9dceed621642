"""Builds the notebooks from their sources. One source makes two notebooks, executed:

    notebooks/src/NN_name.py  ->  notebooks/NN_name.ipynb            for the reader, exercises open
                              ->  notebooks/solutions/NN_name.ipynb  the same, exercises solved

    python notebooks/build.py            all of them
    python notebooks/build.py NAME ...   these
    python notebooks/build.py --check    only look whether what is there is what the sources say

A source is a Python file cut into cells. Change the source and build; a notebook is never edited by hand.

    # %%                   code
    # %% [markdown]        text, each line after "# "
    # %% exercise NN.k     code; inside a function, "# solution" and "# end of solution" stand around what the
                           reader is to write, and the reader's copy raises NotImplementedError there
    # %% check NN.k        code: the import of a check and its call

An exercise is a text cell that begins "### Exercise NN.k · title", with a line
"*difficulty: easy · minutes: 5*" below, an exercise cell and a check cell. No other cell may need what the
reader writes: the reader's copy runs to its end untouched. The first text cell says the minutes and
"key: WORD", the word that joins notebook, library, tests and docs. The text beside a figure has a paragraph
"*Figure: what is to be seen.*", for those who cannot see it; it becomes the picture's alternative text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
SOLUTIONS = HERE / "solutions"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
SOLUTION = re.compile(r"^( *)# solution\n.*?^ *# end of solution\n?", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"^\*Figure:\s*(.*?)\*\s*$", re.MULTILINE | re.DOTALL)
PACKAGE = 'sys.path.insert(0, "..")'  # the package lies beside the notebooks; seen from solutions/ one higher


def read_source(path, solved=False):
    """The cells of a source file as a notebook without outputs; `solved`: the exercises with their solutions."""
    cells = []
    for part in ("\n" + path.read_text(encoding="utf-8")).split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        head = head.strip()
        if head == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cells.append(new_markdown_cell("\n".join(lines)))
        else:
            cells.append(_code_cell(head, body.strip(), solved))
        cells[-1]["id"] = f"cell-{len(cells):02d}"
    return new_notebook(cells=cells, metadata=KERNEL)


def _code_cell(head, body, solved):
    """A code cell; those of an exercise are tagged with what they are and its number."""
    kind, _, key = head.partition(" ")
    if kind not in ("", "exercise", "check"):
        raise ValueError(f"unknown kind of cell: # %% {head}")
    if kind == "exercise" and not solved:
        body = leave_open(key, body)
    if solved:
        body = body.replace(PACKAGE, PACKAGE.replace('".."', '"../.."'))
    return new_code_cell(body, metadata={"tags": [kind, key]} if kind else {})


def leave_open(key, body):
    """An exercise with its solution taken out. It stands in a function, so that the cell itself still runs."""
    opened, count = SOLUTION.subn(rf'\1raise NotImplementedError("Exercise {key}: your turn")\n', body)
    if not count or not all(match[1] for match in SOLUTION.finditer(body)):
        raise ValueError(f"exercise {key} needs `# solution` and `# end of solution` inside a function")
    return opened.strip()


def kind_of(cell):
    """("exercise" or "check", its number), or ("", "")."""
    return tuple(cell.metadata.get("tags", ("", "")))


def execute(notebook, seconds=300, folder=HERE, watch=None):
    """Run a notebook in a folder and keep its outputs, without the times of its cells.

    watch: called with the client before it runs, to hang hooks on it.
    """
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # printed text is one output, however it arrived
        resources={"metadata": {"path": folder}},
    )
    if watch:
        watch(client)
    client.execute()
    notebook.metadata = nbformat.from_dict(KERNEL)  # the version of Python is nobody's business here
    return describe_figures(notebook)


def describe_figures(notebook):
    """Give every picture the words of the `*Figure: …*` beside it as its alternative text."""
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            words = figure_text(notebook, place)
            if "image/png" in output.get("data", {}) and words:
                output.metadata = nbformat.from_dict({"image/png": {"alt": words}})
    return notebook


def figure_text(notebook, place):
    """What the text just before or just after a cell says about its figure; "" if nothing."""
    beside = [notebook.cells[i] for i in (place - 1, place + 1) if 0 <= i < len(notebook.cells)]
    found = [FIGURE.search(cell.source) for cell in beside if cell.cell_type == "markdown"]
    return next((" ".join(match[1].split()) for match in found if match), "")


def build(source):
    """(reader's notebook, solved notebook or None): one run of the solved one fills both with outputs."""
    opened, solved = read_source(source), read_source(source, solved=True)
    exercises = any(kind_of(cell)[0] for cell in solved.cells)
    execute(solved, folder=SOLUTIONS if exercises else HERE)
    for mine, theirs in zip(opened.cells, solved.cells, strict=True):
        if mine.cell_type == "code" and not kind_of(mine)[0]:
            mine.outputs, mine.execution_count = theirs.outputs, theirs.execution_count
    return opened, solved if exercises else None


def places(source):
    """Where the notebooks of a source lie, with what they are: [(path, solved)]."""
    exercises = "\n# %% exercise " in source.read_text(encoding="utf-8")
    both = [(HERE / f"{source.stem}.ipynb", False), (SOLUTIONS / f"{source.stem}.ipynb", True)]
    return both if exercises else both[:1]


def told(notebook):
    """What a notebook says, without what it printed."""
    return [(cell.id, cell.cell_type, cell.metadata, cell.source) for cell in notebook.cells]


def stale(source):
    """The notebooks of a source that are not there or say something else."""
    return [
        path
        for path, solved in places(source)
        if not path.is_file() or told(nbformat.read(path, as_version=4)) != told(read_source(source, solved))
    ]


def sources(names=()):
    """Paths of the sources, all or the named ones."""
    return [HERE / "src" / f"{n}.py" for n in names] or sorted((HERE / "src").glob("*.py"))


def main(arguments):
    """Build, or with --check only name what is stale; the exit code."""
    chosen = sources([a for a in arguments if a != "--check"])
    if "--check" in arguments:
        old = [path.relative_to(HERE).as_posix() for source in chosen for path in stale(source)]
        print("\n".join(f"stale: notebooks/{name}" for name in old) or "the notebooks are what their sources say")
        return 1 if old else 0
    SOLUTIONS.mkdir(exist_ok=True)
    for source in chosen:
        for notebook, (path, _) in zip(build(source), places(source), strict=False):
            nbformat.write(notebook, path)
            print(f"notebooks/{path.relative_to(HERE).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
