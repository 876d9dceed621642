"""Fills the generated regions of the README, the model card and the documents: no number is typed by hand.

    python docs/make_tables.py             rewrite the regions that are stale
    python docs/make_tables.py --check     change nothing; exit code 1 if a region is stale
    python docs/make_tables.py --measure   first measure the time of the main commands (trains, runs all tests)

A region begins with `<!-- generated: NAME -->` and ends with `<!-- end -->`; NAME is a key of `REGIONS`. The sources:

    model.json of the shipped checkpoint
    the presets                     parameter counts
    the example commands            each is run
    docs/follow.py                  the tables of architecture.md
    docs/measured.json              written by `--measure`
    docs/bench/*.json               one file for each machine, written by docs/measure_bench.py
    docs/workers.json               written by docs/measure_workers.py
    docs/tests.json                 written by docs/measure_tests.py
    docs/real_size.json             written by docs/measure_real_size.py
    docs/own_data.json              written by docs/measure_own_data.py
    docs/explorer.json              written by docs/measure_explorer.py
    the explorer's page             is built
    limits and counts               are read from the code and the quizzes
    docs/results/suite_*.json       written by `evaluate --suite`
    docs/results/omniglot-validation.json
                                    metrics.json of `train --preset omniglot-validation --data DIR`
    docs/results/emoji.json         metrics.json of `train --preset emoji --data DIR`
    docs/results/no-tasks.json      metrics.json of `train --preset no-tasks`

Not here: figures (`python -m tinyflamingo demo`), the example files (`docs/make_examples.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CHECKPOINT = ROOT / "tinyflamingo" / "assets" / "toy"
MEASURED = ROOT / "docs" / "measured.json"
BENCH = ROOT / "docs" / "bench"
WORKERS = ROOT / "docs" / "workers.json"
TESTS = ROOT / "docs" / "tests.json"
REAL_SIZE = ROOT / "docs" / "real_size.json"
UNMEASURED = "Not measured yet with this version: `python docs/measure_own_data.py FOLDER` does it."
UNMEASURED_EMOJI = (
    "Not measured yet with this version: `python -m tinyflamingo train --preset emoji --data emoji` does it."
)
OWN_DATA = ROOT / "docs" / "own_data.json"
EXPLORER = ROOT / "docs" / "explorer.json"
RESULTS = ROOT / "docs" / "results"
OMNIGLOT = RESULTS / "omniglot-validation.json"
EMOJI = RESULTS / "emoji.json"
NO_TASKS = RESULTS / "no-tasks.json"
GENERATED = "architecture commands emoji explorer omniglot own_data performance scaling scores sizes teaching"
DOCUMENTS = [ROOT / "docs" / f"{name}.md" for name in GENERATED.split()]
FILES = (ROOT / "README.md", *DOCUMENTS, CHECKPOINT / "MODEL_CARD.md")
REGION = re.compile(r"(<!-- generated: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)

# What each task of `evaluation/tasks.py` asks.
TASKS = {
    "zero_shot_classification": "stage one alone: the nearest of 96 captions names the thing",
    "caption": "caption of a single thing, word for word",
    "caption_relation": "caption of two things and their relation, word for word",
    "caption_heldout": "caption of a pair of shape and colour that training never shows",
    "vqa": "colour, shape, number, size and place in turn",
    "video_action": "what happens in a video of eight frames",
    "dialogue": "third answer of a dialogue; the first two answers are the model's own",
    "knowledge": "a question about a picture that needs a fact from text, as in training",
    "knowledge_heldout": "a fact that training never asks about a picture; the model names the thing first",
    "knowledge_direct": "the same facts; the model does not name the thing first",
    "few_shot_2way": "two invented words, four pictures each; the words occur in training, in text only",
    "few_shot_new_words": "the same with words that occur nowhere in training",
    "image_swap": "one question, two pictures with different answers: both must be right",
}

STAGES = {
    "contrastive": "1: contrastive pretraining",
    "language": "2: language pretraining",
    "flamingo": "3: Flamingo training",
    "evaluation": "evaluation",
}

# The examples in the README's region `answers`; each is run to fill the region.
EXAMPLES = (
    ("<image>Output:", "docs/examples/red_circle.png"),
    ("<image>Question: what shape is it? Answer:", "docs/examples/blue_star.png"),
    ("<video>Question: what happens? Answer:", "docs/examples/moves_left.mp4"),
    ("<image>lofa.<image>dimu.<image>", *(f"docs/examples/{n}.png" for n in ("red_circle", "blue_star", "red_house"))),
)

# The commands whose times are in docs/commands.md; `--measure` runs them.
TIMED = {
    "tests": "-m pytest",
    "demo": "-m tinyflamingo demo --out docs/figures/demo.png",
    "doctor": "-m tinyflamingo doctor",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a region is stale")
    parser.add_argument("--measure", action="store_true", help="measure the time of the commands first")
    args = parser.parse_args(argv)
    if not (CHECKPOINT / "model.json").exists():
        print("make_tables: the shipped checkpoint is missing; train one first", file=sys.stderr)
        return 2
    if args.measure:
        MEASURED.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    stale = [path for path in FILES if refresh(path, write=not args.check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'stale' if args.check else 'rewritten'}")
    return 1 if args.check and stale else 0


def refresh(path: Path, write: bool) -> bool:
    """Fill the regions of one file. Returns whether the file was stale."""
    before = path.read_text(encoding="utf-8")
    after = fill(before)
    if write and after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def fill(text: str) -> str:
    """The text with fresh regions. A region within a line stays within it."""

    def fresh(match):
        opening, name, old, end = match.groups()
        body = REGIONS[name]()
        return f"{opening}\n\n{body}\n\n{end}" if "\n" in old else f"{opening}{body}{end}"

    return REGION.sub(fresh, text)


# ---- the regions -----------------------------------------------------------------------------


def card() -> dict:
    return json.loads((CHECKPOINT / "model.json").read_text(encoding="utf-8"))


def measured() -> dict:
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def table(header: list, rows: list) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def scores() -> str:
    guesses, rows = json.loads(TESTS.read_text(encoding="utf-8"))["blind"], []
    guesses["zero_shot_classification"] = guesses["caption"]  # a caption names one thing, too
    without = json.loads(NO_TASKS.read_text(encoding="utf-8"))["tasks"]
    for name, row in card()["metrics"]["tasks"].items():
        low, high = row["ci95"]
        cells = [f"`{name}`", TASKS[name], f"{row['score']:.3f}", f"{low:.3f}–{high:.3f}", row["n"]]
        rows.append([*cells, f"{without[name]['score']:.3f}", f"{guesses[name]:.3f}"])
    head = ["task", "what is asked", "exact match", "95% interval", "n", "no training tasks", "blind guess"]
    return table(head, rows)


def twins() -> str:
    """How many test pictures of one thing have a twin in training."""
    share = json.loads(TESTS.read_text(encoding="utf-8"))["twins"]
    three, both = share["stage three"], share["stages one and three"]
    return f"{three:.0%} of them in stage three, {both:.1%} in stages one and three together"


def perplexity() -> str:
    p = card()["metrics"]["text_perplexity"]
    change = 100 * (p["flamingo"] / p["language_model"] - 1)
    return f"{p['language_model']:.3f} by the language model alone, {p['flamingo']:.3f} by Flamingo ({change:+.1f}%)"


def parameters() -> str:
    from tinyflamingo.training.presets import get_preset, parameter_counts

    counts = parameter_counts(get_preset(card()["preset"]).config)
    rows = [[f"`{n}`" if n.startswith("<") else n, f"{r['parameters']:,}", r["state"]] for n, r in counts.items()]
    return table(["part", "parameters", ""], rows)


def minutes() -> str:
    return f"{sum(measured()['train']['stages'].values()) / 60:.0f}"


def times() -> str:
    """Times of the main commands."""
    timed = measured()
    stages = timed["train"]["stages"]
    rows = [["`python -m tinyflamingo train`", duration(sum(stages.values()))]]
    rows += [[f"&nbsp;&nbsp;{STAGES.get(n, n)}", duration(s)] for n, s in stages.items()]
    rows += [[f"`python {TIMED[n]}`", duration(s)] for n, s in timed["seconds"].items()]
    return table(["command", f"time on {timed['cores']} cores, {timed['processor']}"], rows)


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def memory() -> str:
    return gigabytes(measured()["train"])


def gigabytes(run: dict) -> str:
    """The peak memory of a run."""
    return f"{run['peak_memory_mb'] / 1000:.1f} GB"


def headline() -> str:
    """The result of the suite of sixteen tasks, over all its seeds."""
    from tinyflamingo.studies import report_read, report_text

    return report_text.headline(report_read.read_runs([RESULTS]).suites)


def omniglot() -> str:
    """The error of the preset with two held-out alphabets."""
    report = json.loads(OMNIGLOT.read_text(encoding="utf-8"))
    row = report["tasks"]["omniglot"]
    low, high = row["ci95"]
    runs = list(row["runs"].values())
    return (
        f"{row['score']:.3f} ({low:.3f} to {high:.3f}) of {row['n']} drawings in {len(runs)} runs; the best run had "
        f"{min(runs):.2f}, the worst {max(runs):.2f}; {duration(report['seconds'])} in all"
    )


def emoji() -> str:
    """The scores of the preset on emoji, how many concepts there are, and how long it took."""
    if not EMOJI.exists():
        return UNMEASURED_EMOJI
    report = json.loads(EMOJI.read_text(encoding="utf-8"))
    rows = [
        [name, f"{row['score']:.3f} ({row['ci95'][0]:.3f} to {row['ci95'][1]:.3f})", row["n"]]
        + [f"{row[key]:.3f}" if key in row else "–" for key in ("ensemble", "class_means", "neighbours")]
        for name, row in report["emoji"].items()
    ]
    header = ["measure", "one prompt (95% interval)", "questions", "six prompts", "class means", "raw pixels"]
    stages = ", ".join(f"{STAGES.get(name, name)}: {duration(s)}" for name, s in report["stages"].items())
    concepts = f"{report['concepts']['training']:,} concepts for training, {report['concepts']['asked']} for tests"
    return f"{table(header, rows)}\n\n{concepts}. {stages}; together {duration(report['seconds'])}."


def emoji_tinyworld() -> str:
    """TinyWorld's scores after training on emoji, beside those of the checkpoint from which it went on."""
    if not EMOJI.exists():
        return UNMEASURED_EMOJI
    before, after = card()["metrics"]["tasks"], json.loads(EMOJI.read_text(encoding="utf-8"))["tasks"]
    rows = [[f"`{name}`", f"{before[name]['score']:.3f}", f"{row['score']:.3f}"] for name, row in after.items()]
    return table(["task", "shipped checkpoint", "after emoji"], rows)


def facts() -> str:
    """How the checkpoint was made."""
    info = card()
    stages = ", ".join(f"{STAGES.get(n, n)}: {duration(s)}" for n, s in info["stages"].items())
    rows = [
        ["command", f"`{info.get('command') or command(info)}`"],
        ["seed", info["seed"]],
        ["versions", ", ".join(f"{n} {v}" for n, v in info["versions"].items())],
        ["machine", f"{info['cores']} cores" if "cores" in info else "a laptop's processor, no GPU"],
        ["time", f"{stages}; together {duration(sum(info['stages'].values()))}"],
        ["peak memory", gigabytes(info)],
        ["sha256 of `weights.npz`", f"`{info['sha256']}`"],
    ]
    return table(["what", "value"], rows)


def command(info: dict) -> str:
    preset = "" if info["preset"] == "toy" else f" --preset {info['preset']}"
    seed = f" --seed {info['seed']}" if info["seed"] else ""
    return f"python -m tinyflamingo train{preset}{seed}"


def answers() -> str:
    """The example commands, each with the answer of the shipped checkpoint."""
    import tinyflamingo
    from tinyflamingo.data.prompt import read_prompt

    model, lines = tinyflamingo.load(CHECKPOINT), []
    for template, *files in EXAMPLES:
        items = read_prompt(template, [ROOT / f for f in files], model.config.vision.side)
        lines.append(f"$ python -m tinyflamingo complete {shlex.quote(template)} {' '.join(files)}")
        lines.append(tinyflamingo.complete(model, items)["text"])
    return "\n".join(["```console", *lines, "```"])


MAKERS = ("AMD", "Intel")  # of processors; one without a file in docs/bench/ is "not run"
NOT_RUN = "not run"


def machines() -> dict[str, dict]:
    """{name of the processor: report of the benchmark, or {} if it was not run there}."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(BENCH.glob("*.json"))]
    named = {report["machine"]["processor"]: report for report in reports}
    return named | {maker: {} for maker in MAKERS if not any(maker in name for name in named)}


def race() -> str:
    """The benchmark: one row for each line, two columns for each machine."""
    from tinyflamingo.bench.lines import LINES

    reports, rows = machines(), []
    for name, line in LINES.items():
        cells = [_cell(report, key) for report in reports.values() for key in (name, f"{name}@2")]
        rows.append([f"`{name}`", line.what, line.wanted or "–", *cells])
    columns = [f"{cpu}, {threads}" for cpu in reports for threads in ("1 thread", "2 threads")]
    return table(["line", "what", "wanted", *columns], rows)


def _cell(report, key) -> str:
    """The ratio, then both times: "1.45 (513 / 354 ms)", the other side's first."""
    row = report["lines"].get(key, {}) if report else {}
    if not row.get("ours_ms"):
        return NOT_RUN
    other = row["torch_ms"] or row.get("other_ms")
    if not other:
        return _ms(row["ours_ms"])
    return f"**{row['ratio']:.2f}** ({_ms(other)} / {_ms(row['ours_ms'])})" if row["ratio"] else _ms(row["ours_ms"])


def _ms(value) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms" if value < 2_000 else f"{value / 1e3:.1f} s"


def speed() -> str:
    """The comparison with PyTorch, one sentence for each machine."""
    return "; ".join(
        _speed(name, report["lines"]) if report else f"{name}: {NOT_RUN}" for name, report in machines().items()
    )


def _speed(processor, lines) -> str:
    steps = [lines[f"{stage}_step"]["ratio"] for stage in ("contrastive", "language", "flamingo")]
    each = ", ".join(f"{ratio:.2f}" for ratio in steps[:-1]) + f" and {steps[-1]:.2f}"
    return (
        f"on one thread of an {processor} PyTorch takes {each} times as long for a training step of the three stages, "
        f"{lines['decode']['ratio']:.1f} times as long for a decoded token"
    )


def machine() -> str:
    """The machines and the versions of the benchmark."""
    return "\n".join(_machine(name, report) for name, report in machines().items())


def _machine(processor, report) -> str:
    if not report:
        return f"- {processor}: {NOT_RUN}."
    info = report["machine"]
    versions = [f"{n} {v}" for n, v in info["versions"].items() if n in ("numpy", "autograd", "numba", "torch", "jax")]
    libraries = [*info["blas"], *([f"PyTorch with {info['torch']}"] if "torch" in info else [])]
    return f"- {processor}: {info['cores']} cores, {', '.join([*versions, *libraries])}."


def paper_parts() -> str:
    """The parts of the paper's three models in millions, beside the numbers of its table 5."""
    from tinyflamingo.bench.sizes import counts

    names = [f"flamingo-{size}{reading}" for size in ("3b", "9b", "80b") for reading in ("", "-printed")]
    parts, rows = {name: counts(name) for name in names}, []
    for part in ("vision encoder", "language model", "resampler", "gated blocks", "total"):
        cells = [f"{parts[name][part]['parameters'] / 1e6:,.0f}" for name in names]
        printed = [parts[name][part]["printed"] for name in names[::2]]
        rows.append([part, *(cell for i in range(3) for cell in (printed[i], *cells[2 * i : 2 * i + 2]))])
    header = ["millions", *(cell for i in range(0, 6, 2) for cell in ("paper", f"`{names[i]}`", "`-printed`"))]
    return table(header, rows)


def other_counts() -> str:
    """The encoders and the largest language model, each beside the number in its paper."""
    from tinyflamingo.bench.sizes import counts
    from tinyflamingo.variants.paper import A9, PAPER

    rows = []
    for name in [n for n in PAPER if n not in A9 and not n.startswith("flamingo")]:
        total = counts(name)["total"]
        rows.append([f"`{name}`", f"{total['parameters']:,}", total.get("printed", "–")])
    return table(["preset", "parameters", "paper"], rows)


def table_a9() -> str:
    """How well all rows of Chinchilla's table fit."""
    from tinyflamingo.bench.sizes import counts
    from tinyflamingo.variants.paper import A9

    off = [abs(counts(name)["total"]["parameters"] / 1e6 - millions) for name, (millions, *_) in A9.items()]
    return (
        f"All {len(off)} rows fit: the largest difference is {max(off):.2f} million; the table prints whole millions."
    )


def paper_costs() -> str:
    """The costs of a page, at the rate that `--measure` measured: one row for each cost, one column for each model."""
    from tinyflamingo.bench.sizes import duration, sizes, units

    columns = {}
    for name in ("toy", "flamingo-3b", "flamingo-9b", "flamingo-80b"):
        c = sizes(name, measured()["gflops"] * 1e9)["costs"]
        columns[f"`{name}`"] = {
            **{f"forward, {part}": units(row["flops"], "flop") for part, row in c["forward"].items()},
            "forward, all": units(c["forward_flops"], "flop"),
            "forward, read and written": units(c["forward_bytes"], "B"),
            "forward, time": duration(c["forward_seconds"]),
            "training step": units(c["step_flops"], "flop"),
            "training step, time": duration(c["step_seconds"]),
            "training": units(c["training_flops"], "flop"),
            "training, time": duration(c["training_seconds"]),
            "weights": units(c["weight_bytes"], "B"),
            "training holds": units(c["training_bytes"], "B"),
            "training holds, if nothing is frozen": units(c["training_bytes_unfrozen"], "B"),
        }
    costs = next(iter(columns.values()))
    return table(["", *columns], [[cost, *(c[cost] for c in columns.values())] for cost in costs])


def rate() -> str:
    return f"{measured()['gflops']:.0f} GFLOP/s"


def workers() -> str:
    """A training step by one worker, by threads and by processes."""
    measured, rows = json.loads(WORKERS.read_text(encoding="utf-8")), []
    for stage, seconds in measured["stages"].items():
        name = f"{stage}, {seconds['parameters'] / 1e6:.2f} million parameters"
        several = [seconds[kind] for kind in ("threads", "processes")]
        rows.append([name, f"{1000 * seconds['one']:.0f} ms"])
        rows[-1] += [f"{1000 * time:.0f} ms ({seconds['one'] / time:.2f})" for time in several]
        rows[-1] += [f"{1000 * seconds['sum']:.1f} ms"]
    n = measured["workers"]
    return table(["stage", "1 worker", f"{n} threads", f"{n} processes", "one sum of the gradient"], rows)


REAL_RUNS = {  # measurement: its name in `docs/real_size.json`
    "`convert --from open_flamingo`": "convert",
    "`complete`, a picture and 2 tokens, from the disk": "disk, 2 tokens",
    "`complete`, a picture and 2 tokens, from memory": "memory, 2 tokens",
    "`complete`, a picture and 34 tokens, from memory": "memory, 34 tokens",
}


def real_size() -> str:
    """A checkpoint of OpenFlamingo-3B's size: conversion and completions."""
    runs, rows = json.loads(REAL_SIZE.read_text(encoding="utf-8")), []
    for what, name in REAL_RUNS.items():
        row = runs[name]
        rows.append([what, f"{row['seconds']:.1f}", f"{row['own_gib']:.2f} GiB", f"{row['file_gib']:.1f} GiB"])
    token = (runs["memory, 34 tokens"]["seconds"] - runs["memory, 2 tokens"]["seconds"]) / (34 - 2)
    rows.append(["each further token", f"{token:.2f}", "", ""])
    return table(["command", "seconds", "own memory, peak", "pages of the mapped file, peak"], rows)


def own_check() -> str:
    return _own_console(" data check ")


def own_scores() -> str:
    return _own_console(" train ")


def own_shots() -> str:
    return _own_console(" evaluate ")


def own_threshold() -> str:
    return _own_console(" calibrate ")


def own_answer() -> str:
    return _own_console(" complete ")


def own_sizes() -> str:
    """The scores of runs on 200 and on 2,000 pictures, and what TinyWorld's captions became."""
    rows = []
    for n, run in _own_data().get("sizes", {}).items():
        whole = [n, str(run["steps"]), f"{run['seconds'] / 60:.1f}"]
        for name, row in run["own"]["scores"].items():
            low, high = row["ci95"]
            numbers = [f"{row['score']:.2f} ({low:.2f} to {high:.2f})", f"{row['another']:.2f}"]
            rows.append([*whole, name, *numbers, f"{row['neighbours']:.2f}"])
        rows.append([*whole, "TinyWorld's captions, exact match", f"{run['tinyworld']['caption']:.2f}", "", ""])
    head = ["pictures", "steps", "minutes", "score", "own picture (95%)", "another's picture", "nearest by raw pixels"]
    return table(head, rows) if rows else UNMEASURED


def own_minutes() -> str:
    times = re.findall(r" (\d+)[,;]", _own_output(" train "))
    minutes, cores = sum(map(int, times)) / 60, _own_data()["cores"]
    return f"{minutes:.0f} minutes on {cores} cores with other work" if times else "minutes"


def own_feature_size() -> str:
    return f"{_own_data()['feature_bytes'] / 1024:.1f} KB"


def _own_data() -> dict:
    return json.loads(OWN_DATA.read_text(encoding="utf-8"))


def _own_output(command) -> str:
    """What the example's command with this word printed; "": it was not measured."""
    return next((output for line, output in _own_data()["outputs"].items() if command in line), "").strip()


def _own_console(command) -> str:
    """The same as a block, without the line that says where the files are."""
    output = re.sub(r"(?m)^checkpoint, log, figures .*", "", _own_output(command)).strip()
    return _console(output) if output else UNMEASURED


def _console(text) -> str:
    return f"```console\n{text}\n```"


def explorer_truth() -> str:
    """How far flamingo.js is from the package, over all prompts of its tests."""
    report = json.loads(EXPLORER.read_text(encoding="utf-8")) if EXPLORER.exists() else {"node": {}}
    rows = []
    for dtype in ("float32", "float16"):
        row = report["node"].get(dtype)
        same = [f"{row['same']} of {report['prompts']}"] if row else [NOT_RUN]
        rows.append(
            ["Node", dtype, *same, *(f"{row[name]:.1e}" if row else NOT_RUN for name in ("logits", "attention"))]
        )
    return table(["where", "matrices", "same text", "logits", "attention weights"], rows)


def explorer_file() -> str:
    """The size of the page."""
    from tinyflamingo.explorer.build import build_page

    return f"{len(build_page()) / 1e6:.1f} MB"


def explorer_weights() -> str:
    """The size of the packed weights, before base64."""
    from tinyflamingo.explorer.build import pack

    return f"{pack()['info']['bytes'] / 1e6:.1f} MB"


def _explorer_most(script) -> int:
    """The constant MOST of a script of the explorer."""
    source = (ROOT / "tinyflamingo" / "explorer" / script).read_text(encoding="utf-8")
    return int(re.search(r"\bMOST = (\d+)", source)[1])


def explorer_cells() -> str:
    """The largest mask that the page draws."""
    return f"{_explorer_most('app.js'):,}"


def explorer_frames() -> str:
    """The longest video of the page."""
    return f"{_explorer_most('world.js')} frames"


def explorer_link() -> str:
    """What a frame of 32 x 32 pixels takes in a link, in base64."""
    return f"{32 * 32 * 3 * 4 / 3 / 1024:.0f} KB"


def class_seconds() -> str:
    from tinyflamingo.classroom.grade import SECONDS

    return str(SECONDS)


def class_memory() -> str:
    from tinyflamingo.classroom.grade import MEGABYTES

    return f"{MEGABYTES / 1024:.0f} GB"


def quiz_questions() -> str:
    """The number of questions after the notebooks."""
    folder = ROOT / "tinyflamingo" / "classroom" / "quizzes"
    return str(sum(len(tomllib.loads(path.read_text(encoding="utf-8"))["question"]) for path in folder.glob("*.toml")))


def follow_prompt() -> str:
    return _follow("prompt")


def follow_step() -> str:
    return _follow("step")


def _follow(name) -> str:
    """One table of `docs/follow.py`, with its title."""
    run = subprocess.run([sys.executable, "docs/follow.py", name], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"docs/follow.py {name} failed: {run.stderr}")
    return run.stdout.strip()


REGIONS = {
    f.__name__: f
    for f in (
        *(scores, twins, perplexity, parameters, minutes, times, memory, facts, answers, race, speed, machine),
        *(paper_parts, other_counts, table_a9, paper_costs, rate, omniglot, headline, workers, real_size),
        *(emoji, emoji_tinyworld),
        *(
            follow_prompt,
            follow_step,
            own_check,
            own_scores,
            own_shots,
            own_threshold,
            own_sizes,
            own_answer,
            own_minutes,
            own_feature_size,
        ),
        *(explorer_truth, explorer_file, explorer_weights, explorer_cells, explorer_frames, explorer_link),
        *(class_seconds, class_memory, quiz_questions),
    )
}


# ---- measuring -------------------------------------------------------------------------------


def measure() -> dict:
    """Seconds of each timed command on this machine, and the machine's rate of matrix products."""
    from tinyflamingo.bench.flops import gemm_rate
    from tinyflamingo.bench.run import processor

    seconds, gflops = {}, round(gemm_rate(), 1)
    for name, arguments in TIMED.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments.split()], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds[name] = round(time.perf_counter() - began, 1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "tinyflamingo", "train", "--out", f"{folder}/run"], cwd=ROOT, check=True)
        metrics = json.loads(Path(folder, "run", "metrics.json").read_text(encoding="utf-8"))
    train = {name: metrics[name] for name in ("stages", "peak_memory_mb")}
    return {"processor": processor(), "cores": os.cpu_count(), "gflops": gflops, "train": train, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
