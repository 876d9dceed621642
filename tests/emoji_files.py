"""Small packages in the format of the emoji packages, made by the tests."""

import io
import json
import tarfile

import numpy as np
from PIL import Image

from tinyflamingo.emoji.packages import ARTISTS, FLUENT, LIST, NAMED, NAMES, NOTO, TWEMOJI

FILES = {
    NOTO: "emoji-datasource-google-16.0.0.tgz",
    TWEMOJI: "emoji-datasource-twitter-16.0.0.tgz",
    FLUENT: "lobehub-fluent-emoji-3d-1.1.0.tgz",
    NAMES: "cldr-annotations-full-48.2.0.tgz",
}
NAMED_BY = {"Thing ": "en", "东西": "zh"}  # how a name begins in each language
FIRST = 0x1F300  # code point of the first concept
LEFT_OUT = {
    "1f1e9-1f1ea": {"category": "Flags", "subcategory": "country-flag"},
    "0031-20e3": {"category": "Symbols", "subcategory": "keycap"},
    "1f3fb": {"category": "Component", "subcategory": "skin-tone"},
}


def codes_of(count):
    """Plain concepts; the last three are a person, a man and a woman who do the same."""
    plain = [f"{FIRST + i:x}" for i in range(count - 3)]
    return [*plain, *(f"{who}-200d-1f33e" for who in ("1f9d1", "1f468", "1f469"))]


def drawing(code, artist, side=64):
    """RGBA uint8 (side, side, 4): a few rectangles in colours of the concept; each artist moves and shades them."""
    rng, hand = np.random.default_rng([int(part, 16) for part in code.split("-")]), artist + 1
    pixels = np.zeros((side, side, 4), np.uint8)
    for _ in range(4):
        top, left = rng.integers(4, side - 24, 2) + hand
        height, width = rng.integers(8, 20, 2)
        pixels[top : top + height, left : left + width] = [*np.maximum(rng.integers(0, 220, 3) - 8 * hand, 0), 255]
    return pixels


def encoded(pixels, kind):
    """The bytes of a picture file."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return packed.getvalue()


def member_of(package, code):
    """The name of a drawing in its package."""
    places = {NOTO: "img/google/64/{}.png", TWEMOJI: "img/twitter/64/{}.png", FLUENT: "assets/{}.webp"}
    return "package/" + places[package].format(code.replace("-200d", "-fe0f-200d"))


def listed(codes):
    """The list of emoji with their categories, in another spelling of the codes."""
    usual = {"category": "Objects", "subcategory": "tool"}
    return [{"unified": c.upper().replace("-200D", "-FE0F-200D")} | LEFT_OUT.get(c, usual) for c in codes]


def members_of(package, codes):
    """{name: bytes} of the files in a package."""
    if package == NAMES:
        letters = {c: "".join(chr(int(part, 16)) for part in c.split("-")) for c in codes}
        rows = {word: {t: {"tts": [f"{word}{c[-2:]}"]} for c, t in letters.items()} for word in NAMED_BY}
        annotations = {word: json.dumps({"annotations": {"annotations": named}}) for word, named in rows.items()}
        return {NAMED.format(language): annotations[word].encode() for word, language in NAMED_BY.items()}
    artist, kind = list(ARTISTS).index(package), "WEBP" if package == FLUENT else "PNG"
    pictures = {member_of(package, c): encoded(drawing(c, artist), kind) for c in codes}
    return pictures | ({LIST: json.dumps(listed(codes)).encode()} if package == NOTO else {})


def write_tgz(path, members):
    """A package with these files."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            head = tarfile.TarInfo(name)
            head.size = len(data)
            archive.addfile(head, io.BytesIO(data))
    return path


def write_packages(folder, count=40):
    """Write all packages: `count` concepts, and a flag, a keycap and a skin tone. Returns the folder."""
    for package, name in FILES.items():
        write_tgz(folder / name, members_of(package, [*codes_of(count), *LEFT_OUT]))
    return folder
