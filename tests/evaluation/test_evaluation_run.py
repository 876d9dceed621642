"""Scoring: intervals, a decoder that is always right and one that never is, turns, and the report."""

import dataclasses
import json

import numpy as np
import pytest
from model_cases import tiny_config, with_vocabulary

import tinyflamingo
from tinyflamingo.data.tinyworld.pool import Medium, split_rng
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation import run
from tinyflamingo.evaluation.tasks import TASKS, Query
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.decoders import PublicDecoderConfig
from tinyflamingo.variants.registry import untrained

PUBLIC = {"form": PublicDecoderConfig}


@pytest.fixture(scope="module")
def model(tokenizer):
    return untrained(np.random.default_rng(0), get_preset("smoke").config, tokenizer)


def decoder(right):
    """A replacement for the model: it looks up the answer, or is always wrong."""
    answers = {}

    def remember(rng, n, name):
        pool, queries = TASKS_BEFORE[name](rng, n)
        for q in queries:
            answers[repr([item for item in q.prompt if isinstance(item, Medium)])] = q.answer
        return pool, queries

    def decode(model, prompts, features):
        media = [repr([item for item in p if isinstance(item, Medium)]) for p in prompts]
        return [answers[m] if right else "i do not know." for m in media]

    return remember, decode


TASKS_BEFORE = dict(TASKS)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("right", [True, False])
def test_a_decoder_that_is_right_scores_1_and_one_that_is_wrong_0(model, monkeypatch, name, right):
    remember, decode = decoder(right)
    monkeypatch.setitem(TASKS, name, lambda rng, n, side: remember(rng, n, name))
    monkeypatch.setattr(run, "decode_batch", decode)
    row = run.run_task(model, name, np.random.default_rng(2), 6)
    assert row["score"] == float(right) and row["n"] == 6 and row["metric"] == "exact match"
    assert row["ci95"][int(right)] == pytest.approx(float(right), abs=1e-9)
    assert all(type(x) is float for x in (row["score"], *row["ci95"]))


def test_a_swap_with_one_right_answer_scores_0(model, monkeypatch):
    remember, decode = decoder(True)
    monkeypatch.setitem(TASKS, "image_swap", lambda rng, n, side: remember(rng, n, "image_swap"))
    monkeypatch.setattr(run, "decode_batch", lambda *a: [t if i % 2 else "wrong." for i, t in enumerate(decode(*a))])
    row = run.run_task(model, "image_swap", np.random.default_rng(2), 8)
    assert row["score"] == 0.0 and row["n"] == 8


def test_turns_continue_the_models_own_answers(model, monkeypatch):
    calls = []

    def decode(model, prompts, features):
        calls.append([list(p) for p in prompts])
        return [f"word {len(calls)} {i}." for i in range(len(prompts))]

    monkeypatch.setattr(run, "decode_batch", decode)
    queries = [Query([Medium("picture", i), "first?"], "a.", ("second?", "third?")) for i in range(2)]
    assert run.answer(model, queries, None) == ["word 3 0.", "word 3 1."]
    for i in range(2):
        picture = Medium("picture", i)
        assert [prompts[i] for prompts in calls] == [
            [picture, "first?"],
            [picture, "first?", f"word 1 {i}.", "second?"],
            [picture, "first?", f"word 1 {i}.", "second?", f"word 2 {i}.", "third?"],
        ]
    assert queries[0].prompt == [Medium("picture", 0), "first?"]  # a query is not changed


def test_decoding_side_by_side_is_decoding_alone(model):
    """Left padding of shorter prompts changes no answer."""
    pool, queries = TASKS["dialogue"](np.random.default_rng(2), 6)
    features = run.MediaFeatures(model.frozen, pool, model.config)
    prompts = [q.prompt for q in queries]
    together = run.decode_batch(model, prompts, features)
    assert together == [run.decode_batch(model, [p], features)[0] for p in prompts]


@pytest.mark.parametrize("task", ["dialogue", "video_action"])
def test_decoding_over_a_pool_is_completing_with_its_pixels(task):
    """With the trained model, whose answers depend on the media; several prompts side by side."""
    model = tinyflamingo.load()
    pool, queries = TASKS[task](np.random.default_rng(2), 6)
    prompts = [q.prompt for q in reversed(queries)]
    said = run.decode_batch(model, prompts, run.MediaFeatures(model.frozen, pool, model.config))
    for prompt, answer in zip(prompts, said, strict=True):
        pixels = {"picture": pool.pictures, "clip": pool.videos}[prompt[0].kind][prompt[0].index]
        assert answer == tinyflamingo.complete(model, [pixels, *prompt[1:]], run.ANSWER_TOKENS)["text"]
    assert len(set(said)) > 2


def test_the_report_has_its_schema_and_is_json(model):
    report = run.evaluate(model, 4)
    assert set(report["tasks"]) == {"zero_shot_classification", *TASKS}
    for row in report["tasks"].values():
        assert set(row) == {"metric", "score", "ci95", "n"}
        assert 0 <= row["ci95"][0] <= row["score"] <= row["ci95"][1] <= 1 and row["n"] == 4
    assert set(report["text_perplexity"]) == {"language_model", "flamingo"}
    assert report["seconds"] > 0
    assert json.loads(json.dumps(report)) == report
    table = run.format_report(report)
    assert all(name in table for name in report["tasks"])


def test_perplexity_of_an_untrained_flamingo_is_that_of_its_language_model(model):
    perplexity = run.text_perplexity(model, np.random.default_rng(0), n=8)
    assert perplexity["flamingo"] == perplexity["language_model"] > 100  # the gates are shut


@pytest.mark.parametrize("family", ["gpt2", "opt", "mpt"])
def test_a_model_with_a_public_decoder_and_no_text_tower_is_scored(tokenizer, family):
    """As after `train --from` a converted port."""
    config = with_vocabulary(tiny_config(language=PUBLIC | {"family": family, "context": 160}), len(tokenizer))
    model = untrained(np.random.default_rng(0), config, tokenizer)
    del model.frozen["contrastive"]["text"]
    report = run.evaluate(model, 2)
    assert set(report["tasks"]) == set(TASKS)
    perplexity = report["text_perplexity"]
    assert perplexity["flamingo"] == perplexity["language_model"] > 100
    with pytest.raises(UserError, match="needs a text tower, and the checkpoint has none"):
        run.evaluate(model, 2, only=["zero_shot_classification"])


def test_weights_of_a_port_have_no_score_on_tinyworld(model):
    port = dataclasses.replace(model, info={"peer": "open_flamingo"})
    with pytest.raises(UserError, match="weights of open_flamingo, but the tasks are about pictures of TinyWorld"):
        run.evaluate(port, 2)
    trained = dataclasses.replace(model, info={"peer": "open_flamingo", "data": {"mix": 0.5, "start": "port"}})
    assert run.evaluate(trained, 2, only=["caption"])["tasks"]


def test_only_chosen_tasks_run(model):
    assert list(run.evaluate(model, 2, only=["caption", "vqa"])["tasks"]) == ["caption", "vqa"]
    with pytest.raises(UserError, match="unknown task 'captions': choose from zero_shot_classification, caption, "):
        run.evaluate(model, 2, only=["caption", "captions"])


def streams(model, monkeypatch, seed):
    """States of all Generators that an evaluation uses."""
    states = []

    def recording(*numbers):
        generator = split_rng(*numbers)
        states.append(tuple(generator.bit_generator.seed_seq.generate_state(4)))
        return generator

    with monkeypatch.context() as patch:
        patch.setattr(run, "split_rng", recording)
        run.evaluate(model, 1, seed, only=["caption", "vqa"])
    return states


def test_another_seed_is_another_test_stream_for_every_task(model, monkeypatch):
    one, same, other = (streams(model, monkeypatch, seed) for seed in (0, 0, 1))
    assert one == same and not set(one) & set(other) and len(set(one)) == len(one) == 3


@pytest.mark.parametrize(
    "scored",
    [
        lambda model, rng: run.zero_shot_classification(model, rng, 2),
        lambda model, rng: run.run_task(model, "caption", rng, 2),
        lambda model, rng: run.text_perplexity(model, rng, 4),
    ],
    ids=["zero-shot", "caption", "text"],
)
def test_a_model_that_gives_nan_has_no_score(tokenizer, scored):
    """Weights in memory: from a file they would be refused."""
    model = untrained(np.random.default_rng(0), get_preset("smoke").config, tokenizer)
    model.frozen["contrastive"]["picture_projection"][:] = np.nan
    model.frozen["language"]["embedding"][:] = np.nan
    with np.errstate(all="ignore"), pytest.raises(UserError, match="NaN or infinite"):
        scored(model, split_rng("test", 0))
