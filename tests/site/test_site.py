"""The whole site: it builds without a warning or a dead link, and its pages work in Chromium from files."""

import html
import json
import posixpath
import re

import pytest
from chromium import page_of
from pace import slowness

collect, relations = pytest.importorskip("collect"), pytest.importorskip("relations")

pytestmark = [pytest.mark.slow, pytest.mark.posix]

LANGUAGES = ("en", "zh_CN")
PAGES = (
    "index",
    "docs/chapter",
    "docs/glossary",
    "docs/results",
    "docs/explorer",
    "notebooks/02_nf_resnet",
    "notebooks/05_resampler",
    "notebooks/07_masking",
    "api/tinyflamingo.model.gated_xattn",
    "source/tests/model/test_gated_xattn.py",
)
WITH_FORMULAS = ("notebooks/02_nf_resnet", "notebooks/05_resampler")
SECONDS = 180  # of the processor, for both languages
ENGLISH = {"tinyflamingo", "English", "language", "Furo", "notebook", "API"}  # names on Chinese pages
# What is content: scripts, styles, the head, the article, links to other pages and headings, and their names.
SCRIPTS = re.compile(r"<(script|style|head)\b.*?</\1>|<!--.*?-->", re.DOTALL)
CONTENT = re.compile(
    r"<article\b.*</article>"
    r'|<a class="[^"]*reference[^"]*".*?</a>|<div class="title">.*?</div>|aria-label="展开或折叠：[^"]*"',
    re.DOTALL,
)
WORDS = re.compile(r'>([^<>]+)<|(?:title|aria-label|placeholder)="([^"]*)"')
LABELS = re.compile(r'class="headerlink"[^>]* title="([^"]*)"|admonition-title">([^<]*)<')
BELONGS = re.compile(r'<aside class="place">(.*?)</aside>', re.DOTALL)
LINK = re.compile(r'<a [^>]*?href="([^"]*)"')


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    with page_of(chromium, tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_it_builds_in_time_without_faults(built):
    _, printed, seconds = built
    print(f"the site: {seconds:.0f} seconds of the processor")
    assert printed.startswith("the site is in ")
    assert seconds < SECONDS * slowness()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_works_from_a_file(name, language, page, site):
    page.go((site / language / f"{name}.html").as_uri())
    assert page.complaints() == []
    assert [url for url in page.requests() if not url.startswith("file:")] == []
    formulas, drawn = page.run(
        "[document.querySelectorAll('.formula').length, document.querySelectorAll('.katex').length]"
    )
    assert formulas == drawn and (formulas or name not in WITH_FORMULAS)
    (other,) = [one for one in LANGUAGES if one != language]
    address = page.run("document.querySelector('nav.languages a').href")
    assert address == (site / other / f"{name}.html").as_uri()
    assert page.run("!!document.querySelector('aside.place b')")  # the section of the chapter


# ---------------------------------------------------------------- the words of the theme


def english_around(text):
    """English words of a page that are not of its content: beside the article, and the labels in it."""
    beside = CONTENT.sub("", SCRIPTS.sub("", text))
    parts = [part for words in (WORDS.findall(beside), LABELS.findall(text)) for pair in words for part in pair]
    return {word for part in parts for word in re.findall("[A-Za-z]{3,}", html.unescape(part))} - ENGLISH


def test_no_word_of_the_theme_is_english_on_a_chinese_page(site):
    names = sorted((site / "zh_CN").rglob("*.html"))
    assert len(names) > 400
    assert {name.name: words for name in names if (words := english_around(name.read_text(encoding="utf-8")))} == {}


def test_an_english_word_of_the_theme_is_noticed(site):
    """On an English page there are many; in a Chinese page one is planted."""
    english = english_around(read(site, "en", "notebooks/07_masking"))
    assert {"Back", "Skip", "Toggle", "Expand", "Link", "folded"} <= english
    text = read(site, "zh_CN", "docs/faq")
    assert english_around(text.replace("回到顶部", "Back to top")) == {"Back", "top"}


def read(site, language, name):
    return (site / language / f"{name}.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- what belongs together


def linked_pages(text, name):
    """{a page: the places on it} of the links in a piece of a page."""
    places_of = {}
    for address in LINK.findall(text):
        path, _, place = address.partition("#")
        page = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)).removesuffix(".html") if path else name
        places_of.setdefault(page, set()).add(place)
    return places_of


def places_of(site, language):
    """({a file: the files that its page names as belonging to it}, {a file: its places in the chapter})."""
    partners, sections = {}, {}
    for path in [*collect.pages(), *collect.source_files()]:
        name = collect.page_of(path)
        (aside,) = BELONGS.findall(read(site, language, name))
        links = linked_pages(aside, name)
        sections[path] = links.pop("docs/chapter", set())
        partners[path] = {collect.file_of(page) for page in links} - {path}
    return partners, sections


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_between_files_tests_and_notebooks_leads_back(language, site):
    partners, sections = places_of(site, language)
    assert [(path, other) for path, others in partners.items() for other in others if path not in partners[other]] == []
    package = [path for path in partners if path.startswith("tinyflamingo/") and path.endswith(".py")]
    assert [path for path in [*package, *relations.notebooks()] if not partners[path]] == []
    assert [path for path in relations.notebooks() if not sections[path]] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chapter_links_to_every_page_that_names_a_section_of_it(language, site):
    _, sections = places_of(site, language)
    chapter = read(site, language, "docs/chapter")
    lists = {place: linked_pages(part, "docs/chapter") for place, part in parts_of(chapter).items()}
    assert len(lists) == 5 and all(len(pages) > 5 for pages in lists.values())
    for path, places in sections.items():
        for place in places & lists.keys():
            assert relations.kind(path) == "text" or collect.page_of(path) in lists[place], (path, place)


def parts_of(chapter):
    """{the id of a list on the page of the chapter: its HTML}."""
    pieces = re.split(r'<section id="(section-\d)">', chapter)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


# ---------------------------------------------------------------- search, sizes, cells, explorer


def search(page, site, language, words):
    """The pages that a search gives, best first."""
    page.go("about:blank")
    page.go((site / language / "search.html").as_uri() + f"?q={words}")
    page.wait_for("typeof Search !== 'undefined' && Search.status && Search.status.innerText.trim()")  # at the end
    addresses = page.run("JSON.stringify([...document.querySelectorAll('#search-results ul li a')].map((a) => a.href))")
    return json.loads(addresses)


@pytest.mark.parametrize("words, expected", [("gate", "08_gating"), ("门控", "docs/glossary"), ("门控交叉注意力", "")])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_search_finds(words, expected, language, page, site):
    addresses = search(page, site, language, words)
    assert addresses and any(expected in address for address in addresses)
    assert page.complaints() == []
    summary = page.run("Search.title.innerText + Search.status.innerText")
    assert bool(re.search("[A-Za-z]{3,}", summary)) == (language == "en"), summary
    number = "one" if language == "en" and len(addresses) == 1 else len(addresses)
    assert f" {number} " in summary


def test_the_search_finds_nothing_for_a_word_that_is_nowhere(page, site):
    assert search(page, site, "en", "qqxqq") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_no_page_is_wider_than_the_screen(width, scheme, page, site):
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        for name in PAGES:
            page.go((site / "zh_CN" / f"{name}.html").as_uri())
            assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
            colour = page.run("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, colour[4:-1].split(","))) > 380) == (scheme == "light")
    finally:
        page.send("Emulation.clearDeviceMetricsOverride")


def test_a_long_path_is_cut_behind_its_folders_and_a_short_name_not_at_all(site):
    text = read(site, "en", "docs/chapter")
    assert '<span class="pre">tinyflamingo/<wbr>model/<wbr>perceiver_<wbr>resampler.py</span>' in text
    assert '<span class="pre whole">--beams</span>' in read(site, "en", "docs/commands")


def test_folded_code_is_closed(page, site):
    page.go((site / "en" / "notebooks" / "07_masking.html").as_uri())
    count, opened = page.run(
        "[document.querySelectorAll('details.hide').length, document.querySelectorAll('details.hide[open]').length]"
    )
    assert count > 3 and opened == 0
    code = "document.querySelector('details.hide .highlight')"
    assert page.run(f"{code}.checkVisibility()") is False
    page.run("document.querySelector('details.hide').open = true")
    assert page.run(f"{code}.checkVisibility()") is True


def test_the_explorer_is_on_its_page(page, site):
    page.go((site / "zh_CN" / "docs" / "explorer.html").as_uri())
    page.run("document.querySelector('iframe.explorer').scrollIntoView()")
    assert page.run("document.querySelector('iframe.explorer').src").endswith("explorer.html#lang=zh")
    assert (site / "explorer.html").stat().st_size > 1_000_000
