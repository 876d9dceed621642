"""The parts of the site's build, without building it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("polib")
pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("markdown_it")

import collect  # noqa: E402
import links  # noqa: E402
import make_site  # noqa: E402
import reference  # noqa: E402
import relations  # noqa: E402
import theme_words  # noqa: E402
from npm_package import read_files  # noqa: E402

from tinyflamingo import cli  # noqa: E402
from tinyflamingo.errors import UserError  # noqa: E402

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / relations.CHAPTER).read_text(encoding="utf-8")


# ---------------------------------------------------------------- what belongs together


def test_a_file_its_test_and_its_notebook_belong_to_a_row_of_the_chapter():
    for path in ("tinyflamingo/model/gated_xattn.py", "tests/model/test_gated_xattn.py"):
        assert relations.places(path, CHAPTER) == [relations.Place("§4 GATED XATTN-DENSE", "row-gated_xattn")]
    assert relations.places("notebooks/08_gating.ipynb", CHAPTER) == [relations.Place("§4", "row-08_gating")]


def test_a_file_outside_the_table_has_the_section_of_its_key_or_of_its_docstring():
    for path in ("tinyflamingo/training/optimiser.py", "tests/training/test_optimiser.py"):
        assert [place.words for place in relations.places(path, CHAPTER)] == ["§2"]
    assert relations.places("tinyflamingo/cli/__init__.py", CHAPTER) == []


def test_what_has_the_number_of_a_notebook_belongs_to_it():
    for path in ("notebooks/src/12_to_80b.py", "tinyflamingo/classroom/quizzes/12.toml", "tests/checks/cards_12.py"):
        assert relations.places(path, CHAPTER) == [relations.Place("summary", "row-12_to_80b")]
        assert "notebooks/12_to_80b.ipynb" in relations.partners(path)
        assert path in relations.partners("notebooks/12_to_80b.ipynb")


def test_a_file_without_a_test_of_its_own_has_those_of_its_folder():
    assert "tests/bench/test_bench.py" in relations.partners("tinyflamingo/bench/torch_twins.py")
    assert "tests/data/test_readers.py" in relations.partners("tinyflamingo/data/readers/coco.py")
    assert "tests/bench/test_bench.py" not in relations.partners("tinyflamingo/model/gated_xattn.py")


def test_links_lead_both_ways():
    """Between every file, its tests and its notebooks. No file of the package is without them."""
    paths = [*relations.source_files(), *relations.notebooks()]
    partners = {path: relations.partners(path) for path in paths}
    assert [path for path in paths for other in partners[path] if path not in partners[other]] == []
    modules = [path for path in paths if path.startswith("tinyflamingo/") and path.endswith(".py")]
    assert [path for path in modules if not partners[path]] == []


def test_a_section_lists_all_that_names_it():
    assert relations.numbers_of(CHAPTER) == ["§1", "§2", "§3", "§4", "§5"]
    paths = relations.belonging("§4", CHAPTER)
    expected = {"tinyflamingo/model/gated_xattn.py", "notebooks/07_masking.ipynb", "tests/model/test_interleave.py"}
    assert expected <= {*paths}
    assert "notebooks/05_resampler.ipynb" not in paths
    text = collect._text(relations.CHAPTER, "docs/chapter", "en")
    assert all(f"({relations.anchor_of(number)})=" in text for number in relations.numbers_of(CHAPTER))
    assert "[`model/gated_xattn.py`](page:api/tinyflamingo.model.gated_xattn)" in text.partition("### §4")[2]


def test_the_words_of_the_theme_are_translated():
    words = collect.words("zh_CN")
    labels = '<input aria-label="Toggle navigation of model"><symbol><title>Menu</title></symbol><h1>Menu</h1>'
    assert theme_words.labelled(labels, lambda text: words.get(text, text)) == (
        '<input aria-label="展开或折叠：model"><symbol><title>目录</title></symbol><h1>Menu</h1>'
    )
    script = theme_words.search_script(lambda text: words.get(text, text))
    assert "${resultCount}" in script and script.isascii()


def test_every_file_of_the_chapter_has_a_page_with_its_row():
    for chapter in (CHAPTER, collect.edition(relations.CHAPTER, "zh_CN").read_text(encoding="utf-8")):
        rows = relations.rows(chapter)
        assert len(rows) >= 28 and len({row.anchor for row in rows}) == len(rows)
        assert all(collect.page_of(path) for row in rows for path in row.paths)


@pytest.mark.parametrize(
    "name, path",
    [
        ("tinyflamingo.ops", "tinyflamingo/ops/__init__.py"),
        ("tinyflamingo.ops.tree", "tinyflamingo/ops/tree.py"),
        ("tinyflamingo.ops.nothing", ""),
        ("make_site", "docs/make_site.py"),
        ("collect", "docs/site/collect.py"),
        ("numpy", ""),
    ],
)
def test_the_file_of_a_module(name, path):
    assert relations.module_path(name) == path


# ---------------------------------------------------------------- the reference


def test_a_docstring_keeps_its_shapes_and_signs():
    words = "h (B, T, D) <image> $5 2 * 3, see `a * <b>`.\n\n    x = <raw> * 2\n\n# no heading"
    assert reference.as_markdown(words) == (
        "h (B, T, D) \\<image> \\$5 2 \\* 3, see `a * <b>`.\n\n    x = <raw> * 2\n\n\\# no heading"
    )


def test_a_page_of_the_reference_has_signatures_shapes_and_fields():
    page = reference.page("tinyflamingo.model.gated_xattn")
    assert "{py:function} gated_xattn_dense(params: Params, h: Array" in page
    assert "Text h (B, T, D) and visual tokens (M, R, D)" in page
    config = reference.page("tinyflamingo.model.config")
    assert "- `se_ratio: float = 0.5`: hidden width of squeeze-excite / output width" in config
    assert "_require_entries" not in config


def test_every_public_object_has_its_line():
    path, line = reference.lines()["tinyflamingo.model.gated_xattn.gated_xattn_dense"]
    assert (ROOT / path).read_text(encoding="utf-8").splitlines()[line - 1].startswith("def gated_xattn_dense(")


# ---------------------------------------------------------------- texts and links


@pytest.mark.parametrize(
    "link, page, target",
    [
        ("docs/faq.md", "index", "docs/faq.md"),
        ("LICENSE", "index", "source:LICENSE"),
        ("docs/figures/demo.png", "index", "docs/figures/demo.png"),
        ("https://arxiv.org/abs/2204.14198", "index", "https://arxiv.org/abs/2204.14198"),
        ("docs/none.md", "index", "docs/none.md"),
        ("docs/zh/faq.md#x", "index", "docs/faq.md#x"),
        ("docs/faq.md", "notebooks/05_resampler", "../docs/faq.md"),
    ],
)
def test_a_link_leads_to_a_page(link, page, target):
    assert collect.retargeted(f"[a]({link})", ROOT / "README.md", page) == f"[a]({target})"


def test_folded_cells_stay_folded_and_pictures_keep_their_words():
    path = "notebooks/07_masking.ipynb"
    cells = collect._notebook(ROOT / path, "notebooks/07_masking").cells
    tags = [tag for cell in cells for tag in cell.metadata.get("tags", ())]
    assert tags.count("hide-input") > 3 and "hide-output" in tags
    assert all(cell.metadata["mystnb"]["image"]["alt"] for cell in cells if "mystnb" in cell.metadata)


def test_the_words_of_the_site_are_translated():
    words = collect.words("zh_CN")
    assert words["Chapter"] == "这一章" and all(words.values())
    assert collect.words("en") == {}


def write(folder, **pages):
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "text, fault",
    [
        ('<a href="b.html#here">b</a>', None),
        ('<a href="b.html#gone">b</a>', "no such place on the page"),
        ('<a href="c.html">c</a>', "no such file"),
        ('<img src="c.png">', "no such file"),
        ('<a href="https://arxiv.org/">a link that a reader may follow</a>', None),
        ('<script src="https://example.org/a.js"></script>', "loads from a network"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "loads from a network"),
        ('<img src="data:image/png;base64,AA">', None),
    ],
)
def test_a_dead_link_is_noticed(tmp_path, text, fault):
    faults = list(links.faults(write(tmp_path, a=text, b='<p id="here">')))
    assert faults == [] if fault is None else len(faults) == 1 and fault in faults[0]


# ---------------------------------------------------------------- KaTeX and the commands


def package(folder):
    (folder / "dist" / "fonts").mkdir(parents=True)
    (folder / "dist" / "katex.min.js").write_text("katex = {}")
    (folder / "LICENSE").write_text("MIT")
    (folder / "dist" / "fonts" / "A-B.woff2").write_bytes(b"font")
    style = '@font-face{src:url(fonts/A-B.woff2) format("woff2"),url(fonts/A-B.ttf) format("truetype")}.a{}'
    (folder / "dist" / "katex.min.css").write_text(style)
    return folder


def test_katex_has_its_fonts_inside(tmp_path):
    style = make_site.read_katex(package(tmp_path))["katex.min.css"].decode()
    assert style == '@font-face{src:url(data:font/woff2;base64,Zm9udA==) format("woff2")}.a{}'


def test_another_package_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the package of KaTeX"):
        make_site.read_katex(tmp_path)
    with pytest.raises(KeyError):
        read_files(tmp_path, ["a.js"])


def test_without_katex_the_command_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv(make_site.VARIABLE, raising=False)
    monkeypatch.setattr(make_site, "ROOT", tmp_path)
    monkeypatch.setattr(make_site, "pack", lambda package, folder: None)
    with pytest.raises(UserError, match="npm pack katex@"):
        make_site.find_katex(None)
    with pytest.raises(UserError, match="no such file"):
        make_site.find_katex(tmp_path / "none.tgz")
    monkeypatch.setenv(make_site.VARIABLE, str(tmp_path))
    assert make_site.find_katex(None) == tmp_path


def test_a_missing_library_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(make_site, "NEEDED", ("no_such_library",))
    assert make_site.main([]) == 2
    error = capsys.readouterr().err
    assert "no_such_library" in error and 'pip install -e ".[docs]"' in error and error.count("\n") == 1


def test_the_command_docs_opens_the_site_or_says_how_to_build_it(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(cli.tools, "SITE", tmp_path)
    assert cli.main(["docs"]) == 2
    error = capsys.readouterr().err
    assert "python docs/make_site.py" in error and error.count("\n") == 1
    (tmp_path / "zh_CN").mkdir()
    (tmp_path / "zh_CN" / "index.html").write_text("")
    assert cli.main(["docs", "--language", "zh_CN"]) == 0
    assert opened == [(tmp_path / "zh_CN" / "index.html").as_uri()]
    assert cli.main(["docs", "--language", "en"]) == 2


def test_the_libraries_are_those_of_the_extra():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert [f'"{name}"' for name in extra["docs"] if f'"{name}"' not in ci] == []
    assert make_site.KATEX in ci


@pytest.mark.skipif(os.name != "posix", reason="a path of POSIX")
def test_the_help_names_the_options():
    command = [sys.executable, str(ROOT / "docs" / "make_site.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--language", "--out", "--katex"))
