"""The page in headless Chromium, from a file and from the server: flamingo.js is the package there too, and the
numbers that a reader sees are those of the package."""

import json
import re
import threading
import urllib.parse
from contextlib import contextmanager

import numpy as np
import pytest
from chromium import page_of
from truth_files import HERE, PROMPTS, all_prompts, compare, expected, shipped, to_base64

import tinyflamingo
from tinyflamingo.explorer import build, server
from tinyflamingo.model.flamingo import encode_media
from tinyflamingo.model.perceiver_resampler import temporal_embedding
from tinyflamingo.studies.attention_maps import resampler_maps

pytestmark = pytest.mark.posix  # the browser is driven over pipes

TRUTH = f"(() => {{ {(HERE / 'truth.js').read_text(encoding='utf-8')}\nwindow.truth = truth; }})()"
PACKED = {"float16": 0.0015, "float32": 0.00001}  # type of the matrices: largest difference of a probability


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    with page_of(chromium, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A function: type of the matrices -> address of the page as a file."""
    folder = tmp_path_factory.mktemp("page")

    def address(dtype):
        path = folder / f"{dtype}.html"
        if not path.exists():
            path.write_bytes(build.build_page(dtype=dtype))
        return path.as_uri()

    return address


@contextmanager
def served():
    """The address of a server with the page."""
    with server.Server(0) as running:
        running.page = build.build_page()
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running.url
        finally:
            running.shutdown()
            thread.join()


def open_page(page, address, **state):
    """Open the page in a state, as its address carries it, and wait until all is drawn."""
    page.go("about:blank")
    page.go(f"{address}#{urllib.parse.urlencode({'lang': 'en', **state})}")
    page.wait_for("document.documentElement.dataset.ready")


# ---------------------------------------------------------------- flamingo.js inside the page


def compare_all(page, dtype):
    page.run(TRUTH)
    answers = json.loads(
        page.run(f"JSON.stringify(truth(Flamingo, Libraries, TINYFLAMINGO, {json.dumps(all_prompts())}))")
    )
    for answer, (kind, seed) in zip(answers["prompts"], PROMPTS, strict=True):
        compare(answer, kind, seed, dtype)


@pytest.mark.parametrize("dtype", PACKED)
def test_all_prompts_from_a_file(dtype, page, file):
    open_page(page, file(dtype))
    compare_all(page, dtype)
    assert page.complaints() == [] and page.requests() == [page.run("location.href.split('#')[0]")]


def test_all_prompts_from_the_server(page):
    with served() as url:
        open_page(page, url)
        compare_all(page, "float16")
        assert page.complaints() == [] and page.requests() == [url]


def test_the_page_cannot_ask_another_host(page, file):
    open_page(page, file("float16"))
    refused = page.run("fetch('http://127.0.0.1:9/').then(() => 'asked', (error) => error.message)")
    assert refused == "Failed to fetch"
    assert any("Content Security Policy" in entry.get("text", "") for entry in page.complaints())


# ---------------------------------------------------------------- the numbers that a reader sees


def picture_name(medium):
    """How the address of the page names a picture or clip of the reader's own."""
    return "rgb:" + to_base64(medium).replace("+", "-").replace("/", "_")


NOISE = np.random.default_rng(6).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PAGES = {  # text, and the names of its pictures
    "chapter": ("what is it?<image>a red house.<image>a", ["red_house", "blue_star"]),
    "question": ("<image>Question: what color is it? Answer:", [picture_name(NOISE)]),
    "clip": ("<image>Question: what happens? Answer:", ["green_heart_moves-left"]),
    "shots": ("<image>lofa.<image>dimu.<image>", ["red_hourglass", "blue_drop", "green_hourglass"]),
    "text": ("a red circle is found", []),
}


def open_prompt(page, address, name, **state):
    """Open the page with a prompt; the items of the prompt, with the pixels that the page drew."""
    text, pictures = PAGES[name]
    open_page(page, address, p=text, i=",".join(pictures), **state)
    drawn = (page.run(f"World.frames({json.dumps(picture)}).map((rgb) => [...rgb])") for picture in pictures)
    media = [np.array(frames, np.uint8).reshape(-1, 32, 32, 3) for frames in drawn]
    parts = [part for part in re.split("(<image>)", text) if part]
    return [media.pop(0) if part == "<image>" else part for part in parts]


def rows_of(page, selector):
    """The cells of a table on the page, as a reader sees them."""
    cells = "[...row.cells].map((cell) => cell.innerText.trim())"
    return page.run(f"[...document.querySelectorAll('{selector} tbody tr')].map((row) => {cells})")


def percentage(text):
    return float(text.removesuffix("%")) / 100


def probabilities(logits):
    allowed = np.array(logits, np.float64)
    allowed[[0, 1, 3, 4]] = -np.inf
    weights = np.exp(allowed - allowed.max())
    return weights / weights.sum()


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("name", PAGES)
def test_the_bars_and_the_answer_are_those_of_the_package(name, dtype, page, file):
    items, model = open_prompt(page, file(dtype), name), shipped()
    p = probabilities(expected(model, items)[2][-1])
    answer = "document.querySelector('#answer-read').textContent"
    assert page.run(answer) == tinyflamingo.complete(model, items, 16)["text"]
    rows = rows_of(page, "#bars")
    names = [model.tokenizer.piece(i).replace("\u2581", "") or "\u2581" for i in range(len(p))]
    assert rows[0][0].removesuffix(" \u2190") == names[p.argmax()]
    for word, number, *_ in rows:
        likely = [p[i] for i, own in enumerate(names) if own == word.removesuffix(" \u2190")]
        assert min(abs(percentage(number) - own) for own in likely) <= 0.00051 + PACKED[dtype]
    assert page.complaints() == []


@pytest.mark.parametrize("block, head", [(0, None), (3, 2)])
@pytest.mark.parametrize("name", ["chapter", "clip", "shots"])
def test_the_weights_in_the_table_are_those_of_the_package(name, block, head, page, file):
    R, chosen = 8, {"b": block + 1} | ({} if head is None else {"h": head + 1})
    items = open_prompt(page, file("float32"), name, **chosen)
    page.run("document.querySelector('#as-table').open = true")
    page.wait_for("document.querySelector('#table tbody tr')")
    rows = rows_of(page, "#table")
    tokens, phi, _, attention = expected(shipped(), items)
    weights = attention[block].mean(1) if head is None else attention[block][:, head]  # (T, M, R)
    assert len(rows) == len(tokens)
    for row, own, medium in zip(rows, weights, phi, strict=True):
        assert row[3] == str(medium)
        seen = own[medium - 1] if medium else np.zeros(R)
        shown = [percentage(cell) if medium else float(cell) for cell in row[-R:]]
        np.testing.assert_allclose(shown, seen, rtol=0, atol=0.00051 + 1e-5)


def medium_of(name, page, address, **state):
    """Open view 5 of a prompt for its first picture: the picture's features (F, S, D), from the package."""
    items = open_prompt(page, address, name, n=1, show="inside", **state)
    medium = next(item for item in items if not isinstance(item, str))
    return encode_media(shipped().frozen, medium[None], shipped().config)


@pytest.mark.parametrize("layer, head, latent", [(0, None, 0), (1, 2, 5)])
@pytest.mark.parametrize("name", ["chapter", "clip"])
def test_what_a_latent_takes_is_read_back_from_the_page(name, layer, head, latent, page, file):
    chosen = {"l": layer + 1, "r": latent + 1} | ({} if head is None else {"k": head + 1})
    features, model = medium_of(name, page, file("float32"), **chosen), shipped()
    maps = resampler_maps(model.params["resampler"], features, model.config.resampler)[layer, 0]
    maps = maps.mean(0) if head is None else maps[head]  # (R, F S + R)
    F, S, R = *features.shape[1:3], len(maps)
    cells = maps[:, : F * S].reshape(R, F, S)
    *frames, latents = [row[1:] for row in rows_of(page, "#taken")]
    shown = np.array([[percentage(cell) for cell in row] for row in frames])
    np.testing.assert_allclose(shown, cells.sum(2).T, rtol=0, atol=0.00051 + 1e-4)
    first, *each = latents[latent].splitlines()
    np.testing.assert_allclose([percentage(line.split(":")[1]) for line in each], maps[latent, F * S :], atol=0.00051)
    assert abs(percentage(first) - maps[latent, F * S :].sum()) < 0.0006
    labels = page.run("[...document.querySelectorAll('#taken canvas')].map((canvas) => canvas.ariaLabel)")
    shown = np.array([[percentage(cell.split(": ")[1]) for cell in label.split("; ")] for label in labels])
    np.testing.assert_allclose(shown.reshape(F, R, S).swapaxes(0, 1), cells, rtol=0, atol=0.00051 + 1e-4)


@pytest.mark.parametrize("channel", [0, 3])
@pytest.mark.parametrize("name", ["chapter", "clip"])
def test_features_and_time_embeddings_are_read_back_from_the_page(name, channel, page, file):
    features = medium_of(name, page, file("float32"), f=channel)[0]  # (F, S, D)
    time = temporal_embedding(shipped().params["resampler"]["temporal"], len(features))
    lengths, own = np.linalg.norm(features, axis=2), np.linalg.norm(time, axis=1)
    labels = page.run("[...document.querySelectorAll('#frames canvas[aria-label*=\";\"]')].map((c) => c.ariaLabel)")
    shown = [[float(cell.split(": ")[1]) for cell in label.split("; ")] for label in labels]
    wanted, digits = (features[:, :, channel - 1], 2) if channel else (lengths, 1)
    np.testing.assert_allclose(shown, wanted, atol=0.6 * 10**-digits)
    numbers = [row[-3:] for row in rows_of(page, "#frames")]
    np.testing.assert_allclose([float(row[0]) for row in numbers], own, atol=0.006)
    np.testing.assert_allclose([percentage(row[1]) for row in numbers], own / lengths.mean(1), atol=0.0051)
    np.testing.assert_allclose([float(row[2]) for row in numbers], time @ time[0] / own / own[0], atol=0.006)


def test_a_mask_that_is_off_by_one_changes_what_the_page_shows(page, file):
    shown = []
    for broken in ("", "late"):
        items = open_prompt(page, file("float16"), "chapter", x=broken)
        shown.append(rows_of(page, "#bars"))
    p = probabilities(expected(shipped(), items)[2][-1])
    well, badly = (percentage(rows[0][1]) for rows in shown)
    assert abs(well - p.max()) < 0.002 < abs(badly - p.max())
