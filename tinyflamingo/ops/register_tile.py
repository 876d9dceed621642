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
        if not all(isinstance(array.dtype, types.Float) for array in (x, w, bias, out)):
            raise numba.TypingError("a tile has floats")
        return types.void(x, rows, columns, w, pitch, width, bias, out, places, add), _loops

    @kernel(EXACT)
    def compiled(x, rows, columns, w, pitch, width, bias, out, places, add):
        vectors(x, rows, columns, w, pitch, width, bias, out, places, add)

    compiled.py_func = definition
    return compiled


@_in_registers
def add_product(x, rows, columns, w, pitch, width, bias, out, places, add):
    """out[i] = bias + x @ w, or with `add`: out[i] += x @ w. All arrays are flat and may have different precisions.

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
# These functions run when the kernel is compiled. What they write with ``builder`` runs later: a Python loop here is a
# repetition in the code, a loop in the code is a ``for_range``.

NAMES = ("x", "rows", "columns", "w", "pitch", "width", "bias", "out", "places", "add")
WHOLE = ir.IntType(64)


def _loops(context, builder, signature, args):
    """Cut the result into tiles: panels as wide as possible, and in them ROWS rows at a time, then single rows."""
    kinds = dict(zip(NAMES, signature.args, strict=True))
    values = SimpleNamespace(**dict(zip(NAMES, args, strict=True)), kinds=kinds)
    for name in ("x", "rows", "columns", "w", "bias", "out", "places"):
        array = context.make_array(kinds[name])(context, builder, getattr(values, name))
        setattr(values, name, array.data)
        setattr(values, f"count_of_{name}", builder.extract_value(array.shape, 0))
    vector, lane = LANES * 4 // _bytes(values.out.type.pointee), WHOLE(0)
    for lanes in (3 * vector, 2 * vector, vector + vector // 2, vector, vector // 2, 1):
        lanes_end = _multiple(builder, lane, values.width, lanes)
        with cgutils.for_range_slice(builder, lane, lanes_end, WHOLE(lanes)) as (n, _):
            row = WHOLE(0)
            for rows in (ROWS, 1):
                rows_end = _multiple(builder, row, values.count_of_rows, rows)
                with cgutils.for_range_slice(builder, row, rows_end, WHOLE(rows)) as (i, _):
                    _tile(builder, values, i, n, rows, lanes)
                row = rows_end
        lane = lanes_end
    return context.get_dummy_value()


def _multiple(builder, start, stop, step):
    """The last number that is at most `stop` and a multiple of `step` from `start`."""
    return builder.sub(stop, builder.srem(builder.sub(stop, start), WHOLE(step)))


def _tile(builder, values, i, n, rows, lanes):
    """`rows` rows from i and `lanes` numbers from n: load or start the sums, loop over the columns, store the sums."""
    element = values.out.type.pointee
    left = [builder.gep(values.x, [_entry(builder, values.rows, i, r)]) for r in range(rows)]
    result = [builder.gep(values.out, [builder.add(_entry(builder, values.places, i, r), n)]) for r in range(rows)]
    start = builder.gep(values.bias, [n])
    sums = []
    for place in result:
        source = builder.select(values.add, place, start)
        sums.append([cgutils.alloca_once_value(builder, part) for part in _load(builder, source, lanes)])
    with cgutils.for_range(builder, values.count_of_columns) as loop:
        column = _entry(builder, values.columns, loop.index)
        right = builder.gep(values.w, [builder.add(builder.mul(loop.index, values.pitch), n)])
        right = [_converted(builder, part, element) for part in _load(builder, right, lanes)]
        for pointer, row in zip(left, sums, strict=True):
            number = _converted(builder, builder.load(builder.gep(pointer, [column])), element)
            for total, part in zip(row, right, strict=True):
                product = builder.fmul(_repeated(builder, number, part.type), part, flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
    for place, row in zip(result, sums, strict=True):
        _store(builder, [builder.load(total) for total in row], place)


def _entry(builder, table, index, more=0):
    """The entry of a table at index + more."""
    return builder.load(builder.gep(table, [builder.add(index, WHOLE(more))]))


def _parts(builder, pointer, lanes):
    """Pointers to vectors that together have `lanes` numbers: of LANES numbers, and at the end smaller powers of 2."""
    at, length = 0, LANES * 4 // _bytes(pointer.type.pointee)
    while at < lanes:
        while at + length > lanes:
            length //= 2
        kind = ir.VectorType(pointer.type.pointee, length).as_pointer()
        yield builder.bitcast(builder.gep(pointer, [WHOLE(at)]), kind)
        at += length


def _load(builder, pointer, lanes):
    size = _bytes(pointer.type.pointee)
    return [builder.load(part, align=size) for part in _parts(builder, pointer, lanes)]


def _store(builder, vectors, pointer):
    lanes = sum(vector.type.count for vector in vectors)
    for vector, part in zip(vectors, _parts(builder, pointer, lanes), strict=True):
        builder.store(vector, part, align=_bytes(pointer.type.pointee))


def _bytes(element):
    return 4 if isinstance(element, ir.FloatType) else 8


def _converted(builder, value, element):
    """A number or a vector in the precision of the result."""
    vector = isinstance(value.type, ir.VectorType)
    before = value.type.element if vector else value.type
    if before == element:
        return value
    convert = builder.fpext if _bytes(before) < _bytes(element) else builder.fptrunc
    return convert(value, ir.VectorType(element, value.type.count) if vector else element)


def _repeated(builder, number, kind):
    """A vector of a number in every place."""
    undefined, first = ir.Constant(kind, ir.Undefined), ir.IntType(32)(0)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
    return builder.shuffle_vector(builder.insert_element(undefined, number, first), undefined, everywhere)
