"""Scores beside their baselines: right answers win, another's picture loses, and raw pixels copy their neighbour."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from own_files import COLOURS, lines, vqav2
from PIL import Image

import tinyflamingo
from tinyflamingo import cli
from tinyflamingo.data.store import prepare
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.retrieval import distances
from tinyflamingo.evaluation.run import format_report
from tinyflamingo.own_data import scores, ways
from tinyflamingo.own_data.options import FOLDER
from tinyflamingo.own_data.questions import Question, Side, others, questions, small_pixels
from tinyflamingo.own_data.scores import _metrics, _neighbours, _options, own_report


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """120 pictures of one colour each, of six colours, with some noise."""
    root, rows, rng = tmp_path_factory.mktemp("source"), [], np.random.default_rng(0)
    shades = {**COLOURS, "white": (250, 250, 250), "black": (5, 5, 5), "yellow": (240, 220, 30)}
    for i in range(120):
        name, shade = list(shades.items())[i % 6]
        picture = np.clip(np.array(shade) + rng.normal(0, 9, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{i}.png")
        rows.append({"file": f"{i}.png", "text": f"{name} paper."})
    lines(root / "captions.jsonl", rows)
    return root


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    return prepare(source, tmp_path_factory.mktemp("store") / FOLDER, 32)


def asked_and_known(store):
    return questions(Side(store, store.held_out)), questions(Side(store, store.training))


def test_another_picture_is_of_another_record_and_if_possible_of_another_text(store):
    asked, _ = asked_and_known(store)
    assert len(asked) == 6
    for i, j in enumerate(others(asked)):
        assert asked[j].picture != asked[i].picture
        assert asked[j].answer != asked[i].answer or len({q.answer for q in asked}) == 1


def test_raw_pixels_copy_the_nearest_text(store):
    asked, known = asked_and_known(store)
    options, right = _options(np.random.default_rng(0), known, asked)
    assert [o[r] for o, r in zip(options, right, strict=True)] == [q.answer for q in asked]
    assert all(len(set(o)) == len(o) == 6 for o in options)
    answers = _neighbours(known, asked, options)
    assert [text for text, _ in answers] == [q.answer for q in asked]
    assert [best for _, best in answers] == right


def test_distances_are_those_of_the_pixels(store):
    asked, known = asked_and_known(store)
    one, other = small_pixels(asked[:2]), small_pixels(known[:3])
    expected = ((one[:, None] - other[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances(one, other), expected, rtol=1e-2, atol=1e3)


def test_the_report_has_all_rows_beside_their_baselines(model, store):
    report = own_report(model, Side(store, store.training), Side(store, store.held_out), shots=(0, 2))
    names = ("exact match", "first word", "ranking among 6 texts")
    wanted = [*names, *(f"2 shots: {name}" for name in names), "2-way 1-shot", "5-way 1-shot"]
    assert list(report["scores"]) == wanted and report["asked"] == 6
    for row in report["scores"].values():
        assert row["n"] == 6 and 0 <= row["score"] <= 1 and row["neighbours"] == 1.0
    five = report["scores"]["5-way 1-shot"]
    assert five["score"] > five["another"]  # the shipped model knows colours
    assert report == own_report(model, Side(store, store.training), Side(store, store.held_out), shots=(0, 2))


def test_a_long_text_is_ranked_by_its_beginning(model, store, monkeypatch):
    """A row for each text, all as long as the longest one: a text of thousands of words would need all memory."""
    asked, known = asked_and_known(store)
    known = [replace(known[0], answer="word " * 4000), *known[1:]]
    asked = [replace(asked[0], asked="why " * 4000), *asked[1:]]
    lengths, ranked = [], scores.rank

    def watched(model, rows, candidates, *more):
        texts = [text for texts in candidates for text in texts] + [row[-1] for row in rows]
        lengths.extend(len(model.tokenizer.encode(text)) for text in texts)
        return ranked(model, rows, candidates, *more)

    monkeypatch.setattr(scores, "rank", watched)
    scores.answer_scores(model, known, asked, lambda some: scores.visual_tokens(model, some), 0, 0)
    assert max(lengths) == scores.LONGEST


@pytest.mark.parametrize("shots, message", [
    ((0, 10**20), f"--shots is {10**20}, but training has 114 records"),
    ((0, 114), "but with so many examples a prompt can have [0-9]+ tokens"),
])  # fmt: skip
def test_too_many_shots_are_refused_before_any_score(model, store, monkeypatch, shots, message):
    small = replace(model.config, language=replace(model.config.language, context=1000))
    monkeypatch.setattr(scores, "answer_scores", lambda *_: pytest.fail("a score"))
    with pytest.raises(UserError, match=message):
        own_report(replace(model, config=small), Side(store, store.training), Side(store, store.held_out), shots=shots)


def test_a_model_that_answers_right_has_the_score_1(model, store, monkeypatch):
    """And one that reads the exchanged picture has the score of its answer."""
    asked, known = asked_and_known(store)

    def perfect(model, asked, items, examples, shown, visual_of, options, length):
        by_visual = {q.pixels().tobytes(): q.answer for q in asked}
        texts = [by_visual[pixels.tobytes()] for pixels in shown]
        return [(text, o.index(text)) for text, o in zip(texts, options, strict=True)]

    monkeypatch.setattr(scores, "_answers", perfect)
    rows = scores.answer_scores(model, known, asked, lambda some: [q.pixels() for q in some], 0, 0)
    assert [rows[name]["score"] for name in rows] == [1.0, 1.0, 1.0]
    assert [rows[name]["another"] for name in rows] == [0.0, 0.0, 0.0]


def test_examples_never_show_the_asked_picture(store):
    asked, known = asked_and_known(store)
    classes = ways.examples_by_class(known, asked)
    assert len(classes) == 6
    for question in (*asked, *known[:10]):
        examples = ways._examples(classes, question)
        assert examples and all(e.picture != question.picture and e.label == question.label for e in examples)


def test_classes_that_training_lacks_have_their_examples_among_the_asked(source, tmp_path):
    store = prepare(source, tmp_path / FOLDER, 32, hold_out="class")
    asked, known = asked_and_known(store)
    assert {q.label for q in asked}.isdisjoint({q.label for q in known})
    assert set(ways.examples_by_class(known, asked)) == {q.label for q in asked}


def with_answers(texts, **more):
    return [Question(None, i, None, "", t[0], t, **more) for i, t in enumerate(texts)]


def test_captions_with_several_texts_have_cider():
    metrics = _metrics(with_answers([("a red dog.", "one dog in red"), ("a blue cat.",)]))
    assert list(metrics) == ["exact match", "first word", "CIDEr-D"]
    good, bad = (metrics["CIDEr-D"](texts).mean() for texts in (["a red dog", "A blue cat"], ["x", "y"]))
    assert good > 5 and bad == 0
    assert metrics["exact match"](["one dog in red", "a blue cat"]).tolist() == [1, 0]
    assert metrics["first word"](["one", "the cat"]).tolist() == [1, 0]
    assert list(_metrics(with_answers([("a",), ("b",)]))) == ["exact match", "first word"]


def test_vqa_with_ten_answers_has_its_accuracy(tmp_path):
    path = vqav2(tmp_path / "source")
    for file in (tmp_path / "source").glob("*annotations.json"):
        annotations = json.loads(file.read_text())
        for row in annotations["annotations"]:
            others = ["blue"] * 2 if row["multiple_choice_answer"] != "blue" else ["red"] * 2
            people = [row["multiple_choice_answer"]] * 8 + others
            row["answers"] = [{"answer": answer} for answer in people]
        file.write_text(json.dumps(annotations))
    store = prepare(path, tmp_path / FOLDER, 32)
    asked = questions(Side(store, np.arange(len(store))))
    assert all(len(q.people) == 10 for q in asked)
    metric = _metrics(asked)["VQA accuracy"]
    assert metric([q.answer for q in asked]).tolist() == [1.0, 1.0, 1.0] and metric(["x"] * 3).sum() == 0


def test_evaluate_asks_any_model_about_own_data(source, capsys, tmp_path):
    line = ["evaluate", "--data", str(source), "--queries", "6", "--json", str(tmp_path / "report.json")]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert (
        "another's picture   nearest by raw pixels" in out and "\nexact match" in out and "caption_relation" not in out
    )
    assert json.loads((tmp_path / "report.json").read_text())["own"]["asked"] == 6


@pytest.mark.parametrize("more, message", [
    (("--shots", "2"), "--shots counts examples of your own data"),
    (("--data", "x", "--suite"), "remove --suite"),
    (("--data", "nowhere"), "no such file"),
])  # fmt: skip
def test_options_without_effect_are_refused(capsys, more, message):
    assert cli.main(["evaluate", *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_an_answer_may_be_as_long_as_those_of_the_data(monkeypatch, model, store):
    """A model that knows every answer gets them all right, however long they are."""

    def longer(question):
        answer = " ".join([question.answer] * 10)
        return replace(question, answer=answer, accepted=(answer,))

    asked, known = (list(map(longer, some)) for some in asked_and_known(store))
    answers, tokenizer = [q.answer for q in asked], model.tokenizer
    assert all(40 < len(tokenizer.encode(answer)) < scores.LONGEST for answer in answers)

    def knows(model, rows, seen, cache, visual, tokens):
        return [tokenizer.decode(tokenizer.encode(answer)[: tokens - 1]) for answer in answers]

    monkeypatch.setattr(scores, "write", knows)
    rows = scores.answer_scores(model, known, asked, partial(scores.visual_tokens, model), 0, 0)
    assert rows["exact match"]["score"] == 1


@pytest.mark.parametrize("language, first", [("en", "held-out records"), ("zh", "留出的记录")])
def test_a_long_name_keeps_the_columns_in_line(monkeypatch, language, first):
    monkeypatch.setenv("TINYFLAMINGO_LANGUAGE", language)
    row = {"score": 0.5, "ci95": (0.4, 0.6), "n": 100, "another": 0.1, "neighbours": 0.2}
    names = ("exact match", "16 shots: ranking among 50 texts")
    own = {"n": 9, "perplexity": 1.0, "perplexity_exchanged": 2.0, "scores": dict.fromkeys(names, row)}
    heading, *rows = format_report({"tasks": {}, "own": own}).splitlines()[1:]
    assert len({line.index("0.500") for line in rows}) == 1 and heading.startswith(first)
    columns = sum(1 + (c > "\u2e80") for c in heading[: re.search(r"  +(\S)", heading).start(1)])
    assert columns == rows[0].index("0.500")
