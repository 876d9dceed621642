"""Checks a built site: every link leads to a page and a place that exist, and nothing comes from a network."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src"), ("video", "src")}


class _Page(HTMLParser):
    """The ids and the links of a page: (address, whether the browser loads it with the page)."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag, name) == ("a", "name"):
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.add((value, (tag, name) in LOADS))


def faults(folder: Path) -> Iterator[str]:
    """One line for each dead link, missing anchor and address in a network that a page loads."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for address, loaded in sorted(page.links):
            if fault := _fault(address, loaded, path, pages):
                yield f"{path.relative_to(folder.resolve()).as_posix()}: {fault}: {address}"


def _fault(address, loaded, path, pages):
    if ":" in address.partition("/")[0] or address.startswith("//"):
        return "loads from a network" if loaded and not address.startswith("data:") else ""
    name, _, anchor = address.partition("#")
    target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
    if not target.is_file():
        return "no such file"
    page = pages.get(target)
    known = not anchor or page is None or "=" in anchor or unquote(anchor) in page.ids
    return "" if known else "no such place on the page"
