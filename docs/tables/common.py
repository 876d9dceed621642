"""What all modules of tables need: the paths of the sources, a Markdown table, units.

Not here: any region.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "tinyflamingo" / "assets" / "toy"
RESULTS = ROOT / "docs" / "results"
STAGES = {
    "contrastive": "1: contrastive pretraining",
    "language": "2: language pretraining",
    "flamingo": "3: Flamingo training",
    "evaluation": "evaluation",
}
NOT_RUN = "not run"


def read(path: Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def file_name(processor: str) -> str:
    """The name of a CPU as that of a file: "Intel(R) Xeon(R) CPU @ 2.10GHz" gives "intel-xeon-cpu.json"."""
    plain = re.sub(r"\((R|TM)\)|@ *[\d.]+ *GHz", " ", processor, flags=re.IGNORECASE)
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower())) + ".json"


def card() -> dict:
    """The description of the shipped checkpoint."""
    return read(CHECKPOINT / "model.json")


def table(header: list, rows: list) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def duration(seconds: float) -> str:
    """Seconds or minutes, whichever is easier to read."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def gigabytes(*runs: dict) -> str:
    """The largest peak memory of some runs."""
    return f"{max(run['peak_memory_mb'] for run in runs) / 1000:.1f} GB"
