"""Runs the example of docs/own_data.md, all its commands in order, and writes their outputs to docs/own_data.json.

    python docs/measure_own_data.py FOLDER

FOLDER gets the pictures, the runs, and the outputs so far: if this program was stopped, it goes on where it was. The
page trains on 200 pictures; the same is done with 2,000 for the table of what to expect. `docs/make_tables.py` copies
the outputs into own_data.md from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, REPORT = ROOT / "docs" / "own_data.md", ROOT / "docs" / "own_data.json"
RUN, LARGE = Path("runs", "flags"), Path("runs", "flags2000")  # the run's folder in the example; that of 2,000
MORE = (
    "python docs/make_flags.py flags2000 --count 2000 --seed 2",
    "python -m tinyflamingo train --from toy --data flags2000 --test new_flags --out runs/flags2000",
)


def commands() -> list[str]:
    """The lines of the page's bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


def run(line: str, folder: Path, more: tuple = ()) -> str:
    """What a command of the page prints if it runs in a folder. more: further arguments."""
    program, *words = shlex.split(line)
    words = [str(ROOT / word) if word.startswith("docs/") else word for word in words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words, *more], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def size(folder: Path) -> dict:
    """What a run on so many pictures gave: steps, seconds, scores on own data, and TinyWorld's captions."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    steps = 1 + json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    tinyworld = {name: row["score"] for name, row in metrics["tasks"].items()}
    return {"steps": steps, "seconds": metrics["stages"]["flamingo"], "own": metrics["own"], "tinyworld": tinyworld}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "outputs.json"
    outputs = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    for line in (*commands(), *MORE):
        out = folder / (LARGE if "2000" in line else RUN)
        if line not in outputs:
            outputs[line] = run(line, folder, ("--resume",) if " train " in line and out.exists() else ())
            done.write_text(json.dumps(outputs), encoding="utf-8")
    (features,) = (folder / RUN / "data").glob("features-*")
    pictures = len(list((folder / "flags").glob("flag_*")))
    report = {
        "cores": os.cpu_count(),
        "feature_bytes": features.stat().st_size // pictures,
        "outputs": {line: outputs[line] for line in commands()},
        "sizes": {str(n): size(folder / path) for n, path in ((200, RUN), (2000, LARGE)) if (folder / path).exists()},
    }
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
