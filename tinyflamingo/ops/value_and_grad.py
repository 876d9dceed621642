"""The gradient of a loss with respect to a nested dict of arrays.

``autograd.value_and_grad`` can do this too, but its dict boxes add one node to the graph for every look-up and build
one sparse dict for every gradient. Here every leaf has its own box and all boxes share one trace, so a look-up adds no
node. The backward pass is that of autograd, but keeps the gradient of every leaf. For a hundred leaves and small layers
it takes 1.5 ms; autograd takes 28 ms with a nested dict and 10 ms with one flat tuple.

Not here: frozen parameters. They are not in ``params``. Implements no section of the chapter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.core import VJPNode, add_outgrads
from autograd.extend import vspace
from autograd.tracer import getval, isbox, new_box, toposort, trace_stack

from .types import Array, Params

_LOCK = threading.Lock()


def value_and_grad(loss_fn: Callable) -> Callable:
    """``loss_fn(params, *args) -> scalar`` or ``(scalar, aux)`` becomes a function that returns
    ``(value, gradients)`` or ``((value, aux), gradients)``.

    ``value`` is a Python float; ``gradients`` and ``aux`` are as in ``vjp``. Raises TypeError for a leaf that is not an
    array of floats, ValueError for a loss that is not a scalar.
    """

    def run(params, *args):
        value, aux, pull = vjp(loss_fn, params, *args)
        if np.ndim(value) != 0:
            raise ValueError(f"the loss must be a scalar, not an array of shape {np.shape(value)}")
        gradients = pull(vspace(value).ones())
        return (float(value) if aux is None else (float(value), aux)), gradients

    return run


def vjp(function: Callable, params: Params, *args: Any) -> tuple[Array, Any, Callable[[Array], Params]]:
    """Run ``function(params, *args) -> y`` or ``(y, aux)`` forward: returns ``(y, aux, pull)``.

    ``pull(g)`` maps the gradient of y to the gradient of ``params``, with the same structure, shapes and dtypes (nested
    dicts of float arrays; zeros for leaves that y does not use). ``aux`` may be anything in dicts, lists and tuples. It
    is returned without boxes, and is None if the function returns none.
    """
    roots: list = []
    trace = _new_trace()
    result = function(_box(params, trace, roots, "params"), *args)
    y, aux = result if isinstance(result, tuple) else (result, None)
    end = y._node if isbox(y) and y._trace == trace else None

    def pull(g):
        return _gather(params, _backward(end, g, roots) if end else {}, iter(roots))

    return getval(y), unboxed(aux), pull


def _new_trace():
    """A number above all numbers of earlier traces: of two nested traces the inner one has the higher number.

    Autograd gives its numbers free when a trace ends. With traces in several threads, two nested traces could then get
    the same number. So ours are not given free, and a lock hands them out.
    """
    with _LOCK:
        trace_stack.top += 1
        return trace_stack.top


def _box(tree, trace, roots, path):
    """The same tree with a box around every leaf. The nodes of the leaves are appended to ``roots``, in order."""
    if isinstance(tree, dict):
        return {key: _box(tree[key], trace, roots, f"{path}[{key!r}]") for key in tree}
    if not isinstance(tree, (np.ndarray, np.floating)) or tree.dtype.kind != "f":
        wrong = f"an array of {tree.dtype}" if isinstance(tree, np.ndarray) else type(tree).__name__
        raise TypeError(f"{path} should be an array of floats, not {wrong}")
    roots.append(VJPNode.new_root())
    return new_box(tree, trace, roots[-1])


def _backward(end, seed, roots):
    """{root: gradient}. Children come before parents. A node that is used twice gets the sum."""
    gradients = {end: (seed, False)}
    wanted = set(roots)
    for node in toposort(end):
        gradient = gradients[node] if node in wanted else gradients.pop(node)
        for parent, term in zip(node.parents, node.vjp(gradient[0]), strict=True):
            gradients[parent] = add_outgrads(gradients.get(parent), term)
    return gradients


def _gather(tree, gradients, roots):
    """The gradients in the structure of the parameters."""
    if isinstance(tree, dict):
        return {key: _gather(tree[key], gradients, roots) for key in tree}
    root = next(roots)
    if root not in gradients:
        return np.zeros_like(tree)
    return np.asarray(gradients[root][0], dtype=tree.dtype)


def unboxed(tree: Any) -> Any:
    """The same dicts, lists and tuples, with every autograd box replaced by its value."""
    if isinstance(tree, dict):
        return {key: unboxed(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(unboxed(value) for value in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(unboxed(value) for value in tree)
    while isbox(tree):
        tree = getval(tree)
    return tree
