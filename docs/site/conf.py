"""Sphinx's configuration of the site, and what Sphinx does not do by itself.

`docs/make_site.py` calls Sphinx with this file, once for each language. Here are formulas for KaTeX, a page of code for
each source file, and links from names in the texts to their pages. Each page says at its top to which section of the
chapter it belongs. Not here: which texts the site has (`collect.py`), and what belongs together (`relations.py`).
"""

from __future__ import annotations

import functools
import html
import logging
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import collect  # noqa: E402
import jieba  # noqa: E402
import reference  # noqa: E402
import relations  # noqa: E402
import theme_words  # noqa: E402
from collect import _  # noqa: E402
from docutils import nodes  # noqa: E402
from pygments import highlight  # noqa: E402
from pygments.formatters import HtmlFormatter  # noqa: E402
from pygments.lexers import TextLexer, get_lexer_for_filename  # noqa: E402
from pygments.util import ClassNotFound  # noqa: E402
from sphinx import addnodes  # noqa: E402

project = "tinyflamingo"
copyright = "CC-BY-4.0"
extensions = ["myst_nb"]
root_doc = "index"
nb_execution_mode = "off"  # the outputs are stored
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "source", "page"]
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_title = "tinyflamingo"
html_math_renderer = "katex"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("search_words.js", {"priority": 100})]  # before Sphinx's own script
templates_path = ["templates"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False  # the theme's line about it has English that no catalogue reaches
html_show_search_summary = False  # it would read other files, which a browser forbids for a page that is a file
html_search_language = "zh"  # for both languages: it cuts Chinese sentences into words, and has an English stemmer
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/languages.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
WORD = re.compile(r'<span class="pre">([^<]*)</span>')  # of code in a text
WHOLE = 24  # letters of code that stay in one line; a longer path is cut behind a "/" or a "_"
WIDEST = 4  # partners of a page that are shown at once; the others are folded

CHAPTER, BELONGS, NO_SECTION = _("Chapter"), _("the whole chapter"), _("no single section")
ENGLISH, SOURCE = _("This page is in English only."), _("code")
DESCRIPTION = _("description")


def setup(app):
    """Called by Sphinx."""
    jieba.setLogLevel(logging.WARNING)
    app.add_html_math_renderer("katex", (_inline_formula, None), (_block_formula, None))
    app.connect("config-inited", _settings_of_the_language)
    app.connect("doctree-resolved", _link_names)
    app.connect("doctree-resolved", _link_signatures)
    app.connect("doctree-resolved", _name_rows)
    app.connect("doctree-resolved", _link_sources)
    app.connect("html-collect-pages", _code_pages)
    app.connect("html-page-context", _complete_page)
    app.connect("html-page-context", _quick_navigation, priority=100)  # before the theme, which calls it
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _settings_of_the_language(app, config):
    say = _say(config.language)
    config.nb_code_prompt_show, config.nb_code_prompt_hide = say(theme_words.SHOW), say(theme_words.HIDE)
    config.html_search_options = {"dict": str(Path(app.srcdir) / "words.txt")}
    config.html_static_path = ["static", str(Path(app.srcdir).parent / "package")]


@functools.cache
def _say(language):
    words = collect.words(language)
    return lambda text: words.get(text, text)


@functools.cache
def _chapter(language):
    return collect.edition(relations.CHAPTER, language).read_text(encoding="utf-8")


# ---------------------------------------------------------------- formulas


def _inline_formula(writer, node):
    writer.body.append(f'<span class="formula">{html.escape(node.astext())}</span>')
    raise nodes.SkipNode


def _block_formula(writer, node):
    writer.body.append(f'<div class="formula">{html.escape(node.astext())}</div>')
    raise nodes.SkipNode


# ---------------------------------------------------------------- links in the texts


def _link_names(app, doctree, docname):
    """Make a link of each `path/of/a/file.py` and each `name_of_a_function` in the text."""
    for literal in list(doctree.findall(nodes.literal)):
        inside = (nodes.reference, nodes.title, addnodes.desc_signature)
        target = _target(literal.astext(), docname)
        if target and not any(isinstance(parent, inside) for parent in _above(literal)):
            link = nodes.reference("", "", refuri=target, internal=True)
            literal.replace_self(link)
            link += literal


def _above(node):
    while node.parent is not None:
        node = node.parent
        yield node


@functools.cache
def _target(name, docname):
    """ "page:PAGE#ANCHOR" of a file or of a public name of the package; "" if it is neither, or the page itself."""
    page = next(filter(None, (collect.page_of(folder + name) for folder in _bases(name))), "")
    if page:
        return f"page:{page}" if page != docname else ""
    full = _full_names().get(f"{docname.removeprefix('api/')}.{name}") or _full_names().get(name)
    return f"page:api/{full[0]}#{full[1]}" if full else ""


def _bases(name):
    """The folders from which the texts write paths."""
    return ("", "tinyflamingo/", "docs/", "notebooks/", "tests/") if "/" in name or "." in name else ()


@functools.cache
def _full_names():
    """{name as the texts write it: (module, full name)}. A short name has to be clear: no other object has it."""
    owners, ambiguous = {}, set()
    for full, (path, _line) in reference.lines().items():
        module = next(name for name, other in reference.modules().items() if other == path)
        short = full.removeprefix(f"{module}.")
        ambiguous |= {short} & owners.keys()
        owners |= {full: (module, full), short: (module, full)}
    clear = {name for name in owners if "_" in name or "." in name or name[:1].isupper()}
    return {name: owners[name] for name in clear - ambiguous}


def _link_signatures(app, doctree, docname):
    """Put a link to the code behind each signature."""
    say = _say(app.config.language)
    for signature in doctree.findall(addnodes.desc_signature):
        path, line = reference.lines()[signature["ids"][0]]
        link = nodes.reference("", say(SOURCE), refuri=f"source:{path}#L-{line}", internal=True, classes=["to-code"])
        signature += link


def _name_rows(app, doctree, docname):
    """On the page of the chapter, give each row of the tables its anchor."""
    if docname != "docs/chapter":
        return
    anchors = {row.paths[0]: row.anchor for row in relations.rows(_chapter(app.config.language))}
    for row in doctree.findall(nodes.row):
        paths = [literal.astext() for literal in row.findall(nodes.literal)]
        row["ids"] += [anchors[path] for path in paths if path in anchors][:1]


def _link_sources(app, doctree, docname):
    """Turn "source:PATH" and "page:PAGE" into addresses relative to the page."""
    for link in doctree.findall(nodes.reference):
        scheme, _colon, rest = link.get("refuri", "").partition(":")
        if scheme in ("source", "page"):
            page, _hash, anchor = rest.partition("#")
            uri = app.builder.get_relative_uri(docname, f"source/{page}" if scheme == "source" else page)
            link["refuri"], link["internal"] = f"{uri}#{anchor}" if anchor else uri, True


# ---------------------------------------------------------------- pages of code


def _code_pages(app):
    for path in collect.source_files():
        formatter = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, cssclass="highlight")
        text = (relations.ROOT / path).read_text(encoding="utf-8")
        body = f"<h1>{path}</h1>" + highlight(text, _lexer(path), formatter)
        yield f"source/{path}", {"title": path, "body": body}, "page.html"


def _lexer(path):
    try:
        return get_lexer_for_filename(path)
    except ClassNotFound:
        return TextLexer()


# ---------------------------------------------------------------- around each page


def _quick_navigation(app, pagename, templatename, context, doctree):
    """Let the theme use one navigation for all pages of a folder. Sphinx makes a new one for each page: minutes."""

    def toctree(**options):
        tree = _navigation(app, pagename.rpartition("/")[0])
        for page in _with_parents(app, pagename):
            uri = re.escape(app.builder.get_relative_uri(pagename, page) or pagename.rpartition("/")[2] + ".html")
            entry = rf'<li class="(toctree-l\d)">(<a class=")([^"]*" href="{uri}")'
            tree = re.sub(entry, r'<li class="\1 current">\2current \3', tree)
        return tree

    context["toctree"] = toctree


@functools.cache
def _navigation(app, folder):
    """The navigation of a page that is not in it."""
    page = f"{folder}/none" if folder else "none"
    depth = 1 if folder.startswith("source") else -1  # hundreds of pages of code: a short navigation keeps them small
    return app.builder._get_local_toctree(page, collapse=False, titles_only=True, maxdepth=depth, includehidden=True)


def _with_parents(app, page):
    """A page and the pages above it in the navigation."""
    parents = {child: parent for parent, inner in app.env.toctree_includes.items() for child in inner}
    while page in parents:
        yield page
        page = parents[page]


def _complete_page(app, pagename, templatename, context, doctree):
    """The switch of the language, the section of the chapter, and what belongs to the page."""
    language, say = app.config.language, _say(app.config.language)
    up = "../" * (pagename.count("/") + 1)
    others = [name for name in context.get("editions", language).split(",") if name != language]
    context["languages"] = [(collect.LANGUAGES[name], f"{up}{name}/{pagename}.html") for name in others]
    context["here"] = collect.LANGUAGES[language]
    if doctree is not None and next(doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)), None):
        app.add_js_file("katex.min.js", loading_method="defer", priority=600)
        app.add_js_file("formulas.js", loading_method="defer", priority=700)
        app.add_css_file("katex.min.css")
    if pagename == "search" and language != "en":
        app.add_js_file(None, body=theme_words.search_script(say), priority=900)  # after Sphinx's own words
    context["body"] = WORD.sub(_with_breaks, context.get("body", ""))
    context["labelled"] = functools.partial(theme_words.labelled, say=say)
    path = collect.file_of(pagename)
    context["lines"] = list(_lines(app, path, pagename, say)) if path else []


def _with_breaks(word):
    """A word of code with the places where a line may end."""
    if len(html.unescape(word[1])) <= WHOLE:
        return f'<span class="pre whole">{word[1]}</span>'
    cut = re.sub("([/_]+)", r"\1<wbr>", word[1])
    return f'<span class="pre">{cut}</span>'


def _lines(app, path, pagename, say):
    """The lines at the top of a page, as HTML."""
    language = app.config.language

    def link(target, words):
        page, _hash, anchor = target.partition("#")
        uri = app.builder.get_relative_uri(pagename, page) + (f"#{anchor}" if anchor else "")
        return f'<a href="{uri}">{html.escape(words)}</a>'

    yield say(CHAPTER), ", ".join(_places(path, language, link, say)), ""
    for kind, title in collect.KINDS.items():
        others = [other for other in relations.partners(path) if relations.kind(other) == kind]
        links = [link(collect.page_of(other), collect.short(other)) for other in others]
        if links:
            yield say(title), ", ".join(links[:WIDEST]), ", ".join(links[WIDEST:])
    if pagename.startswith("source/") and path in collect.pages():
        yield say(DESCRIPTION), link(collect.page_of(path), collect.short(path)), ""
    if language != "en" and relations.kind(path) == "text" and not collect.is_translated(path):
        yield "", say(ENGLISH), ""


def _places(path, language, link, say):
    sections = relations.places(path, _chapter(language))
    if sections:
        return [link(f"docs/chapter#{place.anchor}", place.words.strip("`")) for place in sections]
    return [link("docs/chapter", say(BELONGS)) if relations.kind(path) == "text" else say(NO_SECTION)]
