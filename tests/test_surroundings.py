"""What the machine or a file from others may do: one clear line, or the work goes on."""

import builtins
import errno
import io
import json
import os
import stat
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tinyflamingo import cli, ops
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.ops.tree import from_named_leaves
from tinyflamingo.studies.report import report
from tinyflamingo.training import ranks
from tinyflamingo.variants.byte_bpe import BYTES, find_vocabulary

ROOT = Path(cli.__file__).parents[2]


def test_a_file_system_without_fsync_of_folders(tmp_path, monkeypatch):
    whole = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("value", ["", " ", "x", "0", "1", "-2", "1.5", "9" * 50])
def test_a_number_of_ranks_that_is_none_is_one_rank(monkeypatch, value):
    monkeypatch.setenv("PMI_SIZE", value)
    ranks._group_of_the_environment.cache_clear()
    assert ranks._group_of_the_environment().size == 1
    ranks._group_of_the_environment.cache_clear()


COMPILE = """
import numpy as np
from tinyflamingo.ops import kernels_numba
from tinyflamingo.ops.jit import kernel

@kernel(set())
def double(x):
    return 2 * x

print(double(21.0))
"""


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [b"", None, bytes(100)])
def test_a_cut_file_of_the_cache_is_made_again(tmp_path, ending, left):
    pytest.importorskip("numba")
    script, cache = tmp_path / "script.py", tmp_path / "cache"
    script.write_text(COMPILE)

    def run():
        env = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)

    assert run().stdout == "42.0\n"
    (file,) = cache.rglob(f"*double*.{ending}")
    file.write_bytes(file.read_bytes()[:40] if left is None else left)
    assert run().stdout == "42.0\n"
    assert len(file.read_bytes()) > 100


@pytest.mark.parametrize("seed", [float("nan"), 10**400, True, "1"])
@pytest.mark.parametrize("score", [float("nan"), float("inf"), 10**400])
def test_odd_numbers_of_a_report(tmp_path, seed, score):
    cell = {"score": score, "ci95": [0.1]}
    task = {"paper": "COCO", "dev": True, "metric": "accuracy", "shots": {"0": cell}}
    suite = {"format": "tinyflamingo-suite/1", "seed": seed, "tasks": {"a": task}}
    (tmp_path / "a.json").write_text(json.dumps(suite))
    with pytest.raises(UserError, match="make .* again"):
        report([tmp_path / "a.json"], tmp_path / "out.md", quick=True)


def test_an_interval_of_one_number(tmp_path):
    cell = {"score": 0.5, "ci95": [0.1]}
    task = {"paper": "COCO", "dev": True, "metric": "accuracy", "shots": {"0": cell}}
    suite = {"format": "tinyflamingo-suite/1", "seed": 1, "tasks": {"a": task}}
    (tmp_path / "a.json").write_text(json.dumps(suite))
    with pytest.raises(UserError, match="make it again"):
        report([tmp_path / "a.json"], tmp_path / "out.md", quick=True)


ODD = {
    "added tokens are texts": {"added_tokens": ["a"]},
    "an added token has no id": {"added_tokens": [{"content": "a"}]},
    "an id is a text": {"added_tokens": [{"content": "a", "id": "5"}]},
    "the normalizer is a text": {"normalizer": "NFC"},
    "the template is a number": {"post_processor": {"single": 3}},
    "the post-processor is a list": {"post_processor": [1]},
    "the file is a list": None,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_of_a_tokenizer(name):
    words = {letter: i for i, letter in enumerate(BYTES)} | {"</s>": 256}
    whole = {"model": {"type": "BPE", "vocab": words, "merges": []}, "pre_tokenizer": {"type": "ByteLevel"}}
    assert find_vocabulary(json.dumps(whole).encode(), 300).eos == 256
    changed = [whole] if ODD[name] is None else whole | ODD[name]
    with pytest.raises(UserError, match="tokenizer.json"):
        find_vocabulary(json.dumps(changed).encode(), 300)


def test_names_of_arrays_that_are_nested_too_deep():
    with pytest.raises(ValueError, match="more than 100 parts"):
        from_named_leaves({"/".join("a" * 5000): np.zeros(1)})


GROUPS = {  # files of a control group: cores that it allows
    "version 2": ({"/sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
    "version 2, two and a half cores": ({"/sys/fs/cgroup/cpu.max": "250000 100000"}, 2),
    "version 2, a tenth of a core": ({"/sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
    "version 2, no limit": ({"/sys/fs/cgroup/cpu.max": "max 100000"}, 16),
    "version 2, a group around it": (
        {"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/b/cpu.max": "max 100000", "/sys/fs/cgroup/a/cpu.max": "3 1"},
        3,
    ),
    "version 1": (
        {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1, its own group": (
        {
            "/proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x",
            "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000",
            "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "50000",
        },
        4,
    ),
    "version 1, no limit": (
        {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        16,
    ),
    "a broken file": ({"/sys/fs/cgroup/cpu.max": "no number"}, 16),
    "no file": ({}, 16),
}


@pytest.mark.posix
@pytest.mark.parametrize("name", GROUPS)
def test_workers_are_no_more_than_the_container_may_use(monkeypatch, name):
    files, expected = GROUPS[name]
    whole = builtins.open

    def read(path, *arguments, **more):
        if str(path).startswith(("/sys/fs/cgroup", "/proc/self/cgroup")):
            if str(path) not in files:
                raise FileNotFoundError(path)
            return io.StringIO(files[str(path)])
        return whole(path, *arguments, **more)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(builtins, "open", read)
    monkeypatch.delenv("TINYFLAMINGO_THREADS", raising=False)
    assert ops.workers() == expected


STDERR = {"closed": "2>&-", "full": "2>/dev/full", "not for writing": "2</dev/null", "all closed": "<&- 2>&-"}


@pytest.mark.posix
@pytest.mark.parametrize("how", STDERR)
def test_a_mistake_is_exit_code_2_also_if_stderr_cannot_be_written(how):
    line = ["sh", "-c", f'"$0" -m tinyflamingo complete a file {STDERR[how]}', sys.executable]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == ""


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text=""):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flush = write


def test_a_run_goes_on_when_its_progress_cannot_be_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    assert cli.main(["train", "--preset", "smoke", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/metrics.json").exists()


def test_kernels_are_compiled_when_it_cannot_be_said(monkeypatch):
    jit = pytest.importorskip("tinyflamingo.ops.jit")
    monkeypatch.setattr(sys, "__stderr__", Full())
    announcement, dispatcher = jit._Announcement(), types.SimpleNamespace(py_func=jit.kernel)
    for _ in range(jit.FEW + 1):
        announcement.on_start(types.SimpleNamespace(data={"dispatcher": dispatcher}))
