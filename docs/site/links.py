"""Checks a built site: every link leads to a page and a place that exist, and nothing comes from a network."""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

TAG = re.compile(r"<(\w+)\s([^<>]*)>")  # text of a page has &lt; and &quot; for these signs
ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src"), ("video", "src")}


class _Page:
    """The ids and the links of a page: (address, whether the browser loads it with the page)."""

    def __init__(self, text):
        self.ids, self.links = set(), set()
        for tag, attributes in TAG.findall(text):
            for name, value in ATTRIBUTE.findall(attributes):
                if name == "id" or (tag, name) == ("a", "name"):
                    self.ids.add(value)
                elif name in ("href", "src") and value:
                    self.links.add((html.unescape(value), (tag, name) in LOADS))


def faults(folder: Path) -> Iterator[str]:
    """One line for each dead link, missing anchor and address in a network that a page loads."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = sorted(name for name in files if name.endswith(".html"))
    pages = {name: _Page((folder / name).read_text(encoding="utf-8")) for name in names}
    for name, page in pages.items():
        for address, loaded in sorted(page.links):
            if fault := _fault(address, loaded, name, pages, files):
                yield f"{name}: {fault}: {address}"


def _fault(address, loaded, name, pages, files):
    if ":" in address.partition("/")[0] or address.startswith("//"):
        return "loads from a network" if loaded and not address.startswith("data:") else ""
    path, _, anchor = address.partition("#")
    path = unquote(path.partition("?")[0])
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    if target not in files:
        return "no such file"
    known = not anchor or target not in pages or "=" in anchor or unquote(anchor) in pages[target].ids
    return "" if known else "no such place on the page"
