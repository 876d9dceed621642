"""The benchmark: twins compute the same, wrong twins are refused, and the table. No times are tested."""

import json
import os
import subprocess
import sys
import threading

import autograd.numpy as anp
import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.bench import batches, clock, contest, job_lines, part_lines, run, scaling, step_lines
from tinyflamingo.bench.contest import Contest, Line, NotRun, Step
from tinyflamingo.bench.flops import gemm_flops
from tinyflamingo.bench.lines import LINES
from tinyflamingo.errors import UserError
from tinyflamingo.ops.tree import flatten, named_leaves, view_tree
from tinyflamingo.training.muon import muon_move
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig, adaptive_clip
from tinyflamingo.training.ranks import world

AGAINST_TORCH = [name for name, line in LINES.items() if line.against_torch and not line.minutes]
COMPILED = [name for name, line in LINES.items() if line.minutes]


@pytest.fixture(scope="module")
def with_torch():
    """The inputs of the lines, with PyTorch on one thread."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield contest.Inputs(True)
    torch.set_num_threads(before)


@pytest.fixture
def no_clock(monkeypatch):
    """Nothing runs: our side takes 2 ms, the other 3 ms."""
    monkeypatch.setattr(run, "milliseconds", lambda sides, rounds: [2.0, 3.0][: len(sides)])


# ---- the twins -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_both_sides_compute_the_same(with_torch, name, workers):
    with ops.use_workers(workers):
        contest = LINES[name].build(with_torch)
        assert contest.difference() <= LINES[name].tolerance <= 1e-3
    assert callable(contest.ours) and callable(contest.other)


@pytest.mark.parametrize("name", ["flamingo_step", "language_step", "contrastive_step", "job_step_language"])
def test_the_workers_of_training_steps_are_processes(with_torch, monkeypatch, name):
    """Rank 0 measures. The other ranks call each function at the same time as rank 0."""
    monkeypatch.setattr(run, "milliseconds", lambda sides, rounds: [side() or world().size for side in sides])
    with ops.use_workers(2):
        row = run.compare(LINES[name], with_torch)
    assert row["max_abs_diff"] <= LINES[name].tolerance and row["ours_ms"] == 2
    assert world().size == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_twins_compute_the_same(with_torch, name):
    with ops.use_workers(1):
        try:
            contest = LINES[name].build(with_torch)
        except NotRun as reason:
            pytest.skip(str(reason))
        assert contest.difference() <= LINES[name].tolerance


def test_a_twin_that_cannot_be_compiled_is_not_run(with_torch, monkeypatch):
    def broken(function, dynamic):
        def fail(*arguments):
            raise RuntimeError("no C++ compiler\nand more lines")

        return fail

    monkeypatch.setattr(with_torch.torch.torch, "compile", broken)
    with ops.use_workers(1), pytest.raises(NotRun, match="^torch.compile failed: no C.. compiler$"):
        LINES["language_compile"].build(with_torch)


@pytest.mark.parametrize("name", ["flamingo_jax", "language_jax"])
def test_the_twins_in_jax_compute_the_same(with_torch, name):
    pytest.importorskip("jax")
    with ops.use_workers(1):
        contest = LINES[name].build(with_torch)
        assert contest.difference() <= LINES[name].tolerance
        before = contest.difference()
        contest.other()
    assert contest.difference() > before  # its parameters have moved


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8), (96, 64)])
def test_muon_in_jax_is_ours(shape):
    pytest.importorskip("jax")
    from tinyflamingo.bench.jax_twins import muon_move as twin

    momentum = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(np.asarray(twin(momentum)), muon_move(momentum), atol=1e-4)


def test_without_jax_and_pytorch_their_lines_are_not_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinyflamingo.bench.jax_twins", None)
    with ops.use_workers(2), pytest.raises(NotRun, match="one thread"):
        LINES["language_jax"].build(contest.Inputs(False))
    for name, package in (("language_jax", "JAX"), ("language_compile", "PyTorch")):
        with ops.use_workers(1), pytest.raises(NotRun, match=f"{package} is not installed"):
            LINES[name].build(contest.Inputs(False))


def test_runs_of_unequal_length(rng):
    """Every token of a run is at its place, and its medium is that of phi."""
    phi = np.array([[1, 1, 1, 2], [1, 2, 2, 2]])
    with_pytorch = pytest.importorskip("tinyflamingo.bench.torch_sides")
    runs = with_pytorch.runs_of(phi, 2)
    assert runs["tokens"].ravel()[runs["places"]].tolist() == list(range(8))
    assert runs["media"].repeat(3)[runs["places"]].tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


def test_slots_of_a_batch_name_the_media_of_each_row(with_torch):
    step = step_lines.flamingo_step(with_torch)
    slots, tokens = step.batch["slots"], step.batch["tokens"]
    assert (slots >= 0).sum() == slots.max() + 1 == sum(map(len, step.batch["features"]))
    assert ((slots >= 0).sum(axis=1) >= (tokens == batches.IMAGE).sum(axis=1)).all()


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
    "xattn_8_runs": ("runs_cross_attention", lambda real: lambda q, k, v, runs: real(q, k, v.flip(1), runs)),
    "decode": ("rms_norm", lambda real: lambda x, gain: x * gain),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_twin_is_refused_before_any_time_is_measured(with_torch, monkeypatch, name):
    twins = with_torch.torch.twins
    function, change = WRONG[name]
    monkeypatch.setattr(twins, function, change(getattr(twins, function)))
    monkeypatch.setattr(run, "milliseconds", lambda *sides, **options: pytest.fail("a time was measured"))
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


def test_optimisers_of_both_sides_make_the_same_steps(with_torch, rng, monkeypatch):
    """Three steps at a constant rate, with both kinds of clipping and a part without weight decay."""
    config = OptimiserConfig(learning_rate=0.1, warmup=0, clip=0.5, weight_decay=0.2, agc=0.05)
    params = {"vision": {"w": rng.standard_normal((3, 4)), "b": np.ones(4)}, "other": rng.standard_normal((2, 2))}
    params = view_tree(flatten(params).astype("f4"), params)
    ours = AdamW(params, config, no_decay=("other",))
    target = rng.standard_normal(ours.vector.size).astype("f4")
    goal = with_torch.torch.to_torch(view_tree(target, params))

    def loss(p, batch, config):
        pairs = zip(named_leaves(p).values(), named_leaves(goal).values(), strict=True)
        return sum(((x - y) ** 2).sum() for x, y in pairs)

    monkeypatch.setattr(with_torch.torch.twins, "loss", loss, raising=False)
    twin = with_torch.torch.TrainingStep(Step(ours, None, None, "loss", {}, None, ("other",)))
    for step in range(3):
        gradient = 2 * (ours.vector - target)
        adaptive_clip(view_tree(gradient, params)["vision"], ours.params["vision"], config.agc)
        ours.step(gradient, step, 10**9)
        twin.step()
    for name, leaf in named_leaves(ours.params).items():
        np.testing.assert_allclose(named_leaves(twin.params)[name].detach().numpy(), leaf, atol=1e-5)
    assert np.abs(ours.vector - flatten(params)).max() > 0.1


def test_the_decoding_line_gives_the_tokens_of_flamingo_without_a_cache(monkeypatch):
    monkeypatch.setattr(part_lines, "DECODED", 6)
    inputs, calls, plain = contest.Inputs(False), [], part_lines.flamingo

    def recorded(*arguments, **options):
        calls.append((arguments, options))
        return plain(*arguments, **options)

    monkeypatch.setattr(part_lines, "flamingo", recorded)
    tokens = LINES["decode"].build(inputs).ours()
    assert [arguments[2].shape[1] for arguments, _ in calls] == [3, 1, 1, 1, 1, 1]  # the prompt, then token by token
    params, frozen, prompt, phi, visual, config = calls[0][0]
    for i, token in enumerate(tokens):
        row = np.concatenate([prompt, np.array([tokens[:i]], int)], axis=1)
        row_phi = np.concatenate([phi, np.ones((1, i), int)], axis=1)
        assert token == plain(params, frozen, row, row_phi, visual, config)[0, -1].argmax()
    assert len(tokens) == 6


# ---- the table -------------------------------------------------------------------------------


class FakeInputs:
    def __init__(self, with_torch):
        self.torch = self if with_torch else None

    def libraries(self):
        return "fast products"


def fake_lines(monkeypatch):
    """A line of every kind. Returns the list of the number of workers at each build."""
    built = []

    def build(difference=None, other=True):
        def make(inputs):
            built.append(ops.workers())
            return Contest(print, print if other and inputs.torch else None, difference if inputs.torch else None)

        return make

    fakes = {
        "step": Line("against PyTorch", ">= 1.0", build(lambda: 1e-6)),
        "growth": Line("against ourselves", "<= 1.5", lambda i: Contest(print, print), lambda a, b: a / b, False),
        "alone": Line("against nobody", "<= 5 ms", lambda i: Contest(print), against_torch=False),
    }
    monkeypatch.setattr(run, "LINES", fakes)
    monkeypatch.setattr(run, "Inputs", FakeInputs)
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
    assert len(said) == 9 and "1.50" in said[3] and "1.0e-06" in said[3] and "against PyTorch" in said[3]
    assert report["machine"]["versions"]["torch"][0].isdigit() and "fast products" in said[1]
    assert all(text in said[0] for text in (report["machine"]["processor"], *report["machine"]["blas"]))
    assert json.loads(json.dumps(report)) == report


def test_the_report_without_torch(monkeypatch, no_clock):
    without_torch(monkeypatch)
    fake_lines(monkeypatch)
    said = []
    report = run.bench(threads=[1], say=said.append)
    assert "PyTorch is not installed" in said[0] and len(said) == 6
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


def test_a_line_that_cannot_run_says_why_and_the_next_line_runs(monkeypatch, no_clock):
    def build(inputs):
        raise NotRun("no compiler here")

    fake_lines(monkeypatch)
    monkeypatch.setitem(run.LINES, "step", Line("what", "", build, minutes=1.5))
    said = []
    report = run.bench(threads=[1], say=said.append)
    row = report["lines"]["step"]
    assert row["not_run"] == "no compiler here" and row["ours_ms"] is None and row["ratio"] is None
    assert any("not run: no compiler here" in line for line in said)
    assert report["lines"]["alone"]["ours_ms"] == 2.0 and json.loads(json.dumps(report)) == report


def test_the_time_of_compilation_is_told_before_the_first_line(monkeypatch, no_clock):
    pytest.importorskip("torch")
    fake_lines(monkeypatch)
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    slow = Line("what", "", lambda inputs: Contest(print), minutes=1.5)
    monkeypatch.setitem(run.LINES, "slow", slow)
    said = []
    run.bench(threads=[1, 2], say=said.append)
    (announced,) = (i for i, line in enumerate(said) if "slow: PyTorch compiles for about 3 minutes" in line)
    assert announced < said.index(run.HEAD)
    said.clear()
    run.bench(only=["alone"], threads=[1], say=said.append)
    assert not any("compiles" in line for line in said)


def test_what_is_wanted_depends_on_the_threads():
    line = LINES["contrastive_step"]
    assert (line.wanted_with(1), line.wanted_with(2)) == (">= 1.05", ">= 1.0")
    assert LINES["flamingo_step"].wanted_with(2) == LINES["flamingo_step"].wanted_with(1) == ">= 1.3"


def test_settings_of_blas_are_ignored(tmp_path):
    """The report names the same kernels as without the settings."""
    plain, changed = (tmp_path / name for name in ("plain.json", "changed.json"))
    command = [sys.executable, "-m", "tinyflamingo", "bench", "--only", "import", "--threads", "1", "--json"]
    settings = {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_L2_SIZE": "1"}
    without = {name: value for name, value in os.environ.items() if name not in settings}
    first = subprocess.run([*command, plain], env=without, check=True, capture_output=True, text=True).stdout
    second = subprocess.run(
        [*command, changed], env=without | settings, check=True, capture_output=True, text=True
    ).stdout
    blas = [json.loads(path.read_text())["machine"]["blas"] for path in (plain, changed)]
    assert blas[0] == blas[1] and blas[0][0] in second
    assert "ignored" not in first and all(f"{name} is ignored" in second for name in settings)


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


# ---- whole steps and new processes ------------------------------------------------------------


def test_the_measured_steps_are_short_and_long_ones_as_in_training():
    steps = job_lines.measured_steps(2000)
    assert len(steps) == 20 and steps[:5] == [200, 201, 202, 203, 600] and max(steps) < 2000
    assert sum(step % 4 == 3 for step in steps) == 5


@pytest.mark.parametrize("name", ["job_step_contrastive", "job_step_language", "job_step_flamingo"])
def test_real_steps_have_the_gradients_of_steps_with_ready_batches(monkeypatch, name):
    monkeypatch.setattr(job_lines, "measured_steps", lambda steps: [3, steps // 2])
    with ops.use_workers(1):
        contest = LINES[name].build(small_inputs())
        assert contest.difference() == 0.0
        contest.ours()
        contest.other()
        assert contest.difference() == 0.0  # both sides read the same parameters, which have moved


def small_inputs():
    """Inputs with the stages of the smoke preset and an untrained model."""
    from tinyflamingo.training.presets import get_preset
    from tinyflamingo.training.run import tinyworld_tokenizer
    from tinyflamingo.variants.registry import untrained

    inputs, preset = contest.Inputs(False), get_preset("smoke")
    inputs.preset = preset
    inputs.model = untrained(np.random.default_rng(0), preset.config, tinyworld_tokenizer(preset))
    return inputs


def test_a_cold_start_ends_with_the_first_step_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(job_lines.tempfile, "tempdir", str(tmp_path))
    read, seen = job_lines._read_until, []

    def until(pipe, text):
        read(pipe, text)
        seen.extend(path.name for path in tmp_path.glob("*/run/*"))

    monkeypatch.setattr(job_lines, "_read_until", until)
    with ops.use_workers(1):
        job_lines.cold_start(None, "smoke").ours()
    assert "state.npz" in seen and "metrics.json" not in seen
    assert not list(tmp_path.iterdir())


def test_a_cold_start_that_fails_says_why():
    with pytest.raises(NotRun, match="train ended before its first step: .*unknown preset 'huge'"):
        job_lines.cold_start(None, "huge").ours()


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
    """70 queries: the first sees one key, the last sees all 70."""
    q, k, v = rng.standard_normal((3, 1, 70, 2, 3))
    r, u, visible_from = rng.standard_normal((70, 2, 3)), np.zeros((2, 3)), np.zeros((1, 70), int)
    product = 2 * 2 * 3 * (70 * 71 // 2)
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
