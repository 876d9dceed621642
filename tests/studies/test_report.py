"""The report: every section from its files, a line for every missing file, and correct counts."""

import json
import re

import numpy as np
import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.studies import report_figures
from tinyflamingo.studies.report import report, section
from tinyflamingo.studies.report_markdown import show
from tinyflamingo.studies.report_read import Runs, cell_of, merged, read_runs
from tinyflamingo.studies.report_suite import headline, level_means
from tinyflamingo.studies.report_text import SECTIONS, notes


def cell(score, half=0.02, n=500):
    return {"score": score, "ci95": [score - half, score + half], "n": n}


def suite(seed=0, shift=0.0):
    def task(paper, dev, end, rivals, whole):
        shots = {
            n: cell(end * part + shift)
            for n, part in zip(("0", "4", "8", "16", "32"), (0.2, 0.5, 0.8, 0.9, 1), strict=True)
        }
        specialists = dict(zip(("prototype", "linear", "finetuned", "whole"), map(cell, (*rivals, whole)), strict=True))
        sanity = {
            "swapped": cell(0.8),
            "shuffled": cell(0.2),
            "no_pictures": cell(0.2),
            "blind": None,
            "chance": cell(0.1),
        }
        return {
            "paper": paper,
            "dev": dev,
            "metric": "CIDEr-D",
            "shots": shots,
            "specialists": specialists,
            "sanity": sanity,
            "retrieval": {"random": cell(0.7), "rices": cell(0.8), "ensemble": cell(0.75), "shots": 16},
        }

    tasks = {
        "captions": task("COCO", True, 0.9, (0.3, 0.4, 0.5), 0.95),
        "digits": task("TextVQA", False, 0.7, (0.3, 0.69, 0.5), 0.6),
        "memes": task("HatefulMemes", False, 0.5, (0.3, 0.2, 0.6), 0.9),
        "twice": task("level 2", False, 0.8, (0.3, 0.4, 0.5), 0.6) | {"level": 2},
    }
    words = {"2way": {"1": cell(0.9), "8": cell(0.97)}, "5way": {"4": cell(0.95)}}
    return {"format": "tinyflamingo-suite/1", "seed": seed, "tasks": tasks, "few_shot_words": words}


def ablation_report():
    def row(what, paper, overall, against="baseline"):
        seeds = {str(s): {"scores": {"captions": x, "overall": x}} for s, x in enumerate(overall)}
        return {"what": what, "paper": paper, "against": against, "seeds": seeds}

    rows = {
        "baseline": row("as it is", 70.7, (0.6, 0.61, 0.62)),
        "mlp": row("an MLP", 66.6, (0.7, 0.71, 0.73)),
        "middle": row("one in the middle", 59.8, (0.5, 0.52, 0.52)),
        "p_next_0": row("p_next 0", 69.6, (0.6, 0.6, 0.63)),
    }
    return {"format": "tinyflamingo-ablations/1", "settings": {"steps": 300}, "rows": rows}


def everything():
    points = [
        {"budget": c, "parameters": n, "tokens": c / n / 6, "loss": 2 + (np.log(n / 3e4)) ** 2}
        for c in (1e11, 2e11)
        for n in (1e4, 3e4, 9e4)
    ]
    fits = [
        {
            "budget": c,
            "parameters": 3e4,
            "tokens": c / 18e4,
            "loss": 2.0,
            "coefficients": [1, -2 * np.log(3e4), 2 + np.log(3e4) ** 2],
            "between": [1e4, 9e4],
            "inside": True,
        }
        for c in (1e11, 2e11)
    ]
    side = {"ms": [1, 2], "mb": [1, 2], "accuracy": [cell(0.5), None]}
    curve = {"steps": [0, 10], "repeat": [0.1, 0.9], "few_shot": [0.1, 0.6], "heads": [[0.1, 0.2], [0.3, 0.9]]}
    prompt = {
        "pictures": [np.zeros((8, 8, 3), int).tolist()],
        "tokens": ["red", "circle"],
        "sees": [0, 0],
        "maps": [[[0, 1], [0, 0]]] * 2,
    }
    isoflop = {"points": points, "fits": fits, "exponents": {"parameters": 0.5, "tokens": 0.5}}
    quadratic = {"frames": [1, 2], "kinds": {"perceiver": side, "transformer": side}}
    induction = {"curves": {"with repeats": curve, "without": curve}}
    studies = {"isoflop": isoflop, "quadratic": quadratic, "induction": induction, "attention": {"prompts": [prompt]}}
    studies = {name: {"format": f"tinyflamingo-{name}/1", **raw} for name, raw in studies.items()}
    return studies | {"suite": suite(), "ablations": ablation_report()}


@pytest.fixture
def run(tmp_path):
    """A folder with all reports, a JSON file that is no report, and a log."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name, raw in everything().items():
        (folder / f"{name}.json").write_text(json.dumps(raw))
    (folder / "metrics.json").write_text('{"tasks": {}}')
    records = [{"stage": "language", "step": 0, "loss": 1.0}]
    records += [
        {"stage": "flamingo", "step": s, "loss": 1.0, "gates": {"xattn_0/alpha_xattn": 0.4, "xattn_0/alpha_dense": 0.5}}
        for s in (0, 10)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_the_text_has_all_sections_with_their_figures(run, tmp_path):
    report([run], tmp_path / "results.md", say=lambda line: None)
    text = (tmp_path / "results.md").read_text()
    assert "Not in these runs" not in text
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        title for title, *_ in SECTIONS.values()
    ]
    links = re.findall(r"\]\((figures/results_\w+\.png)\)", text)
    assert len(links) == 7 and all((tmp_path / link).stat().st_size > 1000 for link in links)
    assert text.count("| `twice` |") == 3 and "| 2 | `twice` |" in text  # in its own table, sanity and retrieval
    assert "`captions` (DEV) | COCO" in text and "0.970 (0.950–0.990)" in text
    assert "Here the toy disagrees with the paper: an MLP." in text
    again = tmp_path / "again.md"
    report([run], again, say=lambda line: None)
    assert again.read_text() == text


def test_a_figure_that_fails_is_one_line_and_the_others_are_drawn(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(report_figures.FIGURES, "gates", lambda runs: 1 / 0)
    report([run], tmp_path / "results.md", say=lambda line: None)
    text = (tmp_path / "results.md").read_text()
    assert text.count("](figures/") == 6 and "results_gates" not in text
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "cannot draw" in line and "results_gates.png" in line


def test_quick_draws_nothing_and_missing_sections_name_their_command(run, tmp_path):
    report([run / "suite.json"], tmp_path / "r.md", quick=True, say=lambda line: None)
    text = (tmp_path / "r.md").read_text()
    assert not (tmp_path / "figures").exists() and "![" not in text
    assert (
        text.count("Not in these runs") == 6
        and "| 16 | 0.700" in text
        and "`python -m tinyflamingo ablate --only isoflop` makes it" in text
    )


def test_the_headline_counts():
    text = headline({0: suite()})
    assert "same 32 examples on **2 of 3** tasks, clearly on 1" in text  # 0.7 against 0.69 is not clear
    assert "whole training set on **1 of 3** tasks, clearly on 1" in text and "only texts state" not in text
    assert "Without any shot it already beats them on 0 of 3, because training has the questions of all tasks." in text


def test_the_headline_says_which_wins_need_no_shot():
    report = suite()
    report["tasks"]["new_words"] = report["tasks"].pop("memes")
    report["tasks"]["captions"]["shots"]["0"] = cell(0.8)
    text = headline({0: report})
    assert "on 1 of 3, because training has the questions of all tasks but `new_words`." in text
    assert text.index("32 shots") < text.index("Without any shot") < text.index("the whole training set")
    for task in report["tasks"].values():
        del task["shots"]["0"]
    assert "Without any shot" not in headline({0: report})


def test_the_headline_also_counts_without_tasks_that_no_specialist_can_know():
    report = suite()
    report["tasks"]["sums"] = report["tasks"].pop("memes")
    text = headline({0: report})
    assert "include tasks (`sums`) that ask for facts which only texts state" in text
    assert re.search(r"Without them it is \d of 2, clearly on \d, and \d of 2, clearly on \d\.", text)


def test_the_headline_of_a_suite_without_specialists():
    bare = suite()
    for task in bare["tasks"].values():
        del task["specialists"]
    text = headline({0: bare})
    assert "of 0" not in text and "learly" not in text and text.count("No run has both") == 2


def test_seeds_are_merged_with_an_interval_over_them():
    suites = {s: suite(s, 0.01 * s) for s in range(3)}
    row = cell_of(suites, "tasks", "captions", "shots", "32")
    assert row["score"] == pytest.approx(0.91) and row["n"] == 3
    assert row["ci95"][1] - row["ci95"][0] == pytest.approx(2 * 4.303 * 0.01 / 3**0.5)
    assert cell_of(suites, "tasks", "captions", "shots", "64") is None and cell_of({}, "tasks") is None
    assert merged([None, cell(0.5)]) == cell(0.5) and show(None) == "–"
    for s, suite_ in suites.items():
        suite_["few_shot_words"]["2way"]["1"], suite_["tasks"]["captions"]["shots"]["0"] = cell(0.4 * s), cell(4.0 * s)
    assert cell_of(suites, "few_shot_words", "2way", "1")["ci95"] == [0.0, 1.0]
    assert cell_of(suites, "tasks", "captions", "shots", "0")["ci95"] == [0.0, 10.0]


def test_a_suite_may_lack_parts(run, tmp_path):
    raw = suite()
    del raw["few_shot_words"], raw["tasks"]["digits"]["specialists"], raw["tasks"]["digits"]["sanity"]
    (tmp_path / "part.json").write_text(json.dumps(raw))
    report([tmp_path / "part.json"], tmp_path / "r.md", say=lambda line: None)
    text = (tmp_path / "r.md").read_text()
    assert (
        "## Invented words\n\nNot in these runs: `python -m tinyflamingo evaluate --suite` makes it." in text
        and "**1 of 2** tasks" in text
    )


@pytest.mark.parametrize("content, message", [
    ("{", "cannot be read"),
    ("[]", "holds no report: its format should be one of tinyflamingo-suite/1"),
    ('{"format": "tinyflamingo-suite/2"}', "holds no report"),
])  # fmt: skip
def test_files_that_are_no_reports_are_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        report([path], tmp_path / "r.md")
    assert not (tmp_path / "r.md").exists()


def damaged(name, change):
    raw = everything()[name]
    change(raw)
    return raw


@pytest.mark.parametrize("raw, message", [
    ({"format": "tinyflamingo-suite/1"}, "x.json has no 'seed'"),
    (damaged("suite", lambda r: r["tasks"]["memes"].pop("dev")), "x.json: tasks: memes has no 'dev'"),
    (damaged("suite", lambda r: r["tasks"].update(memes=3)), "x.json: tasks: memes is '3'"),
    (damaged("suite", lambda r: r["tasks"]["memes"]["shots"].update({"4": {}})), "memes: shots: 4 has no 'score'"),
    (damaged("ablations", lambda r: r.pop("rows")), "x.json has no 'rows'"),
    (damaged("isoflop", lambda r: r["fits"][1].pop("inside")), "x.json: fits: 1 has no 'inside'"),
    (damaged("quadratic", lambda r: r.pop("kinds")), "x.json has no 'kinds'"),
    (damaged("induction", lambda r: r.pop("curves")), "x.json has no 'curves'"),
    (damaged("attention", lambda r: r.update(prompts={})), "x.json: prompts is '{}'"),
    ({"format": ["a"]}, "holds no report"),
])  # fmt: skip
def test_the_error_of_a_damaged_report_names_the_place(tmp_path, raw, message):
    (tmp_path / "x.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=message):
        report([tmp_path / "x.json"], tmp_path / "r.md")
    assert not (tmp_path / "r.md").exists()


def test_lines_of_a_log_without_gates_are_skipped(run, tmp_path):
    log = run / "log.jsonl"
    log.write_text('{"stage": "flamingo"}\n' + log.read_text() + '{"stage": "flamingo", "gates": null}\n')
    report([run], tmp_path / "r.md", quick=True, say=lambda line: None)
    assert "| run | `xattn_0 alpha_xattn` | 0.400 |" in (tmp_path / "r.md").read_text()
    assert len(read_runs([run]).logs[0][1]) == 2


def test_one_step_is_singular(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ablation_report() | {"settings": {"steps": 1}}))
    lines = []
    report([tmp_path / "a.json"], tmp_path / "r.md", say=lines.append)
    assert "Each run has 1 short step of" in (tmp_path / "r.md").read_text()
    assert lines == [f"{tmp_path / 'r.md'} is written; figures: 1"]


def test_no_report_and_a_damaged_log_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no report in"):
        read_runs([tmp_path])
    (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="is damaged"):
        read_runs([tmp_path])


def test_levels_have_the_mean_of_their_tasks_and_the_worst_seed(tmp_path):
    suites = {seed: suite(seed, 0.1 * seed) for seed in range(2)}
    for made in suites.values():
        other = made["tasks"]["twice"]
        made["tasks"] |= {"again": other | {"shots": {n: cell(0.4) for n in other["shots"]}}}
        made["tasks"] |= {"chosen": other | {"dev": True, "shots": {n: cell(0.0) for n in other["shots"]}}}
    text = SECTIONS["levels"][1](Runs(suites))
    assert "| 2 | – | – |" not in text
    level = next(line for line in text.splitlines() if line.startswith("| 2 | "))
    assert level.split(" | ")[-1].startswith("0.62 [0.60]")  # (0.8 + 0.4) / 2, and 0.05 more with seed 1
    assert level_means(suites, "32") == {2: "0.62 [0.60]"}
    assert "on **1 of 2** tasks, clearly on" in text and "`chosen` (DEV)" in text


def test_the_numbers_of_trainings_are_those_of_the_files():
    suites = {seed: suite(seed) for seed in range(3)}
    del suites[2]["tasks"]["twice"]["specialists"]
    suites[2]["tasks"] = {"twice": suites[2]["tasks"]["twice"]}
    said = SECTIONS["few_shot"][1]
    assert "interval over 2 or 3 seeds of the training" in said(Runs(suites))
    assert "interval over queries or over 2 seeds of the training" in said(Runs({i: suites[i] for i in (1, 2)}))
    assert "interval over queries." in said(Runs({0: suite(0)}))
    assert "compares scores of the same trainings, 2 of 3." in SECTIONS["levels"][1](Runs(suites))


def test_a_file_can_say_what_is_special_about_its_runs(tmp_path):
    others = {"isoflop": {"notes": {"isoflop": "Few steps."}}}
    old = {"notes": {"tasks": "An old recipe.", "sanity": "Old."}}
    suites = {0: suite(0) | old, 1: suite(1) | old, 2: suite(2)}
    assert notes("tasks", Runs(suites)) == ["An old recipe."] and notes("sanity", Runs(suites)) == ["Old."]
    assert notes("isoflop", Runs(suites, others=others)) == ["Few steps."]
    assert notes("levels", Runs(suites)) == notes("gates", Runs(suites)) == []
    assert notes("tasks", Runs(without={0: suite(0) | old})) == ["An old recipe."]
    (tmp_path / "suite.json").write_text(json.dumps(suites[0]))
    assert section("tasks", read_runs([tmp_path]), []).splitlines()[2] == "An old recipe."
    (tmp_path / "suite.json").write_text(json.dumps(suites[0] | {"notes": {"tasks": 7}}))
    with pytest.raises(UserError, match="notes: tasks is '7', which is not valid there"):
        read_runs([tmp_path])


def test_the_race_is_between_scores_of_the_same_trainings():
    suites = {seed: suite(seed) for seed in range(2)}
    poor = suites[1]["tasks"]["twice"]
    del poor["specialists"]
    poor["shots"] = {n: cell(0.0) for n in poor["shots"]}
    assert "on **1 of 1** tasks" in SECTIONS["levels"][1](Runs(suites))  # the mean of both would lose


def test_a_training_without_tasks_stands_beside_the_others(tmp_path):
    other = suite(0) | {"preset": "no-tasks"}
    for part in other["tasks"].values():
        part["shots"] = {n: cell(0.1) for n in part["shots"]}
    for name, made in (("with_tasks", suite(0) | {"preset": "toy"}), ("without_tasks", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    runs = read_runs([tmp_path])
    assert list(runs.suites) == list(runs.without) == [0]  # neither replaces the other, although the seeds are equal
    lines = SECTIONS["levels"][1](runs).splitlines()
    levels = [line.split(" | ")[-1] for line in lines if line.startswith(("| 2 | yes |", "| 2 | no |"))]
    assert levels[0].startswith("0.80 [0.80]") and levels[1].startswith("0.10 [0.10]")
    head, row = (next(line for line in lines if key in line).split(" | ") for key in ("| level | task |", "`twice`"))
    assert row[head.index("32 shots, no training tasks")].startswith("0.100")
    (tmp_path / "with_tasks.json").unlink()
    alone = SECTIONS["levels"][1](read_runs([tmp_path]))
    assert "| 2 | no |" in alone and "| 2 | yes |" not in alone
