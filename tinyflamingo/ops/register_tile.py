"""A register tile: the loop under convolution and cross-attention. It multiplies small matrices at the machine's rate.

A core with vectors of 512 bits can start one instruction a cycle that multiplies 16 numbers and adds the products to 16
sums. To load numbers takes as long as to multiply them. So a loop that loads two operands for every product runs at a
third of the rate, and one that also stores its sums is slower still. What helps is to use each number that is loaded
several times. A *register tile* is a small block of the result, here 8 rows times 48 numbers. Its 24 sums stay in 24
of the 32 vector registers while the loop runs over the inner index k. Each step loads 3 vectors of the right matrix and
8 single numbers of the left one, and makes 24 products of them. The sums are stored once, at the end.

The next step adds to the same register, and an addition takes 4 cycles. So a tile needs at least 4 sums; 24 are enough
for every processor. Processors with 16 registers get 4 rows of 3 vectors.

The left matrix is read through two tables: its element (i, k) is at ``rows[i] + columns[k]``. A matrix in memory has
such tables, and so has the matrix of the windows of a picture, which is therefore never made (``im2col``).

Numba has no vectors. Its compiler LLVM has them, and an *intrinsic* of Numba writes the code for LLVM. `add_product` is
the definition, in NumPy; it also runs where nothing is compiled. Not here: large products (BLAS).
"""

from types import SimpleNamespace

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import EXACT, kernel, tile_size

ROWS, LANES = tile_size()


def _in_registers(definition):
    """Compiled kernels get code for vectors in place of the function that is `add_product`."""
    if numba.config.DISABLE_JIT:
        return definition

    @intrinsic
    def vectors(context, x, rows, columns, w, pitch, width, bias, out, places, add):
        if not isinstance(x.dtype, types.Float) or {w.dtype, bias.dtype, out.dtype} != {x.dtype}:
            raise numba.TypingError("a tile has floats of one precision")
        return types.void(x, rows, columns, w, pitch, width, bias, out, places, add), _loops

    @kernel(EXACT)
    def compiled(x, rows, columns, w, pitch, width, bias, out, places, add):
        vectors(x, rows, columns, w, pitch, width, bias, out, places, add)

    compiled.py_func = definition
    return compiled


@_in_registers
def add_product(x, rows, columns, w, pitch, width, bias, out, places, add):
    """out = bias + x @ w, or with `add`: out += x @ w. All arrays are flat; x, w, bias and out have one precision.

    x[i, k] is at ``rows[i] + columns[k]``; w[k, n] at ``k pitch + n``, n < width; out[i, n] at ``places[i] + n``.
    2 len(rows) len(columns) width flops.
    """
    numbers = np.arange(width)
    matrix = w[pitch * np.arange(len(columns))[:, None] + numbers]
    for i in range(len(rows)):
        place = places[i] + numbers
        out[place] = (out[place] if add else bias[:width]) + x[rows[i] + columns] @ matrix


# ---------------------------------------------------------------- the same for LLVM
#
# These functions run once, when the kernel is compiled, and write code with ``builder``. A loop of Python is a
# repetition in this code; a loop in the code is a ``for_range``.

INT = ir.IntType(64)


def _loops(context, builder, signature, args):
    """Cut the result into tiles: panels as wide as possible, and in them ROWS rows at a time, then single rows."""
    names = ("x", "rows", "columns", "w", "pitch", "width", "bias", "out", "places", "add")
    values = SimpleNamespace(**dict(zip(names, args, strict=True)))
    for name, kind in zip(names, signature.args, strict=True):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, getattr(values, name))
            vars(values).update({name: array.data, f"{name}_length": builder.extract_value(array.shape, 0)})
    values.bytes = signature.args[0].dtype.bitwidth // 8
    full, n = LANES * 4 // values.bytes, INT(0)
    for parts in (3 * [full], 2 * [full], [full, full // 2], [full], [full // 2], [1]):  # the vectors of a row
        end_n, i = _last(builder, n, values.width, sum(parts)), INT(0)
        with cgutils.for_range_slice(builder, n, end_n, INT(sum(parts))) as (lane, _):
            for rows in (ROWS, 1):
                end_i = _last(builder, i, values.rows_length, rows)
                with cgutils.for_range_slice(builder, i, end_i, INT(rows)) as (row, _):
                    _tile(builder, values, row, rows, lane, parts)
                i = end_i
        n = end_n
    return context.get_dummy_value()


def _last(builder, start, stop, step):
    """The largest number that is at most `stop` and some steps after `start`."""
    return builder.sub(stop, builder.srem(builder.sub(stop, start), INT(step)))


def _tile(builder, values, row, rows, lane, parts):
    """Begin the sums of `rows` rows of vectors of lengths `parts`, loop over the columns, store the sums."""

    def at(pointer, *steps):
        for step in steps:
            pointer = builder.gep(pointer, [step])
        return pointer

    def vectors(pointer):
        starts = [at(pointer, INT(sum(parts[:j]))) for j in range(len(parts))]
        kinds = [ir.VectorType(pointer.type.pointee, n).as_pointer() for n in parts]
        return list(map(builder.bitcast, starts, kinds))

    def load(pointer):
        return [builder.load(vector, align=values.bytes) for vector in vectors(pointer)]

    left = [at(values.x, builder.load(at(values.rows, row, INT(r)))) for r in range(rows)]
    result = [at(values.out, builder.load(at(values.places, row, INT(r))), lane) for r in range(rows)]
    begin = [load(builder.select(values.add, place, at(values.bias, lane))) for place in result]
    sums = [[cgutils.alloca_once_value(builder, vector) for vector in vectors] for vectors in begin]
    with cgutils.for_range(builder, values.columns_length) as loop:
        column = builder.load(at(values.columns, loop.index))
        right = load(at(values.w, builder.mul(loop.index, values.pitch), lane))
        for pointer, totals in zip(left, sums, strict=True):
            number = builder.load(at(pointer, column))
            for total, vector in zip(totals, right, strict=True):
                product = builder.fmul(_repeated(builder, number, vector.type), vector, flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
    for place, totals in zip(result, sums, strict=True):
        for vector, total in zip(vectors(place), totals, strict=True):
            builder.store(builder.load(total), vector, align=values.bytes)


def _repeated(builder, number, kind):
    """A vector of a number in every place."""
    undefined, everywhere = (
        ir.Constant(kind, ir.Undefined),
        ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None),
    )
    return builder.shuffle_vector(builder.insert_element(undefined, number, ir.IntType(32)(0)), undefined, everywhere)
