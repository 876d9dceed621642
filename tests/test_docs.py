"""The texts: the files and names in them exist, their commands run, and their numbers come from files."""

import ast
import builtins
import functools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from scripts import load_script

from tinyflamingo.data.tinyworld import pool as pools
from tinyflamingo.evaluation.tasks import TASKS
from tinyflamingo.studies.report import report
from tinyflamingo.training.presets import get_preset

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CHAPTER = ROOT / "docs" / "chapter.md"
CARD = ROOT / "tinyflamingo" / "assets" / "toy" / "MODEL_CARD.md"
TEXTS = [README, CARD, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [path for path in TEXTS if path.name not in ("parity.md", "results.md", "MODEL_CARD.md")]  # by hand
SET_UP = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
HOSTS = {"arxiv.org", "creativecommons.org"}  # a text may link to these only
FOLDERS = [ROOT / name for name in ("tinyflamingo", "docs", "notebooks", "tests")]

each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)


tables = load_script("docs/make_tables")


def blocks(language, page=README):
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(arguments, **more):
    """A command from the root of the repository, as a reader would run it."""
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(line):
    """ "python -m x 'y z'" as arguments, with this interpreter."""
    program, *arguments = shlex.split(line)
    assert program == "python"
    return [sys.executable, *arguments]


# ---- files and names exist -------------------------------------------------------------------


def prose(path):
    """A text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def exists(name):
    """A path as the texts write it: from the root, or from one of the four folders."""
    return any(list(base.glob(name.rstrip("/"))) for base in (ROOT, *FOLDERS))


@functools.cache
def defined_in(path):
    """Names that a Python file defines: functions, classes, arguments, variables, attributes, keys of dicts."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Constant(value=str(name)):
                names.add(name)
    return names


@functools.cache
def defined():
    """Names that the package, its scripts and its notebooks define."""
    files = [path for folder in FOLDERS[:3] for path in folder.rglob("*.py")]
    return set().union(*map(defined_in, files))


@each_text
def test_files_in_the_text_exist(path):
    written = re.findall(r"`([\w./*-]+(?:/[\w./*-]*|\.py))`", prose(path))
    missing = [name for name in written if not exists(name) and not name.startswith(("runs/", "checkpoint/"))]
    assert not missing


def test_a_missing_file_is_noticed():
    assert not exists("model/decode.py") and not exists("no_such_folder/")
    assert exists("model/flamingo.py") and exists("ops/fast_*.py") and exists("notebooks/solutions/")


# Names of other libraries; and names without a dot that are files, modules or builtins.
OUTSIDE = re.compile(r"(np|numpy|autograd)\.|.*\.(json|jsonl|md|npz|pkl|png|py|safetensors|token|toml|txt|zip)$")
BROWSER = {"ImageDecoder"}
ELSEWHERE = {
    "scaled_dot_product_attention",
    "state_dict",
    "only_attend_immediate_media",
    "open_clip",
    *dir(builtins),
} | BROWSER


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_names_in_the_text_are_in_the_code(path):
    """Names with an underscore, a dot or a capital inside: `init_layer`, `Dataset.weight`, `PortXattnConfig`."""
    written = re.findall(r"`((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:\(.*?\))?`", prose(path))
    names = [n for n in written if re.search(r"[a-z][A-Z]|[_.]", n) and not OUTSIDE.match(n) and n not in ELSEWHERE]
    modules = {file.stem for file in (ROOT / "tinyflamingo").rglob("*")} | {"tinyflamingo"}
    assert [name for name in names if not set(name.split(".")) <= defined() | modules] == []


@each_text
def test_names_are_defined_in_the_file_that_the_text_gives(path):
    """`name` in `file.py`, also several names."""
    for names, file in re.findall(r"((?:`[\w.]+`(?:,\s+|\s+and\s+)?)+)\s+in\s+`([\w/]+\.py)`", prose(path)):
        (source,) = [base / file for base in (ROOT, *FOLDERS) if (base / file).is_file()]
        parts = {part for name in re.findall(r"`([\w.]+)`", names) for part in name.split(".")}
        assert parts <= defined_in(source), file


def test_the_table_of_the_chapter_names_a_file_and_its_test():
    rows = re.findall(
        r"^\| [^|]+ \| `(tinyflamingo/[\w/.]+)` \| `(tests/[\w/.]+)` \| [^|]+ \|$",
        CHAPTER.read_text(encoding="utf-8"),
        re.M,
    )
    assert len(rows) >= 10 and rows[0][0] == "tinyflamingo/one_file.py"
    assert [p for row in rows for p in row if not (ROOT / p).is_file()] == []
    model = {p.name for p in (ROOT / "tinyflamingo" / "model").glob("*.py")}
    helpers = {"__init__.py", "config.py", "encoder_block.py", "tokenizer.py"}
    assert {Path(f).name for f, _ in rows if f.startswith("tinyflamingo/model/")} == model - helpers


def test_the_short_table_of_the_readme_is_a_part_of_the_long_one():
    """It begins with the whole model in one file; its notebooks are all but one, which the text names."""
    text, long = README.read_text(encoding="utf-8"), CHAPTER.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(tinyflamingo/[\w/.]+)` \|$", text, re.M)
    assert rows[0][2] == "tinyflamingo/one_file.py"
    assert [file for _, _, file in rows if not (ROOT / file).is_file()] == []
    listed = {number for _, notebooks, _ in rows for number in re.findall(r"\b\d\d\b", notebooks)}
    assert listed | {"01"} == set(re.findall(r"`notebooks/(\d\d)_", long)) and "Notebook 01" in text


def test_names_in_the_deviations_are_in_the_code():
    """Every name in a "where" is defined in the package."""
    text = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    places = re.findall(r"^- \*\*Where\*\*:(.*?)(?=^$)", text, re.M | re.S) + re.findall(
        r"^\|.*\|([^|]*)\|$", text, re.M
    )
    names = {n for place in places for written in re.findall(r"`([\w.]+)`", place) for n in written.split(".")}
    assert len(names) > 40
    assert sorted(names - defined()) == []


def test_every_row_of_the_glossary_is_defined_in_its_file():
    """The names in the column "in the code" are defined in the file of the last column; letters occur in it."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| `([\w/]+\.py)` \|$", text, re.M)
    assert len(rows) == len(re.findall(r"^\| ", text, re.M)) - 6  # all but the heads of the six tables
    for cells, file in rows:
        first, *_, last = cells.split(" | ")
        path = ROOT / "tinyflamingo" / file
        if letters := re.fullmatch(r"`(\w+)`(?:, `(\w+)`)?", first):
            source = path.read_text(encoding="utf-8")
            assert all(re.search(rf"\b{letter}\b", source) for letter in letters.groups() if letter), cells
            continue
        names = {part for name in re.findall(r"`([\w.]+)`", last) for part in name.split(".")}
        assert names and names <= defined_in(path), cells


@each_text
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            assert target.split("/")[2] in HOSTS
        else:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize(
    "path", [*TEXTS, ROOT / ".ci" / "run", *sorted((ROOT / "notebooks" / "src").glob("*.py"))], ids=lambda p: p.name
)
def test_no_paths_of_a_machine_and_no_hosts(path):
    text = path.read_text(encoding="utf-8").removeprefix("#!/usr/bin/env bash")
    assert not re.search(r"(?<![\w.:/$\"}])/(?:[\w.-]+/)+[\w.-]+|file://|[A-Z]:\\", text)
    assert {m.split("/")[2] for m in re.findall(r"https?://[^\s)>\"]+", text)} <= HOSTS


# ---- commands and examples run ----------------------------------------------------------------


@pytest.mark.posix
def test_the_two_commands_set_everything_up():
    train, tests, _ = blocks("bash")
    assert train == SET_UP + "python -m tinyflamingo train\n"
    assert tests == SET_UP + "python -m pytest\n"
    assert (ROOT / "requirements.txt").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or newer" in README.read_text(encoding="utf-8")


def test_the_first_command_trains(tmp_path):
    """The same command with the preset `smoke`: all stages, scores, figures and a checkpoint."""
    command = python("python -m tinyflamingo train --preset smoke --out") + [str(tmp_path / "run")]
    assert "caption" in run(command)
    for name in ("checkpoint/weights.npz", "checkpoint/model.json", "log.jsonl", "metrics.json", "losses.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_the_second_command_finds_the_tests():
    assert "test_docs.py" in run(python("python -m pytest --collect-only"))


@pytest.mark.posix
@pytest.mark.parametrize("line", blocks("bash")[2].splitlines())
def test_the_other_commands_run(line, tmp_path):
    extra = ["--out", str(tmp_path / "demo.png")] if line.endswith(" demo") else []
    assert run(python(line) + extra).strip()


def test_the_python_example_runs():
    (example,) = blocks("python")
    caption, word = run([sys.executable, "-c", example]).splitlines()
    assert caption and word


def test_the_example_of_sampling_runs():
    (example,) = blocks("python", ROOT / "docs" / "commands.md")
    assert run([sys.executable, "-c", example]).strip()


def test_answers_are_commands_that_can_be_copied():
    """The command line prints the answer that `make_tables.py` computes in its own process."""
    (console,) = blocks("console")
    command, answer = console.splitlines()[:2]
    assert run(python(command.removeprefix("$ "))).strip() == answer


# ---- numbers come from files ------------------------------------------------------------------


def test_the_table_of_the_benchmark_has_columns_for_each_machine(tmp_path, monkeypatch):
    row = {"ours_ms": 2.0, "torch_ms": 5.0, "ratio": 2.5}
    steps = ("contrastive_step", "language_step", "flamingo_step", "decode")
    report = {
        "lines": {name: row for name in steps} | {"language_compile": {"ours_ms": None, "not_run": "no compiler"}},
        "machine": {"processor": "Intel(R) Xeon(R) CPU (skylake)", "cores": 2, "versions": {}, "blas": ["fast"]},
    }
    monkeypatch.setattr(tables.speed, "BENCH", tmp_path)
    (tmp_path / "intel.json").write_text(json.dumps(report))
    head, _, *rows = (line.strip("| ").split(" | ") for line in tables.speed.race().splitlines())
    assert head[3:] == [
        f"{cpu}, {n}" for cpu in (report["machine"]["processor"], "AMD") for n in ("1 thread", "2 threads")
    ]
    cells = {name: rest for name, _, _, *rest in rows}
    assert cells["`language_step`"] == ["**2.50** (5.0 ms / 2.0 ms)", "not run", "not run", "not run"]
    assert cells["`language_compile`"] == ["not run"] * 4
    assert "Xeon(R) CPU (skylake) PyTorch takes 2.50, 2.50 and 2.50 times" in tables.speed.speed()
    assert tables.speed.speed().endswith("AMD: not run") and "AMD: not run" in tables.speed.machine()


def test_the_scores_have_the_mean_and_the_worst_of_all_trainings(tmp_path, monkeypatch):
    tasks = tables.model.card()["metrics"]["tasks"]
    other = {"tasks": {name: {"score": row["score"] - 0.1} for name, row in tasks.items()}}
    (tmp_path / "seed_1.json").write_text(json.dumps(other))
    monkeypatch.setattr(tables.model, "RESULTS", tmp_path)
    head, _, *rows = (line.strip("| ").split(" | ") for line in tables.model.scores().splitlines())
    place = head.index("mean of 2 trainings (worst)")
    for row in rows:
        score = tasks[row[0].strip("`")]["score"]
        assert row[place] == f"{score - 0.05:.3f} ({score - 0.1:.3f})"


@pytest.mark.parametrize(
    "goal, row, reached",
    [
        (">= 1.3", {"ours_ms": 5.0, "ratio": 1.29}, False),
        (">= 1.3", {"ours_ms": 5.0, "ratio": 1.3}, True),
        ("<= 1.05", {"ours_ms": 5.0, "ratio": 1.06}, False),
        ("<= 500 ms", {"ours_ms": 499.0, "ratio": None}, True),
        ("<= 10 s", {"ours_ms": 15_800.0, "ratio": None}, False),
        ("", {"ours_ms": 5.0, "ratio": 0.5}, False),
    ],
)
def test_a_line_that_reaches_its_goal_is_bold(goal, row, reached):
    assert tables.speed.reaches(row, goal) == reached


def test_the_trainings_are_those_that_the_text_names():
    files = [path.stem for path in sorted((ROOT / "docs" / "results").glob("seed_*.json"))]
    assert files == [f"seed_{n}" for n in range(1, 5)]  # docs/scores.md and the model card: the seeds 0 to 4


@pytest.mark.parametrize(
    "processor, name",
    [
        ("AMD EPYC (znver4)", "amd-epyc-znver4.json"),
        ("Intel(R) Xeon(R) CPU @ 2.10GHz (skylake-avx512)", "intel-xeon-cpu-skylake-avx512.json"),
    ],
)
def test_results_of_the_benchmark_are_named_by_the_cpu(processor, name):
    assert load_script("docs/tables/common").file_name(processor) == name


def test_generated_regions_are_fresh(capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out + "run `python docs/make_tables.py`"


def test_the_results_are_what_their_files_say(tmp_path):
    folder = ROOT / "docs" / "results"
    report([folder, folder / "toy"], tmp_path / "results.md", quick=True, say=str)
    fresh, written = (
        path.read_text(encoding="utf-8") for path in (tmp_path / "results.md", folder.parent / "results.md")
    )
    figures = re.findall(r"^!\[[^]]+\]\((figures/[^)]+)\)\n\n?", written, re.M)
    assert len(figures) >= 3 and all((folder.parent / path).is_file() for path in figures)
    assert re.sub(r"\n\n!\[[^]]+\]\([^)]+\)", "", written) == fresh


@pytest.mark.parametrize("path", tables.FILES, ids=lambda path: path.name)
def test_regions_are_closed_and_known(path):
    text = path.read_text(encoding="utf-8")
    names = [match[1] for match in tables.REGION.findall(text)]
    assert names and set(names) <= set(tables.REGIONS)
    assert len(names) == text.count("<!-- generated") == text.count("<!-- end -->")
    assert not re.search(r"^<!-- generated: \w+ -->.", text, re.M), "Markdown ends a paragraph at a line that begins so"


def test_a_stale_number_is_noticed_and_replaced(tmp_path):
    path = tmp_path / "text.md"
    path.write_text("about <!-- generated: minutes -->12345<!-- end --> minutes\n", encoding="utf-8")
    assert tables.refresh(path, write=False) and "12345" in path.read_text(encoding="utf-8")
    assert tables.refresh(path, write=True) and "12345" not in path.read_text(encoding="utf-8")
    assert not tables.refresh(path, write=False)


def test_the_letters_have_the_sizes_of_the_preset():
    config, text = get_preset("toy").config, (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \|$", text, re.M))
    language = config.language
    want = {"R": config.resampler.latents, "D": language.width, "Dv": config.vision.width, "V": language.vocab_size}
    assert {letter: int(size) for letter, size in written.items()} == want
    assert f"| {language.heads}, {language.key_size} |" in text


def test_the_deviations_have_the_recipe_of_the_preset():
    preset, text = get_preset("toy"), (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    contrastive, third = preset.contrastive, preset.flamingo
    pages, pairs, videos = third.datasets
    expected = (
        f"{pages.rows} pages, {pairs.rows} pairs, {videos.rows} videos",
        f"pages {pages.weight:g}, pairs {pairs.weight:g}, videos {videos.weight:g}",
        f"the first {pages.length} tokens",
        f"| {pairs.length}; videos {videos.length} |",
        f"warm-up over {third.optimiser.warmup} to",
        f"Gaussian, of {third.feature_noise:g} of",
        f"**: {contrastive.batch} pictures",
        f"AGC {contrastive.optimiser.agc:g} on the encoder",
    )
    assert [words for words in expected if words not in text] == []


def test_own_data_has_the_defaults_of_the_preset():
    config, text = get_preset("toy").config, (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `--(\w+) \d+` \| [^|]+ \| the preset's, (\d+) \|$", text, re.M)
    sizes = {
        "side": config.vision.side,
        "vocab": config.language.vocab_size,
        "context": get_preset("toy").flamingo.datasets[0].length,
    }
    assert {option: int(size) for option, size in written} == sizes


def test_every_task_is_described():
    assert set(tables.model.TASKS) == {"zero_shot_classification", *TASKS}


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "docs").glob("*.py")))
def test_a_script_says_how_it_is_used(script, tmp_path):
    """And takes --help for no name of a file."""
    command = [sys.executable, str(ROOT / "docs" / script), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "usage:" in result.stdout and not any(tmp_path.iterdir())


def test_blind_guesses_and_twins_can_be_measured_again(monkeypatch):
    measure = load_script("docs/measure_tests")
    for module in (pools, measure.tasks):
        monkeypatch.setattr(module, "draw_pool", measure.undrawn)
    monkeypatch.setattr(measure, "QUERIES", 1000)
    report = json.loads((ROOT / "docs" / "tests.json").read_text(encoding="utf-8"))
    assert report["twins"] == pytest.approx(measure.twins(), abs=0.03)
    assert report["blind"] == pytest.approx({name: measure.blind(name) for name in TASKS}, abs=0.08)


def test_the_examples_of_the_readme_can_be_drawn_again(tmp_path):
    module = load_script("docs/make_examples")
    module.main(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in module.FOLDER.iterdir()}
    for name in module.PICTURES:
        assert (tmp_path / f"{name}.png").read_bytes() == (module.FOLDER / f"{name}.png").read_bytes()


@pytest.mark.posix
@pytest.mark.skipif(os.name == "nt", reason="bash")
def test_the_script_of_the_checks_is_a_bash_script():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    run(["bash", "-n", ".ci/run"])
