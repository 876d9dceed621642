"""The threshold: which share of the answers reaches it, what `complete` then says, and when it says nothing."""

import json
import shutil

import numpy as np
import pytest
from own_files import mmc4
from PIL import Image

from tinyflamingo import cli
from tinyflamingo.checkpoint import add_to_card, load_checkpoint, save_checkpoint, shipped_checkpoint
from tinyflamingo.data.items import EOC
from tinyflamingo.decoding.complete import complete
from tinyflamingo.decoding.sampling import Sampling
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import VisionConfig
from tinyflamingo.own_data import calibrate as module
from tinyflamingo.own_data.calibrate import calibrate, describe


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "toy"
    shutil.copytree(shipped_checkpoint(), folder)
    return folder


def grey(shade, side=32):
    return np.full((side, side, 3), shade, np.uint8)


def test_the_probability_is_the_product_over_the_tokens_and_the_end(copied):
    model = load_checkpoint(copied)
    greedy, beam = complete(model, [grey(90), "Output:"]), complete(model, [grey(90), "Output:"], beams=3)
    assert 0 < greedy["probability"] < np.exp(sum(greedy["log_probs"]))  # `<EOC>` is a factor too
    assert beam["probability"] == pytest.approx(np.exp(beam["log_probs"]), rel=1e-3)
    cut = complete(model, [grey(90), "Output:"], max_tokens=2)  # not closed: two factors
    assert cut["probability"] == pytest.approx(np.exp(sum(cut["log_probs"])), rel=1e-3)


def test_the_share_that_is_kept_reaches_the_threshold(copied, monkeypatch):
    monkeypatch.setattr(module, "MOST", 60)
    report = calibrate(load_checkpoint(copied), copied, kept=0.8)
    assert report["n"] == 30 and report["right_above"] > 0.8 and report["asked"] == "Output:"
    model = load_checkpoint(copied)  # the card has the threshold, and is whole
    assert model.info["unlike"]["threshold"] == report["threshold"]
    probabilities, _ = module.answers(model, module._tinyworld(model))
    assert np.mean(probabilities >= report["threshold"]) == pytest.approx(0.8, abs=0.05)
    assert "80% of the answers about 30 pictures that training never saw reach it" in describe(report)


def test_too_few_pictures_are_refused(copied, monkeypatch):
    monkeypatch.setattr(module, "MOST", 20)
    with pytest.raises(UserError, match="a threshold needs 20 held-out pictures, but there are 10"):
        calibrate(load_checkpoint(copied), copied)


def test_a_refused_calibration_leaves_the_card(copied, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 60)
    mmc4(tmp_path / "pages")  # they begin with a text, so there is nothing to ask
    before = (copied / "model.json").read_bytes()
    for unlike, message in ((tmp_path / "none", "no such file"), (tmp_path / "pages", "no record of one picture")):
        with pytest.raises(UserError, match=message):
            calibrate(load_checkpoint(copied), copied, unlike=str(unlike))
    assert (copied / "model.json").read_bytes() == before


def test_other_pictures_need_no_captions(copied, tmp_path, monkeypatch):
    """Damaged files are left out, the others are asked what the held-out pictures are asked."""
    monkeypatch.setattr(module, "MOST", 60)
    folder = tmp_path / "photos"
    folder.mkdir()
    for shade in (0, 90, 180):
        Image.fromarray(grey(shade, 50)).save(folder / f"{shade}.PNG")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.doc").write_bytes(b"no picture")
    report = calibrate(load_checkpoint(copied), copied, unlike=str(folder))
    assert report["n_unlike"] == 3 and 0 <= report["auc"] <= 1
    assert {text for _, text, _ in module._asked_in_turn([folder / "0.PNG"], ["Output:"], VisionConfig())} == {
        "Output:"
    }


@pytest.mark.parametrize("preset", ["omniglot", "emoji", None])
def test_pictures_of_tinyworld_are_no_measure_for_other_models(copied, preset):
    model = load_checkpoint(copied)
    model.info["preset"] = preset
    with pytest.raises(UserError, match="did not learn from pictures of TinyWorld alone: give pictures of its kind"):
        calibrate(model, copied)


def test_the_threshold_stays_with_its_weights(copied, tmp_path):
    """A finished run that is resumed writes its card again."""
    fact = {"threshold": 0.5, "kept": 0.95, "n": 30, "asked": "Output:"}
    model = load_checkpoint(copied)
    save_checkpoint(model, tmp_path / "run")
    add_to_card(tmp_path / "run", unlike=fact)
    save_checkpoint(model, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").info["unlike"] == fact
    model.params["eoc"] = model.params["eoc"] + 1
    save_checkpoint(model, tmp_path / "run")
    assert "unlike" not in load_checkpoint(tmp_path / "run").info


@pytest.mark.parametrize("threshold, unlike", [(0.0, False), (1.1, True)])
def test_complete_compares_with_the_threshold(copied, tmp_path, capsys, threshold, unlike):
    add_to_card(copied, unlike={"threshold": threshold, "kept": 0.95, "n": 30, "asked": "Output:"})
    Image.fromarray(grey(90)).save(tmp_path / "a.png")
    line = ["complete", "<image>Output:", str(tmp_path / "a.png"), "--checkpoint", str(copied)]
    assert cli.main(line) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and ("the picture may be unlike those that the model learned from" in err) == unlike
    assert cli.main([*line, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["unlike"] is unlike and answer["threshold"] == threshold


def test_other_prompts_are_not_compared(copied):
    add_to_card(copied, unlike={"threshold": 1.1, "kept": 0.95, "n": 30, "asked": "Output:"})
    model = load_checkpoint(copied)
    assert complete(model, [grey(90), "Output:"])["unlike"]
    for items in (["Output:"], [grey(90), "what color?"], [grey(90), "a dax.", EOC, grey(10), "Output:"]):
        assert complete(model, items, 2)["unlike"] is None


def test_answers_that_are_cut_or_sampled_are_not_compared(copied):
    add_to_card(copied, unlike={"threshold": 1.1, "kept": 0.95, "n": 30, "asked": "Output:"})
    model = load_checkpoint(copied)
    sampled = complete(model, [grey(90), "Output:"], sampling=Sampling(2.0), rng=np.random.default_rng(0))
    assert complete(model, [grey(90), "Output:"], 1)["unlike"] is sampled["unlike"] is None


def test_a_field_of_the_model_is_not_changed(copied):
    with pytest.raises(ValueError, match="belong to the model"):
        add_to_card(copied, sha256={})
