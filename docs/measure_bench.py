"""Runs the whole benchmark, and writes its results into the file of this machine in docs/bench/, named by its CPU.

    python docs/measure_bench.py

It needs PyTorch, and JAX for the lines that compare with it. It takes about an hour; nothing else should run beside it.
It also draws docs/figures/scaling.png. `docs/make_tables.py` makes the tables from all files.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURE = "docs/figures/scaling.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "tinyflamingo", "bench", "--json", str(report), "--figure", FIGURE]
        subprocess.run(command, cwd=ROOT, check=True)
        text = report.read_text(encoding="utf-8")
    path = ROOT / "docs" / "bench" / file_name(json.loads(text)["machine"]["processor"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)} is written; now run python docs/make_tables.py")


def file_name(processor: str) -> str:
    """The name of a CPU as that of a file: "Intel(R) Xeon(R) CPU @ 2.10GHz" gives "intel-xeon-cpu.json"."""
    plain = re.sub(r"\((R|TM)\)|@ *[\d.]+ *GHz", " ", processor, flags=re.IGNORECASE)
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower())) + ".json"


if __name__ == "__main__":
    main()
