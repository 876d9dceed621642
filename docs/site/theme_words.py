"""The words of the theme, of Sphinx and of MyST-NB that Sphinx's own Chinese catalogue lacks.

Their Chinese is in the catalogue `docs/locale/zh_CN/site.po`, which `collect.py` puts beside the sources as a catalogue
of Sphinx. `tests/site` names every English word that is still around a Chinese page. Not here: the words that our own
pages have (`conf.py`, `collect.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable

from collect import _

# Each as the templates of the theme, or the code of Sphinx, give it to gettext.
WORDS = (
    _("Skip to content"),
    _("Back to top"),
    _("On this page"),
    _("Next"),
    _("Previous"),
    _("Home"),
    _("Made with "),
    _("Link to this heading"),
    _("Link to this definition"),
    _("Link to this image"),
    _("Link to this table"),
    _("Link to this code"),
)
# The theme has these as they are, without gettext: beginnings of labels, and titles of its icons.
LABELS = (
    _("Toggle site navigation sidebar"),
    _("Toggle table of contents sidebar"),
    _("Toggle Light / Dark / Auto color theme"),
    _("Toggle navigation of "),
)
ICONS = (
    _("Contents"),
    _("Menu"),
    _("Expand"),
    _("Light mode"),
    _("Dark mode"),
    _("Auto light/dark, in light mode"),
    _("Auto light/dark, in dark mode"),
)
SHOW, HIDE = _("Show the folded part"), _("Fold it again")
# Above the results of a search. Sphinx looks up the first; its Chinese is that of the second, for all numbers.
ONE_RESULT = "Search finished, found one page matching the search query."
RESULTS = _("Search finished, found ${resultCount} pages matching the search query.")


def labelled(html: str, say: Callable[[str], str]) -> str:
    """The HTML of a page with its labels in the language of the page."""
    for label in LABELS:
        html = html.replace(f'aria-label="{label}', f'aria-label="{say(label)}')
    for icon in ICONS:
        html = html.replace(f"<title>{icon}</title>", f"<title>{say(icon)}</title>")
    return html


def search_script(say: Callable[[str], str]) -> str:
    """A script with the line above the results of a search in Chinese; Sphinx's own catalogue has an older one."""
    messages = {ONE_RESULT: [say(RESULTS)]}
    return f"Object.assign(Documentation.TRANSLATIONS, {json.dumps(messages)});"
