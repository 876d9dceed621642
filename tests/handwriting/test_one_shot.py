"""The one-shot protocol: its likelihoods, runs with known answers, and its commands."""

import dataclasses
import json

import numpy as np
import pytest
from omniglot_files import make_characters

from tinyflamingo import cli
from tinyflamingo.checkpoint import save_checkpoint
from tinyflamingo.decoding.beams import score_continuations
from tinyflamingo.errors import UserError
from tinyflamingo.handwriting import one_shot
from tinyflamingo.handwriting.omniglot import Run, make_runs, pack_runs
from tinyflamingo.handwriting.one_shot import answer_run, evaluate_runs, label_scores, word_scores
from tinyflamingo.model.flamingo import encode_media, resample
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained


@pytest.fixture(scope="module")
def model(tokenizer):
    model = untrained(np.random.default_rng(0), get_preset("smoke").config, tokenizer)
    for name, block in model.params.items():
        if name.startswith("xattn_"):
            block["alpha_xattn"][...] = block["alpha_dense"][...] = 0.7
    return model


@pytest.fixture(scope="module")
def runs():
    return make_runs(np.random.default_rng(2), make_characters(np.random.default_rng(1), "Aleph", 5), n=3, ways=4)


def test_the_caches_change_no_likelihood(model, rng):
    """Against the direct way: the model reads every prompt from its start, with every word at the end."""
    words = ["lofa", "kimu", "dojo"]
    pictures = rng.integers(256, size=(5, 1, 32, 32, 3), dtype=np.uint8)
    visual = resample(model.params, [encode_media(model.frozen, pictures, model.config)], model.config)
    scores = word_scores(model, visual, words)
    assert scores.shape == (2, 3)
    for q in range(2):
        prompt = [item for i, word in enumerate(words) for item in (i, word)] + [3 + q]
        sequences = [encode_document([*prompt, word], model.tokenizer) for word in words]
        for sequence in sequences:  # a word of two tokens, and `<EOC>`
            sequence.weights[:-3] = [0.0] * (len(sequence.weights) - 3)
        batch = make_batch(sequences)
        expected = score_continuations(model, batch, visual[np.array(batch.media)])
        np.testing.assert_allclose(scores[q], expected, rtol=1e-4)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3  # the query's picture matters


def test_scores_are_normalised_and_in_the_order_of_the_support(model, runs, rng, monkeypatch):
    scores = label_scores(model, runs[0], rng)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1)
    used_words = []
    monkeypatch.setattr(one_shot, "encode_media", lambda frozen, media, config, parts: media)
    as_they_are = model.parts._replace(resample=lambda params, groups, config: groups[0][:, 0, :, :, 0].astype(float))
    model = dataclasses.replace(model, parts=as_they_are)

    def nearest(model, visual, words):
        used_words.append(words)
        support, queries = visual[: len(words)], visual[len(words) :]
        return -np.abs(support[None] - queries[:, None]).mean(axis=(2, 3))

    monkeypatch.setattr(one_shot, "word_scores", nearest)
    for _ in range(3):
        assert (label_scores(model, repeated(runs[0]), rng).argmax(axis=1) == repeated(runs[0]).answers).all()
    assert len({tuple(words) for words in used_words}) == 3


def repeated(run):
    """A run whose queries repeat its support, so the answers are known."""
    answers = np.array([2, 0, 3, 1, 1])
    return Run(run.name, run.support, run.support[answers], answers)


def test_errors_are_counted_over_runs(model, runs, monkeypatch):
    wrong = {"run01": 0, "run02": 1, "run03": 3}

    def answers(model, run, rng):
        guesses = run.answers.copy()
        guesses[: wrong[run.name]] = (guesses[: wrong[run.name]] + 1) % 4
        return guesses

    monkeypatch.setattr(one_shot, "answer_run", answers)
    task = evaluate_runs(model, runs)["tasks"]["omniglot"]
    assert task["runs"] == {"run01": 0.0, "run02": 0.25, "run03": 0.75}
    assert task["score"] == pytest.approx(4 / 12) and task["n"] == 12 and task["metric"] == "error rate"
    assert task["ci95"][0] < 4 / 12 < task["ci95"][1]


def test_the_same_seed_gives_the_same_answers(model, runs):
    one, two = (answer_run(model, runs[0], np.random.default_rng(4), prompts=2) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_more_characters_than_names_are_refused(model):
    blank = np.zeros((21, 105, 105), bool)
    with pytest.raises(UserError, match="run x has 21 characters, but there are only 20 names"):
        evaluate_runs(model, [Run("x", blank, blank[:1], np.array([0]))])


def test_the_command(model, runs, tmp_path, capsys):
    save_checkpoint(model, tmp_path / "checkpoint")
    (tmp_path / "runs.zip").write_bytes(pack_runs(runs))
    where = ["--checkpoint", str(tmp_path / "checkpoint"), "--json", str(tmp_path / "out.json")]
    assert cli.main(["evaluate", "--task", "omniglot", "--runs", str(tmp_path / "runs.zip"), *where]) == 0
    printed = capsys.readouterr().out
    assert "omniglot" in printed and "run03" in printed and "perplexity" not in printed
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["tasks"]["omniglot"]["runs"]) == {"run01", "run02", "run03"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--task", "omniglot"], "belong together"),
        (["--runs", "x.zip", "--task", "omniglot", "--task", "caption"], "belong together"),
        (["--runs", "x.zip"], "--runs belongs to --task omniglot"),
        (["--runs", "x.zip", "--task", "caption"], "--runs belongs to --task omniglot"),
    ],
)
def test_task_and_runs_belong_together(arguments, message, capsys):
    assert cli.main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_preset_on_handwriting_needs_its_files(tmp_path, capsys):
    arguments = ["train", "--preset", "omniglot", "--out", str(tmp_path / "x")]
    assert cli.main(arguments) == 2
    assert "--data" in capsys.readouterr().err
    assert cli.main([*arguments, "--data", str(tmp_path)]) == 2
    assert "download images_background_small1.zip" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
