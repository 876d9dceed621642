"""Runs the example of docs/own_data.md, all its commands in order, and writes their outputs to docs/own_data.json.

    python docs/measure_own_data.py FOLDER

FOLDER gets the pictures and the run. If it holds a run that was stopped, the training continues. It takes about as long
as the training of the preset `toy`. `docs/make_tables.py` copies the outputs into own_data.md from that file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, REPORT = ROOT / "docs" / "own_data.md", ROOT / "docs" / "own_data.json"
RUN = Path("runs", "flags")  # the run's folder in the example


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


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    resume = ("--resume",) if (folder / RUN).exists() else ()
    outputs = {line: run(line, folder, resume if " train " in line else ()) for line in commands()}
    (features,) = (folder / RUN / "data").glob("features-*")
    pictures = len(list((folder / "flags").glob("flag_*")))
    report = {"cores": os.cpu_count(), "feature_bytes": features.stat().st_size // pictures, "outputs": outputs}
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
