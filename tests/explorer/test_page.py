"""The page's sources: both languages are complete, colours are readable, nothing is asked of the network, all is small.

No model is computed here; the numbers that the page shows are compared in `test_truth.py`.
"""

import itertools
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.data.tinyworld.raster import COLOURS
from tinyflamingo.data.tinyworld.scenes import ACTIONS, POSITIONS, RELATIONS
from tinyflamingo.data.tinyworld.shapes import NAMED, SHAPES, signed_distance
from tinyflamingo.errors import UserError
from tinyflamingo.explorer import build
from tinyflamingo.explorer.build import _gate_log

SOURCES = build.SOURCES
PAGE = (SOURCES / "index.html").read_text(encoding="utf-8")
STYLE = (SOURCES / "style.css").read_text(encoding="utf-8")
SCRIPTS = [name for name in re.findall(r'<script src="([\w.]+)">', PAGE) if name != "weights.js"]
WORDS = "words.js"  # the dictionary and the prompts of examples: text, not code
LIMIT = 90 * 1024  # bytes of code, without its comments and indentation
CONTRAST = 4.5


def script(name):
    return (SOURCES / name).read_text(encoding="utf-8")


CODE = {name: script(name) for name in SCRIPTS}


# ---- words


def entries():
    """{key: (English, Chinese)} of the dictionary."""
    strings = r'"((?:[^"\\]|\\.)*)"'
    body = CODE[WORDS].split("const EXAMPLES")[0]
    return {k: (en, zh) for k, en, zh in re.findall(rf"(\w+): \[{strings}, {strings}\]", body)}


def used_keys():
    """Every key that the page asks for and that the source has as one string."""
    keys = set(re.findall(r'data-t="(\w+)"', PAGE)) | set(re.findall(r'data-do="(\w+)"(?! data-t)', PAGE))
    views = "\n".join(code for name, code in CODE.items() if name != WORDS)
    keys |= set(re.findall(r'\bT\(\s*"(\w+)"', views)) | set(re.findall(r'\bchoice\("[\w-]+", "(\w+)"', views))
    return {key for key in keys if not key.endswith("_")}


def test_every_word_that_the_page_uses_is_in_the_dictionary():
    assert len(used_keys()) > 100
    assert used_keys() - set(entries()) == set()


def test_keys_that_are_put_together_are_in_the_dictionary():
    made = {
        *(f"break{more}_{name}" for more in ("", "Say") for name in ("no", "every", "uniform", "late")),
        *(f"kind_{kind}" for kind in ("single", "pair", "count", "clip", "digit", "sum")),
        *(f"tab_{tab}" for tab in ("make", "draw", "file")),
        *(f"path{n}{part}" for n in range(1, 11) for part in "qar"),
    }
    assert made - set(entries()) == set()


def test_no_entry_of_the_dictionary_was_read_wrongly():
    body = CODE[WORDS].split("const EXAMPLES")[0]
    assert len(entries()) == len(re.findall(r"(?:^|[ \[,{])\w+: \[\"", body, re.MULTILINE))


@pytest.mark.parametrize("key", entries())
def test_both_languages_say_something_and_fill_in_the_same(key):
    english, chinese = entries()[key]
    assert english.strip() and chinese.strip()
    assert set(re.findall(r"\{(\w+)\}", english)) == set(re.findall(r"\{(\w+)\}", chinese))
    assert english.count(" | ") == chinese.count(" | ")  # the answers of a question
    assert not re.search(r"[\u3400-\u9fff]", english)


def test_views_hold_no_text_of_their_own():
    for name in set(SCRIPTS) - {WORDS, "flamingo.js", "libraries.js"}:
        assert not re.search(r"[\u3400-\u9fff]", re.sub(r'"中文"|[、，。；：？！]', "", CODE[name])), name


# ---- colours


def colours(block):
    return dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block))


def schemes():
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    return {"light": colours(light), "dark": {**colours(light), **colours(dark)}}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    bright, dim = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


GROUNDS = ("bg", "panel")
TEXTS = ("ink", "soft", "accent", "good", "bad", "none", "p1", "p2", "p3", "p4", "p5")
PAIRS = [
    *itertools.product(TEXTS, GROUNDS),
    *((text, f"p{n}t") for n in range(1, 6) for text in ("ink", f"p{n}")),
    *((text, "nonet") for text in ("ink", "none")),
    ("on", "accent"),
    ("panel", "ink"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(scheme, text, ground):
    colours = schemes()[scheme] | {"on": re.findall(r"--on-accent: (#[0-9a-f]{6})", STYLE)[scheme == "dark"]}
    assert contrast(colours[text], colours[ground]) >= CONTRAST


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_of_controls_stand_out(scheme):
    colours = schemes()[scheme]
    assert min(contrast(colours["edge"], colours[ground]) for ground in GROUNDS) >= 3


# ---- the pictures that the page draws


def in_world(node, expression):
    """The value of an expression about `World`, of world.js."""
    code = f"{CODE['world.js']}; console.log(JSON.stringify({expression}))"
    return json.loads(subprocess.run([node, "-"], input=code, capture_output=True, text=True, check=True).stdout)


def test_the_names_are_those_of_tinyworld(node):
    names = ("NAMED", "UNNAMED", "COLOURS", "POSITIONS", "RELATIONS", "ACTIONS")
    named, unnamed, colours, positions, relations, actions = (in_world(node, f"World.{name}") for name in names)
    assert (*named, *unnamed) == tuple(SHAPES) and tuple(named) == NAMED
    assert {name: tuple(rgb) for name, rgb in colours.items()} == COLOURS
    assert {name.replace("-", " "): tuple(place) for name, place in positions.items()} == POSITIONS
    assert {name.replace("-", " "): tuple(way) for name, way in relations.items()} == RELATIONS
    assert tuple(name.replace("-", " ") for name in actions) == ACTIONS


def test_the_shapes_are_those_of_tinyworld(node):
    drawn = in_world(node, "[...World.NAMED, ...World.UNNAMED].map((s) => [...World.frames(`green_${s}`)[0]])")
    y, x = np.mgrid[:32, :32].astype("f4")
    grey = (248 - 30 * (x + y) / 62)[:, :, None] + np.array([0, 0, 2])
    for shape, pixels in zip(SHAPES, drawn, strict=True):
        cover = np.clip(0.5 - 10 * signed_distance(shape, (x + 0.5 - 16) / 10, (y + 0.5 - 16) / 10), 0, 1)[:, :, None]
        expected = grey + cover * (np.array(COLOURS["green"]) - grey)
        assert np.abs(np.reshape(pixels, (32, 32, 3)) - expected).max() <= 0.51, shape


# ---- what the page may and may not hold


@pytest.mark.parametrize("name", ["index.html", "style.css", *SCRIPTS])
def test_no_source_has_an_address_of_the_network(name):
    text = (SOURCES / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|wss?:/|[\"'(]//\w|\bfetch\(|XMLHttpRequest|sendBeacon|@import|\bimport\(", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_stand_inside_a_page(name):
    assert "</script" not in CODE[name] and "<!--" not in CODE[name]
    assert '"use strict";' in CODE[name].splitlines()[:10]


def test_every_script_of_the_folder_is_in_the_page():
    assert {path.name for path in Path(SOURCES).glob("*.js")} == set(SCRIPTS)


def bare(code):
    """Code without comments and indentation."""
    lines = (re.sub(r"(^|\s)// .*$", "", line).strip() for line in code.splitlines())
    return "\n".join(line for line in lines if line)


def test_the_code_is_small():
    assert sum(len(bare(code).encode()) for name, code in CODE.items() if name != WORDS) <= LIMIT


def test_every_control_of_the_page_has_a_name():
    labels = set(re.findall(r'<label[^>]* for="([\w-]+)"', PAGE))
    for tag, attributes in re.findall(r"<(input|select|textarea)\b([^>]*)>", PAGE):
        name = re.search(r'id="([\w-]+)"', attributes)[1]
        assert name in labels, (tag, name)
    for attributes, text in re.findall(r"<button\b([^>]*)>(.*?)</button>", PAGE):
        assert text or "data-t=" in attributes or "data-do=" in attributes


def test_every_view_has_a_heading():
    for section, heading in re.findall(r'<section id="([\w-]+)"[^>]*aria-labelledby="([\w-]+)"', PAGE):
        assert f'id="{heading}"' in PAGE, section
    assert len(re.findall("<section [^>]*aria-labelledby", PAGE)) == PAGE.count("<section ")


@pytest.mark.parametrize("row", ['{"gates": {"xattn_9/alpha_xattn": 1}, "step": 0}', "5", '{"gates": 5}', "{"])
def test_the_log_of_another_model_is_refused(tmp_path, row):
    (tmp_path / "log.jsonl").write_text(row + "\n")
    with pytest.raises(UserError, match="damaged, or that of another model .*: remove log.jsonl"):
        _gate_log(tmp_path, tinyflamingo.load())
