"""Files that are never half-written, and folders that have one writer at a time."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.files import one_after_another, parse_json, replacing, sole_writer, write_atomically


def test_write_atomically_replaces(tmp_path):
    path = tmp_path / "file"
    for data in (b"old", b"new and longer", b""):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(UserError, match="cannot write .*No space left on device.*untouched"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_crash_during_the_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Killed before the rename: the old file is complete."""
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_no_place_to_write_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "nowhere" / "file", b"data")


def test_an_error_during_the_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_ctrl_c_leaves_only_the_old_file(tmp_path, ending):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ending), replacing(path) as file:
        file.write(b"half")
        raise ending
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444])
def test_a_replaced_file_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    with replacing(path) as file:
        (temporary,) = tmp_path.glob(".*")
        assert temporary.stat().st_mode & 0o777 == mode
        file.write(b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == mode


@pytest.mark.posix
def test_nobody_can_guess_the_name_of_the_temporary_file(tmp_path):
    """In a folder that others can write to, a link of that name would lead the writer to another file."""
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(tmp_path / "victim")
    names = []
    for _ in range(2):
        with replacing(tmp_path / "file"):
            names += [p.name for p in tmp_path.glob(".file.*.tmp") if not p.is_symlink()]
    assert len(set(names)) == 2 and not (tmp_path / "victim").exists()


@pytest.mark.posix
def test_the_lock_of_a_file_follows_no_link(tmp_path):
    (tmp_path / ".file.lock").symlink_to(tmp_path / "victim")
    with one_after_another(tmp_path / "file"):
        assert not (tmp_path / "victim").exists()


# ---------------------------------------------------------------- one writer

HOLD = """
import sys, time
from tinyflamingo.files import sole_writer
with sole_writer(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


def holder(folder):
    """Another process that has the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    return process


@pytest.mark.posix
def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(UserError, match="another process is writing to"), sole_writer(tmp_path):
            pytest.fail("two writers")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with sole_writer(tmp_path):  # the killed process has left no lock
        assert os.listdir(tmp_path) == []


def test_one_process_can_lock_again(tmp_path):
    for _ in range(2):
        with sole_writer(tmp_path):
            pass


COUNT = """
import sys, time
from pathlib import Path
from tinyflamingo.files import one_after_another, write_atomically
path = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with one_after_another(path):
        n = int(path.read_bytes())
        time.sleep(float(sys.argv[3]))
        write_atomically(path, str(n + 1).encode())
"""


def counter(path, times, pause):
    return subprocess.Popen([sys.executable, "-c", COUNT, str(path), str(times), str(pause)], stderr=subprocess.PIPE)


def test_writers_of_one_file_work_one_after_another(tmp_path):
    path = tmp_path / "count"
    path.write_bytes(b"0")
    processes = [counter(path, 30, 0.003) for _ in range(3)]
    said = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0] and path.read_bytes() == b"90"
    assert all("this one waits until it ends" in line for text in said for line in text.splitlines())
    assert os.listdir(tmp_path) == ["count"]


def test_a_killed_writer_leaves_no_lock(tmp_path):
    path = tmp_path / "count"
    path.write_bytes(b"0")
    process = counter(path, 1, 60)
    while not (tmp_path / ".count.lock").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert counter(path, 1, 0).wait(60) == 0 and path.read_bytes() == b"1" and os.listdir(tmp_path) == ["count"]


@pytest.mark.posix
def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "far" / "real.json"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new" and os.listdir(tmp_path / "far") == ["real.json"]


@pytest.mark.posix
def test_a_pipe_stays_a_pipe(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)  # a failure must not hang
    reader.start()
    write_atomically(pipe, b"through")
    reader.join(10)
    assert read == [b"through"] and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[" * 200_000, "its values are nested too deeply"),
        ("9" * 5000, "it has a number with too many digits"),
        ("{", "Expecting property name"),
        (b"\xff{}", "can't decode"),
    ],
)
def test_what_is_wrong_with_a_json_text_is_said(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)
