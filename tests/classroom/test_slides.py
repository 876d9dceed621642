"""Slides: every figure and every question of a notebook, in one page that loads nothing."""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("nbconvert")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAME = "07_masking"
REVEAL = {
    "dist/reveal.js": "var Reveal = {initialize: function (options) {}}; // </script>",
    "dist/reveal.css": ".reveal {}",
    "dist/reset.css": "html {}",
    "dist/theme/white.css": '@import "./fonts/source-sans-pro/source-sans-pro.css"; .reveal h1 {}',
    "plugin/notes/notes.js": "var RevealNotes = {};",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """What `npm pack` writes, with nearly nothing in it."""
    path = tmp_path_factory.mktemp("npm") / "reveal.js-4.6.1.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in REVEAL.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def run(*arguments):
    lines = [sys.executable, str(NOTEBOOKS / "slides.py"), *map(str, arguments)]
    return subprocess.run(lines, capture_output=True, encoding="utf-8")


@pytest.fixture(scope="module")
def page(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "slides"
    done = run(package, folder, NAME)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.html"]
    return (folder / f"{NAME}.html").read_text(encoding="utf-8")


def test_every_figure_and_every_question_is_a_slide(page):
    cells = json.loads((NOTEBOOKS / f"{NAME}.ipynb").read_text(encoding="utf-8"))["cells"]
    pictures = [output["data"]["image/png"] for cell in cells for output in cell.get("outputs", ())
                if "image/png" in output.get("data", {})]  # fmt: skip
    shown = re.findall(r"""<img alt=(["'])(.{30,}?)\1 src="data:image/png;base64,([^"]+)\"""", page)
    assert [picture for *_, picture in shown] == [re.sub(r"\s", "", picture) for picture in pictures]
    questions = sum("".join(cell["source"]).count("**Predict") for cell in cells)
    assert page.count("<strong>Predict") == questions > 2
    assert page.count("<section><section>") == 1 + len(pictures) + questions
    assert page.count('<aside class="notes">') == len(pictures)


def test_a_page_loads_nothing(page):
    assert not re.search(r"""<(?:script|img|iframe)[^>]*src=["'](?!data:)""", page)
    assert "<link" not in page and "@import" not in page and "url(" not in page
    assert not re.search(r"MathJax|require\(|https?:", page)
    assert "// <\\/script>" in page  # a script in the page does not end it


def test_without_the_package_the_command_says_how_to_get_it(tmp_path):
    done = run(tmp_path / "none.tgz", tmp_path)
    assert done.returncode == 2 and "npm pack reveal.js@" in done.stderr
    assert run().returncode == 2
