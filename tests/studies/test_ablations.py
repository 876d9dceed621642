"""Ablations: every row runs and changes what it names; a finished run is not run again."""

import json

import numpy as np
import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.ops.tree import count, named_leaves
from tinyflamingo.studies import ablations
from tinyflamingo.studies.ablation_rows import PAPER_BASELINE, rows_of, short
from tinyflamingo.studies.ablations import ablate, differences, format_report, run_row
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained

SMOKE = get_preset("smoke")
ROWS = rows_of(SMOKE.config)


@pytest.fixture(scope="module")
def model(tokenizer):
    made = untrained(np.random.default_rng(0), SMOKE.config, tokenizer)
    made.info = {"preset": "smoke", "command": "none"}
    return made


@pytest.fixture(scope="module")
def media(model):
    return ablations._media(short(SMOKE, 3, ROWS["baseline"]), model.frozen, 0)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs(model, media, name):
    before = {n: a.copy() for n, a in named_leaves(model.frozen).items()}
    result = run_row(ROWS[name], model, 3, 0, 2, media)
    assert set(result["scores"]) == {*ablations.SCORES, "overall"}
    assert all(0 <= x <= 1 for x in result["scores"].values())
    assert np.isfinite(result["loss"]) and result["stopped_at"] is None and result["text_perplexity"] > 1
    assert json.loads(json.dumps(result)) == result
    assert all((a == before[n]).all() for n, a in named_leaves(model.frozen).items())  # the next row needs them


def test_rows_of_a_seed_have_the_same_start(model, media, monkeypatch):
    """They have the same pictures and initial parameters, with the checkpoint's encoder or another one."""
    stages = []

    class Watched(ablations.FlamingoStage):
        def __init__(self, *more):
            super().__init__(*more)
            stages.append(
                (self.pool, self.optimiser.vector.copy(), self.optimiser.params["resampler"]["latents"].copy())
            )

    monkeypatch.setattr(ablations, "FlamingoStage", Watched)
    for name in ("baseline", "p_next_0", "encoder_trained", "short_encoder"):
        run_row(ROWS[name], model, 1, 0, 1, media)
    for pool, _, latents in stages[1:]:
        assert pool.scenes == stages[0][0].scenes
        np.testing.assert_array_equal(latents, stages[0][2])
    for _, vector, _ in (stages[1], stages[3]):  # the row with a trained encoder also has the encoder's weights
        np.testing.assert_array_equal(vector, stages[0][1])


@pytest.mark.parametrize("name", [n for n in ROWS if n not in ("baseline", "short_encoder")])
def test_every_row_differs_from_the_baseline(name):
    row = ROWS[name]
    assert short(SMOKE, 3, row) != short(SMOKE, 3, ROWS["baseline"]) or row.fresh or row.short_encoder
    assert 50 < row.paper < PAPER_BASELINE


def test_rows_change_what_they_name(model, media):
    trained = {n: run_row(ROWS[n], model, 1, 0, 1, media)["trained_parameters"] for n in
               ("baseline", "no_gates", "vanilla", "middle", "mlp", "transformer", "language_trained",
                "resampler_small", "resampler_large")}  # fmt: skip
    assert trained["baseline"] - trained["no_gates"] == 4  # two gates in each block
    assert trained["baseline"] > trained["vanilla"] > trained["middle"]
    assert trained["language_trained"] == trained["baseline"] + count(model.frozen["language"])
    assert trained["resampler_small"] < trained["baseline"] < trained["resampler_large"]
    for kind in ("mlp", "transformer"):
        assert trained[kind] == pytest.approx(trained["baseline"], rel=0.1)
    bare = short(SMOKE, 3, ROWS["no_pages"])
    stage = ablations.FlamingoStage(bare, np.random.default_rng(0), model.tokenizer, model.frozen, media)
    assert {document.dataset for document in stage.documents(np.random.default_rng(0))} == {1, 2}
    assert short(SMOKE, 3, ROWS["round_robin"]).flamingo.steps == 9
    assert short(SMOKE, 3, ROWS["middle"]).config.gated_layers == (1,)


def test_a_finished_row_is_not_run_again(model, tmp_path, monkeypatch):
    path, runs, lines = tmp_path / "ablations.json", [], []

    def fake(row, model, steps, seed, queries, media):
        runs.append((row.what, seed))
        overall = 0.5 + 0.1 * ("no tanh" in row.what) + 0.01 * seed
        return {"scores": dict.fromkeys(ablations.SCORES, 0.5) | {"overall": overall}, "seconds": 0.0}

    monkeypatch.setattr(ablations, "run_row", fake)
    ablate(model, path, ["no_gates"], 1, 3, 2, lines.append)
    assert [w for w, _ in runs] == ["the preset without changes", "no tanh gates"]
    report = ablate(model, path, ["no_gates", "vanilla"], 3, 3, 2, lines.append)
    assert len(runs) == len(set(runs)) == 9 and json.loads(path.read_text()) == report
    table = differences(report)
    assert table["no_gates"]["score"] == pytest.approx(0.1) and table["no_gates"]["paper"] == -4.2
    assert table["no_gates"]["verdict"] == "disagrees" and table["vanilla"]["verdict"] == "undecided"
    assert "no_gates" in format_report(report) and "disagrees" in format_report(report)
    with pytest.raises(UserError, match="made with steps 3, not 4: choose another --json"):
        ablate(model, path, ["no_gates"], 1, 4, 2)
    path.write_text("[]")
    with pytest.raises(UserError, match="holds no report of ablations"):
        ablate(model, path, ["no_gates"], 1, 3, 2)


def test_one_seed_decides_nothing():
    seeds = {"0": {"scores": {"overall": 0.9}}}
    rows = {"baseline": {"paper": 70.7, "against": "baseline", "seeds": {"0": {"scores": {"overall": 0.1}}}},
            "mlp": {"paper": 66.6, "against": "baseline", "seeds": seeds}}  # fmt: skip
    table = differences({"rows": rows})
    assert table["mlp"]["verdict"] == "undecided" and table["mlp"]["ci95"] is None and "baseline" not in table


def test_the_same_seed_gives_the_same_run(model, media):
    one, two = (run_row(ROWS["baseline"], model, 2, 0, 2, media) for _ in range(2))
    assert (one["loss"], one["scores"]) == (two["loss"], two["scores"])
    assert one["loss"] != run_row(ROWS["baseline"], model, 2, 1, 2)["loss"]
