"""Workers as processes: sums and rows of all ranks, errors, a worker that dies, and the runs of `train`."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import autograd.numpy as anp
import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.data.images import Unreadable
from tinyflamingo.errors import UserError
from tinyflamingo.training import processes, run
from tinyflamingo.training.processes import on_workers
from tinyflamingo.training.ranks import own_run, whole, world
from tinyflamingo.training.shards import Drawings, cut_rows, drawn, joined_gradient, own_jobs, own_rows
from tinyflamingo.training.state import LOG, STATE

WEIGHTS = "checkpoint/weights.npz"


@pytest.fixture(params=[1, 2, 3])
def workers(request):
    with ops.use_workers(request.param):
        yield request.param


def kept(function):
    """The results of all ranks, in order, as a list of arrays. A function that is called by all ranks."""
    return world().gather(np.ascontiguousarray(function())[None])


# ---- what ranks exchange -----------------------------------------------------------------------


def summed(n, dtype):
    values = np.arange(n).astype(dtype) * (world().rank + 1)
    assert world().allreduce(values) is values
    return kept(lambda: values)


@pytest.mark.parametrize("n", [1, 2, 1000, 3001])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_every_rank_gets_the_sum_of_all(workers, n, dtype, monkeypatch):
    monkeypatch.setattr(processes, "MEMORY", 1 << 12)  # so that a vector passes in several pieces
    everyone = on_workers(summed, n, dtype)
    assert len(everyone) == workers
    for values in everyone:
        assert values.dtype == dtype
        np.testing.assert_array_equal(values[0], np.arange(n) * sum(range(workers + 1)))


def gathered(n):
    parts = world().gather(np.full((world().rank * n, 5), world().rank, np.float32))
    return kept(lambda: np.concatenate(parts))


@pytest.mark.parametrize("n", [0, 1, 700])
def test_every_rank_gets_the_rows_of_all_in_order(workers, n, monkeypatch):
    monkeypatch.setattr(processes, "MEMORY", 1 << 12)
    expected = np.concatenate([np.full((rank * n, 5), rank, np.float32) for rank in range(workers)])
    for values in on_workers(gathered, n):
        np.testing.assert_array_equal(values[0], expected)


def rows_with_unknown_width():
    rows = np.ones((2, 3), np.float32) if world().rank == 0 else np.zeros((0, 0), np.float32)
    return [part.shape for part in world().gather(rows)]


def test_a_rank_without_rows_need_not_know_their_width(workers):
    assert on_workers(rows_with_unknown_width) == [(2, 3)] + [(0, 3)] * (workers - 1)


def many_exchanges():
    total = 0.0
    for i in range(300):
        if i % (world().rank + 2) == 0:
            time.sleep(1e-4)  # ranks arrive in different orders
        total += float(world().allreduce(np.array([i + world().rank], np.float64))[0])
    return total


def test_a_slot_is_not_written_before_all_have_read_it(workers):
    assert on_workers(many_exchanges) == sum(workers * i + sum(range(workers)) for i in range(300))


def squares(n):
    calls = []

    def rows_of(part):
        calls.append(part)
        return np.arange(n)[part, None] ** 2

    values = whole(rows_of, n)
    return values, kept(lambda: [part.stop - part.start for part in calls]), sorted(os.listdir(folder_of(world())))


def folder_of(group):
    return getattr(group, "folder", os.curdir)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_ranks_share_the_work_for_one_array(workers, n):
    values, counts, left = on_workers(squares, n)
    np.testing.assert_array_equal(values[:, 0], np.arange(n) ** 2)
    computed = [int(count[0, 0]) for count in counts]
    assert computed == [n] * workers if n < workers else sum(computed) == n and max(computed) - min(computed) <= 1
    assert workers == 1 or left == []  # the file has no name any more


def noise(n):
    return drawn(np.random.default_rng(5), lambda rng, thing: rng.random(3) + thing, list(range(n)))


def taken(numbers):
    drawings = Drawings(np.random.default_rng(5), lambda rng, thing: rng.random(3) + thing, list(range(300)))
    return np.concatenate([drawings.take(some) for some in numbers]), len(drawings.pictures)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_pictures_that_are_drawn_when_needed_do_not_depend_on_the_order(workers):
    numbers = [np.array([299, 3]), np.array([3, 150, 70]), np.array([298])]
    with ops.use_workers(workers):
        pictures, blocks = on_workers(taken, numbers)
    with ops.use_workers(1):
        np.testing.assert_array_equal(pictures, on_workers(noise, 300)[np.concatenate(numbers)])
    assert blocks == 4  # of five: no number is between 192 and 255


@pytest.mark.parametrize("n", [1, 64, 300])
def test_drawn_things_do_not_depend_on_the_number_of_workers(workers, n):
    with ops.use_workers(1):
        alone = on_workers(noise, n)
    assert alone.shape == (n, 3) and len(np.unique(alone)) == 3 * n
    np.testing.assert_array_equal(on_workers(noise, n), alone)


def own_numbers(n):
    pairs = own_jobs(np.random.default_rng(5), list(range(n)))
    own = np.array([[job, rng.random()] for job, rng in pairs]).reshape(-1, 2)
    return np.concatenate(world().gather(own))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_job_has_the_same_generator_in_every_rank(workers, n):
    with ops.use_workers(1):
        alone = on_workers(own_numbers, n)
    together = on_workers(own_numbers, n)
    np.testing.assert_array_equal(together[np.argsort(together[:, 0])], alone)


def test_the_largest_jobs_are_shared_first(workers):
    """Three long pages and many short documents: no rank has more than one page's work above the others."""
    sizes = [576, 576, 576, *[20] * 16, *[40] * 8]

    def work():
        pairs = own_jobs(np.random.default_rng(5), sizes, cost=lambda size: size)
        return np.concatenate(world().gather(np.array([[sum(size for size, _ in pairs)]])))

    shared = on_workers(work)
    assert shared.sum() == sum(sizes)
    best = max(576 * -(-3 // workers), sum(sizes) / workers)  # a page cannot be cut
    assert shared.max() <= best + 40


def cut():
    x = np.arange(10)
    assert [len(part[0]) for part in cut_rows(x)] == [10]  # a rank has one worker
    return kept(lambda: [own_run(10).start, own_run(10).stop, *own_rows(x, x)[1][[0, -1]]])


def test_runs_of_rows_cover_all(workers):
    runs = np.concatenate(on_workers(cut))
    assert runs[0, 0] == 0 and runs[-1, 1] == 10
    np.testing.assert_array_equal(runs[1:, 0], runs[:-1, 1])
    np.testing.assert_array_equal(runs[:, 2:], runs[:, :2] - [0, 1])


def contrast(n):
    """The gradient of a loss that compares all of n rows."""
    x = np.random.default_rng(1).standard_normal((n, 4)).astype("f4")
    params = {"w": np.eye(4, dtype="f4"), "scale": np.array(1.3, "f4")}

    def rows(params, shard):
        return ops.linear(shard[0], params["w"])

    def loss(head, joined):
        return anp.sum(ops.cross_entropy(ops.linear(joined, joined.T) * head["scale"], np.arange(n)))

    return joined_gradient(rows, loss, params, {"scale": params["scale"]}, cut_rows(*own_rows(x)))[1]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_rank_without_rows_adds_nothing(workers, n):
    with ops.use_workers(1):
        alone = contrast(n)
    np.testing.assert_allclose(on_workers(contrast, n), alone, rtol=1e-5, atol=1e-6)


# ---- starting and ending -----------------------------------------------------------------------


def place():
    return world().rank, world().size, ops.workers()


def test_a_rank_has_one_worker_and_no_ranks_of_its_own(workers):
    assert on_workers(lambda: on_workers(place)) == (0, workers, 1)
    assert (world().rank, world().size, ops.workers()) == (0, 1, workers)


def daemon(results):
    with ops.use_workers(2):
        results.put((on_workers(place), multiprocessing.current_process().daemon))


def test_a_daemonic_process_starts_no_others():
    """Its workers are threads."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=daemon, args=(results,), daemon=True)
    process.start()
    assert results.get(timeout=60) == ((0, 1, 2), True)
    process.join()


@pytest.mark.posix
@pytest.mark.parametrize("other_threads", [0, 3])
def test_ctrl_c_is_not_lost_while_a_process_starts(other_threads):
    """It arrives in a function that Python calls after a fork; errors of such functions are ignored.

    Any thread of the process may receive it.
    """
    pending, ended = [signal.SIGINT], threading.Event()
    for _ in range(other_threads):
        threading.Thread(target=ended.wait, daemon=True).start()
    os.register_at_fork(after_in_parent=lambda: pending and os.kill(os.getpid(), pending.pop()))
    before = signal.getsignal(signal.SIGINT)
    with ops.use_workers(2), pytest.raises(KeyboardInterrupt):
        on_workers(place)
    ended.set()
    assert not pending and signal.getsignal(signal.SIGINT) is before
    assert not hasattr(signal, "pthread_sigmask") or signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert not multiprocessing.active_children()


def raise_in(ranks, error):
    if world().rank in ranks:
        raise error
    world().wait()


@pytest.mark.parametrize("ranks", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("error", [UserError("no such colour"), ZeroDivisionError("by zero"), KeyboardInterrupt("^C")])
def test_an_error_in_a_rank_ends_all_and_is_raised_once(ranks, error, capfd):
    with ops.use_workers(3), pytest.raises(type(error), match=re.escape(str(error))):
        on_workers(raise_in, ranks, error)
    assert capfd.readouterr() == ("", "")
    assert world().size == 1


def test_an_error_that_cannot_be_pickled_keeps_its_text():
    class Local(Exception):
        pass

    with ops.use_workers(2), pytest.raises(RuntimeError, match="Local: too far"):
        on_workers(raise_in, (1,), Local("too far"))


def test_an_error_about_a_file_arrives_whole():
    """Its class cannot be made again from its message alone."""
    error = Unreadable("picture", "a.png", "it is cut off", "copy it again")
    with ops.use_workers(2), pytest.raises(UserError, match=f"^{re.escape(str(error))}$"):
        on_workers(raise_in, (1,), error)


def die():
    if world().rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world().wait()


@pytest.mark.posix
def test_a_worker_that_is_killed_ends_all_with_one_line(capfd):
    with ops.use_workers(3), pytest.raises(UserError, match="a worker process has died") as error:
        on_workers(die)
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


def test_processes_can_be_started_anew(monkeypatch):
    """As on systems without fork. The function and its arguments are pickled."""
    monkeypatch.setattr(processes, "START", "spawn")
    with ops.use_workers(2):
        np.testing.assert_array_equal(on_workers(noise_of_module, 70), noise_of_module(70))


def noise_of_module(n):
    return drawn(np.random.default_rng(5), _noisy, list(range(n)))


def _noisy(rng, thing):
    return rng.random(3) + thing


# ---- train -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3])
def test_a_run_has_the_same_bits_each_time(tmp_path, n):
    with ops.use_workers(n):
        for name in ("one", "two"):
            run.train("smoke", tmp_path / name)
    for name in (WEIGHTS, LOG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def workers_of(pid):
    """The processes that a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def alive(pid):
    """Whether a process runs; one that has ended may wait for somebody to ask for its exit code."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_outlives_a_killed_run_and_the_run_goes_on(tmp_path):
    line = [sys.executable, "-m", "tinyflamingo", "train", "--preset", "smoke", "--out"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TINYFLAMINGO_THREADS": "2", "TMPDIR": str(temporary)}
    subprocess.run([*line, tmp_path / "clean"], check=True, capture_output=True, env=environment)
    process = subprocess.Popen([*line, tmp_path / "run"], stderr=subprocess.DEVNULL, env=environment)
    log = tmp_path / "run" / LOG
    while process.poll() is None and not (log.exists() and b'"language"' in log.read_bytes()):
        time.sleep(0.01)
    children = workers_of(process.pid)
    process.kill()
    process.wait()
    assert children and (tmp_path / "run" / STATE).exists()
    deadline = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children)) and not list(temporary.glob("tinyflamingo-*"))
    subprocess.run([*line, tmp_path / "run", "--resume"], check=True, capture_output=True, env=environment)
    for name in (WEIGHTS, LOG):
        assert (tmp_path / "clean" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
