"""flamingo.js against the package: the same tokens, texts, logits and attention weights, in Node."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from test_one_file import KINDS, other_folder, prompt, theirs  # noqa: F401  (fixtures)
from truth_files import FLAMINGO, PROMPTS, SEEDS, ask_node, floats, items_of, request

import tinyflamingo
from tinyflamingo import one_file
from tinyflamingo.data.images import load_picture
from tinyflamingo.model.flamingo import encode_and_resample, flamingo
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.studies.attention_maps import attention_maps, resampler_maps

CLOSE = {"float32": 1e-4, "float16": 0.01}  # largest difference of logits, by the type of the packed weights
WEIGHTS = 1e-5  # largest difference of attention weights, with float32
H = 4


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


def expected(model, items):
    """What the package makes of a prompt: the batch, visual tokens, logits (T, V + 1), attention (G, T, H, M, R)."""
    batch = make_batch([encode_document(items, model.tokenizer, complete=False)])
    visual = encode_and_resample(model, batch.media)
    arguments = model.params, model.frozen, batch.tokens, batch.phi, visual, model.config
    return batch, visual, flamingo(*arguments)[0], attention_maps(*arguments)[:, 0]


def attention_of(answer, T, M, R=8):
    """The weights of all gated blocks, (G, T, H, M, R), as the package orders them."""
    blocks = [floats(block, H, T, M, R) for block in answer["attention"]]
    return np.stack(blocks).transpose(0, 2, 1, 3, 4)


@pytest.fixture(scope="module", params=CLOSE)
def told(request, node, packed, tmp_path_factory):
    """(type of the weights, the answers to all prompts)."""
    asked = request_all()
    return request.param, ask_node(node, tmp_path_factory.mktemp("truth"), packed(request.param), asked)["prompts"]


def request_all():
    return request([(items_of(kind, seed), {}) for kind, seed in PROMPTS])


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_text_logits_and_attention_are_those_of_the_package(kind, told, model):
    dtype, answers = told
    for answer, (_, seed) in [pair for pair in zip(answers, PROMPTS, strict=True) if pair[1][0] is kind]:
        items = items_of(kind, seed)
        batch, visual, logits, attention = expected(model, items)
        assert answer["tokens"] == batch.tokens[0].tolist() and answer["phi"] == batch.phi[0].tolist()
        assert answer["text"] == tinyflamingo.complete(model, prompt(kind, seed))["text"]
        own = floats(answer["logits"], *logits.shape)
        assert np.abs(own - logits).max() < CLOSE[dtype]
        np.testing.assert_array_equal(own[-1], floats(answer["last"], len(own[-1])))
        maps = attention_of(answer, len(logits), len(visual))
        assert np.abs(maps - attention).max(initial=0) < (WEIGHTS if dtype == "float32" else CLOSE[dtype])
        shut = np.arange(1, len(visual) + 1) != batch.phi[0][:, None]  # (T, M)
        assert (maps.transpose(1, 3, 0, 2, 4)[shut] == 0).all()
        assert ((maps.sum((3, 4)) - (batch.phi[0] > 0)[:, None]) ** 2 < 1e-10).all()
