"""Metrics: known values, refused arguments, and intervals that hold the truth as often as they promise."""

import numpy as np
import pytest

from tinyflamingo.evaluation import metrics
from tinyflamingo.evaluation.metrics import (
    METRICS,
    auc,
    cider_d,
    exact_match,
    interval,
    normalise,
    over_seeds,
    summarise,
    summarise_auc,
    vqa_accuracy,
)

REFERENCES = [
    ("a red circle left of a blue star .", "a red circle beside a blue star ."),
    ("three green rings .", "there are three green rings ."),
    ("a yellow moon turns pink .", "a moon turns pink ."),
]
SAID = ["a red circle left of a blue star .", "two green rings .", "a yellow moon ."]


@pytest.mark.parametrize("text, plain", [
    ("A Red circle.", "red circle"),
    ("the  FOX!", "fox"),
    ("two", "2"), ("ten apples", "10 apples"), ("none", "0"), ("no", "no"),
    ("1,000", "1000"), ("2.5", "2.5"), ("left/right", "left right"), ("don't", "dont"), ("", ""),
])  # fmt: skip
def test_normalise(text, plain):
    assert normalise(text) == plain


@pytest.mark.parametrize("same, score", [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_of_ten_people(same, score):
    people = ("red",) * same + ("blue",) * (10 - same)
    assert vqa_accuracy(["Red."], [people])[0] == pytest.approx(score)


def test_vqa_accuracy_normalises_both_sides_and_takes_a_single_answer():
    assert vqa_accuracy(["two", "a fox.", "red"], [("2",), ("the fox",), ("blue",)]).tolist() == [1, 1, 0]


def test_exact_match_compares_every_character_with_the_first_answer():
    assert exact_match(["red.", "red", "Red."], [("red.", "red")] * 3).tolist() == [1, 0, 0]


def test_cider_d_is_that_of_pycocoevalcap():
    """The expected numbers are those of pycocoevalcap 1.2 for the same texts."""
    wanted = [7.549441017804581, 3.930954061749121, 2.4195909944913128]
    np.testing.assert_allclose(cider_d(SAID, REFERENCES), wanted, rtol=0, atol=1e-9)


def test_cider_d_against_the_package_itself(rng):
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    words = "a red blue circle star left of the moves".split()

    def text(least):
        return " ".join(rng.choice(words, size=rng.integers(least, 9)))

    for n in (1, 2, 7, 12):
        references = [tuple(text(1) for _ in range(rng.integers(1, 5))) for _ in range(n)]
        said = [text(0) for _ in range(n)]
        _, wanted = cider.Cider().compute_score(
            dict(enumerate(map(list, references))), {i: [s] for i, s in enumerate(said)}
        )
        np.testing.assert_allclose(cider_d(said, references), wanted, rtol=0, atol=1e-9)


def test_cider_d_of_the_reference_itself_is_10_and_of_other_words_0():
    references = [("a b c d e",), ("f g h i j",), ("k l m n o",)]
    assert cider_d([r[0] for r in references], references) == pytest.approx([10.0] * 3)
    assert cider_d(["x y z", "", "a b c d e"], references).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_gives_each_query_one_number_highest_for_the_right_answer(name):
    texts = ["a red circle.", "two blue stars.", "a green ring.", "it moves left."]
    answers = [(text,) for text in texts]
    right, wrong = METRICS[name](texts, answers), METRICS[name](texts[1:] + texts[:1], answers)
    assert right.shape == wrong.shape == (4,)
    assert (right > wrong).all()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("answers", [["red"], [()]])
def test_answers_must_be_non_empty_tuples(name, answers):
    with pytest.raises(ValueError, match="non-empty tuple"):
        METRICS[name](["red"], answers)


def test_auc():
    labels = np.array([False, False, True, True])
    assert auc([1, 2, 3, 4], labels) == 1.0 and auc([4, 3, 2, 1], labels) == 0.0
    assert auc([1, 1, 1, 1], labels) == 0.5 and auc([0.1, 0.4, 0.35, 0.8], labels) == 0.75
    with pytest.raises(ValueError, match="positives and negatives"):
        auc([1, 2], [True, True])


def test_auc_counts_pairs(rng):
    margins, labels = rng.integers(0, 6, size=40), rng.random(40) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in margins[labels] for n in margins[~labels]]
    assert auc(margins, labels) == pytest.approx(np.mean(pairs))
    row = summarise_auc(margins, labels, rng)
    assert row["ci95"][0] <= row["score"] <= row["ci95"][1] and row["n"] == 40


@pytest.mark.parametrize("hits, low, high", [
    ([1] * 10, 0.7225, 1.0),
    ([0] * 10, 0.0, 0.2775),
    ([1] * 5 + [0] * 5, 0.2366, 0.7634),
    ([1] * 90 + [0] * 10, 0.8256, 0.9448),
    ([1], 0.2065, 1.0),
])  # fmt: skip
def test_wilson_intervals(hits, low, high):
    score, (lo, hi) = interval(np.array(hits))
    assert score == pytest.approx(np.mean(hits))
    assert (lo, hi) == pytest.approx((low, high), abs=1e-4)
    assert 0 <= lo <= score <= hi <= 1


def test_scores_of_0_and_1_get_wilsons_interval_and_others_a_bootstrap(rng):
    hits = [1.0] * 90 + [0.0] * 10
    assert summarise(hits, rng) == {"score": 0.9, "ci95": interval(hits)[1], "n": 100}
    scores = rng.uniform(size=400)
    row = summarise(scores, rng)
    low, high = row["ci95"]
    half = 1.96 * scores.std() / 20  # by the central limit theorem
    assert row["score"] == pytest.approx(scores.mean()) and row["n"] == 400
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.006)


def test_the_interval_over_seeds_is_students():
    row = over_seeds([0.8, 0.9, 1.0])
    assert row["score"] == pytest.approx(0.9) and row["n"] == 3
    assert row["ci95"] == pytest.approx([0.9 - 4.303 * 0.1 / 3**0.5, 0.9 + 4.303 * 0.1 / 3**0.5])
    assert over_seeds([0.5]) == {"score": 0.5, "ci95": None, "n": 1}


@pytest.mark.parametrize("n, point", [(3, 4.303), (10, 2.262), (11, 2.228), (31, 2.042), (121, 1.980)])
def test_points_of_students_t(n, point):
    scores = np.arange(n) % 2.0
    row = over_seeds(scores)
    assert (row["ci95"][1] - row["score"]) * n**0.5 / scores.std(ddof=1) == pytest.approx(point, abs=0.004)


def test_an_interval_over_seeds_holds_the_truth_as_often_as_it_says(rng):
    intervals = [over_seeds(rng.standard_normal(3))["ci95"] for _ in range(2000)]
    assert 0.93 < np.mean([low <= 0 <= high for low, high in intervals]) < 0.97


def test_a_bootstrap_interval_is_the_middle_95_percent():
    assert metrics._middle(np.arange(1001.0)) == [25.0, 975.0]
