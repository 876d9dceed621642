"""Training on the user's own data: contents of batches, no held-out record, the same bits after a kill."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from killed_runs import killed_in_step
from own_files import COLOURS, lines, page, picture, pixels, video, vqav2
from PIL import Image

from tinyflamingo import cli, ops
from tinyflamingo.checkpoint import load_checkpoint
from tinyflamingo.data.items import Quiet
from tinyflamingo.data.readers.record import OUTPUT
from tinyflamingo.data.store import Store, Stored, prepare
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.run import format_report
from tinyflamingo.own_data import scores
from tinyflamingo.own_data.features import StoredFeatures, features_key
from tinyflamingo.own_data.options import FOLDER, OwnData, OwnSource, fit, source_of
from tinyflamingo.own_data.questions import Side
from tinyflamingo.own_data.scores import evaluate_run, held_out
from tinyflamingo.own_data.stages import pairs
from tinyflamingo.training import contrastive_stage, run
from tinyflamingo.training.presets import get_preset
from tinyflamingo.training.state import LOG, STATE, load_state, save_state
from tinyflamingo.variants.registry import untrained

A, B = Stored(0, 1), Stored(1, 3)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """40 different pictures with captions, and two videos, of 3 and of 12 frames."""
    root = tmp_path_factory.mktemp("source")
    rng, rows = np.random.default_rng(0), []
    for i in range(40):
        name = list(COLOURS)[i % 3]
        Image.fromarray(pixels(name) + np.uint8(i // 3)).save(root / f"{i}.png")
        rows.append({"file": f"{i}.png", "text": f"{name} thing {rng.integers(10)} {i}."})
    for i, frames in enumerate((3, 12)):
        video(root / f"{i}.mp4", "blue", frames)
        rows.append({"file": f"{i}.mp4", "text": "a blue film."})
    lines(root / "captions.jsonl", rows)
    return root


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    return prepare(source, tmp_path_factory.mktemp("store") / FOLDER, 32)


def stage(store, index, mix, rng, **options):
    """One of the three stages, on the store in the folder of a run."""
    own = OwnSource(OwnData("anywhere", mix=mix, **options))
    preset, tokenizer, stages = own.material(get_preset("smoke"), store.folder.parent)
    frozen = untrained(np.random.default_rng(0), preset.config, tokenizer).frozen
    return stages[index](preset, rng, tokenizer, frozen)


# ---- pairs of stage one --------------------------------------------------------------------------


@pytest.mark.parametrize("items, expected", [
    ([A, OUTPUT, "a cat."], [(A, "a cat.")]),
    ([A, Quiet("Question: what? Answer:"), "a cat."], [(A, "Question: what? Answer: a cat.")]),
    (["before", A, "after", "more", B, "last"], [(A, "after more"), (B, "last")]),
    (["before", A], [(A, "before")]),
    ([A, B, "of both"], [(B, "of both")]),
    (["text"], []),
    ([A], []),
])  # fmt: skip
def test_the_text_beside_a_medium(items, expected):
    assert pairs(items) == expected


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix, own", [(1.0, 16), (0.5, 8), (0.01, 0)])
def test_a_contrastive_batch_has_its_share_of_own_rows_and_no_medium_twice(store, rng, mix, own):
    made = stage(store, 0, mix, rng)
    assert made.own_rows == own
    if own:
        pictures, captions = made.batch(np.random.default_rng(0))
        assert pictures.shape == (16, 32, 32, 3) and len(captions) == 16
        assert len({medium.index for medium, _ in made._pairs(rng)}) == own


def test_an_epoch_has_every_training_record_once_and_no_held_out_one(store, rng, monkeypatch):
    made, met, records = stage(store, 2, 1.0, rng), [], store.items
    monkeypatch.setattr(made.draws.store, "items", lambda number: met.append(number) or records(number))
    for step in range(5):  # 8 records in a step
        made.gradient(rng, step)
    assert len(store.training) == 40 and sorted(met) == list(store.training)
    assert not set(met) & set(store.held_out)


def test_a_shard_has_few_arrays_of_features_in_the_order_of_its_media(store, rng):
    """Media of the store, and pictures and videos of TinyWorld, in one step."""
    made = stage(store, 2, 0.5, rng)
    made.recipe = replace(made.recipe, feature_noise=0.0)
    with ops.use_workers(1):
        (shard,) = made.shards(rng, made.documents(rng)[::-1])
    media = shard.batch.media
    groups = [made.features.group(medium) for medium in media]
    assert {own for own, _ in groups} == {False, True} and len(shard.features) == len(set(groups))
    rows = [row for table in shard.features for row in table]
    for medium, row in zip(media, rows, strict=True):
        np.testing.assert_array_equal(row, made.features.of([medium])[0][0])


def test_a_step_is_a_function_of_seed_and_step(store):
    one, other = (stage(store, 2, 0.5, np.random.default_rng(7)) for _ in range(2))
    one.gradient(np.random.default_rng(1), 3)
    one_gradient, other_gradient = (s.gradient(np.random.default_rng(9), 4)[0] for s in (one, other))
    np.testing.assert_array_equal(one_gradient, other_gradient)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_gradient_writes_no_parameter(store, rng, index):
    made = stage(store, index, 0.5, rng)
    before = made.optimiser.vector.tobytes()
    for step in range(2):
        assert made.gradient(rng, step)[0].any()
    assert made.optimiser.vector.tobytes() == before


def test_the_first_step_continues_after_the_records_that_opened_the_gates(store, rng, monkeypatch):
    """Two batches of 8 records open the gates. A later step takes the records that belong to its number."""
    made, taken, records = stage(store, 2, 1.0, rng), [], store.items
    monkeypatch.setattr(made.draws.store, "items", lambda number: taken.append(number) or records(number))
    in_order = [made.draws[n] and taken.pop() for n in range(24)]
    made.prepare(rng)
    assert made.recipe.gate_batches == 2 and taken == in_order[:16]
    made.gradient(rng, 0)
    assert taken == in_order
    made.gradient(rng, 1)
    assert taken[24:] == in_order[8:16]


def test_a_long_video_is_cut_to_the_number_of_temporal_embeddings(store, rng):
    made, long = stage(store, 2, 1.0, rng), Stored(41, 12)
    clips = {made._clip(rng, long) for _ in range(200)}
    assert {c.frames for c in clips} == {8} and {c.first for c in clips} == set(range(5))
    assert made._clip(rng, Stored(40, 3)) == Stored(40, 3)


def test_mixed_documents_come_from_tinyworld_and_the_own_data(store, rng):
    made = stage(store, 2, 0.5, rng)
    names = [dataset.name for dataset in made.recipe.datasets]
    drawn = [names[d.dataset] for d in made.documents(rng)]
    assert {name: drawn.count(name) for name in names} == {"pages": 1, "pairs": 2, "videos": 1, "own": 4}
    loss = made.gradient(rng, 1)[1]
    assert {"loss_pages", "loss_pairs", "loss_videos", "loss_own"} <= set(loss)


def test_a_page_that_is_too_long_begins_at_a_random_medium(tmp_path, rng):
    for name in COLOURS:
        picture(tmp_path / f"{name}.png", name)
    texts = [f"{name} " * 30 for name in COLOURS]
    infos = [{"matched_text_index": i, "image_name": f"{name}.png"} for i, name in enumerate(COLOURS)]
    lines(tmp_path / "a.jsonl", [page("red") | {"text_list": texts, "image_info": infos}] * 3)
    made = stage(prepare(tmp_path, tmp_path / FOLDER, 32), 2, 1.0, rng)
    first = {made._record(rng, n)[1][0].index % 3 for n in range(40)}
    assert first == {0, 1, 2}
    assert all(len(d.sequence.tokens) <= 96 for d in made.documents(rng))


def test_sizes_fit_the_options_and_the_text(store):
    preset, tokenizer = fit(OwnData("x", vocab=292, context=24), get_preset("smoke"), store)
    assert len(tokenizer) == preset.config.language.vocab_size == preset.config.text_tower.vocab_size <= 292
    assert preset.language.length == 24 and {d.length for d in preset.flamingo.datasets} == {24}
    assert [(d.name, d.rows) for d in preset.flamingo.datasets] == [("pages", 2), ("pairs", 4), ("videos", 2)]
    smoke = get_preset("smoke")
    assert fit(OwnData("x", mix=0.5), smoke, store)[0].config.language.vocab_size == smoke.config.language.vocab_size
    with pytest.raises(UserError, match="vocabulary of 262 is too small for this text: give --vocab"):
        fit(OwnData("x", vocab=262), get_preset("smoke"), store)


# ---- features on disk ----------------------------------------------------------------------------


def frozen_of(store):
    preset, tokenizer = fit(OwnData("x"), get_preset("smoke"), store)
    return preset.config, untrained(np.random.default_rng(0), preset.config, tokenizer).frozen


def test_features_are_those_of_the_encoder_in_the_order_of_the_media(store, tmp_path):
    from tinyflamingo.model.flamingo import encode_media

    config, frozen = frozen_of(store)
    features = StoredFeatures(frozen, store, config, tmp_path)
    media = [Stored(3, 1), Stored(1, 1), Stored(41, 8, first=2), Stored(0, 1)]
    tables = features.of(media)
    assert [len(t) for t in tables] == [2, 1, 1]
    for medium, actual in zip(media, (row for table in tables for row in table), strict=True):
        expected = encode_media(frozen, store.frames(medium)[None], config)[0]
        np.testing.assert_allclose(actual, expected, atol=5e-3)


def test_features_are_kept_until_the_encoder_or_the_pixels_change(store, tmp_path, monkeypatch):
    from tinyflamingo.own_data import features

    config, frozen = frozen_of(store)
    StoredFeatures(frozen, store, config, tmp_path)
    (first,) = tmp_path.glob("features-*")
    monkeypatch.setattr(features, "_write", lambda *_: pytest.fail("made again"))
    StoredFeatures(frozen, store, config, tmp_path)
    key = features_key(frozen, store)
    assert key in first.name
    frozen["feature_mean"] = frozen["feature_mean"] + np.float32(1e-3)
    assert features_key(frozen, store) != key
    frozen["feature_mean"] = frozen["feature_mean"] * 0
    assert features_key(frozen, store) == key
    monkeypatch.setattr(features, "PREPROCESSING", 99)
    assert features_key(frozen, store) != key
    monkeypatch.undo()
    frozen["feature_scale"] = frozen["feature_scale"] * 2
    StoredFeatures(frozen, store, config, tmp_path)
    assert first not in list(tmp_path.glob("features-*")) and len(list(tmp_path.glob("features-*"))) == 1


# ---- whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    run.train("smoke", folder, evaluate=evaluate_run(folder), source=OwnSource(OwnData(str(source), mix=0.5)))
    return folder


def test_a_run_writes_a_checkpoint_and_scores(finished, source):
    model = load_checkpoint(finished / "checkpoint")
    assert model.info["data"]["path"] == str(source)
    assert model.info["command"] == f"python -m tinyflamingo train --preset smoke --data {source} --mix 0.5"
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["own"]["n"] == 2 and metrics["own"]["perplexity"] > 1 and "vqa" in metrics["tasks"]
    assert "perplexity of 2 held-out records" in format_report(metrics)


def test_a_batch_of_stage_one_has_no_negative_with_the_same_picture(store, rng, monkeypatch):
    made, ids = stage(store, 0, 0.5, rng), []
    whole = contrastive_stage.contrastive_loss
    monkeypatch.setattr(contrastive_stage, "contrastive_loss", lambda *a: ids.append(a[3]) or whole(*a))
    pictures, captions = made.batch(np.random.default_rng(0))
    pictures[[5, 9]], captions[6] = pictures[[1, 15]], captions[2]
    made.loss_and_gradient(pictures, captions)
    (by_caption, by_picture), n = ids[0], len(pictures)
    for i, j in np.ndindex(n, n):
        assert (by_picture[i] == by_picture[j]) == (pictures[i].tobytes() == pictures[j].tobytes())
        assert (by_caption[i] == by_caption[j]) == (captions[i] == captions[j])
    assert by_picture[5] == by_picture[1] and by_picture[9] == by_picture[15] and by_caption[6] == by_caption[2]


def test_held_out_records_with_another_picture_are_scored_too(finished):
    model, store = load_checkpoint(finished / "checkpoint"), Store(finished / "data")
    asked = Side(store, store.held_out)
    report = held_out(model, asked, 500)
    assert report == held_out(model, asked, 500) and report["perplexity"] != report["perplexity_exchanged"]


def test_each_held_out_record_gets_the_media_of_another_picture(finished, tmp_path, monkeypatch):
    """Neighbours show the same picture, as captions of COCO or Flickr30k do."""
    for i in range(40):
        shade = np.full((8, 8, 3), 6 * i, np.uint8)
        Image.fromarray(shade).save(tmp_path / f"{i}.png")
    rows = [{"file": f"{i // 3}.png", "text": f"text {i % 3}"} for i in range(120)]
    lines(tmp_path / "captions.jsonl", rows)
    store, scored = prepare(tmp_path, tmp_path / FOLDER, 32), []
    monkeypatch.setattr(scores, "_perplexity", lambda model, store, records: scored.append(records) or 1.0)
    assert held_out(None, Side(store, store.held_out), 500) == {"n": 6, "perplexity": 1.0, "perplexity_exchanged": 1.0}
    right, exchanged = scored
    assert [r[1:] for r in right] == [e[1:] for e in exchanged]
    assert all(r[0] != e[0] and e[0] in [other[0] for other in right] for r, e in zip(right, exchanged, strict=True))
    assert held_out(None, Side(store, store.held_out), 3)["perplexity"] is None  # one picture alone


@pytest.mark.parametrize("at", [3, 8, 15, 16])
def test_killed_in_any_stage_it_ends_with_the_same_bits(finished, source, tmp_path, monkeypatch, at):
    """The run is resumed without the data, which may be gone."""
    with killed_in_step(monkeypatch, at):
        run.train("smoke", tmp_path / "run", source=OwnSource(OwnData(str(source), mix=0.5)))
    run.train("smoke", tmp_path / "run", resume=True, source=source_of(None, tmp_path / "run", True))
    for name in ("checkpoint/weights.npz", LOG):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_resume_on_other_data_is_refused(finished, source):
    own = OwnData(str(source), mix=0.5)
    for other in (replace(own, mix=0.4), replace(own, side=48), replace(own, path="elsewhere")):
        with pytest.raises(UserError, match="other data"):
            run.train("smoke", finished, resume=True, source=OwnSource(other))
    with pytest.raises(UserError, match="other data"):
        run.train("smoke", finished, resume=True)  # on TinyWorld


def test_a_resume_takes_the_data_of_its_run(finished, source, tmp_path):
    own = OwnData(str(source), mix=0.5)
    taken = source_of(None, finished, resume=True)
    assert isinstance(taken, OwnSource) and taken.own == own
    assert source_of(OwnData("elsewhere"), finished, resume=True).own.path == "elsewhere"
    for folder, resume in ((finished, False), (tmp_path, True), (tmp_path / "none", True)):
        assert type(source_of(None, folder, resume)) is run.TinyWorld


def test_a_run_is_resumed_from_the_command_line_without_its_data(finished, source, tmp_path, capsys):
    """A run that stopped before its last stage; its data are gone."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("metrics.json", LOG):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoint")
    progress, frozen, _ = load_state(folder)
    progress.stage, progress.log_bytes = 2, 0
    save_state(folder, progress, {name: part for name, part in frozen.items() if name != "params"})
    assert cli.main(["train", "--preset", "smoke", "--out", str(folder), "--resume"]) == 0
    assert "perplexity of 2 held-out records" in capsys.readouterr().out
    name = "checkpoint/weights.npz"
    assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert load_checkpoint(folder).info["command"] == load_checkpoint(finished).info["command"]


@pytest.mark.parametrize("options", [("--data", "@other"), ("--data", "@source", "--mix", "0.4")])
def test_a_resume_on_other_data_from_the_command_line_is_one_line(finished, source, tmp_path, capsys, options):
    places = {"@source": str(source), "@other": str(tmp_path)}
    before = (finished / STATE).read_bytes()
    line = ["train", "--preset", "smoke", "--out", str(finished), "--resume", *(places.get(o, o) for o in options)]
    assert cli.main(line) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "holds a run on other data" in err and "leave out --data" in err
    assert (finished / STATE).read_bytes() == before


def test_a_run_on_tinyworld_is_not_resumed_on_other_data(source, tmp_path, capsys):
    save_state(tmp_path, run.Progress("smoke", 0), {})
    before = (tmp_path / STATE).read_bytes()
    line = ["train", "--preset", "smoke", "--out", str(tmp_path), "--resume", "--data", str(source)]
    assert cli.main(line) == 2
    assert "holds a run on other data" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [STATE] and (tmp_path / STATE).read_bytes() == before


def test_data_that_cannot_be_used_leave_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (("empty", "no data in a known format"), ("none", "no such file")):
        with pytest.raises(UserError, match=message):
            run.train("smoke", tmp_path / "run", source=OwnSource(OwnData(str(tmp_path / path))))
        assert not (tmp_path / "run").exists()


def test_too_few_pictures_are_refused(tmp_path, rng):
    picture(tmp_path / "red.png", "red")
    lines(tmp_path / "captions.jsonl", [{"file": "red.png", "text": "red"}])
    made = stage(prepare(tmp_path, tmp_path / FOLDER, 32), 0, 1.0, rng)
    with pytest.raises(UserError, match="at least two pictures with a text in each batch: the data have fewer"):
        made.batch(rng)


# ---- refusals ------------------------------------------------------------------------------------


def test_a_mix_too_small_for_a_batch_is_refused_with_the_least_mix(source, tmp_path):
    with pytest.raises(UserError, match="in each batch: give --mix 0.19 or more"):
        run.train("smoke", tmp_path / "run", source=OwnSource(OwnData(str(source), mix=0.1)))
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_too_small_leaves_no_folder(source, tmp_path):
    with pytest.raises(UserError, match="a vocabulary of 262 is too small"):
        run.train("smoke", tmp_path / "run", source=OwnSource(OwnData(str(source), vocab=262)))
    assert not (tmp_path / "run").exists()


def test_a_refused_run_removes_no_folder_of_the_user(source, tmp_path):
    """`test` and `data` in the folder of the run can be the user's own."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test/mine.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="give --mix"):
        run.train("smoke", tmp_path, source=OwnSource(OwnData(str(source), mix=0.1)))
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["test", "test/mine.png"]


def test_a_wrong_test_set_is_refused_before_anything_is_decoded(source, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        run.train("smoke", tmp_path / "run", source=OwnSource(OwnData(str(source), test=str(tmp_path / "none"))))
    assert not (tmp_path / "run").exists()


def test_a_context_that_ends_before_every_answer_is_refused(tmp_path, rng, capsys):
    path = vqav2(tmp_path) / "v2_OpenEnded_mscoco_train2014_questions.json"
    asked, stores = json.loads(path.read_text()), []
    for long in (3, 2):
        for i, question in enumerate(asked["questions"]):
            question["question"] = "why " * 30 if i < long else "why?"
        path.write_text(json.dumps(asked))
        stores.append(prepare(tmp_path, tmp_path / str(long) / FOLDER, 32, hold_out="nothing"))
    with pytest.raises(UserError, match="in all records the context of 16 tokens ends .*: give --context [0-9]+"):
        stage(stores[0], 2, 1.0, rng, context=16)
    assert capsys.readouterr().err.count("tinyflamingo:") == 0
    stage(stores[1], 2, 1.0, rng, context=16)
    assert "in 67% of the records the context of 16 tokens ends" in capsys.readouterr().err
