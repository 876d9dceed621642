"""Screenshots for README and docs. Needs Chromium on the path.

    python docs/make_screens.py [explorer.png]

The explorer: English for a laptop, Chinese for a projector, and Chinese on a phone. A notebook: one section of it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tinyflamingo.explorer.build import build_page  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
SHOTS = {  # name: (page, what follows in its address, width, height)
    "explorer.png": ("explorer", "#lang=en", 1280, 1200),
    "explorer_zh.png": ("explorer", "#lang=zh", 1920, 1080),
    "explorer_phone.png": ("explorer", "#lang=zh", 500, 1400),
    "notebook.png": ("notebook", "", 900, 1120),
}
SECONDS = 20  # of the page's own clock, in which it computes
NOTEBOOK, SECTION = ROOT / "notebooks" / "07_masking.ipynb", "## A page becomes a row of tokens"
SCRIPTS = ("jquery_url", "require_js_url", "mathjax_url", "mermaid_js_url")  # from the network, without use here
COLOURS = 128  # of the picture of a notebook, which is made of text


def main() -> None:
    """Write the named picture, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", choices=list(SHOTS))
    picture = parser.parse_args().picture
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("make_screens: Chromium is not on the path: install it (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        pages = {"explorer": Path(folder) / "explorer.html", "notebook": Path(folder) / "notebook.html"}
        pages["explorer"].write_bytes(build_page())
        pages["notebook"].write_text(notebook_page(), encoding="utf-8")
        for name in [picture] if picture else SHOTS:
            page, rest, width, height = SHOTS[name]
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options += [f"--window-size={width},{height}", f"--screenshot={FIGURES / name}"]
            options += [f"--virtual-time-budget={1000 * SECONDS}"]
            subprocess.run([browser, *options, pages[page].as_uri() + rest], check=True, capture_output=True)
            if page == "notebook":
                shrink(FIGURES / name)


def notebook_page() -> str:
    """One section of a notebook as HTML; folded code is left out."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sections = [i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## ")]
    first = next(i for i in sections if notebook.cells[i].source.startswith(f"{SECTION}\n"))
    notebook.cells = notebook.cells[first : sections[sections.index(first) + 1]]
    for cell in notebook.cells:
        cell.metadata.tags = ["folded"] if cell.metadata.get("jupyter", {}).get("source_hidden") else []
    exporter = HTMLExporter(template_name="lab", **dict.fromkeys(SCRIPTS, ""))
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={"folded"}), enabled=True)
    return exporter.from_notebook_node(notebook)[0]


def shrink(path: Path) -> None:
    """Fewer colours: a smaller file."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
