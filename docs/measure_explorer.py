"""Measures how far the explorer's flamingo.js is from the package, in Node, over the prompts of its tests.

    python docs/measure_explorer.py [docs/explorer.json]

Prints the largest differences for both types of the packed matrices and writes them to the file, from which
`docs/make_tables.py` makes the table in explorer.md. Needs Node on the path.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "explorer")]

from truth_files import CLOSE, PROMPTS, all_prompts, ask_node, differences  # noqa: E402

from tinyflamingo.explorer import build  # noqa: E402


def measure(node: str, folder: Path, dtype: str) -> dict:
    """The number of equal texts, and the largest differences of logits and of attention weights."""
    packed = folder / f"{dtype}.json"
    packed.write_text(json.dumps(build.pack(None, dtype)), encoding="utf-8")
    answers = ask_node(node, folder, packed, all_prompts())["prompts"]
    rows = [differences(answer, *prompt) for answer, prompt in zip(answers, PROMPTS, strict=True)]
    same, logits, attention = zip(*rows, strict=True)
    return {"same": sum(same), "logits": float(max(logits)), "attention": float(max(attention))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    file = parser.parse_args().file
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        sys.exit("measure_explorer: Node is not on the path: install it (Debian: apt-get install nodejs)")
    with tempfile.TemporaryDirectory() as folder:
        report = {"prompts": len(PROMPTS), "node": {dtype: measure(node, Path(folder), dtype) for dtype in CLOSE}}
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    if file:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
