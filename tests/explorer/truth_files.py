"""What Python asks of flamingo.js, how Node or a page answers, and the model in Python that it is compared with."""

import base64
import json
import subprocess
from pathlib import Path

import numpy as np
from test_one_file import KINDS, fitted, prompt

from tinyflamingo.data.items import EOC
from tinyflamingo.explorer import build

HERE = Path(__file__).parent
FLAMINGO = build.SOURCES / "flamingo.js"
SEEDS = range(8)
PROMPTS = [(kind, seed) for kind in KINDS for seed in SEEDS]  # 112


def to_base64(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def floats(text, *shape):
    """A float32 array that travelled as base64."""
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(shape)


def items_of(kind, seed, side=32):
    """A prompt of test_one_file.py with its pictures fitted."""
    return [fitted(item, side) for item in prompt(kind, seed)]


def as_json(items):
    """The items of a prompt as truth.js reads them."""

    def one(item):
        if item is EOC:
            return None
        return item if isinstance(item, str) else [to_base64(frame) for frame in item.reshape(-1, *item.shape[-3:])]

    return [one(item) for item in items]


def request(prompts=(), moved=(), strings=(), ids=(), pictures=()):
    """A request to truth.js. prompts: (items, options) each; moved: (items, list of gates) each; pictures: RGBA, side."""
    return {
        "prompts": [{"items": as_json(items), "options": options, "maxTokens": 24} for items, options in prompts],
        "moved": [{"items": as_json(items), "moves": moves} for items, moves in moved],
        "strings": list(strings),
        "ids": list(ids),
        "pictures": [
            {"rgba": to_base64(rgba), "height": rgba.shape[0], "width": rgba.shape[1], "side": side}
            for rgba, side in pictures
        ],
    }


def ask_node(node, folder, packed, asked, flamingo=FLAMINGO):
    """The answers of flamingo.js in Node. packed: the file of a packed checkpoint."""
    path = folder / "request.json"
    path.write_text(json.dumps(asked))
    done = subprocess.run(
        [node, str(HERE / "truth.js"), str(flamingo), str(packed), str(path)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(Path(f"{path}.answer").read_text())
