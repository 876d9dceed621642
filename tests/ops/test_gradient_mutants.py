"""A flipped sign, a dropped term or a transposed operand in a hand-written gradient: the tests catch every one.

``mutants.py`` makes the mutants. The checks that test the gradients catch them, with the cases of ``ops_cases.py``: the
comparison of the floors, and finite differences.
"""

import ast
import functools
from collections import Counter

import mutants
import ops_cases
import pytest
from autograd import core

from tinyflamingo import ops
from tinyflamingo.ops import fast, fast_conv, kernels_numpy

EQUIVALENT = {}  # {text of a mutant: why it computes the same}; there is none


@functools.cache
def engine(name):
    return mutants.Engine(name, ops_cases.build())


each_engine = pytest.mark.parametrize("name", mutants.KERNELS)


@each_engine
def test_every_mutant_is_caught(name, capsys):
    """Finite differences are not enough: a mutant of code that forward and backward share is wrong in both."""
    here = engine(name)
    with here.running():
        checks = (here.floors_differ, here.differences_differ)
        assert not any(check(case) for check in checks for case in here.cases)  # without a change
        caught = [[here.noticed(mutant, check) for check in checks] for mutant in here.mutants]
    survivors = {str(mutant) for mutant, how in zip(here.mutants, caught, strict=True) if not any(how)}
    equivalent = EQUIVALENT.keys() & set(map(str, here.mutants))
    with capsys.disabled():
        print(f"\n{name}: {_summary(here.mutants, caught)}, {len(equivalent)} equivalent ", end="")
    assert survivors == equivalent


def _summary(mutated, caught):
    kinds = Counter(mutant.kind for mutant in mutated)
    floors, differences = (sum(how != "" for how in by_one) for by_one in zip(*caught, strict=True))
    raising = sum(any(how) and "numbers" not in how for how in caught)
    return (
        f"{len(mutated)} mutants ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}), "
        f"{sum(map(any, caught))} caught ({floors} by the other floor, {differences} by finite differences, "
        f"{raising} only because they raise)"
    )


def test_every_gradient_has_mutants_and_every_place_is_reached():
    mutated = engine("numpy").mutants + engine("numba").mutants
    assert engine("numpy").unreached == engine("numba").unreached == []
    assert EQUIVALENT.keys() <= {str(mutant) for mutant in mutated}
    for primitive, parts in mutants.gradients().items():
        assert all(part.module in mutants.ALL for part in parts), primitive
        assert "sign" in {mutant.kind for mutant in mutated if mutant.part in parts}, primitive


def test_nothing_stays_changed():
    def registered():
        return dict(core.primitive_vjps), dict(vars(fast)), dict(vars(fast_conv)), dict(vars(ops.kernels))

    here, before = engine("numpy"), registered()
    (mutant,) = [mutant for mutant in here.mutants if mutant.part.name == "defvjp of relu"]
    with here.running():
        assert here.noticed(mutant, here.differences_differ) == "numbers"
        assert not here.differences_differ("relu")
    assert registered() == before


@pytest.mark.parametrize(
    "line, expected",
    [
        ("a - b * c", ["a + b * c", "a", "-(b * c)"]),
        ("a + b", ["a - b", "a", "b"]),
        ("-a", ["a"]),
        ("a / b", ["-a / b"]),
        ("np.subtract(1, a, out=b)", ["np.add(1, a, out=b)", "np.subtract(1, 0, out=b)", "np.subtract(0, a, out=b)"]),
        ("a *= b", ["a *= -b", "pass"]),
        ("a[i] += b * c", ["a[i] -= b * c", "pass"]),
        ("a[i] = b", ["a[i] = -b", "a[i] = 0 * b"]),
        ("a @ b.T", ["-a @ b.T", "np.swapaxes(a, -1, -2) @ b.T", "b"]),
        ("np.matmul(a.T, b)", ["np.matmul(-a.T, b)", "np.matmul(a.T, np.swapaxes(b, -1, -2))", "a"]),
        ("a[i, j]", ["a[j, i]"]),
        ("transposed(a)", ["a"]),
    ],
)
def test_mutants_of_a_line(line, expected):
    """As text. Whether values are floats with two axes is known only when the cases run."""
    part = mutants.Part(kernels_numpy, "line", ast.parse(line).body[0])
    assert [ast.unparse(mutant.new) for mutant in mutants.mutants(part)] == expected
