"""A shape check small enough to leave in the code: ``expect(x, "B T D", B=2)``.

Shape comments that nothing checks go wrong. This one is checked when the environment has
TINYFLAMINGO_CHECK=1 (the tests set it) and costs one ``if`` when it has not.

It is not a type system: it knows letters, numbers and a leading "...", and nothing of dtypes.
"""

import contextlib
import os

ENABLED = os.environ.get("TINYFLAMINGO_CHECK", "0") == "1"


def expect(x, pattern, **sizes):
    """Return ``x`` after checking its shape against ``pattern``, e.g. ``expect(x, "B T D", D=64)``.

    A letter in ``sizes`` must have that size; a letter that is not takes the size it meets first.
    A number stands for itself; "..." (first) for any leading axes. Raises ValueError.
    """
    if ENABLED:
        _compare(tuple(x.shape), pattern, sizes)
    return x


def _compare(shape, pattern, sizes):
    names = pattern.split()
    if names and names[0] == "...":
        names = names[1:]
        tail = shape[len(shape) - len(names) :] if len(shape) >= len(names) else None
    else:
        tail = shape if len(shape) == len(names) else None
    if tail is None:
        raise ValueError(f"expected axes '{pattern}', got {len(shape)} axes: shape {shape}")
    seen = dict(sizes)
    for name, size in zip(names, tail, strict=True):
        wanted = int(name) if name.isdigit() else seen.setdefault(name, size)
        if wanted != size:
            raise ValueError(f"axis {name} of '{pattern}' should be {wanted} but is {size}: shape {shape}")


@contextlib.contextmanager
def checking(on=True):
    """Turn the checks on (or off) for the length of a ``with`` block."""
    global ENABLED
    before, ENABLED = ENABLED, on
    try:
        yield
    finally:
        ENABLED = before
