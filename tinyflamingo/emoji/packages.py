"""Emoji from packages of the npm registry: drawings by three artists, and their names.

Serves chapter §2 to §5 with real pictures. The user downloads the packages; they are read as they are, no member is
ever unpacked to the disk. A concept is an emoji that all three artists drew and CLDR names. Flags, keycaps and skin
tones are left out. 100 concepts, chosen by a hash, are for tests alone.

The package `emoji-datasource` also has pictures that may not be used (Apple's and Facebook's). It is never opened.
Not here: documents and batches (`stages.py`), scores (`scores.py`).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyflamingo.data.images import load_picture
from tinyflamingo.data.readers.tars import members
from tinyflamingo.errors import UserError
from tinyflamingo.files import LARGEST_JSON, parse_json

NOTO, TWEMOJI, FLUENT = "emoji-datasource-google", "emoji-datasource-twitter", "@lobehub/fluent-emoji-3d"
NAMES = "cldr-annotations-full"
ARTISTS = {  # package: its pictures. The first two draw for training, the last one for the questions
    NOTO: r"package/img/google/64/(.+)\.png",
    TWEMOJI: r"package/img/twitter/64/(.+)\.png",
    FLUENT: r"package/assets/(.+)\.webp",
}
TAUGHT = 2  # artists of training
LIST = "package/emoji.json"  # all emoji with their categories, in Noto's package
NAMED = "package/annotations/{}/annotations.json"  # in the package of names, for each language
LEFT_OUT = {"Flags", "Component", "keycap"}  # categories, or parts of one
ASKED = 100  # concepts for tests alone
MOST_BYTES = 1_000_000  # of a picture; the largest has about 10,000
MOST_UNPACKED = 1 << 30  # bytes of a package; the largest has 74 million
MARK, JOINER = "fe0f", "200d"  # "show it as a picture"; "the parts form one emoji"
# Parts of a code that differ between variants of one concept, and what is compared in their place: man, woman and
# person; their signs; the old, the young, couples, dancers, the pregnant, crowns, Santa Claus; "to the right".
VARIANTS = {
    "1f468": "1f9d1", "1f469": "1f9d1", "2640": "", "2642": "", "1f474": "1f9d3", "1f475": "1f9d3", "1f466": "1f9d2",
    "1f467": "1f9d2", "1f46a": "1f9d1-1f9d1-1f9d2", "1f46b": "1f9d1-1f91d-1f9d1", "1f46c": "1f9d1-1f91d-1f9d1",
    "1f46d": "1f9d1-1f91d-1f9d1", "1f48f": "1f9d1-2764-1f48b-1f9d1", "1f491": "1f9d1-2764-1f9d1", "1f57a": "1f483",
    "1f930": "1fac4", "1fac3": "1fac4", "1f934": "1fac5", "1f478": "1fac5", "1f385": "1f9d1-1f384",
    "1f936": "1f9d1-1f384", "27a1": "",
}  # fmt: skip


@dataclass(frozen=True)
class Concepts:
    """Emoji. codes: code points in hexadecimal, joined by "-"; names: by CLDR; pictures: uint8 (n, 3, Y, X, 3), one
    for each artist, in the order of `ARTISTS`."""

    codes: tuple[str, ...]
    names: tuple[str, ...]
    pictures: np.ndarray

    def only(self, numbers: Iterable[int]) -> Concepts:
        """Some of the concepts, by number."""
        numbers = list(numbers)
        codes, names = (tuple(values[i] for i in numbers) for values in (self.codes, self.names))
        return Concepts(codes, names, self.pictures[numbers])

    def for_training(self) -> Concepts:
        """The same concepts without the pictures of the artist whose drawings are the questions."""
        return replace(self, pictures=self.pictures[:, :TAUGHT])


def read_concepts(folder: str | Path, side: int, language: str = "en") -> Concepts:
    """All concepts of the packages in a folder, sorted by code, with pictures of side x side pixels and CLDR's names in
    a language.

    A package that is missing, damaged or has other contents raises `UserError`.
    """
    paths = package_files(folder)
    names = _names(paths[NAMES], NAMED.format(language))
    codes = _listed(paths[NOTO]) & set(names)
    drawn = [_pictures(paths[package], pattern, codes, side) for package, pattern in ARTISTS.items()]
    common = sorted(codes.intersection(*drawn))
    if len(common) < ASKED * 2:
        raise UserError(f"the packages in {folder} have only {len(common)} emoji in common: download them again")
    pictures = np.stack([np.stack([pictures[code] for code in common]) for pictures in drawn], axis=1)
    return Concepts(tuple(common), tuple(names[code] for code in common), pictures)


def split(concepts: Concepts) -> tuple[Concepts, Concepts]:
    """(concepts that training may see, concepts that no stage sees).

    Variants of a concept, such as a man and a woman who do the same, are never in both parts: if it is asked, one of
    them is asked and the others are in neither part.
    """
    families: dict[str, list[int]] = {}
    for number, code in enumerate(concepts.codes):
        families.setdefault(family(code), []).append(number)
    order = sorted(families, key=lambda name: hashlib.sha256(name.encode()).digest())
    asked = sorted(families[name][0] for name in order[:ASKED])
    known = sorted(number for name in order[ASKED:] for number in families[name])
    return concepts.only(known), concepts.only(asked)


def family(code: str) -> str:
    """What the codes of all variants of a concept have in common."""
    parts = [VARIANTS.get(part, part) for part in code.split("-")]
    return "-".join(part for part in parts if part not in ("", JOINER)) or code  # a sign alone is a concept too


def plain(code: str) -> str:
    """A code in the spelling that all packages share."""
    return "-".join(part for part in code.lower().split("-") if part != MARK)


# ---- packages of unknown origin ---------------------------------------------------------------


def package_files(folder: str | Path) -> dict[str, Path]:
    """{name of a package: its file}. `UserError` for a package that is missing or there twice."""
    return {name: _package(Path(folder), name) for name in (*ARTISTS, NAMES)}


def _package(folder, name) -> Path:
    """The file of a package, as `npm pack` or a browser names it."""
    scope, _, last = name.lstrip("@").rpartition("/")
    before = f"(?:{scope}-)?" if scope else ""  # `npm pack` writes the scope into the name, a browser does not
    paths = sorted(p for p in folder.glob("*.tgz") if re.fullmatch(rf"{before}{last}-\d[^/]*\.tgz", p.name))
    if len(paths) != 1:
        wrong = f"has {len(paths)} files of the package {name}: keep one" if paths else f"has no package {name}"
        raise UserError(f"{folder} {wrong}; 'npm pack {name}' in that folder downloads it, do not unpack it")
    return paths[0]


def _contents(path, pattern, most) -> Iterator[tuple[re.Match, bytes]]:
    """(match of the name, bytes) of each file whose name matches. `UserError` for one that is too large."""
    unpacked = 0
    for member, read in members(path):
        unpacked += member.size
        match = re.fullmatch(pattern, member.name)
        if unpacked > MOST_UNPACKED or (match and member.size > most):
            raise UserError(f"{path}: {member.name!r} is too large for this package; download it again")
        if match and member.isreg():
            yield match, read()


def _pictures(path, pattern, codes, side) -> dict[str, np.ndarray]:
    """{code: uint8 (side, side, 3)} of the codes that a package has."""
    pictures = {}
    for match, data in _contents(path, pattern, MOST_BYTES):
        if (code := plain(match[1])) in codes:
            file = io.BytesIO(data)
            file.name = f"{path}: {match[0]}"
            pictures[code] = load_picture(file, side)
    return pictures


def _json(path, name) -> Any:
    for _, data in _contents(path, re.escape(name), LARGEST_JSON):
        try:
            return parse_json(data)
        except ValueError as error:
            raise UserError(f"{path}: {name} is damaged ({error}); download it again") from None
    raise UserError(f"{path} has no {name}: it is not the package that its name says")


def _listed(path) -> set[str]:
    """The codes of all emoji but flags, keycaps and skin tones."""
    try:
        rows = [(plain(row["unified"]), {row["category"], row["subcategory"]}) for row in _json(path, LIST)]
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: {LIST} is not a list of emoji; download it again") from None
    return {code for code, categories in rows if not categories & LEFT_OUT}


def _names(path, file) -> dict[str, str]:
    """{code: name} of all that CLDR names in a file."""
    try:
        rows = _json(path, file)["annotations"]["annotations"]
        named = {plain("-".join(f"{ord(c):04x}" for c in text)): row.get("tts") for text, row in rows.items()}
        return {code: " ".join(tts[0].split()) for code, tts in named.items() if tts}
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: {file} has not the form of CLDR's annotations; download it again") from None
