"""Registers a gradient that is written by hand, for all arguments of a primitive at once.

autograd's ``defvjp`` takes one function for each argument. The gradients of most fused primitives share work, so one
function computes them together. Implements no section of the chapter.
"""

from __future__ import annotations

from collections.abc import Callable

from autograd.extend import defvjp_argnums


def defvjp_all(primitive: Callable, backward: Callable) -> None:
    """``backward(g, *args)`` gives the gradient of the first argument of ``primitive(*args)``, or several (a tuple)."""

    def maker(argnums, ans, args, kwargs):
        def pull(g):
            gradients = backward(g, *args)
            return tuple(gradients[i] for i in argnums) if isinstance(gradients, tuple) else (gradients,)

        return pull

    defvjp_argnums(primitive, maker)
