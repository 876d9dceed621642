"""The first test to read: a tour of a whole, tiny Flamingo in a few seconds.

Each test shows one idea of the chapter, from pixels to words. Read them in order. The model of this file has a few
thousand random numbers; its input is two pictures and a row of eleven tokens. Only the last two tests use the trained
model that comes with the package. Every other file of `tests/` tests one part in detail: `tests/model/` mirrors
`tinyflamingo/model/`.
"""

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    TextTowerConfig,
    VisionConfig,
    XattnConfig,
)
from tinyflamingo.model.flamingo import encode_media, flamingo, gates, init_flamingo, resample
from tinyflamingo.model.interleave import cross_attention_mask, phi
from tinyflamingo.model.language_model import init_language_model, language_model
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.model.vision_encoder import init_vision_encoder
from tinyflamingo.ops.tree import from_named_leaves, named_leaves

CONFIG = FlamingoConfig(
    vision=VisionConfig(stem=((4, 2),), stages=((8, 1, 1), (8, 1, 2)), group_size=2, width=8, side=16),
    text_tower=TextTowerConfig(vocab_size=20, width=8, layers=1, heads=2),
    resampler=ResamplerConfig(input_width=8, width=8, layers=2, heads=2, key_size=4, latents=3, frames=4),
    language=LanguageConfig(vocab_size=20, width=16, layers=2, heads=2, key_size=8),
    xattn=XattnConfig(heads=2, key_size=8),
)
EOC = 20  # <EOC>, the end of a chunk: one id after the vocabulary of the language model
#                   text         picture 1, its text  picture 2, its text
TOKENS = np.array([[BOS, 9, EOC, IMAGE, 7, 8, EOC, IMAGE, 5, 6, EOC]])
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 1, 16, 16, 3)).astype(np.uint8)  # videos of one frame


@pytest.fixture
def params():
    """The parameters that train: the resampler, the gated blocks, and one row for <EOC>."""
    return init_flamingo(np.random.default_rng(1), CONFIG)


@pytest.fixture
def frozen():
    """The parameters that do not train: the vision encoder and the language model. Here they are random."""
    rng = np.random.default_rng(2)
    return {
        "vision": init_vision_encoder(rng, CONFIG.vision),
        "feature_mean": np.zeros(8, np.float32),
        "feature_scale": np.ones(8, np.float32),
        "language": init_language_model(rng, CONFIG.language),
    }


@pytest.fixture(autouse=True)
def readable_operations():
    """The readable operations in NumPy (`ops/reference.py`), without compiled kernels."""
    with ops.use("reference"):
        yield


def logits_of(params, frozen, tokens=TOKENS, pictures=PICTURES):
    """The whole model: pixels -> features -> visual tokens -> logits."""
    features = encode_media(frozen, pictures, CONFIG)
    visual = resample(params, [features], CONFIG)
    return flamingo(params, frozen, tokens, phi(tokens), visual, CONFIG)


def loss_of(params, frozen, features):
    """The mean loss of the next tokens. The encoder is frozen: its features are computed once, before."""
    visual = resample(params, [features], CONFIG)
    logits = flamingo(params, frozen, TOKENS[:, :-1], phi(TOKENS)[:, :-1], visual, CONFIG)
    losses = ops.cross_entropy(logits[0], TOKENS[0, 1:])
    return losses.sum() * losses.dtype.type(1 / len(TOKENS[0, 1:]))


def test_shapes_from_pixels_to_logits(params, frozen):
    features = encode_media(frozen, PICTURES, CONFIG)
    assert features.shape == (2, 1, 16, 8)  # 2 media, 1 frame, 4 x 4 cells, each a vector of 8
    visual = resample(params, [features], CONFIG)
    assert visual.shape == (2, 3, 8)  # always 3 visual tokens for each medium, for any number of frames and cells
    video = np.concatenate([features] * 5, axis=1)
    assert resample(params, [video], CONFIG).shape == visual.shape
    logits = flamingo(params, frozen, TOKENS, phi(TOKENS), visual, CONFIG)
    assert logits.shape == (1, 11, 21)  # for each token: 20 words and <EOC>


def test_phi_is_the_number_of_the_medium_that_a_token_sees():
    """It is the last picture before the token. 0: no picture yet."""
    np.testing.assert_array_equal(phi(TOKENS), [[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]])
    mask = cross_attention_mask(phi(TOKENS)[0], N=2, R=3)  # 11 tokens, 2 media of 3 visual tokens
    assert mask.shape == (11, 6)
    assert not mask[:3].any() and mask[3:7, :3].all() and mask[7:, 3:].all() and mask.sum() == 8 * 3


def test_untrained_it_is_the_language_model_bit_for_bit(params, frozen):
    """All gates are tanh(0) = 0, so nothing changes in the language model."""
    assert set(gates(params).values()) == {0.0}
    words = np.where(TOKENS == EOC, 3, TOKENS)  # the language model does not know <EOC>
    alone = language_model(frozen["language"], words, CONFIG.language)
    np.testing.assert_array_equal(logits_of(params, frozen, words)[..., :20], alone)
    others = 255 - PICTURES
    np.testing.assert_array_equal(logits_of(params, frozen, words, others)[..., :20], alone)  # no effect of pictures


def test_with_open_gates_a_picture_changes_its_own_text_and_what_follows(params, frozen):
    for i in CONFIG.gated_layers:
        params[f"xattn_{i}"] |= {"alpha_xattn": np.float32(1), "alpha_dense": np.float32(1)}
    before = logits_of(params, frozen)
    changed = PICTURES.copy()
    changed[1] = 255 - changed[1]
    difference = np.abs(logits_of(params, frozen, pictures=changed) - before).max(axis=-1)[0]
    assert np.all(difference[:7] == 0)  # tokens before picture 2
    assert np.all(difference[7:] > 0)


def test_the_first_gradient_is_at_the_gates(params, frozen):
    """Parameters behind a closed gate have gradient 0. The gate learns first, then all others can."""
    features = encode_media(frozen, PICTURES, CONFIG)
    _, gradient = ops.value_and_grad(lambda p: loss_of(p, frozen, features))(params)
    learning = {name for name, leaf in named_leaves(gradient).items() if np.any(leaf != 0)}
    assert learning == {"eoc"} | {f"xattn_{i}/alpha_{gate}" for i in (0, 1) for gate in ("xattn", "dense")}


def test_some_steps_of_training_lower_the_loss(params, frozen):
    """Plain gradient descent. Only `params` is an argument of the gradient: this is the meaning of frozen."""
    features = encode_media(frozen, PICTURES, CONFIG)
    before = {name: leaf.copy() for name, leaf in named_leaves(frozen).items()}
    losses, step = [], ops.value_and_grad(lambda p: loss_of(p, frozen, features))
    for _ in range(30):
        loss, gradient = step(params)
        losses.append(float(loss))
        slopes = named_leaves(gradient)
        moved = {name: leaf - np.float32(0.3) * slopes[name] for name, leaf in named_leaves(params).items()}
        params = from_named_leaves(moved)
    assert losses[-1] < losses[0] / 2
    assert min(gates(params).values()) > 0  # all gates have opened
    for name, leaf in named_leaves(frozen).items():
        np.testing.assert_array_equal(leaf, before[name], err_msg=name)


# ---------------------------------------------------------------- the model that comes with the package


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


def circle(colour):
    """A filled circle on white, uint8 (32, 32, 3)."""
    y, x = np.mgrid[:32, :32] - 15.5
    return np.where((x**2 + y**2 < 100)[..., None], np.array(colour), 255).astype(np.uint8)


RED, BLUE = circle((220, 40, 40)), circle((40, 60, 200))


def test_a_trained_model_describes_pictures(model):
    assert tinyflamingo.complete(model, [RED, "Output:"])["text"] == "a red circle."
    assert tinyflamingo.complete(model, [BLUE, "Output:"])["text"] == "a blue circle."


def test_a_completion_comes_with_its_numbers(model):
    """Pictures and texts in any order. phi shows which picture each token of the prompt sees."""
    answer = tinyflamingo.complete(model, [RED, "Output: a red circle.", BLUE, "Output:"])
    assert answer["text"] == "a blue circle."
    assert answer["prompt_tokens"][:2] == ["<BOS>", "<image>"]
    assert answer["phi"][:2] == [0, 1] and answer["phi"][-1] == 2
    assert len(answer["tokens"]) == len(answer["log_probs"]) and max(answer["log_probs"]) <= 0
