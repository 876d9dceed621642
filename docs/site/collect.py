"""Gathers the committed texts and notebooks of one language in a folder, as Sphinx reads them.

Every file of the project that a reader may want has a page. Texts and notebooks are shown as they are. A file of the
package is in the API reference, and every source file is a page of code. Links between files become links between
pages. A text that has no Chinese edition is English on the Chinese site too, and its page says so. Nothing is run: the
outputs of the notebooks are those that are stored in them.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path

import nbformat
import reference
import relations
from relations import ROOT, source_files

sys.path.insert(0, str(ROOT / "notebooks"))

import translate  # noqa: E402  it imports notebooks/build.py


def _(text: str) -> str:
    """Marks a sentence for the catalogue docs/locale/zh_CN/site.po."""
    return text


LEARN, RESULTS, USE = _("Learn"), _("Results"), _("Use and change")
NOTEBOOKS = _(
    "They are shown here with their outputs, and nothing runs on this page. To do the exercises, open the notebooks in "
    "Jupyter: `python -m jupyterlab`, started in the project's folder."
)
SECTIONS = _("All that belongs to each section")
KINDS = {"file": _("Files"), "test": _("Tests"), "notebook": _("Notebooks")}
FILES = _("Every file with code, and the first line of its description.")
EXPLORER = _("Open the explorer in a window of its own")
EXPLORER_PAGE = """<iframe class="explorer" src="{address}" title="explorer" loading="lazy"></iframe>

<p><a href="{address}" target="_blank">{words}</a></p>"""
REFERENCE, ALL_FILES = _("API reference"), _("All files")

LANGUAGES = {"en": "English", "zh_CN": "中文"}
# The order in the navigation. A text that is not named here follows in the last group.
GROUPS = {
    "learn": ("chapter", "notebooks", "explorer", "glossary", "faq", "teaching"),
    "results": ("scores", "results", "deviations", "parity", "performance", "scaling", "sizes", "omniglot", "emoji"),
    "use": ("commands", "own_data", "systems", "architecture", "api", "files", "contributing"),
}
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md", "tinyflamingo/assets/toy/MODEL_CARD.md")


# ---------------------------------------------------------------- pages


@functools.cache
def pages() -> dict[str, str]:
    """{a file of the project: its page on the site}, without the pages of code."""
    texts = [*TEXTS, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
    texts += relations.notebooks()
    made = {"README.md": "index"} | {path: path.rpartition(".")[0] for path in texts}
    return made | {path: f"api/{name}" for name, path in reference.modules().items()}


@functools.cache
def page_of(path: str) -> str:
    """The page of a file: in the API reference, a text, a notebook, or its code; "" if it has none."""
    return pages().get(path) or (f"source/{path}" if path in source_files() else "")


@functools.cache
def file_of(page: str) -> str:
    """The file that a page shows; "" for a page of the site itself."""
    if page.startswith("source/"):
        return page.removeprefix("source/")
    return next((path for path, other in pages().items() if other == page), "")


def edition(path: str, language: str) -> Path:
    """The file with a text or notebook in a language: the Chinese edition if there is one."""
    chinese = translate.editions().get(ROOT / path) if language == "zh_CN" else None
    return chinese or ROOT / path


def is_translated(path: str) -> bool:
    """Whether a text or a notebook has a Chinese edition."""
    return ROOT / path in translate.editions()


# ---------------------------------------------------------------- words of the site


def words(language: str) -> dict[str, str]:
    """{a sentence of the site: in this language}."""
    if language == "en":
        return {}
    return translate.chosen(translate.read_entries(translate.sources()["site"]))


# ---------------------------------------------------------------- links


def retargeted(text: str, file: Path, page: str) -> str:
    """A text whose links lead to pages of the site. file: where it lies; page: its page."""
    return translate.LINK.sub(lambda link: _target(link[0], file, page), text)


def _target(link, file, page):
    """A link from a page: to another page, to a picture, or to a page of code ("source:PATH")."""
    path, _, anchor = link.partition("#")
    if not path or ":" in path:
        return link
    full = (file.parent / path).resolve()
    full = next((english for english, chinese in translate.editions().items() if chinese == full), full)
    if not full.is_relative_to(ROOT) or not full.is_file():
        return link  # Sphinx names it in a warning, which is an error
    inner = full.relative_to(ROOT).as_posix()
    target = f"{pages()[inner]}{full.suffix}" if full.suffix in (".md", ".ipynb") and inner in pages() else inner
    if target == inner and full.suffix not in (".png", ".md", ".ipynb"):
        return f"source:{inner}"
    return Path(os.path.relpath(target, Path(page).parent)).as_posix() + (f"#{anchor}" if anchor else "")


# ---------------------------------------------------------------- the folder that Sphinx reads


def collect(language: str, folder: Path) -> None:
    """Write all sources of the site in one language, and the words of its theme, into an empty folder."""
    say = words(language)
    if language != "en":  # Sphinx reads this catalogue before its own
        catalogue = translate.sources()["site"].catalogue.read_text(encoding="utf-8")
        _write(folder / "locales" / language / "LC_MESSAGES" / "sphinx.po", catalogue)
    for path, page in pages().items():
        if path.endswith(".py"):
            _write(folder / f"{page}.md", reference.page(page.removeprefix("api/")))
        elif path.endswith(".ipynb"):
            _write(folder / f"{page}.ipynb", nbformat.writes(_notebook(edition(path, language), page)))
        else:
            _write(folder / f"{page}.md", _text(path, page, language))
    _write(folder / "notebooks" / "index.md", _list_of_notebooks(say))
    _write(folder / "files.md", _list_of_files(say))
    with (folder / "index.md").open("a", encoding="utf-8") as file:
        file.write("\n\n" + "\n\n".join(_navigation(say)) + "\n")
    shutil.copytree(ROOT / "docs" / "figures", folder / "docs" / "figures")
    _write(folder / "words.txt", "\n".join(f"{term} 1000" for term in translate.read_terms().values()))


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _text(path, page, language):
    file = edition(path, language)
    text = file.read_text(encoding="utf-8")
    for link in translate.OTHER_LANGUAGE:  # every page has this link
        text = text.replace(link, "", 1)
    if page == "docs/explorer":
        title, rest = text.split("\n", 1)
        text = f"{title}\n\n{_explorer(language)}\n{rest}"
    made = _sections(text, language) if path == relations.CHAPTER else ""
    return retargeted(text, file, page) + made


def _sections(chapter, language):
    """Lists of all that belongs to each section, so that the chapter links to every page that names a section of it."""
    say = words(language)
    parts = [f"## {say.get(SECTIONS, SECTIONS)}"]
    for number in relations.numbers_of(chapter):
        parts.append(f"({relations.anchor_of(number)})=\n### {number}")
        paths = relations.belonging(number, chapter)
        for kind, title in KINDS.items():
            links = [f"[`{short(path)}`](page:{page_of(path)})" for path in paths if relations.kind(path) == kind]
            parts.append(f"**{say.get(title, title)}** {', '.join(links)}")
    return "\n\n" + "\n\n".join(parts) + "\n"


def short(path: str) -> str:
    """The path as a page shows it: without the folder, because a word before it names the kind of the file."""
    return path.removeprefix("tinyflamingo/").removeprefix("tests/").removeprefix("notebooks/").removesuffix(".ipynb")


def _explorer(language):
    """The explorer inside its page, and a link to it alone. Its file is beside the folders of the languages."""
    label = words(language).get(EXPLORER, EXPLORER)
    return EXPLORER_PAGE.format(address=f"../../explorer.html#lang={language[:2]}", words=label)


def _notebook(file, page):
    """A notebook whose folded cells are folded on the site too, and whose pictures keep their descriptions."""
    notebook = nbformat.read(file, as_version=4)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = retargeted(cell.source, file, page)
            continue
        hidden = cell.metadata.get("jupyter", {})
        folds = {"hide-input": hidden.get("source_hidden"), "hide-output": hidden.get("outputs_hidden")}
        cell.metadata["tags"] = [tag for tag, folded in folds.items() if folded]
        for output in cell.outputs:
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = retargeted(output.data["text/markdown"], file, page)
        alts = [output.metadata["image/png"]["alt"] for output in cell.outputs if output.get("metadata")]
        if alts:
            cell.metadata["mystnb"] = {"image": {"alt": alts[0]}}
    return notebook


def _list_of_notebooks(say):
    names = sorted(page.rpartition("/")[2] for path, page in pages().items() if path.endswith(".ipynb"))
    text = say.get(NOTEBOOKS, NOTEBOOKS)
    return f"# {say.get('Notebooks', 'Notebooks')}\n\n{text}\n\n" + _toctree(names, "1")


def _list_of_files(say):
    """A table of all files with code: what each says of itself."""
    title, text = ALL_FILES, FILES
    lines = [f"# {say.get(title, title)}", say.get(text, text)]
    for folder in sorted({path.rpartition("/")[0] for path in source_files()}):
        inner = [path for path in source_files() if path.rpartition("/")[0] == folder]
        rows = [f"| [{path.rpartition('/')[2]}](source:{path}) | {_first_line(path)} |" for path in inner]
        lines.append("\n".join([f"## {folder}/" if folder else "## /", "", "| | |", "|---|---|", *rows]))
    return "\n\n".join(lines) + "\n"


def _first_line(path):
    first = relations.docstring(path).partition("\n")[0]
    return reference.as_markdown(first).replace("|", r"\|")


def _navigation(say):
    """The tables of contents at the end of the first page; they are seen in the navigation alone."""
    titles = {"notebooks": "notebooks/index", "files": "files", "contributing": "CONTRIBUTING"}
    titles["api"] = f"{say.get(REFERENCE, REFERENCE)} <api/tinyflamingo>"
    named = {name for names in GROUPS.values() for name in names}
    others = [page for path, page in pages().items() if path.endswith(".md") and page != "index"]
    others = [page for page in others if page.rpartition("/")[2].lower() not in named]
    for caption, names in zip((LEARN, RESULTS, USE), GROUPS.values(), strict=True):
        entries = [titles.get(name, f"docs/{name}") for name in names]
        yield _toctree([*entries, *(others if caption == USE else ())], "2", say.get(caption, caption))


def _toctree(entries, depth, caption=""):
    options = [f":maxdepth: {depth}", *([f":caption: {caption}", ":hidden:"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])
