"""macOS and Windows, as far as Linux can show them: the commands run without what those systems lack."""

import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from own_files import WRITERS

from tinyflamingo import cli, files, system
from tinyflamingo.errors import UserError

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "docs" / "examples"
COMMANDS = {
    "doctor": ("doctor",),
    "complete": ("complete", "<image>Output:", EXAMPLES / "red_circle.png"),
    "complete a video": ("complete", "<video>Output:", EXAMPLES / "moves_left.mp4", "--json"),
    "data check": ("data", "check", "@data", "--sheet", "@sheet.png"),
    "train": ("train", "--preset", "smoke", "--out", "@run"),
    "train on own data": ("train", "--preset", "smoke", "--out", "@run", "--data", "@data", "--mix", "0.5"),
    "evaluate": ("evaluate", "--queries", "1", "--task", "caption", "--json", "@scores.json"),
    "class pack": ("class", "pack", "@students.zip"),
    "demo": ("demo", "--out", "@demo.png"),
    "params": ("params", "toy", "--json", "@params.json"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="takes away from Linux what others lack")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_what_windows_lacks(tmp_path, name):
    WRITERS["folder"](tmp_path / "data")
    line = [str(tmp_path / w[1:]) if str(w).startswith("@") else str(w) for w in COMMANDS[name]]
    env = {**os.environ, "TINYFLAMINGO_THREADS": "2", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, HERE / "other_system.py", *line], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    left = [path.name for path in tmp_path.rglob(".*")]
    assert left == []  # no lock and no temporary file
    if name == "doctor":
        assert "unknown (pip install psutil)" in done.stdout
    if name.startswith("train"):
        assert json.loads((tmp_path / "run/metrics.json").read_bytes())["peak_memory_mb"] is None


# ---- locks ---------------------------------------------------------------------------------------


def _like_windows(handle, mode, count):
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None


@pytest.fixture
def msvcrt(monkeypatch):
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=_like_windows))


@pytest.mark.posix
def test_one_writer_at_a_time_with_the_locks_of_windows(tmp_path, msvcrt):
    with files.sole_writer(tmp_path):
        with pytest.raises(UserError, match="another process is writing"), files.sole_writer(tmp_path):
            pass
    with files.sole_writer(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.posix
def test_one_after_another_with_the_locks_of_windows(tmp_path, msvcrt, capsys):
    order = []

    def second():
        with files.one_after_another(tmp_path / "a.json"):
            order.append(2)

    with files.one_after_another(tmp_path / "a.json"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append(1)
    thread.join(10)
    assert order == [1, 2] and os.listdir(tmp_path) == []


def test_a_system_without_locks_gives_none(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "msvcrt", None)
    with files.sole_writer(tmp_path), files.sole_writer(tmp_path), files.one_after_another(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_open_for_a_moment_is_replaced(tmp_path, monkeypatch):
    plain, calls = os.replace, []

    def busy(source, target):
        calls.append(target)
        if len(calls) < 3:
            raise PermissionError(13, "in use")
        plain(source, target)

    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(system, "PATIENCE", (5, 0))
    monkeypatch.setattr(os, "replace", busy)
    files.write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and len(calls) == 3


# ---- names ---------------------------------------------------------------------------------------

BAD = ["CON", "nul", "aux.txt", "COM1.json", "lpt9", "a:b", "what?.json", "a.", "a ", 'a"b', "nul .txt", "a\tb"]


@pytest.mark.parametrize("name", BAD)
def test_windows_has_names_that_are_no_files(tmp_path, monkeypatch, capsys, name):
    assert system.unwritable_part(tmp_path / name) is None or os.name == "nt"
    monkeypatch.setattr(system, "WINDOWS", True)
    for path in (tmp_path / name, tmp_path / name / "x.json"):
        assert cli.main(["params", "smoke", "--json", str(path)]) == 2
        assert "Windows does not take" in capsys.readouterr().err
    assert cli.main(["train", "--preset", "smoke", "--out", str(tmp_path / name)]) == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["console.json", ".a", "a.b.c", "com.json", "..", "圆.json", "nullable", "com10"])
def test_other_names_are_files(monkeypatch, name):
    monkeypatch.setattr(system, "WINDOWS", True)
    assert system.unwritable_part(Path("..") / name) is None


def test_windows_can_hold_all_files_of_the_repository(monkeypatch):
    monkeypatch.setattr(system, "WINDOWS", True)
    folders = ["tinyflamingo", "tests", "docs", "notebooks"]
    paths = [path.relative_to(HERE.parent) for folder in folders for path in (HERE.parent / folder).rglob("*")]
    assert [path for path in paths if system.unwritable_part(path)] == []
    assert len({str(path).casefold() for path in paths}) == len(paths)


def test_no_memory_figure_is_said(monkeypatch):
    for name in ("resource", "psutil"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert system.peak_memory_mb(2) is None and system.machine_memory_gb() is None
    assert "unknown" in system.number(None, "MB") and system.number(1234.5, "MB") == "1234 MB"


def test_memory_of_windows_comes_from_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(peak_wset=100 << 20))
    fake = types.SimpleNamespace(Process=lambda: process, virtual_memory=lambda: types.SimpleNamespace(total=4 << 30))
    monkeypatch.setitem(sys.modules, "psutil", fake)
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert system.peak_memory_mb(2) == 200.0 and system.machine_memory_gb() == 4.0
