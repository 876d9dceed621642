"""Fused operations with gradients that are written by hand: `primitive` and two ways to register the gradient.

The same as in autograd, with one difference: a call in which nothing is differentiated goes straight to the function.
A completion makes a hundred such calls for each token, and autograd's search for boxes would take a sixth of its time.
Implements no section of the chapter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from autograd import extend
from autograd.tracer import box_types


def primitive(function: Any) -> Any:
    """``function(*args)``, which autograd records as one node if an argument is a box."""
    traced = extend.primitive(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args) if box_types.isdisjoint(map(type, args)) else traced(*args)

    call.__dict__.update(traced=traced, fun=function)
    return call


def defvjp(operation: Any, *makers: Callable) -> None:
    """autograd's ``defvjp`` for a `primitive` of this file: one maker for each argument."""
    extend.defvjp(operation.traced, *makers)


def defvjp_argnums(operation: Any, maker: Callable) -> None:
    """autograd's ``defvjp_argnums`` for a `primitive` of this file."""
    extend.defvjp_argnums(operation.traced, maker)


def defvjp_all(operation: Any, backward: Callable) -> None:
    """``backward(g, *args)`` gives the gradient of the first argument of ``operation(*args)``, or several (a tuple).

    The gradients of most fused operations share work, so one function computes them together.
    """

    def maker(argnums, ans, args, kwargs):
        def pull(g):
            gradients = backward(g, *args)
            return tuple(gradients[i] for i in argnums) if isinstance(gradients, tuple) else (gradients,)

        return pull

    defvjp_argnums(operation, maker)
