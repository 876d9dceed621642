"""The page's offline install, line by line, in folders with spaces and Chinese letters, without a network.

The real wheels are nearly 200 MB. If the variable TINYFLAMINGO_WHEELS names a folder that has them, they are installed;
otherwise one small wheel, made here, stands for them: it lends the packages of the Python that runs this test.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = os.environ.get("TINYFLAMINGO_WHEELS")
PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE.partition("### Without a network")[2], re.DOTALL | re.MULTILINE)[:3]

posix = pytest.mark.skipif(os.name == "nt", reason="the lines for Linux and macOS")


def make_wheel(folder):
    """A wheel without files of its own; its .pth file names the folder of the installed packages."""
    folder.mkdir()
    info = "lent-1.0.dist-info"
    files = {
        "lent.pth": sysconfig.get_path("purelib") + "\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: lent\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "lent-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return folder


def follow(lines, folder, index):
    """What the lines print, each of which must succeed; Jupyter tells its version and does not start."""
    lines = lines.replace("python -m jupyterlab", "python -m jupyterlab --version")
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    python = Path(sys.base_prefix) / "bin"  # `python3` is the one that runs this test
    env = kept | {"PATH": f"{python}:{kept['PATH']}", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env |= {"PIP_FIND_LINKS": index.as_uri(), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines], cwd=folder, env=env, capture_output=True, timeout=500
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout.decode()


def project(folder):
    """What the lines need of the project."""
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "tinyflamingo", folder / "tinyflamingo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("src", "solutions"))
    if WHEELS:
        shutil.copy(ROOT / "requirements.txt", folder)
    else:
        (folder / "requirements.txt").write_text("lent>=1\n", encoding="utf-8")
    return folder


@posix
@pytest.mark.slow
def test_the_page_is_followed_by_a_teacher_and_a_student(tmp_path):
    """The student's folder is a copy of the teacher's, `.venv` and all, and the teacher's is gone."""
    index = Path(WHEELS) if WHEELS else make_wheel(tmp_path / "index")
    teacher = project(tmp_path / "the teacher" / "flamingo 教师")
    follow(BLOCKS[0], teacher, index)
    assert list((teacher / "wheels").glob("*.whl"))
    student = tmp_path / "教室 1" / "a student's flamingo"
    shutil.copytree(teacher, student, symlinks=True)
    shutil.rmtree(teacher)
    said = follow(BLOCKS[1], student, tmp_path / "nothing")
    assert "everything works" in said and re.search(r"^\d+\.\d+\.\d+", said.splitlines()[-1])


def test_windows_has_the_same_steps():
    here, windows = (block.splitlines() for block in BLOCKS[1:3])
    assert windows[0] == here[0].replace("python3", "py -3")
    assert windows[1] == here[1].removeprefix(". ").replace("bin/", "Scripts/").replace("/", "\\")
    assert windows[2:] == here[2:]


def test_the_size_of_the_wheels_is_told():
    assert re.search(r"`wheels` has about \d+ files\s+\(\d+ MB\)", PAGE)
    assert "without `.venv`" in " ".join(PAGE.split())
