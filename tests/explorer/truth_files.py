"""What Python asks of flamingo.js, how Node or a page answers, and the model in Python that it is compared with."""

import base64
import functools
import json
import subprocess
from pathlib import Path

import numpy as np
from test_one_file import KINDS, fitted, prompt

import tinyflamingo
from tinyflamingo.data.items import EOC
from tinyflamingo.explorer import build
from tinyflamingo.model.flamingo import encode_and_resample, flamingo
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.studies.attention_maps import attention_maps

HERE = Path(__file__).parent
FLAMINGO, LIBRARIES = build.SOURCES / "flamingo.js", build.SOURCES / "libraries.js"
SEEDS = range(8)
PROMPTS = [(kind, seed) for kind in KINDS for seed in SEEDS]  # 112
CLOSE = {"float32": 1e-4, "float16": 0.01}  # largest difference of logits, by the type of the packed matrices
WEIGHTS = {"float32": 1e-5, "float16": 0.01}  # largest difference of attention weights


def to_base64(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def strings(n):
    """Texts of every kind: words, spaces, any character of any plane, and what the tokenizer writes otherwise."""
    rng = np.random.default_rng(5)
    words = ["red", "circle", "Question: what color is it? Answer:", "Output:", "aaaa", "<image>", "<EOC>", "<0x41>"]
    unusual = [
        "\u2581",
        "\x1a",
        "\x1a1",
        "\x1a0",
        "\0",
        " ",
        "  ",
        "\t",
        "\n",
        "\ufeff",
        "\u2028",
        "e\u0301",
        "\U0001f9a9",
        "火烈鸟",
    ]

    def part():
        kind = rng.integers(4)
        if kind < 2:
            return str(rng.choice((words, unusual)[kind]))
        code = int(rng.integers(0x250 if kind == 2 else 0x110000))
        return "" if 0xD800 <= code < 0xE000 else chr(code)  # half of a surrogate pair is no text

    return ["", " ", *("".join(part() for _ in range(rng.integers(1, 12))) for _ in range(n - 2))]


def from_base64(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def floats(text, *shape):
    """A float32 array that travelled as base64."""
    return from_base64(text, np.float32).reshape(shape)


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
    """A request to truth.js. prompts: (items, options) each; moved: (items, gates) each; pictures: RGBA, side."""
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
        [node, str(HERE / "truth.js"), str(LIBRARIES), str(flamingo), str(packed), str(path)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(Path(f"{path}.answer").read_text())


def all_prompts():
    """A request for everything about all prompts."""
    return request([(items_of(kind, seed), {}) for kind, seed in PROMPTS])


# ---------------------------------------------------------------- the model in Python


@functools.cache
def shipped():
    return tinyflamingo.load()


def expected(model, items):
    """What the package makes of a prompt: tokens, phi, logits (T, V + 1), attention (G, T, H, M, R)."""
    batch = make_batch([encode_document(items, model.tokenizer, complete=False)])
    visual = encode_and_resample(model, batch.media)
    arguments = model.params, model.frozen, batch.tokens, batch.phi, visual, model.config
    return batch.tokens[0], batch.phi[0], flamingo(*arguments)[0], attention_maps(*arguments)[:, 0]


@functools.cache
def expected_of(kind, seed):
    """The same for a prompt of `PROMPTS`, and its text by `complete` from the pictures as they are."""
    text = tinyflamingo.complete(shipped(), prompt(kind, seed))["text"]
    return *expected(shipped(), items_of(kind, seed)), text


def differences(answer, kind, seed):
    """An answer of truth.js against the package: (same text, largest difference of logits, of attention weights)."""
    _, _, logits, attention, text = expected_of(kind, seed)
    logits_off = np.abs(floats(answer["logits"], *logits.shape) - logits).max()
    return answer["text"] == text, logits_off, np.abs(maps_of(answer, attention.shape) - attention).max(initial=0)


def compare(answer, kind, seed, dtype):
    """Tokens, text, logits, attention: as close as promised."""
    tokens, phi, logits, attention, _ = expected_of(kind, seed)
    assert answer["tokens"] == tokens.tolist() and answer["phi"] == phi.tolist()
    same, logits_off, _ = differences(answer, kind, seed)
    assert same and logits_off < CLOSE[dtype]
    last = floats(answer["logits"], *logits.shape)[-1]
    np.testing.assert_allclose(floats(answer["last"], len(last)), last, rtol=0, atol=1e-5)
    compare_maps(answer, attention, phi, WEIGHTS[dtype])


def maps_of(answer, shape):
    """The attention weights of an answer, in the package's shape (G, T, H, M, R)."""
    G, T, H, M, R = shape
    return np.reshape([floats(block, H, T, M, R) for block in answer["attention"]], (G, H, T, M, R)).swapaxes(1, 2)


def compare_maps(answer, attention, phi, tolerance):
    """Close to the package's (G, T, H, M, R); a shut cell is exactly 0; the open cells of a row sum to 1."""
    (G, T, H, M, _), own = attention.shape, maps_of(answer, attention.shape)
    assert np.abs(own - attention).max(initial=0) < tolerance
    shut = np.arange(1, M + 1) != phi[:, None]  # (T, M)
    assert (own.transpose(1, 3, 0, 2, 4)[shut] == 0).all()
    sees = (phi > 0)[:, None] & (M > 0)
    np.testing.assert_allclose(own.sum((3, 4)), np.broadcast_to(sees, (G, T, H)), atol=1e-5)
