"""Chinese for hints and messages: ``_("It has {count} marks.").format(count=3)``.

The environment variable TINYFLAMINGO_LANGUAGE chooses, such as zh or en; without it the locale of the system does. The
catalogues are ``locale/zh_CN/*.po``. What they do not translate stays English.
Not here: the catalogues of notebooks and documents, which `notebooks/translate.py` uses.
"""

from __future__ import annotations

import functools
import locale
import os
from pathlib import Path

FOLDER = Path(__file__).with_name("locale")
CHOOSERS = ("TINYFLAMINGO_LANGUAGE", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set


def is_chinese() -> bool:
    """Whether the reader has chosen Chinese. Windows sets none of the variables; its locale begins with "Chinese"."""
    chosen = (os.environ[key] for key in CHOOSERS if os.environ.get(key))
    name = next(chosen, "") or locale.setlocale(locale.LC_CTYPE)  # without a second argument it only reads
    return name.lower().startswith(("zh", "chinese"))


def _(text: str) -> str:
    """A text in the language of the reader."""
    return _catalogue().get(text, text) if is_chinese() else text


@functools.cache
def _catalogue() -> dict[str, str]:
    import polib

    files = [polib.pofile(str(path), encoding="utf-8") for path in sorted(FOLDER.glob("zh_CN/*.po"))]
    return {entry.msgid: entry.msgstr for file in files for entry in file if entry.translated()}
