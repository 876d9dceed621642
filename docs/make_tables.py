"""Fills the generated regions of the README, the model card and the documents: no number is typed by hand.

    python docs/make_tables.py             rewrite the regions that are stale
    python docs/make_tables.py --check     change nothing; exit code 1 if a region is stale
    python docs/make_tables.py --measure   first measure the time of the main commands (trains, runs all tests)

A region begins with `<!-- generated: NAME -->` and ends with `<!-- end -->`; NAME is a key of `REGIONS`. The sources:

    model.json of the shipped checkpoint
    the presets                     parameter counts
    the example commands            each is run
    docs/follow.py                  the tables of architecture.md
    docs/measured/*.json            one file for each machine, written by `--measure`
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
    docs/results/seed_N.json        metrics.json of `train --seed N`

Not here: the regions (`docs/tables/`), figures (`python -m tinyflamingo demo`), the example files
(`docs/make_examples.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from tables import model, own_data, pages, sizes, speed  # noqa: E402
from tables.common import CHECKPOINT, ROOT, file_name, read  # noqa: E402

GENERATED = "architecture commands emoji explorer omniglot own_data performance scaling scores sizes teaching"
DOCUMENTS = [ROOT / "docs" / f"{name}.md" for name in GENERATED.split()]
FILES = (ROOT / "README.md", *DOCUMENTS, CHECKPOINT / "MODEL_CARD.md")
REGION = re.compile(r"(<!-- generated: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)
REGIONS = {f.__name__: f for kind in (model, speed, sizes, own_data, pages) for f in kind.REGIONS}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a region is stale")
    parser.add_argument("--measure", action="store_true", help="measure the time of the commands first")
    args = parser.parse_args(argv)
    if not (CHECKPOINT / "model.json").exists():
        print("make_tables: the shipped checkpoint is missing; train one first", file=sys.stderr)
        return 2
    if args.measure:
        speed.MEASURED.mkdir(exist_ok=True)
        report = measure()
        path = speed.MEASURED / file_name(report["processor"])
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
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


def measure() -> dict:
    """Seconds of each timed command on this machine, and the machine's rate of matrix products."""
    from tinyflamingo.bench.flops import gemm_rate
    from tinyflamingo.bench.run import processor

    seconds, gflops = {}, round(gemm_rate(), 1)
    for name, arguments in speed.TIMED.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments.split()], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds[name] = round(time.perf_counter() - began, 1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "tinyflamingo", "train", "--out", f"{folder}/run"], cwd=ROOT, check=True)
        metrics = read(Path(folder, "run", "metrics.json"))
    train = {name: metrics[name] for name in ("stages", "peak_memory_mb")}
    return {"processor": processor(), "cores": os.cpu_count(), "gflops": gflops, "train": train, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
