"""All commands in the example of docs/own_data.md, with fewer pictures and the smallest preset."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")


def commands():
    return [line for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines()]


def run(line, folder):
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_runs_from_folder_to_completion(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("figures"))
    (tmp_path / "tinyflamingo").symlink_to(ROOT / "tinyflamingo")
    smaller = {"make_flags.py": ["--count", "40"], "train": ["--preset", "smoke"], "check": []}
    outputs = []
    for line in commands():
        program, *words = shlex.split(line)
        assert program == "python"
        more = next((extra for name, extra in smaller.items() if any(name in word for word in words)), [])
        outputs.append(run([sys.executable, *words, *more], tmp_path))
    assert len(outputs) == 4 and "records: 40 good; 0 bad" in outputs[1] and (tmp_path / "flags.png").exists()
    assert "perplexity of 2 held-out records" in outputs[2] and outputs[3].endswith("\n")


def test_the_page_lists_all_formats_and_flags():
    from tinyflamingo.data.readers import FORMATS

    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) == set(FORMATS)
    for flag in ("--mix", "--side", "--vocab", "--context", "--format", "--allow-bad", "--resume", "--sheet"):
        assert flag in TEXT
