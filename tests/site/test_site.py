"""The whole site: it builds without a warning or a dead link, and its pages work in Chromium from files."""

import json

import pytest
from chromium import page_of

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


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    with page_of(chromium, tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_it_builds_in_time_without_faults(built):
    _, printed, seconds = built
    print(f"the site: {seconds:.0f} seconds of the processor")
    assert printed.startswith("the site is in ")
    assert seconds < SECONDS


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


def search(page, site, language, words):
    """The pages that a search gives, best first."""
    page.go("about:blank")
    page.go((site / language / "search.html").as_uri() + f"?q={words}")
    page.wait_for("document.querySelector('#search-results .search-summary, #search-results ul li')")
    page.wait_for("typeof Search !== 'undefined' && Search._pulse_status === -1")
    found = page.run("JSON.stringify([...document.querySelectorAll('#search-results ul li a')].map((a) => a.href))")
    return json.loads(found)


@pytest.mark.parametrize("words, expected", [("gate", "08_gating"), ("门控", "docs/glossary"), ("门控交叉注意力", "")])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_search_finds(words, expected, language, page, site):
    found = search(page, site, language, words)
    assert found and any(expected in address for address in found)
    assert page.complaints() == []


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
