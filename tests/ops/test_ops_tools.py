"""The tools: ``check_grad``, ``expect``, ``watching``, ``vjp`` and ``value_and_grad``."""

import re
import threading
from pathlib import Path

import autograd.numpy as anp
import mutants
import numpy as np
import ops_cases
import pytest
from autograd import core, make_vjp
from autograd.extend import defvjp, primitive
from autograd.tracer import isbox
from float32 import assert_float32_backward

from tinyflamingo import ops
from tinyflamingo.ops import shapes
from tinyflamingo.ops.tree import named_leaves

CASES = ops_cases.build()
FILES = mutants.REGISTERING  # the files with hand-written gradients


# ---------------------------------------------------------------- mutations


def _hand_written():
    """(primitive, its gradients) for every gradient in the fast files."""
    seen = set()
    for file in FILES:
        for name in vars(file).values():
            function = getattr(name, "traced", None)
            # ``fast`` imports avg_pool2 from ``fast_conv``.
            if function in core.primitive_vjps and function not in seen:
                seen.add(function)
                yield function, core.primitive_vjps[function]


def _mutated(maker, place, change, used):
    """The same gradients, but the one of argument ``place`` is changed."""

    def new_maker(argnums, ans, args, kwargs):
        backward = maker(argnums, ans, args, kwargs)

        def new_backward(g):
            gradients = list(backward(g))
            for i, argnum in enumerate(argnums):
                if argnum == place:
                    used.append(place)
                    gradients[i] = change(gradients[i])
            return gradients

        return new_backward

    return new_maker


def _noticed(cases):
    """Whether check_grad fails for any of the cases."""
    with ops.use("fast"):
        for function, args in cases:
            try:
                ops.check_grad(function, *args, directions=1)
            except AssertionError:
                return True
    return False


def _cases_of(monkeypatch):
    """{primitive: the cases whose gradient uses it}."""
    cases = {function: [] for function, _ in _hand_written()}
    with monkeypatch.context() as patch, ops.use("fast"):
        used = set()
        for function, maker in _hand_written():

            def noting(*args, function=function, maker=maker):
                used.add(function)
                return maker(*args)

            patch.setitem(core.primitive_vjps, function, noting)
        for case in CASES.values():
            used.clear()
            ops_cases.gradients(*case)
            for function in used:
                cases[function].append(case)
    return cases


CHANGES = {
    "sign": lambda g: -g,
    "one percent": lambda g: g * 1.01,
    "first row": lambda g: np.concatenate([-g[:1], g[1:]]),
    "dropped term": lambda g: np.concatenate([0 * g[:1], g[1:]]),
    "transposed": lambda g: g.T.reshape(g.shape) if g.ndim > 1 else g[::-1],
}


@pytest.mark.parametrize("kind", CHANGES)
def test_check_grad_notices_mutations(kind, monkeypatch, capsys):
    count = 0
    for function, cases in _cases_of(monkeypatch).items():
        assert cases and not _noticed(cases), function.__name__
        maker = core.primitive_vjps[function]
        for place in range(6):
            used = []
            monkeypatch.setitem(core.primitive_vjps, function, _mutated(maker, place, CHANGES[kind], used))
            noticed = _noticed(cases)
            monkeypatch.setitem(core.primitive_vjps, function, maker)
            if used:
                assert noticed, f"{function.__name__}: {kind} of argument {place} went unnoticed"
                count += 1
    with capsys.disabled():
        print(f"\n{kind}: {count} mutated gradients, all noticed ", end="")
    assert count == 39


def test_no_other_file_writes_gradients_by_hand():
    """So FILES is complete. check.py has a probe, reference.py has erf, and gradients.py only registers."""
    package = Path(ops.__file__).parent.parent
    writing = {p.stem for p in package.rglob("*.py") if re.search(r"^\s*defvjp\w*\(", p.read_text("utf-8"), re.M)}
    assert writing - {"check", "gradients", "reference"} == {file.__name__.rpartition(".")[2] for file in FILES}


def test_check_grad_refuses_an_argument_without_influence():
    with pytest.raises(AssertionError, match="argument 1 has no influence"):
        ops.check_grad(lambda x, y: x + 0 * y, np.ones(3), np.ones(3))
    with pytest.raises(AssertionError, match="none of the arguments"):
        ops.check_grad(lambda x: x, np.arange(3))


def test_check_grad_fails_on_nan_and_on_a_wrong_shape():
    @primitive
    def broken(x):
        return x * 2

    defvjp(broken, lambda ans, x: lambda g: g * np.nan)
    with pytest.raises(AssertionError, match="argument 0"):
        ops.check_grad(broken, np.ones(3))
    defvjp(broken, lambda ans, x: lambda g: np.sum(g))
    with pytest.raises(AssertionError, match="shape"):
        ops.check_grad(broken, np.ones(3))


def test_floors_do_not_agree_if_one_gives_nan():
    with pytest.raises(AssertionError, match="the floors differ by nan"):
        ops_cases.compare([np.ones(2), np.ones(3)], [np.array([1, np.nan]), np.ones(3)], tol=1.0)


def test_assert_float32_backward_notices_float64():
    """A float64 scalar makes the gradient float64 under NumPy 2."""
    x = np.ones(3, np.float32)

    def leak(x):
        return anp.sum(assert_float32_backward(x * 1.0) * np.float64(2))

    with pytest.raises(AssertionError, match="a gradient has dtype float64 here"):
        ops.value_and_grad(lambda p: leak(p["x"]))({"x": x})


# ---------------------------------------------------------------- shapes


def test_expect_names_the_letter_and_both_sizes():
    x = np.zeros((2, 5, 7))
    assert ops.expect(x, "B T D", B=2, D=7) is x
    assert ops.expect(x, "2 T 7") is x
    with pytest.raises(ValueError, match=r"axis T of 'B T D' should be 6 but is 5.*\(2, 5, 7\)"):
        ops.expect(x, "B T D", T=6)
    with pytest.raises(ValueError, match="should be 5 but is 7"):
        ops.expect(x, "B T T")
    with pytest.raises(ValueError, match="got 3 axes"):
        ops.expect(x, "B T")
    with shapes.checking(False):
        ops.expect(x, "B T", T=6)


def test_ops_check_their_shapes(floor):
    with pytest.raises(ValueError, match="axis Din"):
        ops.linear(np.ones((2, 3)), np.ones((4, 5)))
    with pytest.raises(ValueError, match="axis H"):
        ops.attention(np.ones((1, 2, 3, 4)), np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))


# ---------------------------------------------------------------- watching


def test_watching_notes_each_operation_with_its_arguments(floor):
    x, w, notes = np.ones((2, 3)), np.ones((3, 4)), []
    with ops.watching(lambda name, args: notes.append((name, args))):
        y = ops.linear(ops.squared_relu(x), w)
        ops.max_pool3(np.ones((1, 2, 2, 1)))
    ops.relu(y)  # after the block nothing is noted
    assert [name for name, _ in notes] == ["squared_relu", "linear", "max_pool3"]
    assert notes[0][1][0] is x and notes[1][1][1] is w and notes[1][1][2] is None
    assert notes[2][1][1] == "end"  # default values are arguments too


def test_watching_gives_boxes_and_does_not_change_the_gradient(floor):
    x, w, boxes = np.ones((2, 3)), np.arange(12.0).reshape(3, 4), []
    step = ops.value_and_grad(lambda p: anp.sum(ops.gelu(ops.linear(x, p["w"]))))
    expected = step({"w": w})
    with ops.watching(lambda name, args: boxes.append([isbox(a) for a in args])):
        value, gradients = step({"w": w})
    assert boxes == [[False, True, False], [True, False]]
    assert value == expected[0]
    np.testing.assert_array_equal(gradients["w"], expected[1]["w"])


def test_watching_may_be_nested_and_ends_after_an_error(floor):
    outer, inner = [], []
    with pytest.raises(KeyError), ops.watching(lambda name, args: outer.append(name)):
        with ops.watching(lambda name, args: inner.append(name)), ops.use("reference"):
            ops.relu(np.ones(2))
        ops.sigmoid(np.ones(2))
        raise KeyError
    ops.gelu(np.ones(2))
    assert outer == ["relu", "sigmoid"] and inner == ["relu"]


def test_watching_notes_the_operations_of_all_workers(floor):
    names, meeting = [], threading.Barrier(2, timeout=20)  # breaks unless both workers run at the same time

    def work(_):
        meeting.wait()
        return ops.relu(np.ones(2))

    with ops.use_workers(2), ops.watching(lambda name, args: names.append(name)):
        ops.parallel_map(work, range(8))
    assert names == ["relu"] * 8


def test_an_error_of_the_note_stops_the_operation(floor):
    def refuse(name, args):
        raise ArithmeticError(name)

    with ops.watching(refuse), pytest.raises(ArithmeticError, match="relu"):
        ops.relu(np.ones(2))


# ---------------------------------------------------------------- vjp and value_and_grad


def _params():
    rng = np.random.default_rng(0)
    return {
        "a": {"w": rng.standard_normal((3, 4)).astype(np.float32), "b": np.zeros(4, np.float32)},
        "c": rng.standard_normal((4, 2)),
        "scale": np.array(2.0),
        "unused": {"w": np.ones((2, 2), np.float32)},
    }


def _loss(params, x):
    h = anp.tanh(anp.dot(x, params["a"]["w"]) + params["a"]["b"])
    y = anp.dot(h, params["c"]) * params["scale"] + params["scale"]
    return anp.sum(y * y)


def test_value_and_grad_equals_autograd():
    import autograd

    params, x = _params(), np.ones((5, 3), np.float32)
    value, gradients = ops.value_and_grad(_loss)(params, x)
    expected = autograd.grad(_loss)(params, x)
    assert type(value) is float and value == pytest.approx(float(_loss(params, x)))
    for path in [("a", "w"), ("a", "b"), ("c",), ("scale",), ("unused", "w")]:
        got, want, leaf = gradients, expected, params
        for key in path:
            got, want, leaf = got[key], want[key], leaf[key]
        assert got.dtype == leaf.dtype and got.shape == leaf.shape
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert list(gradients) == list(params)


def _rows(params, x):
    """A vector for each row, not a scalar."""
    return anp.dot(anp.tanh(anp.dot(x, params["a"]["w"]) + params["a"]["b"]), params["c"]) * params["scale"]


def test_vjp_equals_autograd():
    params, x, rng = _params(), np.ones((5, 3), np.float32), np.random.default_rng(1)
    y, aux, pull = ops.vjp(_rows, params, x)
    expected_pull, expected = make_vjp(_rows)(params, x)
    assert aux is None and type(y) is np.ndarray
    np.testing.assert_array_equal(y, expected)
    first = None
    for _ in range(2):  # it may be called several times, with any gradient
        g = rng.standard_normal(y.shape)
        gradients, wanted = pull(g), expected_pull(g)
        for name, gradient in named_leaves(gradients).items():
            leaf = named_leaves(params)[name]
            assert gradient.dtype == leaf.dtype and gradient.shape == leaf.shape
            np.testing.assert_allclose(gradient, named_leaves(wanted)[name], rtol=1e-5, atol=1e-6)
        first = first or (g, gradients)
    for name, gradient in named_leaves(pull(first[0])).items():
        np.testing.assert_array_equal(gradient, named_leaves(first[1])[name])


def test_vjp_of_pieces_is_vjp_of_the_whole():
    """The gradient of a batch in shards relies on this."""
    params, x = _params(), np.random.default_rng(2).standard_normal((6, 3))
    y, _, pull = ops.vjp(_rows, params, x)
    g = np.cos(y)
    whole, total = named_leaves(pull(g)), None
    for rows in (slice(0, 2), slice(2, 6)):
        part = named_leaves(ops.vjp(_rows, params, x[rows])[2](g[rows]))
        total = {n: v + total[n] if total else v for n, v in part.items()}
    for name, gradient in whole.items():
        np.testing.assert_allclose(total[name], gradient, rtol=1e-5, atol=1e-6)


def test_vjp_returns_aux_without_boxes_and_zeros_for_a_constant():
    y, aux, pull = ops.vjp(lambda p: (np.ones(3), [p["x"] * 2, "text"]), {"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(y, 1)
    assert type(aux[0]) is np.ndarray and aux[1] == "text"
    gradient = pull(np.ones(3))["x"]
    assert gradient.dtype == np.float32 and gradient.shape == (2,) and not gradient.any()


def test_value_and_grad_returns_aux_without_boxes():
    def loss(params):
        y = params["x"] * 3
        return anp.sum(y), {"y": y, "list": [y[0], "text"], "none": None}

    x = np.arange(3.0)
    (value, aux), gradients = ops.value_and_grad(loss)({"x": x})
    assert value == 9.0
    assert type(aux["y"]) is np.ndarray and isinstance(aux["list"][0], np.floating)
    assert aux["list"][1] == "text" and aux["none"] is None
    np.testing.assert_array_equal(gradients["x"], [3, 3, 3])


def test_value_and_grad_of_leaves_that_are_used_twice_or_indexed():
    def loss(params):
        return anp.sum(params["x"][1:] * params["x"][:-1]) + params["x"][0]

    _, gradients = ops.value_and_grad(loss)({"x": np.array([1.0, 2.0, 3.0])})
    np.testing.assert_array_equal(gradients["x"], [3, 4, 2])


def test_value_and_grad_of_a_constant_and_of_a_leaf():
    value, gradients = ops.value_and_grad(lambda p: 5.0)({"x": np.ones(2)})
    assert value == 5.0 and np.all(gradients["x"] == 0)
    value, gradients = ops.value_and_grad(lambda p: p["x"])({"x": np.array(4.0)})
    assert value == 4.0 and gradients["x"] == 1.0


def test_value_and_grad_nests():
    def outer(params):
        inner = lambda p: anp.sum(p["y"] ** 3)  # noqa: E731
        _, g = ops.value_and_grad(inner)({"y": np.array([2.0])})
        return anp.sum(params["x"] * g["y"])

    value, gradients = ops.value_and_grad(outer)({"x": np.array([1.5])})
    assert value == 18.0 and gradients["x"] == 12.0


def test_value_and_grad_errors():
    with pytest.raises(ValueError, match=r"scalar, not an array of shape \(2,\)"):
        ops.value_and_grad(lambda p: p["x"])({"x": np.ones(2)})
    with pytest.raises(TypeError, match=r"params\['a'\]\['n'\] should be .* array of int64"):
        ops.value_and_grad(lambda p: 0.0)({"a": {"n": np.arange(3)}})
    with pytest.raises(TypeError, match="not str"):
        ops.value_and_grad(lambda p: 0.0)({"name": "x"})
