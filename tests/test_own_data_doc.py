"""docs/own_data.md: its commands run, with fewer pictures and the smallest preset; its outputs are theirs."""

import json
import re
from pathlib import Path

import pytest
from scripts import load_script

import tinyflamingo
from tinyflamingo.data.images import MAX_PIXELS
from tinyflamingo.data.prompt import read_prompt
from tinyflamingo.data.readers import FORMATS
from tinyflamingo.data.readers.check import COLUMNS, ROWS
from tinyflamingo.data.readers.decode import ALLOWED

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
REPORT = json.loads((ROOT / "docs" / "own_data.json").read_text(encoding="utf-8"))


measure = load_script("docs/measure_own_data")
DRAW, CHECK, DRAW_NEW, TRAIN, EVALUATE, COMPLETE, CALIBRATE = measure.commands()


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder in which all commands ran, and what they printed."""
    folder = tmp_path_factory.mktemp("example")
    smaller = {DRAW: ("--count", "40"), DRAW_NEW: ("--count", "40"), TRAIN: ("--mix", "1", "--steps", "3")}
    return folder, {line: measure.run(line, folder, smaller.get(line, ())) for line in measure.commands()}


@pytest.mark.parametrize(
    "more, message",
    [
        (("mine",), "mine is not an empty folder"),
        (("mine/captions.jsonl",), "is not an empty folder"),
        (("new", "--count", "0"), "--count must be at least 1"),
        (("new", "--seed", "-5"), "--seed at least 0"),
    ],
)
def test_the_script_that_draws_flags_overwrites_nothing(tmp_path, monkeypatch, capsys, more, message):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/captions.jsonl").write_text("precious")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["make_flags.py", *more])
    with pytest.raises(SystemExit) as stopped:
        load_script("docs/make_flags").main()
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert (tmp_path / "mine/captions.jsonl").read_text() == "precious" and not (tmp_path / "new").exists()


def test_the_data_are_checked(example):
    folder, outputs = example
    assert "records: 40 good; 0 bad (0.0%)\ncontent: 40 pictures, 0 videos" in outputs[CHECK]
    assert (folder / "flags.png").read_bytes().startswith(b"\x89PNG")


def test_the_training_learns_from_the_data_and_prints_its_scores(example):
    folder, outputs = example
    metrics = json.loads((folder / "runs/flags/metrics.json").read_text())
    model = tinyflamingo.load(folder / "runs/flags")
    assert model.info["data"]["path"] == "flags" and metrics["tasks"] == {} and metrics["own"]["n"] == 40
    right, exchanged = metrics["own"]["perplexity"], metrics["own"]["perplexity_exchanged"]
    printed = f"perplexity of 40 held-out records: {right:.2f}; with another record's picture {exchanged:.2f}\n"
    assert outputs[TRAIN].startswith(printed) and right != exchanged
    rows = ("exact match ", "ranking among ", "2-way 1-shot ", "5-way 1-shot ")
    assert [row for row in rows if f"\n{row}" not in outputs[TRAIN]] == []


def test_the_scores_after_examples_are_printed(example):
    _, outputs = example
    for row in ("exact match", "4 shots: exact match", "16 shots: exact match", "5-way 1-shot"):
        assert f"\n{row} " in outputs[EVALUATE]


def test_the_threshold_is_that_of_the_card(example):
    folder, outputs = example
    fact = tinyflamingo.load(folder / "runs/flags").info["unlike"]
    assert outputs[CALIBRATE].startswith(f"threshold: {fact['threshold']:.4f}; 95% of the answers about 40 pictures")


def test_the_completion_is_that_of_the_trained_model(example):
    folder, outputs = example
    prompt = read_prompt("<image>Output:", [folder / "flags/flag_007.png"], 32)
    models = tinyflamingo.load(folder / "runs/flags/checkpoint"), tinyflamingo.load()
    trained, shipped = (tinyflamingo.complete(model, prompt) for model in models)
    assert outputs[COMPLETE] == f"{trained['text']}\n"
    assert trained["probability"] != shipped["probability"]  # after three steps the words can be the same


def test_the_outputs_are_those_of_the_page_s_commands(tmp_path):
    """Those of the whole training are not computed again here, and need not be measured yet."""
    assert list(REPORT["outputs"]) == measure.commands()[: len(REPORT["outputs"])]
    for line in (DRAW, CHECK):
        assert measure.run(line, tmp_path) == REPORT["outputs"][line]


@pytest.mark.skipif("sizes" not in REPORT, reason="docs/measure_own_data.py was stopped before its end")
def test_the_run_of_the_page_learned_the_flags():
    scores = REPORT["sizes"]["200"]["own"]["scores"]
    for name in ("exact match", "5-way 1-shot"):
        assert scores[name]["score"] > scores[name]["another"] + 0.3
    assert re.fullmatch(r"a flag, \w+ (over|beside) \w+\.\n", REPORT["outputs"][COMPLETE])


def test_numbers_of_the_text_are_those_of_the_code():
    share = f"more than {ALLOWED:.0%} of the records"
    limits = (f"{MAX_PIXELS // 10**6} million pixels", share, f"shows {COLUMNS * ROWS} records")
    assert [words for words in limits if words not in " ".join(TEXT.split())] == []


def test_the_page_lists_all_formats_and_flags():
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) == set(FORMATS)
    flags = """--from --steps --hold-out --test --augment --fps --shots --unlike --kept --data --mix --side --vocab
        --context --format --allow-bad --resume --sheet"""
    assert [flag for flag in flags.split() if flag not in TEXT] == []
