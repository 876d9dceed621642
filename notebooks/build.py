"""Builds the notebooks from their sources. Each source gives two executed notebooks:

    notebooks/src/NN_name.py  ->  notebooks/NN_name.ipynb            for the reader, exercises open
                              ->  notebooks/solutions/NN_name.ipynb  the same, exercises solved

    python notebooks/build.py            all of them
    python notebooks/build.py NAME ...   these
    python notebooks/build.py --check    change nothing; name the notebooks that differ from their sources
    python notebooks/build.py --minutes  change nothing; print how long a reader needs
    python notebooks/build.py --language zh_CN ...    the Chinese edition: see translate.py

A source is a Python file that is divided into cells. To change a notebook, change its source and build again.

    # %%                   code
    # %% [markdown]        text, each line after "# "
    # %% exercise NN.k     code; inside a function, the lines from "# solution" to "# end of solution" are the
                           reader's task, and the reader's copy has `raise NotImplementedError` in their place
    # %% check NN.k        code: the import of a check and its call
    # %% folded            code whose output is folded until the reader opens it, such as lines that solve an exercise

The first code cell, imports, cells that only draw, and cells with sliders are folded too: their code opens by a click.
Sliders leave no output in the file, so a static figure stands before them.

An exercise is a text cell that begins with "### Exercise NN.k · title" and a line "*difficulty: easy · minutes: 5*",
then an exercise cell, then a check cell. No other cell may need the reader's solution: the reader's copy has to run to
its end unchanged. The first text cell gives the minutes and "key: WORD", the word that connects notebook, library,
tests and docs. The text cell before or after a figure has a paragraph "*Figure: description.*"; it becomes the
alternative text of the picture, for readers who cannot see it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
SOLUTIONS = HERE / "solutions"
HIDDEN = {"jupyter": {"source_hidden": True}}
FOLDED = {"collapsed": True, "jupyter": {"outputs_hidden": True}}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
SOLUTION = re.compile(r"^( *)# solution\n.*?^ *# end of solution\n?", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"^\*(?:Figure:|图：)\s*(.*?)\*\s*$", re.MULTILINE | re.DOTALL)
DRAWS = re.compile(r"\b(?:plt|diagrams)\.show\(")
IMPORT = re.compile(r"import |from \S+ import ")
PACKAGE = re.compile(r"^(?:from|import) tinyflamingo\b", re.MULTILINE)
WIDGET = "application/vnd.jupyter.widget-view+json"
WORDS, LINES = 120, 3  # that one reads in a minute in a second language
# Before the imports of every notebook: a package that is not installed is one level above, or two, from solutions/.
BESIDE = 'import sys\n\nsys.path += ["..", "../.."]  # the package, if it is not installed\n\n'


def read_source(path: Path, solved: bool = False) -> NotebookNode:
    """The cells of a source file as a notebook without outputs. solved: with the solutions of the exercises."""
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
    _find_package(cells)
    _fold_code(cells)
    return new_notebook(cells=cells, metadata=KERNEL)


def _find_package(cells):
    """Put `BESIDE` before the imports of the first cell that needs it."""
    cell = next((c for c in cells if c.cell_type == "code" and PACKAGE.search(c.source)), None)
    if cell:
        cell.source = BESIDE + cell.source


def _fold_code(cells):
    """Fold the code that nobody needs to read at first: imports, the first cell, and cells that only draw."""
    codes = [cell for cell in cells if cell.cell_type == "code" and not cell.metadata]
    for place, cell in enumerate(codes):
        only_draws = DRAWS.search(cell.source) and not re.search(r"\b(?:def|class) |print\(", cell.source)
        if place == 0 or only_draws or "sliders(" in cell.source:
            cell.metadata = nbformat.from_dict(HIDDEN)


def _code_cell(head, body, solved):
    """A code cell. Exercise and check cells get two tags: "exercise" or "check", and the number."""
    kind, _, key = head.partition(" ")
    if kind not in ("", "exercise", "check", "folded"):
        raise ValueError(f"unknown kind of cell: # %% {head}")
    if kind == "exercise" and not solved:
        body = leave_open(key, body)
    if kind == "folded":
        return new_code_cell(body, metadata=FOLDED)
    return new_code_cell(body, metadata={"tags": [kind, key]} if kind else {})


def leave_open(key: str, body: str) -> str:
    """An exercise without its solution. The solution is inside a function, so the cell itself still runs."""
    opened, count = SOLUTION.subn(rf'\1raise NotImplementedError("Exercise {key}: your turn")\n', body)
    if not count or not all(match[1] for match in SOLUTION.finditer(body)):
        raise ValueError(f"exercise {key} needs `# solution` and `# end of solution` inside a function")
    return opened.strip()


def kind_of(cell: NotebookNode) -> tuple:
    """("exercise" or "check", its number), or ("", "")."""
    return tuple(cell.metadata.get("tags", ("", "")))


def execute(notebook: NotebookNode, seconds: int = 300, folder=HERE, watch: Callable | None = None) -> NotebookNode:
    """Run a notebook in a folder and keep its outputs, without the times of its cells.

    watch: called with the client before the run; it can add hooks.
    """
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # printed text becomes one output, in however many pieces it arrives
        resources={"metadata": {"path": folder}},
    )
    if watch:
        watch(client)
    client.execute()
    check_sliders(client)
    notebook.metadata = nbformat.from_dict(KERNEL)  # without the version of Python, which differs between machines
    return describe_figures(without_widgets(notebook))


def check_sliders(client: NotebookClient) -> None:
    """Raise the error of a slider's function: Jupyter shows it beside the slider, and the run goes on."""
    outputs = [output for widget in client.comm_objects.values() for output in widget.outputs]
    for output in outputs:
        if output["output_type"] == "error":
            raise ValueError(f"a slider stops with {output['ename']}: {output['evalue']}")


def without_widgets(notebook: NotebookNode) -> NotebookNode:
    """Take out the sliders: they need a running kernel, and their names differ at every run."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    return notebook


def describe_figures(notebook: NotebookNode) -> NotebookNode:
    """Give every picture the text of the neighbouring `*Figure: …*` as its alternative text."""
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            words = figure_text(notebook, place)
            if "image/png" in output.get("data", {}) and words:
                output.metadata = nbformat.from_dict({"image/png": {"alt": words}})
    return notebook


def figure_text(notebook: NotebookNode, place: int) -> str:
    """The description of a cell's figure in the text cell just before or just after it; "" if there is none."""
    beside = [notebook.cells[i] for i in (place - 1, place + 1) if 0 <= i < len(notebook.cells)]
    matches = [FIGURE.search(cell.source) for cell in beside if cell.cell_type == "markdown"]
    return next((" ".join(match[1].split()) for match in matches if match), "")


def build(source: Path) -> tuple:
    """(reader's notebook, solved notebook or None). One run of the solved notebook gives the outputs of both."""
    opened, solved = read_source(source), read_source(source, solved=True)
    exercises = any(kind_of(cell)[0] for cell in solved.cells)
    execute(solved, folder=SOLUTIONS if exercises else HERE)
    for cell, run in zip(opened.cells, solved.cells, strict=True):
        if cell.cell_type == "code" and not kind_of(cell)[0]:
            cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return opened, solved if exercises else None


def places(source: Path) -> list[tuple[Path, bool]]:
    """The paths of the notebooks of a source, and whether each has the solutions: [(path, solved)]."""
    exercises = "\n# %% exercise " in source.read_text(encoding="utf-8")
    both = [(HERE / f"{source.stem}.ipynb", False), (SOLUTIONS / f"{source.stem}.ipynb", True)]
    return both if exercises else both[:1]


def content(notebook: NotebookNode) -> list[tuple]:
    """The cells of a notebook without their outputs."""
    return [(cell.id, cell.cell_type, cell.metadata, cell.source) for cell in notebook.cells]


def stale(source: Path) -> list[Path]:
    """The notebooks of a source that are missing or differ from it."""
    return [
        path
        for path, solved in places(source)
        if not path.is_file() or content(nbformat.read(path, as_version=4)) != content(read_source(source, solved))
    ]


def sources(names=()) -> list[Path]:
    """Paths of the sources: all, or the named ones."""
    return [HERE / "src" / f"{n}.py" for n in names] or sorted((HERE / "src").glob("*.py"))


def minutes(source: Path) -> int:
    """Minutes that a reader needs, to the next 5: to read texts and code, and for the exercises as they say.

    Imports, and cells that draw, are not read line by line.
    """
    cells = read_source(source).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    codes = [cell.source for cell in cells if cell.cell_type == "code" and not kind_of(cell)[0]]
    read = [code for code in codes[1:] if not re.search(r"\b(?:plt|diagrams)\.|\bsliders\(", code)]
    lines = [line for code in read for line in code.splitlines() if line.strip() and not IMPORT.match(line)]
    exercises = [
        int(n) for text in texts for n in re.findall(r"^\*difficulty: .* minutes: (\d+)\*$", text, re.MULTILINE)
    ]
    total = sum(len(text.split()) for text in texts) / WORDS + len(lines) / LINES + sum(exercises)
    return 5 * round(total / 5)


def main(arguments: list[str]) -> int:
    """Build; with --check only name what is stale, with --minutes only print times. Returns the exit code."""
    if arguments[:2] == ["--language", "zh_CN"]:
        import translate

        return translate.main(arguments[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--minutes", action="store_true")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - {path.stem for path in sources([])}:
        parser.error(f"no source of this name: {', '.join(sorted(unknown))}")
    chosen = sources(args.names)
    if args.minutes:
        print("\n".join(f"{minutes(source):4d}  {source.stem}" for source in chosen))
        return 0
    if args.check:
        old = [path.relative_to(HERE).as_posix() for source in chosen for path in stale(source)]
        print("\n".join(f"stale: notebooks/{name}" for name in old) or "all notebooks agree with their sources")
        return 1 if old else 0
    SOLUTIONS.mkdir(exist_ok=True)
    os.environ["TINYFLAMINGO_LANGUAGE"] = "en"  # of the checks in the outputs
    for source in chosen:
        for notebook, (path, _) in zip(build(source), places(source), strict=False):
            nbformat.write(notebook, path)
            print(f"notebooks/{path.relative_to(HERE).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
