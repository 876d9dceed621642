"""`complete`: a prompt of text, pictures and videos in, a continuation out; prompts that are refused."""

import dataclasses
import json

import numpy as np
import pytest
from model_cases import shaken_flamingo, tiny_config

import tinyflamingo
from tinyflamingo.data.images import prepare_picture
from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.decoding.complete import complete
from tinyflamingo.decoding.sampling import Sampling
from tinyflamingo.errors import UserError

CONFIG = tiny_config(vocab=662)
RED, CLIP = np.full((8, 8, 3), (200, 10, 30), np.uint8), np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
PROMPT = [RED, "a red star.", CLIP, "Output:"]


@pytest.fixture(scope="module")
def model(tokenizer):
    """Never changed."""
    return shaken_flamingo(tokenizer, CONFIG)


def test_complete_returns_text_and_numbers(model):
    answer = complete(model, PROMPT, max_tokens=5)
    keys = {"text", "tokens", "log_probs", "phi", "prompt_tokens", "finished", "probability", "threshold", "unlike"}
    assert set(answer) == keys and 0 < answer["probability"] <= 1 and answer["threshold"] is answer["unlike"] is None
    assert answer["prompt_tokens"][:2] == ["<BOS>", "<image>"] and answer["prompt_tokens"].count("<image>") == 2
    assert len(answer["phi"]) == len(answer["prompt_tokens"])
    assert answer["phi"][0] == 0 and answer["phi"][1] == 1 and answer["phi"][-1] == 2
    assert len(answer["tokens"]) == len(answer["log_probs"]) <= 5 and all(p <= 0 for p in answer["log_probs"])
    json.dumps(answer)  # for --json


def test_prompts_without_pictures(model):
    text_only = complete(model, ["Output: a red star.", EOC, Quiet("Output:")], max_tokens=3)
    assert set(text_only["phi"]) == {0} and "<EOC>" in text_only["prompt_tokens"]
    assert complete(model, [], max_tokens=2)["prompt_tokens"] == ["<BOS>"]
    literal = complete(model, ["<image>"], max_tokens=1)
    assert "<image>" not in literal["prompt_tokens"] and set(literal["phi"]) == {0}


def test_complete_samples_with_its_generator(model):
    runs = [
        complete(model, PROMPT, 6, sampling=Sampling(1.5, top_k=50), rng=np.random.default_rng(s)) for s in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_picture_is_a_video_of_one_frame(model):
    assert complete(model, [RED, "Output:"], 4) == complete(model, [RED[None], "Output:"], 4)


def test_pictures_and_videos_of_any_size_are_fitted_like_files(model):
    side = model.config.vision.side
    wide = np.zeros((17, 23, 3), np.uint8)
    wide[:, :9] = 200
    fitted = prepare_picture(wide, side)
    assert complete(model, [wide, "Output:"], 4) == complete(model, [fitted, "Output:"], 4)
    assert complete(model, [np.stack([wide] * 2), "a"], 4) == complete(model, [np.stack([fitted] * 2), "a"], 4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beams": 0}, "beams is 0 but must be from 1 to 64"),
        ({"beams": -3}, "beams is -3 but must be from 1 to 64"),
        ({"beams": 65}, "beams is 65 but must be from 1 to 64"),
        ({"beams": 2, "sampling": Sampling(1.0)}, "give beams or sampling, but not both"),
        ({"beams": 2, "sampling": Sampling(top_k=3)}, "give beams or sampling, but not both"),
    ],
    ids=str,
)
def test_wrong_beams_and_beams_with_sampling_are_a_user_error(model, options, message):
    with pytest.raises(UserError, match=message):
        complete(model, [RED, "Output:"], 2, rng=np.random.default_rng(0), **options)


def test_one_beam_may_sample_and_several_beams_may_be_greedy(model):
    one = complete(model, PROMPT, 4, beams=1, sampling=Sampling(1.0), rng=np.random.default_rng(0))
    assert len(one["tokens"]) == len(one["log_probs"]) <= 4
    three = complete(model, PROMPT, 4, beams=3, sampling=Sampling())
    (score,) = three["log_probs"]  # of the whole continuation
    assert len(three["tokens"]) <= 4 and score < 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_tokens": 2.5}, "max_tokens is of type float but must be of type int"),
        ({"max_tokens": None}, "max_tokens is of type NoneType"),
        ({"beams": 2.0}, "beams is of type float"),
        ({"beams": True}, "beams is of type bool"),
        ({"sampling": {"temperature": 1}}, "sampling is of type dict"),
        ({"sampling": Sampling(1.0), "rng": 0}, "rng is of type int but must be of type Generator"),
    ],
    ids=str,
)
def test_options_of_another_type_are_a_user_error(model, options, message):
    with pytest.raises(UserError, match=message):
        complete(model, PROMPT, **options)


def test_a_model_and_a_prompt_of_another_type_are_a_user_error(model):
    with pytest.raises(UserError, match="model is of type str"):
        complete("toy", PROMPT)
    with pytest.raises(UserError, match="not of type int"):
        complete(model, 5)


def test_a_prompt_may_be_any_iterable(model):
    assert complete(model, iter(PROMPT), 4) == complete(model, PROMPT, 4)


def test_sampling_without_a_generator_is_a_user_error(model):
    with pytest.raises(UserError, match="give rng="):
        complete(model, PROMPT, 2, sampling=Sampling(1.0))


def test_the_function_of_the_package_is_complete(model):
    options = {"sampling": Sampling(1.5), "rng": np.random.default_rng(1)}
    answer = tinyflamingo.complete(model, PROMPT, 5, **options)
    assert answer == complete(model, PROMPT, 5, sampling=Sampling(1.5), rng=np.random.default_rng(1))
    assert tinyflamingo.complete(model, PROMPT, beams=3) == complete(model, PROMPT, 24, beams=3)


def test_a_string_alone_is_not_a_prompt(model):
    with pytest.raises(UserError, match="a prompt is a list"):
        complete(model, "Output:")


@pytest.mark.parametrize(
    "item, kind",
    [
        (3, "int"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        (RED.astype(np.float32), r"float32 \(8, 8, 3\)"),
        (RED[..., :2], r"uint8 \(8, 8, 2\)"),
        (RED[0], r"uint8 \(8, 3\)"),
        (CLIP[:0], r"uint8 \(0, 8, 8, 3\)"),
        (RED[:0], r"uint8 \(0, 8, 3\)"),
    ],
)
def test_items_of_another_kind_are_a_user_error(model, item, kind):
    with pytest.raises(UserError, match=f"a prompt is a list of strings.* found .*{kind}"):
        complete(model, ["a", item])


def test_a_prompt_that_is_too_long_is_a_user_error(model):
    with pytest.raises(UserError, match="but the context is 64"):
        complete(model, ["a red star. " * 30])


def test_an_empty_prompt_without_bos_is_a_user_error(model):
    """Some tokenizers of public models have no `<BOS>`."""

    class WithoutBos:
        opening = ()

        def __getattr__(self, name):
            return getattr(model.tokenizer, name)

    without_bos = dataclasses.replace(model, tokenizer=WithoutBos())
    with pytest.raises(UserError, match="the prompt is empty"):
        complete(without_bos, [], 2)
