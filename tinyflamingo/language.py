"""Chinese for hints and messages: ``_("It has {count} marks.").format(count=3)``, or ``_(f"It has {count} marks.")``.

The environment variable TINYFLAMINGO_LANGUAGE chooses, such as zh or en; without it the locale of the system does. The
catalogues are ``locale/zh_CN/*.po``. What they do not translate stays English. An f-string has its values already: it
is compared with the entries that have places for values. So errors are plain f-strings where they are raised, and get
their language where they are shown.
Not here: the catalogues of notebooks and documents, which `notebooks/translate.py` uses.
"""

from __future__ import annotations

import functools
import locale
import os
import re
import textwrap
from pathlib import Path

FOLDER = Path(__file__).with_name("locale")
PLACE = re.compile(r"\{(\w+)\}")  # of a value that an f-string puts there
LONGEST = 2000  # characters of a text that is compared with entries: a value in a value in a value has an end
# Where a line may end: at a space, and in Chinese, which has no spaces, before each character but not before a mark.
BREAK = re.compile(r"(\s+|(?<=[\u4e00-\u9fff，。：；？！）”])(?=[\u4e00-\u9fff（“]))")
CHOOSERS = ("TINYFLAMINGO_LANGUAGE", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set


def is_chinese() -> bool:
    """Whether the reader has chosen Chinese. Windows sets none of the variables; its locale begins with "Chinese"."""
    chosen = (os.environ[key] for key in CHOOSERS if os.environ.get(key))
    name = next(chosen, "") or locale.setlocale(locale.LC_CTYPE)  # without a second argument it only reads
    return name.lower().startswith(("zh", "chinese"))


def wrapped(text: str, width: int, start: str = "") -> list[str]:
    """Lines of at most `width` columns; the first begins with `start`, and the others are indented like it."""
    columns = width // 2 if is_chinese() else width  # a Chinese character is as wide as two letters
    lines = textwrap.TextWrapper(
        columns, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    )
    lines.wordsep_simple_re = BREAK  # type: ignore[attr-defined]
    return lines.wrap(text)


def _(text: str) -> str:
    """A text in the language of the reader. It may have values in it; those of two words or more are translated too."""
    return (_catalogue().get(text) or _with_values(text) or text) if is_chinese() else text


def in_both_languages(text: str) -> tuple[str, str]:
    """A text in English and in Chinese, whatever the reader has chosen."""
    return text, _catalogue().get(text, text)


def _with_values(text):
    """The translation of the most exact entry that with some values is this text; "" if there is none."""
    for parts, names, chinese in _entries_with_values() if len(text) <= LONGEST else ():
        if values := _values_between(parts, text):
            words = {name: _(value) if " " in value else value for name, value in zip(names, values, strict=True)}
            return PLACE.sub(lambda place, words=words: words[place[1]], chinese)
    return ""


@functools.cache
def _entries_with_values() -> list[tuple[list[str], list[str], str]]:
    """(parts around the values, names of the values, translation), the entry with most letters first."""
    split = [(PLACE.split(english), chinese) for english, chinese in _catalogue().items() if PLACE.search(english)]
    entries = [(pieces[::2], pieces[1::2], chinese) for pieces, chinese in split]
    return sorted(entries, key=lambda entry: -sum(map(len, entry[0])))


def _values_between(parts, text):
    """What is in a text between these parts, each of which is taken as early as possible; [] if they do not fit."""
    first, *middle, last = parts
    begin, end, values = len(first), len(text) - len(last), []
    if begin > end or not (text.startswith(first) and text.endswith(last)):
        return []
    for part in middle:
        place = text.find(part, begin, end)
        if place < 0:
            return []
        values.append(text[begin:place])
        begin = place + len(part)
    return [*values, text[begin:end]]


@functools.cache
def _catalogue() -> dict[str, str]:
    import polib

    files = [polib.pofile(str(path), encoding="utf-8") for path in sorted(FOLDER.glob("zh_CN/*.po"))]
    return {entry.msgid: entry.msgstr for file in files for entry in file if entry.translated()}
