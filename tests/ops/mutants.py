"""Mutants of the hand-written gradients: the syntax tree of their source with one change.

A hand-written gradient is a function that ``defvjp``, ``defvjp_argnums`` or ``defvjp_all`` registers, with every
function of the fast floor that it calls: NumPy's kernels, and Numba's kernels as plain Python. A mutant changes one
expression:

* sign: a sum becomes a difference or the reverse, also in ``+=``. Or a minus is removed. Or a product is negated, or a
  value that is written to a part of an array, unless the expression around it gives the same mutant.
* term: one side of a sum or difference is dropped, or an augmented assignment, or a value that is written to a part of
  an array.
* transpose: a transposition is dropped, or an operand of a matrix product gets one. In kernels two indices of an
  element, or the two tables of a matrix, are exchanged.

Only values are changed, not indices: an expression counts if it gives floating-point numbers when the cases run
(``Engine`` records them). Not changed: positions, shapes and lengths of blocks, constants, conditions, code of forward
alone, and the reference floor.
"""

import ast
import contextlib
import copy
import functools
import inspect
import sys
from typing import NamedTuple

import numpy as np
import ops_cases
from autograd import core

from tinyflamingo import ops
from tinyflamingo.ops import (
    fast,
    fast_attention,
    fast_conv,
    fast_relative,
    fast_segment,
    kernels,
    kernels_numba,
    kernels_numpy,
    product_kernels_numba,
    reference,
    register_tile,
    segment_blocks,
    shapes,
)

REGISTERING = (fast, fast_attention, fast_conv, fast_relative, fast_segment)  # files with hand-written gradients
KERNELS = {"numpy": (kernels_numpy,), "numba": (kernels_numba, product_kernels_numba, register_tile)}
MODULES = {"numpy": (*REGISTERING, segment_blocks, shapes, kernels_numpy), "numba": KERNELS["numba"]}
ALL = sum(MODULES.values(), ())
TOLERANCE = 1e-10  # between the floors
ERRORS = (ValueError, IndexError, TypeError, ArithmeticError)  # from wrong shapes and numbers, not from wrong names


# ---------------------------------------------------------------- which functions


class Part(NamedTuple):
    """A function of a module, or a statement that registers a gradient (the gradient may be a lambda in it)."""

    module: object
    name: str
    tree: ast.stmt

    def __str__(self):
        return f"{self.module.__name__.rpartition('.')[2]}.{self.name}"


@functools.cache
def _body(module):
    return ast.parse(inspect.getsource(module)).body


@functools.cache
def _functions(module):
    """{name: part} without decorators, so that Numba's kernels are plain Python."""
    parts = {}
    for tree in _body(module):
        if isinstance(tree, ast.FunctionDef):
            tree.decorator_list = []
            parts[tree.name] = Part(module, tree.name, tree)
    return parts


def _registrations(module):
    for tree in _body(module):
        match tree:
            case ast.Expr(ast.Call(ast.Name("defvjp" | "defvjp_argnums" | "defvjp_all"))):
                yield tree


def _called(module, tree):
    """The parts that a tree names: functions of the package, ``kernels.name`` or ``module.name``."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name("kernels" | "module"), name):
                yield from (_functions(m)[name] for m in ALL if m not in REGISTERING and name in _functions(m))
            case ast.Name(name):
                home = sys.modules.get(getattr(vars(module).get(name), "__module__", None))
                if home and home.__name__.startswith(ops.__name__) and home is not reference:
                    yield _functions(home)[name]


def gradients():
    """{name of a primitive: the parts of its gradients, with kernels}."""
    by_primitive = {}
    for module in REGISTERING:
        for tree in _registrations(module):
            primitive, *makers = tree.value.args
            parts = by_primitive[primitive.id] = [Part(module, f"defvjp of {primitive.id}", tree)]
            waiting = [part for maker in makers for part in _called(module, maker)]
            while waiting:
                part = waiting.pop()
                if part not in parts:
                    parts.append(part)
                    waiting += _called(part.module, part.tree)
    return by_primitive


# ---------------------------------------------------------------- which changes


class Mutant(NamedTuple):
    """`old` in a part becomes `new`. It counts if the value of `watched` is floats with at least `axes` axes."""

    part: Part
    kind: str
    old: ast.AST
    new: ast.AST
    watched: ast.expr
    axes: int = 0

    def __str__(self):
        return f"{self.part}: {ast.unparse(self.old)}  ->  {ast.unparse(self.new)}"

    def tree(self):
        """The tree of the part with the change."""
        return _replaced(self.part.tree, self.old, self.new)


def mutants(part):
    """All mutants of a part, in the order of its nodes."""
    parents = {id(child): node for node in ast.walk(part.tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(part.tree):
        parent = parents.get(id(node))
        for changes in (_sums, _assignments, _minus, _products, _transpositions):
            yield from (Mutant(part, *change) for change in changes(node, parent))
        if part.module not in REGISTERING:  # in REGISTERING indices may be slices
            yield from (Mutant(part, *change) for change in _indices(node))


def _replaced(tree, old, new):
    """A copy of the tree with `new` in place of `old`."""
    return copy.deepcopy(tree, {id(old): new})


def _with(node, **fields):
    new = copy.copy(node)
    vars(new).update(fields)
    return new


def _negative(node):
    return ast.UnaryOp(ast.USub(), node)


SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add}
NAMES = {"add": "subtract", "subtract": "add"}


def _sums(node, parent):
    match node:
        case ast.BinOp(a, ast.Add() | ast.Sub() as sign, b):
            yield "sign", node, _with(node, op=SIGNS[type(sign)]()), node
            yield "term", node, a, node
            yield "term", node, b if isinstance(sign, ast.Add) else _negative(b), node
        case ast.Call(ast.Attribute(attr="add" | "subtract" as name), [a, b]):
            yield "sign", node, _with(node, func=_with(node.func, attr=NAMES[name])), node
            yield "term", node, _with(node, args=[a, ast.Constant(0)]), node
            yield "term", node, _with(node, args=[ast.Constant(0), b]), node


def _assignments(node, parent):
    match node:
        case ast.AugAssign(_, sign, value):
            if type(sign) in SIGNS:
                yield "sign", node, _with(node, op=SIGNS[type(sign)]()), value
            elif not isinstance(value, ast.UnaryOp):
                yield "sign", node, _with(node, value=_negative(value)), value
            yield "term", node, ast.Pass(), value
        case ast.Assign([ast.Subscript()], value):
            if not isinstance(value, (ast.BinOp, ast.UnaryOp)):
                yield "sign", node, _with(node, value=_negative(value)), value
            yield "term", node, _with(node, value=ast.BinOp(ast.Constant(0), ast.Mult(), value)), value


def _minus(node, parent):
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            yield "sign", node, operand, node


def _products(node, parent):
    operands, matrices = _operands(node)
    if operands and not _signed(node, parent):
        yield "sign", node, _replaced(node, operands[0], _negative(operands[0])), node
    for x in operands if matrices else []:
        if not list(_transpositions(x, node)):
            turned = ast.parse(f"np.swapaxes({ast.unparse(x)}, -1, -2)", mode="eval").body
            yield "transpose", node, _replaced(node, x, turned), x, 2


def _operands(node):
    """The operands of a product, and whether they may be matrices."""
    match node:
        case ast.BinOp(a, ast.MatMult(), b) | ast.Call(ast.Attribute(attr="matmul"), [a, b]):
            return [a, b], True
        case ast.Call(ast.Attribute(attr="einsum"), [_, *operands]):
            return operands, True
        case ast.BinOp(a, ast.Mult() | ast.Div(), b) | ast.Call(ast.Attribute(attr="multiply"), [a, b]):
            return [a, b], False
    return [], False


def _signed(node, parent):
    """Whether another mutant, of the expression around a product, changes its sign."""
    match parent:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return parent.right is node
        case ast.BinOp() | ast.AugAssign() | ast.UnaryOp(ast.USub()):
            return True
    return False


def _transpositions(node, parent):
    match node:
        case (
            ast.Attribute(x, "T")
            | ast.Call(ast.Attribute(x, "transpose" | "swapaxes"))
            | ast.Call(ast.Name("transposed" | "heads_first"), [x])
        ):
            yield "transpose", node, x, node, 2


def _indices(node):
    match node:
        case ast.Subscript(_, ast.Tuple(indices) as place, ast.Load()):
            named = [i for i, index in enumerate(indices) if isinstance(index, ast.Name)]
            if len(named) > 1:
                yield "transpose", node, _with(node, slice=_with(place, elts=_exchanged(indices, *named[-2:]))), node
        case ast.Call(ast.Name("add_product"), args):
            yield "transpose", node, _with(node, args=_exchanged(args, 1, 2)), args[0]


def _exchanged(items, i, j):
    items = list(items)
    items[i], items[j] = items[j], items[i]
    return items


# ---------------------------------------------------------------- how they are installed


@contextlib.contextmanager
def restored():
    """At the end of the block the names of the modules and the registered gradients are as before."""
    spaces = [core.primitive_vjps, vars(kernels), *map(vars, ALL)]
    before = [dict(space) for space in spaces]
    try:
        yield
    finally:
        for space, names in zip(spaces, before, strict=True):
            for name in space.keys() - names.keys():
                del space[name]
            space.update(names)


def install(part, tree):
    """Replace a part by a tree: in its module, in modules that import it, and in the registered gradients."""
    space = vars(part.module)
    before = space.get(part.name)
    _execute(tree, space)
    if before is not None:
        for other in map(vars, (kernels, *ALL)):
            other.update({name: space[part.name] for name, value in other.items() if value is before})
        for registration in _registrations(part.module):
            if any(isinstance(n, ast.Name) and n.id == part.name for n in ast.walk(registration)):
                _execute(registration, space)


def _execute(tree, space):
    module = ast.fix_missing_locations(ast.Module([tree], []))
    exec(compile(module, "<mutant>", "exec"), space)


def _watching(part, watched):
    """A copy of the part's tree in which ``_watch`` gets the values of the expressions `watched`."""
    copies = {}
    tree = copy.deepcopy(part.tree, copies)
    keys = {id(copies[key]): key for key in watched if key in copies}

    class Watching(ast.NodeTransformer):
        def visit(self, node):
            visited = self.generic_visit(node)
            key = keys.get(id(node))
            return ast.Call(ast.Name("_watch", ast.Load()), [ast.Constant(key), visited], []) if key else visited

    return Watching().visit(tree)


def _axes(value):
    """Number of axes of an array or a number; -1 if it is not float."""
    floats = isinstance(value, float) or getattr(getattr(value, "dtype", None), "kind", "") == "f"
    return np.ndim(value) if floats else -1


# ---------------------------------------------------------------- running them


class Engine:
    """The mutants of the "numpy" files (``fast*.py`` and NumPy's kernels) or of the "numba" files (Numba's kernels, run
    as plain Python), and the cases that can notice them.
    """

    def __init__(self, name, cases):
        self.name, self.cases = name, cases
        self.expected = {case: ops_cases.on_floor("reference", *both) for case, both in cases.items()}
        parts = dict.fromkeys(part for parts in gradients().values() for part in parts if part.module in MODULES[name])
        candidates = [mutant for part in parts for mutant in mutants(part)]
        self.axes = self._watch(parts, {id(mutant.watched): {} for mutant in candidates})
        self.unreached = [mutant for mutant in candidates if not self.axes[id(mutant.watched)]]
        self.mutants = [mutant for mutant in candidates if self.cases_of(mutant)]

    @contextlib.contextmanager
    def running(self):
        """The fast floor uses the kernels of this engine inside the block."""
        with restored():
            kernels.ENGINE = self.name
            for module in KERNELS[self.name]:
                for name in _functions(module):
                    function = vars(module)[name]
                    vars(module)[name] = vars(kernels)[name] = getattr(function, "py_func", function)
            yield

    def _watch(self, parts, records):
        """{watched expression: {case that reaches it: axes of its value}}, the smallest cases first."""

        def watch(key, value):
            if case not in records[key]:
                records[key][case] = _axes(value)
            return value

        with self.running():
            for part in sorted(parts, key=lambda part: isinstance(part.tree, ast.Expr)):  # registrations last
                vars(part.module)["_watch"] = watch
                install(part, _watching(part, records))
            for case in sorted(self.cases, key=lambda case: sum(x.size for x in self.cases[case][1])):
                assert not self.floors_differ(case), case
        return records

    def cases_of(self, mutant):
        """The cases that run the changed expression."""
        return [case for case, axes in self.axes[id(mutant.watched)].items() if axes >= mutant.axes]

    def floors_differ(self, case):
        """Whether the fast floor gives other numbers than the reference ("numbers"), or an "error"."""
        return _noticed(lambda: ops_cases.compare(self.expected[case], self._fast(case), TOLERANCE))

    def _fast(self, case):
        return ops_cases.on_floor("fast", *self.cases[case])

    def differences_differ(self, case):
        """Whether the gradients differ from finite differences ("numbers"), or an "error"."""
        function, args = self.cases[case]
        with ops.use("fast"):
            return _noticed(lambda: ops.check_grad(function, *args, directions=1))

    def noticed(self, mutant, check):
        """Return "numbers" if a case gives wrong numbers, "error" if cases only raise, "" if no case notices."""
        result = ""
        with restored(), np.errstate(all="ignore"):
            install(mutant.part, mutant.tree())
            for case in self.cases_of(mutant):
                result = check(case) or result
                if result == "numbers":
                    break
        return result


def _noticed(check):
    try:
        check()
    except AssertionError:
        return "numbers"
    except ERRORS:
        return "error"
    return ""
