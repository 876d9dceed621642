"""flamingo.js against the package in Node: the same tokens, texts, logits, attention weights and pictures.

112 prompts of fourteen kinds, 1,000 strings, and pictures of any size. `truth.js` computes, Python compares. Planted
mistakes, among them a phi that is off by one, show that the comparison can fail.
"""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from test_one_file import KINDS, clip, few_shots, other_folder, prompt, scene, text_alone, theirs  # noqa: F401
from truth_files import (
    CLOSE,
    FLAMINGO,
    PROMPTS,
    WEIGHTS,
    all_prompts,
    ask_node,
    compare,
    compare_maps,
    expected,
    floats,
    from_base64,
    items_of,
    request,
    shipped,
    strings,
)

import tinyflamingo
from tinyflamingo import one_file, ops
from tinyflamingo.data.images import load_picture
from tinyflamingo.explorer import build
from tinyflamingo.model.flamingo import encode_media
from tinyflamingo.model.perceiver_resampler import temporal_embedding
from tinyflamingo.studies.attention_maps import resampler_maps


@pytest.fixture
def model():
    return shipped()


@pytest.fixture
def ask(node, packed, tmp_path):
    """A function: a request -> the answers of flamingo.js with float32 weights, or of another script."""

    def answers(flamingo=FLAMINGO, checkpoint=None, **asked):
        return ask_node(node, tmp_path, packed("float32", checkpoint), request(**asked), flamingo)

    return answers


# ---------------------------------------------------------------- prompts


@pytest.fixture(scope="module", params=CLOSE)
def answered(request, node, packed, tmp_path_factory):
    """(type of the packed matrices, the answers to all prompts)."""
    folder, dtype = tmp_path_factory.mktemp("truth"), request.param
    return dtype, ask_node(node, folder, packed(dtype), all_prompts())["prompts"]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_text_logits_and_attention_are_those_of_the_package(kind, answered):
    dtype, answers = answered
    for answer, (own_kind, seed) in zip(answers, PROMPTS, strict=True):
        if own_kind is kind:
            compare(answer, kind, seed, dtype)


def test_there_are_at_least_100_prompts_with_pictures_clips_shots_and_text_alone():
    assert len(PROMPTS) >= 100 and {few_shots, text_alone} < set(KINDS)


def test_the_resampler_weighs_as_in_the_package(ask, model):
    rng = np.random.default_rng(0)
    media = [clip(rng, 8), scene(rng), clip(rng, 11)]
    (answer,) = ask(prompts=[(media, {})])["prompts"]
    for medium, layers in zip(media, answer["resampler"], strict=True):
        features = encode_media(model.frozen, medium.reshape(1, -1, 32, 32, 3), model.config)
        maps = resampler_maps(model.params["resampler"], features, model.config.resampler)[:, 0]
        own = np.stack([floats(layer, *maps.shape[1:]) for layer in layers])
        assert np.abs(own - maps).max() < WEIGHTS["float32"]


@pytest.mark.parametrize("frames", [1, 3, 11])
def test_features_and_time_embeddings_are_those_of_the_package(frames, ask, model):
    """Also of a clip that is longer than the table of time embeddings."""
    medium = clip(np.random.default_rng(1), frames)
    (answer,) = ask(prompts=[([medium], {})])["prompts"]
    features = encode_media(model.frozen, medium.reshape(1, -1, 32, 32, 3), model.config)[0]
    time = temporal_embedding(model.params["resampler"]["temporal"], frames)
    own = np.stack([floats(frame, *features.shape[1:]) for frame in answer["features"][0]])
    assert np.abs(own - features).max() < CLOSE["float32"]
    own = np.stack([floats(row, time.shape[1]) for row in answer["time"][0]])
    assert np.abs(own - time).max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_another_checkpoint_gives_the_logits_of_the_package(kind, ask, other_folder):  # noqa: F811
    """Groups of channels, odd grids, gated blocks at 1 and 3 of 5, all widths different, random weights."""
    model, items = tinyflamingo.load(other_folder), items_of(kind, 3, side=18)
    (answer,) = ask(prompts=[(items, {})], checkpoint=other_folder)["prompts"]
    with ops.use("reference"):  # nothing has to be compiled for these sizes
        _, phi, logits, attention = expected(model, items)
    assert np.abs(floats(answer["logits"], *logits.shape) - logits).max() < CLOSE["float32"]
    compare_maps(answer, attention, phi, WEIGHTS["float32"])


# ---------------------------------------------------------------- gates


def with_alphas(model, alphas):
    params = {
        name: part | {"alpha_xattn": np.float32(alphas[i][0]), "alpha_dense": np.float32(alphas[i][1])}
        for i, (name, part) in enumerate((n, p) for n, p in model.params.items() if n.startswith("xattn"))
    }
    return dataclasses.replace(model, params=model.params | params)


def moves(model):
    """Gates as a hand moves them: one at a time, back and forth, all together."""
    trained = [[float(p[f"alpha_{g}"]) for g in ("xattn", "dense")] for n, p in model.params.items() if "xattn" in n]
    shut = [[0.0, 0.0]] * len(trained)
    third = [pair if i != 2 else [-0.5, pair[1]] for i, pair in enumerate(trained)]
    dense = [pair if i != 2 else [-0.5, 0.25] for i, pair in enumerate(trained)]
    first = [pair if i else [0.0, pair[1]] for i, pair in enumerate(trained)]
    return [trained, third, dense, first, third, shut, trained, [[2.0, -2.0]] * len(trained)]


def test_moved_gates_give_the_package_s_logits_and_what_is_remembered_changes_nothing(ask, model):
    items = items_of(few_shots, 1)
    (outcomes,) = ask(moved=[(items, moves(model))])["moved"]
    for remembered, afresh, gates in outcomes:
        assert remembered == afresh
        changed = with_alphas(model, gates)
        logits = expected(changed, items)[2]
        assert remembered[0] == tinyflamingo.complete(changed, items)["text"]
        assert np.abs(floats(remembered[1], logits.shape[1]) - logits[-1]).max() < CLOSE["float32"]
    assert len({outcome[0][1] for outcome in outcomes}) == 6  # of eight moves, two are repeated


def test_what_a_block_adds_is_measured_against_the_stream(ask, model):
    """Of the first block alone, and by the model in NumPy: norm of what it adds / norm of what came in."""
    items, (gate, _) = items_of(few_shots, 2), moves(model)[0][0]
    (answer,) = ask(prompts=[(items, {})])["prompts"]
    one = one_file.load()
    tokens, media = one_file.interleave(items, one["tokenizer"])
    visual, p = one_file.encode_and_resample(one, media), one["params"]["xattn_0"]
    h = np.concatenate([one["frozen"]["language"]["embedding"], one["params"]["eoc"][None]])[tokens] * 128**0.5
    out = one_file.gated_xattn_dense(p | {"alpha_dense": np.float32(0)}, h, visual, one_file.phi_of(tokens), 4)
    assert gate == float(p["alpha_xattn"])
    shares = np.linalg.norm(out - h, axis=1) / np.linalg.norm(h, axis=1)
    np.testing.assert_allclose(floats(answer["added"][0][0], len(tokens)), shares, rtol=1e-3, atol=1e-6)


def test_a_memory_that_forgets_to_look_at_the_gates_is_noticed(ask, model, tmp_path):
    right, spoiled = "past && (!gate || equal(gate, past.gate))", tmp_path / "spoiled.js"
    source = FLAMINGO.read_text(encoding="utf-8")
    assert right in source
    spoiled.write_text(source.replace(right, "past"), encoding="utf-8")
    (outcomes,) = ask(spoiled, moved=[(items_of(few_shots, 1), moves(model))])["moved"]
    assert [remembered == afresh for remembered, afresh, _ in outcomes].count(False) >= 5


# ---------------------------------------------------------------- a mask that is broken on purpose


def every_picture(p, h, visual, phi, H):
    """All media as one medium, which every token sees."""
    return one_file_block(p, h, visual.reshape(1, -1, visual.shape[2]), np.ones_like(phi), H)


def softmax_of_minus_a_billion(scores, v, visible=True):
    """`attend` without the last factor `visible`: a row without an open cell gets equal weights."""
    scores = np.where(visible, scores * v.shape[2] ** -0.5, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(scores.shape[1], -1)


one_file_block, one_file_phi = one_file.gated_xattn_dense, one_file.phi_of
BREAKS = {
    "every picture": ({"everyPicture": True}, "gated_xattn_dense", every_picture),
    "phi + 1": ({"offByOne": 1}, "phi_of", lambda tokens: one_file_phi(tokens) + 1),
    "phi - 1": ({"offByOne": -1}, "phi_of", lambda tokens: one_file_phi(tokens) - 1),
    "empty rows uniform": ({"uniformEmptyRows": True}, "attend", softmax_of_minus_a_billion),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_mask_does_what_it_says(name, ask, monkeypatch, other_folder):  # noqa: F811
    """Against one_file.py with the same mistake put into it."""
    options, function, wrong = BREAKS[name]
    rng = np.random.default_rng(2)
    items = ["a green ring.", *(item for word in ("red", "blue", "dax") for item in (scene(rng, 18), word))]
    one = one_file.load(other_folder)
    tokens, media = one_file.interleave(items, one["tokenizer"])
    answer, whole = ask(prompts=[(items, options), (items, {})], checkpoint=other_folder)["prompts"]
    visual = one_file.encode_and_resample(one, media)
    monkeypatch.setattr(one_file, function, wrong)
    logits = one_file.flamingo(one, tokens, visual)
    assert np.abs(floats(answer["logits"], *logits.shape) - logits).max() < CLOSE["float32"]
    assert np.abs(floats(whole["logits"], *logits.shape) - logits).max() > 100 * CLOSE["float32"]


# ---------------------------------------------------------------- the comparison notices mistakes

MISTAKES = {  # what is wrong: (the right text in flamingo.js, the wrong one)
    "phi one too large": ("n + offByOne === m + 1", "n + offByOne + 1 === m + 1"),
    "phi one too small": ("n + offByOne === m + 1", "n + offByOne - 1 === m + 1"),
    "every token sees every picture": ("everyPicture || n", "true || n"),
    "gates without tanh": ("Math.tanh(alphaXattn)", "alphaXattn"),
    "the feed-forward's gate at the cross-attention": ("Math.tanh(alphaXattn)", "Math.tanh(alphaDense)"),
    "no gated feed-forward": ("plus(between, dense, Math.tanh(alphaDense))", "between"),
    "frames in the wrong order": ("const grids = frames.map", "const grids = frames.slice().reverse().map"),
    "a norm 0.05 % too small": (
        "rmsNorm = (x, gain) => norm(x, gain)",
        "rmsNorm = (x, gain) => norm(x, gain).map((v) => v * 0.9995)",
    ),
    "a distance one too large": ("(before + t - s) * width", "(before + t - s + 1) * width"),
    "the future is visible": ("s <= before + t", "true"),
    "gelu for squared relu": ("const squaredRelu = (x) => (x > 0 ? x * x : 0)", "const squaredRelu = gelu"),
    "padding on the left": (">> 1, top", ", top"),
    "a tag in the chunk before": ("if (![BOS", "if (false && ![BOS"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_noticed(mistake, ask, tmp_path, other_folder):  # noqa: F811
    right, wrong = MISTAKES[mistake]
    source, spoiled = FLAMINGO.read_text(encoding="utf-8"), tmp_path / "spoiled.js"
    assert right in source
    spoiled.write_text(source.replace(right, wrong), encoding="utf-8")
    rng = np.random.default_rng(4)
    items = ["a green ring.", scene(rng, 18), "Output: a red circle.", clip(rng, 3, 18), "Output:"]
    with ops.use("reference"):
        logits = expected(tinyflamingo.load(other_folder), items)[2]
    (well,), (badly,) = (ask(script, other_folder, prompts=[(items, {})])["prompts"] for script in (FLAMINGO, spoiled))
    assert np.abs(floats(well["logits"], *logits.shape) - logits).max() < CLOSE["float32"]
    own = floats(badly["logits"], -1, logits.shape[1])
    assert own.shape != logits.shape or np.abs(own - logits).max() > 10 * CLOSE["float32"]


# ---------------------------------------------------------------- the tokenizer


def test_ids_of_1000_strings_of_any_unicode(ask, model):
    texts = strings(1000)
    assert sum(any(ord(c) > 0xFFFF for c in text) for text in texts) > 100  # beyond the first plane
    assert ask(strings=texts)["ids"] == [model.tokenizer.encode(text) for text in texts]


def test_texts_of_ids_with_bytes_that_are_no_character(ask, model):
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, limit, 12).tolist() for limit in (261, 663) for _ in range(300)]
    rows += [model.tokenizer.encode(text) for text in strings(300)]
    texts = ask(ids=rows)["texts"]
    assert texts == [model.tokenizer.decode(row) for row in rows]
    assert sum("\ufffd" in text for text in texts) > 100


# ---------------------------------------------------------------- pictures


SIZES = [
    (1, 1),
    (1, 90),
    (31, 5),
    (32, 32),
    (33, 32),
    (57, 40),
    (100, 100),
    (192, 192),
    (300, 7),
    (517, 640),
    (1000, 701),
]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_is_fitted_as_complete_fits_its_file(mode, ask, tmp_path):
    """Noise of any size; also transparent. A mean that lies on the border between two bytes may be rounded otherwise:
    one level, in at most one number of a thousand."""
    rng, pictures, files = np.random.default_rng(3), [], []
    for height, width in SIZES:
        rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        rgba[..., 3] = 255 if mode == "RGB" else rgba[..., 3]
        Image.fromarray(rgba).convert(mode).save(tmp_path / f"{height}x{width}.png")
        pictures += [(rgba, 32), (rgba, 27)]
        files += [load_picture(tmp_path / f"{height}x{width}.png", side) for side in (32, 27)]
    for own, file in zip(ask(pictures=pictures)["pictures"], files, strict=True):
        difference = np.abs(from_base64(own, np.uint8).reshape(file.shape).astype(int) - file)
        assert difference.max() <= 1 and difference.mean() <= 1e-3


# ---------------------------------------------------------------- what the page cannot compute is refused


def test_the_scripts_have_no_text_that_would_end_them_in_the_page():
    for path in build.SOURCES.glob("*.js"):
        assert "</script" not in path.read_text(encoding="utf-8").lower()
        assert "<!--" not in path.read_text(encoding="utf-8")
