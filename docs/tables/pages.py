"""Regions about the explorer, the classroom and the tables of a prompt and a step.

Not here: the pages themselves (`tinyflamingo/explorer/`, `tinyflamingo/classroom/`, `docs/follow.py`).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

from tables.common import NOT_RUN, ROOT, read, table

EXPLORER = ROOT / "docs" / "explorer.json"


def explorer_truth() -> str:
    """How far flamingo.js is from the package, over all prompts of its tests."""
    report = read(EXPLORER) if EXPLORER.exists() else {"node": {}}
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
    """The limit of `class grade` for an exercise, in seconds."""
    from tinyflamingo.classroom.grade import SECONDS

    return str(SECONDS)


def class_memory() -> str:
    """The limit of `class grade` for the memory."""
    from tinyflamingo.classroom.grade import MEGABYTES

    return f"{MEGABYTES / 1024:.0f} GB"


def quiz_questions() -> str:
    """The number of questions after the notebooks."""
    folder = ROOT / "tinyflamingo" / "classroom" / "quizzes"
    return str(sum(len(tomllib.loads(path.read_text(encoding="utf-8"))["question"]) for path in folder.glob("*.toml")))


def follow_prompt() -> str:
    """A prompt on its way through the code."""
    return _follow("prompt")


def follow_step() -> str:
    """A training step on its way through the code."""
    return _follow("step")


def _follow(name) -> str:
    """One table of `docs/follow.py`, with its title."""
    run = subprocess.run([sys.executable, "docs/follow.py", name], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"docs/follow.py {name} failed: {run.stderr}")
    return run.stdout.strip()


REGIONS = (
    *(explorer_truth, explorer_file, explorer_weights, explorer_cells, explorer_frames, explorer_link),
    *(class_seconds, class_memory, quiz_questions, follow_prompt, follow_step),
)
