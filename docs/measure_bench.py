"""Runs the benchmark, and writes its results into the file of this machine in docs/bench/, named by its CPU.

    python docs/measure_bench.py                                           everything, about half an hour
    python docs/measure_bench.py --only decode --only encode --threads 1   options of `bench`: measure some lines anew

It needs PyTorch, and JAX for the lines that compare with it; nothing else should run beside it. With `--figure
docs/figures/scaling.png` it also draws that figure. `docs/make_tables.py` makes the tables from all files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tables.common import ROOT, file_name  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "tinyflamingo", "bench", "--json", str(file), *sys.argv[1:]]
        subprocess.run(command, cwd=ROOT, check=True)
        if not file.exists():  # --help measures nothing
            return
        report = json.loads(file.read_text(encoding="utf-8"))
    path = ROOT / "docs" / "bench" / file_name(report["machine"]["processor"])
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"lines": {}}
    report = kept | report | {"lines": kept["lines"] | report["lines"]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)} is written; now run python docs/make_tables.py")


if __name__ == "__main__":
    main()
