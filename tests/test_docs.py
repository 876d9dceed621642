"""The texts: what they name exists, what they show runs, what they count was counted."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tinyflamingo.evaluation.tasks import TASKS
from tinyflamingo.studies.report import report
from tinyflamingo.training.presets import get_preset

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CARD = ROOT / "tinyflamingo" / "assets" / "toy" / "MODEL_CARD.md"
TEXTS = [README, CARD, *sorted((ROOT / "docs").glob("*.md"))]
SET_UP = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
HOSTS = {"arxiv.org", "creativecommons.org"}  # the only ones a text may link to

each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)


def load_tables():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load_tables()


def blocks(language):
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


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


# ---- what is named exists --------------------------------------------------------------------


def exists(name):
    """A path as the texts write them: from the root, or from the package."""
    return any(list(base.glob(name)) for base in (ROOT, ROOT / "tinyflamingo"))


@each_text
def test_files_that_are_named_exist(path):
    written = re.findall(r"`([\w./*-]+/[\w./*-]*)`", path.read_text(encoding="utf-8"))
    missing = [n for n in written if not exists(n.rstrip("/")) and not n.startswith(("runs/", "checkpoint/"))]
    assert not missing


def test_the_table_of_the_chapter_names_a_file_and_its_test():
    rows = re.findall(
        r"^\| [^|]+ \| `(tinyflamingo/[\w/.]+)` \| `(tests/[\w/.]+)` \| [^|]+ \|$",
        README.read_text(encoding="utf-8"),
        re.M,
    )
    assert len(rows) >= 10
    assert [p for row in rows for p in row if not (ROOT / p).is_file()] == []
    model = {p.name for p in (ROOT / "tinyflamingo" / "model").glob("*.py")}
    helpers = {"__init__.py", "config.py", "encoder_block.py", "encoders.py", "paper.py", "tokenizer.py", "trained.py"}
    assert {Path(f).name for f, _ in rows if f.startswith("tinyflamingo/model/")} == model - helpers


def test_names_in_the_deviations_are_in_the_code():
    """Every function and class that "where" points to is still called so."""
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tinyflamingo").rglob("*.py"))
    text = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    places = re.findall(r"^- \*\*Where\*\*:(.*?)(?=^$)", text, re.M | re.S) + re.findall(
        r"^\|.*\|([^|]*)\|$", text, re.M
    )
    names = {n for place in places for written in re.findall(r"`([\w.]+)`", place) for n in written.split(".")}
    assert len(names) > 40
    assert sorted(n for n in names if not re.search(rf"\b{n}\b", code)) == []


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


# ---- what is shown runs ----------------------------------------------------------------------


def test_the_two_commands_set_everything_up():
    train, tests, _ = blocks("bash")
    assert train == SET_UP + "python -m tinyflamingo train\n"
    assert tests == SET_UP + "python -m pytest\n"
    assert (ROOT / "requirements.txt").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or newer" in README.read_text(encoding="utf-8")


def test_the_first_command_trains(tmp_path):
    """The same with the preset that takes seconds: all stages, scores, figures and a checkpoint."""
    command = python("python -m tinyflamingo train --preset smoke --out") + [str(tmp_path / "run")]
    assert "caption" in run(command)
    for name in ("checkpoint/weights.npz", "checkpoint/model.json", "log.jsonl", "metrics.json", "losses.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_the_second_command_finds_the_tests():
    assert "test_docs.py" in run(python("python -m pytest --collect-only"))


@pytest.mark.parametrize("line", blocks("bash")[2].splitlines())
def test_the_other_commands_run(line, tmp_path):
    extra = ["--out", str(tmp_path / "demo.png")] if line.endswith(" demo") else []
    assert run(python(line) + extra).strip()


def test_the_python_example_runs():
    (example,) = blocks("python")
    caption, word = run([sys.executable, "-c", example]).splitlines()
    assert caption and word


def test_answers_are_commands_that_can_be_copied():
    """What `make_tables.py` completes in its own process is what the command line prints."""
    (console,) = blocks("console")
    command, answer = console.splitlines()[:2]
    assert run(python(command.removeprefix("$ "))).strip() == answer


# ---- what is counted was counted -------------------------------------------------------------


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


def test_a_stale_number_is_noticed_and_mended(tmp_path):
    path = tmp_path / "text.md"
    path.write_text("about <!-- generated: minutes -->12345<!-- end --> minutes\n", encoding="utf-8")
    assert tables.refresh(path, write=False) and "12345" in path.read_text(encoding="utf-8")
    assert tables.refresh(path, write=True) and "12345" not in path.read_text(encoding="utf-8")
    assert not tables.refresh(path, write=False)


def test_the_letters_have_the_sizes_of_the_preset():
    config, text = get_preset("toy").config, (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \|$", text, re.M))
    language = config.language
    want = {"R": config.resampler.latents, "D": language.width, "Dv": config.vision.width, "V": language.vocab_size}
    assert {k: int(v) for k, v in told.items()} == want
    assert f"| {language.heads}, {language.key_size} |" in text


def test_the_deviations_tell_the_recipe_of_the_preset():
    preset, text = get_preset("toy"), (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    contrastive, third = preset.contrastive, preset.flamingo
    told = (
        "{} pages, {} pairs, {} videos".format(*third.rows),
        "pages {:g}, pairs {:g}, videos {:g}".format(*third.weights),
        f"the first {third.lengths[0]} tokens",
        "| {1}; videos {2} |".format(*third.lengths),
        f"warm-up over {third.optimiser.warmup} to",
        f"Gaussian, of {third.feature_noise:g} of",
        f"**: {contrastive.batch} pictures",
        f"AGC {contrastive.optimiser.agc:g} on the encoder",
    )
    assert [words for words in told if words not in text] == []


def test_every_task_is_described():
    assert set(tables.TASKS) == {"zero_shot_classification", *TASKS}


def test_the_examples_of_the_readme_can_be_drawn_anew(tmp_path):
    spec = importlib.util.spec_from_file_location("make_examples", ROOT / "docs" / "make_examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in module.FOLDER.iterdir()}
    for name in module.PICTURES:
        assert (tmp_path / f"{name}.png").read_bytes() == (module.FOLDER / f"{name}.png").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="bash")
def test_the_script_of_the_checks_is_a_bash_script():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    run(["bash", "-n", ".ci/run"])
