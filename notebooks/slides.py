"""Slides of the notebooks' figures, a file for each notebook, by nbconvert and reveal.js.

    npm pack reveal.js@4.6.1
    python notebooks/slides.py reveal.js-4.6.1.tgz OUT_FOLDER            of all notebooks
    python notebooks/slides.py reveal.js-4.6.1.tgz OUT_FOLDER NAME ...   of these

The first line needs a network; it fetches the package of reveal.js (MIT licence), which is no part of this project. The
files that the second line writes have everything in themselves and open in a browser without a network. The key S
opens the speaker's view. "?print-pdf" at the end of the address makes pages to print.

A slide is a figure, or a question that begins with "Predict". The heading is that of its section. The description of
the figure is in the speaker's notes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from build import figure_text
from jinja2 import DictLoader
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from npm_package import read_files

HERE = Path(__file__).resolve().parent
# A section's heading, or a paragraph that asks for a prediction.
PART = re.compile(r"^##? ([^\n]*)$|^\*\*Predict.*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL)
PARTS = {"script": "dist/reveal.js", "notes": "plugin/notes/notes.js", "style": "dist/reveal.css"}
PARTS |= {"reset": "dist/reset.css", "theme": "dist/theme/white.css"}
# nbconvert's own template loads jQuery, require.js, MathJax and mermaid from the network. These slides need none.
TEMPLATE = """{%- extends "index.html.j2" -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block header -%}
<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{{ nb.metadata.title | e }}</title>
<style>{{ nb.metadata.reset }}{{ nb.metadata.style }}{{ nb.metadata.theme }}
html, body, main { height: 100%; margin: 0; }
.reveal { font-family: sans-serif; } .reveal h1, .reveal h2 { font-family: sans-serif; text-transform: none; }
.reveal h1 { font-size: 1.6em; } .reveal h2 { font-size: 1.1em; }
.reveal img { width: 940px; height: 560px; object-fit: contain; margin: 0; }
.anchor-link { display: none; }</style></head>
{%- endblock -%}
{%- block footer_js -%}
<script>{{ nb.metadata.script }}</script><script>{{ nb.metadata.notes }}</script>
<script>Reveal.initialize({width: 1024, height: 740, margin: 0.02, hash: true, plugins: [RevealNotes]});</script>
{%- endblock -%}
"""


def slides(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The slides of an executed notebook, as cells."""
    heading = ""
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for part in PART.finditer(cell.source):
                if not heading:
                    yield _slide(part[0])
                heading = part[1] or heading
                if not part[1]:
                    yield _slide(f"## {heading}\n\n{part[0].strip()}")
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                words = figure_text(notebook, place)
                picture = {"figure.png": {"image/png": output["data"]["image/png"]}}
                yield _slide(f"## {heading}\n\n![{words}](attachment:figure.png)", attachments=picture)
                yield _slide(words, "notes")


def _slide(text, kind="slide", **more):
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}}, **more)


def as_html(notebook: NotebookNode, reveal: dict[str, str]) -> str:
    """The slides of a notebook as one page. reveal: the texts of `PARTS`."""
    cells = list(slides(notebook))
    title = cells[0].source.lstrip("# ")
    exporter = SlidesExporter(extra_loaders=[DictLoader({"slides": TEMPLATE})], template_file="slides")
    return exporter.from_notebook_node(new_notebook(cells=cells, metadata={"title": title, **reveal}))[0]


def read_reveal(package: Path) -> dict[str, str]:
    """The parts of reveal.js in its package."""
    files = read_files(package, PARTS.values())
    parts = {name: files[path].decode() for name, path in PARTS.items()}
    parts["theme"] = re.sub(r"@import[^;]*;", "", parts["theme"])  # its fonts
    return {name: text.replace("</script", "<\\/script") for name, text in parts.items()}


def main(arguments: list[str]) -> int:
    """Write the slides. Returns the exit code."""
    if len(arguments) < 2 or not Path(arguments[0]).is_file():
        print("needs the package of reveal.js and a folder:", *__doc__.splitlines()[2:4], sep="\n", file=sys.stderr)
        return 2
    reveal, folder = read_reveal(Path(arguments[0])), Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    for path in [HERE / f"{name}.ipynb" for name in arguments[2:]] or sorted(HERE.glob("[0-9]*.ipynb")):
        page = folder / f"{path.stem}.html"
        page.write_text(as_html(nbformat.read(path, as_version=4), reveal), encoding="utf-8")
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
