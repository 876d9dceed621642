"""Fills the generated regions of the README, the model card and the documents: no number is typed by hand.

    python docs/make_tables.py             rewrite the regions that are stale
    python docs/make_tables.py --check     change nothing, exit 1 if a region is stale
    python docs/make_tables.py --measure   first time the commands of the README (runs all tests)

A region stands between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a key of `REGIONS`.
Sources: `model.json` of the shipped checkpoint, the parameter counts of the presets, the example
commands themselves, `docs/measured.json`, which `--measure` writes, and `docs/bench.json`, which
`python -m tinyflamingo bench --json docs/bench.json` writes; and `docs/results/`, whose suites `evaluate --suite`
wrote and whose `omniglot-validation.json` is the metrics.json of `train --preset omniglot-validation --data DIR`;
`docs/ranks.json` and `docs/real_size.json`, which `docs/measure_ranks.py` and `docs/measure_real_size.py` write.

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
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CHECKPOINT = ROOT / "tinyflamingo" / "assets" / "toy"
MEASURED = ROOT / "docs" / "measured.json"
BENCH = ROOT / "docs" / "bench.json"
RANKS = ROOT / "docs" / "ranks.json"
REAL_SIZE = ROOT / "docs" / "real_size.json"
RESULTS = ROOT / "docs" / "results"
OMNIGLOT = RESULTS / "omniglot-validation.json"
DOCUMENTS = [ROOT / "docs" / name for name in ("performance.md", "sizes.md", "omniglot.md", "scaling.md")]
FILES = (ROOT / "README.md", *DOCUMENTS, CHECKPOINT / "MODEL_CARD.md")
REGION = re.compile(r"(<!-- generated: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)

# What each task of `evaluation/tasks.py` asks, and how often the best guess without looking is right.
TASKS = {
    "zero_shot_classification": ("stage one alone: the nearest of 96 captions names the thing", "1/84"),
    "caption": ("caption of a single thing, word for word", "1/84"),
    "caption_relation": ("caption of two things and how they stand, word for word", "1/28224"),
    "caption_heldout": ("caption of a shape and colour that never stood together in training", "1/12"),
    "vqa": ("colour, shape, number, size and place in turn", "1/6"),
    "video_action": ("what happens in a video of eight frames", "1/8"),
    "dialogue": ("third answer of a dialogue; the first two answers are the model's own", "1/3"),
    "knowledge": ("a fact known from text, asked of a picture, as in training", "1/12"),
    "knowledge_heldout": ("a fact never asked of a picture in training; the model names the thing first", "1/12"),
    "knowledge_direct": ("the same facts, asked without naming first", "1/12"),
    "few_shot_2way": ("two invented words, four pictures each; the words occur in training, in text only", "1/2"),
    "few_shot_new_words": ("the same with words that occur nowhere in training", "1/2"),
    "image_swap": ("one question, two pictures with different answers: both must be right", "0"),
}

STAGES = {
    "contrastive": "1: contrastive pretraining",
    "language": "2: language pretraining",
    "flamingo": "3: Flamingo training",
    "evaluation": "evaluation",
}

# The examples of the README whose answers are shown; each is run to fill the region.
EXAMPLES = (
    ("<image>Output:", "docs/examples/red_circle.png"),
    ("<image>Question: what shape is it? Answer:", "docs/examples/blue_star.png"),
    ("<video>Question: what happens? Answer:", "docs/examples/moves_left.mp4"),
    ("<image>lofa.<image>dimu.<image>", *(f"docs/examples/{n}.png" for n in ("red_circle", "blue_star", "red_house"))),
)

# The commands whose time the README tells; `--measure` runs them.
TIMED = {
    "tests": "-m pytest",
    "demo": "-m tinyflamingo demo --out docs/figures/demo.png",
    "doctor": "-m tinyflamingo doctor",
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a region is stale")
    parser.add_argument("--measure", action="store_true", help="time the commands first")
    args = parser.parse_args(argv)
    if not (CHECKPOINT / "model.json").exists():
        print("make_tables: the checkpoint that ships is not there: train one first", file=sys.stderr)
        return 2
    if args.measure:
        MEASURED.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    stale = [path for path in FILES if refresh(path, write=not args.check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'stale' if args.check else 'rewritten'}")
    return 1 if args.check and stale else 0


def refresh(path, write) -> bool:
    """Fill the regions of one file; True if it was stale."""
    before = path.read_text(encoding="utf-8")
    after = fill(before)
    if write and after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def fill(text) -> str:
    """The text with every region made anew. A region within a line stays within it."""

    def made(match):
        opening, name, old, end = match.groups()
        body = REGIONS[name]()
        return f"{opening}\n\n{body}\n\n{end}" if "\n" in old else f"{opening}{body}{end}"

    return REGION.sub(made, text)


# ---- the regions -----------------------------------------------------------------------------


def card() -> dict:
    return json.loads((CHECKPOINT / "model.json").read_text(encoding="utf-8"))


def measured() -> dict:
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def table(header, rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def scores() -> str:
    rows = []
    for name, row in card()["metrics"]["tasks"].items():
        asked, blind = TASKS[name]
        low, high = row["ci95"]
        rows.append([f"`{name}`", asked, f"{row['score']:.3f}", f"{low:.3f}–{high:.3f}", row["n"], blind])
    return table(["task", "what is asked", "exact match", "95% interval", "n", "blind guess"], rows)


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
    return f"{sum(card()['stages'].values()) / 60:.0f}"


def times() -> str:
    """What the README's commands take: `train` by the checkpoint's own record, the rest as measured."""
    info, found = card(), measured()
    rows = [["`python -m tinyflamingo train`", info.get("cores", "–"), duration(sum(info["stages"].values()))]]
    rows += [[f"&nbsp;&nbsp;{STAGES.get(n, n)}", "", duration(s)] for n, s in info["stages"].items()]
    rows += [[f"`python {TIMED[n]}`", found["cores"], duration(s)] for n, s in found.get("seconds", {}).items()]
    return table(["command", "cores", "takes"], rows)


def duration(seconds) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def memory() -> str:
    return f"{card()['peak_memory_mb'] / 1000:.1f} GB"


def headline() -> str:
    """What the suite of sixteen tasks comes to, over all its seeds."""
    from tinyflamingo.studies import report_read, report_text

    return report_text.headline(report_read.read_runs([RESULTS]).suites)


def omniglot() -> str:
    """The error of the preset that holds two alphabets out."""
    report = json.loads(OMNIGLOT.read_text(encoding="utf-8"))
    row = report["tasks"]["omniglot"]
    low, high = row["ci95"]
    runs = list(row["runs"].values())
    return (
        f"{row['score']:.3f} ({low:.3f} to {high:.3f}) of {row['n']} drawings in {len(runs)} runs; the best run had "
        f"{min(runs):.2f}, the worst {max(runs):.2f}; {duration(report['seconds'])} in all"
    )


def facts() -> str:
    """Where the checkpoint comes from."""
    info = card()
    stages = ", ".join(f"{STAGES.get(n, n)}: {duration(s)}" for n, s in info["stages"].items())
    rows = [
        ["command", f"`{info.get('command') or command(info)}`"],
        ["seed", info["seed"]],
        ["versions", ", ".join(f"{n} {v}" for n, v in info["versions"].items())],
        ["machine", f"{info['cores']} cores" if "cores" in info else "a laptop's processor, no GPU"],
        ["time", f"{stages}; together {duration(sum(info['stages'].values()))}"],
        ["peak memory", memory()],
        ["sha256 of `weights.npz`", f"`{info['sha256']}`"],
    ]
    return table(["what", "value"], rows)


def command(info) -> str:
    preset = "" if info["preset"] == "toy" else f" --preset {info['preset']}"
    seed = f" --seed {info['seed']}" if info["seed"] else ""
    return f"python -m tinyflamingo train{preset}{seed}"


def answers() -> str:
    """The example commands, each with what the shipped checkpoint answers."""
    import tinyflamingo
    from tinyflamingo.data.prompt import read_prompt

    model, lines = tinyflamingo.load(CHECKPOINT), []
    for template, *files in EXAMPLES:
        items = read_prompt(template, [ROOT / f for f in files], model.config.vision.side)
        lines.append(f"$ python -m tinyflamingo complete {shlex.quote(template)} {' '.join(files)}")
        lines.append(tinyflamingo.complete(model, items)["text"])
    return "\n".join(["```console", *lines, "```"])


def race() -> str:
    """The benchmark, a row a line: ratios on one thread and on two."""
    from tinyflamingo.bench.lines import LINES

    found, rows = json.loads(BENCH.read_text(encoding="utf-8"))["lines"], []
    for name, line in LINES.items():
        one, two = found[name], found.get(f"{name}@2")
        cells = [f"`{name}`", line.what, f"{one['ours_ms']:.1f}", _other(one), _ratio(one)]
        rows.append([*cells, f"{two['ours_ms']:.1f}", _other(two), _ratio(two)] if two else [*cells, "–", "–", "–"])
    header = ["line", "what", "ms, 1 thread", "other", "ratio", "ms, 2 threads", "other", "ratio"]
    return table(header, rows)


def _other(row) -> str:
    value = row["torch_ms"] or row.get("other_ms")
    return f"{value:.1f}" if value else "–"


def _ratio(row) -> str:
    return f"{row['ratio']:.2f}" if row["ratio"] else "–"


def speed() -> str:
    """The race in one sentence."""
    found = json.loads(BENCH.read_text(encoding="utf-8"))["lines"]
    steps = [found[f"{stage}_step"]["ratio"] for stage in ("contrastive", "language", "flamingo")]
    each = ", ".join(f"{ratio:.2f}" for ratio in steps[:-1]) + f" and {steps[-1]:.2f}"
    return (
        f"on one thread PyTorch takes {each} times as long for a training step of the three stages, "
        f"{found['decode']['ratio']:.1f} times as long for a decoded token"
    )


def machine() -> str:
    """What the benchmark ran on."""
    found = json.loads(BENCH.read_text(encoding="utf-8"))["machine"]
    versions = ", ".join(
        f"{n} {v}" for n, v in found["versions"].items() if n in ("numpy", "autograd", "numba", "torch")
    )
    return f"Measured on {found['cores']} cores ({found['processor']}), {versions}, {'; '.join(found['blas'])}."


def paper_parts() -> str:
    """The parts of the paper's three models in millions, beside what its table 5 prints."""
    from tinyflamingo.bench.sizes import counts

    names = [f"flamingo-{size}{reading}" for size in ("3b", "9b", "80b") for reading in ("", "-printed")]
    found, rows = {name: counts(name) for name in names}, []
    for part in ("vision encoder", "language model", "resampler", "gated blocks", "total"):
        cells = [f"{found[name][part]['parameters'] / 1e6:,.0f}" for name in names]
        printed = [found[name][part]["printed"] for name in names[::2]]
        rows.append([part, *(cell for i in range(3) for cell in (printed[i], *cells[2 * i : 2 * i + 2]))])
    header = ["millions", *(cell for i in range(0, 6, 2) for cell in ("paper", f"`{names[i]}`", "`-printed`"))]
    return table(header, rows)


def other_counts() -> str:
    """The encoders and the largest language models, each beside what its paper prints."""
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
    return f"All {len(off)} rows fit: none is off by more than {max(off):.2f} million; the table prints whole ones."


def paper_costs() -> str:
    """What a page costs, at the rate that `--measure` found: a row a matter, a column a model."""
    from tinyflamingo.bench.sizes import duration, sizes, units

    columns = {}
    for name in ("toy", "flamingo-3b", "flamingo-9b", "flamingo-80b"):
        c = sizes(name, measured()["gflops"] * 1e9)["costs"]
        columns[f"`{name}`"] = {
            **{f"forward, {part}": units(row["flops"], "flop") for part, row in c["forward"].items()},
            "forward, all": units(c["forward_flops"], "flop"),
            "read and written by it": units(c["forward_bytes"], "B"),
            "time of it": duration(c["forward_seconds"]),
            "training step": units(c["step_flops"], "flop"),
            "time of it ": duration(c["step_seconds"]),
            "training": units(c["training_flops"], "flop"),
            "time of it  ": duration(c["training_seconds"]),
            "weights": units(c["weight_bytes"], "B"),
            "training holds": units(c["training_bytes"], "B"),
            "were nothing frozen": units(c["training_bytes_unfrozen"], "B"),
        }
    matters = next(iter(columns.values()))
    return table(["", *columns], [[matter, *(c[matter] for c in columns.values())] for matter in matters])


def rate() -> str:
    return f"{measured()['gflops']:.0f} GFLOP/s"


def ranks() -> str:
    """A training step in one process and in two."""
    found, rows = json.loads(RANKS.read_text(encoding="utf-8")), []
    for stage, one in found["1"].items():
        two = found["2"][stage]
        name = f"{stage}, {one['parameters'] / 1e6:.2f} million parameters"
        rows.append([name, *(f"{1000 * row['wall']:.0f} ms" for row in (one, two))])
        rows[-1] += [f"{one['wall'] / two['wall']:.2f}", f"{1000 * two['sum']:.1f} ms"]
    return table(["stage", "1 rank", "2 ranks", "ratio", "one sum of the gradient"], rows)


REAL_RUNS = {  # what was measured: its name in `docs/real_size.json`
    "`convert --from open_flamingo`": "convert",
    "`complete`, a picture and 2 tokens, from the disk": "disk, 2 tokens",
    "`complete`, a picture and 2 tokens, from memory": "memory, 2 tokens",
    "`complete`, a picture and 34 tokens, from memory": "memory, 34 tokens",
}


def real_size() -> str:
    """A checkpoint of OpenFlamingo-3B's size: converted, and completing."""
    found, rows = json.loads(REAL_SIZE.read_text(encoding="utf-8")), []
    for what, name in REAL_RUNS.items():
        row = found[name]
        rows.append([what, f"{row['seconds']:.1f}", f"{row['own_gib']:.2f} GiB", f"{row['file_gib']:.1f} GiB"])
    token = (found["memory, 34 tokens"]["seconds"] - found["memory, 2 tokens"]["seconds"]) / (34 - 2)
    rows.append(["a token more", f"{token:.2f}", "", ""])
    return table(["what", "seconds", "own memory, peak", "pages of the mapped file, peak"], rows)


REGIONS = {
    f.__name__: f
    for f in (
        *(scores, perplexity, parameters, minutes, times, memory, facts, answers, race, speed, machine),
        *(paper_parts, other_counts, table_a9, paper_costs, rate, omniglot, headline, ranks, real_size),
    )
}


# ---- measuring -------------------------------------------------------------------------------


def measure() -> dict:
    """Seconds of each timed command on this machine, and its rate of matrix products."""
    from tinyflamingo.bench.flops import gemm_rate

    seconds, gflops = {}, round(gemm_rate(), 1)
    for name, arguments in TIMED.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments.split()], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds[name] = round(time.perf_counter() - began, 1)
    return {"cores": os.cpu_count(), "gflops": gflops, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
