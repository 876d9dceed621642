"""The team of workers: order, errors, BLAS on one thread, and the same gradients with threads as without."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.ops import team

ROOT = Path(__file__).parents[2]


def blas_threads():
    """The number of threads of every BLAS in the process."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


# ---------------------------------------------------------------- the number of workers


def test_the_environment_sets_the_number_of_workers(monkeypatch):
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "3")
    assert ops.workers() == 3
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "")
    assert 1 <= ops.workers() <= os.cpu_count()
    monkeypatch.delenv("TINYFLAMINGO_THREADS")
    assert 1 <= ops.workers() <= os.cpu_count()


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " 2", "²", "257", "9" * 23])
def test_a_wrong_number_of_workers_is_refused(monkeypatch, wrong):
    monkeypatch.setenv("TINYFLAMINGO_THREADS", wrong)
    with pytest.raises(UserError, match=f"TINYFLAMINGO_THREADS must be .* not {wrong!r}"):
        ops.workers()
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "9" * 5000)  # more digits than int() accepts
    with pytest.raises(UserError, match="from 1 to 256"):
        ops.workers()


def test_use_workers_ends_with_its_block_and_after_an_error(monkeypatch):
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "2")
    with pytest.raises(KeyError), ops.use_workers(5):
        with ops.use_workers(7):
            assert ops.workers() == 7
        assert ops.workers() == 5
        raise KeyError
    assert ops.workers() == 2


# ---------------------------------------------------------------- parallel_map


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("shards", [0, 1, 2, 3, 9])
def test_results_come_in_the_order_of_the_shards(n, shards):
    """The first shards take the longest."""

    def work(i):
        time.sleep(0.002 * (shards - i))
        return i * i

    with ops.use_workers(n):
        assert ops.parallel_map(work, iter(range(shards))) == [i * i for i in range(shards)]


def test_every_worker_has_a_thread_and_one_worker_is_the_caller():
    meeting = threading.Barrier(3, timeout=20)  # breaks unless three shards run at the same time

    def work(_):
        meeting.wait()
        return threading.current_thread()

    with ops.use_workers(3):
        assert len(set(ops.parallel_map(work, range(3)))) == 3
        assert ops.parallel_map(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]
    with ops.use_workers(1):
        threads = ops.parallel_map(lambda _: threading.current_thread(), range(3))
    assert threads == [threading.current_thread()] * 3


@pytest.mark.parametrize("n", [1, 2])
def test_an_error_in_a_worker_is_raised_here_and_the_team_goes_on(n):
    def work(i):
        if i == 1:
            raise ArithmeticError(f"shard {i}")
        return i

    with ops.use_workers(n):
        with pytest.raises(ArithmeticError, match="shard 1"):
            ops.parallel_map(work, range(4))
        assert ops.parallel_map(work, [0, 2]) == [0, 2]


@pytest.mark.parametrize("n", [1, 2])
def test_blas_has_one_thread_inside_and_the_old_number_afterwards(n):
    def fail(_):
        raise KeyError

    with threadpool_limits(2, user_api="blas"), ops.use_workers(n):
        before = blas_threads()
        inside = ops.parallel_map(lambda _: blas_threads(), range(3))
        assert all(set(threads) == {1} for threads in inside)
        assert blas_threads() == before
        with pytest.raises(KeyError):
            ops.parallel_map(fail, range(2))
        assert blas_threads() == before


def test_in_one_team_blas_has_one_thread_between_two_maps_too():
    with threadpool_limits(2, user_api="blas"), ops.use_workers(2):
        before = blas_threads()
        with team.one_team():
            assert set(blas_threads()) == {1}
            ops.parallel_map(abs, range(3))
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
    assert len(team.blas_libraries()) >= 1 and all(" for " in name for name in team.blas_libraries())


def test_a_worker_may_call_parallel_map():
    """In a separate process: a deadlock would wait for ever."""
    code = (
        "from tinyflamingo import ops\n"
        "with ops.use_workers(2):\n"
        "    print(ops.parallel_map(lambda i: sum(ops.parallel_map(lambda j: 10 * i + j, range(3))), range(4)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == str([30 * i + 3 for i in range(4)]), done.stderr


def test_workers_use_the_chosen_floor(floor):
    with ops.use_workers(2):
        assert ops.parallel_map(lambda _: ops.backend_name(), range(3)) == [floor] * 3


def test_keeping_memory_never_fails(monkeypatch):
    assert team.keep_memory.__wrapped__() in (True, False)

    class NoLibrary:
        def __init__(self, name):
            raise OSError

    monkeypatch.setattr(team.ctypes, "CDLL", NoLibrary)
    assert team.keep_memory.__wrapped__() is False
    monkeypatch.setattr(team.ctypes, "CDLL", lambda name: object())  # a C library without mallopt
    assert team.keep_memory.__wrapped__() is False


# ---------------------------------------------------------------- gradients in threads


def _graph(seed):
    """The gradients of a small graph with many nodes; every seed gives another one."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((3, 4)), 0.3 * rng.standard_normal((4, 4))

    def loss(params):
        h = params["x"]
        for _ in range(6):
            h = ops.gelu(ops.linear(h, params["w"])) + anp.tanh(h)
        return anp.sum(ops.rms_norm(h, np.ones(4)) * x)

    return ops.value_and_grad(loss)({"x": x, "w": w})


def _nested(seed):
    """A gradient inside a graph."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 5))

    def outer(params):
        _, inner = ops.value_and_grad(lambda p: anp.sum(anp.tanh(p["y"]) ** 2))({"y": y})
        return anp.sum(anp.sin(params["x"]) * inner["y"]) + anp.sum(params["x"] * anp.tanh(params["x"]))

    return ops.value_and_grad(outer)({"x": x})


def _interleaved(function, seeds):
    """Run in four threads that Python switches as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(function, seeds))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("graph", [_graph, _nested])
def test_graphs_in_threads_have_the_same_gradients_as_one_after_another(floor, graph):
    seeds = range(200)
    for (value, gradients), (own, expected) in zip(_interleaved(graph, seeds), map(graph, seeds), strict=True):
        assert value == own
        for name in expected:
            np.testing.assert_array_equal(gradients[name], expected[name])
