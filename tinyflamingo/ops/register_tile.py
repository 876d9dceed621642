"""A register tile: the loop under convolution and attention. It multiplies small matrices at the machine's rate.

In one cycle a core with vectors of 512 bits multiplies 16 numbers by 16 others and adds the products to 16 sums. To
load these numbers takes as long, so a loop that loads two operands for each product runs at half of the rate or less.
The remedy is to use every number that was loaded several times. A *register tile* is a small block of the result, here
8 rows of 48 numbers. Its sums stay in 24 of the 32 vector registers while the loop runs over the inner index k. Each
step loads 3 vectors of the right matrix and 8 numbers of the left one, and computes 24 products of vectors with them.
An addition to a sum takes 4 cycles, but 24 sums wait for nothing. Processors with 16 registers get 4 rows.

The left matrix is read through two tables: its element (i, k) is at ``rows[i] + columns[k]``. Every matrix in memory
has such tables. So has the matrix of the windows of a picture ("im2col"), which is therefore never made.

Numba has no vectors, but its compiler LLVM has: an *intrinsic* of Numba writes code for LLVM. `add_product` is the
definition in NumPy; it also runs where nothing is compiled. Implements no section of the
chapter. Not here: large products (BLAS).
"""

from types import SimpleNamespace

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .jit import tile_size

ROWS, LANES = tile_size()


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


@overload(add_product)
def _compiled(x, rows, columns, w, pitch, width, bias, out, places, add):
    if isinstance(x.dtype, types.Float) and {w.dtype, bias.dtype, out.dtype} == {x.dtype}:
        return lambda x, rows, columns, w, pitch, width, bias, out, places, add: _in_registers(
            x, rows, columns, w, pitch, width, bias, out, places, add
        )


@intrinsic
def _in_registers(context, x, rows, columns, w, pitch, width, bias, out, places, add):
    """Write the code for LLVM. It runs once, when a kernel is compiled; the loops in the code are ``for_range``."""
    return types.void(x, rows, columns, w, pitch, width, bias, out, places, add), _loops


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

    def to_last_step(start, stop, step):
        return builder.sub(stop, builder.srem(builder.sub(stop, start), INT(step)))

    full, n = LANES * 4 // values.bytes, INT(0)
    for parts in (3 * [full], 2 * [full], [full, full // 2], [full], [full // 2], [1]):  # the vectors of a row
        end_n, i = to_last_step(n, values.width, sum(parts)), INT(0)
        with cgutils.for_range_slice(builder, n, end_n, INT(sum(parts))) as (lane, _):
            for rows in (ROWS, 1):
                end_i = to_last_step(i, values.rows_length, rows)
                with cgutils.for_range_slice(builder, i, end_i, INT(rows)) as (row, _):
                    _tile(builder, values, row, rows, lane, parts)
                i = end_i
        n = end_n
    return context.get_dummy_value()


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
    begin = [builder.select(values.add, place, at(values.bias, lane)) for place in result]
    sums = [[cgutils.alloca_once_value(builder, vector) for vector in load(place)] for place in begin]
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
    undefined, lane = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, number, lane(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, kind.count), None))
