"""IsoFLOP, the cost of frames, induction and attention maps: known results, and small runs of each."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model.language_model import init_language_model, self_attention
from tinyflamingo.studies import attention, growing_report, induction, isoflop, quadratic, run
from tinyflamingo.studies.ablation_rows import preset_of
from tinyflamingo.training.optimiser import AdamW
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.ablations import (
    AllPreviousXattnConfig,
    PlacedXattnConfig,
    UngatedXattnConfig,
    VanillaXattnConfig,
)
from tinyflamingo.variants.plain_resamplers import MLPConfig
from tinyflamingo.variants.registry import in_form, untrained

SMOKE = get_preset("smoke")


def quiet(line):
    """Say nothing."""


@pytest.fixture(scope="module")
def shipped():
    return tinyflamingo.load()


@pytest.fixture(scope="module")
def smoke(tokenizer):
    model = untrained(np.random.default_rng(0), SMOKE.config, tokenizer)
    model.info = {"preset": "smoke"}
    return model


# ---- IsoFLOP ---------------------------------------------------------------------------------


def points(budget, best, floor=2.0, sizes=(1e4, 3e4, 1e5, 3e5, 1e6)):
    return [{"budget": budget, "parameters": n, "loss": floor + 0.3 * math.log(n / best) ** 2} for n in sizes]


def test_the_fit_has_the_known_optimum_and_its_growth():
    fits = [isoflop.fit(c, points(c, 20 * c**0.3)) for c in (1e10, 1e11, 1e12)]
    assert [f["parameters"] for f in fits] == pytest.approx([20 * f["budget"] ** 0.3 for f in fits])
    assert all(f["inside"] and f["loss"] == pytest.approx(2.0) for f in fits)
    assert [f["tokens"] * f["parameters"] * 6 for f in fits] == pytest.approx([1e10, 1e11, 1e12])
    assert isoflop.exponents(fits) == pytest.approx({"parameters": 0.3, "tokens": 0.7})
    outside = isoflop.fit(1e13, points(1e13, 1e9))
    assert not outside["inside"] and isoflop.exponents([*fits, outside]) == isoflop.exponents(fits)
    assert isoflop.exponents([fits[0], outside]) is None


def test_far_sizes_do_not_move_the_optimum():
    near = points(1e10, 5e4)
    far = [{"budget": 1e10, "parameters": 1e6 * n, "loss": 9.0 * n} for n in (10, 20, 40)]
    fit = isoflop.fit(1e10, near + far)
    assert fit["parameters"] == pytest.approx(5e4) and fit["between"] == [1e4, 1e6]


def test_an_optimum_outside_of_the_sizes_is_not_extrapolated():
    fit = isoflop.fit(1e10, points(1e10, 1e8))
    assert fit["parameters"] == pytest.approx(1e6) and not fit["inside"]
    bent = [p | {"loss": -p["loss"]} for p in points(1e10, 1e5)]
    assert isoflop.fit(1e10, bent)["parameters"] in (1e4, pytest.approx(1e6)) and not isoflop.fit(1e10, bent)["inside"]


def test_isoflop_spends_its_budget_and_continues_its_report(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(isoflop, "TEST_BATCHES", 1)
    path, sizes, budgets = tmp_path / "isoflop.json", ((8, 1), (12, 1), (16, 1)), (2e8, 4e8)
    report = isoflop.isoflop(tokenizer, path, 0, budgets, sizes, quiet)
    assert len(report["points"]) == 6 and len(report["fits"]) == 2
    for p in report["points"]:
        step = 6 * p["parameters"] * isoflop.ROWS * 96
        assert 6 * p["parameters"] * p["tokens"] == pytest.approx(p["budget"], abs=max(step, p["budget"] / 2))
    monkeypatch.setattr(isoflop, "train_point", None)  # would fail if it were called
    assert isoflop.isoflop(tokenizer, path, 0, budgets, sizes, quiet)["fits"] == report["fits"]
    with pytest.raises(UserError, match="made with seed 0, not 1"):
        isoflop.isoflop(tokenizer, path, 1, budgets, sizes, quiet)


# ---- the cost of frames ----------------------------------------------------------------------


def test_self_attention_costs_more_than_linearly(smoke):
    config = dataclasses.replace(smoke.config.resampler, frames=64)
    rng = np.random.default_rng(0)
    memory = [[quadratic.cost(rng, in_form(config, form), (F, 16, 32))[1] for F in (16, 64)]
              for form in quadratic.KINDS.values()]  # fmt: skip
    resampler, quadratic_cost = (most / least for least, most in memory)
    assert list(quadratic.KINDS) == ["perceiver", "transformer"]
    assert resampler < 5 < 9 < quadratic_cost  # four times the frames


def test_quadratic_runs_and_continues_its_report(smoke, tmp_path):
    path = tmp_path / "quadratic.json"
    report = quadratic.quadratic(smoke, path, (1, 2), (32, 16), 3, say=quiet)
    for kind in quadratic.KINDS:
        lists = report["kinds"][kind]
        assert [len(lists[name]) for name in ("ms", "mb", "accuracy")] == [2, 2, 2]
        assert all(0 <= cell["score"] <= 1 and cell["n"] == 16 for cell in lists["accuracy"])
    cut = json.loads(path.read_text())
    for lists in cut["kinds"].values():
        for values in lists.values():
            values.pop()
    path.write_text(json.dumps(cut))
    again = quadratic.quadratic(smoke, path, (1, 2), (32, 16), 3, say=quiet)
    assert [m["accuracy"] for m in again["kinds"].values()] == [m["accuracy"] for m in report["kinds"].values()]


def test_the_action_is_learned_from_frozen_features(shipped):
    data = [quadratic.labelled_clips(shipped, np.random.default_rng(i), n, 2) for i, n in ((0, 160), (1, 80))]
    config = dataclasses.replace(shipped.config.resampler, frames=2, layers=1)
    assert quadratic.accuracy(np.random.default_rng(0), config, *data, 60)["score"] > 0.25  # chance is 1/8


# ---- induction -------------------------------------------------------------------------------


def test_attention_weights_are_those_of_self_attention(rng):
    config = dataclasses.replace(SMOKE.config.language, width=12, heads=3, key_size=4)
    params = init_language_model(rng, config, np.float64)["block_0"]
    params["u"], params["v"] = rng.standard_normal((2, 3, 4))
    x = rng.standard_normal((2, 7, 12))
    weights = induction.attention_weights(params, x, config)
    np.testing.assert_allclose(weights.sum(axis=3), 1)
    values = ops.linear(x, params["w_v"]).reshape(2, 7, 3, 4)
    mixed = np.einsum("bhij,bjhk->bihk", weights, values).reshape(2, 7, 12)
    wanted = self_attention(params, x, np.zeros((2, 7), int), config)
    np.testing.assert_allclose(ops.linear(mixed, params["w_o"], params["b_o"]), wanted, rtol=1e-6, atol=1e-9)


def test_the_trained_language_model_has_an_induction_head_and_an_untrained_one_has_none(shipped):
    config, tokenizer = shipped.config.language, shipped.tokenizer
    preset = dataclasses.replace(get_preset("toy"), config=shipped.config)
    stage = induction.LanguageStage(preset, np.random.default_rng(0), tokenizer, {})
    rows, episodes = induction.random_rows(stage), induction.word_episodes(tokenizer)
    for params, low, high in ((shipped.frozen["language"], 0.4, 1.0), (stage.optimiser.params, 0.0, 0.2)):
        heads = induction.prefix_matching(params, rows, config)
        assert heads.shape == (config.layers, config.heads) and low < heads.max() <= high
        assert low <= induction.repeat_score(params, rows, config) <= high
        assert low <= induction.few_shot_score(params, episodes, config) <= high


def test_both_pretrainings_are_measured(tokenizer, tmp_path):
    bare = induction.without_repeats(SMOKE)
    assert [phase[1:] for phase in bare.language.phases] == [(0.0, 0.12, 0.0), (0.0, 0.4, 0.2)]
    path = tmp_path / "induction.json"
    report = induction.induction(tokenizer, path, SMOKE, steps=5, every=2, say=quiet)
    assert list(report["curves"]) == ["with repeats", "without repeats"]
    for curve in report["curves"].values():
        assert curve["steps"] == [0, 2, 4, 5] and len(curve["repeat"]) == len(curve["few_shot"]) == 4
        assert np.shape(curve["heads"]) == (2, 2)
    assert induction.induction(tokenizer, path, SMOKE, steps=5, every=2, say=quiet) == report


# ---- attention maps --------------------------------------------------------------------------


def test_maps_are_attention_weights_on_the_right_picture(shipped, tmp_path):
    report = attention.attention(shipped, tmp_path / "attention.json", say=quiet)
    assert json.loads((tmp_path / "attention.json").read_text()) == report and len(report["prompts"]) == 5
    for prompt in report["prompts"]:
        assert len(prompt["tokens"]) == len(prompt["sees"]) == len(prompt["maps"]) > 0
        assert set(prompt["sees"]) == {len(prompt["pictures"]) - 1}  # an answer sees the last picture
        grids = np.array(prompt["maps"])
        assert grids.shape[1:] == (4, 4) and (grids >= 0).all() and (grids.sum(axis=(1, 2)) <= 1 + 1e-5).all()


def test_a_model_without_such_maps_is_refused(smoke, tmp_path):
    for part, form in (("resampler", MLPConfig), ("xattn", AllPreviousXattnConfig), ("xattn", VanillaXattnConfig)):
        config = dataclasses.replace(smoke.config, **{part: in_form(getattr(smoke.config, part), form)})
        with pytest.raises(UserError, match="attention maps need a Perceiver resampler"):
            attention.attention(dataclasses.replace(smoke, config=config), tmp_path / "x.json", say=quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [PlacedXattnConfig, UngatedXattnConfig])
def test_other_blocks_that_see_one_picture_have_maps(tokenizer, tmp_path, form):
    config = dataclasses.replace(SMOKE.config, xattn=in_form(SMOKE.config.xattn, form, every=2))
    model = untrained(np.random.default_rng(0), config, tokenizer)
    report = attention.attention(model, tmp_path / "x.json", say=quiet)
    pieces = [len(prompt["maps"]) for prompt in report["prompts"]]
    assert pieces == [len(prompt["tokens"]) for prompt in report["prompts"]] and sum(pieces) > 0


# ---- files and names -------------------------------------------------------------------------


@pytest.mark.parametrize("content, message", [
    ("{", "cannot be read"),
    ("[]", "holds no report of x"),
    ('{"format": "tinyflamingo-y/1"}', "holds no report of x"),
    ('{"format": "tinyflamingo-x/1", "settings": {}}', "holds no report of x"),
    ('{"format": "tinyflamingo-x/1", "settings": {"a": [1]}, "rows": 1}', r"was made with a \[1\], not \[2\]"),
])  # fmt: skip
def test_a_file_with_other_contents_is_refused_and_kept(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        growing_report.open_report(path, "x", {"a": (2,)}, rows={})
    assert path.read_text() == content


ADD = """
import sys, time
from pathlib import Path
from tinyflamingo.studies.growing_report import growing, save_report
path, name = Path(sys.argv[1]), sys.argv[2]
with growing(path, "x", {}, rows={}) as report:
    time.sleep(0.5)
    report["rows"][name] = 1
    save_report(path, report)
"""


def test_two_studies_at_once_lose_no_row(tmp_path):
    path = tmp_path / "x.json"
    both = [subprocess.Popen([sys.executable, "-c", ADD, str(path), name], stderr=subprocess.PIPE) for name in "ab"]
    said = "".join(process.communicate(timeout=60)[1].decode() for process in both)
    report = json.loads(path.read_text())
    assert sorted(report["rows"]) == ["a", "b"] and len(report["conditions"]) == 1
    assert "warning" not in said and said.count("\n") <= 1


def test_a_report_goes_on_with_its_number_of_workers(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.json"

    def workers():
        with growing_report.growing(path, "x", {}, rows={}) as report:
            growing_report.save_report(path, report)
            return ops.workers()

    monkeypatch.setenv("TINYFLAMINGO_THREADS", "3")
    assert workers() == 3
    monkeypatch.delenv("TINYFLAMINGO_THREADS")
    assert workers() == 3 and capsys.readouterr().err == ""
    with ops.use_workers(5):
        assert workers() == 5
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "workers 3, now 5" in line and "numpy" not in line
    assert workers() == 5 and [c["workers"] for c in json.loads(path.read_text())["conditions"]] == [3, 5]


@pytest.mark.parametrize("kept", [5, {}, ["x"], [{"workers": "2"}], [{}]])
def test_conditions_of_another_form_are_refused(tmp_path, kept):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"format": "tinyflamingo-x/1", "settings": {}, "rows": {}, "conditions": kept}))
    with pytest.raises(UserError, match="holds no report of x"):
        growing_report.open_report(path, "x", {}, rows={})


def test_names_of_rows_and_studies_can_be_mixed(smoke, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(run, "ablate", lambda model, path, rows, *a, **k: ran.append((path.name, rows)) or {"rows": {}})
    monkeypatch.setitem(run.STUDIES, "isoflop", lambda model, path, say: ran.append((path.name, "isoflop")))
    run.run_studies(smoke, tmp_path / "a.json", ["mlp", "isoflop"], say=quiet)
    run.run_studies(smoke, tmp_path / "a.json", ["isoflop"], say=quiet)
    run.run_studies(smoke, tmp_path / "a.json", say=quiet)
    assert ran == [("a.json", ["mlp"]), ("isoflop.json", "isoflop"), ("isoflop.json", "isoflop"), ("a.json", [])]
    with pytest.raises(UserError, match="unknown ablation 'nogates': choose from baseline, no_gates, .*, isoflop"):
        run.run_studies(smoke, tmp_path / "a.json", ["nogates"])
    with pytest.raises(UserError, match="does not name its preset"):
        preset_of(dataclasses.replace(smoke, info={}))
    assert preset_of(smoke).name == "smoke" and preset_of(smoke).config is smoke.config


# ---- numbers that are not finite -------------------------------------------------------------

SMALL = {
    "isoflop": lambda model, path: isoflop.isoflop(model.tokenizer, path, 0, (2e8, 4e8), ((8, 1),), quiet),
    "quadratic": lambda model, path: quadratic.quadratic(model, path, (1, 2), (32, 16), 3, say=quiet),
    "induction": lambda model, path: induction.induction(model.tokenizer, path, SMOKE, 0, 4, 2, quiet),
}


@pytest.mark.parametrize("study", SMALL)
def test_a_training_that_diverges_is_one_line(smoke, tmp_path, monkeypatch, study):
    """In a study, and the same in every other command that trains."""
    real = AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self, g, step, steps: real(self, g * np.float32(np.inf), step, steps))
    with pytest.raises(UserError, match="the norm of the gradient is (nan|inf): the training has diverged"):
        SMALL[study](smoke, tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("study", SMALL)
def test_a_model_whose_numbers_overflow_has_no_score(smoke, tmp_path, monkeypatch, study):
    """The last step makes the weights infinite, so no gradient is computed from them."""

    def spoilt(self, gradient, step, steps):
        self.vector[:] = np.inf if step == steps - 1 else self.vector
        return 1.0

    monkeypatch.setattr(AdamW, "step", spoilt)
    with pytest.raises(UserError, match="NaN or infinite numbers, so it has no score"):
        SMALL[study](smoke, tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()
