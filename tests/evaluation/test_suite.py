"""The suite: sixteen tasks whose two sides share no scene, prompts read once, scores that fall when they must."""

import dataclasses

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.data.items import EOC
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld import scenes
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import UNASKED, UNASKED_SUMS, Clip, content
from tinyflamingo.data.tinyworld.tasks import answer, held_out
from tinyflamingo.decoding.beams import beam_search, score_continuations
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation import few_shot, suite_run
from tinyflamingo.evaluation.few_shot import ANSWER_TOKENS, MEDIUM, shot_items, suffix
from tinyflamingo.evaluation.metrics import METRICS
from tinyflamingo.evaluation.suite import FROM_TEXT, QUERY, SUPPORT, TASKS, WAYS, Example, task_of
from tinyflamingo.evaluation.suite_run import with_room
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.tokenizer import BOS, IMAGE, Tokenizer
from tinyflamingo.ops.cache import cached_length
from tinyflamingo.variants.ablations import AllPreviousXattnConfig
from tinyflamingo.variants.decoders import PublicDecoderConfig
from tinyflamingo.variants.registry import in_form, parts_of

KEY = (1, 2, 3)


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def examples(task, side, n=40):
    rng = np.random.default_rng(8)
    return [task.example(rng, side, KEY) for _ in range(n)]


def test_there_are_sixteen_tasks_and_five_for_choices():
    trained = [task for task in TASKS.values() if not task.level]
    assert len(trained) == 16 and len({t.mirrors for t in trained}) == 16
    assert {t.mirrors for t in trained if t.dev} == {"COCO", "VQAv2", "OKVQA", "VATEX", "MSVDQA"}
    assert {t.metric for t in TASKS.values()} <= {*METRICS, "ROC AUC"}


def test_the_other_sixteen_tasks_are_the_held_out_families():
    levels = [task.level for task in TASKS.values() if task.level]
    assert len(levels) == 16 and set(levels) == {1, 2, 3, 4, 5}
    assert sorted(task.level for task in TASKS.values() if task.level and task.dev) == [1, 2, 3, 4, 5]
    for name, task in TASKS.items():
        for i in range(20 if task.level else 0):
            drawn = task_of(name, (1, 2, i))
            assert held_out(drawn) == (name,) and task_of(name, (1, 2, i)) is drawn
            assert bool(drawn.words) == (task.level == 4) and bool(drawn.table) == (task.level == 5)
            example = task.example(np.random.default_rng(i), QUERY, (1, 2, i))
            assert example.asked == ("",) and example.answers == (answer(drawn, example.medium),) and example.answers[0]


def test_no_query_has_the_description_of_a_shot(task):
    """So many examples that a split by luck, or by coordinates, shares some."""
    support, queries = examples(task, SUPPORT, 600), examples(task, QUERY, 600)
    assert not {content(e.medium) for e in support} & {content(e.medium) for e in queries}
    shared = {e.answers[-1] for e in support} & {e.answers[-1] for e in queries}
    sentences = task.metric == "CIDEr-D" or task.level  # a sentence is on one side, a word such as "red." on both
    assert sentences or shared
    assert task.metric != "CIDEr-D" or not shared


def test_content_has_all_that_words_can_say_and_nothing_else():
    rng = np.random.default_rng(2)
    scene, clip = scenes.sample_single(rng), scenes.sample_clip(rng, action="turns")
    thing = scene.things[0]
    moved = dataclasses.replace(thing, x=thing.x + 1, y=thing.y - 1, radius=thing.radius + 0.1)
    assert content(dataclasses.replace(scene, things=(moved,))) == content(scene)
    assert content(dataclasses.replace(clip, moment=clip.moment + 1)) == content(clip)
    for field in ("shape", "colour", "size", "position"):
        other = dataclasses.replace(thing, **{field: "another"})
        assert content(dataclasses.replace(scene, things=(other,))) != content(scene)
    for field in ("action", "new_colour"):
        assert content(dataclasses.replace(clip, **{field: "another"})) != content(clip)
    pair = scenes.sample_pair(rng, relation="above")
    assert content(dataclasses.replace(pair, relation="below")) != content(pair)


def test_examples_are_well_formed(task):
    for e in examples(task, SUPPORT) + examples(task, QUERY):
        assert len(e.asked) == len(e.answers) >= 1 and e.answers[-1] in e.accepted
        assert all(a.endswith(".") and a == a.lower() for a in e.answers)
        assert not e.candidates or (e.answers[-1] in e.candidates and len(set(e.candidates)) == len(e.candidates))
        pixels = task.pixels(np.random.default_rng(1), e.medium)
        assert pixels.dtype == np.uint8 and pixels.shape == (8 if isinstance(e.medium, Clip) else 1, 32, 32, 3)


def test_training_never_asks_with_a_picture_what_queries_ask():
    for name in ("knowledge", "video_knowledge"):
        assert {_shown(e.medium)[0] for e in examples(TASKS[name], QUERY)} <= UNASKED
        assert not {_shown(e.medium)[0] for e in examples(TASKS[name], SUPPORT)} & UNASKED
    for e in examples(TASKS["sums"], QUERY):
        pair = tuple(say.SUM_WORDS.index(t.shape) for t in e.medium.things)
        assert pair in UNASKED_SUMS and e.answers[-1] == f"{say.SUM_WORDS[sum(pair)]}."


def test_no_example_of_the_support_side_has_the_answer_of_a_task_from_text():
    apart = []
    for name, task in TASKS.items():
        asked = [{(e.asked[-1], _shown(e.medium)) for e in examples(task, side, 300)} for side in (SUPPORT, QUERY)]
        apart += [] if asked[0] & asked[1] else [name]
    assert set(FROM_TEXT) <= set(apart) and FROM_TEXT == ("knowledge", "video_knowledge", "sums")


def _shown(medium):
    """The things of a scene, without sizes and positions: tuples (shape, colour)."""
    things = [medium.thing] if isinstance(medium, Clip) else medium.things
    return tuple((thing.shape, thing.colour) for thing in things)


def test_the_key_fixes_the_new_words_and_they_take_turns():
    task = TASKS["new_words"]
    shots = task.shots(np.random.default_rng(0), 16, KEY)
    words = {e.answers[-1].rstrip(".") for e in shots}
    assert len(words) == WAYS and words <= set(say.NEW_WORDS)
    assert {e.candidates for e in task.shots(np.random.default_rng(1), 4, KEY)} == {shots[0].candidates}
    assert task.shots(np.random.default_rng(1), 1, (1, 2, 4))[0].candidates != shots[0].candidates
    for begin in range(0, 16, WAYS):
        assert len({e.answers for e in shots[begin : begin + WAYS]}) == WAYS
    shape_of = {}
    for e in shots:
        assert shape_of.setdefault(e.answers[-1], e.medium.things[0].shape) == e.medium.things[0].shape


# ---- prompts ---------------------------------------------------------------------------------


def test_a_shot_is_a_query_with_its_answers():
    e = examples(TASKS["knowledge"], SUPPORT, 1)[0]
    medium = object()
    assert few_shot.shot_items(e, medium) == [medium, "Output:", e.answers[0], e.asked[1], e.answers[1]]
    assert few_shot.shot_items(e, None, "other.") == [EOC, "Output:", e.answers[0], e.asked[1], "other."]


@pytest.mark.parametrize("k", [0, 3])
def test_reading_the_shots_once_changes_no_answer(model, k):
    """Beam search and ranking after a shared prompt give the same as with each whole prompt alone."""
    for name in ("video_questions", "new_words"):
        task = TASKS[name]
        instance = few_shot.draw_instance(model, task, np.random.default_rng(4), KEY, 3, 4)
        answers = few_shot.few_shot(model, instance, k)
        for i, (query, (text, scores)) in enumerate(zip(instance.queries, answers, strict=True)):
            shots = instance.shots[:k] if k else instance.shots[: 0 if query.candidates else few_shot.TEXT_ONLY]
            items = [x for e in shots for x in few_shot.shot_items(e, object() if k else None)]
            prompt = [*items, object(), query.asked[0]]
            visual = np.concatenate([instance.shot_visual[:k], instance.query_visual[i : i + 1]])
            if not query.candidates:
                batch = make_batch([encode_document(prompt, model.tokenizer, complete=False)])
                tokens, _ = beam_search(model, batch, visual, 3, 16)
                assert text == model.tokenizer.decode(tokens[0]).strip()
                continue
            for candidate, score in zip(query.candidates, scores, strict=True):
                known = len(encode_document(prompt, model.tokenizer, complete=False).tokens)
                batch = make_batch([encode_document([*prompt, candidate], model.tokenizer)])
                batch.weights[:] = np.arange(batch.tokens.shape[1]) >= known
                whole = score_continuations(model, batch, visual)[0]
                assert score == pytest.approx(whole, abs=1e-3)


def test_a_candidate_right_after_the_prompt_is_scored_from_its_first_token(model):
    """A blind query of invented words has no text before its candidate."""
    task = TASKS["new_words"]
    instance = few_shot.draw_instance(model, task, np.random.default_rng(4), KEY, 3, 2)
    prompt = [x for e in instance.shots for x in few_shot.shot_items(e, object())]
    for query, (_, scores) in zip(instance.queries, few_shot.few_shot(model, instance, 3, blind=True), strict=True):
        for candidate, score in zip(query.candidates, scores, strict=True):
            batch = make_batch([encode_document([*prompt, EOC, candidate], model.tokenizer)])
            known = len(encode_document(prompt, model.tokenizer).tokens)
            batch.weights[:] = np.arange(batch.tokens.shape[1]) >= known
            batch.phi[:, known:] = 0
            whole = score_continuations(model, batch, instance.shot_visual)[0]
            assert score == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("opening", [(BOS,), (), (BOS, BOS)])
def test_what_follows_a_prompt_keeps_its_medium_whatever_opens_a_document(model, opening):
    """Some public ports open a document with no token, so no id of a query may be taken for one."""

    class Opened(Tokenizer):
        pass

    Opened.opening = opening
    port = dataclasses.replace(model, tokenizer=Opened(model.tokenizer.model))
    instance = few_shot.draw_instance(port, TASKS["captions"], np.random.default_rng(4), KEY, 2, 2)
    expected = [IMAGE, *model.tokenizer.encode("Output:")]
    assert few_shot.suffix(port, [MEDIUM, "Output:"]) == expected
    for k in (0, 2):
        assert len(few_shot.few_shot(port, instance, k)) == 2
    cache, _ = few_shot.read_shots(port, [], instance.visual)
    assert cached_length(cache) == max(1, len(opening))


@pytest.mark.parametrize("changes", [{}, {"blind": True}, {"pictures": False}])
def test_a_task_without_a_question_is_answered(model, changes):
    """Also by a blind query, whose prompt ends with `<EOC>`."""
    instance = few_shot.draw_instance(model, TASKS["twice"], np.random.default_rng(4), KEY, 3, 2)
    for k in (0, 3):
        assert len(few_shot.few_shot(model, instance, k, **changes)) == 2


def test_all_previous_is_refused(model):
    config = dataclasses.replace(model.config, xattn=in_form(model.config.xattn, AllPreviousXattnConfig))
    other = dataclasses.replace(model, config=config, parts=parts_of(config))
    instance = few_shot.draw_instance(model, TASKS["new_words"], np.random.default_rng(4), KEY, 1, 1)
    with pytest.raises(UserError, match="each token of the model must see one medium"):
        few_shot.few_shot(other, instance, 1)


# ---- scores ----------------------------------------------------------------------------------


def test_right_answers_get_a_high_score_and_wrong_ones_a_low_score(task):
    rng = np.random.default_rng(0)
    queries = examples(task, QUERY, 60)
    right = [(q.answers[-1], [float(c == q.answers[-1]) for c in q.candidates]) for q in queries]
    best = suite_run.score(task, queries, right, rng)
    assert best["n"] == 60 and best["score"] > (5.0 if task.metric == "CIDEr-D" else 0.9)
    wrong = [("nothing at all.", [0.0] * len(q.candidates)) for q in queries]
    assert suite_run.score(task, queries, wrong, rng)["score"] < 0.6 * best["score"]


def test_chance_answers_with_a_candidate(rng):
    task = TASKS["choice"]
    queries = [task.example(rng, QUERY) for _ in range(30)]
    instance = few_shot.Instance([task.example(rng, side) for side in (SUPPORT, QUERY)], queries, None, None, None)
    assert all(text in q.candidates for q, (text, _) in zip(queries, suite_run._most_common(instance), strict=True))
    instance = few_shot.Instance([shots_of("b"), shots_of("a"), shots_of("a")], [shots_of("c")], None, None, None)
    assert suite_run._most_common(instance) == [("a", [])]


def shots_of(answer):
    return Example(None, ("",), (answer,), (answer,))


def test_orders_of_an_ensemble_do_not_depend_on_the_order_of_the_workers(model, monkeypatch):
    drawn = {}

    def orders(model, instance, k, rng):
        drawn[repr(instance.queries[0].medium)] = rng.integers(1 << 30)
        return [(q.candidates[0], [0.0] * len(q.candidates)) for q in instance.queries]

    monkeypatch.setattr(suite_run, "few_shot_ensemble", orders)
    monkeypatch.setattr(suite_run, "few_shot_rices", lambda model, i, k: orders(model, i, k, np.random.default_rng(0)))
    monkeypatch.setattr(suite_run, "few_shot", lambda model, i, k: orders(model, i, k, np.random.default_rng(0)))
    runs = []
    for turn in (1, -1):
        monkeypatch.setattr(
            suite_run.ops, "parallel_map", lambda run, pairs, turn=turn: [run(p) for p in pairs[::turn]][::turn]
        )
        drawn.clear()
        suite_run.retrieval(model, TASKS["new_words"], 0, [(1, 0, i) for i in range(3)], 1, np.random.default_rng(3))
        runs.append(dict(drawn))
    assert runs[0] == runs[1] and len(set(runs[0].values())) == 3


def test_the_report_of_a_task(model):
    size = suite_run.Size((0, 8), instances=5, queries=8, specialists=False)
    report = suite_run.run_task(model, "new_words", 0, size)
    assert report["paper"] == "RareAct" and report["metric"] == "exact match" and not report["dev"]
    scores = {k: row["score"] for k, row in report["shots"].items()}
    assert scores["8"] > scores["0"] + 0.2 and report["shots"]["8"]["n"] == 40
    assert report["sanity"]["shuffled"]["score"] < scores["8"] - 0.2
    assert report["sanity"]["blind"]["score"] < scores["8"] - 0.2
    assert set(report["retrieval"]) == {"random", "rices", "ensemble", "shots"}
    assert report["retrieval"]["rices"]["score"] > 0.4


@pytest.mark.parametrize("name, more", [("new_words", set()), ("size", {"tuned"})])
def test_the_rivals_of_a_task(model, monkeypatch, name, more):
    """Flamingo itself, fine-tuned, is a rival where examples alone explain the task."""
    monkeypatch.setattr(suite_run, "_specialist", lambda model, kind, instance, rng: _no_answers(instance))
    monkeypatch.setattr(suite_run, "tuned", lambda model, instance, rng: _no_answers(instance))
    monkeypatch.setattr(suite_run, "whole_data", lambda *_: {"score": 0.5})
    size = suite_run.Size((0, 8), instances=1, queries=2, level_shots=(0, 8), level_queries=2)
    report = suite_run.run_task(model, name, 0, size)
    assert set(report["specialists"]) == {"prototype", "linear", "finetuned", "whole"} | more


def _no_answers(instance):
    return [("", [0.0] * len(query.candidates)) for query in instance.queries]


def test_swapped_counts_pairs_with_two_right_answers():
    queries = [q for q in examples(TASKS["video_questions"], QUERY, 12)]
    rng, right = np.random.default_rng(0), [(q.answers[-1], []) for q in queries]
    assert suite_run.swapped(queries, right, rng)["score"] == 1.0
    same = [(queries[0].answers[-1], []) for _ in queries]  # of a model that ignores the picture
    assert suite_run.swapped(queries, same, rng)["score"] == 0.0


def test_swapped_pairs_queries_with_different_answers():
    queries, rng = [shots_of(answer) for answer in "aaab"], np.random.default_rng(0)
    always_a = suite_run.swapped(queries, [("a", [])] * 4, rng)
    assert (always_a["score"], always_a["n"]) == (0.0, 1)
    assert suite_run.swapped(queries[:3], [("a", [])] * 3, rng) is None
    three = [shots_of(answer) for answer in "abc"]
    assert suite_run.swapped(three, [("a", [])] * 3, rng)["n"] == 1  # a query has one partner


def test_an_ensemble_takes_the_candidate_with_the_highest_mean_log_likelihood(model, monkeypatch):
    instance = few_shot.draw_instance(model, TASKS["new_words"], np.random.default_rng(4), KEY, 2, 1)
    runs = iter([[-1.0, -4.0, -9.0, -9.0], [-6.0, -2.0, -9.0, -9.0]])
    monkeypatch.setattr(few_shot, "answer", lambda *_: [("", next(runs))])
    (answer,) = few_shot.few_shot_ensemble(model, instance, 2, np.random.default_rng(0))
    assert answer == (instance.queries[0].candidates[1], [-3.5, -3.0, -9.0, -9.0])


def test_an_ensemble_takes_the_open_ended_answer_of_most_orders(model, monkeypatch):
    instance = few_shot.draw_instance(model, TASKS["video_questions"], np.random.default_rng(4), KEY, 2, 2)
    orders = iter([["a", "c"], ["b", "c"]] * 2 + [["b", "d"]] * 2)
    monkeypatch.setattr(few_shot, "permutations", lambda *_: range(6))
    monkeypatch.setattr(few_shot, "_answer_after", lambda *_: [(text, []) for text in next(orders)])
    assert few_shot.few_shot_ensemble(model, instance, 2, np.random.default_rng(0)) == [("b", []), ("c", [])]


def test_the_table_of_a_suite_has_all_its_scores():
    row = {"score": 0.25, "ci95": [0.2, 0.3], "n": 9}
    task = {"metric": "exact match", "shots": {"4": row}, "sanity": {"swapped": None, "blind": row}}
    report = {"tasks": {"digits": task | {"specialists": {"whole": row}}}, "few_shot_words": {"2way": {"8": row}}}
    lines = [line.split() for line in suite_run.format_suite(report).splitlines()]
    assert lines[0] == ["digits", "exact", "match", "4:", "0.250"]
    assert lines[1:] == [["blind", "0.25", "whole", "0.25"], ["words,", "2way", "8:", "0.250"]]


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="unknown task 'chess': choose from captions"):
        suite_run.run_suite(None, only=["chess"])


def test_a_decoder_with_learned_positions_keeps_its_context(model):
    language = in_form(model.config.language, PublicDecoderConfig, family="gpt2")
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, language=language))
    assert with_room(other).config.language.context == 1024 < with_room(model).config.language.context


def test_32_shots_of_every_task_have_room(model):
    """The longest prompts are longer than the toy's own context."""
    roomy = with_room(model)
    for name, task in TASKS.items():
        rng = split_rng("validation", 8)
        items = [i for e in task.shots(rng, 32, (8, 0, 0)) for i in shot_items(e, MEDIUM)]
        asked = task.example(rng, QUERY, (8, 0, 0))
        tokens = encode_document([*items, *shot_items(asked, MEDIUM)], model.tokenizer).tokens
        assert len(tokens) + ANSWER_TOKENS < roomy.config.language.context, name


def test_every_answer_of_the_suite_can_be_written(model):
    """A longer answer than ANSWER_TOKENS would count as wrong, whatever the model writes."""
    for name, task in TASKS.items():
        rng = split_rng("validation", 9)
        for i in range(300 if task.level == 4 else 20):
            answer = task.example(rng, QUERY, (9, i)).answers[-1]
            assert len(suffix(model, [answer])) < ANSWER_TOKENS, (name, answer)
