"""The benchmark: twins compute the same, wrong twins are refused, and the table. No times are tested."""

import json
import sys
import threading

import autograd.numpy as anp
import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.bench import clock, lines, run, scaling
from tinyflamingo.bench.flops import gemm_flops
from tinyflamingo.bench.lines import LINES, Contest, Line
from tinyflamingo.errors import UserError
from tinyflamingo.ops.tree import flatten, named_leaves, view_tree
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig, adaptive_clip

AGAINST_TORCH = [name for name, line in LINES.items() if line.against_torch]


@pytest.fixture(scope="module")
def with_torch():
    """The inputs of the lines, with PyTorch on one thread."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lines.Inputs(True)
    torch.set_num_threads(before)


@pytest.fixture
def no_clock(monkeypatch):
    """Nothing runs: our side takes 2 ms, the other 3 ms."""
    monkeypatch.setattr(run, "milliseconds", lambda sides: [2.0, 3.0][: len(sides)])


# ---- the twins -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_both_sides_compute_the_same(with_torch, name, workers):
    with ops.use_workers(workers):
        contest = LINES[name].build(with_torch)
        assert contest.difference() <= LINES[name].tolerance <= 1e-3
    assert callable(contest.ours) and callable(contest.other)


def near(most):
    """Tokens of later media attend to an earlier medium."""
    return lambda real: lambda q, k, v, phi, R: real(q, k, v, phi.clamp(max=most), R)


WRONG = {
    "flamingo_step": ("masked_cross_attention", near(1)),
    "language_step": ("relative_shift", lambda real: lambda scores: scores),
    "contrastive_step": ("layer_norm", lambda real: lambda x, gain, bias: real(x, gain, 0 * bias)),
    "encode": ("squeeze_excite", lambda real: lambda params, x: x),
    "resampler": ("resampler_layer", lambda real: lambda p, x, features, config: real(p, x, features[:, :-1], config)),
    "xattn_8": ("masked_cross_attention", near(7)),
    "decode": ("rms_norm", lambda real: lambda x, gain: x * gain),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_twin_is_refused_before_any_time_is_measured(with_torch, monkeypatch, name):
    function, change = WRONG[name]
    monkeypatch.setattr(with_torch.twins, function, change(getattr(with_torch.twins, function)))
    monkeypatch.setattr(run, "milliseconds", lambda sides: pytest.fail("a time was measured"))
    with (
        ops.use_workers(1),
        pytest.raises(UserError, match="outputs of the sides differ by .* more than 0.001"),
    ):
        run.compare(LINES[name], with_torch)


@pytest.mark.parametrize("difference", [np.nan, np.inf, 2e-3])
def test_a_difference_that_is_nan_or_too_large_is_refused(no_clock, difference):
    line = Line("what", "wanted", lambda inputs: Contest(print, print, lambda: difference))
    with pytest.raises(UserError, match="not timed"):
        run.compare(line, None)


def test_optimisers_of_both_sides_make_the_same_steps(with_torch, rng):
    """Three steps at a constant rate, with both kinds of clipping and a part without weight decay."""
    config = OptimiserConfig(learning_rate=0.1, warmup=0, clip=0.5, weight_decay=0.2, agc=0.05)
    params = {"vision": {"w": rng.standard_normal((3, 4)), "b": np.ones(4)}, "other": rng.standard_normal((2, 2))}
    params = view_tree(flatten(params).astype("f4"), params)
    ours = AdamW(params, config, no_decay=("other",))
    target = rng.standard_normal(ours.vector.size).astype("f4")
    goal = with_torch.twins.to_torch(view_tree(target, params))

    def loss(p):
        pairs = zip(named_leaves(p).values(), named_leaves(goal).values(), strict=True)
        return sum(((x - y) ** 2).sum() for x, y in pairs)

    twin = with_torch.twins.TrainingStep(ours, loss, ("other",), True)
    for step in range(3):
        gradient = 2 * (ours.vector - target)
        adaptive_clip(view_tree(gradient, params)["vision"], ours.params["vision"], config.agc)
        ours.step(gradient, step, 10**9)
        twin.step()
    for name, leaf in named_leaves(ours.params).items():
        np.testing.assert_allclose(named_leaves(twin.params)[name].detach().numpy(), leaf, atol=1e-5)
    assert np.abs(ours.vector - flatten(params)).max() > 0.1


def test_the_decoding_line_gives_the_tokens_of_flamingo_without_a_cache(monkeypatch):
    monkeypatch.setattr(lines, "DECODED", 6)
    inputs, calls, plain = lines.Inputs(False), [], lines.flamingo

    def recorded(*arguments, **options):
        calls.append((arguments, options))
        return plain(*arguments, **options)

    monkeypatch.setattr(lines, "flamingo", recorded)
    tokens = LINES["decode"].build(inputs).ours()
    assert [arguments[2].shape[1] for arguments, _ in calls] == [3, 1, 1, 1, 1, 1]  # the prompt, then token by token
    params, frozen, prompt, phi, visual, config = calls[0][0]
    for i, token in enumerate(tokens):
        row = np.concatenate([prompt, np.array([tokens[:i]], int)], axis=1)
        row_phi = np.concatenate([phi, np.ones((1, i), int)], axis=1)
        assert token == plain(params, frozen, row, row_phi, visual, config)[0, -1].argmax()
    assert len(tokens) == 6


# ---- the table -------------------------------------------------------------------------------


def fake_lines(monkeypatch):
    """A line of every kind. Returns the list of the number of workers at each build."""
    built = []

    def build(difference=None, other=True):
        def make(inputs):
            built.append(ops.workers())
            return Contest(print, print if other and inputs.twins else None, difference if inputs.twins else None)

        return make

    fakes = {
        "step": Line("against PyTorch", ">= 1.0", build(lambda: 1e-6)),
        "growth": Line("against ourselves", "<= 1.5", lambda i: Contest(print, print), lambda a, b: a / b, False),
        "alone": Line("against nobody", "<= 5 ms", lambda i: Contest(print), against_torch=False),
    }
    monkeypatch.setattr(run, "LINES", fakes)
    monkeypatch.setattr(run, "Inputs", lambda with_torch: type("Inputs", (), {"twins": with_torch}))
    return built


def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now raises ImportError


def test_the_report_with_torch(monkeypatch, no_clock):
    pytest.importorskip("torch")
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    built, said = fake_lines(monkeypatch), []
    report = run.bench(threads=[1, 2], say=said.append)
    assert report["lines"]["step"] == {
        "ours_ms": 2.0, "torch_ms": 3.0, "ratio": 1.5, "max_abs_diff": 1e-6, "threads": 1
    }  # fmt: skip
    assert report["lines"]["growth"]["ratio"] == pytest.approx(2 / 3) and report["lines"]["growth"]["other_ms"] == 3.0
    assert report["lines"]["growth"]["torch_ms"] is None and report["lines"]["alone"]["ratio"] is None
    assert list(report["lines"]) == ["step", "growth", "alone", "step@2", "growth@2", "alone@2"]
    assert report["lines"]["step@2"]["threads"] == 2 and built == [1, 2]
    assert len(said) == 7 and "1.50" in said[1] and "1.0e-06" in said[1] and "against PyTorch" in said[1]
    assert report["machine"]["versions"]["torch"][0].isdigit()
    assert json.loads(json.dumps(report)) == report


def test_the_report_without_torch(monkeypatch, no_clock):
    without_torch(monkeypatch)
    fake_lines(monkeypatch)
    said = []
    report = run.bench(threads=[1], say=said.append)
    assert "PyTorch is not installed" in said[0] and len(said) == 5
    assert report["lines"]["step"] == {
        "ours_ms": 2.0, "torch_ms": None, "ratio": None, "max_abs_diff": None, "threads": 1
    }  # fmt: skip
    assert report["lines"]["growth"]["ratio"] == pytest.approx(2 / 3)
    assert report["machine"]["versions"]["torch"] == "not installed"
    assert json.loads(json.dumps(report)) == report


def test_real_lines_have_our_side_without_torch(monkeypatch, no_clock):
    without_torch(monkeypatch)
    names = ["language_step", "encode", "resampler", "xattn_1", "xattn_scaling", "decode", "import", "completion"]
    report = run.bench(only=names, threads=[1], say=lambda line: None)["lines"]
    assert list(report) == names
    assert [n for n in names if report[n]["ratio"]] == ["xattn_scaling"]


def test_only_the_given_lines_run(monkeypatch, no_clock):
    fake_lines(monkeypatch)
    assert list(run.bench(only=["alone"], threads=[1], say=lambda line: None)["lines"]) == ["alone"]


def test_the_number_of_workers_is_restored(monkeypatch, no_clock):
    fake_lines(monkeypatch)
    with ops.use_workers(5):
        run.bench(threads=[1], say=lambda line: None)
        assert ops.workers() == 5


def test_an_unknown_line_is_refused_with_a_list_of_the_lines():
    with pytest.raises(UserError, match="unknown line 'warp'.*flamingo_step, .*decode, .*completion"):
        run.bench(only=["decode", "warp"])


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_a_number_of_threads_beyond_the_cores_is_refused(threads):
    with pytest.raises(UserError, match=f"--threads is {threads} but must be from 1 to"):
        run.bench(only=["import"], threads=[1, threads])


# ---- the clock -------------------------------------------------------------------------------


def test_sides_run_in_turns_and_the_median_counts(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(clock.time, "sleep", lambda seconds: None)

    def side(name, usual):
        def call():
            calls.append(name)
            now[0] += 100 * usual if len(calls) == 9 else usual  # once the machine is busy

        return call

    times = clock.milliseconds([side("a", 0.1), side("b", 0.3)], seconds=0.0)
    assert times == pytest.approx([100.0, 300.0])
    assert "".join(calls) == "aabb" + "ab" * clock.ROUNDS[0]


def test_a_short_side_runs_several_times_in_each_turn(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(clock.time, "sleep", lambda seconds: None)

    def side():
        calls.append(1)
        now[0] += clock.TURN / 9.5

    assert clock.milliseconds([side], seconds=0.0) == pytest.approx([clock.TURN / 9.5 * 1e3])
    assert len(calls) == 2 + 10 * clock.ROUNDS[0]


# ---- flops -----------------------------------------------------------------------------------


def test_flops_of_a_small_graph_by_hand(rng):
    x, w, frozen, last = (rng.standard_normal(shape) for shape in ((3, 4), (4, 5), (5, 6), (6, 2)))

    def loss(params):
        h = ops.linear(x, params["w"])  # 2 * 3 * 4 * 5 forward; as much for w
        h = ops.linear(h, frozen)  # 2 * 3 * 5 * 6 forward; as much for h
        return anp.sum(ops.linear(h, params["last"]))  # 2 * 3 * 6 * 2 forward; as much for h, as much for last

    step = lambda: ops.value_and_grad(loss)({"w": w, "last": last})  # noqa: E731
    assert gemm_flops(step) == 2 * 120 + 2 * 180 + 3 * 72
    assert gemm_flops(lambda: ops.linear(x, w)) == 120


def test_flops_of_attention_by_hand(rng):
    q, k, v = rng.standard_normal((1, 2, 1, 3)), *rng.standard_normal((2, 1, 5, 1, 3))
    product = 2 * 2 * 5 * 3  # queries by keys, K 3
    assert gemm_flops(lambda: ops.attention(q, k, v)) == 2 * product
    trained = lambda: ops.value_and_grad(lambda p: anp.sum(ops.attention(p["q"], k, v)))({"q": q})  # noqa: E731
    assert gemm_flops(trained) == 6 * product


def test_flops_of_relative_attention_by_hand(rng):
    """70 queries in blocks of 64: 64 rows have 64 keys, 6 rows have all 70."""
    q, k, v = rng.standard_normal((3, 1, 70, 2, 3))
    r, u, visible_from = rng.standard_normal((70, 2, 3)), np.zeros((2, 3)), np.zeros((1, 70), int)
    product = 2 * 2 * 3 * (64 * 64 + 6 * 70)
    assert gemm_flops(lambda: ops.relative_attention(q, k, v, r, u, u, visible_from)) == 3 * product

    def loss(params):
        return anp.sum(ops.relative_attention(q, params["k"], v, params["r"], u, u, visible_from))

    assert gemm_flops(lambda: ops.value_and_grad(loss)({"k": k, "r": r})) == 9 * product


def test_flops_of_workers_are_counted_and_no_operation_is_replaced(rng):
    x, w, linear = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), ops.linear
    meeting = threading.Barrier(2, timeout=20)

    def work(_):
        meeting.wait()
        assert ops.linear is linear
        return ops.linear(x, w)

    with ops.use_workers(2):
        assert gemm_flops(lambda: ops.parallel_map(work, range(4))) == 4 * 120


def test_counting_ends_after_an_error(rng):
    notes = []

    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        gemm_flops(fail)
    with ops.watching(lambda name, args: notes.append(name)):
        assert gemm_flops(lambda: ops.linear(np.ones((2, 3)), np.ones((3, 4)))) == 48
    assert notes == ["linear"]


# ---- how costs grow --------------------------------------------------------------------------


def test_memory_is_linear_for_latents_and_quadratic_for_self_attention(rng, monkeypatch):
    monkeypatch.setattr(scaling, "milliseconds", lambda sides, seconds: [1.0 for side in sides])
    cost = {(T, S): scaling._attention_cost(rng, T, S)[1] for S in (512, 2048) for T in (8, S)}
    assert cost[8, 2048] < 8 * cost[8, 512]
    assert cost[2048, 2048] > 8 * cost[512, 512]


def test_the_report_is_kept_before_the_figure_fails(tmp_path, monkeypatch, no_clock):
    without_torch(monkeypatch)
    monkeypatch.setattr(run, "measure_scaling", lambda inputs: {"bad": 0})
    kept = []
    with pytest.raises(UserError, match="cannot draw"):
        run.bench(["xattn_1"], [1], tmp_path / "costs.png", lambda line: None, kept.append)
    assert list(kept[0]["lines"]) == ["xattn_1"] and not list(tmp_path.iterdir())


def test_the_figure_of_costs_is_drawn(tmp_path, monkeypatch, no_clock):
    without_torch(monkeypatch)
    monkeypatch.setattr(scaling, "IMAGES", (1, 2))
    monkeypatch.setattr(scaling, "LENGTHS", (16, 64, 128))
    monkeypatch.setattr(scaling, "milliseconds", lambda sides, seconds: [len([side()]) * 1.5 for side in sides])
    report = run.bench(only=["xattn_1"], threads=[1], figure=tmp_path / "costs.png", say=lambda line: None)
    costs = report["scaling"]
    assert len(costs["images"]["ours"]) == len(costs["images"]["dense"]) == 2
    assert [len(points) for points in costs["lengths"].values()] == [3, 3]
    assert costs["dense_is"] == "the reference" and json.loads(json.dumps(report))["scaling"]
    assert (tmp_path / "costs.png").stat().st_size > 10_000
